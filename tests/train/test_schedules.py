"""The exponential schedule, what chooses the best checkpoint, and the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_reward import lines_of, settings, trained
from toys import ENCODING, flipped, history, pairs, rated, toy_model, toy_trainer, write_pairs
from transformers import TrainerCallback

from rewardlab.data.canonical import write_records
from rewardlab.errors import ConfigError
from rewardlab.models.loading import load_reward_model
from rewardlab.score.local import LocalScorer
from rewardlab.store.files import read_json
from rewardlab.train.schedules import EpochDecay, gamma_of
from rewardlab.train.trainer import run_training


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "train": str(write_pairs(tmp_path / "train.jsonl", pairs(32))),
        "val": str(write_pairs(tmp_path / "val.jsonl", pairs(12, seed=5))),
        "test": str(write_pairs(tmp_path / "test.jsonl", pairs(18, seed=9))),
    }


def test_the_published_rates() -> None:
    """1e-5 to 2e-6 in ten epochs: a factor of (1/5)^(1/9) = .836251 from one to the next."""
    decay = EpochDecay(gamma_of(1e-5, 2e-6, 10), per_epoch=7)
    assert decay.gamma == pytest.approx(0.836251, abs=1e-6)
    rates = [1e-5 * decay.factor(step) for step in range(70)]
    assert rates[:7] == [1e-5] * 7
    assert rates[7:14] == pytest.approx([8.36251e-6] * 7, rel=1e-5)
    assert rates[63:] == pytest.approx([2e-6] * 7, rel=1e-12)


def test_rates_of_a_training_fall_from_epoch_to_epoch(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    """The rate that a step is logged with is the one that it was taken with."""
    config = settings(
        tokenizer, files, schedule="exponential", epochs=3, learning_rate=4e-3, final_learning_rate=1e-3, warmup_share=0
    )
    _, folder = trained(config, tmp_path)
    rates = [line["learning_rate"] for line in lines_of(folder, "train")]
    assert rates == pytest.approx([4e-3] * 4 + [2e-3] * 4 + [1e-3] * 4, rel=1e-6)


@pytest.mark.slow
def test_the_rate_rises_first_and_ends_at_a_fifth(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    config = settings(tokenizer, files, schedule="exponential", epochs=2, learning_rate=1e-3, warmup_share=0.25)
    _, folder = trained(config, tmp_path)
    rates = [line["learning_rate"] for line in lines_of(folder, "train")]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 1e-3] + [2e-4] * 4, rel=1e-6)


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = control.should_save = state.global_step == self.step
        return control


def test_a_resumed_training_goes_on_with_its_rate(tokenizer: Path, tmp_path: Path) -> None:
    def run(folder: Path, *, resume: bool, stop: int = 0) -> list[dict[str, Any]]:
        options: dict[str, Any] = {"epochs": 2, "per_step": 4, "lr_scheduler_type": "constant"}
        trainer = toy_trainer(toy_model(tokenizer), pairs(16), folder, **options)
        trainer.decay = EpochDecay(0.25, per_epoch=4)
        trainer.add_callback(StopAt(stop))
        run_training(trainer, resume=resume)
        return [line for line in history(folder) if line["split"] == "train"]

    whole = run(tmp_path / "whole", resume=False)
    assert [line["learning_rate"] for line in whole] == pytest.approx([1e-2] * 4 + [2.5e-3] * 4)
    assert len(run(tmp_path / "cut", resume=False, stop=3)) == 3
    assert run(tmp_path / "cut", resume=True) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "exponential"}, "epochs of 2 or more beside schedule exponential"),
        ({"final_learning_rate": 1e-6}, "beside schedule exponential only"),
        ({"test": "test.jsonl", "validation": {"test": "val.jsonl"}}, "another name than test"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tokenizer: Path, files: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tokenizer, files, **changes)


@pytest.mark.parametrize("measure", [pytest.param("accuracy", marks=pytest.mark.slow), "loss"])
def test_the_best_checkpoint_is_chosen_by_the_measure_asked_for(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], measure: str
) -> None:
    """At this rate accuracy reaches 1 early, while the loss still falls."""
    result, folder = trained(settings(tokenizer, files, epochs=4, choose_by=measure, evaluations_per_epoch=2), tmp_path)
    lines = lines_of(folder, "val")
    by_accuracy = max(lines, key=lambda line: line["accuracy"])["step"]
    by_loss = min(lines, key=lambda line: line["loss"])["step"]
    assert by_accuracy < by_loss
    assert result.summary["best"]["step"] == (by_accuracy if measure == "accuracy" else by_loss)


def test_training_stops_when_the_loss_no_longer_falls(tokenizer: Path, tmp_path: Path) -> None:
    """The held-out labels are the flipped ones: the loss on them rises from the first evaluation on."""
    trainer = toy_trainer(
        toy_model(tokenizer), pairs(40), tmp_path, held_out=flipped(pairs(8, seed=5)), eval_steps=1, patience=3,
        epochs=2, metric_for_best_model="eval_val_loss", greater_is_better=False,
    )  # fmt: skip
    run_training(trainer, resume=False)
    losses = [line["loss"] for line in history(tmp_path) if line["split"] == "val"]
    best = losses.index(min(losses)) + 1
    assert trainer.state.best_global_step == best
    assert len(losses) == trainer.state.global_step == best + 3 < len(trainer.plan)


def test_accuracy_of_scores_is_no_choice(tokenizer: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    write_records(file, rated(16, labels=False))
    config = settings(tokenizer, {"train": str(file), "val": str(file)}, choose_by="accuracy")
    with pytest.raises(ConfigError, match=r"choose_by: found accuracy, and val has scores; expected loss"):
        trained(config, tmp_path)


def test_the_test_set_is_scored_once_with_the_best_model(
    tokenizer: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    """On held-out labels that are flipped the first model is the best, and the last one another."""
    held_out = flipped(pairs(12, seed=5))
    write_pairs(Path(files["val"]), held_out)
    config = settings(tokenizer, files, epochs=2, choose_by="loss", test=files["test"])
    result, folder = trained(config, tmp_path)
    assert (result.summary["best"]["step"], result.summary["steps"]) == (4, 8)
    scorer = LocalScorer(load_reward_model(folder / "model"), "model")
    lines = {"test": read_json(folder / "summary.json")["test"], "val": lines_of(folder, "val")[0]}
    for name, records in {"test": pairs(18, seed=9), "val": held_out}.items():
        scores = scorer.score([pair.prompt for pair in records], [[pair.chosen, pair.rejected] for pair in records])
        gaps = torch.tensor([chosen - rejected for chosen, rejected in scores])
        assert lines[name]["n"] == len(records)
        assert lines[name]["accuracy"] == pytest.approx((gaps > 0).double().mean().item())
        assert lines[name]["loss"] == pytest.approx(torch.log1p(torch.exp(-gaps)).mean().item(), rel=1e-4)
    assert {line["split"] for line in history(folder)} == {"train", "val"}
    assert any(
        line.startswith("On the test set: accuracy") and line.endswith("on 18 records.") for line in result.lines()
    )
    card = (folder / "model" / "README.md").read_text()
    assert "accuracy on test" in card
    assert "Those on test are of a set that has chosen nothing." in card
    assert "Evaluate on a test set" not in card


def test_what_is_left_out_of_the_test_set_is_counted(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    """Two of twenty pairs are of 60 words, over the limit of 40 tokens."""
    long = [replace(pair, chosen=" ".join([pair.chosen] * 20)) for pair in pairs(2, seed=3)]
    test = str(write_pairs(tmp_path / "long.jsonl", [*pairs(18, seed=9), *long]))
    encoding = ENCODING.model_dump() | {"max_tokens": 40, "overlong": "drop"}
    result, folder = trained(settings(tokenizer, files, test=test, encoding=encoding), tmp_path)
    counts = read_json(folder / "summary.json")["counts"]
    assert list(counts) == ["train", "val", "test"]
    assert {key: value for key, value in counts["test"].items() if value} == {"records": 20, "too_long": 2, "used": 18}
    assert result.summary["test"]["n"] == 18
