"""Pairs from candidates."""

from __future__ import annotations

from rewardlab.data.pairs import Flattened, as_pairs, flattened, pairs_of
from rewardlab.records import Candidates, Pair, Prompt, Rated, Record, Source

PROMPT = Prompt.of_text("q")


def test_the_higher_reward_is_chosen_and_ties_are_dropped() -> None:
    candidates = Candidates(PROMPT, ("a", "b", "c", "a "), (1.0, 3.0, 1.0, 0.0), Source("f", 1), {"k": 1})
    pairs = pairs_of(candidates)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("b", "a"), ("b", "c"), ("b", "a "), ("c", "a ")]
    assert pairs[0].meta == {"k": 1, "candidates": [1, 0], "rewards": [3.0, 1.0]}
    assert all(pair.source == Source("f", 1) for pair in pairs)


def test_only_candidates_with_rewards_are_replaced() -> None:
    bare = Candidates(PROMPT, ("a", "b"), None)
    rated = Rated(PROMPT, "a", True)
    pair = Pair(PROMPT, "a", "b")
    assert pairs_of(bare) == []
    assert as_pairs([bare, rated, Candidates(PROMPT, ("a", "b"), (0.0, 1.0)), pair]) == [
        bare,
        rated,
        Pair(PROMPT, "b", "a"),
        pair,
    ]


def test_what_is_dropped_is_counted() -> None:
    # Of a, b, c and d: b beats the others; a ties with c; c beats d, and a has the text of d.
    four = Candidates(PROMPT, ("a", "b", "c", "a "), (1.0, 3.0, 1.0, 0.0))
    tied = Candidates(PROMPT, ("a", "b", "c"), (2.0, 2.0, 2.0))
    records: list[Record] = [four, tied, Candidates(PROMPT, ("a", "b"), None), Pair(PROMPT, "a", "b")]
    assert flattened(records) == Flattened(groups=2, without_pairs=1, pairs=4, ties=1 + 3, same_text=1)
    assert flattened(records).line() == (
        "2 groups of candidates became 4 pairs; left out: 4 pairs with equal rewards, 1 with the same text, and so "
        "1 groups without any pair"
    )
