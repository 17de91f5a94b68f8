"""What samples of known truth say about the estimators: bias, spread, coverage, and RATE's error by cause.

Conventions
    error       estimate of a sample minus the truth; the truth is the mean of the exact effects over all samples of a
                setting: what the interval of a sample is meant to hold
    bias        mean error, with the standard error of that mean over the samples
    sd, rmse    spread of the estimates around their own mean, and around the truth: rmse² = bias² + (1 - 1/samples) sd²
    coverage    share of the samples whose interval holds the truth
    unit        all of these are in standard deviations of the original rewards (pooled within W), the mean over samples
    δ1, δ0      what the drift of a rewrite towards W = 1, towards W = 0, adds to the reward
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from rewardlab.audit.summary import MINUS
from rewardlab.errors import DataError, Problem
from rewardlab.functional import effects
from rewardlab.functional.effects import Estimator, Rewards, Target
from rewardlab.functional.intervals import Interval

Law = Literal["replacement", "cumulation"]
LAWS: Mapping[str, str] = {"replacement": "Replacement", "cumulation": "Cumulation"}
NAIVE = "naive"
ESTIMATORS: tuple[Estimator, ...] = ("single", "double", "corrected")
_WORDS: Mapping[str, str] = {"naive": "naive", "single": "single rewrites", "double": "RATE",
                             "corrected": "RATE corrected"}  # fmt: skip


class Setting(NamedTuple):
    """What is true of all samples of one kind.

    Attributes:
        law: what a rewrite does with the drift of the rewrite before.
        confounding: correlation of the attribute with the author's skill.
        asymmetry: 0: both directions drift alike; 1: only rewrites towards W = 1 drift, twice as far.
    """

    law: Law
    confounding: float
    asymmetry: float


class Sample(NamedTuple):
    """The rewards of one sample with what is exactly true of it.

    Attributes:
        rewards: O, S, D and T.
        truth: effect of the attribute on each text as it is, (n,).
        rewritten: the same in the state that the rewriter leaves: mean over S and D, (n,).
    """

    rewards: Rewards
    truth: np.ndarray
    rewritten: np.ndarray


def stated_biases(law: Law, one: float, zero: float, share: float) -> dict[tuple[str, str], float]:
    """The bias that the laws state, by (estimator, target), in reward; `share` is P(W = 1).

    For an additive reward whose off-target parts are independent of W and 0 on average, as in `simulate`, and while no
    level meets its bound. None of the naive comparison, whose bias is confounding.

    Args:
        law: of the rewriter.
        one, zero: δ1 and δ0.
        share: P(W = 1).
    """
    replaced = law == "replacement"
    sides = {
        "single": (-zero, one),
        "double": (one - zero, one - zero) if replaced else (one, -zero),
        "corrected": (one - zero, one - zero) if replaced else ((one - zero) / 2.0, (one - zero) / 2.0),
    }
    weights = {"ATE": share, "ATT": 1.0, "ATU": 0.0, "balanced": 0.5}
    return {
        (estimator, target): weight * treated + (1.0 - weight) * untreated
        for estimator, (treated, untreated) in sides.items()
        for target, weight in weights.items()
    }


def rows_of(
    setting: Setting, samples: Sequence[Sample], level: float, stated: Mapping[tuple[str, str], float]
) -> list[dict[str, Any]]:
    """A row per estimator and target: see the conventions.

    Args:
        setting: of the samples.
        samples: at least two, each with two texts or more of either W.
        level: coverage that the intervals claim.
        stated: biases that the laws state, in reward; where there are none, `stated` is None.

    Raises:
        DataError: the same reward for every text.
    """
    unit = reward_unit(samples)
    keys: list[tuple[str, Target]] = [(NAIVE, "ATE")]
    keys += [(estimator, target) for estimator in ESTIMATORS for target in effects.TARGETS]
    rows = []
    for estimator, target in keys:
        found = [_estimate(one.rewards, estimator, target, level) for one in samples]
        truths = np.array([_truth(one, target) for one in samples])
        values = np.array([one.value for one in found], dtype=np.float64)
        truth = float(truths.mean())
        bias = stated.get((estimator, target))
        rows.append(
            {
                **setting._asdict(),
                "estimator": estimator,
                "target": target,
                "unit": unit,
                "truth": truth / unit,
                "bias": float(values.mean() - truth) / unit,
                # Truth and estimate of one sample move together: their difference has the smaller error.
                "bias_error": _error(values - truths) / unit,
                "sd": float(values.std(ddof=1)) / unit,
                "rmse": _rms(values - truth) / unit,
                "coverage": _coverage(found, truth),
                "stated": None if bias is None else bias / unit,
            }
        )
    return rows


def causes_of(setting: Setting, samples: Sequence[Sample]) -> dict[str, Any]:
    """The error of RATE's ATE by cause: bias = asymmetry + non-additivity; noise is the spread from sample to sample.

    asymmetry: what the drifts of the two directions leave in D - S where they differ. non-additivity: the attribute has
    another effect in the state that the rewriter leaves than in the text as it was. See `data.world.effects`. Errors
    are against the sample's own truth, so noise is that of the rewriter, without that of drawing texts.

    Raises:
        DataError: the same reward for every text.
    """
    unit = reward_unit(samples)
    double = np.array([effects.signed_differences(one.rewards, "double").mean() for one in samples])
    rewritten = np.array([one.rewritten.mean() for one in samples])
    truth = np.array([one.truth.mean() for one in samples])
    parts = {"bias": double - truth, "from_asymmetry": double - rewritten, "from_non_additivity": rewritten - truth}
    result: dict[str, Any] = {**setting._asdict(), "unit": unit}
    for name, values in parts.items():
        result |= {name: float(values.mean()) / unit, f"{name}_error": _error(values) / unit}
    return {**result, "noise": float((double - truth).std(ddof=1)) / unit}


def reward_unit(samples: Sequence[Sample]) -> float:
    """Standard deviation of the original rewards, pooled within W: the mean over the samples.

    Raises:
        DataError: the same reward for every text.
    """
    found = [effects.pooled_sd(one.rewards.original, one.rewards.treated) for one in samples]
    known = [value for value in found if value is not None]
    if not known:
        problem = Problem("model", "the same reward for every text", "a reward that varies")
        raise DataError("there is no effect to find", [problem])
    return float(np.mean(known))


def findings(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences, two per law.

    Args:
        result: the object in simulation.json.
    """
    lines = []
    for law in dict.fromkeys(row["law"] for row in result["rows"]):
        for asymmetric, words in ((False, "drift alike in both directions"), (True, "drift that differs by direction")):
            worst: dict[str, float] = {}
            for row in result["rows"]:
                if (row["law"], row["target"], row["asymmetry"] != 0.0) == (law, "ATE", asymmetric):
                    worst[row["estimator"]] = max(worst.get(row["estimator"], 0.0), abs(row["bias"]))
            if worst:
                found = ", ".join(f"{_WORDS[name]} {value:.3f}" for name, value in worst.items())
                lines.append(f"{LAWS[law]}, {words}: the ATE is biased by up to (sd) {found}.")
    bent = max(result["causes"], key=lambda row: abs(row["from_non_additivity"]))
    # Of an additive reward nothing is left but the rounding of floating-point numbers.
    if abs(bent["from_non_additivity"]) > max(2.0 * bent["from_non_additivity_error"], 1e-9):
        size = f"{bent['from_non_additivity']:+.3f}".replace("-", MINUS)
        lines.append(f"This reward is not additive: up to {size} sd of RATE's bias comes from that.")
    return lines


def _estimate(rewards: Rewards, estimator: str, target: Target, level: float) -> Interval:
    if estimator == NAIVE:
        return effects.naive_effect(rewards, level)
    return effects.effect(rewards, estimator, target, level)  # type: ignore[arg-type]


def _truth(one: Sample, target: Target) -> float:
    """The truth of a sample for a target."""
    treated = one.rewards.treated
    if target == "ATE":
        return float(one.truth.mean())
    att, atu = float(one.truth[treated].mean()), float(one.truth[~treated].mean())
    return {"ATT": att, "ATU": atu, "balanced": (att + atu) / 2.0}[target]


def _coverage(found: Sequence[Interval], truth: float) -> float | None:
    """None where a sample has no interval: its rewards differ by the same in every text."""
    ends = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    if len(ends) < len(found):
        return None
    return sum(low <= truth <= high for low, high in ends) / len(ends)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _rms(values: np.ndarray) -> float:
    return math.sqrt(float(np.square(values).mean()))
