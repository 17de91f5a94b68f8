"""`rewardlab evaluate accuracy`: scored preference data → accuracy.json, accuracy.txt and pairs.parquet.

How good the reward model is, how sure it should be, how much of it is length, and what it adds to models that
cannot know. The keys of the files are those of `docs/architecture.md`, the measures those of `docs/measures.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from rewardlab.config import Paths
from rewardlab.data.canonical import read_records
from rewardlab.data.files import split_in_name
from rewardlab.data.render import plain_text
from rewardlab.evaluate import length, quality
from rewardlab.evaluate.agreement import agreement_group
from rewardlab.evaluate.base import ScoresEvaluation
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.ignorance import Ignorant, baselines_group, fit_baselines, ignorance_group
from rewardlab.evaluate.summary import findings, format_accuracy
from rewardlab.evaluate.table import PairTable, Scored, read_scored
from rewardlab.protocols import Folder
from rewardlab.records import Estimate, Record
from rewardlab.score.tables import PROBES
from rewardlab.store.files import write_json, write_text
from rewardlab.store.table import write_parquet

__all__ = ["AccuracyEvaluation", "AccuracyResult", "evaluate_accuracy", "findings", "format_accuracy"]

RESULT = "accuracy.json"
SUMMARY = "accuracy.txt"
PAIRS = "pairs.parquet"


class AccuracyEvaluation(ScoresEvaluation):
    """Data, their scores, and how to put intervals around what they show."""

    train: Paths = ()
    """Files that the model was trained on, to fit the ignorant baselines: one per score table; with one score table,
    any number."""
    split: str | None = None
    """What the data are called. Default: the split that the names of all files speak of, else these names."""
    seed: int = Field(default=0, ge=0)
    """Draws the length-balanced subset and the resamples."""

    @model_validator(mode="after")
    def _training_fits(self) -> Self:
        if self.train and len(self.scores) > 1 and len(self.train) != len(self.scores):
            raise ValueError(f"train for {len(self.scores)} score tables: one training file each")
        return self

    @property
    def title(self) -> str:
        """What the data are called."""
        if self.split is not None:
            return self.split
        split, *others = {split_in_name(path.name) for path in self.data}
        return super().title if split is None or others else split


@dataclass(frozen=True)
class AccuracyResult:
    """What accuracy.json holds.

    Attributes:
        split: what the data are called.
        scorer: `names` of the scorers and number of `folds`.
        options: level, cluster and seed.
        counts: how many there are of everything; None where that is not known.
        estimates: group → estimates, in the order of the documentation.
        curves: name → rows.
    """

    split: str
    scorer: dict[str, Any]
    options: dict[str, Any]
    counts: dict[str, int | None]
    estimates: dict[str, list[Estimate]]
    curves: dict[str, list[dict[str, Any]]]

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of that machine name; KeyError where there is none."""
        for group in self.estimates.values():
            for one in group:
                if one.name == name:
                    return one
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of accuracy.json."""
        estimates = {group: [one.as_dict() for one in found] for group, found in self.estimates.items()}
        return {
            "split": self.split,
            "scorer": self.scorer,
            "options": self.options,
            "counts": self.counts,
            "estimates": estimates,
            "curves": self.curves,
        }

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return findings(self.as_dict())


def evaluate_accuracy(config: AccuracyEvaluation, run: Folder) -> AccuracyResult:
    """Evaluate scores against preferences; writes accuracy.json, accuracy.txt (for reading) and pairs.parquet.

    Raises:
        DataError: files that cannot be read, score tables that are not usable, scores that are missing, training
            data that overlap with the data evaluated: every problem, and nothing has been written.
    """
    scored = read_scored(config.data, config.scores, config.cluster, config.limit)
    ignorant = fit_baselines(scored, [_Training(paths) for paths in _files_of_folds(config)])
    result = measure(scored, ignorant, Settings(config.level, config.cluster, config.seed), config.title)
    bag = ignorant.margins["bag_of_words"]
    write_parquet(run.path(PAIRS), _pairs_table(scored.pairs, None if isinstance(bag, str) else bag))
    write_text(run.path(SUMMARY), "\n\n".join([*result.lines(), format_accuracy(result.as_dict())]) + "\n")
    write_json(run.path(RESULT), result.as_dict())
    return result


def measure(scored: Scored, ignorant: Ignorant, settings: Settings, split: str) -> AccuracyResult:
    """Every measure of scored data.

    Args:
        scored: pairs, completions and candidates with their scores.
        ignorant: the baselines, from `ignorance.fit_baselines`.
        settings: level, cluster and seed.
        split: what the data are called.
    """
    pairs, completions = scored.pairs, scored.completions
    subset = length.balanced(pairs, settings)
    return AccuracyResult(
        split=split,
        scorer={"names": list(scored.scorers), "folds": len(scored.scorers)},
        options={"level": settings.level, "cluster": settings.cluster, "seed": settings.seed},
        counts={**scored.counts, **length.length_counts(completions, subset), **ignorant.counts},
        estimates={
            "accuracy": quality.accuracy_group(pairs, settings),
            "calibration": quality.calibration_group(pairs, settings),
            "margin": quality.margin_group(pairs, settings),
            "length": length.length_group(pairs, completions, subset, settings),
            "ignorance": ignorance_group(pairs, settings),
            "baselines": baselines_group(pairs, ignorant.margins, settings),
            "agreement": agreement_group(scored.candidates, settings),
            "gold": quality.gold_group(pairs, settings),
        },
        curves={
            "reliability": quality.reliability_rows(pairs, settings),
            "confidence": quality.confidence_rows(pairs, settings),
            "margins": quality.margin_rows(pairs),
            "length_bins": length.difference_rows(pairs, settings),
            "length_scores": length.score_rows(completions),
            "balanced_bins": length.balanced_rows(subset),
        },
    )


def _files_of_folds(config: AccuracyEvaluation) -> list[tuple[Path, ...]]:
    """Training files of every fold; none where none are given."""
    if not config.train:
        return []
    return [(path,) for path in config.train] if len(config.scores) > 1 else [config.train]


@dataclass(frozen=True)
class _Training:
    """The training records of a fold, read whenever they are gone through: all folds at once may not fit."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Record]:
        for path in self.paths:
            yield from read_records(path)


def _pairs_table(table: PairTable, bag_of_words: np.ndarray | None) -> pa.Table:
    pairs, rows = table.pairs, len(table.pairs)

    def or_nulls(values: np.ndarray | None) -> pa.Array:
        return pa.array([None] * rows if values is None else values, type=pa.float64())

    columns: dict[str, Any] = {
        "pair_id": text_column([pair.id for pair in pairs]),
        "occurrence": pa.array(table.occurrence, type=pa.int32()),
        "prompt_id": text_column([pair.prompt.id for pair in pairs]),
        "root_id": text_column([pair.prompt.root_id for pair in pairs]),
        "prompt": text_column([plain_text(pair.prompt) for pair in pairs]),
        "chosen": text_column([pair.chosen for pair in pairs]),
        "rejected": text_column([pair.rejected for pair in pairs]),
        "chosen_score": or_nulls(table.chosen_score),
        "rejected_score": or_nulls(table.rejected_score),
        "margin": or_nulls(table.margin),
        "given_margin": pa.array([pair.margin for pair in pairs], type=pa.float64()),
        "chosen_tokens": pa.array(table.chosen_tokens, type=pa.int32()),
        "rejected_tokens": pa.array(table.rejected_tokens, type=pa.int32()),
        "chosen_characters": pa.array([len(pair.chosen) for pair in pairs], type=pa.int32()),
        "rejected_characters": pa.array([len(pair.rejected) for pair in pairs], type=pa.int32()),
        "chosen_truncated": pa.array(table.chosen_truncated, type=pa.bool_()),
        "rejected_truncated": pa.array(table.rejected_truncated, type=pa.bool_()),
        "subset": text_column([quality.subset_of(pair.meta) for pair in pairs]),
        "fold": pa.array(table.fold, type=pa.int32()),
        "source": text_column([None if pair.source is None else str(pair.source) for pair in pairs]),
    }
    columns |= {f"{probe}_margin": or_nulls(table.probes.get(probe)) for probe in PROBES}
    columns["bag_of_words_margin"] = or_nulls(bag_of_words)
    columns["gold_margin"] = pa.array(table.gold_margin, type=pa.float64(), from_pandas=True)
    return pa.table(columns)


def text_column(values: Sequence[str | None]) -> pa.Array:
    """A text column; a lone surrogate, which UTF-8 cannot hold, is written as its escape."""
    clean = [None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8") for text in values]
    return pa.array(clean, type=pa.string())
