"""What `audit effects` wrote: effects.json as records, and triples.parquet with its numbers in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from rewardlab.audit.effects import RESULT, AuditedModel
from rewardlab.audit.effects_file import Attribute
from rewardlab.audit.triples import TRIPLE_SCHEMA, TRIPLES
from rewardlab.errors import DataError, Problem
from rewardlab.report.reading import readable, rows_at
from rewardlab.store.shapes import Shape, read_object, shaped

NEEDED = ("naive.ATE.sd", "double.ATE.sd", "double.ATT.sd", "double.ATU.sd")
"""Estimates that every audit has, if only as a null with its reason."""
_TEXTS = ("original", "rewrite", "rerewrite", "third")
_NUMBERS = tuple(f"{name}_reward" for name in _TEXTS)
_SHOWN = ("id", "prompt", "source", "outcomes", *_TEXTS)
_EXPECTED = "the triples.parquet of an audit"


class OutcomeCount(Shape):
    """Of what use the rewrites of one step and direction were; `treated` is W of the original."""

    step: int
    treated: bool
    outcome: str
    count: int
    share: float


class BalanceRow(Shape):
    """A measure of the texts before and after rewriting; `treated` is W of the original."""

    measure: str
    treated: bool
    stage: str
    n: int
    before: float
    after: float
    difference: float
    smd: float | None


class FlipRate(Shape):
    """Share of the rewrites towards W = 1 (or 0) after which a judge sees the attribute (or does not)."""

    step: int
    towards: bool
    n: int
    success: float


class Flips(Shape):
    """What the judge of the attribute saw, and who it is."""

    judge: str
    rates: list[FlipRate]
    originals: float | None


class Asked(Shape):
    """What answers of a chat model took; `of`: rewrites or judgements."""

    of: str
    by: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class Dose(Shape):
    """By how many words the text with the attribute is longer, on average, in single rewrites and in RATE."""

    unit: str
    single: float
    double: float


class AuditFile(Shape):
    """effects.json."""

    attribute: Attribute
    rewriter: str
    options: dict[str, Any]
    models: list[AuditedModel] = Field(min_length=1)
    outcomes: list[OutcomeCount]
    balance: list[BalanceRow]
    flips: Flips | None
    asked: list[Asked] = Field(default_factory=list)
    dose: Dose | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for model in self.models:
            names = {one.name for group in model.estimates.values() for one in group}
            missing = [name for name in NEEDED if name not in names]
            if missing:
                raise ValueError(f"{model.scorer} with the estimates {', '.join(missing)}")
        return self


@dataclass(frozen=True)
class TripleFile:
    """triples.parquet: chains of the first draw; numbers are in memory, texts are read for those that are asked for.

    Attributes:
        path: the file.
        places: row of every chain in the file, for the first reward model.
        treated: w of every chain.
        flawed: whether a rewrite of the chain had any outcome but `ok`.
        rewards: reward model → rewards of original, rewrite, rewrite of the rewrite and third, (n, 4); NaN: none.
        effects: reward model → signed differences single and double, (n, 2); NaN: none.
    """

    path: Path
    places: np.ndarray
    treated: np.ndarray
    flawed: np.ndarray
    rewards: Mapping[str, np.ndarray]
    effects: Mapping[str, np.ndarray]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Prompt, texts, outcomes and source of the chains at `indices`, in that order."""
        return rows_at(self.path, self.places[np.asarray(indices, dtype=np.int64)].tolist(), _SHOWN, _EXPECTED)


@dataclass(frozen=True)
class Audit:
    """effects.json, as values and as read, and triples.parquet."""

    file: AuditFile
    raw: dict[str, Any]
    triples: TripleFile


def read_audit(folder: Path) -> Audit:
    """The files of an audit.

    Raises:
        DataError: files that are missing, unreadable or of another shape.
    """
    path = folder / RESULT
    raw = read_object(path)
    return Audit(shaped(AuditFile, raw, path), raw, read_triples(folder / TRIPLES))


def read_triples(path: Path) -> TripleFile:
    """The numbers of the triples.

    Raises:
        DataError: unreadable, columns missing, or reward models with different chains.
    """
    with readable(path, _EXPECTED):
        file = pq.ParquetFile(path)
        missing = [name for name in TRIPLE_SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            problem = Problem(str(path), f"no column {', '.join(missing)}", _EXPECTED)
            raise DataError("columns missing", [problem])
        table = file.read(["id", "draw", "scorer", "treated", "outcomes", *_NUMBERS, "single", "double"])
    first = table["draw"].to_numpy() == 0
    places = {
        name: np.flatnonzero(first & pc.equal(table["scorer"], name).to_numpy(zero_copy_only=False))
        for name in dict.fromkeys(table["scorer"].to_pylist())
    }
    ids = [table["id"].take(pa.array(rows)) for rows in places.values()]
    if not ids or any(not one.equals(ids[0]) for one in ids):
        found = "no rows" if not ids else "other chains, or in another order, for one of the reward models"
        raise DataError("triples that do not match", [Problem(str(path), found, "the same chains for each")])
    rows = next(iter(places.values()))
    return TripleFile(
        path,
        rows,
        table["treated"].to_numpy()[rows].astype(bool),
        _flawed(table["outcomes"])[rows],
        {name: _columns(table, _NUMBERS)[own] for name, own in places.items()},
        {name: _columns(table, ("single", "double"))[own] for name, own in places.items()},
    )


def _columns(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Columns beside each other; nulls, and what is not finite, become NaN."""
    values = np.stack([table[name].to_numpy().astype(np.float64) for name in names], axis=1)
    return np.where(np.isfinite(values), values, np.nan)


def _flawed(outcomes: pa.ChunkedArray) -> np.ndarray:
    lists = outcomes.combine_chunks()
    parents = pc.list_parent_indices(lists).to_numpy()
    wrong = pc.not_equal(pc.list_flatten(lists), "ok").to_numpy(zero_copy_only=False)
    found = np.zeros(len(lists), dtype=bool)
    found[parents[wrong.astype(bool)]] = True
    return found
