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
    monkeypatch.setattr(intervals, "_CELLS", 50 * 10)
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


# --- resamples ------------------------------------------------------------------------------------------------


def agrees(observed: np.ndarray, probabilities: np.ndarray) -> bool:
    """Chi-square test of counts of outcomes; outcomes that are hardly expected are put together. Seeds are fixed."""
    expected = probabilities * observed.sum()
    rare = expected < 10
    observed, expected = (np.append(x[~rare], x[rare].sum()) for x in (observed.astype(float), expected))
    # Without expectation there must be none.
    kept = expected > 1e-9 * expected.sum()
    assert observed[~kept].sum() == 0
    # Probabilities sum to 1 but for rounding, which scipy refuses.
    return bool(stats.chisquare(observed[kept], expected[kept] * (observed.sum() / expected[kept].sum())).pvalue > 1e-3)


def occupancy(n: int) -> np.ndarray:
    """P(n draws from n clusters meet k different ones), k = 0 to n: one draw after another."""
    chances = np.zeros(n + 1)
    chances[0] = 1.0
    for _ in range(n):
        met = np.arange(n + 1)
        chances = chances * met / n + np.append(0.0, (chances * (n - met) / n)[:-1])
    return chances


def resampled_counts(groups: int, draws: int, seed: int) -> np.ndarray:
    """How often every resample takes every cluster: sums of the rows of the identity."""
    return intervals._resampled_sums(np.eye(groups), draws, RNG(seed))


@pytest.mark.parametrize("groups", [2, 3])
def test_resamples_of_few_clusters_have_multinomial_probabilities(groups: int) -> None:
    counts = resampled_counts(groups, 20_000, 60)
    outcomes = [np.array(one) for one in np.ndindex(*[groups + 1] * groups) if sum(one) == groups]
    observed = np.array([(counts == one).all(axis=1).sum() for one in outcomes])
    assert observed.sum() == 20_000
    assert agrees(observed, stats.multinomial.pmf(outcomes, groups, [1 / groups] * groups))


def assert_multinomial(counts: np.ndarray) -> None:
    """Totals, every cluster's binomial, the covariance, and how many different clusters a resample has (exact laws)."""
    draws, groups = counts.shape
    assert (counts.sum(axis=1) == groups).all()
    assert (counts == np.floor(counts)).all()
    binomial = stats.binom.pmf(np.arange(groups + 1), groups, 1 / groups)
    for cluster in {0, groups // 2, groups - 1}:
        assert agrees(np.bincount(counts[:, cluster].astype(int), minlength=groups + 1), binomial)
    assert agrees(np.bincount((counts > 0).sum(axis=1), minlength=groups + 1), occupancy(groups))
    # Cov of two counts is -1 / G: with (1 - 1/G) on the diagonal; its standard error is about 1 / sqrt(draws).
    expected = np.eye(groups) - 1.0 / groups
    assert np.abs(np.cov(counts.T) - expected).max() < 6 / math.sqrt(draws)


# At 25 clusters all are drawn one by one, from 26 on some as Poisson counts.
@pytest.mark.parametrize("groups", [2, 3, 25, 26, 40, 150])
def test_resamples_are_multinomial(groups: int) -> None:
    assert_multinomial(resampled_counts(groups, 20_000, 61))


def test_resamples_stay_multinomial_where_many_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    # A mean of 1 - 0.2 / sqrt(30): two in five totals exceed 30.
    monkeypatch.setattr(intervals, "_MARGIN", 0.2)
    assert_multinomial(resampled_counts(30, 20_000, 62))


def test_resamples_in_blocks_of_clusters_are_multinomial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_BLOCK", 11)
    monkeypatch.setattr(intervals, "_CELLS", 100)
    assert_multinomial(resampled_counts(60, 20_000, 63))


@pytest.mark.parametrize("groups", [3, 26, 200])
def test_a_resampled_statistic_is_distributed_as_numpys_multinomial_resamples(groups: int) -> None:
    terms = np.stack([RNG(64).exponential(size=groups), RNG(65).uniform(0.5, 2.0, size=groups)], axis=1)
    drawn = intervals._resampled_sums(terms, 8000, RNG(66))
    numpys = RNG(67).multinomial(groups, [1 / groups] * groups, size=8000) @ terms
    # Rounding would tell apart what are ties of few clusters.
    first, second = (np.round(sums[:, 0] / sums[:, 1], 9) for sums in (drawn, numpys))
    assert stats.ks_2samp(first, second).pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.995])
def test_counts_are_the_inverse_of_poissons_distribution_function(mean: float) -> None:
    numbers = np.append(RNG(68).integers(0, 2**32, size=50_000, dtype=np.uint32), np.array([0, 2**32 - 1], np.uint32))
    found = intervals._poisson_counts(intervals._poisson_bounds(mean), numbers)
    assert found.tolist() == stats.poisson.ppf((numbers.astype(float) + 0.5) / 2.0**32, mean).astype(int).tolist()


@pytest.mark.parametrize("groups", [3, 9, 11])
def test_sign_flips_give_the_share_of_all_flips(groups: int) -> None:
    values = RNG(69).normal(0.4, 1.0, size=(groups, 2))
    signs = np.array(list(np.ndindex(*[2] * groups))) * 2.0 - 1.0
    exact = (np.abs(signs @ values) >= np.abs(values.sum(axis=0)) * (1 - 1e-12)).mean(axis=0)
    found = intervals.sign_flip_p(values, RNG(70), draws=40_000)
    # Four standard errors of a share of 40,000 are 0.01 at most.
    assert found == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("value", [0.5, 0.1])
def test_bca_of_a_statistic_without_spread_is_that_number(value: float) -> None:
    terms = np.stack([np.full(30, value), np.ones(30)], axis=1)
    found = intervals.resample(terms, lambda sums: sums[:, :1] / sums[:, 1:], RNG(71), draws=200)
    assert intervals.bca_ends(found)[:, 0] == pytest.approx([value, value], rel=1e-12)


def test_the_jackknife_leaves_out_clusters_that_a_statistic_cannot_do_without() -> None:
    # The mean over the rows with weight 1; the last cluster alone holds weight for the second statistic.
    values, only = RNG(72).exponential(size=12), np.append(np.zeros(11), 1.0)

    def statistic(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([sums[:, 0] / sums[:, 1], sums[:, 1] / sums[:, 2] * 0.0 + sums[:, 0]], axis=1)

    found = intervals.resample(np.stack([values, np.ones(12), only], axis=1), statistic, RNG(73), draws=300)
    assert np.isnan(found.draws[:, 1]).mean() == pytest.approx((11 / 12) ** 12, abs=0.1)
    rest = values[:11] - values[:11].mean()
    # Leaving one out moves a sum by its value.
    expected = (rest**3).mean() / (6 * math.sqrt(11) * (rest**2).mean() ** 1.5)
    assert found.acceleration[1] == pytest.approx(expected, rel=1e-9)
    assert np.isfinite(intervals.bca_ends(found)).all()


def test_bca_past_the_pole_of_its_formula_takes_the_outermost_draw() -> None:
    draws = np.arange(1000.0)[:, None]
    found = intervals.Resampled(np.array([998.5]), draws, np.array([1 / 6]), 50, 50)
    low, high = intervals.bca_ends(found, level=0.9999)[:, 0]
    assert low < high == 999.0


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


def test_draws_equal_to_the_value_count_half_for_bca() -> None:
    """One draw below, one above and three ties: half of all lie below, so nothing is corrected."""
    draws = np.array([-1.0, 0.0, 0.0, 0.0, 1.0])[:, None]
    found = intervals.Resampled(np.array([0.0]), draws, np.zeros(1), 5, 5)
    assert intervals.bca_ends(found, 0.5) == pytest.approx(intervals.percentile_ends(found, 0.5))
    off_centre = found._replace(values=np.array([0.5]))
    assert intervals.bca_ends(off_centre, 0.5)[0, 0] > intervals.percentile_ends(found, 0.5)[0, 0]


def test_intervals_of_crossed_data_and_seeds_hold_the_truth() -> None:
    """Difference of two arms of 4 seeds on the same 60 pairs, both with effects of their own; the truth is .3.

    1,000 simulations: 95 % within 2.1 points (three standard errors). Without the seeds the interval holds far less.
    """
    generator = np.random.default_rng(8)
    held, without = 0, 0
    for _ in range(1000):
        shared = generator.normal(size=60)
        arms = [
            centre + shared + generator.normal(size=(4, 1)) * 0.3 + generator.normal(size=(4, 60))
            for centre in (0.0, 0.3)
        ]
        found = intervals.mean(arms[1].mean(axis=0) - arms[0].mean(axis=0))
        parts = [(float(arm.mean(axis=1).var(ddof=1)) / 4, 3.0) for arm in arms]
        wide = intervals.widened(found, parts)
        assert found.low is not None
        assert found.high is not None
        assert wide.low is not None
        assert wide.high is not None
        held += wide.low < 0.3 < wide.high
        without += found.low < 0.3 < found.high
    assert 0.929 < held / 1000 < 0.985
    assert without / 1000 < 0.8


def test_sources_of_no_variance_change_nothing() -> None:
    found = intervals.mean(np.arange(5.0))
    assert intervals.widened(found, [(0.0, 3.0), (1.0, 0.0)]) == found


def test_a_mean_over_trainings_on_the_same_observations_holds_the_truth() -> None:
    """4 trainings measured on the same 60 prompts, with effects of both and of what they do together; the truth is .3.

    1,000 simulations: at least 95 %, within 2.1 points (three standard errors), as the bound is on the safe side.
    Prompts alone hold far less.
    """
    generator = np.random.default_rng(9)
    held, without = 0, 0
    for _ in range(1000):
        measured = (
            generator.normal(size=60) * 0.5 + generator.normal(size=(4, 1)) * 0.3 + generator.normal(size=(4, 60))
        )
        found = intervals.over_trainings([intervals.mean(0.3 + one) for one in measured])
        prompts = intervals.mean(0.3 + measured.mean(axis=0))
        assert found.low is not None
        assert found.high is not None
        assert prompts.low is not None
        assert prompts.high is not None
        held += found.low < 0.3 < found.high
        without += prompts.low < 0.3 < prompts.high
    assert held / 1000 > 0.929
    assert without / 1000 < 0.8


def test_trainings_that_agree_have_the_interval_of_one() -> None:
    one = intervals.mean(np.arange(5.0))
    same = intervals.over_trainings([one, one, one])
    assert (same.value, same.error, same.freedom) == pytest.approx((one.value, one.error, one.freedom))
    assert (same.low, same.high) == pytest.approx((one.low, one.high))
    assert intervals.over_trainings([one]) == one


def test_trainings_that_differ_without_errors_of_their_own_have_students_interval() -> None:
    found = intervals.over_trainings([intervals.Interval(value, clusters=9) for value in (1.0, 2.0, 4.0)])
    assert (found.low, found.high) == pytest.approx(intervals.mean(np.array([1.0, 2.0, 4.0]))[1:3])
    nothing = intervals.Interval(None, reason="nothing")
    assert intervals.over_trainings([intervals.Interval(1.0), nothing]) == nothing
