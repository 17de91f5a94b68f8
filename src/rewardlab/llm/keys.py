"""Where the key of an endpoint comes from: the environment, else the `.env` file of the working directory.

What stands in the file is not put into the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

from rewardlab.errors import ConfigError, Problem
from rewardlab.store.env_file import read_env_file


def read_key(variable: str | None, folder: Path | None = None) -> str | None:
    """The key, None where there is none.

    Args:
        variable: its name in the environment or in the file; None for no key.
        folder: where the file lies; None for the working directory.

    Raises:
        ConfigError: the file cannot be read, or the key cannot be sent. No message shows a value.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip() or read_env_file(folder).get(variable, "")
    if not all("!" <= character <= "~" for character in key):
        problem = Problem(variable, "characters that a key cannot have", "printable ASCII without white space")
        raise ConfigError("the key cannot be used", [problem])
    return key or None
