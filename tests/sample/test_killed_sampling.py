"""`rewardlab sample` killed at any moment, and in several processes: the bytes of one that nobody disturbed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import is_run, killed_at_random_moments, run_ranks
from small_models import WORDS, config_of, word_tokenizer
from transformers import AutoModelForCausalLM

from rewardlab.sample.verb import Sampling, sample
from rewardlab.store.files import read_json
from rewardlab.store.record import RunRecord
from rewardlab.store.runs import Run

pytestmark = pytest.mark.slow

OPTIONS = {"n": 4, "temperature": 1.5, "max_new_tokens": 24, "shard_size": 8, "device": "cpu", "logprobs": True}


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
    """A policy and prompts."""
    folder = tmp_path / "policy"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config_of("llama"), dtype=torch.float32).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    rows = [{"prompt": " ".join(WORDS[n : n + 1 + n % 7])} for n in range(24)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder), str(tmp_path / "prompts.jsonl")


def sampled(model: str, data: str, root: str, name: str) -> int:
    config = Sampling.build({"model": model, "data": data, **OPTIONS})
    folder = Path(root) / name
    resume = is_run(folder)
    if resume and RunRecord.read(folder).status == "done":  # killed between its end and that of its process
        return int(read_json(folder / "summary.json")["completions"])
    with Run.create(config, verb="sample", name=name, root=Path(root), resume=resume) as run:
        return int(sample(config, run).summary["completions"])


def content(root: Path, name: str) -> bytes:
    return (root / name / "completions.jsonl").read_bytes()


@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_goes_on_where_it_was(words: tuple[str, str], tmp_path: Path) -> None:
    """kill -9, twenty times, while it loads, draws, writes shards and puts them together."""
    root = tmp_path / "runs"

    def check(name: str) -> None:
        assert content(root, name) == content(root, "whole")

    killed_at_random_moments(sampled, lambda name: (*words, str(root), name), check)


def test_two_processes_make_the_bytes_of_one(words: tuple[str, str], tmp_path: Path) -> None:
    root: Any = tmp_path / "runs"
    assert sampled(*words, str(root), "alone") == 96
    assert run_ranks(sampled, 2, *words, str(root), "together") == [96, 96]
    assert content(root, "together") == content(root, "alone")
