"""Pieces of work that need one another, several at a time, each in one of a few processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TypeVar

from rewardlab.errors import RewardlabError

Result = TypeVar("Result")
LOOK = 1.0
"""Seconds between two looks at whether the process that gives the work is still there."""


def side_by_side(
    needs: Mapping[str, frozenset[str]], work: Callable[[str], Callable[[], Result]], processes: int
) -> Iterator[tuple[str, Result]]:
    """What every piece of work gives, with its name, as they end.

    A piece begins once all that it needs has ended; of those that can begin, in the order given. Where one fails, those
    that have begun are finished and no other begins. Ctrl-C is passed on to all of them, once. Where this process is
    killed, they are told to stop.

    Args:
        needs: names of the pieces, and of those that each needs.
        work: gives the function of a piece when it is about to begin; that has to be picklable, and so what it gives.
        processes: how many there are.

    Raises:
        RewardlabError: a process was killed.
        BaseException: what a piece raised.
    """
    waiting, done = list(needs), set[str]()
    running: dict[Future[Result], str] = {}
    threads = max(1, (os.cpu_count() or 1) // processes)
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin, initargs=(os.getpid(), threads))
    try:
        while waiting or running:
            ready = [name for name in waiting if needs[name] <= done][: processes - len(running)]
            for name in ready:
                waiting.remove(name)
                running[pool.submit(_worked, work(name))] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                result = future.result()
                done.add(name)
                yield name, result
    except KeyboardInterrupt:
        for child in active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT)
        raise
    except BrokenProcessPool as error:
        raise RewardlabError("One of the processes was killed. Was the memory too small for so many?") from error
    finally:
        pool.shutdown(cancel_futures=True)


_at_work = threading.Event()


def _worked(work: Callable[[], Result]) -> Result:
    """What a piece of work gives; Ctrl-C ends it, but not the process that waits for another piece."""
    _at_work.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _at_work.clear()


def _begin(parent: int, threads: int) -> None:
    """What a process does before its first piece of work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Bars of several processes would write over one another.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Ctrl-C in a terminal reaches all processes of a group; these hear of it from the one that gives the work.
    os.setpgid(0, 0)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    # Ends the process, but for work that holds it back until it has saved what it has.
    os.kill(os.getpid(), signal.SIGTERM)
    while _at_work.is_set():
        time.sleep(LOOK)
    os._exit(1)
