"""Our statistics against statsmodels, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats
from scipy.sparse import csr_array
from sklearn.calibration import calibration_curve
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from rewardlab.evaluate.baselines import RAREST, RIDGE, BagOfWords
from rewardlab.functional import agreement, calibration, intervals
from rewardlab.functional.accuracy import credit
from rewardlab.functional.linear import fit_bradley_terry
from rewardlab.functional.preference import bradley_terry, regression
from rewardlab.records import Pair, Prompt

LEVEL = 0.9


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def clustered(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values with a random effect of their cluster, clusters of unequal size."""
    clusters = np.repeat(np.arange(40), generator.integers(1, 9, 40))
    return generator.normal(size=40)[clusters] + generator.normal(size=len(clusters)), clusters


def ends(found: intervals.Interval) -> list[float | None]:
    return [found.low, found.high]


def test_clustered_interval_is_that_of_an_intercept_with_clustered_errors(clustered):
    values, clusters = clustered
    peer = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    found = intervals.mean(values, clusters, LEVEL)
    assert found.value == pytest.approx(peer.params[0], rel=1e-12)
    assert ends(found) == pytest.approx(peer.conf_int(1 - LEVEL)[0].tolist(), rel=1e-10)


def test_interval_without_clusters_is_students(generator):
    values = generator.normal(size=23)
    found = intervals.mean(values, level=LEVEL)
    assert ends(found) == pytest.approx(DescrStatsW(values).tconfint_mean(1 - LEVEL), rel=1e-10)
    assert ends(found) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(LEVEL), rel=1e-10)


def test_paired_difference_is_the_paired_t_test(generator):
    first, second = generator.normal(size=(2, 31))
    expected = stats.ttest_rel(first, second).confidence_interval(LEVEL)
    assert ends(intervals.paired_difference(first, second, level=LEVEL)) == pytest.approx(expected, rel=1e-10)


def test_difference_of_subset_means_is_the_slope_of_an_indicator(clustered, generator):
    values, clusters = clustered
    inside = (generator.random(len(values)) < 0.4).astype(float)
    means = [intervals.ratio_statistic(values * weight, weight) for weight in (inside, 1 - inside)]
    found = intervals.interval(intervals.difference(*means), clusters, LEVEL)
    options = {"groups": clusters, "use_correction": False}
    peer = sm.OLS(values, sm.add_constant(inside)).fit(cov_type="cluster", cov_kwds=options, use_t=True)
    # Theirs corrects for the second coefficient too; ours is G / (G - 1) for every statistic.
    count = len(set(clusters))
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * peer.bse[1] * np.sqrt(count / (count - 1))
    assert ends(found) == pytest.approx([peer.params[1] - half, peer.params[1] + half], rel=1e-9)


def test_all_right_gives_the_exact_binomial_bound():
    found = intervals.proportion(np.ones(17), level=LEVEL)
    assert ends(found) == pytest.approx(proportion_confint(17, 17, 1 - LEVEL, method="beta"), rel=1e-10)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (agreement.pearson, stats.pearsonr),
        (agreement.spearman, stats.spearmanr),
        (agreement.kendall_along, stats.kendalltau),
    ],
)
def test_correlations(generator, ours, theirs, ties):
    x, y = generator.normal(size=(2, 60))
    y += x
    if ties:
        x, y = np.round(x), np.round(y)
    assert ours(x, y) == pytest.approx(theirs(x, y).statistic, abs=1e-12)


def test_accuracy_over_all_pairs_is_the_area_under_the_curve(generator):
    good, bad = generator.integers(0, 9, 30) + 2.0, generator.integers(0, 9, 40) + 0.0
    found = credit(np.repeat(good, 40), np.tile(bad, 30)).mean()
    assert found == pytest.approx(roc_auc_score([1] * 30 + [0] * 40, np.concatenate([good, bad])), abs=1e-12)


def test_losses(generator):
    chosen, rejected = torch.tensor(generator.normal(size=(2, 50)))
    probabilities = torch.sigmoid(chosen - rejected).numpy()
    expected = log_loss(np.ones(50), probabilities, labels=[0, 1])
    assert bradley_terry(chosen, rejected).mean().item() == pytest.approx(expected, rel=1e-10)
    assert regression(chosen, rejected).mean().item() == pytest.approx(sm.tools.eval_measures.mse(chosen, rejected))


def test_reliability_curve(generator):
    predicted = generator.random(500)
    outcome = (generator.random(500) < predicted**2).astype(float)
    observed, mean = calibration_curve(outcome, predicted, n_bins=10, strategy="quantile")
    curve = calibration.reliability_curve(predicted, outcome)
    assert [point.observed for point in curve] == pytest.approx(observed.tolist(), abs=1e-12)
    assert [point.predicted for point in curve] == pytest.approx(mean.tolist(), abs=1e-12)
    error = np.abs(observed - mean).mean()  # ten bins of fifty
    assert calibration.calibration_error(predicted, outcome) == pytest.approx(error, abs=1e-12)


def test_calibration_slope_is_a_logit_without_intercept(clustered, generator):
    noise, clusters = clustered
    delta = generator.normal(size=len(noise)) + 0.4
    # The likelihood of a pair does not change when both its sides and its outcome are turned around.
    side = generator.choice([-1.0, 1.0], len(delta))
    options = {"groups": clusters, "use_correction": False}
    model = sm.Logit((side > 0).astype(float), (side * delta)[:, None])
    peer = model.fit(disp=False, tol=1e-12, cov_type="cluster", cov_kwds=options)
    statistic = calibration.slope_statistic(delta)
    assert statistic is not None
    assert statistic.value == pytest.approx(peer.params[0], rel=1e-6)
    count = len(set(clusters))
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * peer.bse[0] * np.sqrt(count / (count - 1))
    found = intervals.interval(statistic, clusters, LEVEL)
    assert ends(found) == pytest.approx([peer.params[0] - half, peer.params[0] + half], rel=1e-6)


def logistic_regression(differences, penalty: float) -> np.ndarray:
    """Weights of scikit-learn's ridge logistic regression on pairs in both orders."""
    both = np.concatenate([differences, -differences])
    count = len(differences)
    # Theirs is the sum of losses over both orders plus |w|^2 / (2 C).
    model = LogisticRegression(C=1 / (2 * count * penalty), fit_intercept=False, tol=1e-10, max_iter=10_000)
    return model.fit(both, [1] * count + [0] * count).coef_[0]


def test_linear_bradley_terry(generator):
    differences = generator.normal(size=(80, 6))
    found = fit_bradley_terry(csr_array(differences), 0.05)
    assert found == pytest.approx(logistic_regression(differences, 0.05), abs=1e-5)


def test_bag_of_words():
    words = ["the", "a", "good", "bad", "answer's", "helpful", ",", ".", "I", "don't", "know", "sure", "yes", "no"]
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(words, generator.integers(3, 12))) for _ in range(120)]
    pairs = [Pair(Prompt.of_text("?"), *texts[i : i + 2]) for i in range(0, 120, 2)]
    counter = CountVectorizer(token_pattern=r"\w+(?:'\w+)*|[^\w\s]|\n+", min_df=RAREST)
    counts = counter.fit_transform(texts).toarray()
    expected = logistic_regression((counts[::2] - counts[1::2]).astype(float), RIDGE)
    found = BagOfWords.fit(pairs)
    assert found is not None
    weights = [found.weights[found.vocabulary[word]] for word in counter.get_feature_names_out()]
    assert weights == pytest.approx(expected.tolist(), abs=1e-4)
    assert set(found.vocabulary) == set(counter.get_feature_names_out())
