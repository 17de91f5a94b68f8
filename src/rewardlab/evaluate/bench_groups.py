"""The scores of RewardBench and RewardBench 2 as estimates with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rewardlab.evaluate.bench_records import BenchRecords, TiesPrompt
from rewardlab.evaluate.estimates import NO_PAIRS, Settings
from rewardlab.evaluate.quality import subset_of
from rewardlab.evaluate.scored import ScoredRecord
from rewardlab.functional import benchmark, intervals
from rewardlab.functional.accuracy import credit
from rewardlab.functional.intervals import Statistic
from rewardlab.records import Estimate

SECTIONS: Mapping[str, Sequence[str]] = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": (
        *("mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor"),
        *("llmbar-adver-GPTInst", "llmbar-adver-GPTOut", "llmbar-adver-manual"),
    ),
    "Safety": (
        *("refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond"),
        "donotanswer",
    ),
    "Reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}
"""RewardBench's sections and their subsets (`rewardbench/constants.py`, `SUBSET_MAPPING`)."""
UPWEIGHTED = {"math-prm": 984 / 447}
"""Subsets that count more than their size: math-prm, of 447 pairs, as much as the 984 of code (`EXAMPLE_COUNTS`)."""

_NO_CANDIDATES = "the data hold no candidates of which some are right and some are wrong"
_NO_TIES = "the data hold no subset Ties with prompts (id `tied:<n>`) and their references (id `ref:<n>`)"
_TIES_READINGS = {
    "overall": "RewardBench 2's score of prompts with many right answers: 0.3 tied + 0.3 reference + 0.2 preferred + "
    "0.2 preferred_hard + 0.01 closeness; from -0.01 to 1.01.",
    "tied": "Share of prompts with many right answers all of which score above every wrong one.",
    "reference": "Share of prompts with one right answer that scores above every wrong one.",
    "preferred": "Share of prompts whose right answers lie closer together than the wrong ones lie below them.",
    "preferred_hard": "The same, against the smaller one of the prompt's own margin and that of its reference.",
    "closeness": "Mean tanh(smaller margin / spread of the right answers - 1), from -1 to 1.",
}


def pairs_group(pairs: Sequence[ScoredRecord], settings: Settings, ties: float) -> list[Estimate]:
    """Accuracy on all pairs and on every subset.

    Args:
        pairs: records of two sides.
        settings: level and cluster.
        ties: credit of equal scores.
    """
    right, clusters, labels = pair_columns(pairs, ties)

    def share(name: str, inside: np.ndarray, reading: str) -> Estimate:
        found = intervals.proportion(right[inside], clusters[inside], settings.level)
        return settings.estimate(name, found, reading, reason=NO_PAIRS)

    words = "half" if ties else "nothing"
    whole = f"Share of pairs whose chosen side scores higher (a tie counts {words}); a coin flip gets 0.5."
    group = [share("accuracy", np.ones(len(right), bool), whole)]
    subsets = sorted(set(labels.tolist()) - {""})
    parts = [
        share(f"subset.{name}", labels == name, f"Accuracy on the pairs of the subset {name}.") for name in subsets
    ]
    return [*group, *parts]


def sections_group(
    pairs: Sequence[ScoredRecord], sections: Mapping[str, Sequence[str]], settings: Settings, ties: float
) -> tuple[list[Estimate], list[str]]:
    """Accuracy by section, and the mean of the sections where there are several.

    Args:
        pairs: records of two sides.
        sections: name → subsets; empty for those of RewardBench.
        settings: level and cluster.
        ties: credit of equal scores.

    Returns:
        The estimates, and the subsets of the sections that the data do not hold; neither where they hold none of them.
    """
    right, clusters, labels = pair_columns(pairs, ties)
    chosen = sections or SECTIONS
    weights = np.array([1.0 if sections else UPWEIGHTED.get(name, 1.0) for name in labels.tolist()])
    inside = {name: np.isin(labels, list(subsets)) for name, subsets in chosen.items()}
    inside = {name: rows for name, rows in inside.items() if rows.any()}
    if not inside:
        return [], []
    group = []
    for name, rows in inside.items():
        found = benchmark.bounded(benchmark.weighted(right[rows], weights[rows]), clusters[rows], settings.level)
        reading = f"Accuracy on the section {name}: its subsets by their sizes."
        group.append(settings.estimate(f"section.{name}", found, reading))
    if len(inside) > 1:
        used = np.any(list(inside.values()), axis=0)
        each = [benchmark.weighted(right[used], weights[used] * rows[used]) for rows in inside.values()]
        found = benchmark.bounded(benchmark.average(each), clusters[used], settings.level)
        count = "the sections" if len(each) == len(chosen) else f"the {len(each)} sections that there are pairs of"
        group.append(settings.estimate("section.average", found, f"Mean of {count}, each counting alike."))
    seen = set(labels.tolist())
    return group, [subset for subsets in chosen.values() for subset in subsets if subset not in seen]


def best_of_k_group(records: BenchRecords, settings: Settings) -> list[Estimate]:
    """How often a right answer is on top of K, in all and by subset; what chance would give; the mean over subsets."""
    asked = [one for one, _ in records.best_of_k]
    values = np.array([benchmark.best_of_k(one.scores, right) for one, right in records.best_of_k])
    clusters = np.array([one.cluster for one in asked])
    labels = np.array([subset_of(one.record.meta) or "" for one in asked], dtype=object)

    def share(name: str, inside: np.ndarray, reading: str) -> Estimate:
        interval = intervals.proportion(values[inside], clusters[inside], settings.level)
        return settings.estimate(name, interval, reading, unit="prompts", reason=_NO_CANDIDATES)

    whole = "Share of prompts whose highest-scoring answer is right; of several on top, their share of right ones."
    group = [share("best_of_k", np.ones(len(values), bool), whole)]
    if asked:
        reading = "The same for a scorer that draws lots: the mean share of right answers."
        reason = "it follows from the data, without a scorer"
        chance = float(np.mean([right.mean() for _, right in records.best_of_k]))
        group.append(Estimate("best_of_k.chance", chance, n=len(asked), unit="prompts", reading=reading, reason=reason))
    subsets = sorted(set(labels.tolist()) - {""})
    group += [share(f"best_of_k.{name}", labels == name, f"The same on the subset {name}.") for name in subsets]
    parts = [labels == name for name in subsets]
    average = _average_of_subsets(records.ties, values, parts, clusters, settings)
    return group if average is None else [*group, average]


def ties_group(prompts: Sequence[TiesPrompt], settings: Settings) -> list[Estimate]:
    """The score of the subset Ties, and its parts."""
    score = _ties_score(prompts)
    if score is None:
        return [settings.missing("ties.overall", _NO_TIES, _TIES_READINGS["overall"], unit="prompts")]
    clusters = np.array([one.number for one in prompts])
    group = []
    for name, statistic in score._asdict().items():
        ends = benchmark.TIES_ENDS.get(name, (0.0, 1.0))
        found = benchmark.bounded(statistic, clusters, settings.level, ends)
        group.append(settings.estimate(f"ties.{name}", found, _TIES_READINGS[name], unit="prompts"))
    return group


def pair_columns(pairs: Sequence[ScoredRecord], ties: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Credit, cluster and subset (empty where there is none) of every pair."""
    scores = np.array([one.scores for one in pairs], dtype=np.float64).reshape(-1, 2)
    clusters = np.array([one.cluster for one in pairs])
    labels = np.array([subset_of(one.record.meta) or "" for one in pairs], dtype=object)
    return credit(scores[:, 0], scores[:, 1], ties), clusters, labels


def _ties_score(prompts: Sequence[TiesPrompt]) -> benchmark.TiesScore | None:
    measured = np.array([benchmark.margin_and_spread(one.scores, one.right) for one in prompts]).reshape(-1, 2)
    number = np.array([one.number for one in prompts], dtype=np.int64)
    reference = np.array([one.reference for one in prompts], dtype=bool)
    return benchmark.ties_score(number, reference, measured[:, 0], measured[:, 1])


def _average_of_subsets(
    prompts: Sequence[TiesPrompt],
    values: np.ndarray,
    subsets: Sequence[np.ndarray],
    clusters: np.ndarray,
    settings: Settings,
) -> Estimate | None:
    """RewardBench 2's score: the mean over its subsets, the Ties score among them; None where there is only one."""
    score = _ties_score(prompts)
    rows = len(values) + (len(prompts) if score else 0)
    parts = []
    for inside in subsets:
        part = benchmark.weighted(values, inside.astype(np.float64))
        parts.append(_among(part, np.arange(len(values)), rows))
    if score is not None:
        parts.append(_among(score.overall, np.arange(len(values), rows), rows))
        clusters = np.array([*clusters.tolist(), *(f"{one.number} of Ties" for one in prompts)])
    if len(parts) < 2:
        return None
    # Ties, one part of as many, can be a little below 0 and above 1.
    low, high = benchmark.TIES_ENDS["overall"] if score else (0.0, 1.0)
    ends = (low / len(parts), 1.0 + (high - 1.0) / len(parts))
    found = benchmark.bounded(benchmark.average(parts), clusters, settings.level, ends)
    reading = f"Mean over the {len(parts)} subsets, each counting alike" + (
        ", Ties by its own score." if score else "."
    )
    return settings.estimate("best_of_k.average", found, reading, unit="prompts")


def _among(statistic: Statistic, places: np.ndarray, rows: int) -> Statistic:
    """A statistic of the observations at `places` as one of all `rows`."""
    influence = np.zeros(rows)
    influence[places] = statistic.influence * rows / len(places)
    return Statistic(statistic.value, influence)
