"""`rewardlab run`: a study, shipped or from a file."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rewardlab.cli.arguments import Grammar, parse
from rewardlab.cli.help import LAUNCH_OPTIONS, command_help
from rewardlab.errors import ConfigError, Problem
from rewardlab.store.redact import Redactor
from rewardlab.studies.pipeline import Action, Options, missing_inputs, plan_study, run_study
from rewardlab.studies.study import COMMON_FIELDS, Step, StudyFile, published_studies, shipped_studies
from rewardlab.studies.verbs import Verb

HELP_OPTIONS = {
    "--plan": "print what would be done with every step, and do nothing",
    "--dry-run": "check every stage, ask nobody, and print every step with what it needs and the command that runs it",
    "--run NAME": "name of the folder of results (default: the study's name)",
    "--jobs N": "steps at a time that need nothing of each other, each in a process of its own (default: 1)",
    "--stages.ID.FIELD VALUE": "change the configuration of a stage",
    "--limit N": "smoke run: at most so many rows in every stage",
    "--device DEVICE": "cpu, cuda, mps or auto, in every stage",
    "--allow-untracked": "run although the package's source has files that git does not track",
    "--log-level LEVEL": "messages of the stages on standard error (default: warning)",
} | LAUNCH_OPTIONS
GRAMMAR = Grammar(
    options=("run", "jobs", "log-level"),
    switches=("plan", "dry-run", "allow-untracked"),
    flags=COMMON_FIELDS,
    open_flags=("stages.",),
    names=("STUDY",),
)


def study_help() -> str:
    """Help of the command."""
    text = f"Runs the stages of a study; what is done already is not done again. {_shipped()}"
    return command_help("run STUDY [--flag value ...]", text, HELP_OPTIONS)


def run_command(words: Sequence[str], verbs: Mapping[str, Verb]) -> None:
    """Run or plan the study that `words` name, and print its findings and reports.

    Raises:
        RewardlabError: the study or one of its steps cannot run.
    """
    given = parse(words, replace(GRAMMAR, names_remedy=f"Give a study file or a shipped study. {_shipped()}"))
    source = StudyFile.find(given.names[0])
    options = Options(
        name=given.option("run"),
        flags=given.flags,
        allow_untracked="allow-untracked" in given.switches,
        command=["rewardlab", "run", *words],
        console_level=given.option("log-level", "warning"),
        jobs=_jobs(given.option("jobs", "1")),
    )
    if {"plan", "dry-run"} & given.switches:
        offline = "plan" not in given.switches
        planned = plan_study(source, options, verbs, offline=offline)
        print("\n".join(_dry_lines(source.study.name, planned) if offline else _plan_lines(planned)))
        _tell_missing(missing_inputs(source, options, verbs))
        return
    try:
        # Now, and not when hours of other steps are over; what does not need them can run all the same.
        _tell_missing(missing_inputs(source, options, verbs))
        result = run_study(source, options, tell=_tell, verbs=verbs)
    except BaseException as error:
        error.add_note("Go on with the same command, mended where it has to be.")
        raise
    print("\n".join(result.lines()))


def _jobs(text: str) -> int:
    """How many steps run at a time.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("the study cannot run", [Problem("--jobs", repr(text), "a whole number, 1 or more")])
    return int(text)


def _plan_lines(planned: Sequence[tuple[Step, Action]]) -> Iterator[str]:
    """What would be done with every step."""
    return (f"{action:<9}  {step.name} ({step.verb_name})" for step, action in planned)


def _dry_lines(name: str, planned: Sequence[tuple[Step, Action]]) -> Iterator[str]:
    """What stands and what is to do, then every step: what would be done, what it needs, and its command."""
    counts = Counter(action for _, action in planned)
    yield f"{name}: {len(planned)} steps ({', '.join(f'{count} {action}' for action, count in counts.items())})"
    redactor = Redactor()
    for number, (step, action) in enumerate(planned, start=1):
        needs = f", after {', '.join(sorted(step.needs))}" if step.needs else ""
        yield f"[{number}/{len(planned)}] {action}  {step.name} ({step.verb_name}){needs}"
        yield f"    {shlex.join(step.command(redactor.value))}"


def _shipped() -> str:
    small, published = ", ".join(shipped_studies()), ", ".join(published_studies())
    return f"On a small machine: {small}. Published experiments, which need the hub and GPUs: {published}."


def _tell_missing(missing: Sequence[Problem]) -> None:
    """What would stop the study at a later step."""
    if missing:
        _tell("\n".join(["Steps will fail for what they read:", *(f"  {problem}" for problem in missing)]))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
