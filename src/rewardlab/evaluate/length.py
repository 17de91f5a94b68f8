"""How much of a reward is length: measures of `docs/measures.md`, in tokens and in characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardlab.evaluate.estimates import NO_PAIRS, Settings
from rewardlab.evaluate.table import CompletionTable, PairTable
from rewardlab.functional import intervals
from rewardlab.functional.accuracy import credit
from rewardlab.functional.agreement import (
    WithinGroups,
    kendall_along,
    pearson_along,
    pearson_statistic,
    spearman_statistic,
    within_groups,
)
from rewardlab.functional.calibration import equal_mass_bins
from rewardlab.functional.length import Balanced, balanced_subset, longer_scores_higher
from rewardlab.records import Estimate

DIFFERENCE_BINS: tuple[tuple[int | None, int | None], ...] = (
    (None, -201),
    (-200, -101),
    (-100, -51),
    (-50, -21),
    (-20, -11),
    (-10, -1),
    (0, 0),
    (1, 10),
    (11, 20),
    (21, 50),
    (51, 100),
    (101, 200),
    (201, None),
)
"""Bins of the difference in tokens, both ends included; None is open."""

_SCORE_BINS = 20
_TOO_FEW = "no prompt has three or more completions whose length and reward both vary"


def balanced(table: PairTable, settings: Settings) -> Balanced:
    """The length-balanced subset of the pairs, in tokens."""
    return balanced_subset(table.token_difference, settings.generator("balanced subset"))


def length_group(
    table: PairTable, completions: CompletionTable, subset: Balanced, settings: Settings
) -> list[Estimate]:
    """All length measures, in tokens and in characters; the length-balanced subset is a matter of tokens."""
    tokens = _Unit("tokens", table.token_difference, completions.tokens)
    characters = _Unit("characters", table.character_difference, completions.characters)
    group = []
    for unit in (tokens, characters):
        group += _accuracies(unit, table, settings)
        if unit is tokens:
            group.append(_balanced_accuracy(table, subset, settings))
        group += _correlations(unit, table, completions, settings)
    return group


@dataclass(frozen=True)
class _Unit:
    """Lengths in one unit.

    Attributes:
        name: tokens or characters.
        difference: chosen minus rejected, per pair.
        length: per completion.
    """

    name: str
    difference: np.ndarray
    length: np.ndarray

    def measure(self, name: str) -> str:
        return f"length.{self.name}.{name}"


def _accuracies(unit: _Unit, table: PairTable, settings: Settings) -> list[Estimate]:
    right, difference, clusters = table.right, unit.difference, table.cluster

    def share(name: str, values: np.ndarray, inside: np.ndarray, reading: str, reason: str) -> Estimate:
        found = intervals.proportion(values[inside], clusters[inside], settings.level)
        return settings.estimate(unit.measure(name), found, reading, reason=reason if len(table.pairs) else NO_PAIRS)

    differs = difference != 0
    no_difference = f"no pair differs in {unit.name}"
    return [
        share(
            "heuristic_accuracy",
            credit(difference.astype(np.float64), np.zeros(len(difference))),
            np.ones(len(difference), dtype=bool),
            f"Accuracy of always preferring the side with more {unit.name} (equal ones count half).",
            NO_PAIRS,
        ),
        share(
            "accuracy_longer_chosen",
            right,
            difference > 0,
            f"Accuracy on the pairs whose chosen side has more {unit.name}: there a taste for length helps.",
            f"no chosen side has more {unit.name}",
        ),
        share(
            "accuracy_shorter_chosen",
            right,
            difference < 0,
            f"Accuracy on the pairs whose chosen side has fewer {unit.name}: there a taste for length hurts.",
            f"no chosen side has fewer {unit.name}",
        ),
        _gap(unit, right, clusters, settings, NO_PAIRS if len(table.pairs) == 0 else ""),
        share(
            "longer_scores_higher",
            longer_scores_higher(difference.astype(np.float64), table.margin),
            differs,
            f"Share of pairs in which the side with more {unit.name} has the higher reward, among those that "
            "differ; compare with the share in which it is the chosen one.",
            no_difference,
        ),
        share(
            "longer_is_chosen",
            (difference > 0).astype(np.float64),
            differs,
            f"Share of pairs in which the side with more {unit.name} is the chosen one, among those that differ.",
            no_difference,
        ),
    ]


def _gap(unit: _Unit, right: np.ndarray, clusters: np.ndarray, settings: Settings, reason: str) -> Estimate:
    """Accuracy where the longer side is chosen minus accuracy where the shorter one is."""
    name = unit.measure("accuracy_gap")
    reading = (
        "Accuracy where the longer side is chosen minus accuracy where the shorter is; 0 means length plays no part."
    )
    differs = unit.difference != 0
    longer = (unit.difference[differs] > 0).astype(np.float64)
    if not 0.0 < longer.sum() < len(longer):
        return settings.missing(name, reason or "it needs pairs of both kinds", reading)
    inside = right[differs]
    gap = intervals.difference(
        intervals.ratio_statistic(inside * longer, longer),
        intervals.ratio_statistic(inside * (1.0 - longer), 1.0 - longer),
    )
    return settings.estimate(name, intervals.interval(gap, clusters[differs], settings.level), reading)


def _balanced_accuracy(table: PairTable, subset: Balanced, settings: Settings) -> Estimate:
    found = intervals.proportion(table.right[subset.kept], table.cluster[subset.kept], settings.level)
    reading = (
        "Accuracy on a subset in which the longer side is chosen exactly half of the time, so that length cannot help."
    )
    reason = "no pair remains after balancing" if len(table.pairs) else NO_PAIRS
    return settings.estimate("length.tokens.accuracy_balanced", found, reading, reason=reason)


def _correlations(unit: _Unit, table: PairTable, completions: CompletionTable, settings: Settings) -> list[Estimate]:
    delta = f"Correlation of the difference in {unit.name} with the difference in reward, over pairs; 0 is no relation."
    pooled = (
        f"Correlation of {unit.name} with reward over all completions; it also mixes in that prompts differ in both."
    )
    group = [
        settings.correlation(
            unit.measure(f"delta_{kind}"),
            statistic,
            unit.difference,
            table.margin,
            table.cluster,
            delta,
            reason=NO_PAIRS,
        )
        for kind, statistic in (("pearson", pearson_statistic), ("spearman", spearman_statistic))
    ]
    group += [
        settings.correlation(
            unit.measure(f"pooled_{kind}"),
            statistic,
            unit.length,
            completions.centred_score,
            completions.cluster,
            pooled,
            unit="completions",
        )
        for kind, statistic in (("pearson", pearson_statistic), ("spearman", spearman_statistic))
    ]
    for kind, along in (("pearson", pearson_along), ("kendall", kendall_along)):
        within = within_groups(unit.length.astype(np.float64), completions.score, completions.group, along, smallest=3)
        group.append(
            within_prompt(
                unit.measure(f"within_prompt_{kind}"),
                within,
                completions.cluster_of_group,
                settings,
                f"Correlation of {unit.name} with reward among the answers to one prompt, mean over prompts.",
                _TOO_FEW,
            )
        )
    return group


def within_prompt(
    name: str, within: WithinGroups, cluster_of: np.ndarray, settings: Settings, reading: str, reason: str
) -> Estimate:
    """Mean over prompts of a correlation within prompts; says how many prompts are left out."""
    found = intervals.mean(within.values, cluster_of[within.groups], settings.level)
    if found.low is not None and found.high is not None:
        # With a handful of prompts Student's interval is wider than correlations can be.
        found = found._replace(low=max(found.low, -1.0), high=min(found.high, 1.0))
    left_out = []
    if within.too_small:
        left_out.append(f"{within.too_small} with fewer than three completions")
    if within.constant:
        left_out.append(f"{within.constant} in which one of the two does not vary")
    if left_out:
        reading = f"{reading} Left out are prompts: {', '.join(left_out)}."
    return settings.estimate(name, found, reading, unit="prompts", reason=reason)


def length_counts(completions: CompletionTable, subset: Balanced) -> dict[str, int]:
    """What the length measures rest on, and what they leave out."""
    within = within_groups(completions.tokens.astype(np.float64), completions.score, completions.group, pearson_along)
    return {
        "beyond_200_tokens_pairs": subset.beyond,
        "balanced_pairs": int(subset.kept.sum()),
        "within_prompt_prompts": len(within.values),
        "within_prompt_too_few": within.too_small,
        "within_prompt_constant": within.constant,
    }


def difference_rows(table: PairTable, settings: Settings) -> list[dict[str, Any]]:
    """The curve `length_bins`: pairs by chosen minus rejected tokens."""
    right, difference, rows = table.right, table.token_difference, []
    for low, high in DIFFERENCE_BINS:
        inside = (difference >= (low if low is not None else -np.inf)) & (
            difference <= (high if high is not None else np.inf)
        )
        found = intervals.proportion(right[inside], table.cluster[inside], settings.level)
        rows.append(
            {
                "low": low,
                "high": high,
                "n": found.n,
                "accuracy": found.value,
                "accuracy_low": found.low,
                "accuracy_high": found.high,
                "mean_margin": float(table.margin[inside].mean()) if found.n else None,
            }
        )
    return rows


def score_rows(completions: CompletionTable) -> list[dict[str, Any]]:
    """The curve `length_scores`: completions in bins of equal mass by tokens, both ends included."""
    score, rows = completions.centred_score, []
    index = equal_mass_bins(completions.tokens.astype(np.float64), _SCORE_BINS)
    for number in np.unique(index):
        inside = index == number
        tokens, scores = completions.tokens[inside], score[inside]
        rows.append(
            {
                "low": int(tokens.min()),
                "high": int(tokens.max()),
                "n": len(scores),
                "mean_score": float(scores.mean()),
                "sd_score": float(scores.std(ddof=1)) if len(scores) > 1 else None,
            }
        )
    return rows


def balanced_rows(subset: Balanced) -> list[dict[str, Any]]:
    """The curve `balanced_bins`."""
    return [one._asdict() for one in subset.bins]
