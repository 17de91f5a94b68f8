"""Records and their scores, side by side as columns: what every measure of this room reads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.matching import Cluster, Matched, cluster_label, read_matched
from rewardlab.functional.accuracy import credit
from rewardlab.records import Candidates, Pair, Rated, Record
from rewardlab.score.tables import PROBES, ScoreTable


@dataclass(frozen=True)
class PairTable:
    """Scored pairs, one per row; all arrays have one entry per pair.

    Attributes:
        pairs: the records, in the order of the files.
        occurrence: how many equal pairs came before.
        fold: number of the score table that holds the pair.
        chosen_score, rejected_score: rewards.
        chosen_tokens, rejected_tokens: lengths in tokens of the scorer, without special ones.
        chosen_truncated, rejected_truncated: whether the scorer saw less than the whole text.
        cluster: number of the prompt or conversation root.
        probes: chosen minus rejected score on a changed input, for every probe that was run on all files.
    """

    pairs: tuple[Pair, ...]
    occurrence: np.ndarray
    fold: np.ndarray
    chosen_score: np.ndarray
    rejected_score: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    chosen_truncated: np.ndarray
    rejected_truncated: np.ndarray
    cluster: np.ndarray
    probes: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def margin(self) -> np.ndarray:
        """Chosen minus rejected score."""
        return np.asarray(self.chosen_score - self.rejected_score)

    @property
    def right(self) -> np.ndarray:
        """1 where the chosen side scores higher, 1/2 where the scores tie, else 0."""
        return credit(self.chosen_score, self.rejected_score)

    @property
    def token_difference(self) -> np.ndarray:
        """Tokens of the chosen minus tokens of the rejected completion."""
        return np.asarray(self.chosen_tokens - self.rejected_tokens)

    @property
    def character_difference(self) -> np.ndarray:
        """Characters of the chosen minus characters of the rejected completion."""
        return np.array([len(pair.chosen) - len(pair.rejected) for pair in self.pairs], dtype=np.int64)

    @property
    def gold_margin(self) -> np.ndarray:
        """Gold reward of the chosen minus that of the rejected side; not a number where a pair carries none."""
        return np.array([_gold(pair, "chosen") - _gold(pair, "rejected") for pair in self.pairs], dtype=np.float64)


@dataclass(frozen=True)
class CompletionTable:
    """Scored completions, each once per fold and prompt; all arrays have one entry per completion.

    Attributes:
        group: number of the (fold, prompt): scores within a group come from one model and answer one prompt.
        fold: number of the score table.
        score: reward.
        tokens: length in tokens of the scorer, without special ones.
        characters: length in characters.
        cluster: number of the prompt or conversation root.
    """

    group: np.ndarray
    fold: np.ndarray
    score: np.ndarray
    tokens: np.ndarray
    characters: np.ndarray
    cluster: np.ndarray

    @property
    def cluster_of_group(self) -> np.ndarray:
        """Cluster of every group: all completions of a group share a prompt, hence a cluster."""
        clusters = np.zeros(int(self.group.max(initial=-1)) + 1, dtype=np.int64)
        clusters[self.group] = self.cluster
        return clusters

    @property
    def centred_score(self) -> np.ndarray:
        """Score minus the mean of its fold: preferences leave the constant of a reward model free."""
        sizes = np.bincount(self.fold)
        means = np.bincount(self.fold, weights=self.score) / np.where(sizes, sizes, 1)
        return np.asarray(self.score - means[self.fold])


@dataclass(frozen=True)
class ScoredCandidates:
    """The completions of one prompt with their scores and, where the data have them, their rewards.

    Attributes:
        record: the candidates.
        scores: one per completion.
        cluster: number of the prompt or conversation root.
    """

    record: Candidates
    scores: np.ndarray
    cluster: int


@dataclass(frozen=True)
class Scored:
    """Everything that is evaluated.

    Attributes:
        pairs: the pairs.
        completions: all completions of all records.
        candidates: the records with several completions.
        scorers: names of the scorers, one per score table.
        roots: conversation roots of the records of each score table.
        counts: how many there are of everything.
    """

    pairs: PairTable
    completions: CompletionTable
    candidates: tuple[ScoredCandidates, ...]
    scorers: tuple[str, ...]
    roots: tuple[frozenset[str], ...]
    counts: dict[str, int]


def read_scored(
    data: Sequence[Path], scores: Sequence[Path], cluster: Cluster = "prompt", limit: int | None = None
) -> Scored:
    """Read records and score tables and match them by id.

    Args:
        data: canonical files.
        scores: one score table (or folder of a score run) per data file, or one for all of them.
        cluster: what observations may depend on each other within.
        limit: read only the first so many records of every file.

    Raises:
        DataError: files that cannot be read, scores that are missing: every problem.
    """
    matched = read_matched(data, scores, limit)
    records = [record for _, record in matched.records]
    clusters = _numbered([cluster_label(record, cluster) for record in records])
    pairs = _pair_table(matched, clusters)
    completions = _completion_table(matched, clusters)
    candidates = tuple(
        ScoredCandidates(record, own, int(label))
        for record, own, label in zip(records, matched.scores, clusters, strict=True)
        if isinstance(record, Candidates)
    )
    counts = _counts(records, pairs, completions)
    counts["clusters"] = len(np.unique(clusters))
    counts["unused_scores"] = matched.unused
    return Scored(pairs, completions, candidates, matched.scorers, _roots(matched), counts)


def _pair_table(matched: Matched, clusters: np.ndarray) -> PairTable:
    records, tables = matched.records, matched.tables
    places = np.array(
        [number for number, (_, record) in enumerate(records) if isinstance(record, Pair)], dtype=np.int64
    )
    pairs = tuple(record for _, record in records if isinstance(record, Pair))
    folds = np.array([records[number][0] for number in places], dtype=np.int64)
    sides = np.array([matched.rows[number] for number in places], dtype=np.int64).reshape(-1, 2)
    score = _gathered([table.score for table in tables], folds, sides)
    tokens = _gathered(_tokens(tables), folds, sides)
    truncated = _gathered([table.truncated for table in tables], folds, sides)
    seen: Counter[str] = Counter()
    occurrence = []
    for pair in pairs:
        occurrence.append(seen[pair.id])
        seen[pair.id] += 1
    return PairTable(
        pairs=pairs,
        occurrence=np.array(occurrence, dtype=np.int64),
        fold=folds,
        chosen_score=score[:, 0],
        rejected_score=score[:, 1],
        chosen_tokens=tokens[:, 0],
        rejected_tokens=tokens[:, 1],
        chosen_truncated=truncated[:, 0],
        rejected_truncated=truncated[:, 1],
        cluster=clusters[places],
        probes=_probe_margins(matched, places.tolist()),
    )


def _probe_margins(matched: Matched, places: Sequence[int]) -> dict[str, np.ndarray]:
    """Chosen minus rejected score of every pair, for every probe that stands beside all tables."""
    margins = {}
    for probe, scores in matched.probed(PROBES).items():
        sides = (scores[number] for number in places)
        margins[probe] = np.array([chosen - rejected for chosen, rejected in sides], dtype=np.float64)
    return margins


def _completion_table(matched: Matched, clusters: np.ndarray) -> CompletionTable:
    groups: dict[tuple[int, str], int] = {}
    unique: dict[tuple[int, str], tuple[int, int, int, int, int]] = {}
    for (fold, record), found, cluster in zip(matched.records, matched.rows, clusters, strict=True):
        group = groups.setdefault((fold, record.prompt.id), len(groups))
        for row, completion in zip(found, record.completions, strict=True):
            unique.setdefault((group, completion), (group, fold, int(row), len(completion), int(cluster)))
    columns = np.array(list(unique.values()), dtype=np.int64).reshape(-1, 5)
    folds, places = columns[:, 1], columns[:, 2]
    return CompletionTable(
        group=columns[:, 0],
        fold=folds,
        score=_gathered([table.score for table in matched.tables], folds, places),
        tokens=_gathered(_tokens(matched.tables), folds, places),
        characters=columns[:, 3],
        cluster=columns[:, 4],
    )


def _tokens(tables: Sequence[ScoreTable]) -> list[np.ndarray]:
    """The lengths that each table has.

    Raises:
        DataError: a scorer without a tokenizer has left them empty.
    """
    problems = [
        Problem(f'{table.path}, column "completion_tokens"', "no lengths", "the lengths that a reward model writes")
        for table in tables
        if table.tokens is None
    ]
    if problems:
        raise DataError("a scorer without a tokenizer cannot be evaluated: length is measured in its tokens", problems)
    return [table.tokens for table in tables if table.tokens is not None]


def _gathered(columns: Sequence[np.ndarray], folds: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Entry `rows[i]` of column `folds[i]`, for every i (and every side, where rows has two)."""
    gathered = np.zeros(rows.shape, dtype=columns[0].dtype)
    for fold, column in enumerate(columns):
        inside = folds == fold
        gathered[inside] = column[rows[inside]]
    return gathered


def _numbered(labels: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(labels), return_inverse=True)[1]


def _roots(matched: Matched) -> tuple[frozenset[str], ...]:
    """Conversation roots of the records of every fold."""
    roots: list[set[str]] = [set() for _ in matched.tables]
    for fold, record in matched.records:
        roots[fold].add(record.prompt.root_id)
    return tuple(map(frozenset, roots))


def _gold(pair: Pair, side: str) -> float:
    """The gold reward that the world writes into the `meta` of a pair; not a number where there is none."""
    latents = pair.meta.get(side)
    gold = latents.get("gold") if isinstance(latents, Mapping) else None
    return float(gold) if isinstance(gold, int | float) and not isinstance(gold, bool) else math.nan


def _counts(records: Sequence[Record], pairs: PairTable, completions: CompletionTable) -> dict[str, int]:
    kinds = Counter(type(record) for record in records)
    return {
        "records": len(records),
        "pairs": kinds[Pair],
        "candidates": kinds[Candidates],
        "rated": kinds[Rated],
        "prompts": len({record.prompt.id for record in records}),
        "roots": len({record.prompt.root_id for record in records}),
        "completions": len(completions.score),
        "duplicate_pairs": int((pairs.occurrence > 0).sum()),
        "ties": int((pairs.margin == 0).sum()),
        "truncated_pairs": int((pairs.chosen_truncated | pairs.rejected_truncated).sum()),
        "equal_length_pairs": int((pairs.token_difference == 0).sum()),
    }
