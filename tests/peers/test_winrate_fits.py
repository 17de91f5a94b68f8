"""Fits of win rates and gains against scikit-learn and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

from rewardlab.functional import gain, winrate
from rewardlab.functional.intervals import interval


def data(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    feature = winrate.length_feature(generator.normal(50.0, 300.0, count))
    columns = winrate.design(feature, generator.normal(size=count))
    chance = 1.0 / (1.0 + np.exp(-(columns @ np.array([-0.4, 0.8, 0.5]))))
    return columns, np.clip(chance + generator.normal(0.0, 0.2, count), 0.0, 1.0)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_fit_is_that_of_scikit_learn(penalty: float) -> None:
    """A fraction p is a win of weight p and a loss of weight 1 - p; its C is 1 / (n penalty)."""
    columns, preference = data()
    found = winrate.fit_logistic(columns, preference, penalty)
    count = len(preference)
    peer = LogisticRegression(C=1.0 / (count * penalty), tol=1e-12, max_iter=10_000)
    both = np.concatenate([columns[:, 1:], columns[:, 1:]])
    outcome = np.repeat([1, 0], count)
    peer.fit(both, outcome, sample_weight=np.concatenate([preference, 1.0 - preference]))
    assert found.tolist() == pytest.approx([*peer.intercept_, *peer.coef_[0]], abs=1e-5)


def test_the_rate_and_its_error_are_those_of_statsmodels() -> None:
    """Quasi-binomial with a sandwich; the rate's error by its delta method, and the spread of the predictions."""
    columns, preference = data()
    found = winrate.length_controlled(preference, columns, 1e-10)
    peer = sm.GLM(preference, columns, family=sm.families.Binomial()).fit(cov_type="HC0", tol=1e-12)
    level = columns.copy()
    level[:, 1] = 0.0
    predicted = peer.predict(level)
    assert found.rate.value == pytest.approx(predicted.mean(), abs=1e-7)
    slope = (level * (predicted * (1 - predicted))[:, None]).mean(axis=0)
    by_fit = slope @ peer.cov_params() @ slope
    bread = np.linalg.inv((columns * (peer.fittedvalues * (1 - peer.fittedvalues))[:, None]).T @ columns)
    scores = (columns * (preference - peer.fittedvalues)[:, None]) @ bread @ slope
    across = 2.0 * float(scores @ (predicted - predicted.mean())) / len(preference)
    whole = by_fit + predicted.var() / len(preference) + across
    correction = len(preference) / (len(preference) - 1)
    error = interval(found.rate).error
    assert error is not None
    assert error**2 == pytest.approx(whole * correction, rel=1e-4)


def test_the_decomposition_is_a_clustered_regression() -> None:
    generator = np.random.default_rng(1)
    second = np.arange(300) % 2 == 1
    tokens = generator.integers(5, 200, 300) + 20 * second
    reward = np.sqrt(tokens) + 0.4 * second + generator.normal(0.0, 0.5, 300)
    prompt = np.arange(300) // 2
    found = gain.decomposed_gain(tokens, reward, second).at_equal_length
    top = float(tokens.max())
    knots = np.unique(np.quantile(tokens, gain.KNOT_SHARES)) / top
    columns = np.column_stack([np.ones(300), second, gain.natural_spline(tokens / top, knots)])
    peer = sm.OLS(reward, columns).fit(cov_type="cluster", cov_kwds={"groups": prompt, "use_correction": False})
    assert found.value == pytest.approx(peer.params[1], abs=1e-8)
    assert interval(found, prompt).error == pytest.approx(peer.bse[1] * np.sqrt(150 / 149), rel=1e-6)
