"""Ignorance checks: what is left of the accuracy for those who cannot know.

Probes are the model itself on a changed input; baselines are models that never had the knowledge. Each stands
beside the accuracy with the paired difference, since both are measured on the same pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rewardlab.data.pairs import as_pairs
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.baselines import BagOfWords, character_differences, length_weight
from rewardlab.evaluate.estimates import NO_PAIRS, Settings
from rewardlab.evaluate.table import PairTable, Scored
from rewardlab.functional import intervals
from rewardlab.functional.accuracy import credit
from rewardlab.records import Estimate, Pair, Record
from rewardlab.score.tables import PROBES

BASELINES = ("longer_tokens", "length_only", "bag_of_words")

_PROBE_READINGS = {
    "shuffled_prompt": "when every answer is scored under another record's prompt",
    "response_only": "when every answer is scored without its prompt",
}
_BASELINE_READINGS = {
    "longer_tokens": "always preferring the answer with more tokens",
    "length_only": "a Bradley-Terry model of the length in characters alone, fitted on the training pairs",
    "bag_of_words": "a Bradley-Terry model of word counts, blind to the prompt, fitted on the training pairs",
}
_NO_TRAINING_DATA = "no training data were given: set train to the files that the model was trained on"


class Ignorant(NamedTuple):
    """What the baselines say of the pairs.

    Attributes:
        margins: chosen minus rejected reward of every pair by every baseline, or the reason why there is none.
        counts: `train_pairs` that they were fitted on, and `shared_roots`: conversation roots of the data evaluated
            that the training data of their fold hold too, None where these are not given.
    """

    margins: dict[str, np.ndarray | str]
    counts: Mapping[str, int | None]


class _Fold(NamedTuple):
    """The baselines of one fold on its `rows` of the table; None where there is nothing to fit them to."""

    rows: np.ndarray
    lengths: np.ndarray | None
    words: np.ndarray | None
    train_pairs: int
    shared_roots: frozenset[str]
    leaks: list[Problem]


def ignorance_group(table: PairTable, settings: Settings) -> list[Estimate]:
    """Accuracy of the model on changed inputs, and what the change costs."""
    group = []
    for probe in PROBES:
        reason = f"there is no scores.{probe}.parquet beside the scores: score with the probe {probe}"
        group += _beside(
            table,
            table.probes.get(probe),
            settings,
            (f"ignorance.{probe}.accuracy", f"Accuracy {_PROBE_READINGS[probe]}."),
            (
                f"ignorance.{probe}.lost",
                f"Accuracy lost {_PROBE_READINGS[probe]}; near 0 means that the model does not use the prompt.",
            ),
            reason,
        )
    return group


def baselines_group(table: PairTable, margins: Mapping[str, np.ndarray | str], settings: Settings) -> list[Estimate]:
    """Accuracy of the ignorant baselines, and what the model adds to each.

    Args:
        table: the pairs.
        margins: chosen minus rejected reward by every baseline, or the reason why it has none.
        settings: level, cluster and seed.
    """
    group = []
    for baseline in BASELINES:
        found = margins[baseline]
        group += _beside(
            table,
            None if isinstance(found, str) else found,
            settings,
            (f"baselines.{baseline}.accuracy", f"Accuracy of {_BASELINE_READINGS[baseline]}."),
            (f"baselines.{baseline}.gain", f"Accuracy of the model minus that of {_BASELINE_READINGS[baseline]}."),
            found if isinstance(found, str) else "",
        )
    return group


def fit_baselines(scored: Scored, training: Sequence[Iterable[Record]]) -> Ignorant:
    """Fit the baselines fold by fold and judge every pair by those of its own fold.

    Args:
        scored: what is evaluated.
        training: the training records of every fold, gone through once, one fold after the other; candidates with
            rewards count as their pairs. Empty where they are not given.

    Raises:
        DataError: a pair that is judged stands among the training pairs of its fold.
    """
    table = scored.pairs
    margins: dict[str, np.ndarray | str] = {"longer_tokens": table.token_difference.astype(np.float64)}
    if not training:
        margins |= dict.fromkeys(("length_only", "bag_of_words"), _NO_TRAINING_DATA)
        return Ignorant(margins, {"train_pairs": 0, "shared_roots": None})
    # What a fold was trained on is gone again before the next one is read.
    folds = [_fitted(scored, fold, records) for fold, records in enumerate(training)]
    problems = [problem for fold in folds for problem in fold.leaks]
    if problems:
        raise DataError("training and evaluation data overlap", problems)
    shared = frozenset[str]().union(*(fold.shared_roots for fold in folds))
    counts = {"train_pairs": sum(fold.train_pairs for fold in folds), "shared_roots": len(shared)}
    return Ignorant(margins | _joined(len(table.pairs), folds), counts)


def _fitted(scored: Scored, fold: int, records: Iterable[Record]) -> _Fold:
    members = list(records)
    shared_roots = scored.roots[fold] & {record.prompt.root_id for record in members}
    pairs = [record for record in as_pairs(members) if isinstance(record, Pair)]
    rows = np.flatnonzero(scored.pairs.fold == fold)
    judged = [scored.pairs.pairs[row] for row in rows]
    leaks = _leaks(judged, pairs)
    if leaks or not pairs:
        return _Fold(rows, None, None, len(pairs), shared_roots, leaks)
    lengths = length_weight(pairs) * character_differences(judged)
    model = BagOfWords.fit(pairs)
    return _Fold(rows, lengths, None if model is None else model.margins(judged), len(pairs), shared_roots, leaks)


def _joined(pairs: int, folds: Sequence[_Fold]) -> dict[str, np.ndarray | str]:
    """The margins of all folds in the order of the table."""
    empty = [number for number, fold in enumerate(folds) if fold.train_pairs == 0]
    if empty:
        reason = "the training data hold no pairs" + (f" for fold {empty[0]}" if len(folds) > 1 else "")
        return {"length_only": reason, "bag_of_words": reason}
    lengths, words = np.zeros(pairs), np.zeros(pairs)
    for fold in folds:
        lengths[fold.rows] = fold.lengths
        words[fold.rows] = np.nan if fold.words is None else fold.words
    if any(fold.words is None for fold in folds):
        return {"length_only": lengths, "bag_of_words": "the training pairs are too few to count words"}
    return {"length_only": lengths, "bag_of_words": words}


def _beside(
    table: PairTable,
    margin: np.ndarray | None,
    settings: Settings,
    own: tuple[str, str],
    difference: tuple[str, str],
    reason: str,
) -> list[Estimate]:
    """Accuracy of other margins, and the model's accuracy minus it; `own` and `difference` are name and reading."""
    if margin is None or len(table.pairs) == 0:
        reason = reason if len(table.pairs) else NO_PAIRS
        return [settings.missing(name, reason, reading) for name, reading in (own, difference)]
    right = credit(margin, np.zeros(len(margin)))
    accuracy = intervals.proportion(right, table.cluster, settings.level)
    gap = intervals.paired_difference(table.right, right, table.cluster, settings.level)
    return [settings.estimate(own[0], accuracy, own[1]), settings.estimate(difference[0], gap, difference[1])]


def _leaks(judged: Sequence[Pair], training: Sequence[Pair]) -> list[Problem]:
    """A baseline fitted on the pairs it is judged by would look better than it is."""
    seen = {pair.id for pair in training}
    found = [pair for pair in judged if pair.id in seen]
    if not found:
        return []
    example = f"{found[0].source or found[0].id} (pair {found[0].id})"
    remedy = "Give as train the files that this fold's model was trained on, split by `rewardlab data prepare`."
    words = f"{len(found)} of the {len(judged)} pairs evaluated also among the training pairs, such as {example}"
    return [Problem("train", words, "pairs held out", remedy)]
