"""The settings of this program in the `.env` file of the working directory.

Put into the environment at the command line's edge alone; what the environment already says wins.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

from rewardlab.store.env_file import read_env_file

_OURS = re.compile(r"(?:REWARDLAB|HF|HUGGING_FACE|CUDA|TOKENIZERS)_\w+|OMP_(?:NUM_THREADS|WAIT_POLICY)|GOMP_SPINCOUNT")


def load_env_file(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Add the settings of `folder`'s `.env`, if there is one, to `environment` where it says nothing.

    Only those that concern this program: keys of others are read where they are needed, and stay in the file.

    Raises:
        ConfigError: the file cannot be read.
    """
    for name, value in read_env_file(folder).items():
        if _OURS.fullmatch(name):
            environment.setdefault(name, value)


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP threads spin at barriers for a moment before they sleep; before torch is imported.

    By default they spin for long: with a core less than threads, because anything else runs on the machine, that makes
    training several times slower. Sleeping at once costs small models a third of their speed with all cores free.
    What the environment says about it wins.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "1000")
