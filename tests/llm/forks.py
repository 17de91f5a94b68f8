"""Runs of a program in processes of their own, with what takes long to import imported once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable


def serve(work: Callable[..., None]) -> None:
    """In the program: fork for every line of arguments; print the process, and its status when it has ended."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(*line.split())
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


class Forks:
    """In the test: one run after another."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: object) -> int:
        """The process of a new run."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, arguments)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Its status, when it has ended."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()
