"""Dialogues of turns as rows, made for the purpose in DIALOCONAN's columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.load import DataSource, load
from rewardlab.errors import DataError
from rewardlab.records import Candidates, Prompt

COLUMNS = ("text", "TARGET", "dialogue_id", "turn_id", "type", "source")
# Dialogue 7 comes in two pieces, and 9 ends with a turn that nobody answers.
TURNS = [
    ("Cats are\nlazy", 7, 0, "HS"),
    ("They sleep\nat noon.", 7, 1, "CN"),
    ("Dogs bark!", 9, 0, "HS"),
    ("Some do.", 9, 1, "CN"),
    ("Is that so?", 7, 2, "HS"),
    ("It is.", 7, 3, "CN"),
    ("Why?", 9, 2, "HS"),
]


def written(folder: Path, turns: list[Any] = TURNS) -> str:
    path = folder / "turns.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows([text, "PETS", dialogue, turn, kind, "made"] for text, dialogue, turn, kind in turns)
    return str(path)


def examples(folder: Path, **dialogue: Any) -> list[str]:
    """Prompt and answer of every example as the one text that they are."""
    options = {"dialogue": dialogue} if dialogue else {}
    records = load(DataSource.build({"path": written(folder), **options})).records
    return ["".join([record.prompt.messages[0].content, *record.completions]) for record in records]


def test_every_pair_of_turns_is_an_example_with_the_dialogue_before_it(tmp_path: Path) -> None:
    first = "User: Cats are lazy.\nAssistant: They sleep at noon."
    loaded = load(DataSource(path=written(tmp_path)))
    assert loaded.adapter == "dialoconan"
    assert examples(tmp_path) == [
        first,
        f"{first}\nUser: Is that so?\nAssistant: It is.",
        "User: Dogs bark!\nAssistant: Some do.",
    ]
    record = loaded.records[1]
    assert isinstance(record, Candidates)
    assert record.prompt == Prompt.of_text(f"{first}\nUser: Is that so?\nAssistant:")
    assert record.completions == (" It is.",)
    assert record.source is not None
    assert record.source.row == 5
    assert record.meta["dialogue_id"] in (7, "7")
    assert set(record.meta) == {"TARGET", "dialogue_id", "turn_id", "type", "source"}
    (odd,) = loaded.set_aside
    assert (odd.reason, odd.source.row) == ("odd_turn", 7)


def test_the_published_form_has_a_full_stop_everywhere(tmp_path: Path) -> None:
    found = examples(tmp_path, full_stop="always", user_name="<human>:", bot_name="<bot>:")
    first = "<human>: Cats are lazy.\n<bot>: They sleep at noon."
    assert found[1] == f"{first}\n<human>: Is that so?.\n<bot>: It is."
    assert found[2] == "<human>: Dogs bark!.\n<bot>: Some do."


def test_only_the_last_answer_is_left_out(tmp_path: Path) -> None:
    assert examples(tmp_path, delete_last_assistant_response=True) == [
        "User: Cats are lazy.\nAssistant:",
        "User: Cats are lazy.\nAssistant: They sleep at noon.\nUser: Is that so?\nAssistant:",
        "User: Dogs bark!\nAssistant:",
    ]


@pytest.mark.parametrize("names", [("User:", "Assistant:"), ("<human>:", "<bot>:"), ("### Question:", "### Answer:")])
def test_examples_of_a_dialogue_have_one_root(tmp_path: Path, names: tuple[str, str]) -> None:
    """So that no split has the beginning of a dialogue on one side and its end on the other."""
    dialogue = {"user_name": names[0], "bot_name": names[1]}
    records = load(DataSource.build({"path": written(tmp_path), "dialogue": dialogue})).records
    roots = [record.prompt.root_id for record in records]
    assert roots[0] == roots[1] != roots[2]
    assert roots[2] == Prompt.of_text("Dogs bark!").root_id


def test_a_turn_without_a_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "u", "dialogue_id": 1, "turn_id": 0, "type": "HS"}\n'
        '{"text": 5, "dialogue_id": 1, "turn_id": 1, "type": "CN"}\n'
    )
    with pytest.raises(DataError, match='column "answer": found 5; expected a string'):
        load(DataSource(path=str(path)))


def test_other_formats_have_no_such_option(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "completion": "a"}\n')
    with pytest.raises(
        DataError, match="dialogue: found data of the format completion; expected the format dialoconan"
    ):
        load(DataSource.build({"path": str(path), "dialogue": {"user_name": "A:"}}))
