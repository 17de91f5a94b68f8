"""The lists of published code: rows that its own scripts make are read, and what is written is read back the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.conversions.published import (
    exo_rows,
    exo_score_rows,
    generated_rows,
    lost_reasons,
    other_prompts,
)
from rewardlab.data.load import DataSource, load
from rewardlab.data.pairs import ended
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Message, Pair, Prompt, Rated, Record

TEXT = Prompt.of_text("TITLE: x\nTL;DR:")
CHAT = Prompt((Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "And?")))
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: And?\n\nAssistant:"


def read(folder: Path, rows: list[dict[str, Any]], adapter: str = "auto") -> list[Record]:
    path = folder / "train.json"
    path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return list(load(DataSource(path=str(path), adapter=adapter)).records)


KINDS: dict[str, tuple[list[Record], list[dict[str, Any]]]] = {
    "pairs": (
        [Pair(TEXT, " a", " b"), Pair(CHAT, "c", "d")],
        [
            {"prompt": "TITLE: x\nTL;DR:", "chosen": " a", "rejected": " b"},
            {"prompt": TRANSCRIPT, "chosen": " c", "rejected": " d"},
        ],
    ),
    "rewarded": (
        [Candidates(TEXT, (" a", "b", " c"), (0.5, -1.25, 3.0)), Candidates(CHAT, ("d", "e"), (1.0, 0.0))],
        [
            {"prompt": "TITLE: x\nTL;DR:", "completions": [" a", "b", " c"], "rewards": [0.5, -1.25, 3.0]},
            {"prompt": TRANSCRIPT, "completions": [" d", " e"], "rewards": [1.0, 0.0]},
        ],
    ),
    "sampled": (
        [Candidates(TEXT, (" a", "b")), Candidates(CHAT, ("d",))],
        [
            {"prompt": "TITLE: x\nTL;DR:", "completions": [" a", "b"]},
            {"prompt": TRANSCRIPT, "completions": [" d"]},
        ],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_written_as_published_and_read_back_the_same(kind: str, tmp_path: Path) -> None:
    records, rows = KINDS[kind]
    assert exo_rows("x", records, []) == rows
    again = read(tmp_path, rows, "exo")
    assert [record.id for record in again] == [record.id for record in records]
    assert exo_rows("x", again, []) == rows


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_name_the_lists_are_read_as_plain_text(kind: str, tmp_path: Path) -> None:
    """The formats of other tools have the same columns, and leave a prompt as it stands."""
    _, rows = KINDS[kind]
    again = read(tmp_path, rows)
    assert [record.prompt for record in again] == [Prompt.of_text(row["prompt"]) for row in rows]
    assert exo_rows("x", again, []) == rows
    # Conversation roots do not hang on it.
    assert again[1].prompt.root_id == CHAT.root_id


def test_white_space_does_not_tell_the_sides_of_a_dialogue_apart() -> None:
    rows = exo_rows("x", [Pair(CHAT, "\n c", "d  "), Pair(TEXT, "\n c", "d  ")], [])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(" c", " d"), ("\n c", "d  ")]


def test_what_fine_tuning_reads(tmp_path: Path) -> None:
    rows = exo_rows("x", [Rated(TEXT, " a", None, 2.0), Rated(CHAT, "b", True)], [])
    assert rows == [{"prompt": "TITLE: x\nTL;DR:", "chosen": " a"}, {"prompt": TRANSCRIPT, "chosen": " b"}]
    assert read(tmp_path, rows, "exo") == read(tmp_path, rows)
    found = [(record.prompt, record.completions) for record in read(tmp_path, rows)]
    assert found == [(TEXT, (" a",)), (CHAT, ("b",))]


def test_an_empty_completion_does_not_take_the_good_ones_of_its_prompt_along(tmp_path: Path) -> None:
    samples = Candidates(CHAT, ("a", "", "c"), (0.5, -1.0, 2.0), meta={"finish_reasons": ["length", "stop", "stop"]})
    rows = exo_rows("x", [samples, Candidates(TEXT, ("", " "), (1.0, 0.0))], [])
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    loaded = load(DataSource(path=str(path), adapter="exo"))
    (record,) = loaded.records
    assert isinstance(record, Candidates)
    assert (record.prompt, record.completions, record.rewards) == (CHAT, ("a", "c"), (0.5, 2.0))
    assert ended(record) == [False, True]
    assert (loaded.dropped, loaded.reasons) == (1, {"empty": 1})


def test_how_sampled_completions_ended_goes_along_and_comes_back(tmp_path: Path) -> None:
    """The published code takes columns by name, so that one more of them changes nothing for it."""
    cut = {"finish_reasons": ["length", "stop"], "temperature": 1.0}
    records: list[Record] = [
        Candidates(TEXT, ("a", "b"), (1.0, 0.0), meta=cut),
        Candidates(CHAT, ("c", "d"), (0.0, 1.0)),
    ]
    problems: list[Problem] = []
    rows = exo_rows("x", records, problems)
    assert (rows[0]["finish_reasons"], "finish_reasons" in rows[1], problems) == (["length", "stop"], False, [])
    assert [ended(one) for one in read(tmp_path, rows, "exo")] == [[False, True], [True, True]]
    pair = Pair(TEXT, "b", "a", meta={"finish_reasons": ["stop", "length"]})
    alone = Rated(TEXT, "a", None, 1.0, meta={"finish_reasons": ["length"]})
    for record, expected in ((pair, [True, False]), (alone, [False])):
        assert [ended(one) for one in read(tmp_path, exo_rows("x", [record], []), "exo")] == [expected]
    # Of fewer reasons than completions nobody knows whose they are.
    odd = Candidates(TEXT, ("a", "b"), meta={"finish_reasons": ["length"]})
    assert exo_rows("x", [odd], []) == [{"prompt": "TITLE: x\nTL;DR:", "completions": ["a", "b"]}]
    assert lost_reasons([*records, pair, odd]) == 2


def test_evaluations_hold_prompt_and_completion_as_one_text(tmp_path: Path) -> None:
    records, _ = KINDS["rewarded"]
    rows = exo_score_rows("x", records, [])
    assert rows[1] == {"prompt": TRANSCRIPT, "scores_texts": [[1.0, f"{TRANSCRIPT} d"], [0.0, f"{TRANSCRIPT} e"]]}
    again = read(tmp_path, rows)
    assert [(one.id, one.rewards) for one in again if isinstance(one, Candidates)] == [
        (one.id, one.rewards) for one in records if isinstance(one, Candidates)
    ]


def test_lists_of_several_kinds_and_records_without_rewards_are_told() -> None:
    problems: list[Problem] = []
    exo_rows("x", [Candidates(TEXT, ("a",)), Pair(TEXT, "a", "b"), Candidates(TEXT, ("a", "b"))], problems)
    exo_score_rows("x", [Candidates(TEXT, ("a",)), Candidates(TEXT, ("a",), (1.0,))], problems)
    generated_rows("x", [Pair(TEXT, "a", "b"), Candidates(TEXT, ()), Rated(TEXT, "a", True)], problems)
    assert [(one.where, one.found) for one in problems] == [
        (
            "x",
            "rows of several kinds: {prompt, completions} in record 1; {prompt, chosen, rejected} in record 2",
        ),
        ("x, record 1", "candidates without rewards"),
        ("x, record 1", "a pair"),
        ("x, record 2", "a prompt without completions"),
    ]


def test_prompts_that_a_transcript_does_not_hold_are_counted(tmp_path: Path) -> None:
    """A system turn, options of the template, a turn with a mark inside, and an empty last answer."""
    others = [
        Prompt((Message("system", "Be brief."), Message("user", "Hi"))),
        Prompt((Message("user", "Hi"),), {"enable_thinking": False}),
        Prompt((Message("user", "Hi\n\nAssistant: no"),)),
        Prompt((Message("user", " Hi"),)),
    ]
    records: list[Record] = [Candidates(prompt, ("a",)) for prompt in (TEXT, CHAT, *others)]
    assert other_prompts(records) == len(others)
    again = read(tmp_path, exo_rows("x", records, []), "exo")
    same = [one.prompt.id == other.prompt.id for one, other in zip(again, records, strict=True)]
    assert same == [True, True, False, False, False, False]


def test_generated_answers(tmp_path: Path) -> None:
    asked = Prompt((Message("user", "q"),))
    records = [Candidates(asked, ("a",), (1.5,)), Rated(asked, "b", None, 2.0), Candidates(CHAT, ("c", " d"))]
    rows = generated_rows("x", records, [])
    assert rows == [
        {"question": "q", "response": "a", "rewards": 1.5},
        {"question": "q", "response": "b", "rewards": 2.0},
        {"question": TRANSCRIPT, "response": ["c", " d"]},
    ]
    again = read(tmp_path, rows)
    assert [(one.prompt.id, one.completions) for one in again] == [(one.prompt.id, one.completions) for one in records]
    assert [one.rewards for one in again if isinstance(one, Candidates)] == [(1.5,), (2.0,), None]


def test_scored_answers_of_the_length_project(tmp_path: Path) -> None:
    """Scores in a column that is named after the reward model."""
    path = tmp_path / "rm.jsonl"
    path.write_text(json.dumps({"question": "q", "response": ["a", "b"], "webgpt_rm": [0.5, -0.5]}) + "\n")
    (record,) = load(DataSource(path=str(path), columns={"rewards": "webgpt_rm"})).records
    assert record == Candidates(Prompt((Message("user", "q"),)), ("a", "b"), (0.5, -0.5), record.source)


def test_real_dialogues_become_the_published_rows_and_come_back(shared: Path, tmp_path: Path) -> None:
    """Prompt, then one space, then the answer, on both sides: white space cannot tell which one was chosen."""
    source = DataSource(path=str(shared / "data/hh-rlhf"), subsets=("helpful-base",))
    records = load(source).records
    rows = exo_rows("x", records, [])
    for row in rows:
        assert row["prompt"].startswith("\n\nHuman: ") or row["prompt"] == ""
        assert row["prompt"].endswith("\n\nAssistant:") or row["prompt"] == ""
        for side in ("chosen", "rejected"):
            assert row[side][0] == " "
            assert row[side][1:] == row[side].strip()
    again = read(tmp_path, rows, "exo")
    assert [record.id for record in again] == [record.id for record in records]
