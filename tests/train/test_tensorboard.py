"""What TensorBoard's own reader finds in the event files of a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_reward import lines_of, settings, trained
from toys import candidates, examples_of, flipped, pairs, rated, toy_model, write_pairs

from rewardlab.errors import ConfigError, MissingExtraError
from rewardlab.models.loading import load_reward_model
from rewardlab.score.local import LocalScorer
from rewardlab.store.runs import Run
from rewardlab.train import reward, trackers
from rewardlab.train.tensorboard import TensorBoard, histograms_of

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")

KINDS = ["chosen", "rejected", "difference", "sigma"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "train": str(write_pairs(tmp_path / "train.jsonl", pairs(32))),
        "val": str(write_pairs(tmp_path / "val.jsonl", pairs(12, seed=5))),
        "test": str(write_pairs(tmp_path / "test.jsonl", pairs(18, seed=9))),
    }


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"histograms": 0, "scalars": 0})
    found.Reload()
    return found


def curve(events: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_curves_and_histograms_of_every_set(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    """On held-out labels that are flipped the first model is the best, and the last one another."""
    held_out = flipped(pairs(12, seed=5))
    write_pairs(Path(files["val"]), held_out)
    config = settings(tokenizer, files, epochs=2, choose_by="loss", test=files["test"], report_to=["tensorboard"])
    result, folder = trained(config, tmp_path)
    events = events_of(folder)
    for split, measures in (("train", ["loss", "learning_rate"]), ("val", ["loss", "accuracy"])):
        for measure in measures:
            steps, values = zip(*curve(events, f"{split}/{measure}"), strict=True)
            assert list(steps) == [line["step"] for line in lines_of(folder, split)]
            assert values == pytest.approx([line[measure] for line in lines_of(folder, split)], rel=1e-6)
    assert curve(events, "test/accuracy") == [(4, pytest.approx(result.summary["test"]["accuracy"]))]

    tags = [f"{split}/{kind}" for split in ("train", "val", "test") for kind in KINDS]
    assert sorted(events.Tags()["histograms"]) == sorted(tags)
    # Every training pair once an epoch.
    assert [(one.step, one.histogram_value.num) for one in events.Histograms("train/difference")] == [(4, 32), (8, 32)]
    # What was drawn of the best step are scores of the model that was saved.
    assert (result.summary["best"]["step"], result.summary["steps"]) == (4, 8)
    for split, records, steps in (("val", held_out, [4, 8]), ("test", pairs(18, seed=9), [4])):
        scorer = LocalScorer(load_reward_model(folder / "model"), "model")
        found = scorer.score([pair.prompt for pair in records], [[pair.chosen, pair.rejected] for pair in records])
        chosen, rejected = np.array(found).T
        for kind, values in zip(
            KINDS, (chosen, rejected, chosen - rejected, 1 / (1 + np.exp(rejected - chosen))), strict=True
        ):
            assert [one.step for one in events.Histograms(f"{split}/{kind}")] == steps
            drawn = events.Histograms(f"{split}/{kind}")[0]
            assert drawn.histogram_value.num == len(records)
            assert drawn.histogram_value.sum == pytest.approx(values.sum(), rel=1e-4)
            assert drawn.histogram_value.min == pytest.approx(values.min(), rel=1e-4)
            assert drawn.histogram_value.max == pytest.approx(values.max(), rel=1e-4)
    # Nothing of this machine's clock or name stands where the run keeps its checkpoints.
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        *("checkpoint-4", "checkpoint-8"),
        "margins.jsonl",
    }


def test_a_resumed_training_is_one_curve(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped two steps after a checkpoint: what these steps left is taken back."""
    config = settings(tokenizer, files, epochs=2, checkpoints_per_epoch=2, report_to=["tensorboard"])
    whole = trained(config, tmp_path, "whole")[1]

    class Cut(Exception):
        pass

    step = reward.GroupTrainer.training_step

    def cut(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == 7:
            raise Cut
        return step(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(reward.GroupTrainer, "training_step", cut)
        with pytest.raises(Cut):
            trained(config, tmp_path, "cut")
    assert curve(events_of(tmp_path / "cut"), "train/loss")[-1][0] == 7
    with Run.create(config, verb="train reward", root=tmp_path, name="cut", resume=True) as run:
        reward.train_reward(config, run)
    events, expected = events_of(tmp_path / "cut"), events_of(whole)
    assert curve(events, "train/loss") == curve(expected, "train/loss")
    assert curve(events, "val/loss") == curve(expected, "val/loss")
    assert [one.step for one in events.Histograms("val/sigma")] == [4, 8]


def test_what_is_drawn_of_other_targets(tokenizer: Path) -> None:
    model = toy_model(tokenizer)
    lists = examples_of(model, candidates(2, 3)).items
    # By hand: of each list the rewards of 2 > 1, 2 > 0 and 1 > 0.
    drawn = histograms_of("preference", lists, torch.tensor([0.0, 1.0, 5.0, 0.0, 2.0, 1.0]))
    assert sorted(drawn["difference"].tolist()) == [-1.0, 1.0, 1.0, 2.0, 4.0, 5.0]
    assert drawn["sigma"].tolist() == pytest.approx([1 / (1 + np.exp(-gap)) for gap in drawn["difference"].tolist()])
    labelled = examples_of(model, rated(5, labels=True)).items
    drawn = histograms_of("label", labelled, torch.arange(5.0))
    assert drawn["chosen"].tolist() == [float(row) for row, one in enumerate(labelled) if one.targets == (1.0,)]
    assert sorted([*drawn["chosen"].tolist(), *drawn["rejected"].tolist()]) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert list(histograms_of("score", labelled, torch.arange(5.0))) == ["reward"]


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rewardlab\[tensorboard\]'"):
        TensorBoard(tmp_path, {})


def test_the_tracker_is_asked_for_before_any_work(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", list)
    with pytest.raises(ConfigError, match=r"pip install 'rewardlab\[tensorboard\]', or leave it out"):
        trained(settings(tokenizer, files, report_to=["tensorboard"]), tmp_path)
