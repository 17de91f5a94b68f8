"""Canonical lines: what is written comes back, whatever the text; wrong rows are all named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardlab.data.canonical import read_records, record_to_dict, write_records, write_set_aside
from rewardlab.errors import DataError
from rewardlab.records import Candidates, Message, Pair, Prompt, Rated, Record, SetAside, Source

HOSTILE = [
    "plain",
    "lone \ud800 surrogate and \udfff another",
    "nul \x00 and bell \x07",
    "line\u2028separator\u2029paragraph\x85next",
    "windows\r\nline\rends",
    "﻿byte order mark",
    "<script>alert(1)</script>",
    "é composed, e\u0301 decomposed",
    "👩\u200d👩\u200d👧 family",
    "long " * 60_000,
]


def records(text: str) -> list[Record]:
    chat = Prompt((Message("system", text), Message("user", "q")), {"tools": [{"name": text}], "enable": True})
    return [
        Pair(chat, text, text + "!", 0.25, Source(text[:50], 7), {"subset": text, "nested": {"list": [1, None]}}),
        Candidates(Prompt.of_text(text), (text, "b", ""), (1.0, -2.5, 1e300), None, {}),
        Candidates(Prompt.of_text(text), (), None, Source("f", 1), {}),
        Rated(chat, text, True, None, Source("f", 2), {}),
        Rated(chat, text, None, 0.1, Source("f", 3), {}),
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_records_come_back_equal(text: str, tmp_path: Path) -> None:
    written = records(text)
    path = tmp_path / "r.jsonl"
    assert write_records(path, written) == len(written)
    read = read_records(path)
    assert read == written
    assert [r.id for r in read] == [r.id for r in written]
    assert [r.meta for r in read] == [r.meta for r in written]
    assert [r.prompt.template_options for r in read] == [r.prompt.template_options for r in written]
    assert path.read_bytes().decode("utf-8").count("\n") == len(written)


def test_a_line_has_the_fields_of_the_contract() -> None:
    pair = Pair(Prompt((Message("user", "q"),)), "a", "b", None, Source("f.jsonl", 3), {"k": 1})
    assert record_to_dict(pair) == {
        "kind": "pair",
        "id": pair.id,
        "prompt_id": pair.prompt.id,
        "root_id": pair.prompt.root_id,
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": "a",
        "rejected": "b",
        "margin": None,
        "source": {"file": "f.jsonl", "row": 3},
        "meta": {"k": 1},
    }


def test_a_row_without_ids_and_source_is_read_with_its_position(tmp_path: Path) -> None:
    path = tmp_path / "hand.jsonl"
    row = {"kind": "rated", "prompt": [{"role": "text", "content": "q"}], "completion": "a", "score": 2}
    path.write_text("\n" + json.dumps(row) + "\n", encoding="utf-8")
    assert read_records(path) == [Rated(Prompt.of_text("q"), "a", None, 2.0, Source(str(path), 2), {})]


def test_a_text_edited_under_its_id_is_refused(tmp_path: Path) -> None:
    values = record_to_dict(Pair(Prompt.of_text("q"), "a", "b")) | {"chosen": "c"}
    path = tmp_path / "edited.jsonl"
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="edited under its old id"):
        read_records(path)


def test_every_wrong_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    good = record_to_dict(Pair(Prompt.of_text("q"), "a", "b"))
    rows = [
        good,
        good | {"kind": "triple"},
        good | {"chosen": 3},
        good | {"prompt": "text"},
        good | {"margin": "wide"},
        {**good, "kind": "candidates", "completions": "a"},
        {**good, "kind": "candidates", "completions": ["a", "b"], "rewards": [1.0]},
        {**good, "kind": "rated", "completion": "a"},
        {**good, "kind": "rated", "completion": "a", "label": True, "score": 1.0},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_records(path)
    places = [problem.where.removeprefix(str(path)) for problem in error.value.problems]
    assert places == [
        ':2, column "kind"',
        ':3, column "chosen"',
        ':4, column "prompt"',
        ':5, column "margin"',
        ':6, column "completions"',
        ':7, column "rewards"',
        ':8, column "label"',
        ':9, column "label"',
    ]
    assert error.value.problems[0].found == "'triple'"
    assert "data prepare" in error.value.problems[0].remedy


def test_a_pair_of_dialogues_that_share_no_turn_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    written: list[Record] = [Pair(Prompt(()), "a", "b")]
    write_records(path, written)
    assert read_records(path) == written


def test_meta_that_json_cannot_hold_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, [Pair(Prompt.of_text("q"), "a", "b", None, None, {"x": float("nan"), "y": [float("inf")]})])
    assert read_records(path)[0].meta == {"x": None, "y": [None]}


def test_set_aside_rows_carry_reason_and_row(tmp_path: Path) -> None:
    path = tmp_path / "aside.jsonl"
    write_set_aside(path, [SetAside(Source("f", 4), "empty", "chosen", {"chosen": "\ud800"})])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "reason": "empty",
        "detail": "chosen",
        "source": {"file": "f", "row": 4},
        "row": {"chosen": "\ud800"},
    }
