"""The `.env` file of the working directory: settings that are not to be typed each time.

Read at the command line's edge alone; what the environment already says wins.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

FILE = ".env"

_OURS = re.compile(r"(?:REWARDLAB|HF|HUGGING_FACE|CUDA|TOKENIZERS)_\w+|OMP_(?:NUM_THREADS|WAIT_POLICY)|GOMP_SPINCOUNT")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")


def read_env_file(text: str) -> dict[str, str]:
    """Names and values of `NAME=value` lines, as far as they concern this program.

    Quotes around a value and ` # comments` behind an unquoted one are taken off; `export` may stand in front.
    """
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match and _OURS.fullmatch(match[1]):
            found[match[1]] = _unquoted(match[2])
    return found


def load_env_file(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Add the settings of `folder`'s `.env`, if there is one, to `environment` where it says nothing."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for name, value in read_env_file(text).items():
        environment.setdefault(name, value)


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP threads spin at barriers for a moment before they sleep; before torch is imported.

    By default they spin for long: with a core less than threads, because anything else runs on the machine, that makes
    training several times slower. Sleeping at once costs small models a third of their speed with all cores free.
    What the environment says about it wins.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "1000")


def _unquoted(value: str) -> str:
    quoted = re.fullmatch(r"(['\"])(.*)\1", value)
    return quoted[2] if quoted else re.sub(r"\s+#.*", "", value)
