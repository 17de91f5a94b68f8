"""What `data intervene`, `data cut` and a training with interventions wrote: the table of before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from rewardlab.records import Estimate
from rewardlab.store.shapes import Shape, read_object, shaped

RESULT = "interventions.json"


class DifferenceBin(Shape):
    """Pairs by the difference of their lengths, chosen minus rejected, both ends included; None is open."""

    low: int | None
    high: int | None
    n: int


class InterventionRow(Shape):
    """The training data before the first intervention, or after the one that is named."""

    name: str
    settings: dict[str, Any]
    counts: dict[str, int]
    records: int
    pairs: int
    prompts: int
    equal_length: int
    longer_is_chosen: Estimate
    mean_difference: float | None
    histogram: list[DifferenceBin]


class InterventionsFile(Shape):
    """interventions.json, or `interventions` of a training's summary.json."""

    unit: str
    rows: list[InterventionRow] = Field(min_length=1)


def read_interventions(folder: Path) -> InterventionsFile:
    """The table that a run of `data intervene` or `data cut` wrote.

    Raises:
        DataError: unreadable, or of another shape.
    """
    path = folder / RESULT
    return shaped(InterventionsFile, read_object(path), path)


def of_training(summary: dict[str, Any], path: Path) -> InterventionsFile | None:
    """The table in a training's summary; None where there were no interventions.

    Raises:
        DataError: of another shape.
    """
    found = summary.get("interventions")
    return None if found is None else shaped(InterventionsFile, found, f"{path}: interventions")
