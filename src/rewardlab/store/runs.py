"""Run directories: made once, locked while written, recorded in full, read-only when done.

    runs/
      train-reward-001/       named by description and index, or by --run
        run.json              the record: status, code, packages, seeds, inputs, machine, every session
        config.yaml           the resolved configuration
        code.diff             tracked files against the recorded commit, when they differ (code.2.diff: since a resume)
        run.log               the log
        ...                   results

A run resumed after a kill or a failure keeps its directory and adds a session to its record.

Of several processes the first one makes, locks, records and ends the run; the others write results into it as they are
told to, and warnings into a log of their own (run.1.log).
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import yaml

from rewardlab.config import Config, nearest
from rewardlab.errors import ConfigError, InputError, Problem, RewardlabError, RunError, UnfinishedError
from rewardlab.store import record as records
from rewardlab.store.files import LEFTOVER_PREFIX, atomic_path, remove_leftovers, write_json, write_text
from rewardlab.store.keys import RECORD
from rewardlab.store.lock import LOCK_NAME, FolderLock
from rewardlab.store.log import RunLog
from rewardlab.store.processes import processes
from rewardlab.store.provenance import Code, code_of
from rewardlab.store.record import CONFIG, DIFF, RunRecord, log_of
from rewardlab.store.redact import Redactor
from rewardlab.store.settings import Settings

MAY_CHANGE_ON_RESUME = frozenset({"device", "yes", "poll"})
"""Configuration keys that say where a run computes, who was asked and how often it looks, not what it makes."""

_ENDPOINTS = frozenset({"endpoint", "judge"})
_HOW_ASKED = frozenset(
    {
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "timeout",
        "max_retries",
        "budget",
        "ask_again",
        "accept_failures",
    }
)
"""The same of the fields of an endpoint, wherever it stands."""

NO_RUN = "something that is no run"
_WRITE_BITS = 0o222

Parameters = ParamSpec("Parameters")
AnyRun = TypeVar("AnyRun", bound="Run")


def _made_once(
    make: Callable[Concatenate[type[AnyRun], Config, Parameters], AnyRun],
) -> Callable[Concatenate[type[AnyRun], Config, Parameters], AnyRun]:
    """`make` in the first process; the others work on the run that it made."""

    @functools.wraps(make)
    def made(cls: type[AnyRun], config: Config, /, *args: Parameters.args, **options: Parameters.kwargs) -> AnyRun:
        here: list[AnyRun] = []

        def lead() -> dict[str, Any]:
            here.append(make(cls, config, *args, **options))
            return here[0].told(config)

        told = processes().first(lead)
        return here[0] if here else cls.joined(config, told)

    return made


class Run:
    """A run directory that this process writes to; a context manager.

    Leaving the block marks the run done, stopped (from the keyboard) or failed and lets go of the lock. A run
    that is done is read-only; one that ends with an `InputError` before it has any result goes away.

    Attributes:
        folder: the run directory.
        verb: what runs, e.g. `train reward`.
        log: its logger; writes to `run.log`, and to standard error when a console level was asked for.
    """

    def __init__(self, folder: Path, record: dict[str, Any], lock: FolderLock | None, run_log: RunLog) -> None:
        self.folder = folder
        self.verb = str(record["verb"])
        self.log: logging.Logger = run_log.logger
        self._record = record
        self._lock = lock
        self._run_log = run_log
        self._began = time.monotonic()

    @classmethod
    @_made_once
    def create(
        cls,
        config: Config,
        *,
        verb: str,
        description: str = "",
        name: str = "",
        root: Path | None = None,
        resume: bool = False,
        key: str = "",
        allow_untracked: bool = False,
        command: Sequence[str] | None = None,
        console_level: str | None = None,
    ) -> Self:
        """Make a run directory, or open an unfinished one to go on with it; in several processes, one for all.

        Args:
            config: the resolved configuration.
            verb: what runs.
            description: names the directory, with an index behind it; the verb by default.
            name: the directory's exact name under `root` instead; refused when it exists, unless `resume`.
            root: folder of runs; `REWARDLAB_HOME` by default.
            resume: go on with the unfinished run `name`; configuration and inputs must be the recorded ones.
            key: content key of configuration, inputs and code, kept in the record; resuming with the recorded
                key needs no comparison.
            allow_untracked: accept a checkout with untracked files in the package's source.
            command: the exact command; the process's own by default.
            console_level: level of messages on standard error (`info`); None leaves it alone.

        Raises:
            RunError: the directory exists, is in use, is done or cannot be made; the record would be incomplete;
                resumed with inputs that have changed.
            ConfigError: resumed with a different configuration; unusable environment settings.
            DataError: an input file cannot be read.
            ElsewhereError: in all processes but the first, where one of these was raised there.
        """
        settings = Settings.from_environment()
        code = code_of(allow_untracked=allow_untracked or settings.allow_untracked)
        redactor = Redactor()
        description = redactor.text(description)
        facts = records.facts(config, code, redactor)
        resolved = redactor.value(config.model_dump(mode="json"))
        home = settings.home if root is None else root
        if resume:
            folder, _ = _reopened(home, name, resolved, facts["inputs"], key)
        else:
            folder = _made(home, name, description or verb, settings)
        lock = FolderLock(folder)
        try:
            # Another process may have done it all before the lock was ours.
            if resume:
                _, record = _reopened(home, name, resolved, facts["inputs"], key)
            else:
                _refuse_standing(folder)
                record = {"name": folder.name, "verb": verb, "description": description, "sessions": []}
        except BaseException:
            lock.release()
            raise
        record |= facts | {"status": "running", "key": key}
        sessions = [*record["sessions"], records.session(command, redactor)]
        try:
            remove_leftovers(folder)
            sessions[-1] |= {"commit": code.commit, "diff": _write_diff(folder, code, redactor, len(sessions))}
            record["sessions"] = sessions
            write_text(folder / CONFIG, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
            write_json(folder / RECORD, record)
            run_log = RunLog(folder / log_of(0), redactor, console_level)
        except BaseException:
            lock.release()
            if not resume:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        run = cls(folder, record, lock, run_log)
        run.log.info("%s %s in %s", "resumed" if resume else "started", verb, folder)
        if resume and any(sessions[-1][key] != sessions[-2].get(key) for key in ("commit", "diff")):
            run.log.warning("the code has changed since this run was last worked on")
        return run

    def told(self, config: Config) -> dict[str, Any]:
        """What the other processes have to know of a run."""
        resolved = Redactor().value(config.model_dump(mode="json"))
        return {"folder": str(self.folder.resolve()), "record": self._record, "config": resolved}

    @classmethod
    def joined(cls, config: Config, told: Mapping[str, Any]) -> Self:
        """The run of the first process, in another one.

        Raises:
            ConfigError: this process was started with another configuration.
            RunError: it does not see the folder.
        """
        redactor = Redactor()
        folder = Path(told["folder"])
        differences = records.config_differences(told["config"], redactor.value(config.model_dump(mode="json")))
        if differences:
            raise ConfigError("all processes of a run have one configuration", differences)
        if not (folder / RECORD).is_file():
            remedy = "Set REWARDLAB_HOME to a folder that all machines share."
            raise RunError("cannot join the run", [Problem(str(folder), "nothing", "the run directory", remedy)])
        run_log = RunLog(folder / log_of(processes().rank), redactor, None, only_warnings=True)
        return cls(folder, dict(told["record"]), None, run_log)

    def path(self, name: str | Path = "") -> Path:
        """Where the result `name` goes; its parent folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def part(self, name: str | Path) -> Run:
        """The folder `name` of this run, as a run for a verb that does a part of its work; record and log stay here."""
        return Run(self.path(name), self._record, None, self._run_log)

    @property
    def resumed(self) -> bool:
        """Whether an earlier process has worked on this run."""
        return len(self._record["sessions"]) > 1

    def record_findings(self, lines: Sequence[str]) -> None:
        """Keep what was found, in plain words; written with the record when the run ends."""
        self._record["findings"] = list(lines)

    def finish(self, status: str = "done") -> None:
        """Mark the run done, failed or stopped, and let go of it; when done, results become read-only."""
        if self._lock is None:
            self._run_log.close()
            return
        seconds = round(time.monotonic() - self._began, 3)
        self._record["sessions"][-1] |= {"ended": records.now(), "seconds": seconds, "status": status}
        self._record["status"] = status
        self.log.info("%s after %.1f s", status, seconds)
        self._run_log.close()
        self._record["results"] = records.results_in(self.folder)
        try:
            write_json(self.folder / RECORD, self._record)
            if status == "done":
                make_read_only(self.folder)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        refused = isinstance(error, InputError) and not isinstance(error, UnfinishedError)
        if refused and not self.resumed and self._is_bare() and self._lock is not None:
            # Nothing came of it: the name is free for the corrected command.
            self.log.info("refused; %s is removed again", self.folder)
            self._run_log.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.release()
            return
        if isinstance(error, RewardlabError):
            self.log.debug("failed: %s", error)
        elif not isinstance(error, KeyboardInterrupt):
            self._run_log.traceback(error)
            error.add_note(f"The traceback is in {self.folder / log_of(processes().rank)}")
        # The disk may be full: what went wrong first is what the user has to hear.
        with suppress(RewardlabError):
            self.finish("stopped" if isinstance(error, KeyboardInterrupt) else "failed")

    def _is_bare(self) -> bool:
        """Whether there is nothing but the record."""
        return all(name == CONFIG or name.endswith(".diff") for name in records.results_in(self.folder))


def reserve(name: str, description: str) -> Path:
    """An empty folder in the folder of runs, which keeps the name for a run that begins later, elsewhere.

    Args:
        name: the directory's exact name; made of `description` and an index where it is empty.
        description: as for `Run.create`.

    Raises:
        RunError: the name is taken, or the folder cannot be made.
    """
    settings = Settings.from_environment()
    return _made(settings.home, name, Redactor().text(description), settings)


def make_read_only(folder: Path) -> None:
    """Take the right to write from everything in `folder`, and apply the environment's group and mode."""
    settings = Settings.from_environment()
    for path in _tree(folder):
        _own(path, settings)
        path.chmod(path.stat().st_mode & ~_WRITE_BITS)


def _tree(folder: Path) -> list[Path]:
    """Everything under `folder` and the folder itself, contents before their folder; no links."""
    return [path for path in [*sorted(folder.rglob("*"), reverse=True), folder] if not path.is_symlink()]


def _own(path: Path, settings: Settings) -> None:
    try:
        if settings.group is not None:
            shutil.chown(path, group=settings.group)
        if settings.mode is not None:
            # Whoever may read a file may enter the folder it lies in.
            enter = (settings.mode & 0o444) >> 2 if path.is_dir() else 0
            path.chmod(settings.mode | enter)
    except OSError as error:
        problem = Problem(str(path), str(error.strerror), "group and mode as REWARDLAB_GROUP and REWARDLAB_MODE say")
        raise RunError("cannot hand over results", [problem]) from error


def _write_diff(folder: Path, code: Code, redactor: Redactor, session: int) -> str | None:
    """Name of the file with the code's difference from its commit; None when there is none to write."""
    if not code.diff:
        return None
    content = redactor.text(code.diff.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    for former in sorted(folder.glob("code*.diff")):
        if former.read_bytes() == content:
            return former.name
    name = DIFF if session == 1 else f"code.{session}.diff"
    with atomic_path(folder / name) as temporary:
        temporary.write_bytes(content)
    return name


def _made(home: Path, name: str, description: str, settings: Settings) -> Path:
    """A new, empty run directory."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = _named(home, name) if name else numbered(home, _slug(description))
    except OSError as error:
        problem = Problem(
            str(home / name), str(error.strerror), "a folder that can be written to", "Set REWARDLAB_HOME."
        )
        raise RunError("cannot make a run directory", [problem]) from error
    _own(folder, settings)
    folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
    return folder


def _named(home: Path, name: str) -> Path:
    folder = home / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        _refuse_standing(folder)
    return folder


def _refuse_standing(folder: Path) -> None:
    """The folder is there; it may be what a run leaves that was killed before it had a record, and nothing else."""
    if _has_no_record_yet(folder):
        return
    found = _standing(folder)
    remedy = "Choose another name with --run"
    if found == "running":
        found, remedy = "a run that is running now", f"{remedy}, or wait for it."
    else:
        remedy += "." if found in ("done", NO_RUN) else ", or go on with it: --resume."
    raise RunError("the run directory exists", [Problem(str(folder), found, "a new name", remedy)])


def _has_no_record_yet(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {RECORD}
    before = {LOCK_NAME, CONFIG, DIFF, *(name for name in names if name.startswith(LEFTOVER_PREFIX))}
    # Without a lock, a configuration may be somebody's own.
    return not names or (LOCK_NAME in names and names <= before)


def _standing(folder: Path) -> str:
    try:
        return RunRecord.read(folder).status
    except RewardlabError:
        return NO_RUN


def _slug(description: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", description.lower()).strip("-")[:80] or "run"


def numbered(home: Path, name: str) -> Path:
    """A new, empty folder `<name>-<index>` in `home`; its index is one above the highest there."""
    taken = [int(path.name[len(name) + 1 :]) for path in home.glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()]
    index = max(taken, default=0)
    while True:
        index += 1
        folder = home / f"{name}-{index:03d}"
        # Of two processes that see the same last index, one makes the folder and the other goes on.
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def _reopened(
    home: Path, name: str, resolved: dict[str, Any], inputs: Sequence[Mapping[str, str]], key: str
) -> tuple[Path, dict[str, Any]]:
    """The unfinished run `name` and its record."""
    if not name:
        known = [run.folder.relative_to(home).as_posix() for run in records.find_runs(home) if run.status != "done"]
        problem = Problem("--resume", "no run named", "--run NAME of the run to go on with", nearest("", known))
        raise RunError("nothing to resume", [problem])
    found = records.find_run(home, name)
    if found.status == "done":
        problem = Problem(
            str(found.folder), "done", "an unfinished run", "Its results stand; start another run to redo it."
        )
        raise RunError("nothing to resume", [problem])
    if not key or key != found.values.get("key"):
        _refuse_differences(_fixed(found.config()), _fixed(resolved))
        _refuse_changes(found.values.get("inputs", []), inputs)
    return found.folder, dict(found.values)


def _fixed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _asked(value, name) for name, value in values.items() if name not in MAY_CHANGE_ON_RESUME}


def _asked(value: Any, name: str) -> Any:
    """A value without how fast, how often and how dear endpoints in it are asked."""
    if isinstance(value, list):
        return [_asked(one, name) for one in value]
    if not isinstance(value, dict):
        return value
    free = _HOW_ASKED if name in _ENDPOINTS else frozenset[str]()
    return {key: _asked(inner, key) for key, inner in value.items() if key not in free}


def _refuse_differences(recorded: dict[str, Any], given: dict[str, Any]) -> None:
    differences = records.config_differences(recorded, given)
    if differences:
        raise ConfigError("a run is resumed with the configuration it began with", differences)


def _refuse_changes(recorded: Sequence[Mapping[str, str]], inputs: Sequence[Mapping[str, str]]) -> None:
    """A result half made from one content and half from another would be recorded as made from the last."""
    now = {item["path"]: item["sha256"] for item in inputs}
    remedy = "Bring the former content back, or start another run."
    problems = [
        Problem(item["path"], _content(now.get(item["path"])), _content(item["sha256"]), remedy)
        for item in recorded
        if now.get(item["path"]) != item["sha256"]
    ]
    if problems:
        raise RunError("a run is resumed with the inputs it began with", problems)


def _content(digest: str | None) -> str:
    return f"sha256 {digest[:16]}" if digest else "nothing"
