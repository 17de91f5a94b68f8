"""How much of a gain in reward is there at equal length.

Conventions
    A, B       two models; every observation is an output of one of them, `second` says that it is B's
    length     of an output, in tokens of the reward model's tokenizer, without special ones
    R          its reward; gains are B's minus A's
    bins       [0, 20), [20, 40), ... of the length: half-open, and they cover everything
    T          number of all outputs, also of those in bins that hold outputs of one model alone
    clusters   prompts: outputs to one of them may depend on each other
    strata     parts of equal mass of any quantity, by its quantiles

References
    [1] Singhal et al. 2023, A long way to go: investigating length correlations in RLHF, arXiv 2310.03716, section 3
        (non-length reward gain).
    [2] Harrell 2015, Regression modeling strategies, 2nd edition, section 2.4.5 (restricted cubic splines).
    [3] Oaxaca 1973; Blinder 1973 (decomposition of a difference of means).
    [4] White 1980, A heteroskedasticity-consistent covariance matrix estimator.
    [5] Tukey 1958, Bias and confidence in not quite large samples; Efron and Stein 1981, The jackknife estimate of
        variance: its expectation is at least the variance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from rewardlab.functional.intervals import Statistic, difference, numbered, ratio_statistic

BIN_TOKENS = 20
KNOT_SHARES = (0.05, 0.275, 0.5, 0.725, 0.95)
"""Quantiles of the length at which the spline's knots stand: five of them, as [2] has it."""


class GainBin(NamedTuple):
    """One bin [low, high) of the length.

    Attributes:
        low, high: ends in tokens.
        first, second: outputs of A and of B.
        first_mean, second_mean: their mean rewards; None where there are none.
    """

    low: int
    high: int
    first: int
    second: int
    first_mean: float | None
    second_mean: float | None


class Gain(NamedTuple):
    """A gain and the part of it that length does not make.

    Attributes:
        total: mean R of B minus mean R of A.
        non_length: NRG.
        ratio: NRG / total; None where total is 0.
        one_sided: share of outputs in bins that hold outputs of one model alone; they add nothing to NRG.
        shared: NRG over the other outputs alone, NRG / (1 - one_sided); None where no bin holds both models.
        bins: those that hold outputs, by length.
    """

    total: float
    non_length: float
    ratio: float | None
    one_sided: float
    shared: float | None
    bins: tuple[GainBin, ...]


class JackknifedGain(NamedTuple):
    """A gain with statistics whose influences are those of whole clusters: one per cluster, by leaving it out.

    Attributes:
        point: the gain.
        non_length: NRG.
        ratio: NRG / total; None where the total is 0, or one cluster holds all outputs of a model.
        shared: NRG over outputs in bins of both models; None where there are none once some cluster is left out.
    """

    point: Gain
    non_length: Statistic
    ratio: Statistic | None
    shared: Statistic | None


class Decomposition(NamedTuple):
    """A gain taken apart by regression: `total` is `at_equal_length` plus `through_length`, exactly.

    Attributes:
        total: mean R of B minus mean R of A.
        at_equal_length: what B adds at the same length.
        through_length: what its other lengths add.
    """

    total: Statistic
    at_equal_length: Statistic
    through_length: Statistic


class _Binned(NamedTuple):
    """Outputs in bins that hold any: the number of each bin, the place of each output, and per model and bin how many
    outputs and the sum of their rewards."""

    numbers: Int[np.ndarray, " bins"]
    place: Int[np.ndarray, " n"]
    outputs: Float[np.ndarray, "2 bins"]
    rewards: Float[np.ndarray, "2 bins"]


def non_length_gain(
    tokens: Int[np.ndarray, " n"],
    reward: Float[np.ndarray, " n"],
    second: Bool[np.ndarray, " n"],
    width: int = BIN_TOKENS,
) -> Gain:
    """The gain in reward between two models, and the part of it within bins of length.

        NRG = sum over bins with both models of (n_A + n_B) / T * (mean R_B - mean R_A)

    Its expectation grows with the sample: bins of one model alone are fewer in a larger one. Where the gain is the
    same at every length, NRG is short of it by the share of outputs in such bins, and `shared` is not.

    Args:
        tokens: length per output.
        reward: R per output.
        second: whether it is B's; both models have outputs.
        width: of a bin, in tokens.

    Source: [1]; `shared` is ours.
    """
    return _gain_of(_binned(tokens, reward, second, width), width)


def jackknifed_gain(
    tokens: Int[np.ndarray, " n"],
    reward: Float[np.ndarray, " n"],
    second: Bool[np.ndarray, " n"],
    clusters: Shaped[np.ndarray, " n"],
    width: int = BIN_TOKENS,
) -> JackknifedGain:
    """`non_length_gain` with statistics for intervals over clusters: psi_g = (G - 1) (mean of theta_(-g) - theta_(-g))

    where theta_(-g) is the statistic without cluster g, whose only outputs of a model may leave a bin one-sided. So
    the interval of `intervals.interval` is the jackknife's. It is for what NRG is on average in samples of this size,
    and on the wide side where many bins hold an output or two [5]. A bootstrap is not: in its resamples bins are
    empty that are not in the sample, and most of them lie below it.

    Args:
        tokens: length per output.
        reward: R per output.
        second: whether it is B's; both models have outputs.
        clusters: a label per output.
        width: of a bin, in tokens.

    Source: [1], [5].
    """
    found = _binned(tokens, reward, second, width)
    point = _gain_of(found, width)
    cluster, groups = numbered(clusters)
    # Cells are pairs of a cluster and a bin that have outputs: no more of them than outputs.
    keys, cell = np.unique(cluster * len(found.numbers) + found.place, return_inverse=True)
    group, place = np.divmod(keys, len(found.numbers))
    count, total = _sums(cell, reward, second, len(keys))
    terms, shared = _bin_terms(found.outputs, found.rewards)
    left_terms, left_shared = _bin_terms(found.outputs[:, place] - count, found.rewards[:, place] - total)
    part = terms.sum() + np.bincount(group, left_terms - terms[place], groups)
    both = shared.sum() + np.bincount(group, left_shared - shared[place], groups)
    own_count, own_total = _sums(cluster, reward, second, groups)
    counts = found.outputs.sum(axis=1, keepdims=True) - own_count
    totals = found.rewards.sum(axis=1, keepdims=True) - own_total
    scale = float(np.abs(reward).max())
    non_length = _divided(part, counts.sum(axis=0))
    gain = _divided(totals[1], counts[1]) - _divided(totals[0], counts[0])
    return JackknifedGain(
        point,
        # Nothing is left without the only cluster, and no interval either.
        _jackknifed(point.non_length, non_length, scale) or Statistic(point.non_length, np.zeros(groups)),
        None if point.ratio is None else _jackknifed(point.ratio, _divided(non_length, gain), 1.0),
        None if point.shared is None else _jackknifed(point.shared, _divided(part, both), scale),
    )


def _binned(
    tokens: Int[np.ndarray, " n"], reward: Float[np.ndarray, " n"], second: Bool[np.ndarray, " n"], width: int
) -> _Binned:
    numbers, place = np.unique(tokens // width, return_inverse=True)
    return _Binned(numbers, place, *_sums(place, reward, second, len(numbers)))


def _sums(
    place: Int[np.ndarray, " n"], reward: Float[np.ndarray, " n"], second: Bool[np.ndarray, " n"], places: int
) -> Float[np.ndarray, "2 2 places"]:
    """Outputs at each place, and the sums of their rewards, per model."""
    cell = second * places + place
    found = np.stack([np.bincount(cell, minlength=2 * places), np.bincount(cell, reward, 2 * places)])
    return found.reshape(2, 2, places)


def _bin_terms(count: Float[np.ndarray, "2 bins"], total: Float[np.ndarray, "2 bins"]) -> Float[np.ndarray, "2 bins"]:
    """T times what each bin adds to NRG, and its outputs; 0 where it does not hold both models."""
    both = (count > 0.0).all(axis=0)
    means = total / np.where(count > 0.0, count, 1.0)
    outputs = np.where(both, count.sum(axis=0), 0.0)
    return np.stack([(means[1] - means[0]) * outputs, outputs])


def _gain_of(found: _Binned, width: int) -> Gain:
    terms, shared = _bin_terms(found.outputs, found.rewards)
    size, both, part = float(found.outputs.sum()), float(shared.sum()), float(terms.sum())
    means = found.rewards.sum(axis=1) / found.outputs.sum(axis=1)
    total = float(means[1] - means[0])
    bins = []
    for number, (n_a, n_b), (sum_a, sum_b) in zip(
        found.numbers.tolist(), found.outputs.T.tolist(), found.rewards.T.tolist(), strict=True
    ):
        own = (sum_a / n_a if n_a else None, sum_b / n_b if n_b else None)
        bins.append(GainBin(number * width, (number + 1) * width, int(n_a), int(n_b), *own))
    ratio = None if total == 0.0 else part / size / total
    return Gain(total, part / size, ratio, 1.0 - both / size, part / both if both else None, tuple(bins))


def _divided(above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The quotients; NaN where one does not exist."""
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0.0))


def _jackknifed(value: float, without: Float[np.ndarray, " clusters"], scale: float) -> Statistic | None:
    """A statistic by its values without each cluster, none of which may be missing."""
    if not np.isfinite(without).all():
        return None
    # Values that differ by the rounding of numbers of this scale are the same.
    same = float(np.ptp(without)) <= 1e-13 * scale
    return Statistic(value, np.zeros(len(without)) if same else (len(without) - 1.0) * (without.mean() - without))


def natural_spline(values: Float[np.ndarray, " n"], knots: Float[np.ndarray, " k"]) -> Float[np.ndarray, "n columns"]:
    """Columns of a restricted cubic spline without its intercept: x, and k - 2 that are linear beyond the outer knots.

        c_j = [ (x - t_j)+^3 - (x - t_{k-1})+^3 (t_k - t_j) / (t_k - t_{k-1})
                + (x - t_k)+^3 (t_{k-1} - t_j) / (t_k - t_{k-1}) ] / (t_k - t_1)^2

    Args:
        values: x.
        knots: increasing; with fewer than three there is x alone.

    Source: [2], equation 2.25.
    """
    columns = [values]
    if len(knots) > 2:
        last, before = knots[-1], knots[-2]
        cubes = np.maximum(values[:, None] - knots, 0.0) ** 3
        for number, knot in enumerate(knots[:-2]):
            bend = cubes[:, -2] * (last - knot) - cubes[:, -1] * (before - knot)
            columns.append((cubes[:, number] - bend / (last - before)) / (last - knots[0]) ** 2)
    return np.stack(columns, axis=1)


def decomposed_gain(
    tokens: Int[np.ndarray, " n"], reward: Float[np.ndarray, " n"], second: Bool[np.ndarray, " n"]
) -> Decomposition:
    """The gain as the part at equal length and the part through length, by least squares.

        R = a + spline(length) + b second + e;   at equal length b, through length the mean spline of B minus that of A

    The knots stand at quantiles of all lengths. It assumes that length acts alike in both models; where their lengths
    hardly overlap, b is an extrapolation. The influence of an observation on b is n (X'X)^-1 x e.

    Args:
        tokens: length per output.
        reward: R per output.
        second: whether it is B's; both models have outputs.

    Source: [3], with the spline of [2]; [4] for the influence.
    """
    lengths = tokens.astype(np.float64)
    knots = np.unique(np.quantile(lengths, KNOT_SHARES))
    bent = natural_spline(lengths / max(float(lengths.max()), 1.0), knots / max(float(lengths.max()), 1.0))
    own = second.astype(np.float64)
    columns = np.column_stack([np.ones(len(own)), own, bent])
    inverse = np.linalg.pinv(columns)
    found = inverse @ reward
    influence = len(own) * inverse[1] * (reward - columns @ found)
    total = difference(ratio_statistic(own * reward, own), ratio_statistic((1.0 - own) * reward, 1.0 - own))
    level = Statistic(float(found[1]), influence)
    return Decomposition(total, level, difference(total, level))


def strata(values: Float[np.ndarray, " n"], count: int) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " ends"]]:
    """The stratum of every observation, from 0, and the edges: observed values, the first ones at or above quantiles.

    Stratum j is [edge_j, edge_{j+1}); the last one holds its upper end, too, and may be that value alone. Equal values
    are never parted, so there are fewer strata where many are equal; none is empty.

    Args:
        values: what is stratified; one at least.
        count: strata, at most.

    Source: none; quantiles.
    """
    ordered = np.sort(values)
    quantiles = np.quantile(ordered, np.linspace(0.0, 1.0, count + 1)[:-1])
    # Rounding may put a quantile above the last value.
    starts = np.unique(ordered[np.minimum(np.searchsorted(ordered, quantiles), len(ordered) - 1)])
    return np.searchsorted(starts, values, side="right") - 1, np.append(starts, ordered[-1])
