"""Interventions one after the other, with a table of what each of them did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from rewardlab.data.interventions.balance_length import BalanceLength
from rewardlab.data.interventions.base import Given, Lengths
from rewardlab.data.interventions.cut import Cut
from rewardlab.data.interventions.label_noise import LabelNoise
from rewardlab.data.interventions.lengths import length_row
from rewardlab.data.interventions.margin import Margin
from rewardlab.data.interventions.plant_length import PlantLength
from rewardlab.data.interventions.random_pairs import RandomPairs
from rewardlab.errors import DataError, Problem
from rewardlab.records import Record

BEFORE = "before"
"""Name of the table's first row."""


def _named(value: Any) -> Any:
    """One intervention as a list of one, and a name alone as an intervention with its defaults."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [{"name": one} if isinstance(one, str) else one for one in listed]


Intervention = Annotated[
    BalanceLength | RandomPairs | Cut | LabelNoise | Margin | PlantLength,
    Field(discriminator="name"),
]
Interventions = Annotated[list[Intervention], BeforeValidator(_named)]
"""What is done to training data, in this order; a name alone stands for an intervention with its defaults."""


@dataclass(frozen=True)
class Intervened:
    """What a chain of interventions gave.

    Attributes:
        records: what is left.
        table: `{"unit", "rows"}`, a row for what was there before and one after each intervention; JSON values.
    """

    records: list[Record]
    table: Mapping[str, Any]

    def lines(self) -> list[str]:
        """The table for a terminal, with what each intervention counted."""
        return table_lines(self.table)


def intervene(records: Sequence[Record], interventions: Sequence[Intervention], lengths: Lengths) -> Intervened:
    """Apply interventions in their order.

    Args:
        records: training records, and no others: what is held out is never touched.
        interventions: what to do.
        lengths: of answers, in tokens of the reward model's tokenizer.

    Raises:
        DataError: an intervention that these records do not allow, or that leaves none.
    """
    given = Given(lengths, tuple(records))
    rows = [_row(BEFORE, {}, {}, records, lengths)]
    left: Sequence[Record] = records
    for number, intervention in enumerate(interventions, start=1):
        changed = intervention.apply(left, given)
        if not changed.records:
            where = f"interventions, number {number} ({intervention.name})"
            raise DataError("an intervention leaves nothing", [Problem(where, "no record", "one record or more")])
        left = changed.records
        settings = intervention.model_dump(mode="json", exclude={"name"})
        rows.append(_row(intervention.name, settings, changed.counts, left, lengths))
    return Intervened(list(left), {"unit": lengths.unit, "rows": rows})


def _row(
    name: str, settings: Mapping[str, Any], counts: Mapping[str, int], records: Sequence[Record], lengths: Lengths
) -> dict[str, Any]:
    return {"name": name, "settings": dict(settings), "counts": dict(counts)} | length_row(records, lengths)


def in_words(interventions: Sequence[Intervention]) -> str:
    """`balance-length (seed 0), cut (ids list.txt)`: names with the fields that are set; of files their names alone."""
    parts = []
    for one in interventions:
        fields = one.model_dump(mode="python", exclude={"name"}, exclude_none=True)
        words = [f"{name} {value.name if isinstance(value, Path) else value}" for name, value in fields.items()]
        parts.append(f"{one.name} ({', '.join(words)})")
    return ", ".join(parts)


def table_lines(table: Mapping[str, Any]) -> list[str]:
    """The before and after table in plain text."""
    unit = table["unit"]
    lines = [f"{'':24}{'pairs':>9}  {'longer is chosen (95 %)':<26}{'equal':>7}  {'mean difference':>15}"]
    for row in table["rows"]:
        mean = "-" if row["mean_difference"] is None else f"{round(row['mean_difference'], 1) + 0.0:+.1f} {unit}"
        share = _share_words(row["longer_is_chosen"])
        lines.append(f"{row['name']:24}{row['pairs']:>9,}  {share:<26}{row['equal_length']:>7,}  {mean:>15}")
        counts = [f"{count:,} {what}" for what, count in row["counts"].items()]
        if row["records"] != row["pairs"]:
            counts.append(f"{row['records']:,} records with those that are no pairs")
        if counts:
            lines.append(f"    {', '.join(counts)}")
    return lines


def _share_words(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return f"- ({estimate['reason']})"
    interval = "" if estimate["low"] is None else f" [{estimate['low']:.3f}, {estimate['high']:.3f}]"
    return f"{estimate['value']:.3f}{interval}"
