"""Confidence intervals for statistics of observations that come in clusters.

Conventions
    n, G       number of observations and of clusters; observations of one cluster (prompt, conversation root) may
               depend on each other, clusters may not
    theta      the statistic; psi_i is the influence of observation i on it: to first order the estimate is
               theta + mean(psi), and psi sums to 0 over the sample
    level      coverage of the interval, e.g. 0.95
    degrees of freedom are G - 1, and sample standard deviations use n - 1

    The standard error is CR1: se^2 = G / (G - 1) * sum over clusters of (sum of psi in the cluster)^2 / n^2. Where
    every observation is its own cluster and theta is a mean, that is s^2 / n, and the interval is Student's.

    A statistic is a pair (value, influence). Sums and differences of statistics on the same observations are
    statistics, so a paired difference of any two measures has an interval too.

References
    [1] Liang and Zeger 1986, Longitudinal data analysis using generalized linear models (the cluster sandwich).
    [2] Cameron and Miller 2015, A practitioner's guide to cluster-robust inference, sections II.B and VI.
    [3] Hampel 1974, The influence curve and its role in robust estimation.
    [4] Clopper and Pearson 1934, The use of confidence or fiducial limits illustrated in the case of the binomial.
    [5] Davison and Hinkley 1997, Bootstrap methods and their application, sections 3.8 and 5.3.
    [6] Efron 1987, Better bootstrap confidence intervals.
    [7] Phipson and Smyth 2010, Permutation p-values should never be zero.
    [8] Hanley and MacGibbon 2006, Creating non-parametric bootstrap samples using Poisson frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8, UInt32
from numpy.random import Generator
from scipy.special import ndtr, ndtri, pdtr, stdtr, stdtrit

NO_OBSERVATIONS = "there are no observations"
ONE_CLUSTER = "one independent cluster is too few for an interval"
NO_SPREAD = "all clusters agree exactly, so there is no spread to build an interval from"

_CELLS = 1 << 18
"""Weights of clusters held in memory at once: few enough that they stay in the processor's cache."""
_BLOCK = 1 << 13
"""Clusters whose weights are drawn together."""
_JACKKNIFE_ROWS = 1 << 13
_MARGIN = 5.0
"""Standard deviations by which the Poisson counts of a resample sum to less than the number of clusters, on average."""
_POISSON_HEAD = 4
"""Counts up to which a comparison each is faster than a search; one in 270 is larger."""


class Interval(NamedTuple):
    """A value with its interval, or the reason why a part of it is missing.

    Attributes:
        value: the estimate; None when it cannot be computed.
        low, high: ends of the interval; None when there is none.
        n: observations used.
        clusters: independent clusters among them.
        method: how the interval was made.
        reason: why value or ends are missing; empty otherwise.
        error: the standard error, where the interval was made from one.
        freedom: its degrees of freedom.
        p: two-sided p-value of the hypothesis that the true value is 0, from the same distribution as the interval.
        fewest: of a contrast of two groups, clusters in the group that has fewest; 0 elsewhere.
        too_narrow: by which factor an interval that counts all clusters alike would have to be wider for that.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    clusters: int = 0
    method: str = ""
    reason: str = ""
    error: float | None = None
    freedom: float | None = None
    p: float | None = None
    fewest: int = 0
    too_narrow: float = 1.0


class Statistic(NamedTuple):
    """A statistic and the influence of every observation on it.

    Attributes:
        value: theta.
        influence: psi, one per observation, sums to 0.
    """

    value: float
    influence: Float[np.ndarray, " n"]


Clusters = Shaped[np.ndarray, " n"] | None
"""A label per observation, of any sortable type; None where every observation is its own cluster."""

Sums = Float[np.ndarray, "draws k"]
"""Sums over k terms of the observations of each resample."""

Weights = UInt8[np.ndarray, "draws clusters"]
"""How often each draw takes each cluster."""


def mean_statistic(values: Float[np.ndarray, " n"]) -> Statistic:
    """theta = mean(x), psi = x - theta. Needs n >= 1. Source: [3]."""
    value = float(values.mean())
    return Statistic(value, values - value)


def standard_deviation_statistic(values: Float[np.ndarray, " n"]) -> Statistic:
    """theta = s, the sample standard deviation; psi = ((x - mean)^2 - v) / (2 sqrt(v)) with v the mean square.

    Needs n >= 2 values that are not all the same.

    Source: delta method on the variance, [3].
    """
    squares = np.square(values - values.mean())
    variance = float(squares.mean())
    return Statistic(float(values.std(ddof=1)), (squares - variance) / (2.0 * math.sqrt(variance)))


def ratio_statistic(numerator: Float[np.ndarray, " n"], denominator: Float[np.ndarray, " n"]) -> Statistic:
    """theta = sum(a) / sum(b), psi = (a - theta b) / mean(b).

    With b the indicator of a subset and a = b x it is the mean of x on the subset, and the difference of two such
    statistics compares subsets whose clusters overlap.

    Needs sum(b) != 0.

    Source: [3]; Cochran 1977, Sampling techniques, section 6.3.
    """
    value = float(numerator.sum() / denominator.sum())
    return Statistic(value, (numerator - value * denominator) / denominator.mean())


def difference(first: Statistic, second: Statistic) -> Statistic:
    """first - second, two statistics of the same observations in the same order. Source: [3], by linearity."""
    return Statistic(first.value - second.value, first.influence - second.influence)


def interval(
    statistic: Statistic,
    clusters: Clusters = None,
    level: float = 0.95,
    scale: Literal["plain", "fisher"] = "plain",
) -> Interval:
    """Student interval of a statistic from its influence values, clustered (CR1, df G - 1).

    Args:
        statistic: value and influence, one per observation.
        clusters: cluster label per observation.
        level: coverage.
        scale: "fisher" builds the interval of a correlation for artanh(theta), se / (1 - theta^2), and maps it
            back, so that it stays within (-1, 1).

    Assumes independent clusters, and enough of them that the sum over clusters is near normal; with fewer than
    about 30, or a few that hold most observations, it is too narrow.

    Source: [1], [2]; Fisher 1915 for the scale.
    """
    n, value = len(statistic.influence), statistic.value
    sums = cluster_sums(statistic.influence[:, None], clusters)[:, 0]
    count = len(sums)
    found = Interval(value, n=n, clusters=count, method="t" if scale == "plain" else "t on the Fisher scale")
    if count < 2:
        return found._replace(reason=ONE_CLUSTER)
    error = math.sqrt(count / (count - 1) * float(np.square(sums).sum())) / n
    # Rounding leaves about 1e-16 of the observations' own spread where clusters cancel exactly.
    own_error = math.sqrt(float(np.square(statistic.influence).sum())) / n
    perfect = scale == "fisher" and abs(value) >= 1.0
    if perfect or error <= 1e-12 * own_error or np.ptp(statistic.influence) == 0:
        return found._replace(reason=NO_SPREAD)
    if scale == "plain":
        return student(found, value, error, float(count - 1), level)
    half = float(stdtrit(count - 1, 0.5 + level / 2.0)) * error / (1.0 - value * value)
    centre = math.atanh(value)
    return found._replace(low=math.tanh(centre - half), high=math.tanh(centre + half))


def student(found: Interval, value: float, error: float, freedom: float, level: float) -> Interval:
    """`found` with the ends, the standard error and the p-value that Student's distribution gives.

    Args:
        found: what is known already: n, clusters, method.
        value: the estimate.
        error: its standard error; above 0.
        freedom: degrees of freedom.
        level: coverage.

    Source: Student 1908.
    """
    half = float(stdtrit(freedom, 0.5 + level / 2.0)) * error
    p = 2.0 * float(stdtr(freedom, -abs(value) / error))
    return found._replace(value=value, low=value - half, high=value + half, error=error, freedom=freedom, p=p)


def widened(found: Interval, parts: Sequence[tuple[float, float]], level: float = 0.95) -> Interval:
    """`found` with further, independent sources of variance: of models trained with other seeds, say.

        se^2 = se_found^2 + sum V_k,    nu = se^4 / (se_found^4 / nu_found + sum V_k^2 / nu_k)

    Args:
        found: with its standard error and degrees of freedom; without them it stays as it is.
        parts: V_k and nu_k; those of no variance or no freedom are left out.
        level: coverage.

    Source: Satterthwaite 1946; for crossed sources of variance, Owen 2007, The pigeonhole bootstrap.
    """
    known = [(variance, freedom) for variance, freedom in parts if variance > 0.0 and freedom > 0.0]
    if found.value is None or found.error is None or found.freedom is None or not known:
        return found
    variance = found.error**2 + math.fsum(one for one, _ in known)
    below = found.error**4 / found.freedom + math.fsum(one * one / freedom for one, freedom in known)
    return student(found, found.value, math.sqrt(variance), variance**2 / below, level)


def over_trainings(found: Sequence[Interval], level: float = 0.95) -> Interval:
    """Mean of what several trainings give on the same observations.

        se^2 = (mean of se_s)^2 + V / S

    with the variance V between the S trainings, S - 1 degrees of freedom, and what the observations leave open, of
    which the first term is the most that there can be: they may be wrong alike in all trainings.

    Args:
        found: of every training, with its standard error; without any of these only V counts.
        level: coverage.

    Source: as of `widened`.
    """
    values = [one.value for one in found if one.value is not None]
    if len(values) < len(found):
        return next(one for one in found if one.value is None)
    if len(found) == 1:
        return found[0]
    own = float(np.mean([one.error or 0.0 for one in found])) ** 2
    between = float(np.var(values, ddof=1)) / len(values)
    same = Interval(float(np.mean(values)), n=found[0].n, clusters=found[0].clusters, method="t over trainings")
    if own + between == 0.0:
        return same._replace(reason=NO_SPREAD)
    freedom = min(one.freedom or max(one.clusters - 1.0, 1.0) for one in found)
    below = own**2 / freedom + between**2 / (len(values) - 1.0)
    return student(same, float(np.mean(values)), math.sqrt(own + between), (own + between) ** 2 / below, level)


def mean(values: Float[np.ndarray, " n"], clusters: Clusters = None, level: float = 0.95) -> Interval:
    """Mean with its clustered Student interval; see `interval`. Source: Student 1908; clustered [1], [2]."""
    if len(values) == 0:
        return Interval(None, reason=NO_OBSERVATIONS)
    return interval(mean_statistic(values), clusters, level)


def paired_difference(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"], clusters: Clusters = None, level: float = 0.95
) -> Interval:
    """Mean of first - second over matched observations, with its interval as in `mean`. Source: as there."""
    return mean(first - second, clusters, level)


def proportion(values: Float[np.ndarray, " n"], clusters: Clusters = None, level: float = 0.95) -> Interval:
    """Mean of values in [0, 1] with an interval that stays in [0, 1].

    The clustered Student interval, cut at 0 and 1. Where all values are 0, or all are 1, it would have no width:
    there the exact binomial bound for G trials is used, as if each cluster were one trial.

    Args:
        values: 0, 1, or a share (a tie counts 1/2).
        clusters: cluster label per observation.
        level: coverage.

    Source: `interval`; [4] for the bound.
    """
    found = mean(values, clusters, level)
    if found.low is not None and found.high is not None:
        return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))
    if found.reason == NO_SPREAD and found.value in (0.0, 1.0):
        # All of G trials alike: the bound p solves p^G = (1 - level) / 2.
        bound = ((1.0 - level) / 2.0) ** (1.0 / found.clusters)
        low, high = (bound, 1.0) if found.value == 1.0 else (0.0, 1.0 - bound)
        return found._replace(low=low, high=high, method="exact binomial", reason="")
    return found


def cluster_bootstrap(
    terms: Float[np.ndarray, "n k"],
    statistic: Callable[[Sums], Float[np.ndarray, " draws"]],
    generator: Generator,
    clusters: Clusters = None,
    level: float = 0.95,
    draws: int = 1000,
    ends: Callable[[Sums], tuple[float, float]] | None = None,
) -> Interval:
    """Bootstrap interval of a statistic that is a function of sums over the observations.

    Whole clusters are drawn with replacement. Sums per cluster are taken once, so a draw costs one product of cluster
    counts and sums. There is no interval where all resamples give the same.

    Args:
        terms: what is summed, k numbers per observation.
        statistic: maps sums (a row per draw) to the statistic; smooth near the sums observed.
        generator: source of the draws.
        clusters: cluster label per observation.
        level: coverage.
        draws: number of resamples.
        ends: maps the resampled sums to the ends of the interval; None takes percentiles of the statistic.

    Source: [5].
    """
    if len(terms) == 0:
        return Interval(None, reason=NO_OBSERVATIONS)
    sums = cluster_sums(terms, clusters)
    count, method = len(sums), f"cluster bootstrap, {draws} draws"
    value = float(statistic(sums.sum(axis=0)[None, :])[0])
    if count < 2:
        return Interval(value, n=len(terms), clusters=count, method=method, reason=ONE_CLUSTER)
    resampled = _resampled_sums(sums, draws, generator)
    if ends is None:
        low, high = np.quantile(statistic(resampled), [0.5 - level / 2.0, 0.5 + level / 2.0]).tolist()
    else:
        low, high = ends(resampled)
    found = Interval(value, n=len(terms), clusters=count, method=method)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        return found._replace(reason=NO_SPREAD)
    return found._replace(low=low, high=high)


class Resampled(NamedTuple):
    """Statistics of a sample and of its resamples.

    Attributes:
        values: m statistics of the sample.
        draws: the same of every resample; NaN where a resample does not have what a statistic needs.
        acceleration: by how much the standard error of a statistic changes with its value, by the jackknife over
            clusters; for BCa intervals.
        n, clusters: as in `Interval`.
    """

    values: Float[np.ndarray, " m"]
    draws: Float[np.ndarray, "draws m"]
    acceleration: Float[np.ndarray, " m"]
    n: int
    clusters: int


def resample(
    terms: Float[np.ndarray, "n k"],
    statistic: Callable[[Sums], Float[np.ndarray, "draws m"]],
    generator: Generator,
    clusters: Clusters = None,
    draws: int = 2000,
) -> Resampled:
    """m statistics, all functions of the same k sums over the observations, of resamples of whole clusters.

    The same resamples serve all statistics, so differences of draws are paired.

    Args:
        terms: what is summed, k numbers per observation.
        statistic: maps sums (a row per draw) to m statistics (a row per draw).
        generator: source of the draws.
        clusters: cluster label per observation; at least two clusters.
        draws: number of resamples.

    Source: [5]; [6] for the acceleration.
    """
    sums = cluster_sums(terms, clusters)
    drawn = statistic(_resampled_sums(sums, draws, generator))
    values = statistic(sums.sum(axis=0)[None, :])[0]
    drawn = np.where(np.isfinite(drawn), drawn, np.nan)
    return Resampled(values, drawn, _acceleration(sums, statistic, values), len(terms), len(sums))


def _acceleration(
    sums: Float[np.ndarray, "clusters k"],
    statistic: Callable[[Sums], Float[np.ndarray, "draws m"]],
    values: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """The skewness of the jackknife over 6 sqrt(G); 0 where no cluster makes a difference.

    Source: [6], section 7.
    """
    total = sums.sum(axis=0)
    moments = np.zeros((4, len(values)))
    for start in range(0, len(sums), _JACKKNIFE_ROWS):
        shift = values - statistic(total - sums[start : start + _JACKKNIFE_ROWS])
        # A statistic that needs a cluster is no number without it: the others have to tell.
        there = np.isfinite(shift)
        shift = np.where(there, shift, 0.0)
        square = np.square(shift)
        moments += np.stack([there.sum(axis=0), shift.sum(axis=0), square.sum(axis=0), (square * shift).sum(axis=0)])
    count = np.maximum(moments[0], 1.0)
    first, second, third = moments[1:] / count
    spread = np.maximum(second - first**2, 0.0)
    skew = third - 3.0 * first * second + 2.0 * first**3
    scale = 6.0 * np.sqrt(count) * spread**1.5
    return np.asarray(np.divide(skew, scale, out=np.zeros(len(values)), where=scale > 0.0))


def percentile_ends(found: Resampled, level: float = 0.95) -> Float[np.ndarray, "2 m"]:
    """Percentiles of the resampled statistics; NaN where no resample has the statistic. Source: [5], section 5.3."""
    shares = np.array([[0.5 - level / 2.0], [0.5 + level / 2.0]])
    return _quantiles(found.draws, np.broadcast_to(shares, (2, len(found.values))))


def bca_ends(found: Resampled, level: float = 0.95) -> Float[np.ndarray, "2 m"]:
    """Percentiles corrected for the bias and the acceleration of the statistic: BCa.

        z0 = Phi^-1(share of draws below the value),  alpha(z) = Phi(z0 + (z0 + z) / (1 - a (z0 + z)))

    Draws equal to the value count half. NaN where no resample has the statistic.

    Source: [6], equations 2.3 and 4.4.
    """
    known = np.maximum((~np.isnan(found.draws)).sum(axis=0), 1)
    below = (found.draws < found.values).sum(axis=0) + 0.5 * (found.draws == found.values).sum(axis=0)
    # A share of 0 or 1 has no finite quantile; half a draw is the most that B draws can tell.
    bias = ndtri(np.clip(below / known, 0.5 / known, 1.0 - 0.5 / known))
    z = bias + ndtri(np.array([[0.5 - level / 2.0], [0.5 + level / 2.0]]))
    # At 0 and below the formula is past its pole: the outermost draw is all there is.
    stretch = np.maximum(1.0 - found.acceleration * z, 1e-12)
    return _quantiles(found.draws, ndtr(bias + z / stretch))


def _quantiles(draws: Float[np.ndarray, "draws m"], shares: Float[np.ndarray, "2 m"]) -> Float[np.ndarray, "2 m"]:
    """Quantiles of every column, at shares of its own, of the draws that are numbers."""
    ends = np.full((2, draws.shape[1]), np.nan)
    for index, column in enumerate(draws.T):
        numbers = column[~np.isnan(column)]
        if len(numbers):
            ends[:, index] = np.quantile(numbers, shares[:, index])
    return ends


def sign_flip_p(
    values: Float[np.ndarray, "n m"], generator: Generator, clusters: Clusters = None, draws: int = 2000
) -> Float[np.ndarray, " m"]:
    """Two-sided p-values of m means against 0, by flipping the signs of whole clusters: p = (c + 1) / (B + 1).

    Exact where the values of a cluster are symmetric about 0 under the hypothesis, as a difference of two sides that
    could as well be swapped is.

    Args:
        values: m differences per observation; 0 where an observation has no part in a mean.
        generator: source of the flips.
        clusters: cluster label per observation.
        draws: B.

    Source: Fisher 1935; [7] for the 1.
    """
    sums = cluster_sums(values, clusters)
    total = sums.sum(axis=0)

    def coins(shape: tuple[int, int]) -> Weights:
        size = math.prod(shape)
        return np.unpackbits(_random_numbers(generator, -(-size // 32)).view(np.uint8), count=size).reshape(shape)

    # A sign is 2 x coin - 1.
    flipped = 2.0 * _weighted_sums(sums, draws, coins) - total
    # Sums of the same numbers in another order differ by rounding: an equal one counts as reached.
    count = (np.abs(flipped) >= np.abs(total) * (1.0 - 1e-12)).sum(axis=0)
    return np.asarray((count + 1.0) / (draws + 1.0))


def adjusted_p(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """p-values adjusted for m tests, such that rejecting those below q keeps the false discovery rate below q.

    Source: Benjamini and Hochberg 1995, Controlling the false discovery rate.
    """
    order = np.argsort(values)
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(adjusted, 1.0)


def _resampled_sums(sums: Float[np.ndarray, "clusters k"], draws: int, generator: Generator) -> Sums:
    """Sums of `draws` resamples of as many clusters as there are, G.

    How often the clusters are drawn is multinomial. Counts that are independent Poisson are multinomial, too, once
    their total is given; so nearly all of a resample is drawn as one Poisson count a cluster, with a mean so far below
    1 that the total hardly ever exceeds G (where it does, it is drawn anew), and what is missing to G one by one.
    Counts come from 32-bit numbers, so their probabilities are exact to 2^-32.

    Source: [8] for the Poisson counts; that they are completed to exactly G is ours.
    """
    count = len(sums)
    mean = max(0.0, 1.0 - _MARGIN / math.sqrt(count))
    bounds = _poisson_bounds(mean)

    def counts(shape: tuple[int, int]) -> Weights:
        return _poisson_counts(bounds, _random_numbers(generator, math.prod(shape))).reshape(shape)

    counted = np.column_stack([sums, np.ones(count)])
    result = np.zeros((draws, counted.shape[1]))
    # So few clusters that the mean is 0 are all drawn one by one.
    rows = np.arange(draws if mean else 0)
    while len(rows):
        result[rows] = _weighted_sums(counted, len(rows), counts)
        rows = rows[result[rows, -1] > count]
    for row in result:
        row += counted[generator.integers(0, count, size=count - int(row[-1]))].sum(axis=0)
    return result[:, :-1]


def _weighted_sums(
    sums: Float[np.ndarray, "clusters k"], draws: int, weights: Callable[[tuple[int, int]], Weights]
) -> Sums:
    """`draws` sums over the clusters with random weights, which `weights` draws in the shape (draws, clusters)."""
    result = np.zeros((draws, sums.shape[1]))
    for start in range(0, len(sums), _BLOCK):
        block = sums[start : start + _BLOCK]
        size = max(1, _CELLS // len(block))
        for first in range(0, draws, size):
            part = result[first : first + size]
            part += weights((len(part), len(block))).astype(np.float64) @ block
    return result


def _random_numbers(generator: Generator, count: int) -> UInt32[np.ndarray, " n"]:
    """Uniform numbers of 32 bits. Two to a draw of 64: twice as fast as one by one."""
    return np.asarray(generator.integers(0, 2**64, size=-(-count // 2), dtype=np.uint64).view(np.uint32)[:count])


def _poisson_bounds(mean: float) -> UInt32[np.ndarray, " k"]:
    """Numbers of 32 bits from which on a count is above 0, above 1, ...: 2^32 P(X <= k), as far as they fit."""
    bounds = np.rint(pdtr(np.arange(64), mean) * 2.0**32)
    return np.asarray(bounds[bounds < 2.0**32], dtype=np.uint32)


def _poisson_counts(bounds: UInt32[np.ndarray, " k"], numbers: UInt32[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    """How many bounds every number has reached: the inverse of the distribution function."""
    counts = np.zeros(len(numbers), dtype=np.uint8)
    for bound in bounds[:_POISSON_HEAD]:
        counts += (numbers >= bound).view(np.uint8)
    if len(bounds) > _POISSON_HEAD:
        large = np.flatnonzero(numbers >= bounds[_POISSON_HEAD])
        counts[large] = np.searchsorted(bounds, numbers[large], side="right")
    return counts


def numbered(clusters: Shaped[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], int]:
    """Clusters as numbers from 0, in the order of their labels, and how many there are. Source: none; bookkeeping."""
    # Without the inverse numpy takes a way that is ten times slower.
    _, index = np.unique(clusters, return_inverse=True)
    return index, int(index.max(initial=-1)) + 1


def cluster_sums(terms: Float[np.ndarray, "n k"], clusters: Clusters) -> Float[np.ndarray, "clusters k"]:
    """Sums of k terms over the members of every cluster; the terms themselves without clusters. Source: none; sums."""
    if clusters is None:
        return terms
    index, groups = numbered(clusters)
    return np.stack([np.bincount(index, weights=column, minlength=groups) for column in terms.T], axis=1)
