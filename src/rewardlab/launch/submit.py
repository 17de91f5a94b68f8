"""A command line into the queue of a cluster, and what became of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlab.errors import ConfigError, DataError, Problem, RewardlabError, RunError
from rewardlab.launch.job import STOPPED, Command, Order, exit_file
from rewardlab.launch.slurm import Slurm
from rewardlab.store.files import read_json

if TYPE_CHECKING:
    from submitit import Job
    from submitit.core.core import PicklingExecutor

_PRIVATE = 0o700
_LOOK = 1.0
_LATE = 20.0
"""Seconds that a shared file system may take to show a file that another machine has written."""


@dataclass(frozen=True)
class Submitted:
    """A job in the queue.

    Attributes:
        job: submitit's.
        order: what it runs.
        requeue: whether it may be queued again.
    """

    job: Job[Any]
    order: Order
    requeue: bool

    @property
    def log(self) -> Path:
        """What the first process says."""
        return Path(self.job.task(0).paths.stdout)

    def lines(self) -> list[str]:
        """Where it is, and how to watch and cancel it."""
        number, log = self.job.job_id, shlex.quote(str(self.log))
        return [
            f"job {number} is queued: rewardlab {shlex.join(self.order.words)}",
            *([f"  results  {self.order.run}"] if self.order.run else []),
            f"  log      tail -F {log}",
            f"  state    squeue --job {number}; once it has ended: sacct --job {number}",
            f"  cancel   scancel {number}",
        ]

    def wait(self, look: float = _LOOK) -> int:
        """The exit code of the command line, once the job has ended.

        What was stopped may have been preempted, and the job be queued again: then its next attempt counts.

        Args:
            look: seconds between looks.

        Raises:
            RewardlabError: it has ended without one: cancelled, killed, or never begun.
        """
        late = None
        while True:
            # Asked first: what is noted once the job has ended is that of its last attempt.
            has_ended = self.job.done()
            code = self._noted()
            if code is not None and (has_ended or code != STOPPED or not self._may_come_back):
                return code
            if has_ended:
                late = late or time.monotonic() + _LATE
                if time.monotonic() > late:
                    raise RewardlabError(
                        f"The job has ended without an exit code. SLURM says: {self.job.state}. Its log: {self.log}"
                    )
            time.sleep(look)

    def _noted(self) -> int | None:
        """The exit code that the newest attempt has left; None where it has left none yet."""
        try:
            return int(read_json(exit_file(self.log.parent, self.job.job_id))["exit_code"])
        except DataError:
            return None

    @property
    def _may_come_back(self) -> bool:
        """Whether a job that was stopped may be queued again; where SLURM keeps no accounts, nobody can say."""
        return self.requeue and self.job.state.upper() != "UNKNOWN"


def submit(order: Order, slurm: Slurm, folder: Path, executor: Callable[..., PicklingExecutor]) -> Submitted:
    """Put `order` into the queue.

    Args:
        order: the command line.
        slurm: what the job is given.
        folder: of script, logs and exit codes; made, and open to its owner alone, because what submitit reads there
            is Python's own form of objects.
        executor: makes submitit's executor from (slurm, name, folder).

    Raises:
        ConfigError: the cluster refuses the job; nothing is left behind.
        RunError: the folder cannot be written to.
    """
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError
    from submitit.helpers import clean_env

    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_PRIVATE)
        before = set(folder.iterdir())
    except OSError as error:
        problem = Problem(str(folder), str(error.strerror), "a folder that can be written to", "Give --slurm.folder.")
        raise RunError("no job can be submitted", [problem]) from error
    try:
        # A job that is submitted from within another one would take its variables over.
        with clean_env():
            command = Command(order, slurm.grace, slurm.requeues > 0)
            job = executor(slurm, order.name, folder).submit(command)
    except (UncompletedJobError, FailedSubmissionError) as error:
        for left in set(folder.iterdir()) - before:
            left.unlink()
        if made:
            folder.rmdir()
        said = " ".join(str(error).split()) or "nothing"
        remedy = "See the flags --slurm.*; `sinfo` lists the partitions."
        raise ConfigError("SLURM has refused the job", [Problem("sbatch", said, "a job number", remedy)]) from error
    return Submitted(job, order, slurm.requeues > 0)
