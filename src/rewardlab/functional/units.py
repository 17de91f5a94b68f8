"""Effects in standard deviations, with what is not known of the standard deviation.

Conventions
    theta        a contrast of one quantity: a1 mean(v | w = 1) + a0 mean(v | w = 0), with its standard error
    sd           pooled standard deviation of the originals O within w: sd^2 = sum of (O - mean of its group)^2 /
                 (n - g), for n examples in g groups
    psi          influence of an example on a statistic; those of one sample sum to 0

    Where an effect is large beside its own spread, most of what is unknown of theta / sd is the sd: an interval that
    takes the sd as exact is then far too narrow.

References
    [1] Cohen 1988, Statistical power analysis, section 2.5.
    [2] van der Vaart 1998, Asymptotic statistics, chapter 3 (delta method) and section 20.1 (influence functions).
    [3] Liang and Zeger 1986, Longitudinal data analysis using generalized linear models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rewardlab.functional.effects import Rewards, influence, pooled_sd, scaled
from rewardlab.functional.intervals import Clusters, Interval, cluster_sums, student


class Unit(NamedTuple):
    """The unit of standardised effects.

    Attributes:
        sd: its size.
        influence: of every example on it, shape (n,).
        clusters: a label per example; None where every example stands alone.
    """

    sd: float
    influence: Float[np.ndarray, " n"]
    clusters: Clusters


def unit_of(rewards: Rewards) -> Unit | None:
    """The pooled sd of the originals with its influence (q n / (n - g) - sd^2) / (2 sd); None where there is no spread.

    q is the squared distance of an example from the mean of its group.

    Source: [1], [2].
    """
    sd = pooled_sd(rewards.original, rewards.treated)
    if sd is None:
        return None
    squares, groups = np.zeros(len(rewards.original)), 0
    for group in (rewards.treated, ~rewards.treated):
        if group.any():
            squares[group] = np.square(rewards.original[group] - rewards.original[group].mean())
            groups += 1
    n = len(squares)
    return Unit(sd, (squares * n / (n - groups) - sd * sd) / (2.0 * sd), rewards.clusters)


def standardised(
    found: Interval,
    values: Float[np.ndarray, " m"],
    treated: Bool[np.ndarray, " m"],
    weights: tuple[float, float],
    unit: Unit | None,
    kept: Bool[np.ndarray, " n"] | None = None,
    level: float = 0.95,
) -> Interval:
    """theta / sd with a t interval that knows that the sd was estimated, from the same examples.

        se^2 = (se(theta) / sd)^2 + V(psi_theta / sd - theta psi_sd / sd^2) - V(psi_theta / sd)

    with V the clustered variance (CR1) of a mean of influences: the standard error of theta, which has a small-sample
    form of its own, plus what the unit adds or, where both go up together, takes away.

    Args:
        found: theta, as `contrast(values, treated, weights)` gives it.
        values, treated, weights: of that contrast.
        unit: of the whole sample.
        kept: which examples of the whole sample the m are; all of them where None.
        level: coverage.

    Returns:
        In units; p stays that of theta, since theta and theta / sd are 0 together.

    Source: [2] for the ratio, [3] for V.
    """
    result = scaled(found, None if unit is None else unit.sd)
    if unit is None or result.value is None or result.error is None or found.freedom is None:
        return result
    n = len(unit.influence)
    there = np.ones(n, bool) if kept is None else kept
    needed = np.where(treated, weights[0], weights[1]) != 0.0
    own = np.zeros(n)
    own[np.flatnonzero(there)[needed]] = influence(values[needed], treated[needed], weights) * n / needed.sum()
    ratio = own / unit.sd
    extra = _variance(ratio - result.value * unit.influence / unit.sd, unit.clusters) - _variance(ratio, unit.clusters)
    variance = result.error**2 + extra
    if variance <= 0.0:
        return result
    return student(result, result.value, math.sqrt(variance), found.freedom, level)._replace(p=found.p)


def _variance(psi: Float[np.ndarray, " n"], clusters: Clusters) -> float:
    sums = cluster_sums(psi[:, None], clusters)[:, 0]
    count = len(sums)
    return count / (count - 1) * float(np.square(sums).sum()) / len(psi) ** 2 if count > 1 else 0.0
