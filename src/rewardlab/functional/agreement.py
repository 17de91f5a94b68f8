"""Correlation of two quantities: over all observations, with influence values, and within groups.

Conventions
    x, y       paired values along the last axis; no missing values
    undefined  a correlation with a constant is undefined: None for one, left out and counted for groups
    ranks      mid-ranks: tied values share the mean of the ranks they cover
    influence  as in `intervals`: psi_i, sums to 0 over the sample

References
    [1] Pearson 1895, Notes on regression and inheritance; influence: Devlin, Gnanadesikan and Kettenring 1975,
        Robust estimation and outlier detection with correlation coefficients, equation 2.4.
    [2] Spearman 1904, The proof and measurement of association between two things; influence: Croux and Dehon
        2010, Influence functions of the Spearman and Kendall correlation measures, proposition 1.
    [3] Kendall 1945, The treatment of ties in ranking problems, equation 2.3 (tau-b).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import kendalltau, rankdata

from rewardlab.functional.intervals import Statistic

Values = Float[np.ndarray, "*batch n"]
Correlation = Callable[[Values, Values], Float[np.ndarray, "*batch"]]
"""Maps x and y to the correlation along the last axis, NaN where one of them is constant."""

_MOST_BY_PAIRS = 256
"""Members up to which Kendall's tau compares all pairs at once; one group of them takes half a megabyte an array."""
_PAIRS_AT_ONCE = 1 << 22


class WithinGroups(NamedTuple):
    """A correlation in each group where it is defined.

    Attributes:
        groups: labels of the groups that count, sorted.
        values: the correlation in each of them.
        too_small: groups left out because they have too few members.
        constant: groups left out because x or y does not vary.
    """

    groups: Shaped[np.ndarray, " groups"]
    values: Float[np.ndarray, " groups"]
    too_small: int
    constant: int


def pearson(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float | None:
    """Product-moment correlation, None where x or y is constant. Source: [1]."""
    return _alone(pearson_along, x, y)


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float | None:
    """Pearson correlation of mid-ranks, None where x or y is constant. Source: [2]."""
    return _alone(spearman_along, x, y)


def pearson_along(x: Values, y: Values) -> Float[np.ndarray, "*batch"]:
    """Pearson correlation along the last axis; NaN where x or y is constant. Source: [1]."""
    varies = _varies(x) & _varies(y)
    left, right = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.square(left).sum(axis=-1) * np.square(right).sum(axis=-1))
    found = (left * right).sum(axis=-1) / np.where(varies, scale, 1.0)
    return np.asarray(np.where(varies, np.clip(found, -1.0, 1.0), np.nan))


def spearman_along(x: Values, y: Values) -> Float[np.ndarray, "*batch"]:
    """Spearman correlation along the last axis; NaN where x or y is constant. Source: [2]."""
    return pearson_along(rankdata(x, axis=-1), rankdata(y, axis=-1))


def kendall_along(x: Values, y: Values) -> Float[np.ndarray, "*batch"]:
    """Tau-b along the last axis; NaN where x or y is constant. Takes memory n^2: meant for the members of a group.

        tau_b = sum sign(x_i - x_j) sign(y_i - y_j) / sqrt(sum sign(x_i - x_j)^2 * sum sign(y_i - y_j)^2)

    Pair by pair up to 256 members, by sorting (scipy) beyond, where the pairs would fill the memory.

    Source: [3].
    """
    members = x.shape[-1]
    left, right = x.reshape(-1, members), y.reshape(-1, members)
    if members > _MOST_BY_PAIRS:
        # The p-value is not used; this method is the one that costs nothing.
        pairs = zip(left, right, strict=True)
        found = np.array([kendalltau(*pair, variant="b", method="asymptotic").statistic for pair in pairs])
    else:
        rows = max(1, _PAIRS_AT_ONCE // members**2)
        starts = range(0, len(left) or 1, rows)
        found = np.concatenate([_kendall_by_pairs(left[i : i + rows], right[i : i + rows]) for i in starts])
    return np.asarray(found.reshape(x.shape[:-1]))


def _kendall_by_pairs(x: Values, y: Values) -> Float[np.ndarray, "*batch"]:
    varies = _varies(x) & _varies(y)
    left, right = _signs(x), _signs(y)
    scale = np.sqrt(np.square(left).sum(axis=(-2, -1)) * np.square(right).sum(axis=(-2, -1)))
    found = (left * right).sum(axis=(-2, -1)) / np.where(varies, scale, 1.0)
    return np.asarray(np.where(varies, found, np.nan))


def within_groups(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    correlation: Correlation,
    smallest: int = 3,
) -> WithinGroups:
    """`correlation` of x and y inside each group of at least `smallest` members.

    Two members always correlate by +1 or -1, so a mean over groups needs at least three.

    Args:
        x: first quantity per observation.
        y: second quantity per observation.
        groups: group label per observation.
        correlation: `pearson_along`, `spearman_along` or `kendall_along`.
        smallest: members that a group needs.

    Source: Singhal et al. 2023, A long way to go, arXiv 2310.03716, section 3 (within-prompt correlation).
    """
    labels, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found = np.full(len(labels), np.nan)
    # Groups of one size form one batch: as many passes as there are sizes, not as there are groups.
    for size in np.unique(sizes[sizes >= smallest]):
        chosen = np.flatnonzero(sizes == size)
        members = order[starts[chosen][:, None] + np.arange(size)]
        found[chosen] = correlation(x[members], y[members])
    defined = ~np.isnan(found)
    too_small = int((sizes < smallest).sum())
    return WithinGroups(labels[defined], found[defined], too_small, len(labels) - too_small - int(defined.sum()))


def pearson_statistic(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Statistic | None:
    """Pearson correlation rho with psi = u v - rho (u^2 + v^2) / 2 for standardised u, v; None where undefined.

    Source: [1].
    """
    value = pearson(x, y)
    if value is None:
        return None
    left, right = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    return Statistic(value, left * right - value * (np.square(left) + np.square(right)) / 2.0)


def spearman_statistic(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Statistic | None:
    """Spearman correlation with the influence of a point through its value and through the ranks of the others.

    With u, v the mid-ranks divided by n and centred, K(a, b) = 1 where a < b, 1/2 where a = b, else 0,
    C = mean(u v), S_u = mean(u^2), S_v = mean(v^2):

        psi_C  = u_i v_i + mean_j v_j K(x_i, x_j) + mean_j u_j K(y_i, y_j) - 3 C
        psi_Su = u_i^2 + 2 mean_j u_j K(x_i, x_j) - 3 S_u        (S_v likewise)
        psi    = psi_C / sqrt(S_u S_v) - rho / 2 * (psi_Su / S_u + psi_Sv / S_v)

    The terms in S keep it right under ties. None where x or y is constant.

    Source: [2], extended to ties by the delta method.
    """
    value = spearman(x, y)
    if value is None:
        return None
    left, right = (rankdata(axis) / len(axis) for axis in (x, y))
    left, right = left - left.mean(), right - right.mean()
    covariance, left_square, right_square = (
        float((a * b).mean()) for a, b in ((left, right), (left,) * 2, (right,) * 2)
    )
    through = left * right + _mean_above(x, right) + _mean_above(y, left) - 3.0 * covariance
    through_left = np.square(left) + 2.0 * _mean_above(x, left) - 3.0 * left_square
    through_right = np.square(right) + 2.0 * _mean_above(y, right) - 3.0 * right_square
    scale = np.sqrt(left_square * right_square)
    spread = through_left / left_square + through_right / right_square
    return Statistic(value, through / scale - value / 2.0 * spread)


def _mean_above(keys: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """For every i the mean over j of values_j K(keys_i, keys_j), with K as in `spearman_statistic`."""
    _, index = np.unique(keys, return_inverse=True)
    at = np.bincount(index, weights=values)
    above = at.sum() - np.cumsum(at)
    return np.asarray((above + at / 2.0)[index] / len(keys))


def _signs(values: Values) -> Float[np.ndarray, "*batch n n"]:
    return np.asarray(np.sign(values[..., :, None] - values[..., None, :]))


def _varies(values: Values) -> Shaped[np.ndarray, "*batch"]:
    return np.asarray(values.max(axis=-1) > values.min(axis=-1))


def _alone(along: Correlation, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float | None:
    if len(x) == 0:
        return None
    value = float(along(x, y))
    return None if np.isnan(value) else value
