"""Pairs from candidates with rewards: the higher reward is chosen, ties are dropped."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from rewardlab.records import Candidates, Pair, Record


def pairs_of(candidates: Candidates) -> list[Pair]:
    """All pairs of completions with different rewards and different texts, in the order of the completions.

    Candidates without rewards have none. `meta` names the two positions and rewards.
    """
    if candidates.rewards is None:
        return []
    pairs = []
    rated = list(zip(candidates.completions, candidates.rewards, strict=True))
    for first, second in combinations(range(len(rated)), 2):
        better, worse = (first, second) if rated[first][1] > rated[second][1] else (second, first)
        if rated[better][1] > rated[worse][1] and rated[better][0].strip() != rated[worse][0].strip():
            origin = {"candidates": [better, worse], "rewards": [rated[better][1], rated[worse][1]]}
            meta = {**candidates.meta, **origin}
            pairs.append(Pair(candidates.prompt, rated[better][0], rated[worse][0], None, candidates.source, meta))
    return pairs


def as_pairs(records: Iterable[Record]) -> list[Record]:
    """Records with candidates replaced by their pairs; candidates without rewards stay."""
    flat: list[Record] = []
    for record in records:
        if isinstance(record, Candidates) and record.rewards is not None:
            flat += pairs_of(record)
        else:
            flat.append(record)
    return flat
