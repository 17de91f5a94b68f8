"""Credit by hand, and against the area under the curve that it generalises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rewardlab.functional import accuracy


@pytest.mark.parametrize(("ties", "expected"), [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_credit_by_hand(ties: float, expected: float) -> None:
    found = accuracy.credit(np.array([2.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0]), ties=ties)
    assert found.tolist() == [1.0, 0.0, expected]


def test_a_constant_scores_a_half() -> None:
    assert accuracy.credit(np.zeros(9), np.zeros(9)).mean() == 0.5


def test_candidates_ordered_rightly_and_wrongly() -> None:
    rewards = np.array([1.0, 2.0, 3.0])
    assert accuracy.candidate_agreement(rewards, rewards) == (1.0, 1.0)
    assert accuracy.candidate_agreement(-rewards, rewards) == (0.0, 0.0)


def test_candidates_with_ties_by_hand() -> None:
    # Two candidates share the best score, one of them has the best reward; pairs by reward: (2>0) tie, (2>1) right,
    # (1>0) wrong; the two candidates of reward 0 make no pair.
    pairwise, best = accuracy.candidate_agreement(np.array([5.0, 5.0, 3.0, 1.0]), np.array([2.0, 0.0, 1.0, 0.0]))
    assert pairwise == pytest.approx((0.5 + 1.0 + 1.0 + 0.0 + 1.0) / 5)
    assert best == 0.5


def test_candidates_of_equal_reward_say_nothing() -> None:
    assert accuracy.candidate_agreement(np.array([1.0, 2.0]), np.array([3.0, 3.0])) == (None, None)


def test_random_scores_order_half_of_the_pairs() -> None:
    rewards = np.array([0.0, 1.0, 1.0, 4.0])
    scores = itertools.permutations([1.0, 2.0, 3.0, 4.0])
    found = [accuracy.candidate_agreement(np.array(order), rewards) for order in scores]
    assert np.mean([pairwise for pairwise, _ in found]) == pytest.approx(0.5)
    assert np.mean([best for _, best in found]) == pytest.approx(0.25)
