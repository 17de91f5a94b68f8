"""Do the probabilities that a reward model implies match how often it is right?

Conventions
    delta        chosen minus rejected reward; sigma(delta) is the implied probability of the chosen side
    confidence   max(sigma(delta), 1 - sigma(delta)): the implied probability of the side with the higher reward
    outcome      what happened, in [0, 1]: correctness, or which side was preferred; 1/2 where rewards tie
    bins         of equal mass: a value's bin is its mid-rank's. Equal values share a bin, whatever the order of the
                 input, so bins differ in size only where values tie

References
    [1] Naeini, Cooper and Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning (ECE);
        equal-mass bins: Nixon et al. 2019, Measuring calibration in deep learning, section 3.3.
    [2] Cox 1958, Two further applications of a model for binary regression (the calibration slope).
    [3] White 1982, Maximum likelihood estimation of misspecified models (influence of the slope).
    [4] Brocker and Smith 2007, Increasing the reliability of reliability diagrams (what chance alone would give).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata

from rewardlab.functional.intervals import Clusters, Interval, Statistic, Sums, cluster_bootstrap

BINS = 10


class ReliabilityBin(NamedTuple):
    """One point of a reliability curve.

    Attributes:
        members: indices of the observations in the bin.
        predicted: mean predicted probability in the bin.
        observed: mean outcome in the bin.
    """

    members: Int[np.ndarray, " members"]
    predicted: float
    observed: float


def equal_mass_bins(values: Float[np.ndarray, " n"], bins: int = BINS) -> Int[np.ndarray, " n"]:
    """Bin 0 .. bins - 1 of every value: floor(bins (midrank - 1/2) / n). Source: [1]."""
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    # The mid-rank of the largest value is at most n, so the quotient stays below `bins`.
    return np.floor(bins * (rankdata(values) - 0.5) / len(values)).astype(np.int64)


def reliability_curve(
    predicted: Float[np.ndarray, " n"], outcome: Float[np.ndarray, " n"], bins: int = BINS
) -> list[ReliabilityBin]:
    """Mean prediction against mean outcome in bins of equal mass, empty ones left out. Source: [1]."""
    index = equal_mass_bins(predicted, bins)
    members = [np.flatnonzero(index == number) for number in np.unique(index)]
    return [ReliabilityBin(rows, float(predicted[rows].mean()), float(outcome[rows].mean())) for rows in members]


def both_orders(
    delta: Float[np.ndarray, " pairs"],
) -> tuple[Float[np.ndarray, " two_pairs"], Float[np.ndarray, " two_pairs"]]:
    """Every pair in both orders: sigma(delta) with outcome 1, then sigma(-delta) with outcome 0.

    In the order chosen-rejected every outcome is 1 and there is nothing to compare with; both orders together are
    what a coin flip per pair shows on average.

    Returns:
        Predicted probabilities and outcomes, pair i at i and at pairs + i.

    Source: Bradley and Terry 1952: P(a beats b) = sigma(r_a - r_b) in either order.
    """
    return expit(np.concatenate([delta, -delta])), np.concatenate([np.ones_like(delta), np.zeros_like(delta)])


def confidence(delta: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """max(sigma(delta), 1 - sigma(delta)) = sigma(|delta|), in [1/2, 1]. Source: Bradley and Terry 1952."""
    return np.asarray(expit(np.abs(delta)))


def calibration_error(predicted: Float[np.ndarray, " n"], outcome: Float[np.ndarray, " n"], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of n_b / n * |mean outcome - mean prediction|. Needs n >= 1.

    Noise alone makes it positive, more so with few observations: compare with `chance_calibration_error`.

    Source: [1].
    """
    return float(np.abs(_gap_terms(predicted, outcome, bins).sum(axis=0)).sum() / len(predicted))


def calibration_error_interval(
    predicted: Float[np.ndarray, " n"],
    outcome: Float[np.ndarray, " n"],
    generator: Generator,
    clusters: Clusters = None,
    level: float = 0.95,
    bins: int = BINS,
    draws: int = 1000,
) -> Interval:
    """Calibration error with a cluster bootstrap interval that also holds near 0; never narrower than it should be.

    With g_b the gap of bin b as a share of all observations, the error is sum |g_b|. Resampled errors are pushed up
    by noise twice, so their lower quantile lies above a small true error. The lower end comes from the triangle
    inequality instead, |sum |g_b| - sum |g*_b|| <= sum |g_b - g*_b|: the estimate minus the upper quantile of the
    right side. The upper end is the upper quantile of the resampled error, too high rather than too low.

    Source: cluster bootstrap as in `intervals.cluster_bootstrap`; the lower end is ours, its coverage is simulated in
    the tests.
    """
    # A resample of clusters of different sizes has its own number of observations: summed beside the gaps.
    terms = np.column_stack([_gap_terms(predicted, outcome, bins), np.ones(len(predicted))])

    def gaps(sums: Sums) -> Float[np.ndarray, "draws bins"]:
        return np.asarray(sums[:, :-1] / sums[:, -1:])

    def ends(resampled: Sums) -> tuple[float, float]:
        observed, drawn = gaps(terms.sum(axis=0)[None, :]), gaps(resampled)
        distance, errors = np.abs(drawn - observed).sum(axis=1), np.abs(drawn).sum(axis=1)
        upper = 0.5 + level / 2.0
        low = float(np.abs(observed).sum() - np.quantile(distance, upper))
        return max(low, 0.0), float(np.quantile(errors, upper))

    def error(sums: Sums) -> Float[np.ndarray, " draws"]:
        return np.asarray(np.abs(gaps(sums)).sum(axis=1))

    return cluster_bootstrap(terms, error, generator, clusters, level, draws, ends)


def chance_calibration_error(
    predicted: Float[np.ndarray, " n"], generator: Generator, bins: int = BINS, draws: int = 200
) -> float:
    """Mean calibration error that a perfectly calibrated model with these predictions would show.

    Outcomes are drawn independently from the predictions themselves. Needs n >= 1.

    Source: [4].
    """
    index = equal_mass_bins(predicted, bins)
    errors = []
    for _ in range(draws):
        gaps = (generator.random(len(predicted)) < predicted) - predicted
        errors.append(np.abs(np.bincount(index, weights=gaps)).sum() / len(predicted))
    return float(np.mean(errors))


def slope_statistic(delta: Float[np.ndarray, " pairs"]) -> Statistic | None:
    """Calibration slope: the b that maximises mean log sigma(b delta), with its influence values.

    1 is calibrated, below 1 overconfident, 0 no information; 1 / b is the best temperature. psi = s / mean(h) with
    score s = sigma(-b delta) delta and curvature h = sigma(b delta) sigma(-b delta) delta^2.

    None where no finite b is best: the pairs are all ordered rightly, all wrongly, or all tied.

    Source: [2], [3].
    """
    if not (delta.max(initial=0.0) > 0.0 > delta.min(initial=0.0)):
        return None

    def gradient(slope: float) -> float:
        return float((expit(-slope * delta) * delta).mean())

    # The gradient falls from mean(max(delta, 0)) > 0 to mean(min(delta, 0)) < 0: a bracket exists.
    reach = 1.0 / float(np.abs(delta).max())
    while gradient(reach) > 0.0 or gradient(-reach) < 0.0:
        reach *= 2.0
    slope = float(brentq(gradient, -reach, reach, xtol=1e-12, rtol=1e-12))
    right = expit(slope * delta)
    curvature = float((right * (1.0 - right) * np.square(delta)).mean())
    return Statistic(slope, (1.0 - right) * delta / curvature)


def _gap_terms(
    predicted: Float[np.ndarray, " n"], outcome: Float[np.ndarray, " n"], bins: int
) -> Float[np.ndarray, "n bins"]:
    """Outcome minus prediction of every observation, in the column of its bin."""
    terms = np.zeros((len(predicted), bins))
    terms[np.arange(len(predicted)), equal_mass_bins(predicted, bins)] = outcome - predicted
    return terms
