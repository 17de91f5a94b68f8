"""Several processes on the CPU (gloo), for the tests of whatever trains or scores in more than one.

    run_ranks(work, 2, folder)            a function of a test module, in so many forked processes: its results by rank
    with torchrun(words, 2, home) as ...  the command line, launched as a user does
    killed_at_random_moments(work, ...)   a function in a process of its own, killed and begun again until it is done

Neither can hang a test: what has not ended in time is killed, and the test fails with what was said so far.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import forks

SECONDS = 240
"""Before processes that wait for each other are killed."""


def run_ranks(work: Callable[..., Any], count: int, *arguments: Any, seconds: float = SECONDS) -> list[Any]:
    """What `work(*arguments)` gives in each of `count` processes, by rank.

    Args:
        work: a function of a module; it finds the others through `rewardlab.store.processes`.
        count: how many.
        arguments: of simple types, the same for all.
        seconds: for all of it.
    """
    port = _free_port()
    receivers, children = [], []
    for rank in range(count):
        receiver, sender = forks.Pipe(duplex=False)
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
        variables = launched | {"MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        # The server has the variables of the test that started it.
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        child = forks.Process(target=_rank, args=(work, environment, sender, arguments), daemon=True)
        child.start()
        sender.close()
        receivers.append(receiver)
        children.append(child)
    end = time.monotonic() + seconds
    try:
        found = [_received(receiver, end) for receiver in receivers]
    finally:
        for child in children:
            child.join(max(0.0, min(10.0, end - time.monotonic())))
            child.kill()
    said = [f"process {rank}: {error}" for rank, (_, error) in enumerate(found) if error]
    if said:
        pytest.fail("\n".join(said), pytrace=False)
    return [result for result, _ in found]


def killed_at_random_moments(
    work: Callable[..., Any],
    arguments: Callable[[str], Sequence[Any]],
    check: Callable[[str], None],
    *,
    kills: int = 20,
) -> None:
    """Kill `work(*arguments(name))` at moments drawn from all the time that it takes, and call it again until it is
    done; then the next one, under another name, until there were so many kills.

    Args:
        work: a function of a module, that goes on with what an earlier call has left.
        arguments: of a name, of simple types.
        check: of a name, whose work is done; the first one, `whole`, was not disturbed.
        kills: how many.
    """
    ended(work, SECONDS, *arguments("warm"))  # the server that forks imports for seconds
    began = time.monotonic()
    assert ended(work, SECONDS, *arguments("whole"))
    seconds, generator, number, killed = time.monotonic() - began, random.Random(0), 0, 0
    check("whole")
    while killed < kills:
        name = f"killed-{number}"
        if ended(work, generator.uniform(0.0, seconds), *arguments(name)):
            check(name)
            number += 1
        else:
            killed += 1
    assert ended(work, SECONDS, *arguments(f"killed-{number}"))
    check(f"killed-{number}")


def ended(work: Callable[..., Any], seconds: float, *arguments: Any) -> bool:
    """Whether `work(*arguments)`, in a forked process that is killed after so many seconds, has ended before."""
    receiver, sender = forks.Pipe(duplex=False)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = forks.Process(target=_rank, args=(work, environment, sender, arguments), daemon=True)
    child.start()
    sender.close()
    child.join(seconds)
    has_ended = child.exitcode is not None
    child.kill()
    child.join()
    if has_ended:
        _, error = _received(receiver, time.monotonic())
        assert not error, error
    return has_ended


def is_run(folder: Path) -> bool:
    """Whether there is a run to go on with; what a kill left before there was one goes away, as a user would do."""
    if (folder / "run.json").exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _rank(work: Callable[..., Any], environment: dict[str, str], sender: Connection, arguments: Sequence[Any]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    import torch

    from rewardlab.store.processes import leave

    torch.set_num_threads(1)
    try:
        sender.send((work(*arguments), ""))
        leave()
    except BaseException:
        sender.send((None, traceback.format_exc()))
        raise


def _received(receiver: Connection, end: float) -> tuple[Any, str]:
    try:
        if receiver.poll(max(0.0, end - time.monotonic())):
            found: tuple[Any, str] = receiver.recv()
            return found
    except EOFError:
        return None, "ended without a result"
    return None, "has not ended in time"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@dataclass
class Launched:
    """A command line under torchrun.

    Attributes:
        process: torchrun.
        file: what torchrun and the processes say.
    """

    process: subprocess.Popen[bytes]
    file: Path

    @property
    def said(self) -> str:
        """Everything so far."""
        return self.file.read_text(errors="replace")

    def pid(self, rank: int) -> int:
        """The process of a rank, as soon as there is one."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    if child.environ().get("RANK") == str(rank):
                        return child.pid
            time.sleep(0.05)
        raise AssertionError(f"there is no process {rank}:\n{self.said}")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something holds, while torchrun is alive."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, f"ended too early:\n{self.said}"
            assert time.monotonic() < end, f"waited too long:\n{self.said}"
            time.sleep(0.01)

    def end(self, seconds: float = SECONDS) -> int:
        """The exit code of torchrun: 0, or 1 where any process has another."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"has not ended in time:\n{self.said}", pytrace=False)


@contextlib.contextmanager
def torchrun(words: Sequence[str], count: int, folder: Path) -> Iterator[Launched]:
    """`rewardlab WORDS` in so many processes; killed when the block ends before them.

    Args:
        words: of the command line.
        count: how many processes.
        folder: runs are in `folder/runs`; what is said, in a file there.
    """
    environment = os.environ | {
        "REWARDLAB_HOME": str(folder / "runs"),
        "REWARDLAB_ALLOW_UNTRACKED": "1",
        "OMP_NUM_THREADS": "1",
    }
    # After `--` nothing is an option of torchrun, which else takes our --run for a beginning of its --run-path.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    place = ["--master-addr", "127.0.0.1", "--master-port", str(_free_port())]
    file = folder / f"said-{time.monotonic_ns()}.txt"
    with file.open("wb") as said:
        process = subprocess.Popen(
            [*launcher, *place, "-m", "--", "rewardlab", *words], stdout=said, stderr=said, env=environment
        )
    try:
        yield Launched(process, file)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            everything = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            if process.poll() is None:
                for one in everything:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
        process.wait(SECONDS)
