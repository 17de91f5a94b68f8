"""How often the reward model is right, how sure it should be, and by how much the sides differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rewardlab.evaluate.estimates import NO_PAIRS, Settings
from rewardlab.evaluate.table import PairTable
from rewardlab.functional import calibration, intervals
from rewardlab.functional.accuracy import credit
from rewardlab.functional.agreement import pearson_statistic
from rewardlab.records import Estimate

CLEAR_GOLD_GAP = 4.0
"""Gold rewards further apart than this are clear cases: the bar of docs/world.md is about them."""
_MOST_BINS_A_SIDE = 50


def accuracy_group(table: PairTable, settings: Settings) -> list[Estimate]:
    """Accuracy with ties as 1/2, its parity forms, and its value on every subset and fold."""
    right = table.right

    def share(name: str, values: np.ndarray, reading: str, inside: np.ndarray | None = None) -> Estimate:
        clusters = table.cluster
        if inside is not None:
            values, clusters = values[inside], clusters[inside]
        return settings.estimate(name, intervals.proportion(values, clusters, settings.level), reading, reason=NO_PAIRS)

    chosen, rejected = table.chosen_score, table.rejected_score
    group = [
        share(
            "accuracy", right, "Share of pairs whose chosen side scores higher (ties count half); a coin flip gets 0.5."
        ),
        share(
            "accuracy.ties",
            (chosen == rejected).astype(np.float64),
            "Share of pairs whose two sides score exactly the same; many hint at truncated inputs.",
        ),
        share(
            "accuracy.ties_lose",
            credit(chosen, rejected, ties=0.0),
            "Accuracy if a tie counted as wrong, to compare with code that counts so.",
        ),
        share(
            "accuracy.ties_win",
            credit(chosen, rejected, ties=1.0),
            "Accuracy if a tie counted as right, to compare with code that counts so.",
        ),
    ]
    for name, inside in subsets(table).items():
        group.append(share(f"accuracy.subset.{name}", right, f"Accuracy on the pairs of the subset {name}.", inside))
    folds = np.unique(table.fold).tolist()
    if len(folds) > 1:
        for fold in folds:
            reading = f"Accuracy of the model of fold {fold} on the pairs that it did not see."
            group.append(share(f"accuracy.fold.{fold}", right, reading, table.fold == fold))
    return group


def gold_group(table: PairTable, settings: Settings) -> list[Estimate]:
    """Labels and model against the gold reward, where the pairs carry one (the world's do)."""
    gap = table.gold_margin
    known, clear = np.isfinite(gap), np.abs(gap) > CLEAR_GOLD_GAP
    follows = credit(np.where(known, gap, 0.0), np.zeros(len(gap)))
    agrees = credit(np.sign(table.margin) * np.sign(np.where(known, gap, 0.0)), np.zeros(len(gap)))

    def share(name: str, values: np.ndarray, inside: np.ndarray, reading: str, reason: str) -> Estimate:
        found = intervals.proportion(values[inside], table.cluster[inside], settings.level)
        return settings.estimate(f"gold.{name}", found, reading, reason=reason if len(gap) else NO_PAIRS)

    no_gold = "the pairs carry no gold reward"
    return [
        share(
            "accuracy_of_labels",
            follows,
            known,
            "Share of pairs whose chosen side has the higher gold reward (ties count half): the accuracy of a model "
            "that knows the truth.",
            no_gold,
        ),
        share(
            "accuracy",
            agrees,
            known,
            "Share of pairs that the scores order as the gold rewards do, whatever their labels say (ties count half).",
            no_gold,
        ),
        share(
            "accuracy_clear",
            agrees,
            clear,
            f"The same where the gold rewards differ by more than {CLEAR_GOLD_GAP:g}.",
            "no pair has gold rewards that differ by so much" if known.any() else no_gold,
        ),
    ]


def subsets(table: PairTable) -> dict[str, np.ndarray]:
    """Which pairs belong to each subset that their `meta` names, in order of the names."""
    labels = np.array([subset_of(pair.meta) or "" for pair in table.pairs], dtype=object)
    return {name: labels == name for name in sorted(set(labels.tolist()) - {""})}


def subset_of(meta: Any) -> str | None:
    """The subset that a record's `meta` names, None where it names none."""
    name = meta.get("subset")
    return None if name is None or name == "" else str(name)


def calibration_group(table: PairTable, settings: Settings) -> list[Estimate]:
    """Calibration error and what chance would give, log loss, mean confidence, calibration slope."""
    right, sure, clusters = table.right, calibration.confidence(table.margin), table.cluster
    error = calibration.calibration_error_interval(
        sure, right, settings.generator("calibration error"), clusters, settings.level
    )
    group = [
        settings.estimate(
            "calibration.ece",
            error,
            "Mean gap between how sure the scores are and how often they are right, over 10 bins of equal mass; "
            "0 is perfect, but noise alone keeps it above 0.",
            reason=NO_PAIRS,
        )
    ]
    name = "calibration.ece_if_calibrated"
    reading = "The calibration error that a perfectly calibrated model with these margins would show by chance."
    if len(sure):
        chance = calibration.chance_calibration_error(sure, settings.generator(name))
        method = "mean over 200 simulated sets of outcomes"
        simulated = "it is a simulated reference value"
        group.append(
            Estimate(name, chance, level=settings.level, n=len(sure), method=method, reading=reading, reason=simulated)
        )
    else:
        group.append(settings.missing(name, NO_PAIRS, reading))
    group += [
        settings.estimate(
            "calibration.log_loss",
            intervals.mean(np.logaddexp(0.0, -table.margin), clusters, settings.level),
            "Mean -log sigma(chosen minus rejected score); a coin flip gets 0.693, lower is better.",
            reason=NO_PAIRS,
        ),
        settings.estimate(
            "calibration.confidence",
            intervals.proportion(sure, clusters, settings.level),
            "Accuracy that the scores claim for themselves; above the accuracy means overconfident.",
            reason=NO_PAIRS,
        ),
        _slope(table, settings),
    ]
    return group


def _slope(table: PairTable, settings: Settings) -> Estimate:
    name = "calibration.slope"
    reading = (
        "What margins should be multiplied by to be honest probabilities; 1 is calibrated, below 1 overconfident, "
        "0 or less carries no information."
    )
    statistic = calibration.slope_statistic(table.margin)
    if statistic is None:
        reason = "it exists only where the model orders some pairs rightly and some wrongly"
        return settings.missing(name, reason if len(table.pairs) else NO_PAIRS, reading)
    return settings.estimate(name, intervals.interval(statistic, table.cluster, settings.level), reading)


def margin_group(table: PairTable, settings: Settings) -> list[Estimate]:
    """Mean and spread of the margin, and its correlation with the margins that the data give."""
    margin, clusters = table.margin, table.cluster
    mean_reading = "Mean of chosen minus rejected score, in the model's own units: compare between models with care."
    spread_reading = "Standard deviation of chosen minus rejected score, in the model's own units."
    mean = settings.estimate(
        "margin.mean", intervals.mean(margin, clusters, settings.level), mean_reading, reason=NO_PAIRS
    )
    if len(margin) > 1 and np.ptp(margin) > 0:
        statistic = intervals.standard_deviation_statistic(margin)
        found = intervals.interval(statistic, clusters, settings.level)
        spread = settings.estimate("margin.sd", found, spread_reading)
    else:
        reason = "it takes two pairs with different margins" if len(margin) else NO_PAIRS
        spread = settings.missing("margin.sd", reason, spread_reading)
    given = np.array([pair.margin is not None for pair in table.pairs], dtype=bool)
    judged = np.array([pair.margin for pair in table.pairs if pair.margin is not None], dtype=np.float64)
    agreement = settings.correlation(
        "margin.given_pearson",
        pearson_statistic,
        margin[given],
        judged,
        clusters[given],
        "Correlation of the model's margin with the margin that the data give; 1 means it knows by how much.",
        reason="the data give no margins" if len(table.pairs) else NO_PAIRS,
    )
    return [mean, spread, agreement]


def reliability_rows(table: PairTable, settings: Settings) -> list[dict[str, Any]]:
    """The curve `reliability`: both orders of every pair."""
    predicted, preferred = calibration.both_orders(table.margin)
    return _observed(predicted, preferred, np.concatenate([table.cluster, table.cluster]), settings)


def confidence_rows(table: PairTable, settings: Settings) -> list[dict[str, Any]]:
    """The curve `confidence`: the bins of the calibration error."""
    return _observed(calibration.confidence(table.margin), table.right, table.cluster, settings)


def margin_rows(table: PairTable) -> list[dict[str, Any]]:
    """The curve `margins`: bins of equal width on both sides of 0, each [low, high) but the last, which is closed.

    The width is the rule of Freedman and Diaconis (1981), 2 IQR / n^(1/3), widened where outliers would make more
    than `_MOST_BINS_A_SIDE` bins of it.
    """
    margin = table.margin
    if len(margin) == 0:
        return []
    reach = float(np.abs(margin).max()) or 1.0
    quarter, three_quarters = np.quantile(margin, [0.25, 0.75]).tolist()
    width = 2.0 * (three_quarters - quarter) / len(margin) ** (1 / 3)
    bins = min(max(math.ceil(reach / width), 1), _MOST_BINS_A_SIDE) if width > 0.0 else _MOST_BINS_A_SIDE
    # Built outwards from 0, so that no bin mixes pairs ordered rightly and wrongly.
    upper = np.linspace(0.0, reach, bins + 1)
    edges = np.concatenate([-upper[:0:-1], upper])
    index = np.minimum(np.searchsorted(edges, margin, side="right") - 1, 2 * bins - 1)
    rows = []
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = table.right[index == number]
        share = float(inside.mean()) if len(inside) else None
        rows.append({"low": low, "high": high, "n": len(inside), "accuracy": share})
    return rows


def _observed(
    predicted: np.ndarray, outcome: np.ndarray, clusters: np.ndarray, settings: Settings
) -> list[dict[str, Any]]:
    rows = []
    for point in calibration.reliability_curve(predicted, outcome):
        found = intervals.proportion(outcome[point.members], clusters[point.members], settings.level)
        rows.append(
            {
                "n": len(point.members),
                "predicted": point.predicted,
                "observed": point.observed,
                "observed_low": found.low,
                "observed_high": found.high,
            }
        )
    return rows
