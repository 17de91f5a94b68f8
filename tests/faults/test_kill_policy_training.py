"""kill -9 at random moments of `rewardlab train exo`, its reference included: resumed until done, the same bytes."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import Command
from ranks import is_run
from test_kill_training import SECONDS, WORDS, wait_for_lines

from rewardlab.models.tiny import train_tokenizer
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.keys import path_digest


def prepare(folder: Path) -> None:
    generator = random.Random(0)
    train_tokenizer([" ".join(WORDS)] * 3, vocab_size=320).save_pretrained(folder / "tokenizer")
    rows = []
    for number in range(64):
        prompt, *texts = (" ".join(generator.choices(WORDS, k=generator.randint(4, 12))) for _ in range(5))
        rewards = [generator.random() for _ in texts]
        rows.append({"prompt": f"{prompt} {number}: ", "completions": texts, "rewards": rewards})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {
        "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 320, "n_positions": 128,
    }  # fmt: skip
    config: dict[str, Any] = {
        "model": {"shape": shape, "tokenizer": str(folder / "tokenizer")},
        "train": [{"path": str(folder / "train.jsonl")}],
        "validation_share": 0.2,
        "encoding": {"max_prompt_tokens": 64, "max_completion_tokens": 32},
        "objective": "exo-rw",
        "candidates": 2,
        "choice": "drawn",
        "batch_size": 4,
        "epochs": 4,
        "evaluations_per_epoch": 4,
        "checkpoints_per_epoch": 5,
        "learning_rate": 1e-3,
        "device": "cpu",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def start(folder: Path, name: str) -> Command:
    """The command line in a process of its own; every run has a home of its own, so that none finds references."""
    home = folder / name
    words = ["train", "exo", "--run", "run"]
    words += ["--resume"] if is_run(home / "run") else ["--config", str(folder / "config.yaml")]
    return Command(words, folder / f"{name}.err", {"REWARDLAB_HOME": str(home), "REWARDLAB_ALLOW_UNTRACKED": "1"})


def result(folder: Path, name: str) -> dict[str, Any]:
    """Everything that must not depend on kills."""
    run = folder / name / "run"
    lines = read_jsonl(run / "history.jsonl")
    return {
        "history": [{key: value for key, value in line.items() if key != "pairs_per_second"} for line in lines],
        "model": path_digest(run / "model"),
        "policies": path_digest(run / "policies"),
        "files": sorted(
            path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path.suffix != ".diff"
        ),
        "status": read_json(run / "run.json")["status"],
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], float]:
    """A run that nobody killed, and how long it took."""
    folder = tmp_path_factory.mktemp("killed")
    prepare(folder)
    began = time.monotonic()
    assert start(folder, "whole").wait(SECONDS) == 0, (folder / "whole.err").read_text()[-4000:]
    return folder, result(folder, "whole"), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_moments(whole: tuple[Path, dict[str, Any], float], seed: int) -> None:
    folder, expected, seconds = whole
    assert len(expected["history"]) > 40
    generator = random.Random(seed)
    name = f"killed-{seed}"
    history = folder / name / "run" / "history.jsonl"
    for _ in range(3):
        process = start(folder, name)
        if generator.random() < 0.7:  # most of the time is spent before the first step: make sure that steps are hit
            wait_for_lines(process, history, generator.randint(1, len(expected["history"])))
            time.sleep(generator.uniform(0, 0.05))
        else:
            time.sleep(generator.uniform(0.5, seconds))
        process.send_signal(generator.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        if process.wait(SECONDS) == 0:
            break
    record = folder / name / "run" / "run.json"
    if not record.exists() or read_json(record)["status"] != "done":
        assert start(folder, name).wait(SECONDS) == 0, (folder / f"{name}.err").read_text()[-4000:]
    assert result(folder, name) == expected
