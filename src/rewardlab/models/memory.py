"""Memory: kept in the process while it computes, and recognised when it runs out.

glibc returns large freed blocks to the kernel and asks for them again, zeroed page by page, at the next operation.
Training on a CPU allocates the same sizes over and over, so that costs a tenth of the time and more.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from rewardlab.store.processes import processes

Result = TypeVar("Result")

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""Words of the errors that allocators and the libraries of accelerators (cuBLAS, cuDNN) raise as RuntimeError."""


def keep_freed_memory() -> None:
    """Tell glibc to reuse blocks below 1 GiB; does nothing where the C library is another one.

    Called by the stages that compute, never by an import: it changes the whole process.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Older versions of glibc refuse a threshold above 32 MiB.
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: devices and allocators say so with types and words of their own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)


def unless_out_of_memory(work: Callable[[], Result]) -> list[Result]:
    """The result of `work` alone in a list, which is empty where memory ran out: the error and the activations that its
    frames hold are gone then."""
    try:
        return [work()]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return []


def within_memory(work: Callable[[], Result], use_less: Callable[[], None]) -> Result:
    """The result of `work`, which begins anew whenever memory runs out in any process.

    Args:
        work: may not wait for another process: they meet when it has ended in all.
        use_less: called before `work` begins anew, so that it takes less; raises where it takes as little as it can.
    """
    while True:
        found = unless_out_of_memory(work)
        if not processes().any(not found):
            return found[0]
        use_less()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
