"""The record of a run: what it takes to understand it and to make it again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from rewardlab.config import Config, nearest
from rewardlab.errors import Problem, RewardlabError, RunError
from rewardlab.store.files import read_json
from rewardlab.store.keys import RECORD, files_under, path_digest, paths_in
from rewardlab.store.lock import is_locked
from rewardlab.store.provenance import LARGEST_DIFF_BYTES, Code, machine, packages
from rewardlab.store.redact import Redactor

CONFIG = "config.yaml"
DIFF = "code.diff"
LOG = re.compile(r"run(\.\d+)?\.log")

_DEEPEST = 3
"""Levels of folders under the root where runs are looked for: runs, stages of studies, and one more."""


@dataclass(frozen=True)
class RunRecord:
    """A recorded run, read from its directory.

    Attributes:
        folder: the run directory.
        values: `run.json` as it stands.
    """

    folder: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record in `folder`.

        Raises:
            DataError: the record is missing or no JSON.
            RunError: it is JSON, but no record.
        """
        values = read_json(folder / RECORD)
        if not isinstance(values, dict) or not values.get("sessions"):
            problem = Problem(str(folder / RECORD), "something else", "a run's record", "Delete the folder.")
            raise RunError("not the record of a run", [problem])
        return cls(folder, values)

    @property
    def verb(self) -> str:
        """What ran."""
        return str(self.values.get("verb", ""))

    @property
    def status(self) -> str:
        """running, done, failed, stopped, or interrupted (killed: marked running, but nobody writes)."""
        recorded = str(self.values.get("status", ""))
        return "interrupted" if recorded == "running" and not is_locked(self.folder) else recorded

    @property
    def started(self) -> str:
        """When the first session began (UTC)."""
        return str(self.values["sessions"][0].get("started", ""))

    @property
    def seconds(self) -> float:
        """Wall time of all sessions: of those that ended, and so far of one that is running."""
        ended = float(sum(session.get("seconds", 0.0) for session in self.values["sessions"]))
        if self.status != "running":
            return ended
        began = datetime.fromisoformat(self.values["sessions"][-1]["started"])
        return ended + max(0.0, (datetime.now(UTC) - began).total_seconds())

    @property
    def command(self) -> str:
        """The exact command of the last session."""
        return str(self.values["sessions"][-1].get("command", ""))

    @property
    def findings(self) -> list[str]:
        """What the run found, in plain words."""
        return [str(line) for line in self.values.get("findings", [])]

    def is_whole(self) -> bool:
        """Whether the run is done and every result it recorded still has its size."""
        results = self.values.get("results")
        return self.status == "done" and isinstance(results, dict) and results == results_in(self.folder)

    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return read_config(self.folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration recorded in a run directory.

    Raises:
        RunError: it is missing or unreadable.
    """
    try:
        loaded = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = Problem(str(folder / CONFIG), str(error), "the configuration that every run writes")
        raise RunError("cannot read a run's configuration", [problem]) from error
    return loaded if isinstance(loaded, dict) else {}


def find_runs(root: Path) -> list[RunRecord]:
    """Every readable run under `root`, oldest first; stages of studies are runs too."""
    found = []
    for folder in _folders_under(root, _DEEPEST):
        with suppress(RewardlabError):
            if (folder / RECORD).is_file():
                found.append(RunRecord.read(folder))
    return sorted(found, key=lambda record: (record.started, str(record.folder)))


def _folders_under(root: Path, depth: int) -> Iterator[Path]:
    """Folders at most so many levels below; one that somebody deletes meanwhile has none."""
    try:
        folders = [Path(entry) for entry in os.scandir(root) if entry.is_dir()]
    except OSError:
        return
    for folder in folders:
        yield folder
        if depth > 1:
            yield from _folders_under(folder, depth - 1)


def find_run(root: Path, name: str) -> RunRecord:
    """The run called `name` (relative to `root`), or in the folder `name`.

    Raises:
        RunError: there is none; names the nearest.
    """
    for folder in (root / name, Path(name)):
        if (folder / RECORD).is_file():
            return RunRecord.read(folder)
    known = [record.folder.relative_to(root).as_posix() for record in find_runs(root)]
    raise RunError("no such run", [Problem(str(root / name), "nothing", "a run directory", nearest(name, known))])


def facts(config: Config, code: Code, redactor: Redactor) -> dict[str, Any]:
    """The part of a record that is known before the run starts, secrets taken out."""
    resolved = redactor.value(config.model_dump(mode="json"))
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith("REWARDLAB_")}
    return {
        "seeds": dict(_seeds(resolved)),
        "inputs": [input_facts(path) for path in paths_in(config.model_dump())],
        "code": code.as_dict() | {"diff_recorded": code.diff_bytes <= LARGEST_DIFF_BYTES},
        "packages": dict(packages()),
        "machine": machine(),
        "environment": redactor.value(environment),
    }


def input_facts(path: Path) -> dict[str, str]:
    """Name and content of an input file or folder."""
    return {"path": str(path), "sha256": path_digest(path)}


def session(command: Sequence[str] | None, redactor: Redactor) -> dict[str, Any]:
    """The start of one process's work on a run; `command` is the process's own by default."""
    words = redactor.command(list(sys.orig_argv) if command is None else command)
    return {"command": shlex.join(words), "directory": _directory(redactor), "started": now(), "status": "running"}


def _directory(redactor: Redactor) -> str | None:
    """Where relative paths of command and configuration begin; None where that folder is gone."""
    try:
        return redactor.text(str(Path.cwd()))
    except FileNotFoundError:
        return None


def results_in(folder: Path) -> dict[str, int]:
    """Size in bytes of every result, by name; not the record and the logs, which change last."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in files_under(folder)
        if path != folder / RECORD and not (path.parent == folder and LOG.fullmatch(path.name))
    }


def log_of(rank: int) -> str:
    """Name of the log of a run's process."""
    return f"run.{rank}.log" if rank else "run.log"


def now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def config_differences(recorded: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[Problem]:
    """Each leaf in which two configurations differ, as dotted name, given value and recorded value."""
    problems = []
    for key in [*recorded, *(key for key in given if key not in recorded)]:
        old, new = recorded.get(key), given.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            problems += config_differences(old, new, f"{prefix}{key}.")
        elif old != new:
            problems.append(Problem(f"{prefix}{key}", repr(new), repr(old)))
    return problems


def _seeds(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _seeds(value, f"{prefix}{key}.")
        elif key == "seed" or key.endswith("_seed"):
            yield f"{prefix}{key}", value
