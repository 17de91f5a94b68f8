"""The weighted sum of the terms of a reward."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from rewardlab.functional.rewards import weighted_sums


def test_the_sum_is_the_nearest_number_to_the_exact_one_in_any_order() -> None:
    terms = {"a": [1e16, 0.1], "b": [1.0, 0.2], "c": [-1e16, 0.3]}
    weights = {"a": 1.0, "b": 0.5, "c": 1.0}
    exact = [sum(Fraction(weights[name] * own[place]) for name, own in terms.items()) for place in range(2)]
    # A plain sum is 0 for the first one: 1e16 + .5 is 1e16.
    assert weighted_sums(terms, weights) == [float(one) for one in exact]
    assert weighted_sums(dict(reversed(terms.items())), weights) == weighted_sums(terms, weights)


def test_a_sum_that_is_no_number_is_given_as_such() -> None:
    found = weighted_sums({"a": [1e308, math.inf, 1.0], "b": [1e308, -math.inf, math.nan]}, {"a": 1.0, "b": 1.0})
    assert found[0] == math.inf
    assert all(math.isnan(value) for value in found[1:])


def test_no_responses_have_no_rewards_and_every_term_has_a_weight() -> None:
    assert weighted_sums({"a": []}, {"a": 1.0}) == []
    with pytest.raises(KeyError):
        weighted_sums({"a": [1.0]}, {"b": 1.0})
    with pytest.raises(ValueError, match="shorter"):
        weighted_sums({"a": [1.0, 2.0], "b": [1.0]}, {"a": 1.0, "b": 1.0})
