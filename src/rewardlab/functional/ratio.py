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
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from rewardlab.functional.intervals import (
    NO_SPREAD,
    ONE_CLUSTER,
    Clusters,
    Interval,
    Statistic,
    cluster_sums,
)

NOT_TOLD_FROM_ZERO = "what it is a share of cannot be told from 0"

Parts = tuple[tuple[float, float], tuple[float, float]]
"""V and nu of the numerator, and of the denominator."""

_CUTS = 64
"""Parts in which an end is looked for at once."""
_ROUNDS = 9
"""How often the part that holds it is cut again: down to rounding."""


def fieller(
    first: Statistic,
    second: Statistic,
    clusters: Clusters = None,
    parts: Parts = ((0.0, 0.0), (0.0, 0.0)),
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
    # Variances and covariance (CR1) of the contrast at a / b and of the denominator: made from the numerator's own, the
    # contrast's would lose its digits where both go up and down together.
    both = np.stack([apart, sums[:, 1]])
    variances = count / (count - 1) * (both @ both.T) / n**2

    contrasts = _Contrasts(ratio, b, variances, parts, count - 1.0, 0.5 + level / 2.0)
    scale = float(contrasts.half(np.ones(1), np.zeros(1))[0]) / abs(b)
    if contrasts.held(np.array([math.pi / 2.0]), scale)[0]:
        return found._replace(reason=NOT_TOLD_FROM_ZERO)
    low, high = (ratio + scale * math.tan(_outermost(contrasts, scale, side * math.pi / 2.0)) for side in (-1.0, 1.0))
    return found._replace(low=low, high=high)


class _Contrasts(NamedTuple):
    """across (a - ratio b) - along b, for any two numbers: at ratios rho = ratio + along / across.

    Attributes:
        ratio, b: of the statistics.
        variances: of a - ratio b and b over the observations, and their covariance.
        parts: V and nu of a, and of b.
        freedom: degrees of freedom of `variances`.
        quantile: of the intervals' upper ends.
    """

    ratio: float
    b: float
    variances: Float[np.ndarray, "2 2"]
    parts: Parts
    freedom: float
    quantile: float

    def half(self, across: Float[np.ndarray, " k"], along: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Half the widths of their intervals, as `widened` has it."""
        (own, shared), (_, other) = self.variances
        of_data = np.maximum(across**2 * own - 2.0 * across * along * shared + along**2 * other, 0.0)
        more = zip((across, self.ratio * across + along), self.parts, strict=True)
        sources = [(of_data, self.freedom), *((weight**2 * one, nu) for weight, (one, nu) in more if nu > 0.0)]
        variance = np.sum([one for one, _ in sources], axis=0)
        below = np.sum([one**2 / nu for one, nu in sources], axis=0)
        freedom = np.divide(variance**2, below, out=np.ones_like(below), where=below > 0.0)
        return np.asarray(stdtrit(freedom, self.quantile) * np.sqrt(variance))

    def held(self, angles: Float[np.ndarray, " k"], scale: float) -> Bool[np.ndarray, " k"]:
        """Whether the interval of the contrast at rho = ratio + scale tan(angle), times cos(angle), holds 0.

        At right angles, where rho is infinite, that is the denominator alone.
        """
        across, along = np.cos(angles), scale * np.sin(angles)
        return np.asarray(np.abs(along * self.b) <= self.half(across, along))


def _outermost(contrasts: _Contrasts, scale: float, far: float) -> float:
    """The angle farthest from 0, on the way to `far`, that is held; 0 is, and `far` is not."""
    near = 0.0
    for _ in range(_ROUNDS):
        angles = np.linspace(near, far, _CUTS + 1)
        last = int(np.flatnonzero(contrasts.held(angles[1:-1], scale)).max(initial=-1)) + 1
        near, far = float(angles[last]), float(angles[last + 1])
    return near
