"""What a conversion gives, and what conversions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rewardlab.errors import Problem
from rewardlab.records import Candidates, Record

Sets = dict[str, list[Record]]
"""Records by the name of the file that they go to."""
SHOWN_ALIKE = 3
"""How many places a message names that have the same problem."""


@dataclass(frozen=True)
class Converted:
    """The records that a conversion made, and what it counted on the way, in words: number."""

    records: list[Record]
    counts: Mapping[str, int] = field(default_factory=dict)


def place(name: str, number: int, record: Record) -> str:
    """Where a record stands, for a message: its set, its number from 1, and the row that it came from."""
    return f"{name}, record {number}" + (f" ({record.source})" if record.source else "")


def rewarded(record: Record, where: str, problems: list[Problem]) -> Candidates | None:
    """The record where it is candidates with rewards; anything else is a problem."""
    if isinstance(record, Candidates) and record.rewards is not None:
        return record
    if isinstance(record, Candidates):
        found, remedy = "candidates without rewards", "Score them, and put `--to labelled --scores FOLDER` before."
    else:
        found, remedy = f"a {type(record).__name__.lower()}", "Put `--to candidates` before."
    problems.append(Problem(where, found, "candidates with rewards", remedy))
    return None


def alike_together(problems: Sequence[Problem]) -> list[Problem]:
    """Each problem once, and many of the same words as one that names the first places and counts the others."""
    places: dict[tuple[str, str, str], dict[str, None]] = {}
    for one in problems:
        places.setdefault((one.found, one.expected, one.remedy), {})[one.where] = None
    told = []
    for words, where in places.items():
        if len(where) <= SHOWN_ALIKE:
            told += [Problem(one, *words) for one in where]
        else:
            shown = "; ".join(list(where)[:SHOWN_ALIKE])
            told.append(Problem(f"{shown}; and {len(where) - SHOWN_ALIKE:,} more", *words))
    return told
