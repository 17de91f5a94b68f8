"""Cuts by a list and by a table, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_pairs import drawn_pairs, pair, word_lengths

from rewardlab.data.interventions.balance_length import BalanceLength
from rewardlab.data.interventions.chain import Intervened, intervene
from rewardlab.data.interventions.cut import PUBLISHED, Cut
from rewardlab.data.interventions.random_pairs import RandomPairs
from rewardlab.errors import ConfigError, DataError
from rewardlab.records import Candidates, Prompt, Rated, Record

PAIRS = [pair(f"q{i}", 3, 2, meta={"uid": 100 + i}) for i in range(6)]
IDS = [one.id for one in PAIRS]


def cut(records: list[Any], **settings: Any) -> Intervened:
    return intervene(records, [Cut.build(settings)], word_lengths())


def listed(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def table(tmp_path: Path, **columns: list[Any]) -> str:
    path = tmp_path / "cartography.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def counts(done: Intervened) -> dict[str, int]:
    return dict(done.table["rows"][-1]["counts"])


def test_a_list_keeps_what_it_names(tmp_path: Path) -> None:
    done = cut(PAIRS, ids=listed(tmp_path, IDS[4], "", f" {IDS[1]} ", IDS[4]))
    assert done.records == [PAIRS[1], PAIRS[4]]
    assert counts(done) == {"kept": 2, "dropped": 4, "listed": 2, "listed without a record": 0}


def test_every_id_that_no_record_has_is_named(tmp_path: Path) -> None:
    path = listed(tmp_path, IDS[0], *(f"gone-{i}" for i in range(25)))
    with pytest.raises(DataError, match="25 of 26 ids") as caught:
        cut(PAIRS, ids=path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:{i}" for i in range(2, 27)]
    assert "'gone-24'" in caught.value.problems[-1].found
    done = cut(PAIRS, ids=path, unknown="ignore")
    assert done.records == PAIRS[:1]
    assert counts(done)["listed without a record"] == 25


def test_ids_that_an_earlier_intervention_dropped_are_known(tmp_path: Path) -> None:
    pairs = [pair("a", 9, 2), pair("b", 2, 9), pair("c", 9, 2), pair("d", 4, 4)]
    rule = Cut(ids=Path(listed(tmp_path, *(one.id for one in pairs))))
    done = intervene(pairs, [BalanceLength(), rule], word_lengths())
    assert len(done.records) == 3
    assert counts(done)["listed without a record"] == 0


def test_copies_are_cut_by_their_own_ids(tmp_path: Path) -> None:
    """A map of an earlier training on augmented data knows the copies; this one keeps one pair and one copy."""
    augmented = intervene(PAIRS, [RandomPairs(ratio=1)], word_lengths()).records
    copy = next(record for record in augmented if "random_pair" in record.meta)
    rule = Cut(ids=Path(listed(tmp_path, copy.id, IDS[0])))
    done = intervene(PAIRS, [RandomPairs(ratio=1), rule], word_lengths())
    assert {record.id for record in done.records} == {copy.id, IDS[0]}


def test_both_ends_of_a_table_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, pair_id=IDS[:5], confidence=[-0.2, -0.1, 0.4, None, float("nan")])
    done = cut(PAIRS, table=path, low=-0.2, high=0.4)
    assert done.records == [PAIRS[1]]
    assert counts(done) == {
        "kept": 1,
        "dropped": 5,
        "listed": 1,
        "listed without a record": 0,
        "dropped without a value": 3,
    }
    assert cut(PAIRS, table=path, low=-0.15).records == [PAIRS[1], PAIRS[2]]
    assert cut(PAIRS, table=path, high=0.0).records == [PAIRS[0], PAIRS[1]]


@pytest.mark.parametrize(
    ("quantiles", "kept"),
    [((0.2, 0.8), [1, 2, 3]), ((0.0, 0.8), [0, 1, 2, 3]), ((0.2, 1.0), [1, 2, 3, 4]), ((0.0, 1.0), [0, 1, 2, 3, 4])],
)
def test_ends_by_quantiles_of_the_table(tmp_path: Path, quantiles: tuple[float, float], kept: list[int]) -> None:
    """Of 1, 2, 4, 8, 100 and a null the quantiles .2 and .8 are 1.8 and 26.4; 0 and 1 are no ends."""
    path = table(tmp_path, pair_id=IDS, confidence=[1.0, 2.0, 4.0, 8.0, 100.0, None])
    assert cut(PAIRS, table=path, quantiles=quantiles).records == [PAIRS[index] for index in kept]


def test_published_cuts() -> None:
    """The ends as the paper has them: WebGPT, AlpacaFarm, RLCD, Stack."""
    assert dict(PUBLISHED) == {"webgpt": (-0.2, 0.4), "alpacafarm": (-0.3, 0.3), "rlcd": (-1, 2), "stack": (-1, 1)}


@pytest.mark.parametrize(
    ("name", "kept"), [("webgpt", [0, 1]), ("alpacafarm", [0]), ("rlcd", [0, 1, 2, 3, 4]), ("stack", [0, 1, 2])]
)
def test_a_published_cut_by_name(tmp_path: Path, name: str, kept: list[int]) -> None:
    path = table(tmp_path, pair_id=IDS, confidence=[0.1, 0.35, -0.5, 1.5, 1.0, 2.0])
    assert cut(PAIRS, table=path, published=name).records == [PAIRS[index] for index in kept]


def test_another_column_and_several_rows_of_one_id(tmp_path: Path) -> None:
    """Of 1 and 3 the mean, 2, counts; a column of yes and no is 1 and 0."""
    path = table(
        tmp_path, pair_id=[IDS[0], IDS[0], IDS[1]], variability=[1, 3, 9], longer_is_chosen=[True, True, False]
    )
    assert cut(PAIRS, table=path, column="variability", low=1.5, high=2.5).records == [PAIRS[0]]
    assert cut(PAIRS, table=path, column="longer_is_chosen", high=0.5).records == [PAIRS[1]]


def test_a_column_of_the_row_stands_for_the_id(tmp_path: Path) -> None:
    assert cut(PAIRS, ids=listed(tmp_path, "102", "105"), by="uid").records == [PAIRS[2], PAIRS[5]]
    with pytest.raises(DataError, match="expected the uid of a record"):
        cut(PAIRS, ids=listed(tmp_path, "1"), by="uid")


def test_records_of_every_kind_can_be_cut(tmp_path: Path) -> None:
    prompt = Prompt.of_text("q")
    records: list[Record] = [PAIRS[0], Candidates(prompt, ("a", "b"), (1.0, 0.0)), Rated(prompt, "a", label=True)]
    done = cut(records, ids=listed(tmp_path, records[1].id, records[2].id))
    assert done.records == records[1:]
    row = done.table["rows"][1]
    assert (row["records"], row["pairs"], row["longer_is_chosen"]["value"], row["mean_difference"]) == (
        2,
        0,
        None,
        None,
    )


def test_all_rows_of_an_id_are_kept(tmp_path: Path) -> None:
    pairs = drawn_pairs(10)
    done = cut(pairs, ids=listed(tmp_path, pairs[0].id))
    assert [record.source for record in done.records] == [pairs[0].source, pairs[10].source]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {"pair_id": ["x"], "confidence": [1.0]},
            {"low": 5.0},
            "none of 1 ids with 5 < confidence < inf; they lie from 1 to 1",
        ),
        ({"pair_id": ["x"], "confidence": [1.0]}, {"low": 0, "column": "confidnce"}, 'Did you mean "confidence"'),
        ({"uid": ["x"]}, {"low": 0}, "no column 'pair_id'"),
        ({"pair_id": ["x"], "confidence": ["high"]}, {"low": 0}, "found string; expected numbers"),
        ({"pair_id": ["x"], "confidence": [1.0]}, {"low": 0}, "'x', which no record has"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, columns: dict[str, list[Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        cut(PAIRS, table=table(tmp_path, **columns), **settings)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xff", b"\n \n"])
def test_files_that_cannot_be_used_as_lists_or_tables(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    for settings in ({"ids": str(path)}, {"table": str(path), "low": 0.0}):
        with pytest.raises(DataError, match=str(path)):
            cut(PAIRS, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ids": "a", "table": "b", "low": 0},
        {"ids": "a", "low": 0},
        {"ids": "a", "published": "stack"},
        {"table": "b"},
        {"table": "b", "low": 0, "published": "stack"},
        {"table": "b", "low": 1, "high": 1},
        {"table": "b", "published": "imdb"},
        {"ids": "a", "quantiles": [0.2, 0.8]},
        {"table": "b", "low": 0, "quantiles": [0.2, 0.8]},
        {"table": "b", "quantiles": [0.8, 0.2]},
        {"table": "b", "quantiles": [0.2, 1.2]},
    ],
)
def test_rules_that_contradict_themselves(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Cut.build(settings)
