"""`--launcher slurm`: the same command line, as a job of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rewardlab.cli import study
from rewardlab.cli.arguments import Grammar, parse
from rewardlab.cli.help import flag_help
from rewardlab.cli.verb import files_of, grammar_of
from rewardlab.errors import ConfigError, Problem, RunError
from rewardlab.launch.job import Order
from rewardlab.launch.slurm import Launch, executor, require_slurm
from rewardlab.launch.submit import submit
from rewardlab.store.processes import alone
from rewardlab.store.record import find_run
from rewardlab.store.redact import Redactor
from rewardlab.store.runs import reserve
from rewardlab.store.settings import Settings
from rewardlab.studies.pipeline import Options, study_folder
from rewardlab.studies.study import StudyFile
from rewardlab.studies.verbs import Verb

FOLDER = "slurm"
"""In the folder of runs: scripts and logs of jobs, by run."""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The launcher's words among those of a command line, and the others."""
    own, others = list[str](), list[str]()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word[2:].partition("=")
        if not word.startswith("--") or not (name in ("launcher", "wait") or name.startswith("slurm.")):
            others.append(word)
            continue
        own.append(word)
        if not equals and name != "wait" and rest and not rest[0].startswith("--"):
            own.append(rest.pop(0))
    return own, others


def launch_of(own: Sequence[str]) -> Launch:
    """What the launcher's words say.

    Raises:
        ConfigError: they cannot be used, or do not name a launcher.
    """
    if not own:
        return Launch()
    flags = [name for name, _ in Launch.flag_names()]
    given = parse(own, Grammar(flags=flags, switch_flags=["wait"]))
    launch = Launch.given(given.flags)
    if not any(name == "launcher" for name, _ in given.flags):
        word = own[0].partition("=")[0]
        raise ConfigError("no launcher", [Problem(word, "no --launcher", "--launcher slurm or local beside it")])
    return launch


def launch_help() -> str:
    """What `--help` adds where a launcher is named."""
    return "\n".join(["", "launcher:", *flag_help(dict(Launch.flag_names()))])


def run_command(name: str, words: Sequence[str], launch: Launch, verbs: Mapping[str, Verb]) -> int:
    """Submit the command line `name words`, tell where it is, and give its exit code where that is waited for.

    Raises:
        RewardlabError: it cannot be submitted, or would be refused in the job.
    """
    alone("--launcher slurm")
    _refuse_secrets([*words, *launch.slurm.setup, *launch.slurm.sbatch.values()])
    order = _study(words, launch, verbs) if name == "run" else _verb(name, verbs[name], words, launch)
    try:
        folder = launch.slurm.folder or Settings.from_environment().home / FOLDER / order.name
        job = submit(replace(order, name=order.name.replace("/", "-")), launch.slurm, folder.absolute(), executor)
    except BaseException:
        _give_back(order.run)
        raise
    print("\n".join(job.lines()), flush=True)
    if not launch.wait:
        return 0
    try:
        return job.wait()
    except KeyboardInterrupt as error:
        error.add_note(f"The job goes on; to cancel it: scancel {job.job.job_id}")
        raise


def _verb(name: str, verb: Verb, words: Sequence[str], launch: Launch) -> Order:
    # What is wrong with the configuration is told now, and not by a job that has waited for hours.
    kind = verb.config_class()
    given = parse(words, grammar_of(kind))
    kind.build(files=files_of(given), flags=given.flags)
    if not verb.shares:
        _refuse_tasks(name, launch)
    home, run = Settings.from_environment().home, given.option("run")
    if "resume" in given.switches:
        record = find_run(home, run)
        if record.status == "done":
            problem = Problem(str(record.folder), "done", "an unfinished run", "Its results stand.")
            raise RunError("nothing to resume", [problem])
        require_slurm()
        # What the command line changes on resuming, it changes every time.
        first = again = [*name.split(), *words]
        run, folder = _label(record.folder, home), record.folder
    else:
        require_slurm()
        folder = reserve(run, given.option("description") or name)
        named = run or folder.name
        first = [*name.split(), *words, *([] if run else ["--run", named])]
        again = [*name.split(), "--run", named, "--resume"]
        again += [f"--{switch}" for switch in sorted(given.switches)]
        again += [f"--log-level={level}" for level in given.options.get("log-level", [])]
        run = _label(folder, home)
    return Order(run, first, again, folder.absolute(), Path.cwd())


def _label(run: Path, home: Path) -> str:
    return run.relative_to(home).as_posix() if run.is_relative_to(home) else run.name


def _study(words: Sequence[str], launch: Launch, verbs: Mapping[str, Verb]) -> Order:
    given = parse(words, replace(study.GRAMMAR, names_remedy="Give a study file or a shipped study."))
    source = StudyFile.find(given.names[0])
    folder = study_folder(source, Options(name=given.option("run")))
    source.steps(folder, given.flags, verbs)
    _refuse_tasks("run", launch)
    require_slurm()
    line = ["run", *words]
    return Order(given.option("run") or source.study.name, line, line, None, Path.cwd())


def _refuse_tasks(name: str, launch: Launch) -> None:
    if launch.slurm.processes > 1:
        found = f"{launch.slurm.processes} processes"
        remedy = "Its processes do not share their work: leave --slurm.tasks and --slurm.nodes at 1."
        raise ConfigError("too many processes", [Problem(f"rewardlab {name}", found, "one", remedy)])


def _refuse_secrets(words: Sequence[str]) -> None:
    """What is written into the job's folder has no secrets."""
    hidden = Redactor().command(words)
    problems = [
        Problem(shown, "what looks like a secret", "no secret among the words of a job")
        for shown, word in zip(hidden, words, strict=True)
        if shown != word
    ]
    if problems:
        problems[-1] = replace(problems[-1], remedy="Put it into the environment or .env: the job has both.")
        raise ConfigError("the command line would be written down", problems)


def _give_back(run: Path | None) -> None:
    """Let go of the name of a run that will not begin."""
    if run is not None:
        with suppress(OSError):  # a run that is to be resumed is not empty
            run.rmdir()
