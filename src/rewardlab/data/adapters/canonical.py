"""Our own canonical lines, as `data prepare` writes them."""

from __future__ import annotations

from rewardlab.data import canonical
from rewardlab.data.adapters.base import Adapter, Parsed, broken, usable
from rewardlab.data.rows import Row
from rewardlab.records import Candidates


def parse(row: Row) -> Parsed:
    """The record of a canonical row.

    Candidates stay, whatever they say: a policy that ended at once has answered, and its prompt counts.
    """
    record = canonical.parse(row)
    if row.problems:
        return broken(row)
    return record if isinstance(record, Candidates) else usable(row, record)


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
