"""Run a study: every stage in order, what is done not again.

    runs/demo/
      world/  base/  train.0/    a run directory per step
      superseded/train.0-001/    results of a former configuration, input or code of that step

A step's key covers its configuration, the content of every file that it names, and the source that it can run.
A step that is done with the same key is not run again; an unfinished one with the same key is resumed; results
with another key are set aside and the step runs anew. What a verb that allows it (`train base`) has made with the same
key in a study beside this one is copied.
"""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rewardlab.config import Config
from rewardlab.errors import Problem, RewardlabError
from rewardlab.store.files import atomic_folder
from rewardlab.store.keys import code_key, content_key, files_under, is_there
from rewardlab.store.lock import FolderLock
from rewardlab.store.provenance import packages
from rewardlab.store.record import RunRecord, find_runs
from rewardlab.store.runs import Run, make_read_only, numbered
from rewardlab.store.settings import Settings
from rewardlab.studies.side_by_side import side_by_side
from rewardlab.studies.study import SUPERSEDED, Step, StudyFile
from rewardlab.studies.verbs import VERBS, Verb

Action = Literal["unchanged", "run", "resume", "copy"]


@dataclass(frozen=True)
class Options:
    """How a study is run.

    Attributes:
        name: of its folder; the study's own by default.
        root: folder of runs; `REWARDLAB_HOME` by default.
        flags: changes to stages, as `StudyFile.steps` takes them.
        allow_untracked: as for `Run.create`.
        command: the exact command, for the records.
        console_level: level of the stages' messages on standard error.
        jobs: steps at a time, each in a process of its own; 1 runs all of them in this one.
    """

    name: str = ""
    root: Path | None = None
    flags: Sequence[tuple[str, str]] = ()
    allow_untracked: bool = False
    command: Sequence[str] | None = None
    console_level: str | None = None
    jobs: int = 1


@dataclass(frozen=True)
class StudyResult:
    """Where a study's results are and what they say.

    Attributes:
        folder: the study's.
        actions: what was done with each step.
        findings: in plain words, of the steps that no other step reads; a report's end with its path.
    """

    folder: Path
    actions: Mapping[str, Action]
    findings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The findings."""
        return list(self.findings)


def run_study(
    source: StudyFile,
    options: Options,
    *,
    tell: Callable[[str], None] = lambda _: None,
    verbs: Mapping[str, Verb] = VERBS,
) -> StudyResult:
    """Run what has to be run of a study.

    Args:
        source: the study.
        options: how.
        tell: is given a line when a step begins and ends; with several jobs in their processes, so it is picklable.
        verbs: what stages can run.

    Raises:
        ConfigError: a problem in any stage; nothing has run then.
        RunError: somebody else is running the study.
        RewardlabError: a step failed; run the study again to go on.
    """
    folder = study_folder(source, options)
    steps = source.steps(folder, options.flags, verbs)
    lock = FolderLock(folder)
    actions: dict[str, Action] = {}
    work = {
        step.name: partial(
            _run_step, step, folder, options, partial(_tell, tell, f"[{n}/{len(steps)}] {step.name} ({step.verb_name})")
        )
        for n, step in enumerate(steps, start=1)
    }
    try:
        if options.jobs == 1:
            for name, run in work.items():
                actions[name] = run()
        else:
            needs = {step.name: step.needs for step in steps}
            actions.update(side_by_side(needs, work.__getitem__, options.jobs))
    finally:
        lock.release()
    return _result(folder, steps, actions)


def plan_study(
    source: StudyFile, options: Options, verbs: Mapping[str, Verb] = VERBS, *, offline: bool = False
) -> list[tuple[Step, Action]]:
    """What `run_study` would do with every step, without doing it.

    Args:
        source: the study.
        options: how it would be run.
        verbs: what stages can run.
        offline: without asking the hub for the commits of datasets: what was read from it last stands for them.

    Raises:
        ConfigError: a problem in any stage.
    """
    folder = study_folder(source, options)
    planned: list[tuple[Step, Action]] = []
    for step in source.steps(folder, options.flags, verbs):
        to_run = {earlier.name for earlier, action in planned if action != "unchanged"}
        # What reads results that are still to come has a key that is still to come.
        waits = bool(step.needs & to_run)
        planned.append((step, "run" if waits else _action(step, folder, step_key(_pinned(step, offline)))))
    return planned


def missing_inputs(source: StudyFile, options: Options, verbs: Mapping[str, Verb] = VERBS) -> list[Problem]:
    """Files and folders of data and of other runs that steps name, that are not there and no step before leaves.

    Each once. The step that reads it finds more: models, what a folder does not hold, a name of the hub that is none.

    Args:
        source: the study.
        options: how it would be run.
        verbs: what stages can run.

    Raises:
        ConfigError: a problem in any stage.
    """
    folder = study_folder(source, options)
    coming = [folder.resolve()]
    found: dict[Path, Problem] = {}
    for step in source.steps(folder, options.flags, verbs):
        for field, path in _named(step.config):
            # A card's further place: nothing else is written outside of a step's folder.
            if field == "out":
                coming.append(path.resolve())
            elif not is_there(path) and not any(path.resolve().is_relative_to(one) for one in coming):
                expected = "a file or folder that is there, or what a stage before leaves"
                found.setdefault(path, Problem(f"step {step.name}: {field}", f"{path}, which is not there", expected))
    return list(found.values())


def _named(value: Any, name: str = "") -> Iterator[tuple[str, Path]]:
    """Fields of a configuration that name files and folders, and these; of data what can be no name of the hub."""
    # They read tables, and listing what can be run does not wait for that.
    from rewardlab.data.files import is_hub_id
    from rewardlab.data.source import DataSource

    if isinstance(value, DataSource):
        yield from [] if is_hub_id(value.path) else [(f"{name}.path", Path(value.path))]
    if isinstance(value, Config):
        value = dict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _named(inner, f"{name}.{number}")
    elif isinstance(value, Path):
        yield name, value


def study_folder(source: StudyFile, options: Options) -> Path:
    """Where a study's results go."""
    root = Settings.from_environment().home if options.root is None else options.root
    return root / (options.name or source.study.name)


def step_key(step: Step) -> str:
    """Key of a step's configuration, the content of the files it names and the source it can run."""
    return content_key({"verb": step.verb_name, "config": step.config.model_dump(), "code": code_key(step.verb.module)})


def _pinned(step: Step, offline: bool = False) -> Step:
    """The step with what it reads from the hub tied to a commit, so that its key changes when that does."""
    return replace(step, config=step.config.pinned(offline=offline))


def _tell(tell: Callable[[str], None], label: str, line: str) -> None:
    tell(f"{label}: {line}")


def _action(step: Step, folder: Path, key: str) -> Action:
    with suppress(RewardlabError):
        record = RunRecord.read(folder / step.name)
        if record.values.get("key") == key and record.status != "done":
            return "resume"
        if record.values.get("key") == key and record.is_whole():
            return "unchanged"
    return "copy" if _made_elsewhere(step, folder, key) else "run"


def _run_step(step: Step, folder: Path, options: Options, tell: Callable[[str], None]) -> Action:
    """Do what there is to do with a step.

    Raises:
        BaseException: with the step's name as a note.
    """
    try:
        return _done(step, folder, options, tell)
    except BaseException as error:
        # Where the first step was refused, its folder is gone and nothing is done.
        kept = " What is done stays done." if find_runs(folder) else ""
        error.add_note(f"In step {step.name}.{kept}")
        raise


def _done(step: Step, folder: Path, options: Options, tell: Callable[[str], None]) -> Action:
    step = _pinned(step)
    key = step_key(step)
    action = _action(step, folder, key)
    if action == "unchanged":
        tell("unchanged, not run again")
        return action
    if action != "resume":
        _set_aside(folder, step.name)
    if action == "copy" and (made := _made_elsewhere(step, folder, key)):
        _copy_run(made, folder / step.name)
        tell(f"copied from {made}, not run again")
        return action
    tell("resuming" if action == "resume" else "running")
    began = time.monotonic()
    run = Run.create(
        step.config,
        verb=step.verb_name,
        name=step.name,
        root=folder,
        resume=action == "resume",
        key=key,
        allow_untracked=options.allow_untracked,
        command=options.command,
        console_level=options.console_level,
    )
    with run:
        step.verb.run(step.config, run)
    tell(f"done in {time.monotonic() - began:.1f} s")
    return action


def _made_elsewhere(step: Step, folder: Path, key: str) -> Path | None:
    """A finished run with the step's key in this study's past or in one beside it, where the verb allows that."""
    found = find_runs(folder.parent) if step.verb.shared else []
    # The key does not cover the versions of other packages.
    same = (run for run in found if run.values.get("key") == key and run.values.get("packages") == dict(packages()))
    return next((run.folder for run in same if run.is_whole()), None)


def _copy_run(made: Path, target: Path) -> None:
    with atomic_folder(target) as folder:
        for file in files_under(made):
            copy = folder / file.relative_to(made)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    make_read_only(target)


def _set_aside(folder: Path, name: str) -> None:
    """Move what stands where a step is about to run into the folder of superseded results."""
    former = folder / name
    if not former.exists():
        return
    kept = folder / SUPERSEDED
    kept.mkdir(exist_ok=True)
    # A folder can be moved only by somebody who may write to it.
    mode = former.stat().st_mode
    former.chmod(mode | stat.S_IWUSR)
    former.rename(numbered(kept, name)).chmod(mode)


def _result(folder: Path, steps: Sequence[Step], actions: Mapping[str, Action]) -> StudyResult:
    read = {name for step in steps for name in step.needs}
    last = [step for step in steps if step.name not in read]
    findings = [line for step in last for line in RunRecord.read(folder / step.name).findings]
    return StudyResult(folder, dict(actions), tuple(findings))
