"""Records as JSON lines: the one form in which stages hand data to each other.

The fields are those of `docs/architecture.md`. Ids stand in the file for the reader's sake and are computed
from the content again on reading; a row whose text was edited under its old id is an error, since everything
keyed by that id would silently belong to other text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rewardlab.data.files import read_file, unreadable
from rewardlab.data.rows import Row, json_safe
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Pair, Prompt, Rated, Record, SetAside, Source
from rewardlab.store.files import read_jsonl, write_jsonl

KINDS = ("pair", "candidates", "rated")
"""Values of `kind`, in the order of the record types `Pair`, `Candidates`, `Rated`."""


def record_to_dict(record: Record) -> dict[str, Any]:
    """A record as the JSON object of a canonical line."""
    prompt = record.prompt
    values: dict[str, Any] = {
        "kind": _kind(record),
        "id": record.id,
        "prompt_id": prompt.id,
        "root_id": prompt.root_id,
        "prompt": [message.as_dict() for message in prompt.messages],
    }
    if prompt.template_options:
        values["template_options"] = json_safe(prompt.template_options)
    values |= _content(record)
    values["source"] = None if record.source is None else {"file": record.source.file, "row": record.source.row}
    values["meta"] = json_safe(record.meta)
    return values


def write_records(path: str | Path, records: Iterable[Record]) -> int:
    """Write canonical JSON lines, whole or not at all; gives the number of records."""
    return write_jsonl(path, (record_to_dict(record) for record in records))


def read_records(path: str | Path) -> list[Record]:
    """The records of a canonical file, in order.

    Raises:
        DataError: the file cannot be read, or rows are not canonical: every problem, with file and row.
    """
    problems: list[Problem] = []
    rows = [Row(source, values) for source, values in read_file(Path(path), str(path), problems).rows]
    if rows and not any(row.has("kind") for row in rows):
        # One problem, rather than several a row.
        found = f"columns {', '.join(map(repr, rows[0].values))}"
        remedy = f"`rewardlab data prepare --sources.mine.path {path}` makes them of other formats: give what it wrote."
        raise unreadable([*problems, Problem(str(path), found, "canonical records, which have a `kind`", remedy)])
    records = []
    for row in rows:
        records.append(parse(row))
        problems += row.problems
    if problems:
        raise unreadable(problems)
    return records


def write_set_aside(path: str | Path, rows: Iterable[SetAside]) -> int:
    """Write rows that were set aside, with their reasons, as JSON lines; gives their number."""
    return write_jsonl(path, map(set_aside_to_dict, rows))


def set_aside_to_dict(item: SetAside) -> dict[str, Any]:
    """A row that was set aside as a JSON object."""
    return {
        "reason": item.reason,
        "detail": item.detail,
        "source": {"file": item.source.file, "row": item.source.row},
        "row": json_safe(item.row),
    }


def read_set_aside(path: str | Path) -> list[SetAside]:
    """The rows that `write_set_aside` wrote; none, where nothing was set aside.

    Raises:
        DataError: the file cannot be read, or holds something else: every problem, with file and row.
    """
    found, problems = [], []
    for number, values in enumerate(read_jsonl(path), start=1):
        row = Row(Source(str(path), number), values if isinstance(values, dict) else {})
        found.append(SetAside(_source(row) or row.source, row.text("reason"), row.text("detail"), row.mapping("row")))
        problems += row.problems
    if problems:
        raise unreadable(problems)
    return found


def parse(row: Row) -> Record:
    """The record of a canonical row; what is wrong is noted in `row.problems`."""
    prompt = _prompt(row)
    kind = row.raw("kind")
    origin, meta = _source(row), row.mapping("meta")
    record: Record
    if kind == "pair":
        record = Pair(prompt, row.text("chosen"), row.text("rejected"), row.number("margin"), origin, meta)
    elif kind == "candidates":
        record = _candidates(row, prompt, origin, meta)
    elif kind == "rated":
        record = _rated(row, prompt, origin, meta)
    else:
        remedy = "`rewardlab data prepare` makes canonical records of rows in other formats."
        row.complain("kind", f"one of {', '.join(KINDS)}", remedy)
        return Candidates(prompt, ())
    if not row.problems and row.has("id") and row.raw("id") != record.id:
        row.complain("id", record.id, "The text was edited under its old id: delete the id fields of this row.")
    return record


def _prompt(row: Row) -> Prompt:
    # Two dialogues that differ from their first answer on share no turn: their prompt is empty.
    messages = () if row.raw("prompt") == [] else row.messages("prompt")
    return Prompt(messages, json_safe(row.mapping("template_options")))


def _candidates(row: Row, prompt: Prompt, origin: Source | None, meta: Mapping[str, Any]) -> Candidates:
    completions, rewards = row.texts("completions"), row.numbers("rewards")
    if rewards is not None and len(rewards) != len(completions):
        row.complain("rewards", f"{len(completions)} numbers, one a completion")
    return Candidates(prompt, completions, rewards, origin, meta)


def _rated(row: Row, prompt: Prompt, origin: Source | None, meta: Mapping[str, Any]) -> Rated:
    label = row.truth("label") if row.has("label") else None
    score = row.number("score")
    if (label is None) == (score is None):
        row.complain("label", "either a label or a score")
    return Rated(prompt, row.text("completion"), label, score, origin, meta)


def _source(row: Row) -> Source | None:
    if "source" not in row.values:
        return row.source
    origin = row.mapping("source")
    if not origin:
        return None
    file, number = origin.get("file"), origin.get("row")
    return Source(file, number) if isinstance(file, str) and isinstance(number, int) else row.source


def _kind(record: Record) -> str:
    return {Pair: "pair", Candidates: "candidates", Rated: "rated"}[type(record)]


def _content(record: Record) -> dict[str, Any]:
    if isinstance(record, Pair):
        return {"chosen": record.chosen, "rejected": record.rejected, "margin": record.margin}
    if isinstance(record, Candidates):
        rewards = None if record.rewards is None else list(record.rewards)
        return {"completions": list(record.completions), "rewards": rewards}
    return {"completion": record.completion, "label": record.label, "score": record.score}
