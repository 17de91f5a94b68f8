"""Run a verb: configuration from files and flags, a run directory, the function, its findings."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_origin

from pydantic.fields import FieldInfo

from rewardlab.cli.arguments import Arguments, Grammar, parse
from rewardlab.config import Config
from rewardlab.errors import ConfigError, DataError, LostProcessError, ModelError, Problem
from rewardlab.store.processes import processes
from rewardlab.store.record import CONFIG, find_run
from rewardlab.store.runs import Run
from rewardlab.store.settings import Settings
from rewardlab.store.together import together
from rewardlab.studies.verbs import Findings, Verb

OPTIONS = ("config", "run", "description", "log-level")
SWITCHES = ("resume", "allow-untracked")


def run_verb(name: str, verb: Verb, words: Sequence[str]) -> None:
    """Run `verb` as `words` say and print what it found.

    Raises:
        InputError: flags, files or the run directory cannot be used.
    """
    kind = verb.config_class()
    given = parse(words, grammar_of(kind))
    config = together(lambda: kind.build(files=files_of(given), flags=given.flags).pinned())
    run = Run.create(
        config,
        verb=name,
        description=given.option("description"),
        name=given.option("run"),
        resume="resume" in given.switches,
        allow_untracked="allow-untracked" in given.switches,
        command=["rewardlab", *name.split(), *words],
        console_level=given.option("log-level", "info"),
    )
    try:
        with run:
            result = _result(verb, config, run)
    except BaseException as error:
        if run.folder.exists():
            # The name that was given may be a nested one; a name of our own is the folder's.
            folder = shlex.quote(given.option("run") or run.folder.name)
            error.add_note(_advice(error, f"rewardlab {name} --run {folder} --resume"))
        raise
    if isinstance(result, Findings) and processes().is_first:
        print("\n".join(result.lines()))


def _result(verb: Verb, config: Config, run: Run) -> Any:
    try:
        return verb.run(config, run)
    except LostProcessError:
        # The launcher ends us too, and must not cut off what we have to say: we end by ourselves.
        with suppress(ValueError):  # not the main thread: signals are the caller's
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise


def _advice(error: BaseException, resume: str) -> str:
    """How to go on after an error; a run is resumed with the configuration and the inputs that it began with."""
    if isinstance(error, DataError):
        return "Mend what is named and start another run: a resumed one would meet the same."
    if isinstance(error, ConfigError | ModelError):
        # A key that is missing or a device that is full is mended outside of the run.
        return (
            "Where its configuration or a file has to change, start another run under another name; "
            f"where not, go on with: {resume}"
        )
    return f"Go on with: {resume}"


def grammar_of(kind: type[Config]) -> Grammar:
    """What a verb with this configuration understands."""
    fields = dict(kind.flag_names())
    switch_flags = [name for name, field in fields.items() if field.annotation is bool]
    needed = [_flag(name, field) for name, field in kind.model_fields.items() if field.is_required()]
    remedy = f"It needs {' and '.join(needed)}; --help explains them." if needed else "--help lists them."
    # What the configuration refuses is understood here, so that it says why.
    return Grammar(OPTIONS, SWITCHES, [*fields, *kind.not_fields], switch_flags, names_remedy=remedy)


def _flag(name: str, field: FieldInfo) -> str:
    return f"--{name}.NAME" if get_origin(field.annotation) is dict else f"--{name}"


def files_of(given: Arguments) -> list[Path]:
    """The configuration files that a command line names, that of a run to be resumed before them.

    Raises:
        InputError: no run to resume.
    """
    files = [Path(file) for file in given.options.get("config", [])]
    if "resume" not in given.switches:
        return files
    if not given.option("run"):
        raise ConfigError("nothing to resume", [Problem("--resume", "no run named", "--run NAME beside it")])
    # What the run began with need not be typed again.
    return [find_run(Settings.from_environment().home, given.option("run")).folder / CONFIG, *files]
