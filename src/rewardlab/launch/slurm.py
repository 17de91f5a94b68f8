"""What a job of a SLURM cluster is given, and submitit's executor for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, field_validator

from rewardlab.config import Config, Key, mismatch
from rewardlab.errors import ConfigError, MissingExtraError, Problem

if TYPE_CHECKING:
    from submitit import SlurmExecutor

VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "REWARDLAB_PARTITION": "partition",
        "REWARDLAB_ACCOUNT": "account",
        "REWARDLAB_QOS": "qos",
        "REWARDLAB_SETUP": "setup",
    }
)
"""What a cluster or a user has once for all jobs: variable of the environment → field of `Slurm`."""

_OWN = {
    "array": "",
    "chdir": "",
    "error": "--slurm.folder",
    "job-name": "--run",
    "open-mode": "",
    "output": "--slurm.folder",
    "requeue": "--slurm.requeues",
    "no-requeue": "--slurm.requeues",
    "signal": "--slurm.grace",
    "partition": "--slurm.partition",
    "account": "--slurm.account",
    "qos": "--slurm.qos",
    "time": "--slurm.time",
    "nodes": "--slurm.nodes",
    "ntasks-per-node": "--slurm.tasks",
    "gpus-per-node": "--slurm.gpus",
    "cpus-per-task": "--slurm.cpus",
    "mem": "--slurm.memory",
}
"""Parameters of sbatch that are said otherwise, or not at all, by name."""

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_MEMORY = re.compile(r"\d+[KMGT]")
_PROGRAMS = ("sbatch", "srun")


def minutes(text: str) -> int:
    """A time as sbatch writes it, in minutes, rounded up.

    Args:
        text: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
            days-hours:minutes:seconds.

    Raises:
        ValueError: it is none of them, or no time at all.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("expected a time as sbatch writes it: 90 (minutes), 2:30:00, 1-12 or 1-12:30:00")
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, whole, seconds = [*parts, 0, 0][:3]
        hours += 24 * int(match["days"])
    else:
        hours, whole, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    total = 60 * hours + whole + (seconds + 59) // 60
    if total == 0:
        raise ValueError("expected a time above zero")
    return total


class Slurm(Config):
    """What a job of a SLURM cluster is given."""

    partition: str | None = None
    """Partition; the cluster's own default where neither this nor REWARDLAB_PARTITION says one."""
    account: str | None = None
    """Account that pays; default REWARDLAB_ACCOUNT."""
    qos: str | None = None
    """Quality of service; default REWARDLAB_QOS."""
    time: str = "1:00:00"
    """Longest time, as sbatch writes it: 90 (minutes), 2:30:00, 1-12:00:00. What is not done by then is requeued."""
    nodes: PositiveInt = 1
    """Machines."""
    tasks: PositiveInt = 1
    """Processes on each of them, of verbs whose processes share their work (train, sample, score); else 1."""
    gpus: int = Field(default=0, ge=0)
    """GPUs on each machine."""
    cpus: PositiveInt | None = None
    """Processor cores of each process; the cluster's own default."""
    memory: str | None = None
    """Memory on each machine, e.g. 32G; the cluster's own default."""
    sbatch: dict[str, str] = Field(default_factory=dict)
    """Further parameters of sbatch: --slurm.sbatch.constraint a100, --slurm.sbatch.exclusive true."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the command, e.g. `module load cuda`; default REWARDLAB_SETUP."""
    requeues: int = Field(default=3, ge=0)
    """How often a job that has run out of time is queued again and resumed; preemptions do not count. 0: never."""
    grace: PositiveInt = 120
    """Seconds before the end of the time at which the command is told to stop and keep what it has."""
    folder: Path | None = None
    """Folder of scripts and logs, which all machines see; slurm/RUN in the folder of runs by default."""

    @field_validator("time")
    @classmethod
    def _as_sbatch_writes_it(cls, given: str) -> str:
        minutes(given)
        return given

    @field_validator("memory")
    @classmethod
    def _with_a_unit(cls, given: str | None) -> str | None:
        if given is not None and not _MEMORY.fullmatch(given):
            raise ValueError("expected a number and K, M, G or T, e.g. 32G")
        return given

    @field_validator("setup", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("sbatch", mode="before")
    @classmethod
    def _switches_as_text(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {key: str(value).lower() if isinstance(value, bool) else value for key, value in given.items()}

    @field_validator("sbatch")
    @classmethod
    def _not_said_otherwise(cls, given: dict[str, str]) -> dict[str, str]:
        named = {key.removeprefix("--").replace("_", "-"): value for key, value in given.items()}
        taken = [f"{key} ({_OWN[key]})" if _OWN[key] else key for key in sorted(_OWN.keys() & named.keys())]
        if taken:
            raise mismatch(", ".join(taken), "parameters that the launcher or another flag does not set")
        return named

    @field_validator("partition", "account", "qos", "sbatch", "setup")
    @classmethod
    def _one_line_each(cls, given: Any) -> Any:
        texts = (
            [*given, *given.values()] if isinstance(given, Mapping) else [given] if isinstance(given, str) else given
        )
        if any(not text or not text.isprintable() for text in texts or ()):
            # An end of line would begin a new one in the script.
            raise ValueError("expected text of one line")
        return given

    @property
    def processes(self) -> int:
        """In the whole job."""
        return self.nodes * self.tasks

    def _of_srun(self) -> list[str]:
        # Since SLURM 22.05 srun does not take the cores over from sbatch.
        cores = [f"--cpus-per-task={self.cpus}"] if self.cpus else []
        # When the first process is stopped the others end as they may, and it needs the time to have the job requeued.
        return [*cores, "--kill-on-bad-exit=0"] if self.processes > 1 else cores

    def parameters(self, name: str) -> dict[str, Any]:
        """What submitit's SlurmExecutor is told, for a job called `name`."""
        given = {
            "job_name": name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": minutes(self.time),
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": self.memory,
            "setup": list(self.setup) or None,
            "srun_args": self._of_srun() or None,
        }
        further = {key: True if value == "true" else value for key, value in self.sbatch.items() if value != "false"}
        always = {
            "additional_parameters": {"requeue" if self.requeues else "no-requeue": True} | further,
            "signal_delay_s": self.grace,
            "stderr_to_stdout": True,
            # submitit's own key would be refused where workload keys are checked.
            "wckey": None,
        }
        return {key: value for key, value in given.items() if value is not None} | always


class Launch(Config):
    """Where a command runs."""

    launcher: Literal["local", "slurm"] = "local"
    """Where: here, or as a job of a SLURM cluster."""
    wait: bool = False
    """Wait until the job has ended, and end with its exit code."""
    slurm: Slurm = Slurm()
    """What the job is given."""

    @classmethod
    def given(cls, flags: list[tuple[str, str]], environment: Mapping[str, str] | None = None) -> Launch:
        """What `flags` say, on top of the environment (default: the process's).

        Raises:
            ConfigError: every value that cannot be used.
        """
        variables = os.environ if environment is None else environment
        said = {name: field for name, field in VARIABLES.items() if variables.get(name)}
        origins: dict[Key, str] = {("slurm", field): name for name, field in said.items()}
        return cls.build(
            {"slurm": {field: variables[name] for name, field in said.items()}}, flags=flags, origins=origins
        )


def require_slurm() -> None:
    """Refuse where no job can be submitted.

    Raises:
        MissingExtraError: submitit is not installed.
        ConfigError: this machine has no SLURM.
    """
    try:
        import submitit  # noqa: F401 - whether it is there
    except ImportError as error:
        raise MissingExtraError("submitit", "slurm", "--launcher slurm") from error
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        found = f"no {' and no '.join(missing)} on this machine"
        remedy = "Start it on a login node of the cluster, or without --launcher slurm."
        raise ConfigError("no job can be submitted", [Problem("--launcher slurm", found, "SLURM's programs", remedy)])


def executor(slurm: Slurm, name: str, folder: Path) -> SlurmExecutor:
    """submitit's executor of a job called `name`, whose script and logs go to `folder`."""
    from submitit import SlurmExecutor

    made = SlurmExecutor(folder, max_num_timeout=slurm.requeues)
    made.update_parameters(**slurm.parameters(name))
    return made
