"""`data prepare`: sources → canonical files, split by conversation root.

train.jsonl  val.jsonl  test.jsonl          or, with `folds`, the three in fold-0/, fold-1/, ...
set_aside.jsonl                             rows that cannot be used, with reasons
summary.json                                what was read, what became of it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from rewardlab.config import Config
from rewardlab.data.canonical import write_records, write_set_aside
from rewardlab.data.load import Loaded, LoadedFile, dropped_words, load_all
from rewardlab.data.pairs import Flattened, as_pairs, flattened
from rewardlab.data.source import DataSource, with_limit
from rewardlab.data.splits import Fractions, Side, cross_fit, split
from rewardlab.errors import DataError, Problem, counted
from rewardlab.protocols import Folder
from rewardlab.records import Candidates, Record
from rewardlab.store.files import write_json

DROPPED = "empty_completions_dropped"
"""Of a source in a summary, where there are any: how many completions its records do without."""
SHOWN_SIDES = 6
"""How many empty files a message names."""


class DataPreparation(Config):
    """Sources and how to split them."""

    sources: dict[str, DataSource] = Field(min_length=1)
    """What to read, by names of your own: `--sources.mine.path pairs.jsonl`."""
    fractions: Fractions = Fractions()
    """Shares of conversation roots."""
    folds: int | None = Field(default=None, ge=2)
    """Cross-fit: so many folds, every record tested in exactly one."""
    seed: int = 0
    """Draws the sides; the same seed gives a record the same side whatever else is read."""
    candidates: Literal["keep", "pairs"] = "keep"
    """Keep candidates with rewards as they are, or turn them into all their pairs (ties dropped)."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""


@dataclass(frozen=True)
class Prepared:
    """What became of the sources: the content of `summary.json`."""

    summary: Mapping[str, Any]

    def lines(self) -> list[str]:
        """What was read and written, in plain words."""
        counts, aside = self.summary, Counter[str]()
        for source in counts["sources"].values():
            aside.update(source["set_aside"])
        sides = ", ".join(_side_sizes(counts["splits"]))
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(aside.items()))
        dropped = sum(source.get(DROPPED, 0) for source in counts["sources"].values())
        return [
            f"{counted(counts['records'], 'record')} of {counted(counts['roots'], 'conversation')}: {sides}",
            f"{counted(aside.total(), 'row')} set aside{f': {reasons}' if reasons else ''}",
            *([dropped_words(dropped)] if dropped else []),
            *([Flattened(**counts["candidates_to_pairs"]).line()] if "candidates_to_pairs" in counts else []),
        ]


def _side_sizes(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Records a side; over folds, the smallest and the largest."""
    sizes: dict[str, list[int]] = {}
    for name, part in splits.items():
        sizes.setdefault(name.rpartition("/")[2], []).append(part["records"])
    lines = [f"{len(next(iter(sizes.values())))} folds"] if any("/" in name for name in splits) else []
    for side, counts in sizes.items():
        low, high = f"{min(counts):,}", f"{max(counts):,}"
        lines.append(f"{side} {low}" if low == high else f"{side} {low} to {high}")
    return lines


def prepare(config: DataPreparation, run: Folder) -> Prepared:
    """Read the sources, split them by conversation root and write canonical files.

    Raises:
        DataError: problems of any source, or a side that would stay empty; nothing has been written then.
    """
    loaded = load_all((with_limit(source, config.limit) for source in config.sources.values()), usable=True)
    records = [record for part in loaded for record in part.records]
    flat = flattened(records) if config.candidates == "pairs" else None
    if flat is not None:
        records = as_pairs(records)
        _refuse_no_pairs(config, flat, records)
    parts = _parts(config, records)
    _refuse_empty(config, parts, records)
    summary = _summary(config, loaded, records, parts)
    if flat is not None and flat.groups:
        summary["candidates_to_pairs"] = asdict(flat)
    for name, sides in parts.items():
        for side, members in sides.items():
            write_records(run.path(f"{name}{side}.jsonl"), members)
    write_set_aside(run.path("set_aside.jsonl"), (item for part in loaded for item in part.set_aside))
    write_json(run.path("summary.json"), summary)
    return Prepared(summary)


def _parts(config: DataPreparation, records: Sequence[Record]) -> dict[str, dict[Side, list[Record]]]:
    """Folder prefix → side → records; a side that was given no share is left out."""
    if config.folds is None:
        shares = {"train": 1.0, "val": config.fractions.val, "test": config.fractions.test}
        sides = split(records, config.fractions, config.seed)
        return {"": {side: members for side, members in sides.items() if shares[side] > 0}}
    folds = cross_fit(records, config.folds, config.fractions.val, config.seed)
    drop = {"val"} if config.fractions.val == 0 else set()
    return {
        f"fold-{number}/": {side: members for side, members in sides.items() if side not in drop}
        for number, sides in enumerate(folds)
    }


def _refuse_no_pairs(config: DataPreparation, flat: Flattened, records: Sequence[Record]) -> None:
    """More data would be no remedy where candidates are all there is, and none has a pair."""
    if records or not flat.groups:
        return
    of_them = "all have equal rewards" if not flat.same_text else "completions have equal rewards or the same text"
    expected = "at least two completions with different rewards and texts in one of them"
    remedy = "Candidates can stay as they are: --candidates keep."
    where = ", ".join(source.path for source in config.sources.values())
    problem = Problem(where, f"{flat.groups:,} groups of candidates, and {of_them}", expected, remedy)
    raise DataError("candidates cannot be turned into pairs", [problem])


def _refuse_empty(
    config: DataPreparation, parts: Mapping[str, Mapping[Side, Sequence[Record]]], records: Sequence[Record]
) -> None:
    empty = [f"{name}{side}.jsonl" for name, sides in parts.items() for side, members in sides.items() if not members]
    if not empty:
        return
    roots = len({record.prompt.root_id for record in records})
    where = ", ".join(empty[:SHOWN_SIDES]) + (f" and {len(empty) - SHOWN_SIDES} more" if empty[SHOWN_SIDES:] else "")
    found = f"none of the {len(records)} usable records of {roots} conversations"
    remedy = "Give more data, larger fractions (0 leaves a side out), fewer folds or another seed."
    problem = Problem(where, found, "at least one record on each side", remedy)
    raise DataError(
        f"splitting {', '.join(source.path for source in config.sources.values())} leaves a side empty", [problem]
    )


def _summary(
    config: DataPreparation,
    loaded: Sequence[Loaded],
    records: Sequence[Record],
    parts: Mapping[str, Mapping[Side, Sequence[Record]]],
) -> dict[str, Any]:
    ids = Counter(record.id for record in records)
    return {
        "records": len(records),
        "roots": len({record.prompt.root_id for record in records}),
        "prompts": len({record.prompt.id for record in records}),
        "kinds": dict(Counter(type(record).__name__.lower() for record in records)),
        "duplicates": sum(count - 1 for count in ids.values()),
        "unrewarded_candidates": sum(isinstance(record, Candidates) and record.rewards is None for record in records),
        "seed": config.seed,
        "splits": {
            f"{name}{side}": {"records": len(members), "roots": len({member.prompt.root_id for member in members})}
            for name, sides in parts.items()
            for side, members in sides.items()
        },
        "sources": {name: source_summary(part) for name, part in zip(config.sources, loaded, strict=True)},
    }


def source_summary(loaded: Loaded) -> dict[str, Any]:
    """One source in a summary: format, counts, reasons and files with hashes, or with the commit on the hub."""
    return {
        "adapter": loaded.adapter,
        "records": len(loaded.records),
        "set_aside": loaded.reasons,
        **({DROPPED: loaded.dropped} if loaded.dropped else {}),
        "files": [_file_summary(file) for file in loaded.files],
    }


def _file_summary(file: LoadedFile) -> dict[str, Any]:
    values: dict[str, Any] = {"name": file.name, "sha256": file.sha256, "rows": file.rows}
    return values if file.commit is None else values | {"commit": file.commit}
