"""What a policy has learned: how far attributes have moved from the reference, and how a forecast meets that.

Conventions
    P, K       prompts, the same for all policies; attributes
    path       the checkpoints of one training in the order of their steps, the reference first
    KL         of a checkpoint from the reference, nats per completion, one number per prompt; of the reference 0
    W          means of the attributes over the completions of a prompt; of attributes that are there or not, shares
    kappa      the distance at which a shift is told: shifts are read along straight lines in sqrt(KL) between
               neighbouring checkpoints, where the path first gets there, and never beyond its last checkpoint
    influence  as in `intervals`: one per prompt, sums to 0
    units      of an agreement: what is independent and is resampled, a reward model with all the policies trained on it
    p, s       predicted and realised shifts, [units, points] (points: attributes at distances); NaN where there is none

References
    [1] Korbak et al. 2022, RL with KL penalties is better viewed as Bayesian inference, arXiv 2205.11275 (shifts grow
        with sqrt(KL) to first order: `functional.forecast`).
    [2] Hampel 1974, The influence curve and its role in robust estimation (delta method).
    [3] Davison and Hinkley 1997, Bootstrap methods and their application, section 3.8.
    [4] Spearman 1904, The proof and measurement of association between two things.
    [5] Phipson and Smyth 2010, Permutation p-values should never be zero.
    [6] Cox 1958, Two further applications of a model for binary regression (the calibration slope).
    [7] Brown 1910, Some experimental results in the correlation of mental abilities; Spearman 1910, Correlation
        calculated from faulty data (split halves).
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator

from rewardlab.functional.agreement import spearman_along
from rewardlab.functional.intervals import Statistic

MEASURES = ("error", "rank", "slope")
"""How a forecast meets what happened: columns of `meeting`."""

_MOST_HALVED = 8
"""Seeds of which all halves are compared."""

Shifts = Float[np.ndarray, "units points"]


class Crossing(NamedTuple):
    """Where a path first gets to a distance: between two of its points.

    Attributes:
        before, after: their numbers.
        share: of the way in sqrt(KL) from the one to the other, in (0, 1].
    """

    before: int
    after: int
    share: float


def crossing(divergences: Float[np.ndarray, " points"], at: float) -> Crossing | None:
    """Where a path first gets to `at` nats; None where no checkpoint does.

    Args:
        divergences: KL of its points, the reference first (0); what chance has put below 0 counts as 0.
        at: nats, above 0.

    Raises:
        ValueError: `at` of 0 or less.

    Source: bookkeeping; that sqrt(KL) is the scale is [1].
    """
    if not at > 0.0:
        raise ValueError(f"a distance of {at:g} nats; expected more than 0")
    roots = np.sqrt(np.maximum(divergences, 0.0))
    target = math.sqrt(at)
    beyond = np.flatnonzero(roots >= target)
    if len(beyond) == 0:
        return None
    after = int(beyond[0])
    share = (target - roots[after - 1]) / (roots[after] - roots[after - 1])
    return Crossing(after - 1, after, float(share))


def shifts_at(
    divergences: Float[np.ndarray, "points P"], values: Float[np.ndarray, "points P K"], at: float
) -> list[Statistic] | None:
    """Shift of the mean of every attribute from the reference where a path first gets to `at` nats.

    With r = sqrt(mean KL), b and a the points before and after, t = (sqrt(kappa) - r_b) / (r_a - r_b):

        shift = (1 - t) W_b + t W_a - W_ref
        psi   = (1 - t) psi(W_b) + t psi(W_a) - psi(W_ref) - (W_a - W_b) ((1 - t) psi(r_b) + t psi(r_a)) / (r_a - r_b)
        psi(r) = (KL_p - mean KL) / (2 r)

    so the interval knows that the distance, too, is an estimate. It takes as given between which points kappa lies.

    Args:
        divergences: KL of every point by prompt, the reference first.
        values: W, in the same order.
        at: kappa, above 0.

    Returns:
        A statistic per attribute, with an influence per prompt; None where the path does not get there.

    Source: [1] for the scale, [2] for the influence.
    """
    means = divergences.mean(axis=1)
    place = crossing(means, at)
    if place is None:
        return None
    roots = np.sqrt(np.maximum(means, 0.0))
    before, after, share = place
    gap = roots[after] - roots[before]
    own = values.mean(axis=1)
    psi = values - own[:, None, :]
    away = (1.0 - share) * _of_root(divergences[before], roots[before]) + share * _of_root(
        divergences[after], roots[after]
    )
    total = (1.0 - share) * own[before] + share * own[after] - own[0]
    influence = (1.0 - share) * psi[before] + share * psi[after] - psi[0]
    influence = influence - away[:, None] / gap * (own[after] - own[before])
    return [Statistic(float(value), column) for value, column in zip(total, influence.T, strict=True)]


def _of_root(divergences: Float[np.ndarray, " P"], root: float) -> Float[np.ndarray, " P"]:
    """Influence on the root of the mean KL; that of the reference, which is at 0 by definition, is 0."""
    if root == 0.0:
        return np.zeros(len(divergences))
    return np.asarray((divergences - divergences.mean()) / (2.0 * root))


def log_odds_shift(reference: Statistic, shift: Statistic) -> Statistic | None:
    """logit(P + shift) - logit(P), with P the share of the reference; None where a share is 0 or 1, or beyond.

    Args:
        reference: P, with an influence per prompt.
        shift: of the share, with influence of the same prompts.

    Source: delta method, [2].
    """
    before, after = reference.value, reference.value + shift.value
    if not (0.0 < before < 1.0 and 0.0 < after < 1.0):
        return None
    value = math.log(after / (1.0 - after)) - math.log(before / (1.0 - before))
    psi = (reference.influence + shift.influence) / (after * (1.0 - after))
    return Statistic(value, psi - reference.influence / (before * (1.0 - before)))


def meeting(
    predicted: Float[np.ndarray, "*batch n"], realised: Float[np.ndarray, "*batch n"]
) -> Float[np.ndarray, "*batch 3"]:
    """How predicted shifts meet realised ones, in the order of `MEASURES`; NaN where a measure is not defined.

        error     mean |s - p|
        rank      Spearman correlation of p and s
        slope     of the least-squares line of s on p, with an intercept: 1 where a forecast is calibrated, below 1
                  where it promises too much

    Args:
        predicted, realised: p and s, without missing numbers.

    Source: [4] for the rank, [6] for the idea of the slope; the error is a mean.
    """
    if predicted.shape[-1] == 0:
        return np.full((*predicted.shape[:-1], len(MEASURES)), np.nan)
    centred = predicted - predicted.mean(axis=-1, keepdims=True)
    square = np.square(centred).sum(axis=-1)
    varies = np.ptp(predicted, axis=-1) > 0.0
    slope = np.where(varies, (centred * realised).sum(axis=-1) / np.where(varies, square, 1.0), np.nan)
    found = [np.abs(realised - predicted).mean(axis=-1), spearman_along(predicted, realised), slope]
    return np.stack(found, axis=-1)


def right_signs(predicted: Shifts, realised: Shifts, least: Shifts) -> Shifts:
    """1 where the sign of a shift was forecast, 0 where not; NaN where |s| is not above `least`, or one is missing.

    Args:
        predicted, realised: p and s.
        least: from where on a shift counts: above what matters, and above chance.

    Source: the sign test (Arbuthnott 1710), of shifts that are told from 0.
    """
    found = (np.sign(predicted) == np.sign(realised)).astype(np.float64)
    return np.where(np.isfinite(predicted) & (np.abs(realised) > least), found, np.nan)


def covers(predicted: Shifts, realised: Shifts, halves: Shifts, other_halves: Shifts) -> Shifts:
    """1 where the interval of s - p holds 0, else 0; NaN where something is missing.

        |s - p| <= sqrt(h_p^2 + h_s^2)

    Args:
        predicted, realised: p and s.
        halves, other_halves: half the widths h_p and h_s of their intervals, at one level.

    Source: the interval of a difference of independent estimates (Student 1908; delta method [2]).
    """
    inside = np.abs(realised - predicted) <= np.hypot(halves, other_halves)
    known = np.isfinite(realised - predicted) & np.isfinite(halves + other_halves)
    return np.where(known, inside.astype(np.float64), np.nan)


def meetings(
    predicted: Shifts, realised: Shifts, counts: Int[np.ndarray, "draws units"]
) -> Float[np.ndarray, "draws 3"]:
    """`meeting` of resamples of whole units: what is there of both, of every unit as often as it was drawn.

    A unit that was drawn twice counts twice: means, ranks (ties in their middle) and moments are weighted by counts,
    which is `meeting` of the resample written out.

    Args:
        predicted, realised: p and s.
        counts: how often every unit is in every resample; the same for several forecasts makes differences paired.

    Source: [3].
    """
    known = np.isfinite(predicted) & np.isfinite(realised)
    p, s = predicted[known], realised[known]
    weights = counts[:, np.nonzero(known)[0]].astype(np.float64)
    if not p.size:
        return np.full((len(counts), len(MEASURES)), np.nan)
    error = _weighted_mean(np.abs(s - p), weights)
    varies = _varies_among(p, weights)
    middle = _weighted_mean(p, weights)[:, None]
    square = (weights * np.square(p - middle)).sum(axis=1)
    slope = np.where(varies, (weights * (p - middle) * s).sum(axis=1) / np.where(varies, square, 1.0), np.nan)
    ranks = [_weighted_ranks(one, weights) for one in (p, s)]
    left, right = (one - _weighted_mean(one, weights)[:, None] for one in ranks)
    both = varies & _varies_among(s, weights)
    scale = np.sqrt((weights * np.square(left)).sum(axis=1) * (weights * np.square(right)).sum(axis=1))
    rank = np.where(both, (weights * left * right).sum(axis=1) / np.where(both, scale, 1.0), np.nan)
    return np.stack([error, rank, slope], axis=1)


def share_of_known(flags: Shifts, counts: Int[np.ndarray, "draws units"]) -> Float[np.ndarray, " draws"]:
    """The mean of what has a say (1 or 0; NaN has none) in resamples of whole units; NaN where nothing has.

    Args:
        flags: as `right_signs` and `covers` give them.
        counts: as in `meetings`.

    Source: [3].
    """
    known = np.isfinite(flags)
    return _weighted_mean(flags[known], counts[:, np.nonzero(known)[0]].astype(np.float64))


def _weighted_mean(
    values: Float[np.ndarray, " n"] | Float[np.ndarray, "draws n"], weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, " draws"]:
    total = weights.sum(axis=1)
    return np.asarray(np.where(total > 0.0, (weights * values).sum(axis=1) / np.where(total > 0.0, total, 1.0), np.nan))


def _varies_among(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, "draws n"]) -> np.ndarray:
    there = weights > 0.0
    return np.asarray(np.where(there, values, -np.inf).max(axis=1) > np.where(there, values, np.inf).min(axis=1))


def _weighted_ranks(
    values: Float[np.ndarray, " n"], weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws n"]:
    """Ranks in every resample: how much is below, and half of what is as large."""
    _, group = np.unique(values, return_inverse=True)
    of_group = np.zeros((len(weights), int(group.max()) + 1))
    np.add.at(of_group.T, group, weights.T)
    below = np.cumsum(of_group, axis=1) - of_group
    return np.asarray((below + of_group / 2.0)[:, group])


class Ceiling(NamedTuple):
    """What a perfect forecast of the mean over seeds would reach; None where seeds do not tell it.

    Attributes:
        error: its mean |s - p|.
        rank: its rank correlation.
    """

    error: float
    rank: float | None


def ceiling_of(seeds: Float[np.ndarray, "points seeds"]) -> Ceiling:
    """What the noise of seeds leaves for a forecast to reach, from halves of the seeds against each other.

    With a and b seeds the halves' means differ by chance of variance v(1/a + 1/b), and the mean over all is off by
    v/(a + b): sqrt(ab)/(a + b) as much. Correlated r, the halves have s = v / Var(truth) with

        r^2 = 1 / ((1 + s/a)(1 + s/b)),    and the truth is correlated 1 / sqrt(1 + s/(a + b)) with the mean over all

    (Spearman and Brown's formula under the root, where a = b). Errors and correlations are means over ways to
    halve. What seeds share, prompts above all, is not in it.

    Args:
        seeds: shifts of every seed, without missing numbers, two seeds or more.

    Raises:
        ValueError: fewer than two seeds, or no shift.

    Source: [7]; normal noise for the error; ranks are treated as values.
    """
    points, count = seeds.shape
    if count < 2 or not points:
        raise ValueError(f"{points} shifts of {count} seeds; a ceiling needs one of two seeds")
    a = count // 2
    b = count - a
    errors, ranks = [], []
    # Of many seeds the halves that begin with each in turn: all of them are more than can be counted.
    turns = [tuple((first + place) % count for place in range(a)) for first in range(count)]
    for chosen in combinations(range(count), a) if count <= _MOST_HALVED else turns:
        half = seeds[:, list(chosen)].mean(axis=1)
        other = np.delete(seeds, chosen, axis=1).mean(axis=1)
        errors.append(np.abs(half - other).mean())
        ranks.append(float(spearman_along(half, other)))
    error = float(np.mean(errors)) * math.sqrt(a * b) / count
    rank = float(np.mean(ranks))
    if not rank > 0.0:
        return Ceiling(error, None)
    middle = (1.0 / a + 1.0 / b) / 2.0
    noise = a * b * (math.sqrt(middle**2 + (1.0 / rank**2 - 1.0) / (a * b)) - middle)
    return Ceiling(error, 1.0 / math.sqrt(1.0 + noise / count))


def permutation_p(
    predicted: Shifts, realised: Shifts, generator: Generator, draws: int = 2000
) -> tuple[float, float | None]:
    """One-sided p-values (c + 1) / (B + 1) that error is as low, and rank correlation as high, with others' forecasts.

    Whole forecasts are dealt out anew over the units, so that what all reward models have in common proves nothing.

    Args:
        predicted, realised: p and s, without missing numbers.
        generator: of the permutations.
        draws: B.

    Returns:
        Of the error and of the rank correlation, None where the latter is not defined.

    Source: [5] for the 1.
    """
    dealt = np.stack([predicted, *(generator.permutation(predicted, axis=0) for _ in range(draws))])
    flat = dealt.reshape(draws + 1, -1)
    own, *drawn = meeting(flat, np.broadcast_to(realised.ravel(), flat.shape))[:, :2]
    # Sums of the same numbers in another order differ by rounding: an equal one counts as reached.
    room = 1e-12
    errors, ranks = np.stack(drawn, axis=1)
    error = (float((errors <= own[0] + room).sum()) + 1.0) / (draws + 1.0)
    if np.isnan(own[1]):
        return error, None
    return error, (float((ranks >= own[1] - room).sum()) + 1.0) / (draws + 1.0)
