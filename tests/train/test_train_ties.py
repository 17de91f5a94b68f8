"""`train reward` with ties beside pairs: learned where they are wanted, and no part of maps and evaluation sets."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from toys import pairs, write_pairs

from rewardlab.data.canonical import write_records
from rewardlab.data.load import load
from rewardlab.data.source import DataSource
from rewardlab.records import Candidates, Pair
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run
from rewardlab.train.margins import MARGINS
from rewardlab.train.reward import RewardTraining, train_reward
from tests.train.test_train_interventions import settings

PAIRS, TIES = 24, 16


def test_ties_are_one_more_source_and_one_flag(tokenizer: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", pairs(PAIRS))
    records = [one for one in load(DataSource(path=str(data))).records if isinstance(one, Pair)]
    ties = [Candidates(one.prompt, one.completions, (0.0, 0.0)) for one in records[:TIES]]
    write_records(tmp_path / "ties.jsonl", ties)
    both = [{"path": str(data)}, {"path": str(tmp_path / "ties.jsonl")}]
    validation = {"val": {"path": str(data)}, "ties": {"path": str(tmp_path / "mixed.jsonl")}}
    write_records(tmp_path / "mixed.jsonl", [records[0], *ties])
    values = settings(tokenizer, data).model_dump(mode="json", exclude_unset=True)
    config = RewardTraining.build({**values, "train": both, "validation": validation, "objective": {"ties": 1.0}})
    with Run.create(config, verb="train reward", root=tmp_path, name="run") as run:
        train_reward(config, run)
    counts = read_json(tmp_path / "run" / "summary.json")["counts"]
    assert (counts["train"]["used"], counts["train"]["ties"]) == (PAIRS + TIES, TIES)
    assert (counts["ties"]["used"], counts["ties"]["no_preference"]) == (1, TIES)
    mapped = pq.read_table(tmp_path / "run" / MARGINS)["pair_id"].to_pylist()
    assert sorted(mapped) == sorted(one.id for one in records)
