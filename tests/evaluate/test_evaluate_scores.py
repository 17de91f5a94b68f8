"""What can be wrong with score tables: every problem is found, named and comes with a remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scored_data import Workshop, conversation, score_rows

from rewardlab.errors import DataError
from rewardlab.evaluate.accuracy import AccuracyEvaluation, evaluate_accuracy
from rewardlab.records import Pair, Prompt, Source
from rewardlab.score.tables import read_scores

PAIRS = [Pair(conversation(f"p{n}"), f"good {n}", f"bad {n}", source=Source("pairs.jsonl", n + 1)) for n in range(4)]


def rows() -> list[dict[str, Any]]:
    return score_rows(PAIRS, lambda _, text: float(len(text)))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_scores([path])
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_sound_table_is_read(workshop: Workshop) -> None:
    table = read_scores([workshop.table("scored", rows())])[0]
    assert table.scorer == "test-scorer"
    assert table.score[table.rows[(PAIRS[0].prompt.id, rows()[0]["completion_id"], 0)]] == len("good 0")
    assert table.tokens.tolist() == [2] * 8


def test_a_file_and_its_folder_are_the_same_table(workshop: Workshop) -> None:
    folder = workshop.table("scored", rows())
    assert read_scores([folder])[0].path == read_scores([folder / "scores.parquet"])[0].path


def change(name: str, value: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    def changed(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, name: value} if place == 5 else row for place, row in enumerate(table)]

    return changed


def everywhere(name: str, value: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda table: [{**row, name: value} for row in table]


def without(name: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda table: [{key: value for key, value in row.items() if key != name} for row in table]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (without("score"), ['column "score"', "the column to be there", "rewardlab score"]),
        (without("completion_tokens"), ['column "completion_tokens"']),
        (change("score", math.nan), [":6", "found nan", "a finite number", "overflow"]),
        (change("score", math.inf), [":6", "found inf"]),
        (change("score", None), ['column "score"', "1 empty values"]),
        (everywhere("score", "high"), ['column "score"', "found string", "expected numbers"]),
        (everywhere("completion_tokens", 1.5), ['column "completion_tokens"', "whole numbers"]),
        (everywhere("prompt_id", 7), ['column "prompt_id"', "found int64", "expected text"]),
        (everywhere("truncated", "no"), ['column "truncated"', "true or false"]),
        (change("scorer", "another"), ["another, test-scorer", "one scorer"]),
        (lambda table: [*table, table[2]], [":9", "as in row 3", "every key once"]),
    ],
)
def test_a_broken_table_is_refused(
    workshop: Workshop, broken: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], words: list[str]
) -> None:
    message = refusal(workshop.table("scored", broken(rows())))
    for part in ["scores.parquet", *words]:
        assert part in message


def test_all_problems_of_all_tables_come_at_once(workshop: Workshop) -> None:
    first = workshop.table("first", without("score")(without("scorer")(rows())))
    second = workshop.table("second", change("score", math.nan)(rows()))
    with pytest.raises(DataError) as caught:
        read_scores([first, second, workshop.folder / "third"])
    assert len(caught.value.problems) == 4
    assert "third" in str(caught.value)


def test_a_file_that_is_no_parquet_is_refused(workshop: Workshop) -> None:
    path = workshop.folder / "scores.parquet"
    path.write_bytes(b"PAR1 but not really")
    assert "a readable Parquet file" in refusal(path)
    path.write_bytes(b"")
    assert "a readable Parquet file" in refusal(path)


def test_a_table_without_rows_is_refused(workshop: Workshop) -> None:
    folder = workshop.table("scored", rows())
    pq.write_table(pq.ParquetFile(folder / "scores.parquet").read().slice(0, 0), folder / "scores.parquet")
    assert "no rows" in refusal(folder)


def test_missing_scores_are_all_named_and_nothing_is_written(workshop: Workshop) -> None:
    data = workshop.records("data.jsonl", PAIRS)
    scores = workshop.table("scored", [row for row in rows() if row["row"] != 2 and row["candidate"] == 0])
    with pytest.raises(DataError) as caught:
        evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,)), workshop)
    problems = caught.value.problems
    # Every rejected side, and the chosen side of row 2.
    assert len(problems) == 5
    assert {problem.where for problem in problems} >= {"pairs.jsonl:3, completion 0", "pairs.jsonl:1, completion 1"}
    assert all("Score the same file" in problem.remedy for problem in problems)
    assert list(workshop.path().iterdir()) == []


def test_a_table_of_other_data_is_one_problem(workshop: Workshop) -> None:
    data = workshop.records("data.jsonl", PAIRS)
    others = [Pair(conversation(f"other {n}"), "a", "b") for n in range(30)]
    scores = workshop.table("scored", score_rows(others, lambda _, text: float(len(text))))
    for made_from in ("", "; it was made from other.jsonl, more.jsonl"):
        with pytest.raises(DataError) as caught:
            evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,)), workshop)
        (problem,) = caught.value.problems
        assert problem.found == f"none of the 8 completions in this table{made_from}"
        (scores / "config.yaml").write_text("data: [{path: other.jsonl}, {path: more.jsonl}]")


def test_a_second_occurrence_needs_its_own_row(workshop: Workshop) -> None:
    data = workshop.records("data.jsonl", [*PAIRS, PAIRS[0]])
    scores = workshop.table("scored", rows())
    with pytest.raises(DataError, match="occurrence 1"):
        evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,)), workshop)


def test_occurrences_of_a_probe_keep_their_own_scores(workshop: Workshop) -> None:
    """Equal rows meet different prompts when prompts are shuffled, so their scores differ."""
    records = [PAIRS[0], PAIRS[0], *PAIRS[1:]]
    probe = score_rows(records, lambda _, text: 0.0)
    # Rows 0 and 2 are the chosen side of the two occurrences.
    probe[0]["score"], probe[2]["score"] = 5.0, -7.0
    folder = workshop.table("scored", score_rows(records, lambda _, text: float(len(text))))
    workshop.table("scored", probe, "scores.shuffled_prompt.parquet")
    data = workshop.records("data.jsonl", records)
    result = evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(folder,)), workshop)
    assert result["ignorance.shuffled_prompt.accuracy"].value == pytest.approx((1 + 0 + 0.5 + 0.5 + 0.5) / 5)


def test_rows_that_differ_in_template_options_keep_their_own_scores(workshop: Workshop) -> None:
    """The same messages with other tools are another text, so nothing hangs on which of the two comes first."""
    turns = PAIRS[0].prompt.messages
    records = [Pair(Prompt(turns, {"tools": [{"name": name}]}), "a", "b") for name in ("right", "wrong")]
    scores = {("right", "a"): 1.0, ("right", "b"): 0.0, ("wrong", "a"): 0.0, ("wrong", "b"): 1.0}
    folder = workshop.scores("scored", records, lambda p, text: scores[p.template_options["tools"][0]["name"], text])
    data = workshop.records("data.jsonl", records[::-1])
    result = evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(folder,)), workshop)
    assert result.counts["prompts"] == 2
    assert pq.read_table(workshop.path("pairs.parquet"))["margin"].to_pylist() == [-1.0, 1.0]


def test_a_probe_must_stand_beside_every_table(workshop: Workshop) -> None:
    parts = [PAIRS[:2], PAIRS[2:]]
    data = tuple(workshop.records(f"data{n}.jsonl", part) for n, part in enumerate(parts))
    scores = tuple(workshop.scores(f"fold{n}", part, lambda _, text: 1.0) for n, part in enumerate(parts))
    workshop.scores("fold0", parts[0], lambda _, text: 0.0, "scores.response_only.parquet")
    result = evaluate_accuracy(AccuracyEvaluation(data=data, scores=scores), workshop)
    assert result["ignorance.response_only.accuracy"].value is None
    workshop.scores("fold1", parts[1], lambda _, text: 0.0, "scores.response_only.parquet")
    result = evaluate_accuracy(AccuracyEvaluation(data=data, scores=scores), workshop)
    assert result["ignorance.response_only.accuracy"].value == 0.5
