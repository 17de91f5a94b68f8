"""Ignorance checks: what is left of the accuracy for those who cannot know.

Probes are the model itself on a changed input; baselines are models that never had the knowledge. Each stands
beside the accuracy with the paired difference, since both are measured on the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.baselines import BagOfWords, character_differences, length_weight
from rewardlab.evaluate.estimates import NO_PAIRS, Settings
from rewardlab.evaluate.scores import PROBES
from rewardlab.evaluate.table import PairTable
from rewardlab.functional import intervals
from rewardlab.functional.accuracy import credit
from rewardlab.records import Estimate, Pair

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


def baseline_margins(table: PairTable, training: Sequence[Sequence[Pair]] | None) -> dict[str, np.ndarray | str]:
    """Chosen minus rejected reward of every pair by every baseline, or the reason why there is none.

    Args:
        table: the pairs to judge.
        training: the training pairs of every fold; None where they are not given.

    Raises:
        DataError: a pair that is judged stands among the training pairs of its fold.
    """
    margins: dict[str, np.ndarray | str] = {"longer_tokens": table.token_difference.astype(np.float64)}
    if training is None:
        return margins | {"length_only": _NO_TRAINING_DATA, "bag_of_words": _NO_TRAINING_DATA}
    _refuse_leaks(table, training)
    empty = [fold for fold, pairs in enumerate(training) if not pairs]
    if empty:
        reason = "the training data hold no pairs" + (f" for fold {empty[0]}" if len(training) > 1 else "")
        return margins | {"length_only": reason, "bag_of_words": reason}
    words, lengths = np.zeros(len(table.pairs)), np.zeros(len(table.pairs))
    for fold, pairs in enumerate(training):
        inside = np.flatnonzero(table.fold == fold)
        judged = [table.pairs[row] for row in inside]
        lengths[inside] = length_weight(pairs) * character_differences(judged)
        model = BagOfWords.fit(pairs)
        if model is None:
            reason = "the training pairs are too few to count words"
            return margins | {"length_only": lengths, "bag_of_words": reason}
        words[inside] = model.margins(judged)
    return margins | {"length_only": lengths, "bag_of_words": words}


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


def _refuse_leaks(table: PairTable, training: Sequence[Sequence[Pair]]) -> None:
    """A baseline fitted on the pairs it is judged by would look better than it is."""
    seen = [{pair.id for pair in pairs} for pairs in training]
    remedy = "Give as train the files that this fold's model was trained on, split by `rewardlab data prepare`."
    problems = [
        Problem(str(pair.source or pair.id), f"pair {pair.id} also among the training pairs", "a pair held out", remedy)
        for pair, fold in zip(table.pairs, table.fold.tolist(), strict=True)
        if pair.id in seen[fold]
    ]
    if problems:
        raise DataError("training and evaluation data overlap", problems)
