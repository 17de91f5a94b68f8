"""Numbers of a frontier: of every checkpoint, of best-of-n, which checkpoint to take, and the area under each curve.

Intervals are Student's over prompts: completions of one prompt are a cluster. Areas have theirs over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rewardlab.evaluate.frontier_runs import BEST_OF
from rewardlab.evaluate.frontier_samples import Written
from rewardlab.functional.frontier import best_of_kl, best_of_weights, distinct_ngrams, frontier_area
from rewardlab.functional.intervals import (
    NO_OBSERVATIONS,
    ONE_CLUSTER,
    Interval,
    mean,
    paired_difference,
    proportion,
)

REWARD = "reward"
HELD_OUT = "held_out."
"""What held-out rewards are called by, with their name behind it."""
ONE_SEED = "one seed is too few for an interval"

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
    prompts = len(np.unique(reference.prompt_id))
    shape = (prompts, len(reference.prompt_id) // prompts)
    scores = reference.rewards[REWARD].reshape(shape)
    known = np.isfinite(scores).all(axis=1)
    measures = {**reference.rewards, "tokens": reference.tokens.astype(float)}
    found = []
    for size in sizes:
        weights = best_of_weights(scores[known], size)
        means = {
            name: as_values(_mean((weights * values.reshape(shape)[known]).sum(axis=1), None, level))
            for name, values in measures.items()
        }
        tokens = means.pop("tokens")
        found.append(
            {"n": size, "kl": best_of_kl(size), "rewards": means, "tokens": tokens, "prompts": int(known.sum())}
        )
    return found


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
    checkpoints: Sequence[Values], best_of: Sequence[Values], reference: Values, ends: tuple[float, float], level: float
) -> tuple[list[Values], list[Values]]:
    """Mean height of every run's frontier above the reference, and their paired differences, by every reward.

    Args:
        checkpoints: of the runs.
        best_of: the curve of best-of-n, which has no seeds.
        reference: where all frontiers begin.
        ends: between how many nats.
        level: of the intervals, over seeds.

    Returns:
        Rows of areas and of differences; of differences the first run minus the second, seed by seed.
    """
    found: list[Values] = []
    differences: list[Values] = []
    for name, start in reference["rewards"].items():
        if start["value"] is None:
            continue
        by_run: dict[str, np.ndarray] = {}
        for run in dict.fromkeys(one["run"] for one in checkpoints):
            own = [one for one in checkpoints if one["run"] == run]
            seeds = [[one for one in own if one["seed"] == seed] for seed in sorted({one["seed"] for one in own})]
            by_run[run] = np.array([_area(points, name, start["value"], ends) for points in seeds])
            reach = min(max(one["kl"]["value"] for one in points) for points in seeds)
            inside = min(sum(ends[0] <= one["kl"]["value"] <= ends[1] for one in points) for points in seeds)
            over = as_values(_over_seeds(mean(by_run[run], level=level)))
            found.append(
                {"run": run, "by": name, "seeds": by_run[run].tolist(), "reach": reach, "inside": inside, **over}
            )
        if best_of:
            points = [{"kl": {"value": one["kl"]}, "rewards": one["rewards"]} for one in best_of]
            area = _area(points, name, start["value"], ends)
            inside = sum(ends[0] <= one["kl"] <= ends[1] for one in best_of)
            over = as_values(Interval(area, n=1, reason="best of n has no seeds"))
            found.append(
                {"run": BEST_OF, "by": name, "seeds": [area], "reach": best_of[-1]["kl"], "inside": inside, **over}
            )
        for first, second in combinations(by_run, 2):
            if len(by_run[first]) == len(by_run[second]):
                apart = _over_seeds(paired_difference(by_run[first], by_run[second], level=level))
                differences.append({"first": first, "second": second, "by": name, **as_values(apart)})
    return found, differences


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
    names = ("value", "low", "high", "error", "n", "clusters", "reason")
    return {name: getattr(found, name) for name in names}


def _mean(values: np.ndarray, clusters: np.ndarray | None, level: float) -> Interval:
    """Mean of what is known."""
    known = np.isfinite(values)
    if not known.any():
        return Interval(None, reason=NO_OBSERVATIONS)
    return mean(values[known], None if clusters is None else clusters[known], level)


def _area(points: Sequence[Values], name: str, start: float, ends: tuple[float, float]) -> float:
    known = [one for one in points if one["rewards"][name]["value"] is not None]
    if not known:
        return math.nan
    divergences = np.array([one["kl"]["value"] for one in known])
    heights = np.array([one["rewards"][name]["value"] for one in known])
    return frontier_area(divergences, heights, start, low=ends[0], high=ends[1])


def _over_seeds(found: Interval) -> Interval:
    return found._replace(reason=ONE_SEED) if found.reason == ONE_CLUSTER else found
