"""Our own canonical lines, as `data prepare` writes them."""

from __future__ import annotations

from rewardlab.data import canonical
from rewardlab.data.adapters.base import Adapter, Parsed, broken, usable
from rewardlab.data.rows import Row


def parse(row: Row) -> Parsed:
    """The record of a canonical row."""
    record = canonical.parse(row)
    return broken(row) if row.problems else usable(row, record)


def fits(row: Row) -> bool:
    """Whether a row says what kind of record it is."""
    return row.raw("kind") in canonical.KINDS


ADAPTER = Adapter(
    name="canonical",
    title="canonical records of rewardlab: {kind, prompt, ...}",
    required=("kind", "prompt"),
    optional=(),
    parse=parse,
    fits=fits,
)
