"""Rows of numbers on disk, each found by the digest of what it was made from, memory-mapped.

    folder/<name>.safetensors ...     `digests`, uint8 [rows, 16], and `rows`, [rows, *shape] of any dtype

A shard appears whole or not at all and is never changed, so a kill costs the one being made, and whoever needs some of
the same rows again computes only those that no shard holds.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rewardlab.errors import Problem, RunError
from rewardlab.store.files import LEFTOVER_PREFIX, atomic_path, remove_leftovers
from rewardlab.store.lock import FolderLock

SUFFIX = ".safetensors"
DIGEST_BYTES = 16
"""A digest is so many bytes: of 2^32 rows two share one with a chance of 2^-65."""

UNITS = ("bytes", "kB", "MB", "GB", "TB")

log = logging.getLogger("rewardlab")


def digest_of(content: bytes) -> bytes:
    """What a row is found by."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


class RowStore:
    """The rows in a folder.

    Args:
        folder: where the shards are; it need not exist.
        shape: of a row.
        dtype: of its numbers; every dtype of torch with a fixed size will do.

    Raises:
        RunError: a shard cannot be read.
    """

    def __init__(self, folder: Path, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.folder = folder
        self.shape = tuple(shape)
        self.dtype = dtype
        self._opened: set[str] = set()
        self._shards: list[Tensor] = []
        self._count = 0
        self._starts = np.zeros(0, np.int64)
        self._rows: dict[bytes, int] = {}
        self.refresh()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> None:
        """Open the shards that have appeared.

        Raises:
            RunError: one cannot be read.
        """
        for path in self._paths():
            if path.name not in self._opened:
                self._open(path)

    def read(self, digests: Sequence[bytes]) -> Tensor:
        """Their rows in that order, shape [digests, *shape].

        Raises:
            KeyError: one has no row.
        """
        places = np.array([self._rows[digest] for digest in digests], np.int64)
        shards = np.searchsorted(self._starts, places, side="right") - 1
        rows = torch.empty(len(places), *self.shape, dtype=self.dtype)
        for shard in np.unique(shards):
            at = np.flatnonzero(shards == shard)
            rows[at] = self._shards[shard][places[at] - self._starts[shard]]
        return rows

    def bytes_for(self, rows: int) -> int:
        """Disk that so many rows take, but for some hundred bytes a shard."""
        return rows * (math.prod(self.shape) * self.dtype.itemsize + DIGEST_BYTES)

    def free_bytes(self) -> int:
        """Disk that there is left."""
        place = self.folder.absolute()
        return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free

    def check_room(self, rows: int, remedy: str) -> None:
        """There is room for so many more rows.

        Raises:
            RunError: there is not.
        """
        need, free = self.bytes_for(rows), self.free_bytes()
        if need > free:
            found = f"{in_words(free)} free, for {rows} rows that take {in_words(need)}"
            raise RunError("the disk is too small", [Problem(str(self.folder), found, "room for all of them", remedy)])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write, for one process at a time: others wait, and go on from what this one has written.

        Raises:
            RunError: the folder cannot be written to, or a shard cannot be read.
        """
        lock = FolderLock(self.folder, "folder of rows", waiting=self._tell)
        try:
            remove_leftovers(self.folder)
            self.refresh()
            for path in self._paths():
                if path.name not in self._opened:
                    log.warning("%s is damaged: its rows are made again", path)
                    path.unlink()
            yield
        finally:
            lock.release()

    def write(self, digests: Sequence[bytes], rows: Tensor) -> None:
        """Store one shard; inside `writing`.

        Raises:
            ValueError: rows of another shape.
            RunError: the disk is full.
        """
        if rows.shape != (len(digests), *self.shape):
            raise ValueError(f"rows of shape {tuple(rows.shape)}, not {(len(digests), *self.shape)}")
        content = b"".join(digests)
        # The same rows have the same name, whoever makes them.
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:16]}{SUFFIX}"
        index = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, DIGEST_BYTES)
        with atomic_path(path) as temporary:
            # safetensors' own files are for their owner's eyes alone.
            temporary.write_bytes(save({"digests": index, "rows": rows.to("cpu", self.dtype).contiguous()}))
        self._open(path)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if not path.name.startswith(LEFTOVER_PREFIX))

    def _open(self, path: Path) -> None:
        """Map a shard, of which nothing is read yet but the digests; one that is damaged is passed over.

        Raises:
            RunError: it cannot be read, which says nothing about what is in it.
        """
        try:
            with safe_open(path, "pt") as shard:
                digests, rows = shard.get_tensor("digests"), shard.get_tensor("rows")
        except SafetensorError:
            return
        except OSError as error:
            found = f"{type(error).__name__}: {error.strerror or error}"
            remedy = "May you read it, and is its disk in order? Delete it where its rows are to be made again."
            problem = Problem(str(path), found, "a file that can be read", remedy)
            raise RunError("rows on the disk cannot be read", [problem]) from error
        if rows.shape != (len(digests), *self.shape) or rows.dtype != self.dtype:
            return
        content = digests.numpy().tobytes()
        for row in range(len(rows)):
            self._rows[content[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]] = self._count + row
        self._opened.add(path.name)
        self._starts = np.append(self._starts, self._count)
        self._shards.append(rows)
        self._count += len(rows)

    def _tell(self, holder: str) -> None:
        log.info("%s is being written to by %s: waiting for it", self.folder, holder)


def in_words(count: int) -> str:
    """A number of bytes as a person reads it: `1.5 GB`."""
    power = max((power for power in range(len(UNITS)) if count >= 1000**power), default=0)
    return f"{count / 1000**power:.{1 if power else 0}f} {UNITS[power]}"
