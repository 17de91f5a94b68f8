"""How the folders of finished stages are read: what files of evaluations share, and some rows of a large table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewardlab.errors import DataError, Problem
from rewardlab.records import Estimate
from rewardlab.store.shapes import Shape

_ROWS_AT_ONCE = 4096
PAIRS = "a Parquet table of pairs"


class EstimatesFile(Shape):
    """What the files of evaluations have in common."""

    split: str
    scorer: dict[str, Any]
    options: dict[str, Any]
    estimates: dict[str, list[Estimate]]

    def estimate(self, name: str) -> Estimate | None:
        """The estimate of that machine name, None where the file has none."""
        return next((item for group in self.estimates.values() for item in group if item.name == name), None)


@contextmanager
def readable(path: Path, expected: str = PAIRS) -> Iterator[None]:
    """Says of a table that cannot be read what is wrong with it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        found = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError("unreadable", [Problem(str(path), found, expected)]) from error


def rows_at(path: Path, indices: Sequence[int], columns: Sequence[str], expected: str = PAIRS) -> list[dict[str, Any]]:
    """The rows of a Parquet table at `indices`, in that order; the file is gone through once.

    Raises:
        DataError: the file cannot be read.
    """
    wanted = np.unique(np.asarray(indices, dtype=np.int64))
    found: dict[int, dict[str, Any]] = {}
    start = 0
    with readable(path, expected):
        for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            inside = wanted[(wanted >= start) & (wanted < start + batch.num_rows)]
            rows = batch.take(pa.array(inside - start)).to_pylist()
            found.update(zip(inside.tolist(), rows, strict=True))
            start += batch.num_rows
    return [found[index] for index in indices]
