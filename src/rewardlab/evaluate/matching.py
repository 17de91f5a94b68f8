"""Records matched with the rows of their score tables by id: what `table` and `scored` are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rewardlab.data.canonical import read_records
from rewardlab.errors import DataError, Problem
from rewardlab.records import Record
from rewardlab.score.tables import Matcher, ScoreTable, read_scores

Cluster = Literal["prompt", "root"]


@dataclass(frozen=True)
class Matched:
    """Records, their score tables, and where the scores of each record stand.

    Attributes:
        records: number of the score table, and record, in the order of the files.
        tables: of scores.
        rows: row numbers of every record's completions in its table.
        unused: rows of the tables that no record has asked for.
    """

    records: list[tuple[int, Record]]
    tables: list[ScoreTable]
    rows: list[np.ndarray]
    unused: int

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names of the scorers, one per score table."""
        return tuple(table.scorer for table in self.tables)

    @property
    def scores(self) -> list[np.ndarray]:
        """The scores of every record's completions."""
        return [self.tables[fold].score[row] for (fold, _), row in zip(self.records, self.rows, strict=True)]

    def probed(self, probes: Sequence[str]) -> dict[str, list[np.ndarray]]:
        """The same on changed inputs, for every probe that stands beside all tables.

        Raises:
            DataError: tables that are not usable, scores that are missing: every problem.
        """
        found = {}
        for probe in probes:
            paths = [table.probe(probe) for table in self.tables]
            if all(path.is_file() for path in paths):
                found[probe] = _matched(self.records, read_scores(paths)).scores
        return found


def read_matched(data: Sequence[Path], scores: Sequence[Path], limit: int | None = None) -> Matched:
    """Read records and score tables and match them by id.

    Args:
        data: canonical files.
        scores: one score table (or folder of a score run) per data file, or one for all of them.
        limit: read only the first so many records of every file.

    Raises:
        DataError: files that cannot be read, scores that are missing: every problem.
    """
    parts = [read_records(path)[:limit] for path in data]
    tables = read_scores(scores)
    if not any(parts):
        problems = [Problem(str(path), "no records", "at least one record") for path in data]
        raise DataError("there is nothing to evaluate", problems)
    folds = [number if len(tables) == len(data) else 0 for number in range(len(data))]
    return _matched([(fold, record) for fold, part in zip(folds, parts, strict=True) for record in part], tables)


def cluster_label(record: Record, cluster: Cluster) -> str:
    """What a record may depend on others within."""
    return record.prompt.id if cluster == "prompt" else record.prompt.root_id


def _matched(records: list[tuple[int, Record]], tables: list[ScoreTable]) -> Matched:
    matchers = [Matcher(table) for table in tables]
    rows = [matchers[fold].rows(record, _place(record)) for fold, record in records]
    problems = [problem for matcher in matchers for problem in matcher.problems]
    if problems:
        raise DataError("scores are missing", problems)
    return Matched(records, tables, rows, sum(matcher.unused for matcher in matchers))


def _place(record: Record) -> str:
    return str(record.source) if record.source else f"record {record.id}"
