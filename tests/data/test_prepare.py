"""`data prepare`: the files of the contract, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.canonical import read_records
from rewardlab.data.load import load
from rewardlab.data.prepare import DataPreparation, prepare
from rewardlab.data.source import DataSource
from rewardlab.errors import ConfigError, DataError
from rewardlab.store.files import read_json, read_jsonl


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Any]:
    rows = [{"prompt": f"q{i % 60}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(100)]
    rows += [rows[0], {"prompt": "q", "chosen": "same", "rejected": "same"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(path)}


def test_splits_are_written_and_summed_up(source: dict[str, Any], run: Any, tmp_path: Path) -> None:
    config = DataPreparation.build({"sources": {"mine": source}, "fractions": {"val": 0.2, "test": 0.2}})
    out = tmp_path / "out"
    prepared = prepare(config, run)
    summary = prepared.summary
    assert prepared.lines()[0].startswith("101 records of 60 conversations: train ")
    assert prepared.lines()[1] == "1 row set aside: 1 identical"
    assert summary == read_json(out / "summary.json")
    assert {path.name for path in out.iterdir()} == {
        "train.jsonl",
        "val.jsonl",
        "test.jsonl",
        "set_aside.jsonl",
        "summary.json",
    }
    sides = {side: read_records(out / f"{side}.jsonl") for side in ("train", "val", "test")}
    assert {side: len(records) for side, records in sides.items()} == {
        side: counts["records"] for side, counts in summary["splits"].items()
    }
    assert sorted(record.id for records in sides.values() for record in records) == sorted(
        record.id for record in load(DataSource(path=source["path"])).records
    )
    (aside,) = read_jsonl(out / "set_aside.jsonl")
    assert (aside["reason"], aside["source"]["row"]) == ("identical", 102)
    assert (summary["records"], summary["roots"], summary["duplicates"], summary["kinds"]) == (
        101,
        60,
        1,
        {"pair": 101},
    )
    assert summary["sources"]["mine"]["set_aside"] == {"identical": 1}


def test_folds_are_written_in_folders(source: dict[str, Any], run: Any, tmp_path: Path) -> None:
    config = DataPreparation.build({"sources": {"mine": source}, "folds": 3, "fractions": {"val": 0.2}})
    prepared = prepare(config, run)
    assert prepared.lines()[0].startswith("101 records of 60 conversations: 3 folds, train ")
    tested = [record.id for fold in range(3) for record in read_records(tmp_path / f"out/fold-{fold}/test.jsonl")]
    assert len(tested) == 101
    for fold in range(3):
        roots = [
            {record.prompt.root_id for record in read_records(tmp_path / f"out/fold-{fold}/{side}.jsonl")}
            for side in ("train", "val", "test")
        ]
        assert sum(map(len, roots)) == len(set().union(*roots)) == 60


def test_the_same_configuration_writes_the_same_bytes(source: dict[str, Any], run: Any, tmp_path: Path) -> None:
    config = DataPreparation.build({"sources": {"mine": source}})
    for name in ("one", "two"):
        prepare(config, type(run)(tmp_path / name))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_what_was_prepared_can_be_a_source_again(source: dict[str, Any], run: Any, tmp_path: Path) -> None:
    prepare(DataPreparation.build({"sources": {"mine": source}}), run)
    again = load(DataSource(path=str(tmp_path / "out"), split="train"))
    assert again.adapter == "canonical"
    assert list(again.records) == read_records(tmp_path / "out/train.jsonl")


def test_a_side_without_a_share_is_not_written(source: dict[str, Any], run: Any, tmp_path: Path) -> None:
    config = DataPreparation.build({"sources": {"mine": source}, "fractions": {"val": 0.0, "test": 0.3}})
    prepare(config, run)
    assert not (tmp_path / "out/val.jsonl").exists()


def test_a_side_that_would_stay_empty_is_an_error_and_nothing_is_written(
    source: dict[str, Any], run: Any, tmp_path: Path
) -> None:
    config = DataPreparation.build({"sources": {"mine": source}, "limit": 2})
    with pytest.raises(DataError, match="found none of the 2 usable records of 2 conversations"):
        prepare(config, run)
    assert not (tmp_path / "out").exists()


def test_candidates_become_pairs_on_request(run: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completions": ["a", "b", "c"], "rewards": [i, 0, 0]} for i in range(40)]
    path = tmp_path / "k.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    values = {"sources": {"k": {"path": str(path)}}, "fractions": {"val": 0.3, "test": 0.3}}
    kept = prepare(DataPreparation.build(values), type(run)(tmp_path / "kept")).summary
    assert kept["kinds"] == {"candidates": 40}
    pairs = prepare(DataPreparation.build(values | {"candidates": "pairs"}), type(run)(tmp_path / "pairs")).summary
    assert pairs["kinds"] == {"pair": 78}


def test_wrong_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        DataPreparation.build({"sources": {}, "folds": 1, "fractions": {"val": 1.5}})
    assert len(error.value.problems) == 3


def test_candidates_that_become_no_pair_are_counted(run: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completions": ["a", "b", "c"], "rewards": [1, 1, i % 4]} for i in range(60)]
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prepared = prepare(DataPreparation.build({"sources": {"a": str(path)}, "candidates": "pairs"}), run)
    # A quarter of the groups has three ties, the others have one each and two pairs.
    counts = {"groups": 60, "without_pairs": 15, "pairs": 90, "ties": 15 * 3 + 45, "same_text": 0}
    assert prepared.summary["candidates_to_pairs"] == counts
    assert "15 groups without any pair" in prepared.lines()[2]


def test_equal_rewards_everywhere_are_said(run: Any, tmp_path: Path) -> None:
    row = {"prompt": "q", "completions": ["a", "b"], "rewards": [1, 1]}
    path = tmp_path / "groups.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 60, encoding="utf-8")
    with pytest.raises(DataError, match="60 groups of candidates, and all have equal rewards"):
        prepare(DataPreparation.build({"sources": {"a": str(path)}, "candidates": "pairs"}), run)
