"""`train reward` from files to a saved folder."""

from __future__ import annotations

import csv
import json
import re
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import BAD, BERT, ENCODING, GOOD, GPT2, LLAMA, examples_of, pairs, rated, toy_model, write_pairs
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback, dynamic_module_utils
from transformers.integrations import integration_utils

from rewardlab.data.splits import place
from rewardlab.errors import ConfigError, DataError, ModelError, RewardlabError, counted
from rewardlab.models.loading import load_reward_model, new_reward_model
from rewardlab.models.source import ModelSource
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.runs import Run
from rewardlab.train import reward, setup, trackers
from rewardlab.train.reward import RewardTraining, TrainedReward, train_reward


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "train": str(write_pairs(tmp_path / "train.jsonl", pairs(96))),
        "val": str(write_pairs(tmp_path / "val.jsonl", pairs(24, seed=5))),
    }


def settings(tokenizer: Path, files: dict[str, str], **changes: Any) -> RewardTraining:
    values: dict[str, Any] = {
        "model": {"shape": LLAMA, "tokenizer": str(tokenizer)},
        "encoding": ENCODING.model_dump(),
        "train": [{"path": files["train"]}],
        "validation": {"val": {"path": files["val"]}},
        "batch_size": 8,
        "learning_rate": 3e-3,
        "precision": "float32",
        "device": "cpu",
    }
    return RewardTraining.build(values | changes)


def trained(config: RewardTraining, root: Path, name: str = "run") -> tuple[TrainedReward, Path]:
    """The result and the run directory."""
    run = Run.create(config, verb="train reward", root=root, name=name)
    with run:
        result = train_reward(config, run)
    return result, run.folder


def lines_of(folder: Path, split: str) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(folder / "history.jsonl") if line["split"] == split]


def test_a_planted_rule_is_learned(tokenizer: Path, tmp_path: Path, files: dict[str, str], capfd: Any) -> None:
    result, folder = trained(settings(tokenizer, files, epochs=2, evaluations_per_epoch=2), tmp_path)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [part for part in re.split(r"[\r\n]+", printed.err) if part and not part.startswith("training:")] == []
    assert result.summary["best"]["metrics"]["accuracy"] > 0.9
    assert re.fullmatch(
        r"Best at step \d+ of 24: accuracy \d+ % \(\d+ to 100\), loss 0\.\d+, on 24 held-out records \(val\)\.",
        result.lines()[0],
    )
    assert result.lines()[1].startswith("24 are too few to choose a checkpoint by")
    _check_history(folder)
    _check_summary(result, folder)
    _check_folder_in_plain_transformers(folder / "model")
    assert load_reward_model(folder / "model").prompt_form == "text"
    _check_log((folder / "run.log").read_text())


@pytest.mark.parametrize(
    ("accuracy", "count", "words"),
    [
        # Student 1908 on 14 of 20: .7 +- t(19, .975) sqrt(.7 .3 / 19) = .7 +- 2.093 x .1051.
        (0.7, 20, "70 % (48 to 92)"),
        (0.7, 2000, "70 % (68 to 72)"),
        # All right: p^G = .025.
        (1.0, 20, "100 % (83 to 100)"),
        (1.0, 1, "100 %"),
    ],
)
def test_an_accuracy_comes_with_its_interval_and_number(
    accuracy: float, count: int, words: str, tmp_path: Path
) -> None:
    best = {"step": 20, "split": "val", "metrics": {"accuracy": accuracy, "loss": 0.717}}
    result = TrainedReward(tmp_path, {"best": best, "steps": 30, "counts": {"val": {"used": count}}})
    first, *others = result.lines()
    assert (
        first == f"Best at step 20 of 30: accuracy {words}, loss 0.717, on {counted(count, 'held-out record')} (val)."
    )
    assert any("too few" in line for line in others) == (count < 30)


def test_the_vocabulary_grows_with_a_word(tokenizer: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rewardlab")
    for rows, told in ((50, True), (400, False)):
        caplog.clear()
        shape = {**LLAMA, "vocab_size": rows}
        model = new_reward_model(ModelSource(shape=shape, tokenizer=str(tokenizer)), ENCODING, seed=0)
        assert any(f"grew from 50 to {len(model.tokenizer)} rows" in line for line in caplog.messages) == told


def _check_history(folder: Path) -> None:
    train, val = lines_of(folder, "train"), lines_of(folder, "val")
    assert [line["step"] for line in train] == list(range(1, 25))
    assert [line["step"] for line in val] == [6, 12, 18, 24]
    assert all(
        line.keys() == {"step", "epoch", "split", "loss", "learning_rate", "grad_norm", "pairs_per_second"}
        for line in train
    )
    assert all(line.keys() == {"step", "epoch", "split", "loss", "accuracy", "n"} for line in val)
    assert {line["n"] for line in val} == {24}
    assert [line["epoch"] for line in val] == [0.5, 1.0, 1.5, 2.0]
    assert all(line["pairs_per_second"] > 0 for line in train)


def _check_summary(result: TrainedReward, folder: Path) -> None:
    summary = read_json(folder / "summary.json")
    assert summary == result.summary
    assert summary["counts"]["train"] == {"records": 96, "truncated": 0, "used": 96}
    assert summary["counts"]["val"] == {"records": 24, "truncated": 0, "used": 24}
    best = max(lines_of(folder, "val"), key=lambda line: line["accuracy"])
    assert summary["best"] == {
        "step": best["step"], "split": "val", "metrics": {"accuracy": best["accuracy"], "loss": best["loss"]},
    }  # fmt: skip
    assert (summary["steps"], summary["layout"], summary["token_budget"]) == (24, "shared", 1024)


def _check_folder_in_plain_transformers(folder: Path) -> None:
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)
    texts = [f"river stone: {word} lamp{tokens.eos_token}" for word in (GOOD, BAD)]
    with torch.no_grad():
        good, bad = plain(**tokens(texts, return_tensors="pt", padding=True)).logits[:, 0].tolist()
    assert good > bad
    state = (folder / "trainer_state.json").read_text()
    assert str(folder.parents[1]) not in state + (folder / "README.md").read_text(), "no path of this machine"


def _check_log(text: str) -> None:
    assert "train: 96 used as preference (96 records, 0 truncated)" in text
    words = r"\d+ parameters, \d+ of them trained, on cpu, products in (float32|bfloat16); shared layout; 1024 tokens"
    assert re.search(words, text)


@pytest.mark.parametrize("shape", [GPT2, BERT], ids=["gpt2", "bert"])
def test_other_backbones_learn_it_too(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], shape: dict[str, Any]
) -> None:
    model = {"shape": shape, "tokenizer": str(tokenizer)}
    result, _ = trained(settings(tokenizer, files, model=model, epochs=3), tmp_path)
    assert result.summary["best"]["metrics"]["accuracy"] > 0.9
    assert result.summary["layout"] == ("shared" if shape is GPT2 else "flat")


def test_adapters_learn_it_and_the_merged_folder_scores_equally(
    tokenizer: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    """Flags as on the command line; the reload inside `train_reward` compares the scores."""
    config = settings(tokenizer, files, epochs=3, learning_rate=1e-2)
    config = RewardTraining.build(config.model_dump(), flags=[("lora.r", "4"), ("lora.alpha", "16")])
    assert config.lora is not None
    result, folder = trained(config, tmp_path)
    assert result.summary["best"]["metrics"]["accuracy"] > 0.9
    names = load_reward_model(folder / "model").state_dict().keys()
    assert not any("lora" in name for name in names)
    assert result.summary["layout"] == "shared"


def test_adapters_leave_the_backbone_alone(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    config = settings(tokenizer, files, lora={"r": 2}, limit=16)
    _, folder = trained(config, tmp_path)
    (checkpoint,) = (folder / "checkpoints").glob("checkpoint-*")
    names = load_file(checkpoint / "trained.safetensors").keys()
    assert all("lora_" in name or "score" in name for name in names)
    assert any("score" in name for name in names), "the head is always trained"


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "gradient_checkpointing": True, "token_budget": 64},
        {"dropout": 0.1, "gradient_checkpointing": True},
        {"lora": {"r": 2}, "precision": "bfloat16", "gradient_checkpointing": True},
        {"layout": "flat", "objective": {"centring": 0.01, "label_smoothing": 0.1}},
    ],
    ids=["bf16", "bf16 recomputed small", "dropout", "lora bf16 recomputed", "flat"],
)
def test_settings_go_together(tokenizer: Path, tmp_path: Path, files: dict[str, str], changes: dict[str, Any]) -> None:
    result, folder = trained(settings(tokenizer, files, epochs=2, limit=40, **changes), tmp_path)
    assert lines_of(folder, "train")[-1]["loss"] < lines_of(folder, "train")[0]["loss"]
    flat = "dropout" in changes or changes.get("layout") == "flat"
    assert result.summary["layout"] == ("flat" if flat else "shared")


@pytest.mark.parametrize("shape", [LLAMA, GPT2, BERT], ids=["llama", "gpt2", "bert"])
def test_dropout_is_set_everywhere_and_off_in_evaluation(tokenizer: Path, shape: dict[str, Any]) -> None:
    model = toy_model(tokenizer, shape, dropout=0.25)
    config: Any = model.plain_network.config
    rates = [
        value
        for name, value in vars(config).items()
        if name.endswith(("pdrop", "dropout", "dropout_prob")) and isinstance(value, float)
    ]
    assert rates
    assert set(rates) == {0.25}
    groups = [example.group for example in examples_of(model, pairs(3)).items]
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(groups), model(groups))
        model.eval()
        assert torch.equal(model(groups), model(groups))


# --- data ----------------------------------------------------------------------------------------------------------


def test_labels_train_by_logistic_regression(tokenizer: Path, tmp_path: Path) -> None:
    config = _pointwise(tokenizer, tmp_path, labels=True)
    result, _ = trained(config, tmp_path)
    assert result.summary["target"] == "label"
    assert result.summary["best"]["metrics"]["accuracy"] > 0.9


def test_scores_train_by_regression_and_the_loss_chooses(tokenizer: Path, tmp_path: Path) -> None:
    config = _pointwise(tokenizer, tmp_path, labels=False)
    result, folder = trained(config, tmp_path)
    val = lines_of(folder, "val")
    assert result.summary["best"]["metrics"] == {"loss": min(line["loss"] for line in val)}
    assert result.summary["best"]["metrics"]["loss"] < 0.5, "the variance of the scores is 1"


def test_a_set_of_pairs_can_choose_a_model_trained_on_labels(tokenizer: Path, tmp_path: Path) -> None:
    config = _pointwise(tokenizer, tmp_path, labels=True)
    held_out = write_pairs(tmp_path / "pairs.jsonl", pairs(20, seed=3))
    config = RewardTraining.build(config.model_dump() | {"validation": {"pairs": {"path": str(held_out)}}})
    result, _ = trained(config, tmp_path)
    assert result.summary["best"]["split"] == "pairs"
    assert result.summary["best"]["metrics"]["accuracy"] > 0.9


def _pointwise(tokenizer: Path, folder: Path, *, labels: bool) -> RewardTraining:
    """Configuration over CSV files with a label or a score a row."""
    paths = {}
    for name, count, seed in (("train", 128, 0), ("val", 32, 1)):
        paths[name] = str(folder / f"{name}.csv")
        with Path(paths[name]).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["prompt", "completion", "label" if labels else "score"])
            for record in rated(count, labels=labels, seed=seed):
                value = record.label if labels else record.score
                writer.writerow([record.prompt.messages[0].content, record.completion, value])
    return settings(tokenizer, paths, epochs=3)


def test_evaluation_sets_have_names_and_the_first_one_chooses(
    tokenizer: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    validation = {"hard": {"path": files["val"]}, "same": {"path": files["train"], "limit": 10}}
    result, folder = trained(settings(tokenizer, files, validation=validation), tmp_path)
    assert result.summary["best"]["split"] == "hard"
    assert [line["split"] for line in read_jsonl(folder / "history.jsonl")][-2:] == ["hard", "same"]
    assert result.summary["counts"]["same"]["used"] == 10


def test_no_evaluation_set_is_called_train(tokenizer: Path, files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="another name than train"):
        settings(tokenizer, files, validation={"train": {"path": files["val"]}})


def test_a_share_of_the_conversations_is_held_out(tokenizer: Path, files: dict[str, str]) -> None:
    config = settings(tokenizer, files, validation={}, validation_share=0.25)
    training, named, *_ = setup.training_records(config)
    assert len(training) + len(named["val"]) == 96
    assert 12 <= len(named["val"]) <= 36  # 24 ± 3 sd
    assert {record.prompt.root_id for record in training}.isdisjoint(record.prompt.root_id for record in named["val"])
    assert all(place(record.prompt.root_id, config.seed, "validation") < 0.25 for record in named["val"])


@pytest.mark.parametrize("share", [0.001, 0.499])
@pytest.mark.parametrize("limit", [2, 3, 5])
def test_few_records_are_still_held_out_and_still_trained_on(
    tokenizer: Path, files: dict[str, str], share: float, limit: int
) -> None:
    config = settings(tokenizer, files, validation={}, validation_share=share, limit=limit)
    training, named, *_ = setup.training_records(config)
    assert training
    assert named["val"]
    assert len(training) + len(named["val"]) == limit


def test_one_conversation_alone_cannot_be_split(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    config = settings(tokenizer, files, validation={}, limit=1)
    with pytest.raises(DataError, match=r"1 record of 1 conversation; expected two .* --validation\.NAME\.path"):
        trained(config, tmp_path)
    assert not (tmp_path / "run").exists()


def test_limit_holds_for_every_set(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    result, _ = trained(settings(tokenizer, files, limit=9), tmp_path)
    assert {name: count["used"] for name, count in result.summary["counts"].items()} == {"train": 9, "val": 9}


def test_the_limit_is_of_every_source(tokenizer: Path, files: dict[str, str]) -> None:
    config = settings(tokenizer, files, train=[files["train"], {"path": files["val"], "limit": 4}], limit=9)
    training, named, described, _ = setup.training_records(config)
    assert (len(training), len(named["val"])) == (9 + 4, 9)
    assert [line.partition(",")[0].partition(": ")[2] for line in described] == ["9 rows", "4 rows"]


def test_unusable_sets_are_named(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(json.dumps({"prompt": "river", "completion": "stone", "label": True}) + "\n")
    config = settings(tokenizer, files, train=[{"path": files["train"]}, {"path": str(mixed)}])
    with pytest.raises(DataError, match="completions with labels, pairs or candidates with rewards"):
        trained(config, tmp_path)


# --- schedule, early stopping, trackers ----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "constant_with_warmup", "cosine"])
def test_the_learning_rate_rises_to_its_peak_and_follows_the_schedule(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], schedule: str
) -> None:
    config = settings(
        tokenizer, files, schedule=schedule, warmup_share=0.25, limit=32, batch_size=4, learning_rate=1e-3
    )
    _, folder = trained(config, tmp_path)
    rates = [line["learning_rate"] for line in lines_of(folder, "train")]
    assert rates[:3] == pytest.approx([0, 5e-4, 1e-3])
    falling = {"linear": [5 / 6, 4 / 6], "constant_with_warmup": [1, 1], "cosine": [0.933, 0.75]}[schedule]
    assert [rate / 1e-3 for rate in rates[3:5]] == pytest.approx(falling, abs=1e-3)


def test_training_stops_early_and_keeps_the_best(tokenizer: Path, tmp_path: Path, files: dict[str, str]) -> None:
    config = settings(
        tokenizer, files, early_stopping=2, epochs=3, evaluations_per_epoch=4, learning_rate=1e-12, warmup_share=0.0
    )
    result, _ = trained(config, tmp_path)
    assert result.summary["best"]["step"] == 3
    assert result.summary["steps"] == 9


@pytest.mark.parametrize(
    ("asked", "steps"), [(1, [12]), (3, [4, 8, 12]), (5, [3, 6, 9, 12]), (7, [2, 4, 6, 8, 10, 12])]
)
def test_evaluations_are_no_more_than_were_asked_for(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], asked: int, steps: list[int]
) -> None:
    """Of twelve steps to an epoch; five and seven do not divide them."""
    _, folder = trained(settings(tokenizer, files, evaluations_per_epoch=asked), tmp_path)
    assert [line["step"] for line in lines_of(folder, "val")] == steps


@pytest.mark.parametrize("place", ["update", "device"])
def test_out_of_memory_where_smaller_batches_are_no_help_is_said(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The moments of AdamW come with the first update."""

    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    if place == "update":
        monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    else:
        monkeypatch.setattr(reward.GroupTrainer, "_move_model_to_device", fails)
    with pytest.raises(RewardlabError, match=r"Out of memory .*moments of AdamW.*lora"):
        trained(settings(tokenizer, files, limit=16), tmp_path)


@pytest.mark.parametrize(("name", "right"), [("cuda:1", False), ("cuda:0", True), ("cuda", True)])
def test_training_takes_the_first_device_and_refuses_the_number_of_another(
    monkeypatch: pytest.MonkeyPatch, name: str, right: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if right:
        assert setup.training_device(name) == "cuda"
    else:
        with pytest.raises(ModelError, match=f"device: found {name}; .* CUDA_VISIBLE_DEVICES"):
            setup.training_device(name)


class StubTracker(TrainerCallback):
    seen: list[dict[str, float]]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.seen.append(dict(logs))


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StubTracker]]:
    StubTracker.seen = []
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", StubTracker)
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", lambda: ["mlflow"])
    return StubTracker


def test_trackers_get_what_the_history_gets(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], tracker: type[StubTracker]
) -> None:
    _, folder = trained(settings(tokenizer, files, report_to=["mlflow"], epochs=2, limit=16), tmp_path)
    losses = [logs["loss"] for logs in tracker.seen if "loss" in logs]
    assert losses == [line["loss"] for line in lines_of(folder, "train")]
    evaluated = [(logs["epoch"], logs["eval_val_accuracy"]) for logs in tracker.seen if "eval_val_accuracy" in logs]
    assert evaluated == [(line["epoch"], line["accuracy"]) for line in lines_of(folder, "val")]


def test_trackers_that_are_not_there_are_named_before_any_work(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], tracker: type[StubTracker]
) -> None:
    config = settings(tokenizer, files, report_to=["mlflow", "tensorboard", "wandb"])
    with pytest.raises(ConfigError) as caught:
        trained(config, tmp_path)
    assert [problem.found for problem in caught.value.problems] == ["'tensorboard'", "'wandb'"]
    assert not (tmp_path / "run").exists()


def test_a_misspelt_tracker_is_told_with_the_other_problems(tokenizer: Path, files: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(tokenizer, files, report_to=["tensorbord"], schedule="exponential", epochs=1)
    tracker, schedule = caught.value.problems
    assert (tracker.where, schedule.where) == ("report_to", "epochs")
    assert tracker.found == "'tensorbord'"
    assert tracker.expected.endswith("""which 'tensorbord' is not. Did you mean "tensorboard"?""")
    assert schedule.found == "epochs 1, schedule 'exponential'"


# --- the saved folder ----------------------------------------------------------------------------------------------


def test_a_folder_that_scores_differently_is_not_left_behind(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = reward.save_reward_model

    def spoiled(model: Any, folder: Path, *, card: str) -> None:
        with torch.no_grad():
            model.plain_network.score.weight.mul_(1.01)
            save(model, folder, card=card)
            model.plain_network.score.weight.div_(1.01)

    monkeypatch.setattr(reward, "save_reward_model", spoiled)
    with pytest.raises(ModelError, match="does not give the scores it had"):
        trained(settings(tokenizer, files, limit=16), tmp_path)
    assert not (tmp_path / "run" / "model").exists()


def _shifted(by: float) -> Any:
    scores = reward._scores_by_transformers
    return lambda *arguments: scores(*arguments) + by


def test_what_may_be_rounding_is_kept_and_said(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reward, "_scores_by_transformers", _shifted(3e-5))
    result, folder = trained(settings(tokenizer, files, limit=16), tmp_path)
    assert (result.model / "model.safetensors").exists()
    assert re.search(
        r"differ by 3\.\de-05 when loaded with transformers, more than 1e-05", (folder / "run.log").read_text()
    )


def test_what_is_no_rounding_any_more_is_not_kept(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reward, "_scores_by_transformers", _shifted(2e-3))
    with pytest.raises(ModelError, match="when loaded with transformers"):
        trained(settings(tokenizer, files, limit=16), tmp_path)
    assert not (tmp_path / "run" / "model").exists()


def test_a_folder_that_cannot_be_compared_is_kept(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(reward, "load_reward_model", fails)
    with pytest.raises(RewardlabError, match="Out of memory") as caught:
        trained(settings(tokenizer, files, limit=16), tmp_path)
    kept = tmp_path / "run" / "model"
    assert (kept / "model.safetensors").exists()
    assert caught.value.__notes__ == [
        f"The model was saved in {kept}, but its scores could not be compared with rewardlab."
    ]


def test_the_last_check_takes_less_memory_than_training(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sequence at a time, one reloaded copy at a time, and no optimiser beside them."""
    alive: dict[str, Any] = {}
    sizes: list[int] = []
    create, load = reward.GroupTrainer.create_optimizer, reward.load_reward_model

    def created(*arguments: Any, **options: Any) -> Any:
        optimizer = create(*arguments, **options)
        alive["optimiser"] = weakref.ref(optimizer)
        return optimizer

    def loaded(*arguments: Any, **options: Any) -> Any:
        assert alive["optimiser"]() is None
        model = load(*arguments, **options)
        model.register_forward_pre_hook(lambda _, inputs: sizes.extend(len(group.branches) for group in inputs[0]))
        alive["ours"] = weakref.ref(model.network)
        return model

    class Plain:
        @staticmethod
        def from_pretrained(*arguments: Any, **options: Any) -> Any:
            assert alive["ours"]() is None
            return AutoModelForSequenceClassification.from_pretrained(*arguments, **options)

    monkeypatch.setattr(reward.GroupTrainer, "create_optimizer", created)
    monkeypatch.setattr(reward, "load_reward_model", loaded)
    monkeypatch.setattr(reward, "AutoModelForSequenceClassification", Plain)
    trained(settings(tokenizer, files, limit=16), tmp_path)
    assert sizes == [1] * 8


def test_a_backbone_with_code_of_its_own_is_trained_and_compared(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its architecture is known to no version of transformers: what reloads it has to be told to trust it."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    folder = tmp_path / "odd"
    toy_model(tokenizer).plain_network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    (folder / "odd_llama.py").write_text(ODD_LLAMA)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "odd_llama.OddConfig", "AutoModelForSequenceClassification": "odd_llama.OddModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "odd_llama", "auto_map": classes}))
    source = {"path": str(folder), "trust_remote_code": True}
    result, _ = trained(settings(tokenizer, files, model=source, limit=16), tmp_path)
    assert (result.model / "odd_llama.py").exists()
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForSequenceClassification.from_pretrained(result.model, trust_remote_code=False)


ODD_LLAMA = """
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class OddConfig(LlamaConfig):
    model_type = "odd_llama"


class OddModel(LlamaPreTrainedModel):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids, **options):
        return SequenceClassifierOutput(logits=self.score(self.model(input_ids).last_hidden_state[:, -1]))
"""
"""A causal backbone that comes with its own code."""


def test_a_run_stopped_while_saving_the_model_goes_on(
    tokenizer: Path, tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tokenizer, files, limit=16)
    whole, _ = trained(config, tmp_path, "whole")

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reward, "_compare_reloaded", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(config, tmp_path, "stopped")
    left = {path.name: path.read_bytes() for path in (tmp_path / "stopped" / "model").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(reward, "save_reward_model", stopped)
        run = Run.create(config, verb="train reward", root=tmp_path, name="stopped", resume=True)
        with pytest.raises(KeyboardInterrupt), run:
            train_reward(config, run)
    assert {path.name: path.read_bytes() for path in (tmp_path / "stopped" / "model").iterdir()} == left, "old or new"
    run = Run.create(config, verb="train reward", root=tmp_path, name="stopped", resume=True)
    with run:
        result = train_reward(config, run)
    assert _without_rates(result.summary) == _without_rates(whole.summary)
    weights = [(model / "model.safetensors").read_bytes() for model in (whole.model, result.model)]
    assert weights[0] == weights[1]


def _without_rates(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "pairs_per_second"}


def test_the_card_says_what_was_done_and_hostile_names_stay_names(
    tokenizer: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    hostile = "<script>alert(1)</script>`|x|\n# Title"
    validation = {hostile: {"path": files["val"]}}
    result, _ = trained(settings(tokenizer, files, validation=validation, limit=16), tmp_path)
    card = (result.model / "README.md").read_text()
    assert "Evaluate on a test set." in card
    assert "train.jsonl: 16 rows, sha256 " in card
    assert "\n# Title" not in card
    _check_inline_code(card, "<script>")


def test_the_card_has_every_setting_that_shapes_the_model(
    tokenizer: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    changes = {"schedule": "exponential", "epochs": 2, "final_learning_rate": 0.00123, "choose_by": "loss"}
    frozen = {"freeze_backbone": True, "features_dtype": "bfloat16"}
    result, _ = trained(settings(tokenizer, files, limit=16, **changes, **frozen), tmp_path)
    rows = dict(re.findall(r"^\| `(.*?)` \| `(.*?)` \|$", (result.model / "README.md").read_text(), re.MULTILINE))
    expected = {name: str(value) for name, value in (changes | frozen).items()}
    expected |= {"dropout": "0.0", "quantisation": "None"}
    assert expected.items() <= rows.items()


def _check_inline_code(card: str, payload: str) -> None:
    """Every line with the payload holds it between backticks, and its table has two cells."""
    lines = [line for line in card.splitlines() if payload in line]
    assert lines
    for line in lines:
        outside: Sequence[str] = line.split("`")[::2]
        assert not any(payload in part for part in outside)
        assert line.count("|") == 3
