"""Best of N: of the first n completions of a prompt the one with the highest reward, or the longest.

Completions are drawn independently, so the first n of N are n draws, for every n: one sample serves a whole curve.
The longest of N is the baseline that knows nothing but length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rewardlab.data.conversions.base import Converted, place, rewarded
from rewardlab.data.pairs import given_places, picked
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Rated, Record

Rule = Literal["reward", "length"]
Lengths = Callable[[Record], Sequence[int]]
"""The length of every completion of a record."""


def has_sampled_lengths(record: Record) -> bool:
    """Whether `rewardlab sample` has counted the tokens of every completion."""
    counts = record.meta.get("tokens")
    return (
        isinstance(counts, list)
        and len(counts) == len(record.completions)
        and all(isinstance(count, int) for count in counts)
    )


def best(
    name: str, records: Sequence[Record], size: int | None, lengths: Lengths | None, problems: list[Problem]
) -> Converted:
    """The best completion of every prompt: rated with its reward, or, of candidates without rewards, alone.

    Of equals the first is taken. `meta.best_of` has how many there were (`n`) and which it was (`candidate`). Empty
    completions that were dropped when the data were read count among the n, and are never the best.

    Args:
        name: of the set, for messages.
        records: candidates; with rewards where these decide.
        size: n, or all of them.
        lengths: decide in place of rewards; where it is given, rewards are not needed.
        problems: records with other content, or with fewer completions than `size`, are added here.
    """
    found: list[Record] = []
    empty = 0
    for number, record in enumerate(records, start=1):
        where = place(name, number, record)
        candidates = record if lengths and isinstance(record, Candidates) else rewarded(record, where, problems)
        if candidates is None:
            continue
        places, count = given_places(candidates)
        if count < (size or 1):
            found_words = f"{count} completions"
            problems.append(Problem(where, found_words, f"{size or 1} or more", "Sample more, or lower --of."))
            continue
        values = lengths(candidates) if lengths else candidates.rewards or ()
        first = [position for position, place in enumerate(places) if place < (size or count)]
        if not first:
            empty += 1
            continue
        found.append(_only(candidates, max(first, key=values.__getitem__), size or count))
    return Converted(found, {"prompts whose first completions are all empty": empty} if empty else {})


def _only(candidates: Candidates, position: int, size: int) -> Record:
    text, rewards = candidates.completions[position], candidates.rewards
    meta = {
        **picked(candidates.meta, len(candidates.completions), (position,)),
        "best_of": {"n": size, "candidate": position},
    }
    if rewards is None:
        return Candidates(candidates.prompt, (text,), None, candidates.source, meta)
    return Rated(candidates.prompt, text, None, rewards[position], candidates.source, meta)
