"""The command line in a process of its own that tests kill, without the seconds that imports take.

It is forked from a server that has imported what takes long and has computed nothing: autograd does not survive a fork.
What is killed is what a user would have: `main` of the command line, its signal handlers, its files.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([
    "torch",
    "transformers.trainer",
    "rewardlab.cli.main",
    "rewardlab.studies.verbs",
    "rewardlab.train.reward",
    "rewardlab.train.preference",
    "rewardlab.score.score",
    "rewardlab.sample.verb",
])  # fmt: skip


class Command:
    """`rewardlab WORDS`, with the methods of `subprocess.Popen` that tests need.

    Args:
        words: of the command line.
        said: file that its output is appended to.
        environment: added to this process's.
    """

    def __init__(self, words: Sequence[str], said: Path, environment: Mapping[str, str]) -> None:
        variables = os.environ | {"OMP_NUM_THREADS": "1", **environment}
        self._process = forks.Process(
            target=_command, args=(list(words), variables, str(Path.cwd()), str(said)), daemon=True
        )
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, minus the signal's number for a killed one; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """As from another terminal; nothing where it has ended."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """The exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("rewardlab", seconds)
        return code


def _command(words: list[str], variables: dict[str, str], folder: str, said: str) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    with open(said, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from rewardlab.cli.main import main

    torch.set_num_threads(1)
    sys.exit(main(words))
