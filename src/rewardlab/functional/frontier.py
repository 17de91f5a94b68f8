"""Reward against distance: best-of-n from samples at hand, divergence, repetition, and the area under a frontier.

Conventions
    KL         of the policy from the reference, in nats per completion: E over the policy's samples of
               log pi(y|x) - log pi_ref(y|x)
    n, N       of best-of-n, and completions sampled from the reference for a prompt, N >= n
    shapes     [prompts, N], a row per prompt; nothing is averaged over prompts, so that the caller can give intervals
    frontier   a curve through (0, reward of the reference) and points (KL, reward); at k nats it has the best reward
               that is reached at k nats or less

References
    [1] Gao, Schulman and Hilton 2023, Scaling laws for reward model overoptimization, arXiv 2210.10760, equation 1 and
        appendix I (the unbiased estimator of best-of-n).
    [2] Stiennon et al. 2020, Learning to summarize from human feedback, arXiv 2009.01325, appendix G.3 (KL of
        best-of-n); Beirami et al. 2024, Theoretical guarantees on the best-of-n alignment policy, arXiv 2401.01879
        (it is an upper bound, which is reached where no two rewards are equal and no completion is likely).
    [3] Li et al. 2016, A diversity-promoting objective function for neural conversation models, arXiv 1510.03055
        (distinct-n).
    [4] Ji et al. 2024, Towards efficient exact optimization of language model alignment, arXiv 2402.00856, section 5
        (the frontier of reward and KL).
    [5] Tukey 1958, Bias and confidence in not quite large samples (pseudo-values of the jackknife).
    [6] Searle, Casella and McCulloch 1992, Variance components, section 4.3 (two-way crossed data); Owen 2007, The
        pigeonhole bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln

from rewardlab.functional.intervals import Interval, Statistic, interval, mean, widened
from rewardlab.functional.rewriters import unreplicated_components


def best_of_weights(scores: Float[np.ndarray, "prompts N"], n: int) -> Float[np.ndarray, "prompts N"]:
    """The probability that a completion is the best of n drawn without repetition from the N of its prompt.

        w_(i) = C(i - 1, n - 1) / C(N, n)        for the i-th lowest score

    The mean of any measure under these weights is the unbiased estimate of its mean over best-of-n by `scores`: of the
    scores themselves, of another reward, of the length. Equal scores share their weight, as if a coin decided.

    Args:
        scores: what the best is chosen by.
        n: from 1, where all weights are 1/N, to N.

    Raises:
        ValueError: n outside 1 to N, or scores that are no numbers.

    Source: [1], appendix I.
    """
    prompts, size = scores.shape
    if not 1 <= n <= size:
        raise ValueError(f"best of {n} from {size} completions to a prompt; expected 1 to {size}")
    if np.isnan(scores).any():
        raise ValueError("scores that are no numbers (NaN) have no best")
    places = np.arange(size)
    logs = np.full(size, -np.inf)
    possible = places >= n - 1
    logs[possible] = _log_choose(places[possible], n - 1) - _log_choose(np.array([size]), n)
    by_rank = np.exp(logs)
    weights = np.empty((prompts, size))
    for row, own in enumerate(scores):
        _, tied = np.unique(own, return_inverse=True)
        counts = np.bincount(tied)
        # Of tied completions, which take consecutive ranks, each has the mean of the weights of these ranks.
        shared = np.add.reduceat(by_rank, np.concatenate([[0], np.cumsum(counts)[:-1]])) / counts
        weights[row] = shared[tied]
    return weights


def best_of_kl(n: int) -> float:
    """KL of best-of-n from what it draws from, in nats: log n - (n - 1) / n.

    Raises:
        ValueError: n below 1.

    Source: [2]; an upper bound where rewards can be equal.
    """
    if n < 1:
        raise ValueError(f"best of {n}; expected 1 or more")
    return math.log(n) - (n - 1) / n


def distinct_ngrams(sequences: Sequence[Sequence[int]], n: int) -> float | None:
    """The number of different n-grams over that of all n-grams of the sequences; None where there are none.

    It falls as there are more or longer sequences: compare equal numbers of them, and read it beside the length.

    Raises:
        ValueError: n below 1.

    Source: [3].
    """
    if n < 1:
        raise ValueError(f"n-grams of {n}; expected 1 or more")
    grams = [tuple(one[start : start + n]) for one in sequences for start in range(len(one) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def frontier_at(
    divergences: Float[np.ndarray, " points"],
    rewards: Float[np.ndarray, " points"],
    at: Float[np.ndarray, " places"],
    start: float,
) -> Float[np.ndarray, " places"]:
    """The best reward that is reached at k nats or less, between the points along straight lines.

    Args:
        divergences: KL of the points, in any order; what chance has put below 0 counts as 0.
        rewards: of the points.
        at: k, in nats, at least 0.
        start: reward of the reference, at 0 nats.

    Returns:
        Shape [places], never falling in k: who may go further may also stay.

    Raises:
        ValueError: numbers that are not finite, or places below 0.

    Source: [4]; that it never falls is ours.
    """
    if not (np.isfinite(divergences).all() and np.isfinite(rewards).all() and math.isfinite(start)):
        raise ValueError("a frontier of numbers that are not finite")
    if (at < 0).any():
        raise ValueError("a frontier has no places below 0 nats")
    order = np.lexsort((rewards, np.maximum(divergences, 0.0)))
    along = np.concatenate([[0.0], np.maximum(divergences, 0.0)[order]])
    heights = np.maximum.accumulate(np.concatenate([[start], rewards[order]]))
    # Of points at one place the best counts: heights never fall, so it is the last one.
    last = np.append(along[1:] > along[:-1], True)
    return np.asarray(np.interp(at, along[last], heights[last]))


def frontier_area(
    divergences: Float[np.ndarray, " points"],
    rewards: Float[np.ndarray, " points"],
    start: float,
    *,
    low: float = 0.5,
    high: float = 5.0,
) -> float:
    """Mean height of the frontier above the reference between `low` and `high` nats, in units of the reward.

    Args:
        divergences: KL of the points.
        rewards: of the points.
        start: reward of the reference.
        low: in nats.
        high: in nats, above `low`. Beyond the last point the frontier stays as high as it is.

    Raises:
        ValueError: see `frontier_at`; or ends out of order.

    Source: ours, of the frontier of [4].
    """
    if not 0 <= low < high:
        raise ValueError(f"an area from {low:g} to {high:g} nats; expected 0 <= low < high")
    inside = np.maximum(divergences, 0.0)
    corners = np.unique(np.concatenate([[low, high], inside[(inside > low) & (inside < high)]]))
    heights = frontier_at(divergences, rewards, corners, start) - start
    return float(np.trapezoid(heights, corners) / (high - low))


def without_each(
    sums: Float[np.ndarray, "*points prompts"], counts: Float[np.ndarray, "*points prompts"]
) -> Float[np.ndarray, "*points prompts"]:
    """Means over the completions of all prompts but one; NaN where nothing else is known. Source: [5].

    Args:
        sums: over the completions of each prompt whose measure is known.
        counts: how many these are.
    """
    left = counts.sum(axis=-1, keepdims=True) - counts
    total = sums.sum(axis=-1, keepdims=True) - sums
    return np.asarray(np.divide(total, left, out=np.full(np.shape(total), np.nan), where=left > 0))


def area_pseudo_values(
    area: float,
    divergences: Float[np.ndarray, "points prompts"],
    rewards: Float[np.ndarray, "points prompts"],
    start: Float[np.ndarray, " prompts"],
    *,
    low: float = 0.5,
    high: float = 5.0,
) -> Float[np.ndarray, " prompts"]:
    """What every prompt adds to the area under a frontier: P A - (P - 1) A without the prompt.

    Args:
        area: A, from all prompts.
        divergences: KL of the points without each prompt, as `without_each` gives them.
        rewards: the same of their rewards.
        start: reward of the reference without each prompt.
        low, high: as in `frontier_area`.

    Raises:
        ValueError: see `frontier_area`.

    Source: [5]. It needs an area that is smooth in the means: right for points that are clearly apart in reward and KL,
    and rough where two points are equally good within chance.
    """
    prompts = len(start)
    left_out = np.array(
        [frontier_area(divergences[:, one], rewards[:, one], start[one], low=low, high=high) for one in range(prompts)]
    )
    return np.asarray(prompts * area - (prompts - 1) * left_out)


def over_seeds_and_prompts(
    values: Float[np.ndarray, " seeds"], by_prompt: Float[np.ndarray, "prompts seeds"], level: float = 0.95
) -> Interval:
    """The mean of a number over several seeds (an area, a shift), with an interval for other seeds and other prompts.

        se^2 = s_seeds^2 / S + max(0, MS_prompts - MS_rest) / (S P)

    The first term is Student's over seeds, and has in it what prompts and seeds do together; the second is what a
    prompt does to all seeds alike, the reference's part among it. Of one seed the interval is Student's over prompts:
    it holds for other prompts, given this training. Differences, seed by seed, are such numbers too.

    Args:
        values: of each seed.
        by_prompt: pseudo-values of its prompts, or value plus influence; the same prompts for all seeds.
        level: coverage.

    Returns:
        With n the seeds and `clusters` the prompts.

    Source: [6]; degrees of freedom as in `intervals.widened`.
    """
    prompts, seeds = by_prompt.shape
    if seeds == 1:
        own = by_prompt[:, 0]
        return interval(Statistic(float(values[0]), own - own.mean()), level=level)._replace(n=1)
    found = mean(values, level=level)
    if prompts > 1:
        shared = unreplicated_components(by_prompt).text / prompts
        found = widened(found, [(shared, prompts - 1.0)], level)
    return found._replace(clusters=prompts)


def _log_choose(of: Int[np.ndarray, " k"], chosen: int) -> Float[np.ndarray, " k"]:
    return np.asarray(gammaln(of + 1.0) - gammaln(chosen + 1.0) - gammaln(of - chosen + 1.0))
