"""The `.env` file of the working directory: settings and keys that are not to be typed each time.

A line `NAME=value` per variable. A line may begin with `export `; one that begins with # is a comment. A value may
stand in single or double quotes, which are taken off; in a value without them, white space and # begin a comment.
Nothing is replaced within values. Of a name that comes twice, the last holds.
"""

from __future__ import annotations

import re
from pathlib import Path

from rewardlab.errors import ConfigError, Problem

ENV_FILE = ".env"
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")


def read_env_file(folder: Path | None = None) -> dict[str, str]:
    """The values in a folder's `.env`, by name; none where there is no such file.

    Args:
        folder: where the file lies; None for the working directory.

    Raises:
        ConfigError: the file cannot be read. No message shows a value.
    """
    file = Path(ENV_FILE) if folder is None else folder / ENV_FILE
    try:
        # A folder of that name is somebody's virtual environment.
        if not file.is_file():
            return {}
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = Problem(str(file), str(error.strerror), "a readable file")
        raise ConfigError("the settings in .env cannot be read", [problem]) from error
    except UnicodeDecodeError:
        # The cause would show what stands in the file.
        problem = Problem(str(file), "bytes that are not UTF-8", "a UTF-8 file")
        raise ConfigError("the settings in .env cannot be read", [problem]) from None
    found = filter(None, map(_LINE.fullmatch, text.splitlines()))
    return {match[1]: _value(match[2].strip()) for match in found}


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and text.find(text[0], 1) > 0:
        return text[1 : text.find(text[0], 1)]
    return _COMMENT.sub("", text).strip()
