"""Gains at equal length: the specification's worked case, gains set by construction, and a spline's defining laws."""

from __future__ import annotations

import numpy as np
import pytest

from rewardlab.functional import gain
from rewardlab.functional.intervals import interval, percentile_ends, resample

RNG = np.random.default_rng


def worked() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A: 8 short (.10), 2 long (.60); B: 2 short (.15), 8 long (.65)."""
    tokens = np.array([5] * 8 + [50] * 2 + [5] * 2 + [50] * 8)
    reward = np.array([0.10] * 8 + [0.60] * 2 + [0.15] * 2 + [0.65] * 8)
    return tokens, reward, np.arange(20) >= 10


def simulated(count: int, seed: int, quality: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards that are a bent function of length, and `quality` more for B, whose outputs are longer by 30."""
    generator = RNG(seed)
    second = np.arange(count) % 2 == 1
    tokens = (generator.gamma(4.0, 20.0, count) + 30 * second).astype(int)
    reward = 0.02 * tokens + np.sin(tokens / 40) + quality * second + generator.normal(0.0, 0.5, count)
    return tokens, reward, second


def test_the_worked_case() -> None:
    found = gain.non_length_gain(*worked())
    assert (found.total, found.non_length) == (pytest.approx(0.35), pytest.approx(0.05))
    assert found.ratio == pytest.approx(1 / 7)
    assert found.one_sided == 0.0
    assert [one[:4] for one in found.bins] == [(0, 20, 8, 2), (40, 60, 2, 8)]


def test_bins_are_half_open_and_those_of_one_model_count_in_t_alone() -> None:
    # 19 and 20 tokens are in different bins; so are both models here.
    found = gain.non_length_gain(np.array([19, 20]), np.array([0.0, 1.0]), np.array([False, True]))
    assert (found.total, found.non_length, found.one_sided) == (1.0, 0.0, 1.0)
    assert [(one.low, one.first_mean, one.second_mean) for one in found.bins] == [(0, 0.0, None), (20, None, 1.0)]
    # Two outputs of A beyond everything: the weight of the shared bin falls from 1 to 2 / 4.
    tokens, second = np.array([5, 5, 900, 900]), np.array([False, True, False, False])
    assert gain.non_length_gain(tokens, np.array([0.0, 1.0, 0.0, 0.0]), second).non_length == pytest.approx(0.5)


def test_no_gain_has_no_ratio() -> None:
    found = gain.non_length_gain(np.array([1, 1]), np.array([2.0, 2.0]), np.array([False, True]))
    assert (found.total, found.ratio) == (0.0, None)


def test_resampled_gains_hold_the_point_and_the_truth() -> None:
    tokens, reward, second = simulated(3000, 0)
    terms = gain.gain_terms(tokens, reward, second)
    # Outputs of A and B to one prompt stand side by side.
    found = resample(terms, gain.gain_statistics, RNG(1), np.arange(3000) // 2, 300)
    point = gain.non_length_gain(tokens, reward, second)
    assert found.values[:2].tolist() == pytest.approx([point.total, point.non_length])
    low, high = percentile_ends(found)
    assert low[1] < 0.3 < high[1]
    assert high[1] < low[0]


def test_regression_finds_the_gain_that_was_put_in() -> None:
    tokens, reward, second = simulated(6000, 2)
    found = gain.decomposed_gain(tokens, reward, second)
    assert found.total.value == pytest.approx(reward[second].mean() - reward[~second].mean())
    assert found.at_equal_length.value + found.through_length.value == pytest.approx(found.total.value)
    ends = interval(found.at_equal_length)
    assert ends.low is not None
    assert ends.high is not None
    assert ends.low < 0.3 < ends.high
    assert ends.high - ends.low < 0.08


def test_intervals_of_the_regression_hold_the_truth() -> None:
    """300 samples of a linear truth, which the spline holds: between 91 and 99 % is within 3 standard errors of 95."""
    inside = 0
    for seed in range(300):
        generator = RNG([3, seed])
        second = np.arange(200) % 2 == 1
        tokens = generator.integers(5, 120, 200) + 15 * second
        reward = 0.01 * tokens + 0.2 * second + generator.normal(0.0, 0.3, 200)
        ends = interval(gain.decomposed_gain(tokens, reward, second).at_equal_length)
        assert ends.low is not None
        assert ends.high is not None
        inside += ends.low <= 0.2 <= ends.high
    assert 0.91 < inside / 300 < 0.99


def test_the_worked_case_by_regression() -> None:
    found = gain.decomposed_gain(*worked())
    assert found.at_equal_length.value == pytest.approx(0.05, abs=1e-3)
    # The same length everywhere: all of the gain is at equal length.
    flat = gain.decomposed_gain(np.full(6, 7), np.arange(6.0), np.arange(6) % 2 == 1)
    assert (flat.at_equal_length.value, flat.through_length.value) == (pytest.approx(1.0), pytest.approx(0.0))


def test_a_natural_spline_is_smooth_and_straight_outside() -> None:
    knots = np.array([0.2, 0.4, 0.7, 0.9])
    x = np.linspace(-1.0, 2.0, 3001)
    columns = gain.natural_spline(x, knots)
    assert columns.shape == (3001, 3)
    bend = np.diff(columns, 2, axis=0) / 0.001**2
    outside = (x[1:-1] < 0.199) | (x[1:-1] > 0.901)
    # Rounding of the cubes, divided by the squared step, is about 1e-8.
    assert np.abs(bend[outside]).max() < 1e-6
    assert np.abs(np.diff(bend, axis=0)).max() < 0.1
    assert np.abs(bend[~outside]).max() > 1.0
    assert gain.natural_spline(x, knots[:2]).shape == (3001, 1)


def test_strata_are_of_equal_mass_and_never_part_equal_values() -> None:
    place, edges = gain.strata(RNG(4).normal(size=1000), 5)
    assert np.bincount(place).tolist() == [200] * 5
    assert len(edges) == 6
    values = RNG(5).integers(0, 6, 200).astype(float)
    place, edges = gain.strata(values, 4)
    assert all(len(set(place[values == one].tolist())) == 1 for one in range(6))
    assert (np.diff(edges) > 0).all()
    assert gain.strata(np.zeros(3), 4)[0].tolist() == [0, 0, 0]
