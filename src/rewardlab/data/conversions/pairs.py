"""Candidates with rewards → pairs: the best against the worst of a prompt, or all whose rewards are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal

from rewardlab.data.conversions.base import Converted, place, rewarded
from rewardlab.data.conversions.candidates import PAIR_MARGIN, PAIR_REWARDS
from rewardlab.data.pairs import pair_between
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Pair, Record

Choice = Literal["best-worst", "all"]

TIES = "dropped, equal rewards"
NEAR = "dropped, rewards no more than the margin apart"
SAME = "dropped, the same text"
FEW = "prompts with fewer than two completions"


def as_pairs(name: str, records: Sequence[Record], choice: Choice, margin: float, problems: list[Problem]) -> Converted:
    """Pairs of completions whose rewards differ by more than `margin`; what stays out is counted.

    Pairs among the records stay. Of equal best or worst completions the first is taken.

    Args:
        name: of the set, for messages.
        records: pairs and candidates with rewards.
        choice: one pair a prompt, or all.
        margin: in units of the reward, 0 or more.
        problems: records that cannot be paired are added here.
    """
    counts = Counter({TIES: 0, NEAR: 0, SAME: 0, FEW: 0})
    pairs: list[Record] = []
    for number, record in enumerate(records, start=1):
        if isinstance(record, Pair):
            pairs.append(record)
        elif candidates := rewarded(record, place(name, number, record), problems):
            pairs += _of_a_prompt(candidates, choice, margin, counts)
    return Converted(pairs, dict(counts))


def _of_a_prompt(candidates: Candidates, choice: Choice, margin: float, counts: Counter[str]) -> Iterator[Pair]:
    rewards, texts = candidates.rewards or (), candidates.completions
    counts[FEW] += len(texts) < 2
    for better, worse in _positions(rewards, choice):
        apart = rewards[better] - rewards[worse]
        if apart == 0:
            counts[TIES] += 1
        elif apart <= margin:
            counts[NEAR] += 1
        elif texts[better].strip() == texts[worse].strip():
            counts[SAME] += 1
        else:
            yield _as_it_was(pair_between(candidates, better, worse))


def _positions(rewards: Sequence[float], choice: Choice) -> list[tuple[int, int]]:
    places = range(len(rewards))
    if len(rewards) < 2:
        return []
    if choice == "best-worst":
        return [(max(places, key=rewards.__getitem__), min(places, key=rewards.__getitem__))]
    return [(one, two) if rewards[one] >= rewards[two] else (two, one) for one, two in combinations(places, 2)]


def _as_it_was(pair: Pair) -> Pair:
    """With the margin that it had before it was made candidates, where their rewards are still those of the pair."""
    margin = pair.meta.get(PAIR_MARGIN)
    if margin is None or pair.meta["rewards"] != list(PAIR_REWARDS):
        return pair
    return replace(pair, margin=margin, meta={key: value for key, value in pair.meta.items() if key != PAIR_MARGIN})
