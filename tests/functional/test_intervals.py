"""Intervals against textbook formulas, scipy, brute force, and (slow) their own coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rewardlab.functional import agreement, intervals

RNG = np.random.default_rng


def grown(values: np.ndarray, extra: int, copies: int = 2000) -> np.ndarray:
    """`copies` copies of every row and one more of row `extra`: the sample moved a little towards that row."""
    return np.concatenate([np.tile(values, (copies,) + (1,) * (values.ndim - 1)), values[extra : extra + 1]])


def test_mean_of_independent_values_is_students_interval() -> None:
    values = [1.0, 4.0, 2.5, 0.5, 3.0]
    n, centre = 5, sum(values) / 5
    error = math.sqrt(sum((v - centre) ** 2 for v in values) / (n - 1) / n)
    t = 2.7764451051977987  # 97.5 % point of Student's t with 4 degrees of freedom, from tables
    found = intervals.mean(np.array(values))
    assert found.value == pytest.approx(centre)
    assert (found.low, found.high) == (pytest.approx(centre - t * error), pytest.approx(centre + t * error))
    assert (found.n, found.clusters, found.reason) == (5, 5, "")


def test_level_widens_the_interval_as_scipy_says() -> None:
    values = RNG(1).normal(size=20)
    found = intervals.mean(values, level=0.8)
    expected = stats.t.interval(0.8, 19, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_clustered_mean_is_cr1_by_hand() -> None:
    # Clusters a = {1, 2}, b = {6}, c = {3, 3}; mean 3; sums of deviations: -3, 3, 0.
    found = intervals.mean(np.array([1.0, 6.0, 3.0, 2.0, 3.0]), np.array(["a", "b", "c", "a", "c"]))
    error = math.sqrt(3 / 2 * (9 + 9 + 0)) / 5
    t = 4.302652729749464  # 2 degrees of freedom
    assert found.value == pytest.approx(3.0)
    assert found.high is not None
    assert found.high - 3.0 == pytest.approx(t * error)
    assert (found.n, found.clusters) == (5, 3)


def test_copies_in_one_cluster_add_no_information() -> None:
    values, clusters = RNG(2).normal(size=30), np.arange(30)
    once = intervals.mean(values, clusters)
    thrice = intervals.mean(np.repeat(values, 3), np.repeat(clusters, 3))
    assert thrice.low == pytest.approx(once.low)
    assert thrice.high == pytest.approx(once.high)


def test_ratio_influence_is_the_derivative_by_weight() -> None:
    numerator, denominator = RNG(3).normal(size=7), RNG(4).uniform(0.5, 2.0, size=7)
    found = intervals.ratio_statistic(numerator, denominator)
    for i in range(7):
        moved = grown(numerator, i).sum() / grown(denominator, i).sum()
        assert (moved - found.value) * (7 * 2000 + 1) == pytest.approx(found.influence[i], rel=1e-3, abs=1e-4)


def test_standard_deviation_influence_is_the_derivative_by_weight() -> None:
    values = RNG(5).normal(size=9)
    found = intervals.standard_deviation_statistic(values)
    assert found.value == pytest.approx(math.sqrt(sum((v - values.sum() / 9) ** 2 for v in values) / 8))
    for i in range(9):
        moved = grown(values, i).std() - values.std()
        assert moved * (9 * 2000 + 1) == pytest.approx(found.influence[i], rel=2e-3, abs=1e-3)


def test_ratio_with_an_indicator_is_the_mean_on_the_subset() -> None:
    values, inside = RNG(6).normal(size=40), (np.arange(40) % 3 == 0).astype(float)
    found = intervals.ratio_statistic(values * inside, inside)
    assert found.value == pytest.approx(values[::3].mean())


def test_difference_of_statistics_of_the_same_rows_is_paired() -> None:
    first, second = RNG(7).normal(size=(2, 25))
    apart = intervals.difference(intervals.mean_statistic(first), intervals.mean_statistic(second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = intervals.interval(apart)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert intervals.paired_difference(first, second).low == pytest.approx(expected.low)


def test_fisher_scale_is_artanh_by_the_delta_method() -> None:
    influence = np.array([0.4, -0.1, -0.3, 0.2, -0.2])
    found = intervals.interval(intervals.Statistic(0.6, influence), scale="fisher")
    error = math.sqrt(5 / 4 * float((influence**2).sum())) / 5 / (1 - 0.36)
    t = 2.7764451051977987
    assert found.low == pytest.approx(math.tanh(math.atanh(0.6) - t * error))
    assert found.high == pytest.approx(math.tanh(math.atanh(0.6) + t * error))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_proportion_without_spread_has_the_exact_binomial_bound(value: float) -> None:
    found = intervals.proportion(np.full(24, value), np.repeat(np.arange(12), 2))
    exact = stats.binomtest(round(value * 12), 12).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert (found.method, found.reason, found.clusters) == ("exact binomial", "", 12)


def test_a_proportion_stays_between_zero_and_one() -> None:
    found = intervals.proportion(np.array([1.0, 1.0, 1.0, 0.5]))
    assert found.high == 1.0
    low = intervals.proportion(np.array([0.0, 0.0, 0.0, 0.5]))
    assert low.low == 0.0


def test_nothing_gives_no_number_and_says_why() -> None:
    empty = np.array([])
    for found in (
        intervals.mean(empty),
        intervals.proportion(empty),
        intervals.paired_difference(empty, empty),
        intervals.cluster_bootstrap(empty[:, None], lambda sums: sums[:, 0], RNG(0)),
    ):
        assert found.value is None
        assert found.reason == intervals.NO_OBSERVATIONS


def test_one_cluster_gives_a_number_without_an_interval() -> None:
    together = np.zeros(4, dtype=int)
    values = np.array([1.0, 2.0, 3.0, 6.0])
    for found in (
        intervals.mean(values[:1]),
        intervals.mean(values, together),
        intervals.cluster_bootstrap(values[:, None], lambda sums: sums[:, 0], RNG(0), together),
    ):
        assert found.value is not None
        assert (found.low, found.high) == (None, None)
        assert found.reason == intervals.ONE_CLUSTER


def test_two_clusters_are_enough() -> None:
    values, clusters = np.array([1.0, 2.0, 3.0, 6.0]), np.array([0, 0, 1, 1])
    terms = np.stack([values, np.ones(4)], axis=1)
    resampled = intervals.cluster_bootstrap(terms, lambda sums: sums[:, 0] / sums[:, 1], RNG(0), clusters, draws=99)
    # Both clusters, or one of them twice: means 1.5, 3 and 4.5.
    assert (resampled.low, resampled.high) == (1.5, 4.5)
    assert intervals.mean(values, clusters).low is not None


def test_no_spread_gives_a_number_without_an_interval() -> None:
    same = intervals.mean(np.full(6, 0.1))
    cancelling = intervals.mean(np.array([0.1, 0.3, 0.1, 0.3]), np.array([0, 0, 1, 1]))
    rounding = np.array([1e-16, -1e-16, 0.0, 2e-16, -2e-16])
    perfect = intervals.interval(intervals.Statistic(-1.0, rounding), scale="fisher")
    for found in (same, cancelling, perfect):
        assert found.value is not None
        assert (found.low, found.high, found.reason) == (None, None, intervals.NO_SPREAD)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
def test_a_bootstrap_without_spread_gives_a_number_without_an_interval(value: float) -> None:
    terms = np.stack([np.full(15, value), np.ones(15)], axis=1)
    for clusters in (None, np.arange(15) % 4):
        found = intervals.cluster_bootstrap(terms, lambda sums: sums[:, 0] / sums[:, 1], RNG(0), clusters, draws=50)
        assert found.value == pytest.approx(value)
        assert (found.low, found.high, found.reason) == (None, None, intervals.NO_SPREAD)


def test_bootstrap_of_a_mean_is_the_one_written_out() -> None:
    """Same generator, same draws: resampling whole clusters one draw at a time gives the same quantiles."""
    values, clusters = RNG(8).normal(size=12), np.repeat(np.arange(4), 3)
    terms = np.stack([values, np.ones(12)], axis=1)
    found = intervals.cluster_bootstrap(terms, lambda sums: sums[:, 0] / sums[:, 1], RNG(9), clusters, draws=200)
    drawn = RNG(9).integers(0, 4, size=(200, 4))
    means = [np.concatenate([values[clusters == label] for label in row]).mean() for row in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_bootstrap_in_chunks_covers_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG(10).normal(size=(50, 1))
    whole = intervals.cluster_bootstrap(values, lambda sums: sums[:, 0], RNG(11), draws=103)
    monkeypatch.setattr(intervals, "_BOOTSTRAP_CELLS", 50 * 10)
    parts = intervals.cluster_bootstrap(values, lambda sums: sums[:, 0], RNG(11), draws=103)
    assert (parts.low, parts.high) == (pytest.approx(whole.low), pytest.approx(whole.high))


def test_bootstrap_error_of_a_mean_is_the_textbook_one() -> None:
    values = RNG(12).normal(size=400)
    found = intervals.cluster_bootstrap(
        np.stack([values, np.ones(400)], axis=1), lambda sums: sums[:, 0] / sums[:, 1], RNG(13), draws=2000
    )
    assert found.low is not None
    assert found.high is not None
    # Width of a normal interval; the quantiles of 2,000 draws are good to about 4 %.
    assert found.high - found.low == pytest.approx(2 * 1.96 * stats.sem(values), rel=0.1)


def covered(found: intervals.Interval, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


def clustered_sample(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of 1 to 5 values that share half of their variance."""
    sizes = rng.integers(1, 6, size=groups)
    clusters = np.repeat(np.arange(groups), sizes)
    return rng.normal(size=groups)[clusters] + rng.normal(size=len(clusters)), clusters


RUNS = 2000
# 2,000 runs give the share covered with a standard error of 0.5 points.
BETWEEN = (0.93, 0.97)


def share_covered(experiment: object, seed: int) -> float:
    rng = RNG(seed)
    assert callable(experiment)
    return float(np.mean([experiment(rng) for _ in range(RUNS)]))


@pytest.mark.slow
@pytest.mark.parametrize("groups", [30, 200])
def test_coverage_of_the_clustered_mean(groups: int) -> None:
    def experiment(rng: np.random.Generator) -> bool:
        return covered(intervals.mean(*clustered_sample(rng, groups)), 0.0)

    assert BETWEEN[0] <= share_covered(experiment, 20) <= BETWEEN[1]


@pytest.mark.slow
def test_ignoring_clusters_would_not_cover() -> None:
    """The simulation can tell: treating dependent values as independent covers far too rarely."""

    def experiment(rng: np.random.Generator) -> bool:
        return covered(intervals.mean(clustered_sample(rng, 100)[0]), 0.0)

    assert share_covered(experiment, 21) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("groups", [60, 300])
def test_coverage_of_a_clustered_accuracy_with_ties(groups: int) -> None:
    def experiment(rng: np.random.Generator) -> bool:
        latent, clusters = clustered_sample(rng, groups)
        # Wrong below -0.5, tied up to 0, else right; the latent is normal with variance 2.
        values = np.where(latent < -0.5, 0.0, np.where(latent < 0.0, 0.5, 1.0))
        return covered(intervals.proportion(values, clusters), truth)

    below = stats.norm.cdf(-0.5 / math.sqrt(2.0))
    truth = float(0.5 * (0.5 - below) + 0.5)
    assert BETWEEN[0] <= share_covered(experiment, 22) <= BETWEEN[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_coverage_of_clustered_correlations(kind: str, rho: float) -> None:
    def experiment(rng: np.random.Generator) -> bool:
        x, clusters = clustered_sample(rng, 100)
        shared = rng.normal(size=100)[clusters] + rng.normal(size=len(clusters))
        y = rho * x + math.sqrt(1 - rho * rho) * shared
        statistic = (agreement.pearson_statistic if kind == "pearson" else agreement.spearman_statistic)(x, y)
        assert statistic is not None
        return covered(intervals.interval(statistic, clusters, scale="fisher"), truth)

    truth = rho if kind == "pearson" else 6.0 / math.pi * math.asin(rho / 2.0)
    assert BETWEEN[0] <= share_covered(experiment, 23) <= BETWEEN[1]


@pytest.mark.slow
def test_coverage_of_a_difference_of_subset_means() -> None:
    def experiment(rng: np.random.Generator) -> bool:
        values, clusters = clustered_sample(rng, 120)
        inside = (rng.random(len(values)) < 0.3).astype(float)
        gap = intervals.difference(
            intervals.ratio_statistic((values + 1.0) * inside, inside),
            intervals.ratio_statistic(values * (1.0 - inside), 1.0 - inside),
        )
        return covered(intervals.interval(gap, clusters), 1.0)

    assert BETWEEN[0] <= share_covered(experiment, 24) <= BETWEEN[1]


@pytest.mark.slow
def test_coverage_of_the_cluster_bootstrap() -> None:
    def experiment(rng: np.random.Generator) -> bool:
        values, clusters = clustered_sample(rng, 150)
        terms = np.stack([values, np.ones(len(values))], axis=1)
        found = intervals.cluster_bootstrap(terms, lambda sums: sums[:, 0] / sums[:, 1], rng, clusters, draws=400)
        return covered(found, 0.0)

    assert BETWEEN[0] <= share_covered(experiment, 25) <= BETWEEN[1]
