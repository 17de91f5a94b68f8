"""Models, tokenizers and devices that cannot be used, and data that a model has no use for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import ROWS, Fault, Setup, each, refused, rows, text
from safetensors.torch import load_file, save_file
from small_models import reward_model_of

from rewardlab.models.loading import save_reward_model

SCORE = "score --model model --data pairs.jsonl"
TRAIN = "train reward --model model --train pairs.jsonl --encoding.max_tokens 64"
SHAPE = "{model_type: llama, vocab_size: 100, hidden_size: 32, num_attention_heads: 4, num_hidden_layers: 1}"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small reward model, written once."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_reward_model(reward_model_of("llama", "shared"), folder, card="# card")
    return folder


@pytest.fixture(autouse=True)
def _model(saved: Path, workplace: Path) -> None:
    shutil.copytree(saved, workplace / "model")


def removed(name: str) -> Setup:
    return lambda folder: (folder / name).unlink()


def cut(name: str, size: int) -> Setup:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def configured(**changes: Any) -> Setup:
    def change(folder: Path) -> None:
        path = folder / "model/config.json"
        kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("num_labels",)}
        path.write_text(json.dumps(kept | changes))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Setup:
    def rewrite(folder: Path) -> None:
        path = folder / "model/model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return rewrite


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model/model.safetensors"), folder / "model/pytorch_model.bin")
    (folder / "model/model.safetensors").unlink()


FOLDERS = [
    Fault("no such folder", "score --model ./modle --data pairs.jsonl", ("./modle: found no such folder",)),
    Fault("an empty folder", "score --model empty --data pairs.jsonl", ("empty: found",), text("empty/x.txt", "x")),
    Fault("a file", "score --model ./pairs.jsonl --data pairs.jsonl", ("./pairs.jsonl: found",)),
    Fault("a configuration that is no JSON", SCORE, ("model: found",), text("model/config.json", "{")),
    Fault("a configuration without an architecture", SCORE, ("model: found",), text("model/config.json", "{}")),
    Fault("an unknown architecture", SCORE, ("model: found", "nonesuch"), configured(model_type="nonesuch")),
    Fault("no weights", SCORE, ("model: found", "model.safetensors"), removed("model/model.safetensors")),
    Fault("truncated weights", SCORE, ("model: found",), cut("model/model.safetensors", 5000)),
    Fault("weights in a pickle", SCORE, ("model: found", "safetensors"), pickled),
    Fault(
        "a layer missing",
        SCORE,
        ("model: found no weights for model.norm.weight",),
        weights(lambda tensors: tensors.pop("model.norm.weight")),
    ),
    Fault(
        "no head",
        SCORE,
        ("model: found no trained head", "rewardlab train reward --model"),
        weights(lambda tensors: tensors.pop("score.weight")),
    ),
    Fault(
        "a head for two labels",
        SCORE,
        ("model: found",),
        configured(id2label={"0": "A", "1": "B"}, label2id={"A": 0, "B": 1}),
    ),
    Fault("no tokenizer", SCORE, ("model: found", "tokenizer"), removed("model/tokenizer.json")),
    Fault(
        "a tokenizer of the doctor that is none",
        "data doctor --sources.mine pairs.jsonl --tokenizer model",
        ("tokenizer: found 'model'", "expected a folder or hub id with a tokenizer"),
        text("model/tokenizer.json", "{}"),
    ),
    Fault("rules of a later version", SCORE, ("model/rewardlab.json: found",), text("model/rewardlab.json", "[]")),
    Fault(
        "sequences of hardly a word",
        f"{TRAIN} --encoding.max_tokens 4",
        ("--encoding.max_tokens: found 4; expected greater than or equal to 8",),
    ),
    Fault("a device that is not there", f"{SCORE} --device cuda:7", ("device: found cuda:7", "Use --device auto.")),
    Fault("a device that is no device", f"{TRAIN} --device gpu", ("device: found gpu", "Use --device auto.")),
    Fault("an unknown precision", f"{SCORE} --precision half", ("--precision: found 'half'",)),
]


@each(FOLDERS)
def test_model_folders_and_devices(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    refused(fault, capsys)


TRAINING = [
    Fault("no model", "train reward --train pairs.jsonl", ("model: found nothing; expected a value",)),
    Fault(
        "a folder and a shape",
        f'{TRAIN} --model.shape "{SHAPE}"',
        ("--model.shape: found path 'model', shape {model_type: ...", "; expected either path or shape, and not both"),
    ),
    Fault(
        "a shape without a tokenizer",
        f'train reward --train pairs.jsonl --model.shape "{SHAPE}"',
        ("--model.shape: found no tokenizer, shape {model_type: ...", "; expected a tokenizer beside shape"),
    ),
    Fault(
        "a shape that cannot be built",
        f'train reward --train pairs.jsonl --model.tokenizer model --model.shape "{SHAPE.replace("4,", "5,")}"',
        ("model.shape: found",),
    ),
    Fault(
        "adapters for no module", f"{TRAIN} --lora.targets [nonesuch]", ("lora.targets: found ['nonesuch']", "q_proj")
    ),
    Fault(
        "a tracker that is not there", f"{TRAIN} --report_to abacus", ("--report_to: found 'abacus'", "Known: azure_ml")
    ),
    Fault("a negative seed", f"{TRAIN} --seed -1", ("--seed: found -1; expected greater than or equal to 0",)),
    Fault("a seed beyond 32 bits", f"{TRAIN} --seed 5000000000", ("--seed: found 5000000000; expected less than",)),
    Fault(
        "a decay rate of one", f"{TRAIN} --betas '[1.0, 0.999]'", ("--betas, betas.0: found 1.0; expected less than 1",)
    ),
    Fault("a learning rate of zero", f"{TRAIN} --learning_rate 0", ("--learning_rate: found 0; expected greater",)),
    Fault(
        "a template without its fields",
        f'{TRAIN} --encoding.template "{{prompt}}"',
        ("--encoding.template", "expected {prompt} and {completion} once each"),
    ),
    Fault(
        "a misspelled field of a source",
        f"{TRAIN} --train.spilt test",
        ('--train, train.0.spilt: found the unknown key "spilt"', 'Did you mean "split"?'),
    ),
    Fault("no training file", TRAIN.replace("pairs.jsonl", "pars.jsonl"), ("pars.jsonl: found no such file",)),
    Fault(
        "no validation file",
        f"{TRAIN} --validation.val val.jsonl",
        ("val.jsonl: found no such file",),
    ),
    Fault(
        "prompts alone",
        TRAIN,
        ("train: found", "The data cannot train a reward model"),
        rows("pairs.jsonl", *({"prompt": values["prompt"]} for values in ROWS)),
    ),
    Fault(
        "pairs and labels mixed",
        f"{TRAIN} --train [pairs.jsonl,labels.jsonl]",
        ("train: found",),
        rows("labels.jsonl", *({"prompt": f"p{i}", "completion": "a", "label": True} for i in range(12))),
    ),
    Fault(
        "sides that are the same",
        TRAIN,
        ("all of them set aside",),
        rows("pairs.jsonl", *({**values, "rejected": values["chosen"]} for values in ROWS)),
    ),
    Fault("one conversation", TRAIN, ("two conversations or more", "--validation.NAME"), rows("pairs.jsonl", ROWS[0])),
    Fault(
        "everything too long",
        f"{TRAIN} --encoding.overlong drop --encoding.max_tokens 8 --validation.v pairs.jsonl",
        ("found nothing to learn from", "too long"),
        rows("pairs.jsonl", *({**values, "prompt": "w1 " * 50 + values["prompt"]} for values in ROWS)),
    ),
    Fault(
        "nothing to score",
        SCORE,
        ("data: found 12 records without completions",),
        rows("pairs.jsonl", *({"prompt": values["prompt"]} for values in ROWS)),
    ),
]


@each(TRAINING)
def test_training_and_scoring(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    refused(fault, capsys)
