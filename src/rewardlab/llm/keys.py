"""Where the key of an endpoint comes from: the environment, else a `.env` file in the working directory.

A `.env` file has a line `NAME=value` per variable. A line may begin with `export `; one that begins with # is a
comment. A value may stand in single or double quotes, which are taken off; in a value without them, white space and
# begin a comment. Nothing is replaced within values. Of a name that comes twice, the last holds. What stands in the
file is not put into the environment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rewardlab.errors import ConfigError, Problem

ENV_FILE = ".env"
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")


def read_key(variable: str, folder: Path | None = None) -> str | None:
    """The key, None where there is none.

    Args:
        variable: its name in the environment or in the file.
        folder: where the file lies; None for the working directory.

    Raises:
        ConfigError: the file cannot be read, or the key cannot be sent. No message shows a value.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        key = _read_env(Path(ENV_FILE) if folder is None else folder / ENV_FILE).get(variable, "")
    if not all("!" <= character <= "~" for character in key):
        problem = Problem(variable, "characters that a key cannot have", "printable ASCII without white space")
        raise ConfigError("the key cannot be used", [problem])
    return key or None


def _read_env(file: Path) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError("no key", [Problem(str(file), str(error.strerror), "a readable file")]) from error
    except UnicodeDecodeError:
        # The cause would show what stands in the file.
        raise ConfigError("no key", [Problem(str(file), "bytes that are not UTF-8", "a UTF-8 file")]) from None
    found = filter(None, map(_LINE.fullmatch, text.splitlines()))
    return {match[1]: _value(match[2].strip()) for match in found}


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and text.find(text[0], 1) > 0:
        return text[1 : text.find(text[0], 1)]
    return _COMMENT.sub("", text).strip()
