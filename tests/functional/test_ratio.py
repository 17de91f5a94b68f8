"""Fieller's interval against a published example, the closed form, the differences it comes from, and simulations."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from rewardlab.functional.intervals import (
    NO_SPREAD,
    ONE_CLUSTER,
    Interval,
    Statistic,
    difference,
    interval,
    mean_statistic,
    widened,
)
from rewardlab.functional.ratio import NOT_TOLD_FROM_ZERO, Parts, fieller

RNG = np.random.default_rng


def closed_form(first: np.ndarray, second: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The roots of Fieller's quadratic for two means over the same rows."""
    n = len(first)
    t2 = stats.t.ppf(0.5 + level / 2, n - 1) ** 2
    (aa, ab), (_, bb) = np.cov(first, second) / n
    a, b = first.mean(), second.mean()
    roots = np.roots([b * b - t2 * bb, -2 * (a * b - t2 * ab), a * a - t2 * aa])
    return float(min(roots)), float(max(roots))


def ends(found: Interval) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_the_hormone_patches_of_efron_and_tibshirani() -> None:
    """An introduction to the bootstrap, 1993, chapter 25: the ratio is -.0713, and Fieller's 90 % interval goes from
    -.249 to .170."""
    old_minus_placebo = np.array([8406.0, 2342, 8187, 8459, 4795, 3516, 4796, 10238])
    new_minus_old = np.array([-1200.0, 2601, -2705, 1982, -1290, 351, -638, -2719])
    found = fieller(mean_statistic(new_minus_old), mean_statistic(old_minus_placebo), level=0.9)
    assert found.value == pytest.approx(-0.0713, abs=5e-5)
    assert ends(found) == pytest.approx((-0.249, 0.170), abs=5e-4)
    assert (found.n, found.clusters, found.method, found.reason) == (8, 8, "Fieller", "")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_without_further_variance_it_is_the_closed_form(seed: int, level: float) -> None:
    generator = RNG(seed)
    shared = generator.normal(size=40)
    first = generator.normal() + generator.normal() * shared + generator.normal(size=40)
    second = 1.5 * generator.choice([-1, 1]) + shared + generator.normal(size=40)
    found = fieller(mean_statistic(first), mean_statistic(second), level=level)
    assert found.value == pytest.approx(first.mean() / second.mean())
    assert ends(found) == pytest.approx(closed_form(first, second, level), rel=1e-9, abs=1e-12)


def test_copies_in_one_cluster_add_no_information() -> None:
    first, second = RNG(1).normal(size=(2, 30)) + np.array([[1.0], [2.0]])
    twice = [mean_statistic(np.repeat(one, 2)) for one in (first, second)]
    found = fieller(twice[0], twice[1], np.repeat(np.arange(30), 2))
    assert ends(found) == pytest.approx(closed_form(first, second), rel=1e-9)
    assert (found.n, found.clusters) == (60, 30)


def independent_truth(a: float, b: float, rho: float, variances: tuple[float, float], freedom: tuple[int, int]) -> bool:
    """Whether Welch's test does not refute a = rho b."""
    one, other = variances[0], rho * rho * variances[1]
    nu = (one + other) ** 2 / (one**2 / freedom[0] + other**2 / freedom[1])
    return bool(abs(a - rho * b) <= stats.t.ppf(0.975, nu) * math.sqrt(one + other))


@pytest.mark.parametrize("sizes", [(2, 9), (4, 4), (9, 3)])
def test_with_further_variance_the_ends_are_where_welchs_test_turns(sizes: tuple[int, int]) -> None:
    """Nearly all variance is that of two independent groups of seeds, so the test of each ratio is Welch's."""
    first, second = RNG(sizes[0]).normal(0.4, 0.05, sizes[0]), RNG(9).normal(1.0, 0.05, sizes[1])
    variances = first.var(ddof=1) / sizes[0], second.var(ddof=1) / sizes[1]
    parts: Parts = ((variances[0], sizes[0] - 1.0), (variances[1], sizes[1] - 1.0))
    noise = RNG(10).normal(size=(2, 50)) * 1e-7
    a, b = float(first.mean()), float(second.mean())
    found = fieller(Statistic(a, noise[0] - noise[0].mean()), Statistic(b, noise[1] - noise[1].mean()), parts=parts)
    for end, inward in zip(ends(found), (1.0, -1.0), strict=True):
        freedom = (sizes[0] - 1, sizes[1] - 1)
        assert independent_truth(a, b, end + inward * 1e-5, variances, freedom)
        assert not independent_truth(a, b, end - inward * 1e-5, variances, freedom)


def test_it_says_what_the_intervals_of_the_parts_and_of_the_difference_say() -> None:
    """It holds 1 where the difference's interval holds 0, 0 where the numerator's does, .5 where the contrast's with
    half the denominator does, and has ends where the denominator's does not hold 0."""
    generator = RNG(12)
    seen: set[tuple[bool, ...]] = set()
    for _ in range(300):
        rows = generator.normal(size=(3, 25))
        first = mean_statistic(rows[0] + rows[2] + generator.choice([0.0, 0.5, 1.0]))
        second = mean_statistic(rows[1] + rows[2] + generator.choice([0.3, 1.0]))
        parts: Parts = ((generator.exponential() * 0.02, 3.0), (generator.exponential() * 0.02, 4.0))
        found = fieller(first, second, parts=parts)
        assert found.value is not None

        def holds(weights: tuple[float, float], first: Statistic, second: Statistic, parts: Parts) -> bool:
            scaled = [Statistic(w * s.value, w * s.influence) for w, s in zip(weights, (first, second), strict=True)]
            apart = interval(difference(scaled[0], scaled[1]))
            low, high = ends(widened(apart, [(w * w * v, nu) for w, (v, nu) in zip(weights, parts, strict=True)]))
            return low <= 0.0 <= high

        told = not holds((0.0, 1.0), first, second, parts)
        assert (found.low is not None) == told
        if not told:
            assert (found.high, found.reason) == (None, NOT_TOLD_FROM_ZERO)
            continue
        low, high = ends(found)
        assert low < found.value < high
        said = tuple(low <= rho <= high for rho in (1.0, 0.5, 0.0))
        assert said == tuple(holds((1.0, rho), first, second, parts) for rho in (1.0, 0.5, 0.0))
        seen.add(said)
    assert len(seen) >= 5


def test_it_grows_without_bound_towards_the_edge_where_the_denominator_is_not_told_from_zero() -> None:
    rows = RNG(13).normal(size=(2, 25))
    first = mean_statistic(rows[0] + 1.0)
    spread = mean_statistic(rows[1]).influence
    edge = float(stats.t.ppf(0.975, 24) * spread.std(ddof=1) / 5)
    widths = []
    for beyond in (1e-1, 1e-2, 1e-3, 1e-4):
        low, high = ends(fieller(first, Statistic(edge * (1 + beyond), spread)))
        assert (low, high) == pytest.approx(closed_form(rows[0] + 1.0, spread + edge * (1 + beyond)), rel=1e-6)
        widths.append(high - low)
    assert all(later > 5 * earlier for earlier, later in pairwise(widths))
    inside = fieller(first, Statistic(edge * (1 - 1e-4), spread))
    assert (inside.low, inside.high, inside.reason) == (None, None, NOT_TOLD_FROM_ZERO)
    assert inside.value == pytest.approx(first.value / (edge * (1 - 1e-4)))


def test_nothing_is_a_share_of_zero() -> None:
    spread = mean_statistic(RNG(14).normal(size=9)).influence
    found = fieller(Statistic(1.0, spread), Statistic(0.0, spread[::-1].copy()))
    assert (found.value, found.low, found.high, found.reason) == (None, None, None, NOT_TOLD_FROM_ZERO)


@pytest.mark.parametrize("factor", [1.0, 0.3, -7.0])
def test_the_same_share_everywhere_is_a_value_without_an_interval(factor: float) -> None:
    values = RNG(15).normal(2.0, size=30)
    found = fieller(mean_statistic(factor * values), mean_statistic(values), parts=((0.1, 2.0), (0.1, 2.0)))
    assert found.value == pytest.approx(factor)
    assert (found.low, found.high, found.reason) == (None, None, NO_SPREAD)


def test_one_cluster_gives_a_ratio_without_an_interval() -> None:
    first, second = mean_statistic(np.array([1.0, 2.0])), mean_statistic(np.array([3.0, 3.5]))
    found = fieller(first, second, np.zeros(2, dtype=int))
    assert found.value == pytest.approx(1.5 / 3.25)
    assert (found.low, found.reason) == (None, ONE_CLUSTER)


def test_of_a_known_denominator_it_is_the_numerators_interval_in_that_unit() -> None:
    values = RNG(16).normal(size=20)
    found = fieller(mean_statistic(values), mean_statistic(np.full(20, -4.0)))
    low, high = ends(interval(mean_statistic(values)))
    assert ends(found) == pytest.approx((high / -4.0, low / -4.0), rel=1e-9)


def test_units_and_signs_turn_it_as_they_turn_the_ratio() -> None:
    first, second = RNG(17).normal(size=(2, 30)) + np.array([[0.5], [1.0]])
    low, high = ends(fieller(mean_statistic(first), mean_statistic(second)))
    assert ends(fieller(mean_statistic(-1e-6 * first), mean_statistic(1e-6 * second))) == pytest.approx((-high, -low))
    assert ends(fieller(mean_statistic(-3.0 * first), mean_statistic(-1.0 * second))) == pytest.approx(
        (3 * low, 3 * high)
    )


RUNS = 600


def simulated(generator: np.random.Generator, effects: tuple[float, float], seeds: tuple[int, int]) -> Interval:
    """Two arms on the same 60 prompts with two answers each; prompts, models and answers have effects of their own."""
    prompts = np.repeat(np.arange(60), 2)
    shared = generator.normal(size=60)[prompts]
    arms = [
        effect + effect * shared + generator.normal(size=(count, 1)) * 0.15 + generator.normal(size=(count, 120))
        for effect, count in zip(effects, seeds, strict=True)
    ]
    of_seeds = [(float(arm.mean(axis=1).var(ddof=1)) / len(arm), len(arm) - 1.0) for arm in arms]
    first, second = (mean_statistic(arm.mean(axis=0)) for arm in arms)
    return fieller(first, second, prompts, (of_seeds[0], of_seeds[1]))


@pytest.mark.parametrize(
    ("share", "seeds"),
    [(0.5, (5, 5)), (0.0, (5, 5)), (1.0, (3, 6))],
)
def test_it_holds_the_true_share(share: float, seeds: tuple[int, int]) -> None:
    """95 % within 2.7 points, three standard errors of 600 simulations; seeds count a little more than they are worth,
    since the noise of a model on these answers is in both sources: another point and a half at most."""
    generator = RNG(18)
    found = [simulated(generator, (share, 1.0), seeds) for _ in range(RUNS)]
    assert all(one.low is not None for one in found)
    held = np.mean([ends(one)[0] <= share <= ends(one)[1] for one in found])
    assert 0.923 < held < 0.992
    # An upper end below the truth is wrong in one of 40, within three standard errors again.
    assert np.mean([ends(one)[1] < share for one in found]) < 0.025 + 0.019


def test_the_data_alone_would_not_hold_it() -> None:
    """The simulation can tell: an interval over the data alone holds the truth far less often."""
    generator, held = RNG(19), 0
    for _ in range(RUNS):
        shared = generator.normal(size=60)
        arms = [e + e * shared + generator.normal(size=(4, 1)) * 0.3 + generator.normal(size=(4, 60)) for e in (0.5, 1)]
        low, high = ends(fieller(mean_statistic(arms[0].mean(axis=0)), mean_statistic(arms[1].mean(axis=0))))
        held += low <= 0.5 <= high
    assert held / RUNS < 0.85


def test_it_is_silent_rather_than_wrong_where_the_denominator_is_weak() -> None:
    """A denominator of two standard errors: about half of the time there is no interval, and in one of 20 at most there
    is one without the truth (three standard errors of 600 simulations: 2.7 points)."""
    generator, wrong, silent = RNG(20), 0, 0
    for _ in range(RUNS):
        first, second = generator.normal(size=(2, 50)) + np.array([[0.5], [1.0]]) * 2.0 / math.sqrt(50)
        found = fieller(mean_statistic(first), mean_statistic(second))
        silent += found.low is None
        wrong += found.low is not None and not ends(found)[0] <= 0.5 <= ends(found)[1]
    assert 0.4 < silent / RUNS < 0.6
    assert wrong / RUNS < 0.077
