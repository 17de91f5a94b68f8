"""`train reward` with interventions: on the training data alone, recorded, the same on resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import ENCODING, LLAMA, pairs, rated, write_pairs

from rewardlab.data.canonical import write_records
from rewardlab.data.interventions.base import Lengths
from rewardlab.data.interventions.chain import intervene
from rewardlab.data.load import load
from rewardlab.data.source import DataSource
from rewardlab.errors import ConfigError, DataError, RunError
from rewardlab.records import Record
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run
from rewardlab.train import reward, setup
from rewardlab.train.reward import RewardTraining, train_reward

CHAIN: list[Any] = [
    "balance-length",
    {"name": "random-pairs", "ratio": 0.5},
    {"name": "label-noise", "probability": 0.1},
    {"name": "margin", "to": "constant", "value": 0.25},
]


def settings(tokenizer: Path, train: Path, **changes: Any) -> RewardTraining:
    values: dict[str, Any] = {
        "model": {"shape": {**LLAMA, "num_hidden_layers": 1}, "tokenizer": str(tokenizer)},
        "encoding": ENCODING.model_dump(),
        "train": [{"path": str(train)}],
        "batch_size": 16,
        "precision": "float32",
        "device": "cpu",
    }
    return RewardTraining.build(values | changes)


def trained(config: RewardTraining, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Record]]:
    """The records that examples were made of, by the name of the set."""
    seen: dict[str, list[Record]] = {}
    made = reward.make_examples

    def spy(records: Any, model: Any, name: str, **options: Any) -> Any:
        seen[name] = list(records)
        return made(records, model, name, **options)

    monkeypatch.setattr(reward, "make_examples", spy)
    run = Run.create(config, verb="train reward", root=root, name="run")
    with run:
        train_reward(config, run)
    return seen


def test_training_data_are_changed_and_what_is_held_out_is_not(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pairs(tmp_path / "train.jsonl", pairs(64))
    config = settings(tokenizer, path, interventions=CHAIN, validation_share=0.2)
    seen = trained(config, tmp_path, monkeypatch)
    plain = settings(tokenizer, path, validation_share=0.2)
    unchanged = setup.training_records(plain)
    assert [record.id for record in seen["val"]] == [record.id for record in unchanged[1]["val"]]
    held_out = {record.prompt.root_id for record in seen["val"]}
    assert held_out
    assert held_out.isdisjoint(record.prompt.root_id for record in seen["train"])
    # Donors too are of the training side.
    answers = {text for record in seen["val"] for text in record.completions}
    assert answers.isdisjoint(text for record in seen["train"] for text in record.completions)
    folder = tmp_path / "run"
    summary = read_json(folder / "summary.json")
    rows = summary["interventions"]["rows"]
    assert [row["name"] for row in rows] == ["before", "balance-length", "random-pairs", "label-noise", "margin"]
    assert rows[0]["pairs"] == len(unchanged[0])
    assert rows[1]["longer_is_chosen"]["value"] == 0.5
    assert rows[-1]["pairs"] == len(seen["train"]) == summary["counts"]["train"]["used"]
    assert {record.margin for record in seen["train"]} == {0.25}  # type: ignore[union-attr]
    assert "interventions: balance-length" in (folder / "run.log").read_text()
    assert "random-pairs (ratio 0.5, seed 0)" in (folder / "model" / "README.md").read_text()
    # The lengths are those of the model's own tokenizer.
    lengths = Lengths(reward.load_reward_model(folder / "model").encoder.lengths, "tokens")
    again = intervene(unchanged[0], config.interventions, lengths)
    assert dict(again.table) == summary["interventions"]
    assert [record.id for record in again.records] == [record.id for record in seen["train"]]


def test_the_order_of_the_file_changes_no_draw(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = load(DataSource(path=str(write_pairs(tmp_path / "a.jsonl", pairs(48))))).records
    write_records(tmp_path / "one.jsonl", records)
    write_records(tmp_path / "two.jsonl", records[::-1])
    found = []
    for name in ("one", "two"):
        config = settings(tokenizer, tmp_path / f"{name}.jsonl", interventions=CHAIN)
        training, *_ = setup.training_records(config)
        lengths = Lengths(lambda texts: [len(text.split()) for text in texts], "words")
        found.append({record.id for record in intervene(training, config.interventions, lengths).records})
    assert found[0] == found[1]


def test_margins_that_would_not_count_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "train.jsonl", pairs(4))
    with pytest.raises(ConfigError, match=r"objective\.use_margin"):
        settings(tokenizer, path, interventions=CHAIN, objective={"use_margin": False})


def test_labels_are_refused_before_anything_is_trained(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "rated.jsonl", rated(24, labels=True))
    config = settings(tokenizer, tmp_path / "rated.jsonl", interventions=["balance-length"])
    with pytest.raises(DataError, match="balance-length works on pairs"):
        trained(config, tmp_path, monkeypatch)
    assert not (tmp_path / "run" / "history.jsonl").exists()


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


def test_a_resumed_run_draws_the_same_and_notices_another_list(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pairs(tmp_path / "train.jsonl", pairs(64))
    ids = [record.id for record in load(DataSource(path=str(path))).records]
    listed = tmp_path / "ids.txt"
    listed.write_text("\n".join(ids[:48]))
    cut = {"name": "cut", "ids": str(listed), "unknown": "ignore"}
    config = settings(tokenizer, path, interventions=[cut, *CHAIN], checkpoints_per_epoch=8)
    whole = Run.create(config, verb="train reward", root=tmp_path, name="whole")
    with whole:
        train_reward(config, whole)

    step = reward.GroupTrainer.training_step
    calls = iter(range(100))

    def killing(self: Any, *arguments: Any, **more: Any) -> Any:
        if next(calls) == 2:
            raise Killed
        return step(self, *arguments, **more)

    def session(*, resume: bool = True) -> Path:
        run = Run.create(config, verb="train reward", root=tmp_path, name="stopped", resume=resume)
        with run:
            train_reward(config, run)
        return run.folder

    with monkeypatch.context() as patch:
        patch.setattr(reward.GroupTrainer, "training_step", killing)
        with pytest.raises(Killed):
            session(resume=False)

    listed.write_text("\n".join(ids[:47]))
    with pytest.raises(RunError):
        session()
    listed.write_text("\n".join(ids[:48]))
    folder = session()
    for name in ("model.safetensors", "README.md", "config.json"):
        assert (folder / "model" / name).read_bytes() == (whole.folder / "model" / name).read_bytes()
    assert (
        read_json(folder / "summary.json")["interventions"] == read_json(whole.folder / "summary.json")["interventions"]
    )
