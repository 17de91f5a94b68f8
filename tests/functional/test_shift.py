"""Shifts along paths whose end is known exactly, and forecasts that meet them as scipy and counting say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rewardlab.functional.intervals import Statistic, interval, mean_statistic
from rewardlab.functional.shift import (
    MEASURES,
    ceiling_of,
    covers,
    crossing,
    log_odds_shift,
    meeting,
    meetings,
    permutation_p,
    right_signs,
    share_of_known,
    shifts_at,
)


def flat(points: list[float], prompts: int = 3) -> np.ndarray:
    """Every prompt alike."""
    return np.repeat(np.array(points)[:, None], prompts, axis=1)


def values_of(path: list[Statistic] | None) -> list[float]:
    assert path is not None
    return [one.value for one in path]


def test_a_path_is_read_along_the_root_of_the_divergence() -> None:
    away = flat([0.0, 0.25, 1.0, 0.8])
    shares = np.repeat(np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 3.0], [9.0, 9.0]])[:, None, :], 3, axis=1)
    assert values_of(shifts_at(away, shares, 0.0625)) == pytest.approx([0.25, 0.0])
    assert values_of(shifts_at(away, shares, 0.5625)) == pytest.approx([0.75, 1.0])
    assert values_of(shifts_at(away, shares, 1.0)) == pytest.approx([1.0, 2.0])
    assert shifts_at(away, shares, 1.01) is None


def test_the_first_crossing_counts_and_chance_below_nothing_is_nothing() -> None:
    assert crossing(np.array([0.0, -0.1, 1.0, 0.2, 4.0]), 0.25) == (1, 2, 0.5)
    assert crossing(np.array([0.0, 4.0]), 1.0) == (0, 1, 0.5)
    assert crossing(np.array([0.0, 1.0]), 1.5) is None
    with pytest.raises(ValueError, match="more than 0"):
        crossing(np.array([0.0, 1.0]), 0.0)


def test_exact_tilts_of_a_normal_distribution_are_read_exactly() -> None:
    """Tilted by eta R, a normal distribution moves by eta Cov(W, R) at eta^2 Var(R) / 2 nats: at kappa nats by
    sqrt(2 kappa) Cov(W, R) / sd(R), wherever the checkpoints stand."""
    covariance, variance = np.array([0.7, -0.2]), 2.5
    eta = np.array([0.0, 0.3, 1.1, 2.0])
    shares = np.repeat((0.4 + eta[:, None] * covariance)[:, None, :], 3, axis=1)
    away = flat((eta**2 * variance / 2.0).tolist())
    for divergence in (0.05, 0.5, 1.0, 4.9):
        expected = math.sqrt(2.0 * divergence / variance) * covariance
        assert values_of(shifts_at(away, shares, divergence)) == pytest.approx(expected)


TRUE_KL, TRUE_SHARE = np.array([0.0, 0.4, 1.6]), np.array([0.3, 0.42, 0.55])


def noisy_path(generator: np.random.Generator, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts whose KL is skewed and goes along with what they move."""
    level = generator.standard_gamma(2.0, prompts) / 2.0
    away = TRUE_KL[:, None] * level
    shares = TRUE_SHARE[:, None] + 0.1 * (level - 1.0) * np.sqrt(TRUE_KL)[:, None]
    shares = shares + 0.15 * generator.standard_normal((3, prompts))
    return away, shares[:, :, None]


def truth(divergence: float) -> float:
    roots = np.sqrt(TRUE_KL)
    return float(np.interp(math.sqrt(divergence), roots, TRUE_SHARE)) - 0.3


def test_intervals_cover_the_truth_at_their_rate() -> None:
    """600 paths of 80 prompts; three standard errors of a coverage of .95 are .027."""
    for divergence in (0.2, 1.0):
        hits = 0
        for seed in range(600):
            found = shifts_at(*noisy_path(np.random.default_rng(seed), 80), divergence)
            assert found is not None
            ends = interval(found[0])
            assert ends.low is not None
            assert ends.high is not None
            hits += ends.low <= truth(divergence) <= ends.high
        assert abs(hits / 600 - 0.95) <= 0.03, hits / 600


def test_the_influence_of_a_prompt_is_what_another_one_like_it_would_change() -> None:
    away, shares = noisy_path(np.random.default_rng(1), 200)
    found = shifts_at(away, shares, 0.9)
    assert found is not None
    assert abs(found[0].influence.sum()) < 1e-10
    rate = mean_statistic(shares[0, :, 0])
    odds = log_odds_shift(rate, found[0])
    assert odds is not None
    changed, changed_odds = [], []
    for prompt in range(20):
        twice = [*range(200), prompt]
        again = shifts_at(away[:, twice], shares[:, twice], 0.9)
        assert again is not None
        changed.append(201 * (again[0].value - found[0].value))
        both = log_odds_shift(mean_statistic(shares[0, twice, 0]), again[0])
        assert both is not None
        changed_odds.append(201 * (both.value - odds.value))
    # What is left is of the second order, 1/200 of the influence.
    np.testing.assert_allclose(changed, found[0].influence[:20], atol=0.03 * found[0].influence.std())
    np.testing.assert_allclose(changed_odds, odds.influence[:20], atol=0.03 * odds.influence.std())


def test_log_odds_by_hand() -> None:
    nothing = np.zeros(3)
    found = log_odds_shift(Statistic(0.2, nothing), Statistic(0.3, nothing))
    assert found is not None
    assert found.value == pytest.approx(math.log(4.0))
    assert log_odds_shift(Statistic(0.0, nothing), Statistic(0.3, nothing)) is None
    assert log_odds_shift(Statistic(0.7, nothing), Statistic(0.3, nothing)) is None


def met(predicted: list[float], realised: list[float]) -> dict[str, float]:
    return dict(zip(MEASURES, meeting(np.array(predicted), np.array(realised)).tolist(), strict=True))


def test_forecasts_meet_shifts_as_scipy_says() -> None:
    generator = np.random.default_rng(4)
    predicted = generator.standard_normal(30)
    realised = 0.5 * predicted + generator.standard_normal(30)
    found = met(predicted.tolist(), realised.tolist())
    assert found["slope"] == pytest.approx(stats.linregress(predicted, realised).slope)
    assert found["rank"] == pytest.approx(stats.spearmanr(predicted, realised).statistic)
    assert found["error"] == pytest.approx(
        sum(abs(one - two) for one, two in zip(realised, predicted, strict=True)) / 30
    )


def test_measures_that_are_not_defined_are_no_numbers() -> None:
    assert all(math.isnan(one) for one in met([], []).values())
    found = met([0.1, 0.1], [0.3, 0.2])
    assert found["error"] == pytest.approx(0.15)
    assert math.isnan(found["rank"])
    assert math.isnan(found["slope"])


def test_signs_count_where_a_shift_is_told() -> None:
    predicted = np.array([[0.1, 0.1, -0.1, 0.0, np.nan]])
    realised = np.array([[0.5, -0.5, 0.02, 0.5, 0.5]])
    found = right_signs(predicted, realised, np.full((1, 5), 0.03))
    np.testing.assert_array_equal(found, [[1.0, 0.0, np.nan, 0.0, np.nan]])
    assert share_of_known(found, np.ones((1, 1), dtype=np.int64)) == pytest.approx(1.0 / 3.0)


def test_intervals_of_both_are_added_as_roots_of_squares() -> None:
    """|s - p| is 5, the half widths are 3 and 4 where it is just inside."""
    predicted, realised = np.zeros((1, 4)), np.array([[5.0, 5.001, -5.0, np.nan]])
    found = covers(predicted, realised, np.full((1, 4), 3.0), np.full((1, 4), 4.0))
    np.testing.assert_array_equal(found, [[1.0, 0.0, 1.0, np.nan]])


def test_of_two_equally_wide_intervals_the_difference_is_covered_at_their_level() -> None:
    """Forecast and shift are both estimates of one number; 4,000 of them, three standard errors are .010."""
    generator = np.random.default_rng(6)
    both = generator.standard_normal((2, 1, 4000))
    half = np.full((1, 4000), stats.norm.ppf(0.975))
    assert covers(both[0], both[1], half, half).mean() == pytest.approx(0.95, abs=0.011)


def test_a_resample_is_measured_as_if_it_were_written_out() -> None:
    """Units drawn twice, gaps, ties, and a resample of one unit alone, in which all are the same."""
    generator = np.random.default_rng(7)
    predicted, realised = generator.standard_normal((2, 5, 3)).round(1)
    predicted[1, 2] = predicted[3] = np.nan
    predicted[4], realised[2, 1] = 0.5, np.nan
    chosen = np.vstack([generator.integers(0, 5, (50, 5)), [[4] * 5, [3] * 5]])
    counts = np.array([np.bincount(units, minlength=5) for units in chosen])
    found = meetings(predicted, realised, counts)
    flags = right_signs(predicted, realised, np.full((5, 3), 0.3))
    shares = share_of_known(flags, counts)
    for row, share, units in zip(found, shares, chosen, strict=True):
        points = [(unit, point) for unit in units for point in range(3)]
        both = np.array([(predicted[one], realised[one]) for one in points])
        told = both[np.isfinite(both).all(axis=1)]
        np.testing.assert_allclose(row, meeting(told[:, 0], told[:, 1]), atol=1e-12)
        said = [flags[one] for one in points if np.isfinite(flags[one])]
        assert share == pytest.approx(np.mean(said)) if said else np.isnan(share)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_ceiling_is_what_the_truth_itself_reaches(seeds: int) -> None:
    """20,000 shifts whose truth is known: error and correlation of the truth with the mean over seeds, within 3 %."""
    generator = np.random.default_rng(seeds)
    truth = generator.standard_normal(20_000)
    told = truth[:, None] + 0.8 * generator.standard_normal((20_000, seeds))
    error, rank = ceiling_of(told)
    expected = meeting(truth, told.mean(axis=1))
    assert error == pytest.approx(expected[0], rel=0.03)
    assert rank == pytest.approx(expected[1], abs=0.015)


def test_seeds_that_say_opposite_things_leave_no_ceiling() -> None:
    error, rank = ceiling_of(np.array([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]))
    assert error == pytest.approx(2.0)
    assert rank is None
    with pytest.raises(ValueError, match="two seeds"):
        ceiling_of(np.ones((4, 1)))


def test_what_all_reward_models_have_in_common_proves_nothing() -> None:
    generator = np.random.default_rng(8)
    common = np.tile([0.5, 0.0, -0.5], (6, 1))
    error, rank = permutation_p(common, common + 0.1 * generator.standard_normal((6, 3)), generator, 300)
    assert error == 1.0
    assert rank == 1.0
    own = generator.standard_normal((6, 3))
    error, rank = permutation_p(own, own, generator, 300)
    # Of 720 orders one is right; 300 draws hit it once or twice at most.
    assert error <= 4.0 / 301.0
    assert rank is not None
    assert rank <= 4.0 / 301.0
    assert permutation_p(np.zeros((6, 3)), own, generator, 10)[1] is None
