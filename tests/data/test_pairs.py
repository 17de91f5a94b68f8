"""Pairs from candidates."""

from __future__ import annotations

from rewardlab.data.pairs import as_pairs, pairs_of
from rewardlab.records import Candidates, Pair, Prompt, Rated, Source

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
