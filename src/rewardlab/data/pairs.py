"""Pairs from candidates with rewards: the higher reward is chosen, ties are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rewardlab.records import Candidates, Pair, Record

FINISH_REASONS = "finish_reasons"
CUT_OFF = "length"
"""The finish reason of a completion that its model did not end."""
PER_COMPLETION = (FINISH_REASONS, "tokens", "token_ids", "logprobs")
"""What `rewardlab sample` says of every completion: lists in `meta`, in the order of the completions."""

KEPT = "kept_completions"
"""In `meta` of candidates whose row had empty completions too: how many it had (`of`), which are left (`places`)."""


def given_places(record: Record) -> tuple[list[int], int]:
    """Where the completions stood in their row, and how many it had: empty ones are dropped when it is read."""
    count, kept = len(record.completions), record.meta.get(KEPT)
    if isinstance(record, Candidates) and isinstance(kept, Mapping) and len(kept.get("places", ())) == count:
        return list(kept["places"]), kept["of"]
    return list(range(count)), count


def finish_reasons(record: Record) -> list[str] | None:
    """How each completion of a sampled record ended; None of one that was not sampled, or does not say of all."""
    reasons = record.meta.get(FINISH_REASONS)
    return list(reasons) if isinstance(reasons, list) and len(reasons) == len(record.completions) else None


def ended(record: Record) -> list[bool]:
    """Of every completion whether it is whole: a sampled one that was cut off has the finish reason `length`."""
    return [reason != CUT_OFF for reason in finish_reasons(record) or [""] * len(record.completions)]


def picked(
    meta: Mapping[str, Any], completions: int, order: Sequence[int], lists: Sequence[str] = PER_COMPLETION
) -> dict[str, Any]:
    """`meta` for some of the completions: lists with an element for each of them hold those of `order`."""
    found = dict(meta)
    for name in lists:
        values = found.get(name)
        if isinstance(values, list) and len(values) == completions:
            found[name] = [values[position] for position in order]
    return found


def pair_between(candidates: Candidates, better: int, worse: int) -> Pair:
    """Two completions as a pair; `meta` names the two positions and rewards."""
    texts, rewards = candidates.completions, candidates.rewards or ()
    origin = {"candidates": [better, worse], "rewards": [rewards[better], rewards[worse]]}
    meta = {**picked(candidates.meta, len(texts), (better, worse)), **origin}
    return Pair(candidates.prompt, texts[better], texts[worse], None, candidates.source, meta)


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
            pairs.append(pair_between(candidates, better, worse))
    return pairs


@dataclass(frozen=True)
class Flattened:
    """What became of candidates with rewards that were turned into pairs.

    Attributes:
        groups: how many candidates there were.
        without_pairs: those of them that have no pair.
        pairs: what they became.
        ties: twos of completions with equal rewards.
        same_text: twos of completions with the same text, and other rewards.
    """

    groups: int
    without_pairs: int
    pairs: int
    ties: int
    same_text: int

    def line(self) -> str:
        """The counts in words."""
        return (
            f"{self.groups:,} groups of candidates became {self.pairs:,} pairs; left out: {self.ties:,} pairs with "
            f"equal rewards, {self.same_text:,} with the same text, and so {self.without_pairs:,} groups without any "
            "pair"
        )


def flattened(records: Iterable[Record]) -> Flattened:
    """What `as_pairs` makes of records, in counts."""
    groups = [record for record in records if isinstance(record, Candidates) and record.rewards is not None]
    made = [len(pairs_of(group)) for group in groups]
    ties = sum(left == right for group in groups for left, right in combinations(group.rewards or (), 2))
    every = sum(len(group.completions) * (len(group.completions) - 1) // 2 for group in groups)
    return Flattened(len(groups), made.count(0), sum(made), ties, every - sum(made) - ties)


def as_pairs(records: Iterable[Record]) -> list[Record]:
    """Records with candidates replaced by their pairs; candidates without rewards stay."""
    flat: list[Record] = []
    for record in records:
        if isinstance(record, Candidates) and record.rewards is not None:
            flat += pairs_of(record)
        else:
            flat.append(record)
    return flat
