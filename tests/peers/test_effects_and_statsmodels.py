"""Effects of rewrites against the regressions of statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.functional import effects, rewriters
from rewardlab.functional.effects import Rewards

sm = pytest.importorskip("statsmodels.api")

pytestmark = pytest.mark.peers


def sample(seed: int) -> Rewards:
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 40, size=150)
    base = rng.normal(size=150) + rng.normal(size=40)[clusters]
    columns = [base + 0.4 * rng.normal(size=150) + shift for shift in (0.0, -0.3, 0.2)]
    return Rewards(rng.random(150) < 0.35, *columns, clusters=clusters)


@pytest.mark.parametrize("target", ["ATT", "ATU", "ATE", "balanced"])
@pytest.mark.parametrize("estimator", ["single", "double"])
def test_clustered_effects_are_those_of_a_regression_on_both_groups(
    estimator: effects.Estimator, target: effects.Target
) -> None:
    rewards = sample(1)
    d, w = effects.signed_differences(rewards, estimator), rewards.treated
    n, share = len(d), w.mean()
    weights = {"ATT": [1, 0], "ATU": [0, 1], "ATE": [share, 1 - share], "balanced": [0.5, 0.5]}[target]
    kept = np.where(w, weights[0], weights[1]) != 0
    design = np.stack([w, ~w], axis=1).astype(float)[kept]
    design, contrast = design[:, np.array(weights) != 0], np.array([x for x in weights if x])
    groups = rewards.clusters[kept]
    fitted = sm.OLS(d[kept], design).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    test = fitted.t_test(contrast[None, :])
    # statsmodels multiplies the variance by (n - 1) / (n - k) on top of G / (G - 1).
    rows, columns = design.shape
    factor = math.sqrt((rows - 1) / (rows - columns))
    found = effects.effect(rewards, estimator, target)
    assert found.value == pytest.approx(float(test.effect.item()), rel=1e-10)
    assert found.error == pytest.approx(float(test.sd.item()) / factor, rel=1e-10)
    assert found.freedom == len(set(groups.tolist())) - 1
    assert n == 150
    if columns == 1:
        assert found.p == pytest.approx(float(test.pvalue), rel=1e-10)
        low, high = test.conf_int()[0]
        assert (found.low, found.high) == (pytest.approx(low, rel=1e-10), pytest.approx(high, rel=1e-10))


def test_clustered_naive_effect_is_the_slope_of_a_regression() -> None:
    rewards = sample(2)
    design = sm.add_constant(rewards.treated.astype(float))
    fitted = sm.OLS(rewards.original, design).fit(cov_type="cluster", cov_kwds={"groups": rewards.clusters}, use_t=True)
    found = effects.naive_effect(rewards)
    assert found.value == pytest.approx(fitted.params[1], rel=1e-10)
    assert found.error == pytest.approx(fitted.bse[1] / math.sqrt(149 / 148), rel=1e-10)


@pytest.mark.parametrize("target", ["ATT", "ATE"])
def test_the_difference_of_two_rewriters_is_a_regression_of_paired_differences(target: effects.Target) -> None:
    first, second = sample(3), sample(3)
    second = second._replace(rerewrite=second.rerewrite + 0.3 * np.random.default_rng(4).normal(size=150))
    w = first.treated
    apart = effects.signed_differences(first, "double") - effects.signed_differences(second, "double")
    kept = w if target == "ATT" else np.ones(150, bool)
    design = np.stack([w, ~w], axis=1).astype(float)[kept][:, : 1 if target == "ATT" else 2]
    groups = first.clusters[kept]
    fitted = sm.OLS(apart[kept], design).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    weights = np.array([[1.0]]) if target == "ATT" else np.array([[w.mean(), 1.0 - w.mean()]])
    test = fitted.t_test(weights)
    factor = math.sqrt((len(design) - 1) / (len(design) - design.shape[1]))
    found = rewriters.difference(first, second, target=target)
    assert found.value == pytest.approx(float(test.effect.item()), rel=1e-10)
    assert found.error == pytest.approx(float(test.sd.item()) / factor, rel=1e-10)


@pytest.mark.parametrize("estimator", ["single", "double"])
def test_clustered_population_effect_is_the_constant_of_a_regression(estimator: effects.Estimator) -> None:
    rewards = sample(3)
    d = effects.signed_differences(rewards, estimator)
    fitted = sm.OLS(d, np.ones((150, 1))).fit(cov_type="cluster", cov_kwds={"groups": rewards.clusters}, use_t=True)
    found = effects.population_effect(rewards, estimator)
    assert [found.value, found.error, found.p] == pytest.approx(
        [fitted.params[0], fitted.bse[0], fitted.pvalues[0]], rel=1e-10
    )
    assert [found.low, found.high] == pytest.approx(fitted.conf_int()[0], rel=1e-10)
