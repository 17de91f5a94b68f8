"""Records with the scores of their completions, also after perturbations. No lengths are needed: any scorer will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rewardlab.evaluate.matching import Cluster, cluster_label, read_matched
from rewardlab.records import Record


@dataclass(frozen=True)
class ScoredRecord:
    """A record and what a scorer gave its completions.

    Attributes:
        record: the record.
        fold: number of its score table.
        cluster: what it may depend on others within.
        scores: one per completion.
        probes: the same after each perturbation, by its name.
    """

    record: Record
    fold: int
    cluster: str
    scores: np.ndarray
    probes: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredRecords:
    """Everything that is evaluated.

    Attributes:
        records: in the order of the files.
        scorers: names of the scorers, one per score table.
        unused: rows of the tables that no record has asked for.
    """

    records: tuple[ScoredRecord, ...]
    scorers: tuple[str, ...]
    unused: int


def read_scored_records(
    data: Sequence[Path],
    scores: Sequence[Path],
    cluster: Cluster,
    limit: int | None = None,
    probes: Sequence[str] = (),
) -> ScoredRecords:
    """Read records and score tables and match them by id.

    Args:
        data: canonical files.
        scores: one score table (or folder of a score run) per data file, or one for all of them.
        cluster: what observations may depend on each other within.
        limit: read only the first so many records of every file.
        probes: perturbations whose tables are read, too; those that do not stand beside every table are left out.

    Raises:
        DataError: files that cannot be read, scores that are missing: every problem.
    """
    matched = read_matched(data, scores, limit)
    probed = matched.probed(probes)
    records = tuple(
        ScoredRecord(
            record, fold, cluster_label(record, cluster), own, {probe: changed[n] for probe, changed in probed.items()}
        )
        for n, ((fold, record), own) in enumerate(zip(matched.records, matched.scores, strict=True))
    )
    return ScoredRecords(records, matched.scorers, matched.unused)
