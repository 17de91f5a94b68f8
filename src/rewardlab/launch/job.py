"""What runs in a job: the command line as a process of its own, stopped in time and resumed when it is queued again.

submitit writes a `Command` down, and calls it in every task of the job. SLURM's signals come to submitit's process. At
USR2 (the time is nearly over, or somebody else gets the machine) submitit asks the command for what is to run next:
here it stops the process, which keeps what it has as after Ctrl-C, and gives itself. submitit then has the job queued
again. Where SLURM does that by itself, the same command finds the run unfinished and resumes it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rewardlab.errors import RewardlabError
from rewardlab.store.files import write_json
from rewardlab.store.processes import LAUNCHED
from rewardlab.store.record import RunRecord

if TYPE_CHECKING:
    from submitit import JobEnvironment
    from submitit.helpers import DelayedSubmission

STOPPED = 130
"""Exit code of a command line that was told to stop."""
_LOOK = 0.2
"""Seconds between looks at the process."""
_FIRST_PORT, _PORTS = 10_000, 20_000
"""Below those that the kernel gives to whoever asks for any."""


@dataclass(frozen=True)
class Order:
    """A command line to be run as a job.

    Attributes:
        name: of the job.
        words: of the command line, without `rewardlab`.
        again: the words that go on with it once the run has begun.
        run: the run directory; None for a study, whose words go on by themselves.
        directory: the working directory.
    """

    name: str
    words: Sequence[str]
    again: Sequence[str]
    run: Path | None
    directory: Path


class Command:
    """The function of a job.

    Args:
        order: what is to run.
        grace: seconds that the process has to stop in.
        requeue: whether the job may be queued again.
    """

    def __init__(self, order: Order, grace: int, requeue: bool) -> None:
        # Plain values: it is written down by one process and read by others.
        self.words, self.again = list(order.words), list(order.again)
        self.run = str(order.run) if order.run else ""
        self.directory = str(order.directory)
        self.grace, self.requeue = grace, requeue

    def __call__(self) -> None:
        """Run the command line in this task.

        Raises:
            SystemExit: with its exit code, where that is not 0, so that SLURM knows it.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        if environment.global_rank == 0:
            # That of an attempt which was preempted is not that of this one.
            exit_file(environment.paths.folder, environment.job_id).unlink(missing_ok=True)
        with _held_back(signal.Signals[f"SIG{environment.USR_SIG}"]):
            try:
                code = self._exit_code(environment)
            except Exception:
                _note_exit(environment, 1)
                raise
            _note_exit(environment, code)
        if code:
            raise SystemExit(code)

    def checkpoint(self) -> DelayedSubmission | None:
        """What is to run when the job is queued again: the same, after the process has stopped; None for nothing."""
        from submitit.helpers import DelayedSubmission

        child: subprocess.Popen[bytes] | None = self.__dict__.pop("_child", None)
        if child is not None:
            _stop(child, self.grace / 2)
        return DelayedSubmission(self) if self.requeue else None

    def _exit_code(self, environment: JobEnvironment) -> int:
        words = self._next_words()
        if words is None:
            print(f"{self.run} is done", flush=True)  # noqa: T201 - the job's log
            return 0
        child = subprocess.Popen(  # noqa: S603 - the user's own command line
            [sys.executable, "-m", "rewardlab", *words], cwd=self.directory, env=variables(environment)
        )
        self._child = child
        _pass_on(signal.SIGTERM, child)
        try:
            code = _ended(child, signal.Signals[f"SIG{environment.USR_SIG}"])
        finally:
            _stop(child, self.grace / 2)
            self.__dict__.pop("_child", None)
        if code == STOPPED:
            # SLURM, or the first task, has stopped it: what comes next is USR2, the end of this process, or nothing.
            _sleep(self.grace, signal.Signals[f"SIG{environment.USR_SIG}"])
        return code

    def _next_words(self) -> list[str] | None:
        """The words of the command line now; None where it is done."""
        with suppress(RewardlabError):
            if self.run:
                return None if RunRecord.read(Path(self.run)).status == "done" else self.again
        return self.words


def variables(environment: JobEnvironment) -> dict[str, str]:
    """The environment of a task's process: the job's own, and of several tasks where they find each other."""
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    if environment.num_tasks == 1:
        return inherited
    port = _FIRST_PORT + int(environment.raw_job_id) % _PORTS
    values = (
        environment.global_rank,
        environment.local_rank,
        environment.num_tasks,
        "127.0.0.1" if environment.num_nodes == 1 else environment.hostnames[0],
        # All tasks know the job's number, and two jobs on one machine have different ones.
        port,
    )
    return inherited | dict(zip(LAUNCHED, map(str, values), strict=True))


def exit_file(folder: Path, job: str) -> Path:
    """Where the exit code of the job's first process is noted."""
    return folder / f"{job}_exit.json"


def _note_exit(environment: JobEnvironment, code: int) -> None:
    if environment.global_rank == 0:
        write_json(exit_file(environment.paths.folder, environment.job_id), {"exit_code": code})


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """The signal reaches this process in `_sleep` only, and the processes that it starts not at all.

    What answers it waits for the child, which nobody may be doing at the same moment.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sleep(seconds: float, number: signal.Signals) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    try:
        time.sleep(seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _ended(child: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """The exit code of the process, as a shell gives it."""
    while (code := child.poll()) is None:
        _sleep(_LOOK, number)
    if code == -signal.SIGTERM:
        return STOPPED
    return code if code >= 0 else 128 - code


def _pass_on(number: signal.Signals, child: subprocess.Popen[bytes]) -> None:
    """SLURM ends a job with SIGTERM, and may send it to its tasks alone."""

    def passed(_number: int, _frame: FrameType | None) -> Any:
        child.send_signal(number)

    signal.signal(number, passed)


def _stop(child: subprocess.Popen[bytes], seconds: float) -> None:
    """End the process: as from the keyboard, and if it is not gone in so many seconds, at once."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
