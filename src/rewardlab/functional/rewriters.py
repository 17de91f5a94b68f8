"""Several rewriters of the same responses: does an effect hang on who rewrote?

Conventions
    r = 1..R     a rewriter; every one has rewritten the same n responses, so the originals are the same
    d_ir         signed difference of response i by rewriter r, as in `functional.effects`
    difference   of the effects by two rewriters: the effect of d_i1 - d_i2. It is paired by response, and clustered by
                 prompt as any effect, so what the responses have in common cancels
    components   of d_ir = mean + text_i + rewriter_r + rest_ir; rest is text x rewriter and draw together, which one
                 draw each cannot tell apart (with several draws: `effects.variance_components`)

References
    [1] Reber, Richardson, Nief, Garbacea and Veitch 2024, RATE (arXiv 2410.11348).
    [2] Searle, Casella and McCulloch 1992, Variance components, section 4.3.
    [3] Dunn 1961, Multiple comparisons among means (Bonferroni's inequality).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from rewardlab.functional.effects import Estimator, Rewards, Target, effect
from rewardlab.functional.intervals import Interval

Robustness = Literal["same", "direction", "none", "open", "depends", "unknown"]
"""What R rewriters say together:

    same       all find the effect, on the same side of 0, and no two differ
    direction  all find it on the same side of 0; its size hangs on the rewriter
    none       none can tell it from 0, and no two differ
    open       some find it, some cannot tell it from 0, and no two can be told apart: too few responses
    depends    the finding hangs on the rewriter
    unknown    an effect without an interval
"""


def difference(
    first: Rewards, second: Rewards, estimator: Estimator = "double", target: Target = "ATE", level: float = 0.95
) -> Interval:
    """Effect by the first rewriter minus effect by the second, over the same responses in the same order.

    Effects are linear in the rewards, so it is the effect in the differences of the rewards.

    Raises:
        ValueError: W differs, so these are not the same responses.

    Source: [1]; paired as in `effects.effect`.
    """
    if not np.array_equal(first.treated, second.treated):
        raise ValueError("other responses, or in another order")
    thirds = None if first.third is None or second.third is None else first.third - second.third
    apart = Rewards(
        first.treated,
        first.original - second.original,
        first.rewrite - second.rewrite,
        first.rerewrite - second.rerewrite,
        thirds,
        first.clusters,
    )
    return effect(apart, estimator, target, level)


def pairs_level(rewriters: int, level: float) -> float:
    """Coverage of each difference of two rewriters, so that all pairs together are covered at `level`. Source: [3]."""
    return 1.0 - (1.0 - level) / max(1, rewriters * (rewriters - 1) // 2)


class Unreplicated(NamedTuple):
    """Variance by source with one draw each; negative estimates are set to 0.

    Attributes:
        text: between texts.
        rewriter: between rewriters, the same for all texts.
        rest: of a rewriter on a text: what it does to this text in particular, and its chance.
    """

    text: float
    rewriter: float
    rest: float


def unreplicated_components(values: Float[np.ndarray, "texts rewriters"]) -> Unreplicated:
    """Components of value = mean + text + rewriter + rest, by mean squares.

        rest = MS_rest,  rewriter = (MS_rewriter - MS_rest) / n,  text = (MS_text - MS_rest) / R

    Args:
        values: signed differences; at least two texts and two rewriters.

    Assumes that rewriters are a sample: of two of them, the variance between has one degree of freedom.

    Source: [2], two-way crossed data without replication.
    """
    texts, rewriters = values.shape
    by_text, by_rewriter, overall = values.mean(axis=1), values.mean(axis=0), values.mean()
    residual = values - by_text[:, None] - by_rewriter[None, :] + overall
    rest = float(np.square(residual).sum()) / ((texts - 1) * (rewriters - 1))
    text_square = rewriters * float(np.square(by_text - overall).sum()) / (texts - 1)
    rewriter_square = texts * float(np.square(by_rewriter - overall).sum()) / (rewriters - 1)
    return Unreplicated(max(0.0, (text_square - rest) / rewriters), max(0.0, (rewriter_square - rest) / texts), rest)


def robustness(effects: Sequence[Interval], differences: Sequence[Interval]) -> Robustness:
    """What the effects by all rewriters, and the differences of all pairs, say together; see `Robustness`.

    A difference without an interval because there is no spread counts as 0 or not by its value alone.

    Source: ours; intervals as in [1].
    """
    sides = [_side(one) for one in effects]
    if any(side is None for side in sides):
        return "unknown"
    apart = any(_side(one) not in (0, None) or (_side(one) is None and one.value not in (None, 0.0))
                for one in differences)  # fmt: skip
    if len(set(sides)) == 1:
        if sides[0] == 0:
            return "depends" if apart else "none"
        return "direction" if apart else "same"
    return "depends" if apart or {-1, 1} <= set(sides) else "open"


def _side(found: Interval) -> int | None:
    """Where the interval lies: above 0, below it, or around it; None without an interval."""
    if found.low is None or found.high is None:
        return None
    return int(found.low > 0.0) - int(found.high < 0.0)


def all_differences(
    rewards: Sequence[Rewards], estimator: Estimator = "double", target: Target = "ATE", level: float = 0.95
) -> dict[tuple[int, int], Interval]:
    """`difference` of every pair of rewriters, at the level of `pairs_level`. Source: as there."""
    each = pairs_level(len(rewards), level)
    return {
        (first, second): difference(rewards[first], rewards[second], estimator, target, each)
        for first, second in combinations(range(len(rewards)), 2)
    }
