"""Cuts: records are kept by their ids, or by what a table of training dynamics says of them.

    ids     a file with one id a line (`carto_file` of the published code): what stands there is kept
    table   Parquet with a row a record, e.g. cartography.parquet: kept is low < value < high, both ends left out

An id listed that no record has is an error: a list for other data would silently keep too little. Records without a row
in the table, or with a null there, are dropped and counted; of several rows of one id the mean counts.

Source: Singhal et al. 2023, arXiv 2310.03716, section 4 (confidence-based truncation); Swayamdipta et al. 2020, Dataset
cartography, arXiv 2009.10795.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import model_validator

from rewardlab.config import Config, nearest
from rewardlab.data.interventions.base import Changed, Given
from rewardlab.errors import DataError, Problem
from rewardlab.records import Record

PUBLISHED: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"webgpt": (-0.2, 0.4), "alpacafarm": (-0.3, 0.3), "rlcd": (-1.0, 2.0), "stack": (-1.0, 1.0)}
)
"""Ends of the published cuts by confidence."""
ID_COLUMN = "pair_id"
OWN_ID = "id"


class CutRule(Config):
    """What is kept: the ids of a list, or the records whose value in a table lies between two ends."""

    ids: Path | None = None
    """File with one id a line; what it lists is kept."""
    table: Path | None = None
    """Parquet table with `pair_id` and the column to cut by, such as cartography.parquet."""
    column: str = "confidence"
    """Which number of the table decides."""
    low: float | None = None
    """Kept is what lies above; null for no lower end."""
    high: float | None = None
    """Kept is what lies below; null for no upper end."""
    published: Literal["webgpt", "alpacafarm", "rlcd", "stack"] | None = None
    """The published ends by name, in place of low and high."""
    quantiles: tuple[float, float] | None = None
    """The ends as quantiles of the table's values, in place of low and high: .2 and .8 leave out a fifth on each side;
    0 or 1 for no end."""
    by: str = OWN_ID
    """What a record is known by: `id`, or the name of a column that its row carried (`uid`)."""
    unknown: Literal["refuse", "ignore"] = "refuse"
    """What happens when ids are to be kept that no record has; ignore them for a fold or a part of the data."""

    @model_validator(mode="after")
    def _one_rule(self) -> CutRule:
        if (self.ids is None) == (self.table is None):
            raise ValueError("expected either ids or a table")
        ways = [self.low is not None or self.high is not None, self.published is not None, self.quantiles is not None]
        if self.ids is not None and any(ways):
            raise ValueError("expected ends (low, high, quantiles, published) with a table only")
        if self.table is not None and sum(ways) != 1:
            raise ValueError("expected one of: low or high or both, quantiles, published")
        if self.quantiles is not None and not 0 <= self.quantiles[0] < self.quantiles[1] <= 1:
            raise ValueError("expected two quantiles from 0 to 1, the first below the second")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("expected low below high")
        return self

    def ends(self, values: Collection[float]) -> tuple[float, float]:
        """Low and high, infinite where open; `values` are those of the table."""
        if self.published is not None:
            return PUBLISHED[self.published]
        if self.quantiles is not None and values:
            low, high = self.quantiles
            found = np.quantile(np.array(list(values)), [low, high])
            return -math.inf if low == 0 else float(found[0]), math.inf if high == 1 else float(found[1])
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high


class Cut(CutRule):
    """Records kept by their ids or by a table."""

    name: Literal["cut"] = "cut"
    """Which intervention this is."""

    def apply(self, records: Sequence[Record], given: Given) -> Changed:
        """See `keep`.

        Raises:
            DataError: files that cannot be read, or ids that no record has: all of them.
        """
        listed = _listed(self.ids) if self.ids is not None else _between(self)
        known = {_identity(record, self.by) for record in (*given.original, *records)}
        if self.unknown == "refuse":
            _refuse_unknown(listed.where, known, self.by)
        changed = keep(records, listed.where, self.by)
        absent = len(listed.where.keys() - known)
        counts = {**changed.counts, "listed": len(listed.where), "listed without a record": absent}
        if listed.valued is not None:
            without = sum(_identity(record, self.by) not in listed.valued for record in records)
            counts["dropped without a value"] = without
        return Changed(changed.records, counts)


class Listed(NamedTuple):
    """What is to be kept.

    Attributes:
        where: id → where it was listed, for messages.
        valued: every id that has a value in the table; None for a list.
    """

    where: Mapping[str, str]
    valued: Collection[str] | None = None


def keep(records: Sequence[Record], ids: Collection[str], by: str = OWN_ID) -> Changed:
    """The records whose id is among `ids`, in their order.

    Args:
        records: of any kind.
        ids: what is kept.
        by: `id`, or a name in `meta` whose value stands for the id.
    """
    kept = [record for record in records if _identity(record, by) in ids]
    return Changed(kept, {"kept": len(kept), "dropped": len(records) - len(kept)})


def _identity(record: Record, by: str) -> str | None:
    if by == OWN_ID:
        return record.id
    value = record.meta.get(by)
    return None if value is None else str(value)


def _listed(path: Path) -> Listed:
    """The ids of a file, one a line; empty lines do not count."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise DataError("no list of ids", [Problem(str(path), str(found), "a text file, an id a line")]) from error
    where: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where.setdefault(line.strip(), f"{path}:{number}")
    if not where:
        raise DataError("no list of ids", [Problem(str(path), "no id", "one a line")])
    return Listed(where)


def _between(rule: CutRule) -> Listed:
    """The ids of a table whose value lies between the ends."""
    path = Path(str(rule.table))
    values = _values(path, rule.column)
    low, high = rule.ends(values.values())
    kept = {name: str(path) for name, value in values.items() if low < value < high}
    if not kept:
        ends = f"{low:g} < {rule.column} < {high:g}"
        found = f"none of {len(values)} ids with {ends}"
        if values:
            found += f"; they lie from {min(values.values()):g} to {max(values.values()):g}"
        raise DataError("the cut would keep nothing", [Problem(str(path), found, "ids between the ends")])
    return Listed(kept, values.keys())


def _values(path: Path, column: str) -> dict[str, float]:
    """The mean of a column by id, without nulls."""
    expected = "a Parquet table of training dynamics"
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError("no table to cut by", [Problem(str(path), found, expected)]) from error
    names = file.schema_arrow.names
    absent = [name for name in (ID_COLUMN, column) if name not in names]
    problems = [Problem(str(path), f"no column {name!r}", expected, nearest(name, names)) for name in absent]
    if not absent and not _is_number(file.schema_arrow.field(column).type):
        kind = file.schema_arrow.field(column).type
        problems = [Problem(f"{path}, column {column!r}", str(kind), "numbers", "Choose another one with --column.")]
    if problems:
        raise DataError("no table to cut by", problems)
    rows = file.read(columns=[ID_COLUMN, column])
    several: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(rows[ID_COLUMN].to_pylist(), rows[column].to_pylist(), strict=True):
        if value is not None and not math.isnan(value):
            several[str(name)].append(float(value))
    return {name: math.fsum(found) / len(found) for name, found in several.items()}


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _refuse_unknown(listed: Mapping[str, str], known: Collection[str | None], by: str) -> None:
    expected = "the id of a record" if by == OWN_ID else f"the {by} of a record"
    problems = [
        Problem(where, f"{name!r}, which no record has", expected)
        for name, where in listed.items()
        if name not in known
    ]
    if problems:
        remedy = "they may be of other data; for a part of the data set unknown: ignore"
        raise DataError(f"{len(problems)} of {len(listed)} ids to keep are in no record: {remedy}", problems)
