"""`rewardlab run`: a study, shipped or from a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rewardlab.cli.arguments import Grammar, parse
from rewardlab.cli.help import LAUNCH_OPTIONS, command_help
from rewardlab.studies.pipeline import Options, plan_study, run_study
from rewardlab.studies.study import COMMON_FIELDS, StudyFile, shipped_studies
from rewardlab.studies.verbs import Verb

HELP_OPTIONS = {
    "--plan": "print what would be done with every step, and do nothing",
    "--run NAME": "name of the folder of results (default: the study's name)",
    "--stages.ID.FIELD VALUE": "change the configuration of a stage",
    "--limit N": "smoke run: at most so many rows in every stage",
    "--device DEVICE": "cpu, cuda, mps or auto, in every stage",
    "--allow-untracked": "run although the package's source has files that git does not track",
    "--log-level LEVEL": "messages of the stages on standard error (default: warning)",
} | LAUNCH_OPTIONS
GRAMMAR = Grammar(
    options=("run", "log-level"),
    switches=("plan", "allow-untracked"),
    flags=COMMON_FIELDS,
    open_flags=("stages.",),
    names=("STUDY",),
)


def study_help() -> str:
    """Help of the command."""
    text = f"Runs the stages of a study; what is done already is not done again. Shipped studies: {_shipped()}."
    return command_help("run STUDY [--flag value ...]", text, HELP_OPTIONS)


def run_command(words: Sequence[str], verbs: Mapping[str, Verb]) -> None:
    """Run or plan the study that `words` name, and print its findings and reports.

    Raises:
        RewardlabError: the study or one of its steps cannot run.
    """
    given = parse(words, replace(GRAMMAR, names_remedy=f"Give a study file or a shipped study: {_shipped()}."))
    source = StudyFile.find(given.names[0])
    options = Options(
        name=given.option("run"),
        flags=given.flags,
        allow_untracked="allow-untracked" in given.switches,
        command=["rewardlab", "run", *words],
        console_level=given.option("log-level", "warning"),
    )
    if "plan" in given.switches:
        for step, action in plan_study(source, options, verbs):
            print(f"{action:<9}  {step.name} ({step.verb_name})")
        return
    try:
        result = run_study(source, options, tell=_tell, verbs=verbs)
    except BaseException as error:
        error.add_note("Go on with the same command, mended where it has to be.")
        raise
    print("\n".join(result.lines()))


def _shipped() -> str:
    return ", ".join(shipped_studies())


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
