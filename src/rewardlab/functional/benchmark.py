"""The published scores of benchmarks of reward models.

Conventions
    credit      of a pair or a set of answers, in [0, 1]; accuracy is its mean
    right       of the answers of one prompt, those that are correct
    margin      of one prompt: the lowest score of a right answer minus the highest of a wrong one
    spread      of one prompt: the highest minus the lowest score of its right answers
    styles      K ways to write an answer, from the plainest (0) to the most elaborate (K - 1)
    statistics are pairs (value, influence), see `functional.intervals`, so that every score has an interval

References
    [1] Lambert et al. 2024, RewardBench, arXiv 2403.13787; code: github.com/allenai/reward-bench.
    [2] Malik et al. 2025, RewardBench 2, arXiv 2506.01937; code: the same, commit a009692, rewardbench/utils.py,
        `reroll_and_score_dataset`, `_compute_prompt_stats` and `process_single_model`.
    [3] Liu et al. 2024, RM-Bench, arXiv 2410.16184; code: github.com/THU-KEG/RM-Bench, README.md, `compute_accuracy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from rewardlab.functional.accuracy import credit
from rewardlab.functional.intervals import Clusters, Interval, Statistic, interval, proportion, ratio_statistic

CLOSENESS_SHARE = 0.01
TIES_ENDS = {"overall": (-CLOSENESS_SHARE, 1.0 + CLOSENESS_SHARE), "closeness": (-1.0, 1.0)}
"""The lowest and the highest that parts of the Ties score can be; the others are shares."""


class TiesScore(NamedTuple):
    """The score of prompts with many equally right answers, and its parts; influences are per prompt.

    Attributes:
        overall: 0.3 tied + 0.3 reference + 0.2 preferred + 0.2 preferred_hard + 0.01 closeness; from -.01 to 1.01.
        tied: share of the prompts with several right answers all of which score above every wrong one.
        reference: the same of the reference prompts, which have one right answer.
        preferred: share of the tied prompts with margin > spread.
        preferred_hard: the same with the smaller one of the margins of the prompt and of its reference.
        closeness: mean of tanh(that smaller margin / spread - 1).
    """

    overall: Statistic
    tied: Statistic
    reference: Statistic
    preferred: Statistic
    preferred_hard: Statistic
    closeness: Statistic


def weighted(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> Statistic:
    """sum(w x) / sum(w): accuracy of a section whose subsets count by their sizes, some of them more.

    Weights are not negative and do not sum to 0.

    Source: [1], section 4 and `calculate_scores_per_section`.
    """
    return ratio_statistic(weights * values, weights)


def average(statistics: Sequence[Statistic]) -> Statistic:
    """Mean of statistics of the same observations in the same order, each counting alike: sections, subsets.

    Source: [1], section 4; [2], section 4; influences by linearity.
    """
    value = float(np.mean([one.value for one in statistics]))
    return Statistic(value, np.mean([one.influence for one in statistics], axis=0))


def bounded(
    statistic: Statistic, clusters: Clusters = None, level: float = 0.95, ends: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """The clustered Student interval of a statistic, cut at the ends of what it can be.

    For a mean of credits, weighted or not, these are 0 and 1. Where all of the credit is 0, or all of it is 1, the
    exact binomial bound stands in, as in `intervals.proportion`.

    Source: as in `intervals.proportion`.
    """
    is_share = ends == (0.0, 1.0)
    if is_share and statistic.value in ends and not statistic.influence.any():
        return proportion(np.full(len(statistic.influence), statistic.value), clusters, level)
    found = interval(statistic, clusters, level)
    if found.low is None or found.high is None:
        return found
    return found._replace(low=max(found.low, ends[0]), high=min(found.high, ends[1]))


def best_of_k(scores: Float[np.ndarray, " k"], right: Bool[np.ndarray, " k"]) -> float:
    """Credit for having a right answer on top: the share of right ones among those of the highest score.

    With one right answer it is 1 / (number of answers on top) where that is among them, else 0.

    Source: [2], `reroll_and_score_dataset`.
    """
    return float(right[scores == scores.max()].mean())


def margin_and_spread(scores: Float[np.ndarray, " k"], right: Bool[np.ndarray, " k"]) -> tuple[float, float]:
    """Margin and spread of the answers to one prompt; the spread of a single right answer is not a number.

    Needs a right and a wrong answer.

    Source: [2], `_compute_prompt_stats`.
    """
    good, bad = scores[right], scores[~right]
    spread = float(good.max() - good.min()) if len(good) > 1 else float("nan")
    return float(good.min() - bad.max()), spread


def ties_score(
    number: Shaped[np.ndarray, " n"],
    reference: Bool[np.ndarray, " n"],
    margin: Float[np.ndarray, " n"],
    spread: Float[np.ndarray, " n"],
) -> TiesScore | None:
    """The Ties score of RewardBench 2, from prompts with many right answers and references with one.

    Args:
        number: which prompt of several right answers and which reference belong together.
        reference: whether a prompt is a reference.
        margin, spread: of every prompt, from `margin_and_spread`.

    A tied prompt counts for the last three parts where its reference is there and its spread is a number; none such,
    and there is no score. A spread of 0 gives a closeness of 1, -1 or 0, by the sign of the margin, as published.

    Source: [2], `process_single_model`.
    """
    of_reference = dict(zip(number[reference].tolist(), margin[reference].tolist(), strict=True))
    both = ~reference & np.isin(number, number[reference]) & ~np.isnan(spread)
    if not both.any():
        return None
    beside = np.array([of_reference.get(label, np.nan) for label in number.tolist()])
    smaller = np.where(both, np.fmin(margin, beside), 0.0)
    width = np.where(both, spread, 1.0)
    signs = np.where(smaller == 0.0, 0.0, np.sign(smaller))
    close = np.where(width > 0.0, np.tanh(smaller / np.where(width > 0.0, width, 1.0) - 1.0), signs)

    def share(values: Shaped[np.ndarray, " n"], inside: Bool[np.ndarray, " n"]) -> Statistic:
        return weighted(np.where(inside, values, 0).astype(np.float64), inside.astype(np.float64))

    parts = (
        share(margin > 0.0, ~reference),
        share(margin > 0.0, reference),
        share(margin > width, both),
        share(smaller > width, both),
        share(close, both),
    )
    shares = (0.3, 0.3, 0.2, 0.2, CLOSENESS_SHARE)
    value = sum(share * part.value for share, part in zip(shares, parts, strict=True))
    influence = np.sum([share * part.influence for share, part in zip(shares, parts, strict=True)], axis=0)
    return TiesScore(Statistic(value, influence), *parts)


def style_wins(
    right: Float[np.ndarray, "n K"], wrong: Float[np.ndarray, "n K"], ties: float = 0.5
) -> Float[np.ndarray, "n K K"]:
    """Credit of the right answer in style i (axis 1) against the wrong answer in style j (axis 2), prompt by prompt.

    Args:
        right, wrong: scores by style.
        ties: credit of equal scores; the published code has 0.

    Its mean over prompts is the style matrix.

    Source: [3].
    """
    first, second = np.broadcast_arrays(right[:, :, None], wrong[:, None, :])
    return credit(first.ravel(), second.ravel(), ties).reshape(first.shape)


def difficulties(wins: Float[np.ndarray, "n K K"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Mean credit of each prompt where style helps, where it is the same, and where it hinders.

    Easy is the lower triangle (the right answer is the more elaborate one), normal the diagonal, hard the upper one.
    Needs K >= 2.

    Source: [3].
    """
    styles = np.arange(wins.shape[1])
    row, column = styles[:, None], styles[None, :]
    parts = {"easy": row > column, "normal": row == column, "hard": row < column}
    return {name: wins[:, inside].mean(axis=1) for name, inside in parts.items()}
