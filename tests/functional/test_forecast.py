"""Forecasts against tilts that are known exactly: of normal distributions, two-point sets, and sets counted out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from rewardlab.functional.forecast import (
    associated_shift,
    effective_size,
    explained_share,
    forecast,
    lone_forecast,
    tilt_at,
    tilt_divergence,
    tilt_weights,
    tilted_shift,
    within_moments,
)
from rewardlab.functional.intervals import Statistic, interval

SIGMA = np.array([[1.0, 0.6, 0.0], [0.6, 2.0, -0.3], [0.0, -0.3, 0.5]])
EFFECTS = np.array([0.8, 0.0, -0.5])
REST = 0.4
"""Standard deviation of what the attributes do not explain."""
VARIANCE = EFFECTS @ SIGMA @ EFFECTS + REST**2


def normal_samples(seed: int, prompts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Attributes [prompts, N, 3] around a level of the prompt, and rewards with the effects above."""
    generator = np.random.default_rng(seed)
    levels = 3.0 * generator.standard_normal((prompts, 1, 3))
    attributes = levels + generator.multivariate_normal(np.zeros(3), SIGMA, (prompts, size))
    return attributes, attributes @ EFFECTS + REST * generator.standard_normal((prompts, size))


def truth(divergence: float) -> np.ndarray:
    """A normal distribution tilted by a linear reward is shifted by exactly eta Sigma a, at eta^2 Var(R) / 2 nats."""
    return math.sqrt(2.0 * divergence / VARIANCE) * SIGMA @ EFFECTS


def test_the_forecast_is_the_tilt_of_a_normal_distribution() -> None:
    moments = within_moments(*normal_samples(0, 4000, 16))
    for divergence in (0.5, 2.0):
        shifts = forecast(moments, EFFECTS, np.zeros(3), divergence)
        totals = np.array([shift.total.value for shift in shifts])
        # 60,000 independent deviations: the errors of covariances are below 1 %.
        np.testing.assert_allclose(totals, truth(divergence), atol=0.03)
        np.testing.assert_allclose([shift.direct + shift.carried for shift in shifts], totals, atol=1e-12)
        # The second attribute has no effect of its own, and moves all the same.
        assert shifts[1].direct == 0.0
        assert shifts[1].carried == pytest.approx(truth(divergence)[1], abs=0.03)
        associated = [found.value for found in associated_shift(moments, divergence)]
        np.testing.assert_allclose(associated, truth(divergence), atol=0.03)


def test_intervals_cover_the_truth_at_their_rate() -> None:
    """400 samples of 60 prompts; three standard errors of a coverage of .95 are .033."""
    covered = np.zeros((2, 3))
    errors = np.array([0.2, 0.1, 0.3])
    for seed in range(400):
        moments = within_moments(*normal_samples(seed + 1, 60, 8))
        noisy = EFFECTS + errors * np.random.default_rng(10_000 + seed).standard_normal(3)
        found = [
            [shift.total for shift in forecast(moments, noisy, errors, 1.0)],
            [interval(one) for one in associated_shift(moments, 1.0)],
        ]
        for row, intervals in enumerate(found):
            covered[row] += [one.low <= value <= one.high for one, value in zip(intervals, truth(1.0), strict=True)]
    assert (np.abs(covered / 400 - 0.95) <= 0.04).all(), covered / 400


def test_errors_of_effects_widen_an_interval() -> None:
    moments = within_moments(*normal_samples(3, 200, 8))
    known, estimated = (forecast(moments, EFFECTS, errors, 1.0)[0].total for errors in (np.zeros(3), np.full(3, 0.2)))
    sigma = moments.mean(axis=0)
    added = math.sqrt(2.0 / sigma[-1, -1]) * 0.2 * np.linalg.norm(sigma[0, :-1])
    assert estimated.error == pytest.approx(math.hypot(known.error, added))
    assert estimated.value == known.value


def test_an_attribute_alone_moves_by_its_own_variance() -> None:
    moments = within_moments(*normal_samples(5, 4000, 16))
    shifts = lone_forecast(moments, EFFECTS, np.zeros(3), 0.5)
    expected = math.sqrt(1.0 / VARIANCE) * np.diag(SIGMA) * EFFECTS
    np.testing.assert_allclose([shift.value for shift in shifts], expected, atol=0.03)
    # With no company to keep, it is all of the forecast: one attribute by itself.
    single = moments[:, [0, -1]][:, :, [0, -1]]
    arguments = (single, EFFECTS[:1], np.array([0.2]), 1.0)
    assert lone_forecast(*arguments)[0] == forecast(*arguments)[0].total


def test_the_share_explained_is_that_of_the_variance() -> None:
    attributes, rewards = normal_samples(4, 2000, 16)
    found = explained_share(within_moments(attributes, rewards), EFFECTS)
    ends = interval(found)
    assert ends.low <= 1.0 - REST**2 / VARIANCE <= ends.high
    assert ends.high - ends.low < 0.02
    whole = within_moments(attributes, attributes @ EFFECTS)
    assert explained_share(whole, EFFECTS).value == pytest.approx(1.0)
    assert explained_share(whole, np.zeros(3)).value == 0.0
    assert explained_share(whole, -EFFECTS).value == pytest.approx(-3.0)


def test_a_set_of_two_points_tilts_as_the_logistic_function() -> None:
    rewards = np.array([[0.0, 1.0], [5.0, 4.0]])
    for eta in (0.3, 2.0):
        best = 1.0 / (1.0 + math.exp(-eta))
        np.testing.assert_allclose(tilt_weights(rewards, eta), [[1.0 - best, best], [best, 1.0 - best]])
        divergence = math.log(2.0) + best * math.log(best) + (1.0 - best) * math.log(1.0 - best)
        np.testing.assert_allclose(tilt_divergence(rewards, eta), divergence)
        np.testing.assert_allclose(effective_size(tilt_weights(rewards, eta)), 1.0 / (best**2 + (1.0 - best) ** 2))
        assert tilt_at(rewards, divergence) == pytest.approx(eta)
    assert tilt_at(rewards, 0.0) == 0.0
    assert tilt_at(rewards, math.log(2.0)) is None


def test_a_tilt_moves_attributes_as_counted_out() -> None:
    generator = np.random.default_rng(5)
    attributes, rewards = generator.random((3, 6, 2)), generator.standard_normal((3, 6))
    eta = 1.7
    expected = np.zeros(2)
    for own, values in zip(attributes, rewards, strict=True):
        expected += (softmax(eta * values) - 1.0 / 6.0) @ own
    np.testing.assert_allclose([one.value for one in tilted_shift(attributes, rewards, eta)], expected / 3.0)


def test_to_first_order_the_tilt_is_the_forecast() -> None:
    attributes, rewards = normal_samples(6, 50, 12)
    moments = within_moments(attributes, rewards)
    divergence = 1e-6
    eta = tilt_at(rewards, divergence)
    assert eta is not None
    tilted = np.array([one.value for one in tilted_shift(attributes, rewards, eta)])
    first = np.array([one.value for one in associated_shift(moments, divergence)])
    # Of 12 samples the tilt has covariances with 12, not 11, in the denominator.
    np.testing.assert_allclose(tilted, first * math.sqrt(11.0 / 12.0), rtol=5e-3)


def finite_sets() -> tuple[np.ndarray, np.ndarray]:
    """Of 40 prompts all 8 answers there are: two attributes yes or no, one number, and rewards that are a . W exactly.
    How rare an attribute is, and how far rewards are apart, differs between prompts."""
    generator = np.random.default_rng(11)
    latent = generator.multivariate_normal(np.zeros(3), SIGMA, (40, 8))
    told = (latent + 0.8 * generator.standard_normal((40, 1, 3)) > 0).astype(float)
    attributes = np.concatenate([told[:, :, :2], latent[:, :, 2:]], axis=2)
    return attributes, attributes @ EFFECTS


def tilt_over_root(divergence: float) -> np.ndarray:
    """Shifts of the tilt of the finite sets over sqrt(kappa), as of covariances with N - 1 = 7 in the denominator."""
    attributes, rewards = finite_sets()
    eta = tilt_at(rewards, divergence)
    assert eta is not None
    shifts = np.array([one.value for one in tilted_shift(attributes, rewards, eta)])
    return np.asarray(shifts / math.sqrt(divergence * 7.0 / 8.0))


def test_with_exact_effects_the_forecast_is_the_tilt_to_first_order() -> None:
    """What is left over sqrt(kappa) is of the order of sqrt(kappa): a tenth at a hundredth of the distance."""
    moments = within_moments(*finite_sets())
    left = []
    for divergence in (1e-2, 1e-4, 1e-6):
        totals = [shift.total.value for shift in forecast(moments, EFFECTS, np.zeros(3), divergence)]
        left.append(np.abs(tilt_over_root(divergence) - np.array(totals) / math.sqrt(divergence)))
    assert (left[0] > 5e-4).all()
    # At 1e-2 nats the third order is still felt.
    assert (left[0] > 5.0 * left[1]).all()
    np.testing.assert_allclose(left[1] / left[2], 10.0, rtol=0.1)
    assert left[2].max() < 1e-4


def test_to_first_order_the_tilt_lies_in_the_interval_at_its_rate() -> None:
    """Of 1,000 draws of 60 prompts and of effects with known errors, how many intervals hold the shift of the tilt of
    all sets at 1e-4 nats. Three standard errors of a coverage of .95 are .021; the delta method may miss by .005."""
    moments, divergence = within_moments(*finite_sets()), 1e-4
    truth, errors = tilt_over_root(divergence), np.array([0.2, 0.1, 0.15])
    held = np.zeros((2, 3))
    for draw in range(1000):
        generator = np.random.default_rng([1, draw])
        chosen = moments[generator.integers(0, len(moments), 60)]
        noisy = EFFECTS + errors * generator.standard_normal(3)
        for row, stated in enumerate((errors, np.zeros(3))):
            ends = [shift.total for shift in forecast(chosen, noisy, stated, divergence)]
            low, high = np.array([(one.low, one.high) for one in ends]).T / math.sqrt(divergence)
            held[row] += (low <= truth) & (truth <= high)
    assert (np.abs(held[0] / 1000 - 0.95) <= 0.026).all(), held
    # Intervals that do not know the effects' errors are too narrow by far.
    assert (held[1] / 1000 < 0.8).all(), held


def test_a_tilt_of_few_samples_moves_too_little_by_the_root() -> None:
    """At a fixed distance by sqrt(1 - 1/N): .71 of two samples of a normal distribution, .935 of eight."""
    generator = np.random.default_rng(12)
    for size, expected in ((2, math.sqrt(1 / 2)), (8, math.sqrt(7 / 8))):
        rewards = generator.standard_normal((20_000, size))
        eta = tilt_at(rewards, 1e-4)
        assert eta is not None
        (found,) = tilted_shift(rewards[:, :, None], rewards, eta)
        assert found.value / math.sqrt(2e-4) == pytest.approx(expected, abs=0.01)


def test_the_influence_of_a_prompt_is_what_another_one_like_it_would_change() -> None:
    attributes, rewards = normal_samples(7, 120, 8)
    divergence = 0.6
    eta = tilt_at(rewards, divergence)
    assert eta is not None
    found = tilted_shift(attributes, rewards, eta)[0]
    changed = []
    for prompt in range(20):
        twice = [*range(120), prompt]
        again = tilt_at(rewards[twice], divergence)
        assert again is not None
        changed.append(121 * (tilted_shift(attributes[twice], rewards[twice], again)[0].value - found.value))
    # What is left is of the second order, 1/120 of the influence.
    np.testing.assert_allclose(changed, found.influence[:20], atol=0.05 * found.influence.std())


def test_a_tilt_out_of_reach_is_none() -> None:
    rewards = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    farthest = (math.log(2.0) + math.log(4.0)) / 2.0
    assert tilt_at(rewards, farthest) is None
    assert tilt_at(rewards, 0.99 * farthest) is not None
    assert tilt_at(np.ones((2, 3)), 0.1) is None
    with pytest.raises(ValueError, match="0 or more"):
        tilt_at(rewards, -1.0)


def test_a_reward_that_never_differs_teaches_nothing() -> None:
    moments = within_moments(np.random.default_rng(8).random((5, 4, 2)), np.ones((5, 4)))
    with pytest.raises(ValueError, match="never differs"):
        forecast(moments, np.ones(2), np.zeros(2), 1.0)
    with pytest.raises(ValueError, match="2 or more"):
        within_moments(np.ones((5, 1, 2)), np.ones((5, 1)))


def test_shifts_have_an_influence_that_sums_to_nothing() -> None:
    attributes, rewards = normal_samples(9, 30, 6)
    moments = within_moments(attributes, rewards)
    found: list[Statistic] = [
        explained_share(moments, EFFECTS),
        *associated_shift(moments, 1.0),
        *tilted_shift(attributes, rewards, 0.8),
        *tilted_shift(attributes, rewards, 0.0),
    ]
    assert np.abs([one.influence.sum() for one in found]).max() < 1e-10
