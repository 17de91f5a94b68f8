"""Numbers of a frontier: of every checkpoint, of best-of-n, which checkpoint to take, and the area under each curve.

Intervals are Student's over prompts: completions of one prompt are a cluster. Areas have theirs over seeds
and prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from rewardlab.evaluate.frontier_runs import BEST_OF
from rewardlab.evaluate.frontier_samples import Written
from rewardlab.functional.frontier import (
    area_pseudo_values,
    best_of_kl,
    best_of_weights,
    distinct_ngrams,
    frontier_area,
    over_seeds_and_prompts,
    without_each,
)
from rewardlab.functional.intervals import (
    NO_OBSERVATIONS,
    ONE_CLUSTER,
    Interval,
    mean,
    over_trainings,
    proportion,
)

REWARD = "reward"
HELD_OUT = "held_out."
"""What held-out rewards are called by, with their name behind it."""
TOKENS = "tokens"
ONE_SEED = "one seed: the interval is over prompts, given this training"
_ESTIMATED = ("value", "low", "high", "error", "n", "clusters", "reason")

Values = dict[str, Any]


def checkpoint_values(written: Written, n: int, level: float) -> Values:
    """The estimates of a policy, as JSON values.

    Args:
        written: its completions.
        n: of each prompt, over how many distinct n-grams are counted, so that they compare.
        level: of the intervals.
    """
    clusters = written.prompt_id
    alike = [ids for ids, number in zip(written.token_ids, written.number, strict=True) if number < n]
    one = written.checkpoint
    divergence = mean(written.log_ratio, clusters, level)
    if not written.log_ratio.any():
        divergence = divergence._replace(error=0.0)
    return {
        "run": one.run,
        "seed": one.seed,
        "step": one.step,
        "policy": str(one.policy),
        "prompts": len(np.unique(clusters)),
        "completions": len(clusters),
        "kl": as_values(divergence),
        "rewards": {name: as_values(_mean(values, clusters, level)) for name, values in written.rewards.items()},
        "tokens": as_values(mean(written.tokens.astype(float), clusters, level)),
        "unfinished": as_values(proportion((~written.finished).astype(float), clusters, level)),
        "distinct_1": distinct_ngrams(alike, 1),
        "distinct_2": distinct_ngrams(alike, 2),
        "rounding": written.rounding,
    }


def best_of_values(reference: Written, sizes: Sequence[int], level: float) -> list[Values]:
    """Rewards, lengths and KL of best-of-n by the reward, from the reference's completions; prompts with a completion
    that has no reward are left out.

    Args:
        reference: as many completions of every prompt, at least the largest of `sizes`.
        sizes: values of n.
        level: of the intervals.
    """
    found = []
    for size in sizes:
        known, values = _best_of_means(reference, size)
        means = {name: as_values(_mean(own, None, level)) for name, own in values.items()}
        tokens = means.pop(TOKENS)
        found.append(
            {"n": size, "kl": best_of_kl(size), "rewards": means, "tokens": tokens, "prompts": int(known.sum())}
        )
    return found


def _best_of_means(reference: Written, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which prompts have a reward for every completion, shape [prompts], and of those the means over best of `size`."""
    prompts = len(np.unique(reference.prompt_id))
    shape = (prompts, len(reference.prompt_id) // prompts)
    scores = reference.rewards[REWARD].reshape(shape)
    known = np.isfinite(scores).all(axis=1)
    weights = best_of_weights(scores[known], size)
    measures = {**reference.rewards, TOKENS: reference.tokens.astype(float)}
    return known, {name: (weights * own.reshape(shape)[known]).sum(axis=1) for name, own in measures.items()}


def is_reference(one: Values) -> bool:
    """Whether a policy gives each of its completions exactly the reference's probability."""
    return bool(one["kl"]["value"] == 0.0 and one["kl"]["error"] == 0.0)


def chosen(checkpoints: Sequence[Values], by: str) -> list[Values]:
    """Of every run and seed the checkpoint whose mean of the reward `by` is highest; of equal ones the earliest."""
    best: dict[tuple[str, int], Values] = {}
    for one in checkpoints:
        value = one["rewards"][by]["value"]
        before = best.get((one["run"], one["seed"]))
        if value is not None and (before is None or value > before["rewards"][by]["value"]):
            best[one["run"], one["seed"]] = one
    return [
        {"by": by, **{name: one[name] for name in ("run", "seed", "step", "policy", "kl", "rewards")}}
        for one in best.values()
    ]


def areas(
    policies: Sequence[Written], reference: Written, sizes: Sequence[int], ends: tuple[float, float], level: float
) -> tuple[list[Values], list[Values]]:
    """Mean height of every run's frontier above the reference, and their paired differences, by every reward.

    Args:
        policies: what the checkpoints of the runs wrote, for the prompts of the reference.
        reference: where all frontiers begin.
        sizes: n of best-of-n, whose curve has no seeds; none for no such curve.
        ends: between how many nats.
        level: of the intervals, over seeds and prompts.

    Returns:
        Rows of areas and of differences; of differences the first run minus the second, seed by seed, over the seeds
        that both have.
    """
    prompts = {name: place for place, name in enumerate(dict.fromkeys(reference.prompt_id.tolist()))}
    start = _point(reference, prompts)
    curves: dict[str, dict[int, list[_Point]]] = {}
    for one in policies:
        own = curves.setdefault(one.checkpoint.run, {})
        own.setdefault(one.checkpoint.seed, []).append(_point(one, prompts))
    best = [_best_of_point(reference, size) for size in sizes]
    found: list[Values] = []
    differences: list[Values] = []
    for name in reference.rewards:
        if start.mean(name) is None:
            continue
        by_run: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for run, seeds in ({**curves, BEST_OF: {0: best}} if best else curves).items():
            points = [seeds[seed] for seed in sorted(seeds)]
            made = [_area(own, start, name, ends) for own in points]
            pair = np.array([area for area, _ in made]), np.array([each for _, each in made]).T
            if run != BEST_OF:
                by_run[run] = pair
            over = as_values(_over_seeds_and_prompts(*pair, level))
            found.append({"run": run, "by": name, "seeds": pair[0].tolist(), **_extent(points, ends), **over})
        for first, second in combinations(by_run, 2):
            (won, by_won), (lost, by_lost) = by_run[first], by_run[second]
            both = min(len(won), len(lost))
            apart = _over_seeds_and_prompts(won[:both] - lost[:both], by_won[:, :both] - by_lost[:, :both], level)
            differences.append({"first": first, "second": second, "by": name, **as_values(apart)})
    return found, differences


class _Terms(NamedTuple):
    """A measure, summed over the completions of each prompt for which it is known, and how many these are; shape
    [prompts] each."""

    sums: np.ndarray
    counts: np.ndarray


class _Point(NamedTuple):
    """A point of a frontier by prompts."""

    divergence: _Terms
    rewards: Mapping[str, _Terms]

    def mean(self, name: str) -> float | None:
        """The mean reward; None where it is known of no completion."""
        sums, counts = self.rewards[name]
        return float(sums.sum() / counts.sum()) if counts.sum() else None

    @property
    def kl(self) -> float:
        """The mean log-ratio."""
        return float(self.divergence.sums.sum() / self.divergence.counts.sum())


def _point(written: Written, prompts: Mapping[str, int]) -> _Point:
    places = np.array([prompts[name] for name in written.prompt_id.tolist()])

    def terms(values: np.ndarray) -> _Terms:
        known = np.isfinite(values)
        sums = np.bincount(places[known], values[known], len(prompts))
        return _Terms(sums, np.bincount(places[known], minlength=len(prompts)).astype(float))

    return _Point(terms(written.log_ratio), {name: terms(values) for name, values in written.rewards.items()})


def _best_of_point(reference: Written, size: int) -> _Point:
    """Best of n as a point: its divergence is known, its rewards have a term per prompt."""
    known, means = _best_of_means(reference, size)
    there = known.astype(float)

    def terms(values: np.ndarray) -> _Terms:
        sums = np.zeros(len(known))
        sums[known] = np.where(np.isfinite(values), values, 0.0)
        counts = np.zeros(len(known))
        counts[known] = np.isfinite(values)
        return _Terms(sums, counts)

    rewards = {name: terms(values) for name, values in means.items() if name != TOKENS}
    return _Point(_Terms(best_of_kl(size) * there, there), rewards)


def _area(points: Sequence[_Point], start: _Point, name: str, ends: tuple[float, float]) -> tuple[float, np.ndarray]:
    """The area under a frontier and what each prompt adds to it; NaN where that cannot be known."""
    low, high = ends
    known = [one for one in points if one.mean(name) is not None]
    prompts = len(start.divergence.sums)
    if not known:
        return math.nan, np.full(prompts, math.nan)
    heights = np.array([one.mean(name) for one in known], dtype=float)
    area = frontier_area(np.array([one.kl for one in known]), heights, start.mean(name) or 0.0, low=low, high=high)
    divergences = np.array([without_each(*one.divergence) for one in known])
    rewards = np.array([without_each(*one.rewards[name]) for one in known])
    first = without_each(*start.rewards[name])
    if not (np.isfinite(divergences).all() and np.isfinite(rewards).all() and np.isfinite(first).all()):
        return area, np.full(prompts, math.nan)
    return area, area_pseudo_values(area, divergences, rewards, first, low=low, high=high)


def _over_seeds_and_prompts(found: np.ndarray, by_prompt: np.ndarray, level: float) -> Interval:
    if not np.isfinite(found).all():
        return Interval(None, n=len(found), reason=NO_OBSERVATIONS)
    if not np.isfinite(by_prompt).all():
        return Interval(float(found.mean()), n=len(found), clusters=1, reason=ONE_CLUSTER)
    over = over_seeds_and_prompts(found, by_prompt, level)
    return over._replace(reason=ONE_SEED) if len(found) == 1 and over.low is not None else over


def _extent(points: Sequence[Sequence[_Point]], ends: tuple[float, float]) -> Values:
    """How far the seed that reaches least goes, and how many points the one with the fewest has between the ends."""
    reaches = [[one.kl for one in own] for own in points]
    inside = [sum(ends[0] <= kl <= ends[1] for kl in own) for own in reaches]
    return {"reach": min(max(own) for own in reaches), "inside": min(inside)}


def fallen(last: Written, best: Written, name: str, level: float) -> Interval:
    """Mean reward of one checkpoint minus that of another, on the same prompts."""
    return _mean(last.rewards[name] - best.rewards[name], last.prompt_id, level)


def spread(values: np.ndarray) -> float | None:
    """Sample standard deviation of the rewards that are known; None where they do not differ."""
    known = values[np.isfinite(values)]
    sd = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return sd if sd > 0.0 else None


def as_values(found: Interval) -> Values:
    """An interval as JSON values."""
    return {name: getattr(found, name) for name in _ESTIMATED}


def over_seeds(found: Sequence[Values], level: float) -> Values:
    """The mean of what several seeds of a training give on the same prompts, as JSON values."""
    known = [Interval(**{name: one[name] for name in _ESTIMATED if name in one}) for one in found]
    return as_values(over_trainings(known, level))


def _mean(values: np.ndarray, clusters: np.ndarray | None, level: float) -> Interval:
    """Mean of what is known."""
    known = np.isfinite(values)
    if not known.any():
        return Interval(None, reason=NO_OBSERVATIONS)
    return mean(values[known], None if clusters is None else clusters[known], level)
