"""Texts alone: {text}, say reviews or stories. They answer nothing: their prompt is empty."""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, usable
from rewardlab.data.rows import Row
from rewardlab.records import Candidates, Prompt


def parse(row: Row) -> Parsed:
    """The text as the one completion of an empty prompt; whatever else the row has, a label say, goes to `meta`."""
    text = row.text("text")
    return broken(row) if row.problems else usable(row, Candidates(Prompt(()), (text,), None, row.source, row.rest()))


ADAPTER = Adapter(name="text", title="texts alone: {text}", required=("text",), optional=(), parse=parse)
