"""What share of one effect another one is: intervals of a ratio of two statistics.

Conventions
    a, b         two statistics of the same observations, in the same order: numerator and denominator
    psi          influence of an observation on a statistic
    rho          the ratio a / b; a - rho b is the contrast that is 0 where rho is the true ratio
    V, nu        further variance of a statistic (of other seeds, say) and its degrees of freedom

    A ratio of two uncertain numbers has no standard error to speak of: its interval is lopsided, and where the
    denominator may be 0 it has no end. Fieller's interval asks of each rho whether the contrast can be 0 instead,
    which is a question about a difference, and exact where that one is.

References
    [1] Fieller 1954, Some problems in interval estimation.
    [2] Tamhane and Logan 2004, Finding the maximum safe dose level for heteroscedastic data (degrees of freedom that
        change with rho).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from rewardlab.functional.intervals import (
    NO_SPREAD,
    ONE_CLUSTER,
    Clusters,
    Interval,
    Statistic,
    cluster_sums,
    widened,
)

NOT_TOLD_FROM_ZERO = "what it is a share of cannot be told from 0"

_ANGLES = np.linspace(0.0, math.pi / 2.0, 33)


def fieller(
    first: Statistic,
    second: Statistic,
    clusters: Clusters = None,
    parts: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0)),
    level: float = 0.95,
) -> Interval:
    """Ratio of two statistics of the same observations, with Fieller's interval.

        {rho: the interval of a - rho b holds 0},    V(a - rho b) = V(psi_a - rho psi_b) + V_a + rho^2 V_b

    The interval of the contrast is `interval` of its influence, clustered, `widened` by V_a and rho^2 V_b, whose
    degrees of freedom change with rho. So it holds 1 where the interval of the difference a - b made that way holds 0,
    and 0 where that of a does. It has ends where that of b does not hold 0: elsewhere no ratio is too large, and there
    is the reason instead. Without further parts, and t the quantile of G - 1 degrees of freedom, the ends solve

        (b^2 - t^2 V_bb) rho^2 - 2 (ab - t^2 V_ab) rho + a^2 - t^2 V_aa = 0

    Args:
        first: a.
        second: b.
        clusters: cluster label per observation.
        parts: V and nu of a, and of b, independent of each other and of the observations; V or nu of 0 is none.
        level: coverage.

    Returns:
        The ratio, None where b is 0. Where changing degrees of freedom leave gaps, the ends are the outermost ones.
        No ends where all clusters have the same ratio.

    Assumes what `interval` does of every contrast. Where b is near the edge of being told from 0, the interval is very
    long; that it is given only beyond that edge makes those that are given hold the truth a little less often.

    Source: [1]; [2] for the degrees of freedom.
    """
    n, a, b = len(first.influence), first.value, second.value
    sums = cluster_sums(np.column_stack([first.influence, second.influence]), clusters)
    count = len(sums)
    found = Interval(None if b == 0.0 else a / b, n=n, clusters=count, method="Fieller")
    if count < 2 or b == 0.0:
        return found._replace(reason=ONE_CLUSTER if count < 2 else NOT_TOLD_FROM_ZERO)
    ratio = a / b
    apart = sums[:, 0] - ratio * sums[:, 1]
    if np.abs(apart).max() <= 1e-12 * max(np.abs(sums[:, 0]).max(), abs(ratio) * np.abs(sums[:, 1]).max()):
        return found._replace(reason=NO_SPREAD)
    quantile = float(stdtrit(count - 1, 0.5 + level / 2.0))
    # Variances and covariance (CR1) of the contrast at a / b and of the denominator: made from the numerator's own, the
    # contrast's would lose its digits where both go up and down together.
    both = np.stack([apart, sums[:, 1]])
    variances = count / (count - 1) * (both @ both.T) / n**2

    def half(across: float, along: float) -> float:
        """Half the width of the interval of across (a - ratio b) - along b."""
        variance = float(variances @ (across, -along) @ (across, -along))
        error = math.sqrt(max(variance, 0.0))
        weights = (across, ratio * across + along)
        more = [(weight**2 * own, nu) for weight, (own, nu) in zip(weights, parts, strict=True)]
        high = widened(Interval(0.0, error=error, freedom=count - 1.0), more, level).high
        return quantile * error if high is None else high

    scale = half(1.0, 0.0) / abs(b)

    def refuted(angle: float) -> float:
        """By how much the contrast at rho = ratio + scale tan(angle), times cos(angle), is beyond its interval.

        At right angles, where rho is infinite, that is the denominator alone.
        """
        across, along = math.cos(angle), scale * math.sin(angle)
        return abs(along * b) - half(across, along)

    if refuted(math.pi / 2.0) <= 0.0:
        return found._replace(reason=NOT_TOLD_FROM_ZERO)
    low, high = (ratio + scale * math.tan(_outermost(refuted, sign)) for sign in (-1.0, 1.0))
    return found._replace(low=low, high=high)


def _outermost(refuted: Callable[[float], float], sign: float) -> float:
    """The angle beyond which everything up to a right angle, on this side, is refuted; 0 is not, a right angle is."""
    angles = sign * _ANGLES
    last = max(place for place, angle in enumerate(angles[:-1]) if place == 0 or refuted(float(angle)) <= 0.0)
    return float(brentq(refuted, angles[last], angles[last + 1], xtol=1e-15, rtol=1e-14))
