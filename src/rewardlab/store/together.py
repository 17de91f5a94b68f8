"""What every process of a run reads and checks for itself: what is wrong with it for all of them is said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rewardlab.errors import ElsewhereError, InputError, LostProcessError
from rewardlab.store.processes import processes

Result = TypeVar("Result")


def together(work: Callable[[], Result]) -> Result:
    """What `work` gives in this process; all do it at the same time, and go on when it has ended in all.

    Nothing in `work` may wait for another process.

    Raises:
        InputError: that of `work`, in the first process, or where `work` did not fail in the first.
        ElsewhereError: it failed in the first process, which says why.
        LostProcessError: it failed in others alone.
    """
    done: list[Result] = []
    failure: InputError | None = None
    try:
        done.append(work())
    except InputError as error:
        failure = error
    codes = processes().gather(None if failure is None else failure.exit_code)
    if failure is not None and (processes().is_first or codes[0] is None):
        raise failure
    if codes[0] is not None:
        raise ElsewhereError(codes[0])
    if any(code is not None for code in codes):
        raise LostProcessError
    return done[0]
