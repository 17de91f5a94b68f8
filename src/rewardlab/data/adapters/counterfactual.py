"""Texts with human rewrites of the opposite side: {Sentiment, Text, batch_id}, two rows to a pair.

The form of Counterfactually-Augmented Data (Kaushik, Hovy and Lipton 2020, arXiv 1909.12434). The rows of a pair share
their `batch_id`; the first one is the original, the second what a person made of it. The positive text becomes the
chosen side; `meta` has `pair`, the batch_id, and `original`, the side that is no rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.files import FileRows
from rewardlab.data.rows import Row, json_safe
from rewardlab.data.source import DataSource
from rewardlab.records import Pair, Source

QUESTION = "Write a movie review: "
"""What every review answers, as in the published audits of reviews (RATE, arXiv 2410.11348)."""
REWRITES = "rewrites"
"""Column that `gather` adds: the other rows of the pair."""
_SIDES = {"positive": True, "negative": False}


def gather(file: FileRows, source: DataSource) -> FileRows:
    """The first row of every pair, with its other rows in the column `rewrites`; pairs in order of their first rows."""
    groups: dict[str, list[tuple[Source, Mapping[str, Any]]]] = {}
    for place, values in file.rows:
        groups.setdefault(str(Row(place, values, source.columns).raw("batch_id")), []).append((place, values))
    found = (
        (place, {**values, REWRITES: [other for _, other in others]}) for (place, values), *others in groups.values()
    )
    return replace(file, rows=tuple(found))


def parse(row: Row) -> Parsed:
    """A gathered row as a pair; one that is not one of two, or has the sentiment of the other, is set aside."""
    others = row.items(REWRITES) if row.has(REWRITES) else []
    name, original, positive = json_safe(row.raw("batch_id")), row.text("Text"), _positive(row)
    if row.problems:
        return broken(row)
    if len(others) != 1:
        return set_aside(row, "no_pair", f"{1 + len(others)} rows with the batch_id {name}, where a pair has two")
    other = Row(row.source, others[0] if isinstance(others[0], Mapping) else {}, row.columns)
    rewrite, other_positive = other.text("Text"), _positive(other)
    row.problems += other.problems
    if row.problems:
        return broken(row)
    if positive == other_positive:
        return set_aside(row, "same_sentiment", f"both rows of {name} are {row.raw('Sentiment')}")
    chosen, rejected = (original, rewrite) if positive else (rewrite, original)
    meta = {**row.rest(), "pair": name, "original": "chosen" if positive else "rejected"}
    return usable(row, Pair(user_prompt(QUESTION), chosen, rejected, None, row.source, meta))


def _positive(row: Row) -> bool:
    found = _SIDES.get(str(row.raw("Sentiment")).strip().lower())
    if found is None:
        row.complain("Sentiment", "Positive or Negative")
    return bool(found)


ADAPTER = Adapter(
    name="counterfactual",
    title="texts and human rewrites of opposite sentiment: {Sentiment, Text, batch_id}, two rows to a pair",
    required=("Sentiment", "Text", "batch_id"),
    optional=(REWRITES,),
    parse=parse,
    gather=gather,
)
