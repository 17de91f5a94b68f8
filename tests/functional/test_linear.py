"""The linear Bradley-Terry model against closed forms, optimality and known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.special import expit

from rewardlab.functional.linear import fit_bradley_terry

RNG = np.random.default_rng


def test_one_feature_solves_its_score_equation() -> None:
    # Feature +1 in three pairs, -1 in one: minimise (3 log(1 + e^-w) + log(1 + e^w)) / 4 + 0.05 w^2.
    found = fit_bradley_terry(csr_array(np.array([[1.0], [1.0], [1.0], [-1.0]])), penalty=0.1)
    expected = brentq(lambda w: -0.75 / (1 + math.exp(w)) + 0.25 / (1 + math.exp(-w)) + 0.1 * w, -5, 5)
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_without_penalty_to_speak_of_it_is_the_log_odds() -> None:
    found = fit_bradley_terry(csr_array(np.array([[1.0]] * 7 + [[-1.0]] * 3)), penalty=1e-9)
    assert found[0] == pytest.approx(math.log(7 / 3), abs=1e-5)


def test_true_weights_are_recovered() -> None:
    rng = RNG(1)
    truth = np.array([1.0, -0.5, 0.0])
    features = rng.normal(size=(20_000, 3))
    won = rng.random(20_000) < expit(features @ truth)
    found = fit_bradley_terry(csr_array(np.where(won[:, None], features, -features)), penalty=1e-6)
    # Standard errors are about 1 / sqrt(20,000 * .2) = .016.
    assert found == pytest.approx(truth, abs=0.07)


def test_gradient_vanishes_at_the_optimum() -> None:
    rng = RNG(2)
    features = rng.poisson(0.3, size=(200, 50)) - rng.poisson(0.3, size=(200, 50)).astype(float)
    found = fit_bradley_terry(csr_array(features), penalty=0.02)
    gradient = 0.02 * found - features.T @ expit(-features @ found) / 200
    assert np.abs(gradient).max() < 1e-6


def test_a_feature_that_never_differs_has_no_weight() -> None:
    found = fit_bradley_terry(csr_array(np.array([[1.0, 0.0], [2.0, 0.0]])), penalty=0.1)
    assert found[1] == 0.0


def test_a_penalty_is_needed() -> None:
    with pytest.raises(ValueError, match="penalty must be above 0"):
        fit_bradley_terry(csr_array(np.eye(2)), penalty=0.0)
