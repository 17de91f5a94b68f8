"""Scored preference data made on the spot: records, their score tables, and a folder to write to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rewardlab.data.canonical import write_records
from rewardlab.records import Candidates, Message, Pair, Prompt, Record, completion_id

Score = Callable[[Prompt, str], float]


@dataclass
class Workshop:
    """A folder with makers of what an evaluation reads, and the place it writes to."""

    folder: Path

    def path(self, name: str | Path = "") -> Path:
        return self.folder / "run" / name

    def records(self, name: str, records: Sequence[Record]) -> Path:
        path = self.folder / name
        write_records(path, records)
        return path

    def scores(self, name: str, records: Sequence[Record], score: Score, file: str = "scores.parquet") -> Path:
        """A score table in a folder of its own; gives the folder. Tokens are words."""
        return self.table(name, score_rows(records, score), file)

    def table(self, name: str, rows: list[dict[str, Any]], file: str = "scores.parquet") -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / file)
        return folder


def conversation(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def score_rows(records: Sequence[Record], score: Score, scorer: str = "test-scorer") -> list[dict[str, Any]]:
    """The rows of a score table, written from the contract in docs/architecture.md."""
    rows: list[dict[str, Any]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for number, record in enumerate(records):
        if isinstance(record, Pair):
            texts: tuple[str, ...] = (record.chosen, record.rejected)
        else:
            texts = record.completions if isinstance(record, Candidates) else (record.completion,)
        for candidate, text in enumerate(texts):
            key = (record.prompt.id, completion_id(record.prompt, text))
            rows.append(
                {
                    "prompt_id": key[0],
                    "completion_id": key[1],
                    "occurrence": seen[key],
                    "row": number,
                    "candidate": candidate,
                    "scorer": scorer,
                    "score": float(score(record.prompt, text)),
                    "prompt_tokens": len(record.prompt.messages[0].content.split()),
                    "completion_tokens": len(text.split()),
                    "truncated": "cut" in text.split(),
                }
            )
            seen[key] += 1
    return rows
