"""What arms of an ablation are compared by: a number a seed and its influence, on observations in common.

An arm is a way to make a reward model; its seeds are several models made that way. A measure of an arm is the mean over
its seeds, and its influence the mean of theirs (both are linear), so that differences between arms are paired
observation by observation: what all models share, such as hard pairs, drops out of their intervals. What another seed
would change is in the intervals too, where an arm has several seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rewardlab.errors import DataError, Problem
from rewardlab.functional.accuracy import credit
from rewardlab.functional.agreement import pearson_along, within_groups
from rewardlab.functional.effects import Rewards, signed_differences
from rewardlab.functional.intervals import Interval, Statistic, difference, interval, mean_statistic, widened
from rewardlab.functional.length import longer_scores_higher
from rewardlab.functional.ratio import fieller
from rewardlab.functional.units import unit_of
from rewardlab.report.reading import readable

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Observed:
    """What one model left, a row per observation.

    Attributes:
        keys: which observation it is; unique.
        clusters: what observations may depend on each other within.
        columns: its numbers.
    """

    keys: np.ndarray
    clusters: np.ndarray
    columns: Columns

    def at(self, keys: np.ndarray) -> Observed:
        """The observations with these keys, in their order; all of them are there."""
        order = np.argsort(self.keys)
        rows = order[np.searchsorted(self.keys[order], keys)]
        return Observed(keys, self.clusters[rows], {name: values[rows] for name, values in self.columns.items()})


Reader = Callable[[Path], Observed]
Read = Callable[[Reader, Path], Observed]


def plainly(reader: Reader, folder: Path) -> Observed:
    """What a reader finds in a folder."""
    return reader(folder)


@dataclass(frozen=True)
class Measure:
    """One number of a model.

    Attributes:
        name: machine name.
        title: what it is, as the title of an axis.
        reading: how to read it, in a sentence.
        unit: what the observations are.
        part: which folders of an arm it is read from: `evaluate`, `candidates` or `effects`.
        observed: the folder's observations.
        statistic: of a model; None where it has none.
        percent: whether it is a fraction that is shown in per cent.
        lacking: why a model has none.
        optional: whether data may well be without it: then it is left out.
        shared: whether an arm's is told as a share of the baseline's, too: of effects, where 0 is none.
    """

    name: str
    title: str
    reading: str
    unit: str
    part: str
    observed: Reader
    statistic: Callable[[Columns], Statistic | None]
    percent: bool = False
    lacking: str = ""
    optional: bool = False
    shared: bool = False


@dataclass(frozen=True)
class ArmResult:
    """A measure of an arm.

    Attributes:
        arm: its name.
        found: mean over the seeds, or the reason why there is none.
        seeds: of each seed alone that has it.
        gain: this arm minus the baseline, paired, or the reason why there is none; None of the baseline itself.
        left: this arm as a share of the baseline, from the contrasts that `gain` is one of, or the reason why there is
            none; None of the baseline itself and of measures of which no share is told.
    """

    arm: str
    found: Interval
    seeds: tuple[float, ...]
    gain: Interval | None
    left: Interval | None = None


def compared(
    measure: Measure, arms: Mapping[str, Sequence[Path]], baseline: str, read: Read = plainly, level: float = 0.95
) -> list[ArmResult]:
    """The measure of every arm that has folders for it, over the observations that all of them hold.

    Args:
        measure: what is compared.
        arms: folders by arm, one per seed.
        baseline: the arm that the others are compared with; without folders there are no differences.
        read: what reads a folder, so that several measures can read it once.
        level: of the intervals.

    Returns:
        A result per arm, in their order; of an arm with a model that has no such number, the reason. Nothing without
        folders, and of an optional measure where no model has it.

    Raises:
        DataError: unreadable folders, or no observation in common.
    """
    observed = {arm: [read(measure.observed, folder) for folder in folders] for arm, folders in arms.items() if folders}
    if not observed:
        return []
    keys = _common([one.keys for seeds in observed.values() for one in seeds])
    if not len(keys):
        found = f"no {measure.unit} that all folders hold"
        remedy = "Compare models on the same data."
        raise DataError("cannot compare", [Problem(measure.name, found, f"{measure.unit} in common", remedy)])
    clusters = next(iter(observed.values()))[0].at(keys).clusters
    statistics = {arm: [measure.statistic(one.at(keys).columns) for one in seeds] for arm, seeds in observed.items()}
    known = {arm: [one for one in seeds if one is not None] for arm, seeds in statistics.items()}
    if measure.optional and not any(known.values()):
        return []
    reasons = {arm: _reason(measure, arms[arm], seeds) for arm, seeds in statistics.items()}
    values = {arm: tuple(one.value for one in seeds) for arm, seeds in known.items()}

    def result(arm: str) -> ArmResult:
        nothing = Interval(None, n=len(keys), clusters=len(np.unique(clusters)), reason=reasons[arm])
        if reasons[arm]:
            gain = nothing if arm != baseline and baseline in known else None
            return ArmResult(arm, nothing, values[arm], gain, gain if measure.shared else None)
        statistic = _mean(known[arm])
        own = widened(interval(statistic, clusters, level), [_of_seeds(values[arm])], level)
        if arm == baseline or baseline not in known:
            return ArmResult(arm, own, values[arm], None)
        if reasons[baseline]:
            gain = nothing._replace(reason=reasons[baseline])
            return ArmResult(arm, own, values[arm], gain, gain if measure.shared else None)
        reference, parts = _mean(known[baseline]), (_of_seeds(values[arm]), _of_seeds(values[baseline]))
        gain = widened(interval(difference(statistic, reference), clusters, level), parts, level)
        left = fieller(statistic, reference, clusters, parts, level) if measure.shared else None
        return ArmResult(arm, own, values[arm], gain, left)

    return [result(arm) for arm in known]


def _reason(measure: Measure, folders: Sequence[Path], statistics: Sequence[Statistic | None]) -> str:
    """Why there is no mean over the seeds; empty where there is one."""
    without = [str(folder) for folder, one in zip(folders, statistics, strict=True) if one is None]
    return f"{measure.lacking} ({', '.join(without)})" if without else ""


def _of_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Variance of the mean over seeds, and its degrees of freedom; of one seed nothing is known."""
    return (float(np.var(values, ddof=1)) / len(values), len(values) - 1.0) if len(values) > 1 else (0.0, 0.0)


def _common(keys: Sequence[np.ndarray]) -> np.ndarray:
    common = keys[0]
    for others in keys[1:]:
        common = np.intersect1d(common, others, assume_unique=True)
    return np.sort(common)


def _mean(statistics: Sequence[Statistic]) -> Statistic:
    """Mean over the seeds."""
    return Statistic(
        float(np.mean([one.value for one in statistics])),
        np.asarray(np.mean([one.influence for one in statistics], axis=0)),
    )


# --- pairs ----------------------------------------------------------------------------------------------------------


def _pairs(folder: Path) -> Observed:
    columns = ["pair_id", "occurrence", "root_id", "margin", "gold_margin", "chosen_tokens", "rejected_tokens"]
    table = _table(folder / "pairs.parquet", "the pairs.parquet of `rewardlab evaluate accuracy`", columns)
    tokens = table["chosen_tokens"].astype(np.int64) - table["rejected_tokens"].astype(np.int64)
    numbers = {"margin": table["margin"].astype(float), "gold": table["gold_margin"].astype(float), "tokens": tokens}
    return Observed(_keys(table, "pair_id"), table["root_id"].astype(str), numbers)


def _accuracy(columns: Columns) -> Statistic:
    return mean_statistic(credit(columns["margin"], np.zeros(len(columns["margin"]))))


def _gold(columns: Columns) -> Statistic | None:
    if np.isnan(columns["gold"]).any():
        return None
    return mean_statistic(credit(columns["margin"] * np.sign(columns["gold"]), np.zeros(len(columns["margin"]))))


def _longer(columns: Columns) -> Statistic | None:
    differs = columns["tokens"] != 0
    if not differs.any():
        return None
    share = mean_statistic(longer_scores_higher(columns["tokens"].astype(float)[differs], columns["margin"][differs]))
    influence = np.zeros(len(differs))
    influence[differs] = share.influence * len(differs) / differs.sum()
    return Statistic(share.value, influence)


# --- several completions a prompt -----------------------------------------------------------------------------------


def _prompts(folder: Path) -> Observed:
    columns = ["prompt_id", "completion_tokens", "score"]
    table = _table(folder / "scores.parquet", "the scores.parquet of `rewardlab score`", columns)
    known = ~np.isnan(table["score"].astype(float))
    lengths, scores, prompts = (table[name][known] for name in ("completion_tokens", "score", "prompt_id"))
    found = within_groups(lengths.astype(float), scores.astype(float), prompts.astype(str), pearson_along, smallest=3)
    labels = np.asarray(found.groups)
    return Observed(labels, labels, {"correlation": np.asarray(found.values)})


def _within(columns: Columns) -> Statistic:
    return mean_statistic(columns["correlation"])


# --- rewrites -------------------------------------------------------------------------------------------------------


def _responses(folder: Path) -> Observed:
    columns = ["id", "prompt_id", "draw", "scorer", "treated"]
    rewards = ["original_reward", "rewrite_reward", "rerewrite_reward"]
    path = folder / "triples.parquet"
    table = _table(path, "the triples.parquet of `rewardlab audit effects`", [*columns, *rewards])
    scorers = set(table["scorer"].astype(str))
    if len(scorers) > 1:
        problem = Problem(str(path), f"{len(scorers)} reward models", "one", "Name an audit of each model alone.")
        raise DataError("cannot compare", [problem])
    numbers = {name: table[name].astype(float) for name in rewards}
    kept = (table["draw"] == 0) & np.isfinite(np.column_stack(list(numbers.values()))).all(axis=1)
    chosen = {"treated": table["treated"].astype(bool)[kept], **{name: one[kept] for name, one in numbers.items()}}
    prompts = table["prompt_id"].astype(str)[kept]
    return Observed(table["id"].astype(str)[kept], prompts, {**chosen, "prompt": prompts})


def _effect(columns: Columns) -> Statistic | None:
    """ATE by RATE over the sd of the originals, whose own uncertainty is part of the influence (delta method)."""
    original, rewrite, rerewrite = (columns[f"{name}_reward"] for name in ("original", "rewrite", "rerewrite"))
    rewards = Rewards(columns["treated"], original, rewrite, rerewrite, clusters=columns["prompt"])
    unit = unit_of(rewards)
    if unit is None or columns["treated"].all() or not columns["treated"].any():
        return None
    mean = mean_statistic(signed_differences(rewards, "double"))
    value = mean.value / unit.sd
    return Statistic(value, mean.influence / unit.sd - value * unit.influence / unit.sd)


def _table(path: Path, expected: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
    with readable(path, expected):
        table: Any = pq.read_table(path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError("cannot compare", [Problem(str(path), f"no column {', '.join(missing)}", expected)])
    return {name: table[name].to_numpy() for name in columns}


def _keys(table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return np.char.add(np.char.add(table[name].astype(str), " "), table["occurrence"].astype(str))


MEASURES = (
    Measure(
        "accuracy",
        "accuracy on the pairs (%)",
        "Share of the pairs in which the chosen answer scores higher.",
        "pairs",
        "evaluate",
        _pairs,
        _accuracy,
        percent=True,
    ),
    Measure(
        "gold_accuracy",
        "agreement with the gold reward (%)",
        "Share of the pairs that are ordered as the gold reward orders them; known in the world only.",
        "pairs",
        "evaluate",
        _pairs,
        _gold,
        percent=True,
        lacking="pairs without a gold reward",
        optional=True,
    ),
    Measure(
        "longer_scores_higher",
        "longer answer scores higher (%)",
        "Share of the pairs that differ in length in which the longer answer scores higher.",
        "pairs",
        "evaluate",
        _pairs,
        _longer,
        percent=True,
        lacking="no pairs that differ in length",
    ),
    Measure(
        "within_prompt",
        "correlation of length and reward within a prompt",
        "Pearson correlation of tokens and reward over the answers to a prompt, mean over prompts.",
        "prompts",
        "candidates",
        _prompts,
        _within,
    ),
    Measure(
        "effect",
        "causal effect, RATE (sd of the rewards)",
        "What setting the attribute does to the reward, by rewrites of rewrites: the ATE in standard deviations.",
        "responses",
        "effects",
        _responses,
        _effect,
        lacking="responses of one side alone, or rewards that are all the same",
        shared=True,
    ),
)
"""All measures, in the order in which they are shown."""
