"""The processes of one run: one, unless a launcher such as torchrun has started several.

Whatever several processes do is written once, for any number of them: each takes its share, and what belongs together
is gathered, added up, or done by the first one while the others wait. One process is the plain case, in which nothing
is sent and nobody waits.

Values travel as JSON and tensors as they are, so that nothing pickled is read. All processes call the same methods in
the same order. One that ends leaves the others with a clear error at their next call.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rewardlab.errors import ConfigError, ElsewhereError, LostProcessError, Problem

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")

LONGEST_WAIT = timedelta(days=1)
"""The first process may save, compare or ask a judge for hours; that one is gone is seen at once, without this."""
BUCKET_NUMBERS = 1 << 24
"""Numbers that are sent together: few calls, and little memory beside the tensors themselves."""

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each process: its number, that on its machine, how many there are, where the first one is."""

_GONE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Words of the errors that the transports raise as RuntimeError."""
_STOPPED = 130


@dataclass(frozen=True)
class Processes:
    """This process among those of its run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes what is written once."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The JSON value of every process, by rank.

        Raises:
            LostProcessError: a process has ended.
        """
        if self.count == 1:
            return [value]
        import torch
        from torch import distributed

        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        with clear_when_lost():
            distributed.all_gather(sizes, torch.tensor([len(own)]))
            longest = int(max(sizes))
            everybody = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
            distributed.all_gather(everybody, torch.nn.functional.pad(own, (0, longest - len(own))))
        return [json.loads(one[: int(size)].numpy().tobytes()) for one, size in zip(everybody, sizes, strict=True)]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place.

        Args:
            tensors: of the same shapes and types, in the same order, in every process.

        Raises:
            LostProcessError: a process has ended.
        """
        if self.count == 1:
            return
        import torch

        with torch.no_grad(), clear_when_lost():
            for bucket in _buckets(tensors):
                _add_up(bucket)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return any(self.gather(flag))

    def wait(self) -> None:
        """Until every process is here."""
        self.gather(None)

    def first(self, work: Callable[[], Result]) -> Result:
        """What `work` gives in the first process, a JSON value; the others wait for it.

        Raises:
            ElsewhereError: in the others, when it failed in the first.
        """
        if self.count == 1:
            return work()
        if not self.is_first:
            told = self.gather(None)[0]
            if "exit_code" in told:
                raise ElsewhereError(told["exit_code"])
            found: Result = told["result"]
            return found
        try:
            result = work()
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            with suppress(LostProcessError):
                self.gather({"exit_code": _STOPPED if stopped else getattr(error, "exit_code", 1)})
            raise
        self.gather({"result": result})
        return result

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """What `work` gives in this process: one process after the other does it, the first one first.

        Raises:
            ElsewhereError: in the others, when it failed in the first.
        """
        here: list[Result] = []

        def turn() -> None:
            here.append(work())

        self.first(turn)
        for rank in range(1, self.count):
            if rank == self.rank:
                turn()
            self.wait()
        return here[0]

    def in_order(self, places: Sequence[int], values: Sequence[Any], count: int) -> list[Any]:
        """What every process has for its own places, as one list by place; all places from 0, each once.

        Args:
            places: of the values of this process.
            values: JSON values, one for every place.
            count: how many places there are.

        Raises:
            ValueError: a place is missing, or there twice.
        """
        rows = [row for own in self.gather(list(zip(places, values, strict=True))) for row in own]
        ordered = sorted(rows, key=lambda row: int(row[0]))
        if [row[0] for row in ordered] != list(range(count)):
            raise ValueError(f"the places of all processes are not those from 0 to {count - 1}, each once")
        return [row[1] for row in ordered]


def launched() -> Processes:
    """The process that the launcher's variables describe; a process of its own where they are not all there."""
    values = [os.environ.get(name, "") for name in LAUNCHED]
    return Processes(int(values[0]), int(values[2])) if all(values) else Processes()


@functools.cache
def processes() -> Processes:
    """This process among those of its run; where a launcher has started several, the first call waits for all."""
    found = launched()
    if found.count > 1:
        _join()
    return found


def leave() -> None:
    """Let go of the other processes, at the end of a program."""
    if processes.cache_info().currsize and processes().count > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
    processes.cache_clear()


def alone(what: str) -> None:
    """Refuse to do `what` in several processes.

    Raises:
        ConfigError: a launcher has started several; in all but the first it is ElsewhereError, so that it is said once.
    """
    found = launched()
    if found.count == 1:
        return
    if not found.is_first:
        raise ElsewhereError(ConfigError.exit_code)
    remedy = "Start it without torchrun or accelerate launch."
    raise ConfigError("too many processes", [Problem(what, f"{found.count} processes", "one", remedy)])


@contextmanager
def clear_when_lost() -> Iterator[None]:
    """A process that has ended as one clear error, whatever the transport between them calls it.

    Raises:
        LostProcessError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if isinstance(error, DistError) or any(word in str(error) for word in _GONE):
            raise LostProcessError from error
        raise


def _join() -> None:
    import torch
    from torch import distributed

    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    if not distributed.is_initialized():
        with clear_when_lost():
            # Values go over gloo whatever the device, so that they need no accelerator and no copy to it.
            distributed.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo", timeout=LONGEST_WAIT)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type and device, together no more than `BUCKET_NUMBERS` where there are several."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        alike = bool(bucket) and (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or size + tensor.numel() > BUCKET_NUMBERS):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def _add_up(bucket: Sequence[Tensor]) -> None:
    import torch
    from torch import distributed

    if len(bucket) == 1 and bucket[0].is_contiguous():
        distributed.all_reduce(bucket[0])
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    distributed.all_reduce(flat)
    for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        tensor.copy_(part.view_as(tensor))
