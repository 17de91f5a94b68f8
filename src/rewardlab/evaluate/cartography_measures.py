"""What a map of training data shows in numbers: counts, length along confidence, and how far trainings agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rewardlab.errors import counted
from rewardlab.evaluate.cartography_map import REGIONS, Map
from rewardlab.evaluate.dynamics import Recorded
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.summary import percent
from rewardlab.functional import intervals
from rewardlab.functional.agreement import pearson_statistic
from rewardlab.functional.calibration import equal_mass_bins
from rewardlab.functional.intervals import Statistic
from rewardlab.records import Estimate

BINS = 10


@dataclass(frozen=True)
class CartographyResult:
    """What cartography.json holds.

    Attributes:
        runs: name, epochs and pairs of every training.
        options: convention, cut, level, cluster, and the unit of lengths.
        counts: how many there are of everything.
        reasons: what could not be computed → why.
        estimates: of the length heuristic, and of the agreement of trainings.
        curves: `confidence` and `confidence_classic`, a row per bin.
        findings: in plain words.
        differing: fields other than the seed in which the trainings differ.
    """

    runs: list[dict[str, Any]]
    options: dict[str, Any]
    counts: dict[str, int]
    reasons: dict[str, str]
    estimates: list[Estimate]
    curves: dict[str, list[dict[str, Any]]]
    findings: list[str]
    differing: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of cartography.json."""
        return {**vars(self), "estimates": [one.as_dict() for one in self.estimates]}


def measured(
    table: Map,
    recorded: Sequence[Recorded],
    pairs: int,
    settings: Settings,
    cut: tuple[float, float] | None,
    differing: Sequence[str] = (),
) -> CartographyResult:
    """Everything but the table itself.

    Args:
        table: the map.
        recorded: the trainings.
        pairs: different pairs in the data.
        settings: level and cluster.
        cut: ends of the confidence cut.
        differing: fields other than the seed in which the trainings differ.
    """
    clusters = _clusters(table, settings)
    counts = _counts(table, recorded, pairs)
    curves = {
        name: _bins(table, table.measures[name], clusters, settings) for name in ("confidence", "confidence_classic")
    }
    estimates = [*_length(table, clusters, settings), *_agreement(table, clusters, settings)]
    suffix = "" if table.convention == "margin" else "_classic"
    return CartographyResult(
        runs=[
            {"name": one.name, "epochs": int(one.epochs.max(initial=0)), "pairs": len(set(one.keys))}
            for one in recorded
        ],
        options={
            "convention": table.convention,
            "cut": None if cut is None else list(cut),
            "level": settings.level,
            "cluster": settings.cluster,
            "unit": table.unit,
        },
        counts=counts,
        reasons=table.reasons,
        estimates=estimates,
        curves=curves,
        findings=[
            *_findings(counts, recorded, estimates, curves[f"confidence{suffix}"], table),
            *([differing_words(differing)] if differing else []),
        ],
        differing=list(differing),
    )


def _clusters(table: Map, settings: Settings) -> np.ndarray:
    """Number of the prompt or conversation root of every pair; an unknown pair is one of its own."""
    labels = [
        f"?{place}" if pair is None else pair.prompt.id if settings.cluster == "prompt" else pair.prompt.root_id
        for place, pair in enumerate(table.pairs)
    ]
    return intervals.numbered(np.array(labels, dtype=str))[0]


def _counts(table: Map, recorded: Sequence[Recorded], pairs: int) -> dict[str, int]:
    correctness, forgetting = table.measures["correctness"], table.measures["forgetting"]
    known = [pair is not None for pair in table.pairs]
    trained = {key[0] for key, is_known in zip(table.keys, known, strict=True) if is_known}
    return {
        "trainings": len(recorded),
        "pairs": len(table.keys),
        "epochs": max(int(one.epochs.max(initial=0)) for one in recorded),
        "unknown_pairs": known.count(False),
        "untrained_pairs": pairs - len(trained),
        "without_confidence": int(np.isnan(table.measures["confidence"]).sum()),
        "without_variability": int(np.isnan(table.measures["variability"]).sum()),
        "always_right": int((correctness == 1.0).sum()),
        "never_learnt": int((table.measures["never_learnt"] == 1.0).sum()),
        "forgotten": int((forgetting > 0).sum()),
        "longer_chosen": int((table.difference > 0).sum()),
        "shorter_chosen": int((table.difference < 0).sum()),
        "equally_long": int((table.difference == 0).sum()),
        **{name: int(inside.sum()) for name, inside in table.inside.items()},
    }


def _length(table: Map, clusters: np.ndarray, settings: Settings) -> list[Estimate]:
    """The length heuristic, overall and by region, and how confidence goes along with the difference in length."""
    difference, confidence = table.difference, table.measures[_by(table, "confidence")]
    differs = np.isfinite(difference) & (difference != 0)
    longer = (difference > 0).astype(np.float64)
    words = (
        f"Share of the pairs in which the completion with more {table.unit} is the chosen one, among those that differ"
    )

    def share(name: str, inside: np.ndarray, where: str) -> Estimate:
        rows = differs & inside
        found = intervals.proportion(longer[rows], clusters[rows], settings.level)
        reason = table.reasons.get(name.split(".")[1], f"no pair there differs in {table.unit}")
        return settings.estimate(name, found, f"{words}{where}; a coin has 50 %.", reason=reason)

    parts = [share("cartography.longer_is_chosen", np.ones(len(longer), dtype=bool), "")]
    parts += [share(f"cartography.{name}.longer_is_chosen", table.inside[name], f", {name} pairs") for name in REGIONS]
    rows = np.isfinite(difference) & np.isfinite(confidence)
    along = settings.correlation(
        "cartography.length_pearson",
        pearson_statistic,
        difference[rows],
        confidence[rows],
        clusters[rows],
        f"Pearson correlation of the difference in {table.unit}, chosen minus rejected, with confidence; above 0 the "
        "model finds easy what length points to.",
    )
    return [*parts, along]


def _agreement(table: Map, clusters: np.ndarray, settings: Settings) -> list[Estimate]:
    """How far trainings agree on confidence: the mean of the correlations of any two."""
    name = "cartography.runs_pearson"
    reading = (
        "Correlation of the confidence of a pair in one training with that in another; near 1 the map is one of the "
        "data, near 0 one of the seed."
    )
    if len(table.by_run) < 2:
        return [settings.missing(name, "one training has nothing to agree with", reading)]
    common = np.isfinite(table.by_run).all(axis=0)
    values = table.by_run[:, common]
    found = [pearson_statistic(values[one], values[other]) for one, other in combinations(range(len(values)), 2)]
    statistics = [one for one in found if one is not None]
    if common.sum() < 2 or len(statistics) < len(found):
        return [
            settings.missing(name, "too few pairs are in all trainings, or their confidence does not vary", reading)
        ]
    average = Statistic(
        float(np.mean([one.value for one in statistics])), np.mean([one.influence for one in statistics], axis=0)
    )
    return [
        settings.estimate(name, intervals.interval(average, clusters[common], settings.level, scale="fisher"), reading)
    ]


def _bins(table: Map, confidence: np.ndarray, clusters: np.ndarray, settings: Settings) -> list[dict[str, Any]]:
    """Bins of equal mass along confidence, the lowest first."""
    known = np.flatnonzero(np.isfinite(confidence))
    index = equal_mass_bins(confidence[known], BINS)
    rows = []
    for number in np.unique(index):
        members = known[index == number]
        own = confidence[members]
        difference = table.difference[members]
        differs = np.isfinite(difference) & (difference != 0)
        longer = (difference[differs] > 0).astype(np.float64)
        found = intervals.proportion(longer, clusters[members][differs], settings.level)
        rows.append(
            {
                "low": float(own.min()),
                "high": float(own.max()),
                "confidence": float(own.mean()),
                "n": len(members),
                "differ": int(differs.sum()),
                "longer_is_chosen": found.value,
                "longer_is_chosen_low": found.low,
                "longer_is_chosen_high": found.high,
                "correctness": float(table.measures["correctness"][members].mean()),
            }
        )
    return rows


def _by(table: Map, measure: str) -> str:
    return measure if table.convention == "margin" else f"{measure}_classic"


def _findings(
    counts: Mapping[str, int],
    recorded: Sequence[Recorded],
    estimates: Sequence[Estimate],
    bins: Sequence[Mapping[str, Any]],
    table: Map,
) -> list[str]:
    several = f" in {len(recorded)} trainings" if len(recorded) > 1 else ""
    ever = "every epoch of every training" if several else "every epoch"
    first = (
        f"{counted(counts['pairs'], 'pair')}{several} over up to {counted(counts['epochs'], 'epoch')}: "
        f"{counts['always_right']:,} right in {ever}, {counts['never_learnt']:,} never, {counts['forgotten']:,} "
        "forgotten at least once."
    )
    lines = [first]
    tenths = [bins[0], bins[-1]] if len(bins) == BINS else []
    ends = [row for row in tenths if row["longer_is_chosen"] is not None]
    if len(ends) == 2:
        low, high = (_share_words(row) for row in ends)
        lines.append(
            f"The longer completion (in {table.unit}) is the chosen one in {low} of the tenth of lowest confidence and "
            f"in {high} of the tenth of highest."
        )
    agreement = next(one for one in estimates if one.name == "cartography.runs_pearson")
    if agreement.value is not None:
        ends_words = "" if agreement.low is None else f" ({agreement.low:.2f} to {agreement.high:.2f})"
        lines.append(
            f"Confidence in one training correlates with that in another by {agreement.value:.2f}{ends_words}."
        )
    if counts["untrained_pairs"]:
        lines.append(f"Held out or left out of training: {counted(counts['untrained_pairs'], 'pair')} of the data.")
    if counts["unknown_pairs"]:
        words = counted(counts["unknown_pairs"], "pair")
        lines.append(f"Trained on but not in the data given: {words}, which have no texts and no length here.")
    lines += [f"No {name}: {reason}." for name, reason in table.reasons.items()]
    return lines


def differing_words(differing: Sequence[str]) -> str:
    """What is to be said of a map of trainings that differ in these fields."""
    return (
        f"The trainings differ in more than the seed: {', '.join(differing)}. Means over them are means of margins on "
        "different scales: make their maps one by one."
    )


def _share_words(row: Mapping[str, Any]) -> str:
    """`57.9 % (44.7 to 71.1)`."""
    value, low, high = (row[f"longer_is_chosen{end}"] for end in ("", "_low", "_high"))
    ends = "" if low is None else f" ({percent(low)} to {percent(high)})"
    return f"{percent(value)} %{ends}"
