"""How much of a gain in reward is there at equal length.

Conventions
    A, B       two models; every observation is an output of one of them, `second` says that it is B's
    length     of an output, in tokens of the reward model's tokenizer, without special ones
    R          its reward; gains are B's minus A's
    bins       [0, 20), [20, 40), ... of the length: half-open, and they cover everything
    T          number of all outputs, also of those in bins that hold outputs of one model alone
    strata     parts of equal mass of any quantity, by its quantiles

References
    [1] Singhal et al. 2023, A long way to go: investigating length correlations in RLHF, arXiv 2310.03716, section 3
        (non-length reward gain).
    [2] Harrell 2015, Regression modeling strategies, 2nd edition, section 2.4.5 (restricted cubic splines).
    [3] Oaxaca 1973; Blinder 1973 (decomposition of a difference of means).
    [4] White 1980, A heteroskedasticity-consistent covariance matrix estimator.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rewardlab.functional.intervals import Statistic, difference, ratio_statistic

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
        bins: those that hold outputs, by length.
    """

    total: float
    non_length: float
    ratio: float | None
    one_sided: float
    bins: tuple[GainBin, ...]


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


def non_length_gain(
    tokens: Int[np.ndarray, " n"],
    reward: Float[np.ndarray, " n"],
    second: Bool[np.ndarray, " n"],
    width: int = BIN_TOKENS,
) -> Gain:
    """The gain in reward between two models, and the part of it within bins of length.

        NRG = sum over bins with both models of (n_A + n_B) / T * (mean R_B - mean R_A)

    Args:
        tokens: length per output.
        reward: R per output.
        second: whether it is B's; both models have outputs.
        width: of a bin, in tokens.

    Source: [1].
    """
    terms = gain_terms(tokens, reward, second, width)
    total, part, ratio, one_sided = gain_statistics(terms.sum(axis=0)[None, :])[0].tolist()
    bins = []
    for number, (n_a, n_b, sum_a, sum_b) in enumerate(terms.sum(axis=0).reshape(-1, 4).tolist()):
        if n_a + n_b:
            means = (sum_a / n_a if n_a else None, sum_b / n_b if n_b else None)
            bins.append(GainBin(number * width, (number + 1) * width, int(n_a), int(n_b), *means))
    return Gain(total, part, None if np.isnan(ratio) else ratio, one_sided, tuple(bins))


def gain_terms(
    tokens: Int[np.ndarray, " n"],
    reward: Float[np.ndarray, " n"],
    second: Bool[np.ndarray, " n"],
    width: int = BIN_TOKENS,
) -> Float[np.ndarray, "n k"]:
    """What `gain_statistics` are functions of the sums of: per bin of length, n_A, n_B, sum R_A, sum R_B.

    Source: [1]; sums over the outputs are sums over resampled prompts, too.
    """
    places = tokens // width
    terms = np.zeros((len(tokens), int(places.max(initial=0)) + 1, 4))
    rows, side = np.arange(len(tokens)), second.astype(np.int64)
    terms[rows, places, side] = 1.0
    terms[rows, places, 2 + side] = reward
    return terms.reshape(len(tokens), -1)


def gain_statistics(sums: Float[np.ndarray, "draws k"]) -> Float[np.ndarray, "draws 4"]:
    """Total gain, NRG, their ratio (NaN where the total is 0) and the one-sided share, of sums of `gain_terms`.

    NaN everywhere where one of the models has no outputs.

    Source: [1].
    """
    n_a, n_b, sum_a, sum_b = np.moveaxis(sums.reshape(len(sums), -1, 4), 2, 0)
    count = (n_a + n_b).sum(axis=1)
    both = (n_a > 0.0) & (n_b > 0.0)
    gap = sum_b / np.where(n_b > 0.0, n_b, 1.0) - sum_a / np.where(n_a > 0.0, n_a, 1.0)
    part = (np.where(both, gap, 0.0) * (n_a + n_b)).sum(axis=1) / count
    there = (n_a.sum(axis=1) > 0.0) & (n_b.sum(axis=1) > 0.0)
    total = sum_b.sum(axis=1) / np.where(there, n_b.sum(axis=1), np.nan) - sum_a.sum(axis=1) / np.where(
        there, n_a.sum(axis=1), np.nan
    )
    ratio = part / np.where(total == 0.0, np.nan, total)
    one_sided = np.where(both, 0.0, n_a + n_b).sum(axis=1) / count
    return np.where(there[:, None], np.stack([total, part, ratio, one_sided], axis=1), np.nan)


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
    """The stratum of every observation, from 0, and the edges: quantiles of the values, each once.

    Stratum j is [edge_j, edge_{j+1}); the last one holds its upper end. Equal values are never parted, so there are
    fewer strata where many are equal.

    Args:
        values: what is stratified; one at least.
        count: strata, at most.

    Source: none; quantiles.
    """
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, count + 1)))
    place = np.searchsorted(edges, values, side="right") - 1
    return np.minimum(place, max(len(edges) - 2, 0)), edges
