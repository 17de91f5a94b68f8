"""kill -9 at random moments of `rewardlab train reward`: resumed until done, the result is the same bytes.

A second process is really killed here, wherever it happens to be: loading, stepping, evaluating, saving. What it
leaves is resumed by another one. `tests/train/test_resume.py` visits the dangerous places one by one.
"""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import Command
from ranks import is_run

from rewardlab.models.tiny import train_tokenizer
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.keys import path_digest
from rewardlab.store.runs import Run
from rewardlab.train.reward import RewardTraining, train_reward

WORDS = ["river", "stone", "lamp", "cloud", "seven", "paper", "green", "quiet", "metal", "happy", "garden", "window"]
SECONDS = 240
"""Before a child that hangs fails the test."""


def prepare(folder: Path, epochs: int) -> None:
    """Tokenizer, data and configuration of a training of a few seconds."""
    generator = random.Random(0)
    train_tokenizer([" ".join(WORDS)] * 3, vocab_size=320).save_pretrained(folder / "tokenizer")
    rows = []
    for number in range(64):
        prompt, good, bad = (" ".join(generator.choices(WORDS, k=generator.randint(4, 12))) for _ in range(3))
        rows.append({"prompt": f"{prompt} {number}: ", "chosen": f"{good} certainly", "rejected": f"{bad} perhaps"})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 320, "n_positions": 128,
    }  # fmt: skip
    config: dict[str, Any] = {
        "model": {"shape": shape, "tokenizer": str(folder / "tokenizer")},
        "train": [{"path": str(folder / "train.jsonl")}],
        "validation_share": 0.2,
        "encoding": {"max_tokens": 96},
        "batch_size": 4,
        "epochs": epochs,
        "evaluations_per_epoch": 4,
        "checkpoints_per_epoch": 5,
        "learning_rate": 1e-3,
        "dropout": 0.1,
        "device": "cpu",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def start(folder: Path, name: str, *, resume: bool) -> Command:
    """The command line in a process of its own."""
    words = ["train", "reward", "--run", name]
    words += ["--resume"] if resume else ["--config", str(folder / "config.yaml")]
    home = {"REWARDLAB_HOME": str(folder / "runs"), "REWARDLAB_ALLOW_UNTRACKED": "1"}
    return Command(words, folder / f"{name}.err", home)


def finish(folder: Path, name: str, *, resume: bool) -> None:
    process = start(folder, name, resume=resume)
    assert process.wait(SECONDS) == 0, (folder / f"{name}.err").read_text()[-4000:]


def wait_for_lines(process: Command, history: Path, lines: int) -> None:
    """Until the history has so many lines, or the process has ended."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        if history.exists() and history.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.002)


def result(folder: Path, name: str) -> dict[str, Any]:
    """Everything that must not depend on kills."""
    run = folder / "runs" / name
    history = [
        {key: value for key, value in line.items() if key != "pairs_per_second"}
        for line in read_jsonl(run / "history.jsonl")
    ]
    summary = read_json(run / "summary.json")
    summary.pop("pairs_per_second")
    # A checkout that somebody works in has another difference to its commit in every session.
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".diff"]
    return {
        "history": history,
        "summary": summary,
        # By this content a scorer is named, and what it scored is found again.
        "model": path_digest(run / "model"),
        "margins": path_digest(run / "margins.parquet"),
        "files": sorted(path.relative_to(run).as_posix() for path in files),
        "status": read_json(run / "run.json")["status"],
    }


def test_killed_once_and_resumed(tmp_path: Path) -> None:
    """Only the process that is killed is another one: starting one takes longer than this training."""
    prepare(tmp_path, epochs=1)
    config = RewardTraining.build(files=[tmp_path / "config.yaml"])
    expected = train_here(config, tmp_path, "whole", resume=False)
    process = start(tmp_path, "killed", resume=False)
    wait_for_lines(process, tmp_path / "runs" / "killed" / "history.jsonl", len(expected["history"]) // 2)
    process.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL
    assert not (tmp_path / "runs" / "killed" / "summary.json").exists()
    assert train_here(config, tmp_path, "killed", resume=True) == expected


def train_here(config: RewardTraining, folder: Path, name: str, *, resume: bool) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Run.create(config, verb="train reward", root=folder / "runs", name=name, resume=resume) as run:
            train_reward(config, run)
    finally:
        torch.set_num_threads(threads)
    return result(folder, name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_moments(whole: tuple[Path, dict[str, Any], float], seed: int) -> None:
    """Again and again after a random time, early ones included, until it has had a chance to end."""
    folder, expected, seconds = whole
    generator = random.Random(seed)
    name = f"killed-{seed}"
    kills = 0
    history = folder / "runs" / name / "history.jsonl"
    while kills < 3:
        process = start(folder, name, resume=is_run(folder / "runs" / name))
        if generator.random() < 0.7:  # most of the time is spent before the first step: make sure that steps are hit
            wait_for_lines(process, history, generator.randint(1, len(expected["history"])))
            time.sleep(generator.uniform(0, 0.05))
        else:
            time.sleep(generator.uniform(0.5, seconds))
        process.send_signal(generator.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        if process.wait(SECONDS) == 0:
            break
        kills += 1
    if not is_run(folder / "runs" / name) or read_json(folder / "runs" / name / "run.json")["status"] != "done":
        finish(folder, name, resume=is_run(folder / "runs" / name))
    assert result(folder, name) == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], float]:
    """A run that nobody killed, and how long it took."""
    folder = tmp_path_factory.mktemp("killed")
    prepare(folder, epochs=4)
    began = time.monotonic()
    finish(folder, "whole", resume=False)
    return folder, result(folder, "whole"), time.monotonic() - began
