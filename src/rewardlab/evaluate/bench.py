"""`rewardlab evaluate bench`: scored benchmark sets → bench.json and bench.txt.

RewardBench (accuracy by subset and section), RewardBench 2 (best of K, and its Ties score) and RM-Bench (style against
correctness), each by its published formula, and the same for any data with subsets, candidates or styles. The keys of
the files are those of `docs/architecture.md`, the measures those of `docs/robustness.md`.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field

from rewardlab.evaluate.base import EvaluationResult, ScoresEvaluation
from rewardlab.evaluate.bench_groups import best_of_k_group, pairs_group, sections_group, ties_group
from rewardlab.evaluate.bench_records import BenchRecords, sorted_records
from rewardlab.evaluate.bench_words import findings
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.scored import ScoredRecords, read_scored_records
from rewardlab.evaluate.styles import style_rows, styles_group
from rewardlab.protocols import Folder
from rewardlab.records import Candidates, Pair, Rated

RESULT = "bench.json"
SUMMARY = "bench.txt"


class BenchEvaluation(ScoresEvaluation):
    """Data, their scores, and how the published formulas are applied."""

    ties: Literal["half", "lose"] = "half"
    """What a pair with equal scores counts: one half, or nothing, as in the published code."""
    sections: dict[str, list[str]] = Field(default_factory=dict)
    """Sections of your own, name → subsets. Default: those of RewardBench."""


class BenchResult(EvaluationResult):
    """What bench.json holds."""

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return findings(self.raw)


def evaluate_bench(config: BenchEvaluation, run: Folder) -> BenchResult:
    """Evaluate scores by the formulas of the benchmarks; writes bench.json, and bench.txt for reading.

    Raises:
        DataError: files that cannot be read, score tables that are not usable, scores that are missing: every problem,
            and nothing has been written.
    """
    scored = read_scored_records(config.data, config.scores, config.cluster, config.limit)
    result = measure(scored, config, config.title)
    result.write(run, RESULT, SUMMARY)
    return result


def measure(scored: ScoredRecords, config: BenchEvaluation, split: str) -> BenchResult:
    """Every score of the benchmarks.

    Args:
        scored: records and their scores.
        config: ties, sections, level and cluster.
        split: what the data are called.
    """
    settings = Settings(config.level, config.cluster)
    records = sorted_records(scored)
    tie = 0.5 if config.ties == "half" else 0.0
    sections, absent = sections_group(records.pairs, config.sections, settings, tie)
    groups = {
        "pairs": pairs_group(records.pairs, settings, tie),
        "sections": sections,
        "best_of_k": best_of_k_group(records, settings),
        "ties": ties_group(records.ties, settings),
        "styles": styles_group(records.styled, settings, tie),
    }
    raw = {
        "split": split,
        "scorer": {"names": list(scored.scorers), "folds": len(scored.scorers)},
        "options": {"level": config.level, "cluster": config.cluster, "ties": config.ties},
        "counts": _counts(scored, records),
        "absent_subsets": absent,
        "estimates": {name: [one.as_dict() for one in group] for name, group in groups.items()},
        "curves": {"style_matrix": style_rows(records.styled, settings, tie)},
    }
    return BenchResult(raw)


def _counts(scored: ScoredRecords, records: BenchRecords) -> dict[str, int]:
    kinds = Counter(type(one.record) for one in scored.records)
    return {
        "records": len(scored.records),
        "pairs": kinds[Pair],
        "candidates": kinds[Candidates],
        "rated": kinds[Rated],
        "prompts": len({one.record.prompt.id for one in scored.records}),
        "clusters": len({one.cluster for one in scored.records}),
        "best_of_k": len(records.best_of_k),
        "ties_prompts": len(records.ties),
        "styled": len(records.styled.records),
        "left_out": records.left_out,
        "unused_scores": scored.unused,
    }
