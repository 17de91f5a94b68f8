"""`rewardlab sample` killed at any moment, and in several processes: the bytes of one that nobody disturbed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from small_models import WORDS, config_of, word_tokenizer
from transformers import AutoModelForCausalLM

from rewardlab.sample.verb import Sampling, sample
from rewardlab.store.runs import Run

pytestmark = pytest.mark.slow

OPTIONS = {"n": 4, "temperature": 1.5, "max_new_tokens": 100, "shard_size": 8, "device": "cpu", "logprobs": True}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here as in the processes: products by another number of threads are rounded otherwise."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, str]:
    """A policy and sixty prompts."""
    folder = tmp_path / "policy"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config_of("llama"), dtype=torch.float32).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    rows = [{"prompt": " ".join(WORDS[n : n + 1 + n % 7])} for n in range(60)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder), str(tmp_path / "prompts.jsonl")


def sampled(model: str, data: str, root: str, name: str) -> int:
    config = Sampling.build({"model": model, "data": data, **OPTIONS})
    with Run.create(config, verb="sample", name=name, root=Path(root)) as run:
        return int(sample(config, run).summary["completions"])


def content(root: Path, name: str) -> bytes:
    return (root / name / "completions.jsonl").read_bytes()


def test_killed_at_random_moments_it_goes_on_where_it_was(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    monkeypatch.setenv("REWARDLAB_HOME", str(root))
    sampled(*words, str(root), "whole")
    model, data = words
    command = [
        sys.executable,
        "-m",
        "rewardlab.cli.main",
        "sample",
        "--model",
        model,
        "--data",
        data,
        "--run",
        "killed",
    ]
    for name, value in OPTIONS.items():
        command += [f"--{name.replace('_', '-')}", str(value).lower()]
    shards, generator, kept = root / "killed/shards/shards", random.Random(0), 0
    for kill in range(4):
        resume = ["--resume"] if (root / "killed/run.json").exists() else []
        with subprocess.Popen([*command, *resume], stderr=subprocess.PIPE) as process:
            # From when there is one shard more, so that it gets on; then at any moment.
            end = time.monotonic() + 120
            while process.poll() is None and len(list(shards.glob("0*.parquet"))) <= kept:
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(generator.random() * 0.3)
            process.kill()
            process.communicate()
        assert len(list(shards.glob("0*.parquet"))) > kept, kill
        kept = len(list(shards.glob("0*.parquet")))
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert content(root, "killed") == content(root, "whole")


def test_two_processes_make_the_bytes_of_one(words: tuple[str, str], tmp_path: Path) -> None:
    root: Any = tmp_path / "runs"
    assert sampled(*words, str(root), "alone") == 240
    assert run_ranks(sampled, 2, *words, str(root), "together") == [240, 240]
    assert content(root, "together") == content(root, "alone")
