"""`torchrun ... -m rewardlab`: as a user launches it, with processes that are killed, stopped and refused."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from ranks import torchrun
from safetensors.torch import load_file

from rewardlab.models.tiny import train_tokenizer
from rewardlab.store.files import read_json, read_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WORDS = ["river", "stone", "lamp", "cloud", "seven", "paper", "green", "quiet", "metal", "happy", "garden", "window"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer, data, configuration, and a run of one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("launched")
    generator = random.Random(0)
    train_tokenizer([" ".join(WORDS)] * 3, vocab_size=320).save_pretrained(folder / "tokenizer")
    rows = []
    for number in range(90):
        prompt, good, bad = (" ".join(generator.choices(WORDS, k=generator.randint(4, 12))) for _ in range(3))
        rows.append({"prompt": f"{prompt} {number}: ", "chosen": f"{good} certainly", "rejected": f"{bad} perhaps"})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 320, "max_position_embeddings": 128, "pad_token_id": 0,
    }  # fmt: skip
    config: dict[str, Any] = {
        "model": {"shape": shape, "tokenizer": str(folder / "tokenizer")},
        "train": [{"path": str(folder / "train.jsonl")}],
        "validation_share": 0.2,
        "encoding": {"max_tokens": 96},
        "batch_size": 4,
        "epochs": 4,
        "evaluations_per_epoch": 2,
        "checkpoints_per_epoch": 5,
        "learning_rate": 1e-3,
        "precision": "float32",
        "device": "cpu",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    launch(folder, ["train", "reward", "--config", str(folder / "config.yaml"), "--run", "alone"], count=1)
    return folder


def launch(folder: Path, words: list[str], *, count: int, code: int = 0) -> str:
    with torchrun(words, count, folder) as launched:
        assert launched.end() == code, launched.said
        return launched.said


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    history = read_jsonl(folder / "runs" / name / "history.jsonl", torn_tail=True)
    return [{key: value for key, value in line.items() if key != "pairs_per_second"} for line in history]


def assert_as_alone(folder: Path, name: str) -> None:
    """Losses and weights within 1e-5, every row counted once, the same files, and done."""
    found, expected = lines(folder, name), lines(folder, "alone")
    assert [(line["step"], line["split"]) for line in found] == [(line["step"], line["split"]) for line in expected]
    for key in ("loss", "accuracy", "grad_norm", "learning_rate", "n"):
        values = [[line[key] for line in one if key in line] for one in (found, expected)]
        assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-5)
    runs = folder / "runs"
    weights, others = (load_file(runs / one / "model" / "model.safetensors") for one in (name, "alone"))
    assert weights.keys() == others.keys()
    assert max((weights[key] - others[key]).abs().max().item() for key in weights) <= 1e-5
    summaries = [read_json(runs / one / "summary.json") for one in (name, "alone")]
    assert summaries[0]["counts"] == summaries[1]["counts"]
    assert read_json(runs / name / "run.json")["status"] == "done"
    files = [
        {path.relative_to(runs / one).as_posix() for path in (runs / one).rglob("*") if path.suffix != ".diff"}
        for one in (name, "alone")
    ]
    assert files[0] == files[1]


def test_a_process_that_is_killed_ends_the_run_which_another_number_goes_on_with(place: Path) -> None:
    history = place / "runs" / "killed" / "history.jsonl"
    words = ["train", "reward", "--config", str(place / "config.yaml"), "--run", "killed"]
    with torchrun(words, 2, place) as launched:
        launched.wait_for(lambda: history.exists() and history.read_bytes().count(b"\n") >= 12)
        os.kill(launched.pid(1), signal.SIGKILL)
        assert launched.end() == 1
    assert "rewardlab: Another process of this run has ended" in launched.said
    assert "Go on with: rewardlab train reward --run killed --resume" in launched.said
    assert "trainer.py" not in launched.said, "a traceback of ours"
    assert read_json(place / "runs/killed/run.json")["status"] == "failed"
    assert "done after" in launch(place, ["train", "reward", "--run", "killed", "--resume"], count=1)
    assert_as_alone(place, "killed")


def test_the_first_process_killed_and_gone_on_with_in_two(place: Path) -> None:
    history = place / "runs" / "first" / "history.jsonl"
    with torchrun(["train", "reward", "--config", str(place / "config.yaml"), "--run", "first"], 2, place) as launched:
        launched.wait_for(lambda: history.exists() and history.read_bytes().count(b"\n") >= 12)
        os.kill(launched.pid(0), signal.SIGKILL)
        assert launched.end() == 1
    said = launch(place, ["train", "reward", "--run", "first", "--resume"], count=2)
    assert said.count("done after") == 1
    assert said.count("Best at step") == 1
    assert_as_alone(place, "first")


def test_sigterm_to_the_launcher_saves_and_stops(place: Path) -> None:
    history = place / "runs" / "stopped" / "history.jsonl"
    words = ["train", "reward", "--config", str(place / "config.yaml"), "--run", "stopped"]
    with torchrun(words, 2, place) as launched:
        launched.wait_for(lambda: history.exists() and history.read_bytes().count(b"\n") >= 5)
        os.kill(launched.process.pid, signal.SIGTERM)
        assert launched.end() != 0
    assert launched.said.count("rewardlab: stopped") == 1
    assert read_json(place / "runs/stopped/run.json")["status"] == "stopped"
    assert (place / f"runs/stopped/checkpoints/checkpoint-{lines(place, 'stopped')[-1]['step']}").is_dir()
    launch(place, ["train", "reward", "--run", "stopped", "--resume"], count=2)
    assert_as_alone(place, "stopped")


def test_scored_in_two_processes_as_in_one(place: Path) -> None:
    words = ["score", "--model", str(place / "runs/alone/model"), "--data", str(place / "train.jsonl")]
    words += ["--shard_size", "16", "--device", "cpu", "--verify", "5"]
    for name, count in (("scores-one", 1), ("scores-two", 2)):
        assert launch(place, [*words, "--run", name], count=count).count("180 completions scored") == 1
    one, two = ((place / "runs" / name / "scores.parquet").read_bytes() for name in ("scores-one", "scores-two"))
    assert one == two


def rows_by_digest(folder: Path) -> dict[bytes, Any]:
    """Every cached state under a home, by the digest of its sequence; each is there once."""
    found = {}
    for path in (folder / "runs" / "features").glob("*/*.safetensors"):
        shard = load_file(path)
        for digest, row in zip(shard["digests"], shard["rows"], strict=True):
            key = digest.numpy().tobytes()
            assert key not in found
            found[key] = row
    return found


def test_hidden_states_killed_in_two_processes_and_gone_on_with_in_one(place: Path, tmp_path: Path) -> None:
    generator = random.Random(1)
    rows = []
    for number in range(5000):
        prompt, good, bad = (" ".join(generator.choices(WORDS, k=generator.randint(4, 12))) for _ in range(3))
        rows.append({"prompt": f"{prompt} {number}: ", "chosen": f"{good} certainly", "rejected": f"{bad} perhaps"})
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load((place / "config.yaml").read_text())
    config = {key: config[key] for key in ("model", "encoding", "precision", "device")}
    config |= {"data": [str(tmp_path / "many.jsonl")]}
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(config))
    words = ["data", "features", "--config", str(tmp_path / "features.yaml"), "--run", "states"]
    with torchrun(words, 2, tmp_path) as launched:
        launched.wait_for(lambda: len(list((tmp_path / "runs" / "features").glob("*/[0-9a-f]*.safetensors"))) >= 2)
        os.kill(launched.pid(1), signal.SIGKILL)
        assert launched.end() == 1
    left = len(rows_by_digest(tmp_path))
    assert 0 < left < 10_000
    said = launch(tmp_path, ["data", "features", "--run", "states", "--resume"], count=1)
    assert f"{10_000 - left} of them were computed now" in said
    (tmp_path / "alone").mkdir()
    launch(tmp_path / "alone", words, count=1)
    found, expected = rows_by_digest(tmp_path), rows_by_digest(tmp_path / "alone")
    assert found.keys() == expected.keys()
    assert len(found) == 10_000
    assert max((found[key] - expected[key]).abs().max().item() for key in found) <= 1e-5


def test_what_cannot_be_shared_or_used_is_said_once(place: Path) -> None:
    said = launch(place, ["data", "doctor", "--sources.train.path", str(place / "train.jsonl")], count=2, code=1)
    assert said.count("rewardlab: too many processes") == 1
    assert "rewardlab, process 1" not in said
    said = launch(place, ["train", "reward", "--batch_size", "0"], count=2, code=1)
    assert said.count("problems in the configuration") == 1
    config = str(place / "config.yaml")
    said = launch(place, ["train", "reward", "--config", config, "--run", "alone"], count=2, code=1)
    assert said.count("the run directory exists") == 1
    assert "rewardlab, process 1" not in said
    (place / "bad.jsonl").write_text('{"prompt": \n')
    said = launch(place, ["train", "reward", "--config", config, "--train", str(place / "bad.jsonl")], count=2, code=1)
    assert said.count("bad.jsonl:1") == 1
    assert "rewardlab, process 1" not in said


def test_the_first_process_says_what_is_wrong_though_it_is_the_last_to_begin(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher stops all processes as soon as one has failed: the silent ones may not be it."""
    late = "import os, time\nif os.environ.get('RANK') == '0':\n    time.sleep(4)\n"
    (tmp_path / "sitecustomize.py").write_text(late)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    said = launch(place, ["train", "reward", "--batch_size", "0"], count=2, code=1)
    assert said.count("problems in the configuration") == 1
    said = launch(place, ["data", "doctor", "--sources.train.path", str(place / "train.jsonl")], count=2, code=1)
    assert said.count("rewardlab: too many processes") == 1
