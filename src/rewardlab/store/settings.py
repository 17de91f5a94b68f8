"""What the environment says about where results go and who may read them.

Read when a run is made, never at import.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rewardlab.errors import ConfigError, Problem


@dataclass(frozen=True)
class Settings:
    """Results root, file group and file mode.

    Attributes:
        home: `REWARDLAB_HOME`, the folder of all runs; `runs` in the working directory by default.
        group: `REWARDLAB_GROUP`, the group that owns results; None keeps the user's.
        mode: `REWARDLAB_MODE`, octal mode of result files, e.g. 640; None keeps the umask's.
        allow_untracked: `REWARDLAB_ALLOW_UNTRACKED=1` lets runs start from a checkout whose package has files
            that git does not know, so that the record cannot restore them.
    """

    home: Path
    group: str | None = None
    mode: int | None = None
    allow_untracked: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings in `environment` (default: the process's).

        Raises:
            ConfigError: an unknown group or a mode that is no octal number, all at once.
        """
        values = os.environ if environment is None else environment
        problems: list[Problem] = []
        settings = cls(
            home=Path(values.get("REWARDLAB_HOME") or "runs"),
            group=_group(values.get("REWARDLAB_GROUP"), problems),
            mode=_mode(values.get("REWARDLAB_MODE"), problems),
            allow_untracked=values.get("REWARDLAB_ALLOW_UNTRACKED", "") not in ("", "0", "false", "no"),
        )
        if problems:
            raise ConfigError("the environment cannot be used", problems)
        return settings


def found_at_home(path: Path) -> Path | None:
    """A relative path that leads somewhere from the folder of all runs: that of a run is easily given without it."""
    if path.is_absolute():
        return None
    with suppress(ConfigError):  # what is wrong with the environment is told where it matters
        there = Settings.from_environment().home / path
        return there if there.exists() else None
    return None


def _group(name: str | None, problems: list[Problem]) -> str | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_name
    except KeyError:
        problems.append(Problem("REWARDLAB_GROUP", repr(name), "a group of this machine", "`id -Gn` lists yours."))
        return None


def _mode(text: str | None, problems: list[Problem]) -> int | None:
    if not text:
        return None
    try:
        mode = int(text, base=8)
    except ValueError:
        mode = -1
    if 0o400 <= mode <= 0o777:
        return mode
    problems.append(Problem("REWARDLAB_MODE", repr(text), "an octal file mode from 400 to 777, e.g. 640"))
    return None
