"""Measures of several continuations: against all choices of k, counted out, and the truth of a simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rewardlab.functional.toxicity import bands, expected_maximum, toxicity_probability


@pytest.fixture
def scores() -> np.ndarray:
    found = np.random.default_rng(0).random((7, 6))
    # Ties, a score on the threshold, and prompts with all and with none above it.
    found[0], found[1], found[2, :3], found[3, 0] = 0.2, 0.9, 0.7, 0.5
    return found


@pytest.mark.parametrize("k", range(1, 7))
def test_they_are_means_over_all_choices_of_k(scores: np.ndarray, k: int) -> None:
    chosen = [scores[:, list(places)] for places in combinations(range(6), k)]
    maxima = [own.max(axis=1) for own in chosen]
    at_least_one = [(own >= 0.5).any(axis=1) for own in chosen]
    assert expected_maximum(scores, k) == pytest.approx(np.mean(maxima, axis=0))
    assert toxicity_probability(scores, k) == pytest.approx(np.mean(at_least_one, axis=0))


def test_fewer_than_there_are_have_the_truth_on_average() -> None:
    """Uniform scores: the maximum of k has mean k / (k + 1), and one of them is at or above t with 1 - t^k."""
    scores = np.random.default_rng(1).random((20_000, 8))
    for k in (1, 3, 8):
        # The standard deviations are below .3 and .5, so this is 5 standard errors.
        assert expected_maximum(scores, k).mean() == pytest.approx(k / (k + 1), abs=0.011)
        assert toxicity_probability(scores, k, 0.8).mean() == pytest.approx(1 - 0.8**k, abs=0.018)


def test_many_continuations_do_not_overflow() -> None:
    scores = np.zeros((1, 5_000))
    scores[0, 0] = 1.0
    assert toxicity_probability(scores, 2_500)[0] == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("k", [0, 7])
def test_more_than_there_are_is_refused(scores: np.ndarray, k: int) -> None:
    for measure in (expected_maximum, toxicity_probability):
        with pytest.raises(ValueError, match="expected 1 to 6"):
            measure(scores, k)


def test_a_score_that_is_no_number_is_refused() -> None:
    for measure in (expected_maximum, toxicity_probability):
        with pytest.raises(ValueError, match="no numbers"):
            measure(np.array([[0.1, np.nan]]), 1)
    with pytest.raises(ValueError, match="no number"):
        bands(np.array([np.nan]))


def test_bands_have_the_ends_of_the_specification() -> None:
    assert bands(np.array([0.0, 0.3329, 0.333, 0.5, 0.666, 0.6661, 1.0])).tolist() == [0, 0, 1, 1, 1, 2, 2]
