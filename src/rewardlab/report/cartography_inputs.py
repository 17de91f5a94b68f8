"""What `evaluate cartography` wrote: cartography.json as records, and the pairs of cartography.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.cartography import RESULT, TABLE
from rewardlab.records import Estimate
from rewardlab.report.reading import readable, rows_at
from rewardlab.store.shapes import Shape, read_object, shaped

NUMBERS = (
    "confidence",
    "variability",
    "correctness",
    "forgetting",
    "confidence_classic",
    "variability_classic",
)
COLUMNS = (
    *("pair_id", "occurrence", "source", "prompt", "chosen", "rejected", "chosen_length", "rejected_length"),
    *("never_learnt", "epochs", "runs", "easy", "ambiguous", "hard", *NUMBERS),
)


class MappedTraining(Shape):
    """A training that the map was made from."""

    name: str
    epochs: int
    pairs: int


class MapOptions(Shape):
    """What the page says of the configuration."""

    convention: str
    cut: tuple[float, float] | None
    level: float
    unit: str


class ConfidenceBin(Shape):
    """Pairs of like confidence; shares as fractions."""

    low: float
    high: float
    confidence: float
    n: int
    differ: int
    longer_is_chosen: float | None
    longer_is_chosen_low: float | None
    longer_is_chosen_high: float | None
    correctness: float


class CartographyFile(Shape):
    """cartography.json."""

    runs: list[MappedTraining]
    options: MapOptions
    counts: dict[str, int]
    reasons: dict[str, str]
    estimates: list[Estimate]
    curves: dict[str, list[ConfidenceBin]]
    findings: list[str]

    def estimate(self, name: str) -> Estimate | None:
        """The estimate of that machine name, None when the file has none."""
        return next((item for item in self.estimates if item.name == name), None)


@dataclass(frozen=True)
class MapTable:
    """cartography.parquet: the numbers are in memory, texts are read for the pairs that are asked for.

    Attributes:
        path: the file.
        confidence: of every pair, in the convention of the regions.
    """

    path: Path
    confidence: Sequence[float | None]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The pairs at `indices`, in that order.

        Raises:
            DataError: the file cannot be read.
        """
        return rows_at(self.path, indices, COLUMNS)


@dataclass(frozen=True)
class DataMap:
    """The files of one `evaluate cartography`."""

    file: CartographyFile
    table: MapTable


def read_cartography(folder: Path) -> DataMap:
    """The files of a map.

    Raises:
        DataError: missing, unreadable or of another shape.
    """
    path = folder / RESULT
    file = shaped(CartographyFile, read_object(path), path)
    place = folder / TABLE
    with readable(place):
        table = pq.ParquetFile(place)
        missing = [name for name in COLUMNS if name not in table.schema_arrow.names]
        if not missing:
            column = "confidence" if file.options.convention == "margin" else "confidence_classic"
            return DataMap(file, MapTable(place, table.read(columns=[column])[column].to_pylist()))
    problem = Problem(str(place), f"no column {', '.join(missing)}", f"the columns of {TABLE}")
    raise DataError("columns missing", [problem])
