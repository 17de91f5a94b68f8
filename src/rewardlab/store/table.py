"""A Parquet table made in shards, in any order, by a process that may be killed at any moment.

The plan is fixed in a file before the first row is computed: which rows of the final table each shard holds.
A shard is one Parquet file that appears whole; going on after a kill means computing the missing ones. The
final table has its rows in the original order and the same bytes whatever the interruptions, on the same
machine with the same pyarrow: fixed writer options, no times, no host names.

    folder/plan.json
    folder/shards/00000.parquet ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rewardlab.errors import Problem, RunError
from rewardlab.records import canonical_json
from rewardlab.store.files import atomic_path, read_json, write_text

PLAN = "plan.json"
SHARDS = "shards"
_ROWS_PER_GROUP = 1 << 16


@dataclass(frozen=True)
class Plan:
    """Which rows each shard holds, and what they are made from.

    Attributes:
        key: content key of everything that determines the rows (inputs, scorer, batch composition).
        shards: row numbers of the final table, from 0, each exactly once over all shards.
    """

    key: str
    shards: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        numbers = sorted(chain.from_iterable(self.shards))
        if numbers != list(range(len(numbers))):
            raise ValueError("the shards of a plan hold every row number from 0 exactly once")

    @property
    def rows(self) -> int:
        """Rows of the final table."""
        return sum(len(shard) for shard in self.shards)

    def as_dict(self) -> dict[str, Any]:
        """JSON values of the plan file."""
        return {"key": self.key, "shards": [list(shard) for shard in self.shards]}


class ShardedTable:
    """The shards of one table; one writer at a time (hold the run's lock).

    Args:
        folder: where the plan and the shards live; made when missing.
        schema: columns of the table.
        plan: fixed on the first call; later calls must bring the same one.

    Raises:
        RunError: the folder holds shards of a different plan, or cannot be written to.
    """

    def __init__(self, folder: Path, schema: pa.Schema, plan: Plan) -> None:
        self.folder = folder
        self.schema = schema
        self.plan = plan
        if (folder / PLAN).is_file():
            self._refuse_another_plan()
        else:
            write_text(folder / PLAN, canonical_json(plan.as_dict()) + "\n")

    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be computed, unreadable ones included."""
        return [number for number in range(len(self.plan.shards)) if not self._is_whole(number)]

    def write(self, number: int, rows: pa.Table | Sequence[Mapping[str, Any]]) -> None:
        """Store one shard, its rows in the order of the plan.

        Raises:
            ValueError: not the number of rows or not the columns that the plan and schema say.
            RunError: the disk is full.
        """
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=self.schema)
        if table.num_rows != len(self.plan.shards[number]) or not table.schema.equals(self.schema):
            expected = f"{len(self.plan.shards[number])} rows of {self.schema.names}"
            raise ValueError(f"shard {number} has {table.num_rows} rows of {table.schema.names}, not {expected}")
        write_parquet(self._path(number), table)

    def finish(self, path: Path) -> pa.Table:
        """Merge all shards into one Parquet file in the original order, and return the table.

        Raises:
            RunError: shards are missing.
        """
        ordered = self.merged()
        write_parquet(path, ordered)
        return ordered

    def merged(self) -> pa.Table:
        """All shards as one table, its rows in the original order.

        Raises:
            RunError: shards are missing.
        """
        missing = self.missing()
        if missing:
            problem = Problem(str(self.folder / SHARDS), f"{len(missing)} shards missing", "every shard of the plan")
            raise RunError("the table is not complete", [problem])
        parts = [pq.read_table(self._path(number), schema=self.schema) for number in range(len(self.plan.shards))]
        stored = list(chain.from_iterable(self.plan.shards))
        place = sorted(range(len(stored)), key=stored.__getitem__)
        merged = pa.concat_tables(parts) if parts else self.schema.empty_table()
        return merged.take(pa.array(place, type=pa.int64())).combine_chunks()

    def _path(self, number: int) -> Path:
        return self.folder / SHARDS / f"{number:05d}.parquet"

    def _is_whole(self, number: int) -> bool:
        path = self._path(number)
        if not path.is_file():
            return False
        try:
            with pq.ParquetFile(path) as shard:
                rows, schema = shard.metadata.num_rows, shard.schema_arrow
        except (OSError, pa.ArrowException):
            return False
        return bool(rows == len(self.plan.shards[number]) and schema.equals(self.schema))

    def _refuse_another_plan(self) -> None:
        stored = read_json(self.folder / PLAN)
        if stored == self.plan.as_dict():
            return
        key = stored.get("key") if isinstance(stored, dict) else None
        problem = Problem(
            str(self.folder / PLAN),
            f"the plan {key!r}" if key != self.plan.key else "the same inputs in different shards",
            repr(self.plan.key),
            "The input, the model or the settings have changed: choose another run directory.",
        )
        raise RunError("the folder holds parts of a different table", [problem])


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Write a table atomically and with fixed options: the same table gives the same bytes.

    Raises:
        RunError: the disk is full or the folder cannot be written to.
    """
    with atomic_path(path) as temporary:
        pq.write_table(
            table, temporary, version="2.6", compression="zstd", compression_level=3, row_group_size=_ROWS_PER_GROUP
        )
