"""Calibration measures against brute force, scipy and models whose calibration is set by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit

from rewardlab.functional import calibration, intervals

RNG = np.random.default_rng


def test_bins_without_ties_hold_the_same_number() -> None:
    index = calibration.equal_mass_bins(RNG(1).permutation(50).astype(float), bins=10)
    assert np.bincount(index).tolist() == [5] * 10
    uneven = np.bincount(calibration.equal_mass_bins(np.arange(23.0), bins=10), minlength=10)
    assert set(uneven.tolist()) == {2, 3}


def test_bins_follow_the_order_of_the_values() -> None:
    assert calibration.equal_mass_bins(np.array([0.9, 0.1, 0.5, 0.3]), bins=2).tolist() == [1, 0, 1, 0]


def test_equal_values_share_a_bin_whatever_their_place() -> None:
    values = np.array([0.5] * 7 + [0.6, 0.7, 0.8])
    index = calibration.equal_mass_bins(values, bins=5)
    assert len(set(index[:7].tolist())) == 1
    order = RNG(2).permutation(10)
    assert (calibration.equal_mass_bins(values[order], bins=5) == index[order]).all()


def test_nothing_has_no_bins() -> None:
    assert calibration.equal_mass_bins(np.array([])).tolist() == []


def test_error_by_hand() -> None:
    # Two bins: predictions .6, .7 with outcomes 1, 0 and .8, .9 with outcomes 1, 1.
    predicted, outcome = np.array([0.6, 0.8, 0.7, 0.9]), np.array([1.0, 1.0, 0.0, 1.0])
    expected = 0.5 * abs(0.5 - 0.65) + 0.5 * abs(1.0 - 0.85)
    assert calibration.calibration_error(predicted, outcome, bins=2) == pytest.approx(expected)


def test_error_is_the_sum_over_the_curve() -> None:
    predicted, outcome = RNG(3).uniform(0.5, 1.0, size=137), RNG(4).integers(0, 3, size=137) / 2
    curve = calibration.reliability_curve(predicted, outcome)
    assert sorted(row for point in curve for row in point.members.tolist()) == list(range(137))
    expected = sum(len(point.members) / 137 * abs(point.observed - point.predicted) for point in curve)
    assert calibration.calibration_error(predicted, outcome) == pytest.approx(expected)


def test_a_calibrated_model_shows_only_what_chance_gives() -> None:
    rng = RNG(5)
    predicted = rng.uniform(0.5, 1.0, size=4000)
    chance = calibration.chance_calibration_error(predicted, rng)
    found = [calibration.calibration_error(predicted, (rng.random(4000) < predicted).astype(float)) for _ in range(100)]
    # Both are means over about 100 draws whose spread is about a quarter of the mean.
    assert chance == pytest.approx(np.mean(found), rel=0.15)
    # A bin of 400 outcomes is off by about sqrt(2 p (1 - p) / (pi 400)), at most .02.
    assert 0.005 < chance < 0.02


def test_an_overconfident_model_is_off_by_its_overconfidence() -> None:
    rng = RNG(6)
    predicted = rng.uniform(0.7, 0.9, size=40_000)
    outcome = (rng.random(40_000) < predicted - 0.15).astype(float)
    # The mean of 40,000 outcomes is good to .0025.
    assert calibration.calibration_error(predicted, outcome) == pytest.approx(0.15, abs=0.01)


def test_confidence_is_the_larger_probability() -> None:
    expected = [max(p, 1 - p) for p in (1 / (1 + math.exp(-d)) for d in (-2.0, 0.0, 0.3))]
    assert calibration.confidence(np.array([-2.0, 0.0, 0.3])).tolist() == pytest.approx(expected)


def test_both_orders_are_symmetric_about_a_half() -> None:
    predicted, outcome = calibration.both_orders(np.array([1.0, -0.5]))
    assert predicted.tolist() == pytest.approx([1 / (1 + math.exp(-d)) for d in (1.0, -0.5, -1.0, 0.5)])
    assert outcome.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_slope_is_the_best_temperature() -> None:
    delta = RNG(7).normal(0.4, 2.0, size=300)
    found = calibration.slope_statistic(delta)
    best = optimize.minimize_scalar(
        lambda slope: float(np.logaddexp(0.0, -slope * delta).mean()), bounds=(-5, 5), options={"xatol": 1e-10}
    )
    assert found is not None
    assert found.value == pytest.approx(best.x, abs=1e-6)


def test_slope_of_a_calibrated_model_is_one() -> None:
    rng = RNG(8)
    size = np.abs(rng.normal(0.0, 1.5, size=40_000))
    delta = np.where(rng.random(40_000) < expit(size), size, -size)
    found = calibration.slope_statistic(delta)
    assert found is not None
    assert found.value == pytest.approx(1.0, abs=0.04)
    doubled = calibration.slope_statistic(2.0 * delta)
    assert doubled is not None
    assert doubled.value == pytest.approx(found.value / 2.0)


def test_slope_influence_is_the_derivative_by_the_weight_of_a_row() -> None:
    delta = RNG(9).normal(0.3, 1.0, size=12)
    found = calibration.slope_statistic(delta)
    assert found is not None
    for i in range(12):
        moved = calibration.slope_statistic(np.append(np.tile(delta, 2000), delta[i]))
        assert moved is not None
        assert (moved.value - found.value) * (12 * 2000 + 1) == pytest.approx(found.influence[i], abs=5e-3)


@pytest.mark.parametrize("delta", [[], [0.0, 0.0], [1.0, 2.0, 0.0], [-1.0, -3.0]])
def test_no_slope_where_none_is_best(delta: list[float]) -> None:
    assert calibration.slope_statistic(np.array(delta)) is None


@pytest.mark.slow
def test_coverage_of_the_calibration_slope() -> None:
    rng = RNG(10)

    def experiment() -> bool:
        size = np.abs(rng.normal(0.0, 1.5, size=200))
        statistic = calibration.slope_statistic(np.where(rng.random(200) < expit(0.8 * size), size, -size))
        assert statistic is not None
        found = intervals.interval(statistic)
        return found.low is not None and found.high is not None and found.low <= 0.8 <= found.high

    assert 0.93 <= np.mean([experiment() for _ in range(1500)]) <= 0.97


def test_error_interval_holds_the_estimate_and_never_leaves_zero_and_up() -> None:
    rng = RNG(11)
    predicted = rng.uniform(0.5, 1.0, size=300)
    outcome = (rng.random(300) < predicted).astype(float)
    clusters = np.arange(300) // 2
    found = calibration.calibration_error_interval(predicted, outcome, RNG(12), clusters)
    assert found.value == pytest.approx(calibration.calibration_error(predicted, outcome))
    assert found.low == 0.0
    assert found.high is not None
    assert found.value < found.high
    assert (found.n, found.clusters) == (300, 150)
    again = calibration.calibration_error_interval(predicted, outcome, RNG(12), clusters)
    assert again == found


def test_error_interval_needs_two_clusters() -> None:
    nothing = calibration.calibration_error_interval(np.array([]), np.array([]), RNG(0))
    assert (nothing.value, nothing.reason) == (None, intervals.NO_OBSERVATIONS)
    one = calibration.calibration_error_interval(np.array([0.7, 0.8]), np.array([1.0, 0.0]), RNG(0), np.zeros(2))
    # Two bins of one: (|1 - .7| + |0 - .8|) / 2.
    assert one.value == pytest.approx(0.55)
    assert (one.low, one.reason) == (None, intervals.ONE_CLUSTER)
    two = calibration.calibration_error_interval(np.array([0.7, 0.8]), np.array([1.0, 0.0]), RNG(0))
    assert (two.clusters, two.reason) == (2, "")
    # Drawing either of them twice doubles its gap: .3 or .8, against .55 for one of each.
    assert two.high == pytest.approx(0.8)


def test_a_scorer_that_always_ties_has_no_error_interval() -> None:
    """Half sure and half right everywhere: an error of 0, which 30 pairs cannot make certain."""
    found = calibration.calibration_error_interval(np.full(30, 0.5), np.full(30, 0.5), RNG(0))
    assert (found.value, found.low, found.high, found.reason) == (0.0, None, None, intervals.NO_SPREAD)


def test_error_interval_is_the_one_written_out() -> None:
    """Same generator, same draws: the triangle bound below, the quantile of the resampled error above."""
    rng = RNG(14)
    predicted = rng.uniform(0.6, 0.9, size=40)
    outcome = (rng.random(40) < predicted - 0.4).astype(float)
    clusters = np.repeat(np.arange(16), [1, 4] * 8)
    found = calibration.calibration_error_interval(predicted, outcome, RNG(15), clusters, 0.9, bins=2, draws=150)
    half = np.argsort(np.argsort(predicted)) >= 20

    def gaps(rows: np.ndarray) -> np.ndarray:
        gap = outcome[rows] - predicted[rows]
        return np.array([gap[~half[rows]].sum(), gap[half[rows]].sum()]) / len(rows)

    drawn = RNG(15).integers(0, 16, size=(150, 16))
    resampled = [gaps(np.concatenate([np.flatnonzero(clusters == label) for label in row])) for row in drawn]
    observed = gaps(np.arange(40))
    distance = np.quantile([np.abs(one - observed).sum() for one in resampled], 0.95)
    assert found.value == pytest.approx(np.abs(observed).sum())
    assert found.low == pytest.approx(np.abs(observed).sum() - distance)
    assert found.low is not None
    assert found.low > 0
    assert found.high == pytest.approx(np.quantile([np.abs(one).sum() for one in resampled], 0.95))


@pytest.mark.slow
@pytest.mark.parametrize("overconfidence", [0.0, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("n", [500, 4000])
def test_error_interval_covers_at_least_at_its_level(n: int, overconfidence: float) -> None:
    rng = RNG(13)

    def experiment() -> bool:
        predicted = rng.uniform(0.6, 0.9, size=n)
        outcome = (rng.random(n) < predicted - overconfidence).astype(float)
        found = calibration.calibration_error_interval(predicted, outcome, rng, draws=200)
        return found.low is not None and found.high is not None and found.low <= overconfidence <= found.high

    # 300 runs at .95 have a standard error of 1.3 points.
    assert np.mean([experiment() for _ in range(300)]) >= 0.925
