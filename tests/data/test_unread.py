"""Columns of text that no format reads: which they are, and where they are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.doctor import DataDoctor, doctor, examine, format_doctor
from rewardlab.data.load import DataSource, Loaded, load
from rewardlab.data.prepare import DataPreparation, prepare
from rewardlab.data.unread import unread_columns, unread_words, without_prompt
from rewardlab.errors import DataError
from rewardlab.protocols import Folder
from rewardlab.records import Candidates, Message, Pair, Prompt, Record

ASK, GOOD, BAD = "What is a river {}?", "Water {} that runs.", "Who knows {}?"
TOLD = ({"role": "user", "content": ASK}, {"role": "assistant", "content": GOOD})


def table(path: Path, row: dict[str, Any], count: int = 9) -> str:
    """Rows in which {} is the number of the row."""
    text = json.dumps(row)
    path.write_text("".join(text.replace("{}", str(number)) + "\n" for number in range(count)), encoding="utf-8")
    return str(path)


UNREAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one side has another name": ({"prompt": ASK, "chosen": GOOD, "refused": BAD}, ["refused"]),
    "the other has": ({"prompt": ASK, "good": GOOD, "rejected": BAD}, ["good", "rejected"]),
    "both have": ({"prompt": ASK, "preferred": GOOD, "other": BAD}, ["preferred", "other"]),
    "an empty prompt": ({"prompt": "", "question": ASK, "chosen": GOOD, "rejected": BAD}, ["question"]),
    "messages": ({"prompt": ASK, "chosen": [TOLD[1]], "refused": [TOLD[1]]}, ["chosen", "refused"]),
    "a list of texts": ({"prompt": ASK, "answers": [GOOD, BAD], "marks": [1, 0]}, ["answers"]),
    "no spaces between words": ({"prompt": "河{}？", "chosen": "水{}。", "refused": "不知道{}。"}, ["refused"]),
    "two words": ({"prompt": ASK, "chosen": GOOD, "refused": "no {}"}, ["refused"]),
}

READ: dict[str, dict[str, Any]] = {
    "ids, dates, sources": {
        "prompt": ASK, "completion": GOOD, "id": "row-{}", "made": "2023-05-01 10:00:{}", "source": "the forum",
    },
    "few values": {"prompt": ASK, "completion": GOOD, "topic": "of the kind"},
    "the prompt again": {"messages": TOLD, "prompt": ASK, "prompt_id": "{}"},
    "all of it again": {"instruction": ASK, "input": "", "output": GOOD, "text": f"### Ask: {ASK} ### Say: {GOOD}"},
    "numbers": {"prompt": ASK, "completion": GOOD, "rank": 3, "marks": [1, 2], "how": "12 34 {}"},
}  # fmt: skip


@pytest.mark.parametrize("case", UNREAD)
def test_columns_of_text_that_no_format_reads(case: str, tmp_path: Path) -> None:
    row, columns = UNREAD[case]
    read = load(DataSource(path=table(tmp_path / "rows.jsonl", row))).records
    assert unread_columns(read) == columns
    assert all(repr(column) in unread_words(read) for column in columns)


@pytest.mark.parametrize("case", READ)
def test_what_is_no_text_or_says_nothing_new(case: str, tmp_path: Path) -> None:
    read = load(DataSource(path=table(tmp_path / "rows.jsonl", READ[case]))).records
    assert (unread_columns(read), unread_words(read)) == ([], "")


def test_texts_of_their_own_differ_in_more_than_half_of_the_rows() -> None:
    def columns(values: int) -> list[str]:
        notes = [{"note": f"some words {min(row, values - 1)}"} for row in range(9)]
        return unread_columns([Pair(Prompt.of_text("a"), "b", "c", meta=note) for note in notes])

    assert [bool(columns(values)) for values in (1, 3, 4, 5, 9)] == [False, False, False, True, True]


def test_a_prompt_is_empty_or_there_is_none_by_design() -> None:
    blank, later = Message("user", " \n"), Message("user", "river")
    prompts = [Prompt.of_text(""), Prompt.of_text("  "), Prompt((blank,)), Prompt((blank, later)), Prompt(())]
    records = [Candidates(prompt, ("a",)) for prompt in prompts]
    assert without_prompt(records) == records[:3]


@pytest.mark.parametrize(
    ("case", "count", "severity"),
    [
        ("one side has another name", 0, "note"),
        ("the other has", 9, "warning"),
        ("messages", 9, "warning"),
        ("both have", 0, "note"),
        ("an empty prompt", 9, "warning"),
    ],
)
def test_the_doctor_warns_of_half_a_pair_and_of_an_empty_prompt(
    case: str, count: int, severity: str, tmp_path: Path, run: Folder
) -> None:
    """Of the file itself, and of the canonical records that are made of it."""
    row, columns = UNREAD[case]
    path = table(tmp_path / "rows.jsonl", row)
    prepare(DataPreparation.build({"sources": {"own": {"path": path}}, "fractions": {"val": 0, "test": 0}}), run)
    for source in (path, str(run.path("train.jsonl"))):
        diagnosis = doctor(DataDoctor.build({"sources": {"own": {"path": source}}}), run)
        check = diagnosis["unread_texts"]
        assert (check.count, check.total, check.severity) == (count, 9, severity)
        assert check.numbers["columns"] == {"own": columns}
        assert f"own: text not read: {', '.join(map(repr, columns))}" in format_doctor(diagnosis.as_dict())


def test_pairs_whose_prompt_bears_another_name_are_refused(tmp_path: Path) -> None:
    """TRL's form without a prompt takes what both sides begin with: here that would lose the question silently."""
    path = table(tmp_path / "rows.jsonl", {"system": "Be {} kind.", "question": ASK, "chosen": GOOD, "rejected": BAD})
    with pytest.raises(DataError) as caught:
        load(DataSource(path=path))
    (problem,) = caught.value.problems
    assert problem.found == "no column prompt, and no common beginning of the sides in 9 of 9 rows"
    assert "not read of 'system', 'question'" in problem.remedy
    assert "{prompt: its name}" in problem.remedy, "which of the two it is, nobody knows"
    named = load(DataSource(path=path, columns={"prompt": "question"})).records
    assert {record.prompt.messages[0].content for record in named} == {ASK.replace("{}", str(row)) for row in range(9)}
    bare = load(DataSource(path=path, adapter="preference")).records
    assert without_prompt(bare) == list(bare)


@pytest.mark.parametrize("extra", [{}, {"note": "of a kind"}, {"rationale": "since it is {}"}])
def test_pairs_that_begin_with_their_prompt_are_not(extra: dict[str, str], tmp_path: Path) -> None:
    row = {"chosen": f"{ASK} {GOOD}", "rejected": f"{ASK} {BAD}", **extra}
    assert not without_prompt(load(DataSource(path=table(tmp_path / "rows.jsonl", row))).records)


def test_the_doctor_has_nothing_to_say_where_all_was_read(tmp_path: Path) -> None:
    records: list[Record] = [Pair(Prompt.of_text(""), f"a {row}", f"b {row}") for row in range(3)]
    (check,) = (
        item for item in examine({"own": Loaded(tuple(records), (), "test", ())}) if item.name == "unread_texts"
    )
    assert (check.count, check.severity, check.numbers["columns"]) == (0, "ok", {})


def test_names_of_columns_steer_no_terminal(tmp_path: Path) -> None:
    path = table(tmp_path / "rows.jsonl", {"prompt": ASK, "completion": GOOD, "\x1b[2J": BAD})
    found = load(DataSource(path=path))
    (check,) = (item for item in examine({"own": found}) if item.name == "unread_texts")
    assert check.severity == "note"
    assert not [text for text in (check.reading, unread_words(found.records)) if "\x1b" in text]
