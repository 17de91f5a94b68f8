"""Win rates at equal length against simulations with known truth, general optimisers and closed forms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binom, mannwhitneyu

from rewardlab.functional import winrate
from rewardlab.functional.intervals import interval, percentile_ends, resample

RNG = np.random.default_rng
NODES, SHARES = np.polynomial.hermite_e.hermegauss(60)


class World(NamedTuple):
    """Simulated models: quality and taste of the judge for length are set."""

    quality: tuple[float, ...]
    taste: tuple[float, ...]
    longer: tuple[float, ...]

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        difficulty = generator.normal(size=count)
        difference = np.stack([generator.normal(mean, 300.0, count) for mean in self.longer])
        feature = np.stack([winrate.length_feature(own) for own in difference])
        z = np.array(self.quality)[:, None] + np.array(self.taste)[:, None] * feature + difficulty
        return (generator.random(z.shape) < expit(z)).astype(np.float64), feature

    def truth(self) -> np.ndarray:
        """The mean of sigma(quality + difficulty) over a standard normal difficulty, by Gauss-Hermite quadrature."""
        weights = SHARES / SHARES.sum()
        return np.array([float(weights @ expit(one + NODES)) for one in self.quality])


def held(world: World, count: int, runs: int, by: winrate.By) -> np.ndarray:
    """How often the interval of each model's rate holds the truth."""
    found = np.zeros(len(world.quality))
    for run in range(runs):
        preference, feature = world.draw(count, RNG([7, run]))
        gammas = winrate.difficulties(preference, feature, by)
        for model, gamma in enumerate(gammas):
            columns = winrate.design(feature[model], gamma)
            rate = interval(winrate.length_controlled(preference[model], columns, 1e-3).rate)
            assert rate.low is not None
            assert rate.high is not None
            found[model] += rate.low <= world.truth()[model] <= rate.high
    return np.asarray(found / runs)


def test_the_length_feature_by_hand() -> None:
    # The sample standard deviation of -1, 0, 1 is 1.
    assert winrate.length_feature(np.array([-1.0, 0.0, 1.0])).tolist() == pytest.approx([-np.tanh(1), 0.0, np.tanh(1)])
    assert winrate.length_feature(np.array([5.0, 5.0])).tolist() == [0.0, 0.0]
    assert np.isnan(winrate.length_feature(np.array([1.0, np.nan, 2.0]))).tolist() == [False, True, False]


def test_a_taste_for_length_is_taken_off() -> None:
    """Twins of one quality, of which one is longer: raw they differ, at equal length they do not."""
    world = World((0.0, 0.0), (1.2, 1.2), (400.0, -400.0))
    preference, feature = world.draw(4000, RNG(0))
    raw = preference.mean(axis=1)
    assert raw[0] - raw[1] > 0.25
    gammas = winrate.difficulties(preference, feature)
    rates = [
        winrate.length_controlled(preference[model], winrate.design(feature[model], gammas[model]), 1e-4).rate.value
        for model in range(2)
    ]
    assert rates == pytest.approx([0.5, 0.5], abs=0.04)


def test_intervals_hold_the_truth_in_a_short_simulation() -> None:
    """60 runs of three models, nominally 95 %: 90 % of 180 is 3 standard errors below, were they independent."""
    world = World((-0.5, 0.0, 0.5), (0.5, 0.5, 0.5), (-100.0, 50.0, 200.0))
    assert held(world, 300, 60, "others").mean() > 0.90


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("by", "low"), [("joint", 0.935), ("others", 0.94), ("none", 0.94)])
def test_intervals_hold_the_truth_in_95_of_100_runs(by: winrate.By, low: float) -> None:
    """1,000 runs of three models: the share held has a standard error of 0.5 points or less."""
    world = World((-0.5, 0.0, 0.5), (0.5, 0.5, 0.5), (-100.0, 50.0, 200.0))
    assert low < held(world, 500, 1000, by).mean() < 0.965


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resampled_intervals_hold_the_truth() -> None:
    """100 runs of three models with 120 resamples each: the share held has a standard error of 1.3 points or more."""
    world = World((-0.5, 0.0, 0.5), (0.5, 0.5, 0.5), (-100.0, 50.0, 200.0))
    inside = []
    for run in range(100):
        preference, feature = world.draw(300, RNG([8, run]))
        drawn = winrate.resampled_rates(preference, feature, np.full(3, 1e-3), RNG([9, run]), 120, "joint")[:, :, 1]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        inside.append((low <= world.truth()) & (world.truth() <= high))
    assert 0.915 < np.mean(inside) < 0.98


def test_the_fits_are_the_minima_of_what_they_say() -> None:
    """A general optimiser on the objective as the docstring writes it, with fractions, gaps and weights."""
    generator = RNG(3)
    preference, feature = generator.random((3, 12)), generator.normal(size=(3, 12))
    preference[1, 4] = feature[1, 4] = np.nan
    weights = generator.integers(0, 3, size=12).astype(float)
    found = winrate.fit_difficulty(preference, feature, weights)

    def joint(values: np.ndarray) -> float:
        theta, phi, gamma = values[:3], values[3:6], values[6:]
        total = 0.5 * float((phi**2).sum()) + 0.5 * float(weights @ gamma**2)
        for m in range(3):
            for i in range(12):
                if not np.isnan(preference[m, i]):
                    q = expit(theta[m] + phi[m] * feature[m, i] + gamma[i])
                    p = preference[m, i]
                    total -= weights[i] * (p * np.log(q) + (1 - p) * np.log(1 - q))
        return total

    best = minimize(joint, np.zeros(18), method="BFGS", options={"gtol": 1e-8})
    assert np.concatenate([found.theta, found.phi]) == pytest.approx(best.x[:6], abs=1e-4)
    assert found.gamma[weights > 0] == pytest.approx(best.x[6:][weights > 0], abs=1e-4)
    assert float(weights @ found.gamma) == pytest.approx(0.0, abs=1e-6)
    columns = winrate.design(feature[0], found.gamma)

    def single(values: np.ndarray) -> float:
        q = expit(columns @ values)
        fit = -(preference[0] * np.log(q) + (1 - preference[0]) * np.log(1 - q)).mean()
        return float(fit) + 0.01 / 2 * float((values[1:] ** 2).sum())

    least = minimize(single, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    assert winrate.fit_logistic(columns, preference[0], 0.01) == pytest.approx(least.x, abs=1e-4)

    def of_each(values: np.ndarray) -> float:
        return single(values) + (0.3 - 0.01) / 2 * float(values[1] ** 2)

    least = minimize(of_each, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    found_each = winrate.fit_logistic(columns, preference[0], np.array([0.0, 0.3, 0.01]))
    assert found_each == pytest.approx(least.x, abs=1e-4)


def test_weights_are_copies() -> None:
    generator = RNG(4)
    columns, preference = winrate.design(generator.normal(size=30), None), generator.random(30)
    twice = np.arange(30) % 3
    repeated = np.repeat(np.arange(30), twice)
    weighted = winrate.fit_logistic(columns, preference, 0.02, twice.astype(float))
    assert winrate.fit_logistic(columns[repeated], preference[repeated], 0.02) == pytest.approx(weighted, abs=1e-8)


def test_the_influence_is_what_leaving_one_out_does() -> None:
    preference, feature = World((0.3,), (0.8,), (100.0,)).draw(300, RNG(5))
    columns = winrate.design(feature[0], None)
    rate = winrate.length_controlled(preference[0], columns, 0.01).rate
    without = [
        winrate.length_controlled(np.delete(preference[0], i), np.delete(columns, i, 0), 0.01).rate.value
        for i in range(40)
    ]
    # theta - theta_(i) is psi_i / n to first order; the next one is 1 / n^2.
    assert 300 * (rate.value - np.array(without)) == pytest.approx(rate.influence[:40], abs=0.03)
    assert float(rate.influence.mean()) == pytest.approx(0.0, abs=1e-8)


def test_the_penalty_is_small_where_difficulty_matters_and_large_where_nothing_does() -> None:
    generator = RNG(6)
    hard, length = generator.normal(size=(2, 2000))
    strong = (generator.random(2000) < expit(3.0 * hard)).astype(float)
    assert winrate.chosen_penalty(winrate.design(length, hard), strong, RNG(0)) <= 1e-3
    noise = (RNG(7).random(60) < 0.5).astype(float)
    assert winrate.chosen_penalty(winrate.design(length[:60], hard[:60]), noise, RNG(0)) >= 3e-2


def test_prompts_that_repeat_are_held_out_together() -> None:
    """Dealt by row, copies of what is held out would be learnt from: the smallest penalty would look best."""
    generator = RNG(14)
    hard, length = generator.normal(size=(2, 30))
    noise = (generator.random(30) < 0.5).astype(float)
    of = np.repeat(np.arange(30), 20)
    columns = winrate.design(length, hard)
    once = winrate.chosen_penalty(columns, noise, RNG(0))
    assert winrate.chosen_penalty(columns[of], noise[of], RNG(0), of) == once > 1e-3
    assert winrate.chosen_penalty(columns[of], noise[of], RNG(0)) < once


def test_the_ridge_on_length_vanishes_and_takes_off_nothing() -> None:
    """Answers 1 sd longer, 200 samples of 60 prompts: the mean of the rates has a standard error of .0065. With a
    penalty on phi of .03, as cross-validation took it in most of such samples, it is .04 too high."""
    assert winrate.ridge_of(60).tolist() == [0.0, 1.0 / 1500.0]
    assert winrate.ridge_of(60, 0.01).tolist() == [0.0, 1.0 / 1500.0, 0.01]
    off = []
    for run in range(200):
        generator = RNG([15, run])
        feature = winrate.length_feature(generator.normal(1.0, 1.0, 60))
        won = (generator.random(60) < expit(0.5 + feature)).astype(float)
        columns = winrate.design(feature, None)
        off.append([winrate.length_controlled(won, columns, one).rate.value for one in (winrate.ridge_of(60), 0.03)])
    weak, strong = np.mean(off, axis=0) - expit(0.5)
    assert abs(weak) < 0.02
    assert strong > 0.02


def test_logit_ends_hold_the_truth_of_a_share() -> None:
    """Their coverage is a sum of binomial probabilities, without a simulation."""
    for n, p in ((20, 0.3), (60, 0.1), (60, 0.5), (200, 0.97)):
        inside = 0.0
        for wins in range(1, n):
            share = wins / n
            low, high = winrate.logit_ends(share, float(np.sqrt(share * (1 - share) / (n - 1))), n - 1.0)
            assert 0.0 < low < share < high < 1.0
            inside += binom.pmf(wins, n, p) * (low <= p <= high)
        assert 0.94 < inside / (1.0 - binom.pmf(0, n, p) - binom.pmf(n, n, p)) < 0.99
    # Seen from the other side the interval is turned around.
    low, high = winrate.logit_ends(0.2, 0.05, 30.0)
    assert winrate.logit_ends(0.8, 0.05, 30.0) == pytest.approx((1 - high, 1 - low))
    assert winrate.logit_ends(1.0, 0.01, 30.0) == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize("by", ["joint", "others", "none"])
def test_resamples_are_plain_fits_of_what_was_drawn(by: winrate.By) -> None:
    """One by one, prompts of three rows drawn together; a model that is not to be fitted has its raw rate alone."""
    generator = RNG(16)
    of = np.arange(60) % 20
    feature = generator.normal(size=(3, 60))
    preference = (generator.random((3, 60)) < 0.5).astype(float)
    preference[1, 4] = feature[1, 4] = np.nan
    penalties = np.array([1e-3, 1e-2, np.nan])
    found = winrate.resampled_rates(preference, feature, penalties, RNG(17), 6, by, of)
    drawing = RNG(17)
    for own in found:
        weights = np.bincount(drawing.integers(0, 20, size=20), minlength=20).astype(float)[of]
        gammas = winrate.difficulties(preference[:2], feature[:2], by, weights)
        for model, gamma in enumerate(gammas):
            there = ~np.isnan(preference[model])
            each = weights[there] / weights[there].sum()
            columns = winrate.design(feature[model, there], None if gamma is None else gamma[there])
            ridge = winrate.ridge_of(20, None if gamma is None else float(penalties[model]))
            level = winrate.fit_logistic(columns, preference[model, there], ridge, weights[there])
            columns[:, 1] = 0.0
            expected = [each @ preference[model, there], each @ expit(columns @ level)]
            assert own[model] == pytest.approx(expected, abs=1e-7)
    assert np.isnan(found[:, 2, 1]).all()
    assert not np.isnan(found[:, 2, 0]).any()


def test_resamples_centre_on_the_estimate_and_spread_as_its_error() -> None:
    preference, feature = World((-0.5, 0.5), (0.6, 0.6), (0.0, 0.0)).draw(400, RNG(8))
    drawn = winrate.resampled_rates(preference, feature, np.full(2, 1e-3), RNG(9), 150)
    assert drawn[:, :, 0].mean(axis=0) == pytest.approx(preference.mean(axis=1), abs=0.01)
    errors = preference.std(axis=1, ddof=1) / np.sqrt(400)
    # 150 draws give a standard deviation to within 6 % (one standard error).
    assert drawn[:, :, 0].std(axis=0) == pytest.approx(errors, rel=0.2)
    own = interval(
        winrate.length_controlled(
            preference[0], winrate.design(feature[0], winrate.difficulties(preference, feature)[0]), 1e-3
        ).rate
    )
    assert drawn[:, 0, 1].std() == pytest.approx(own.error, rel=0.25)


def test_what_cannot_be_fitted_says_why() -> None:
    vary = np.arange(20.0)
    assert winrate.why_not_fitted(np.full(5, 0.5), vary[:5]) == winrate.TOO_FEW
    assert winrate.why_not_fitted(vary / 20, vary, np.arange(20) % 5) == winrate.TOO_FEW
    assert winrate.why_not_fitted(np.ones(20), vary) == winrate.ALL_ALIKE
    assert winrate.why_not_fitted(vary / 20, np.ones(20)) == winrate.SAME_DIFFERENCE
    assert winrate.why_not_fitted(vary / 20, vary) == ""
    assert winrate.difficulties(vary[None] / 20, vary[None]) == [None]


# --- rankings ------------------------------------------------------------------------------------------------------


def test_strengths_of_two_models_are_a_log_odds() -> None:
    strengths = winrate.bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]))
    assert strengths.tolist() == pytest.approx([np.log(3) / 2, -np.log(3) / 2])


def test_strengths_are_those_that_zermelo_iterates_to() -> None:
    wins = RNG(10).integers(1, 40, size=(5, 5)).astype(float)
    np.fill_diagonal(wins, 0.0)
    power = np.ones(5)
    for _ in range(5000):
        games = (wins + wins.T) / (power[:, None] + power)
        power = wins.sum(axis=1) / games.sum(axis=1)
        power /= np.exp(np.log(power).mean())
    assert winrate.bradley_terry(wins) == pytest.approx(np.log(power), abs=1e-8)
    # Any number of matrices at once, and a judge who turns everything around turns the ranking around.
    both = winrate.bradley_terry(np.stack([wins, wins.T]))
    assert both[0] == pytest.approx(-both[1], abs=1e-8)


def test_a_model_that_never_loses_has_no_finite_strength() -> None:
    wins = np.array([[0.0, 5.0, 5.0], [0.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    assert not winrate.is_connected(wins)
    assert np.isnan(winrate.bradley_terry(wins)).all()
    wins[2, 0] = 0.5
    assert np.isfinite(winrate.bradley_terry(wins)).all()


def test_strengths_are_those_of_a_logistic_regression() -> None:
    """A general optimiser on the log-likelihood, comparison by comparison, with ties as half a win of either."""
    generator = RNG(11)
    pairs = generator.integers(0, 4, size=(200, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    outcome = generator.choice([0.0, 0.5, 1.0], size=len(pairs), p=[0.3, 0.2, 0.5])
    wins = np.zeros((4, 4))
    np.add.at(wins, (pairs[:, 0], pairs[:, 1]), outcome)
    np.add.at(wins, (pairs[:, 1], pairs[:, 0]), 1.0 - outcome)

    def loss(free: np.ndarray) -> float:
        strength = np.array([*free, -free.sum()])
        q = expit(strength[pairs[:, 0]] - strength[pairs[:, 1]])
        return -float((outcome * np.log(q) + (1.0 - outcome) * np.log(1.0 - q)).sum())

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x
    assert winrate.bradley_terry(wins) == pytest.approx([*best, -best.sum()], abs=1e-5)


def test_intervals_of_strengths_hold_the_truth() -> None:
    """100 samples of 60 prompts, four models, nominally 95 %: the standard error of the share held is 2.2 points, were
    it of one strength alone; 89 % is three of them below, with one more for so few prompts."""
    truth = np.array([-0.6, -0.1, 0.2, 0.5])
    first, second = np.triu_indices(4, 1)
    held = []
    for run in range(100):
        generator = RNG([12, run])
        won = generator.random((60, 6)) < expit(truth[first] - truth[second])
        wins = np.zeros((60, 4, 4))
        wins[:, first, second], wins[:, second, first] = won, ~won
        drawn = resample(
            wins.reshape(60, -1), lambda sums: winrate.bradley_terry(sums.reshape(-1, 4, 4)), generator, None, 150
        )
        low, high = percentile_ends(drawn)
        held.append((low <= truth) & (truth <= high))
    assert 0.87 < np.mean(held) < 0.99


def test_who_has_no_finite_strength() -> None:
    wins = np.array([[0.0, 5.0, 5.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    found = winrate.standing(wins)
    assert (found.unbeaten, found.winless, found.met) == ((0,), (3,), True)
    assert sorted(found.groups) == [(0,), (1, 2), (3,)]
    # Two pairs of models that never met.
    apart = np.kron(np.eye(2), np.array([[0.0, 2.0], [1.0, 0.0]]))
    assert (winrate.standing(apart).met, sorted(winrate.standing(apart).groups)) == (False, [(0, 1), (2, 3)])
    assert len(winrate.standing(wins + wins.T).groups) == 1


def test_a_tie_each_makes_strengths_finite() -> None:
    wins = np.array([[0.0, 5.0], [0.0, 0.0]])
    # 5.5 wins to .5: the log-odds are log 11.
    strengths = winrate.bradley_terry(wins + winrate.one_tie_each(wins))
    assert strengths.tolist() == pytest.approx([np.log(11) / 2, -np.log(11) / 2])
    # Those who never met stay so.
    assert winrate.one_tie_each(np.diag([2.0], 1) * 0.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_preference_of_scores_is_mann_and_whitneys_share() -> None:
    generator = RNG(13)
    first, second = generator.integers(0, 5, 7).astype(float), generator.integers(0, 5, 4).astype(float)
    share = mannwhitneyu(first, second).statistic / 28
    assert winrate.preference_of_scores(first, second) == pytest.approx(share)
    assert winrate.preference_of_scores(np.append(first, np.nan), second) == pytest.approx(share)
    assert np.isnan(winrate.preference_of_scores(np.array([np.nan]), second))


def test_disagreement_by_hand() -> None:
    nan = np.nan
    # Two judges who say the opposite, agree, and agree on a tie: one duel of three.
    assert winrate.disagreement(np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.5]])) == pytest.approx(1 / 3)
    # Three judges, one against two: 4 (1/3)(2/3); where one alone has a preference there is nothing to compare.
    assert winrate.disagreement(np.array([[1.0, nan], [1.0, 1.0], [0.0, nan]])) == pytest.approx(8 / 9)
    assert np.isnan(winrate.disagreement(np.array([[1.0, nan], [nan, 1.0]])))
