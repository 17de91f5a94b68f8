"""Credit for ordering two things rightly.

Conventions
    better, worse   a value per pair for the side that should win and for the one that should lose
    credit          1 where the right side has the larger value, 0 where the wrong one has, `ties` where they are equal;
                    accuracy is the mean credit
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def credit(
    better: Float[np.ndarray, " pairs"], worse: Float[np.ndarray, " pairs"], ties: float = 0.5
) -> Float[np.ndarray, " pairs"]:
    """Credit per pair for giving `better` the larger value.

    Args:
        better: values of the sides that should win.
        worse: values of the sides that should lose.
        ties: credit of equal values. 1/2 is what a coin would get, so a constant scores 1/2 on average; published
            code has 0 (equal counts as wrong) and 1 (equal counts as right), kept for parity.

    With lengths for values it is the longer-is-better heuristic.

    Source: the area under the ROC curve counts ties so: Hanley and McNeil 1982, The meaning and use of the area
    under a receiver operating characteristic curve, equation 1.
    """
    return np.where(better == worse, ties, (better > worse).astype(np.float64))


def candidate_agreement(
    scores: Float[np.ndarray, " k"], rewards: Float[np.ndarray, " k"]
) -> tuple[float | None, float | None]:
    """How well scores of K candidates order them by their rewards.

    Returns:
        The share of candidate pairs with different rewards that the scores order rightly (ties in score 1/2), and
        the probability that a candidate drawn among those of the highest score has the highest reward. Both None
        where all rewards are equal.

    Source: pairwise accuracy and best-of-K accuracy as in Lambert et al. 2024, RewardBench, arXiv 2403.13787,
    section 4, with ties shared.
    """
    if rewards.max() == rewards.min():
        return None, None
    first, second = np.nonzero(rewards[:, None] > rewards[None, :])
    top = scores == scores.max()
    best = rewards == rewards.max()
    return float(credit(scores[first], scores[second]).mean()), float((top & best).sum() / top.sum())
