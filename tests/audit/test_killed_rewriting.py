"""`audit rewrite` and `audit run` killed in the middle: what was paid for, or computed, is there the next time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback import Loopback
from small_models import WORDS, config_of, word_tokenizer
from transformers import AutoModelForCausalLM

from rewardlab.cli.main import main
from rewardlab.llm.ledger import Ledger, Totals
from rewardlab.store.files import read_jsonl

pytestmark = pytest.mark.slow

SECONDS = 240


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    texts = [" ".join(WORDS[n % 90 : n % 90 + 3 + n % 6]) + f" {WORDS[n]}." for n in range(40)]
    rows = [{"prompt": f"Question {n}?", "completion": text} for n, text in enumerate(texts)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@contextmanager
def started(folder: Path, words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own; killed at the end, if it still runs."""
    with (folder / "said.txt").open("wb") as said:
        command = [sys.executable, "-m", "rewardlab.cli.main", *words]
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait(SECONDS)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert process.poll() is None, (folder / "said.txt").read_text()
        assert time.monotonic() < end
        time.sleep(0.05)


def totals(folder: Path) -> Totals:
    path = folder / "runs/ledger/ledger.sqlite"
    if not path.exists():
        return Totals()
    with Ledger(path) as ledger:
        return ledger.totals()


def chains(folder: Path, run: str) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "runs" / run / "rewrites.jsonl"))


def test_a_batch_that_a_killed_run_left_under_way_is_neither_lost_nor_paid_again(
    here: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    # So many looks that the batch is under way as long as the test wants.
    server.plan(polls=10**9)
    words = ["audit", "rewrite", "--attribute", "words", "--data", "data.jsonl", "--batch", "--poll", "0.05", "--yes"]
    words += ["--endpoint", server.url, "--endpoint.model", "some-model", "--run", "killed"]
    with started(here, words) as process:
        wait_until(lambda: server.seen()["polls"].get("batch_0", 0) >= 3, process, here)
        process.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == -signal.SIGKILL
    assert totals(here) == Totals(sent=40)
    assert not (here / "runs/killed/rewrites.jsonl").exists()

    server.plan(polls=2)
    assert main([*words, "--resume"]) == 0
    seen = server.seen()
    # The first pass is the batch that was under way, the second one another.
    assert seen["creates"] == 2
    assert sorted(seen["answered"].values()) == [1] * 80
    found = totals(here)
    assert (found.answered, found.sent, found.failed) == (80, 0, 0)
    assert all(chain["meta"]["outcomes"] == ["ok", "ok"] for chain in chains(here, "killed"))
    for chain in chains(here, "killed"):
        original, rewrite, again = chain["completions"]
        assert rewrite.startswith(f"re: {original}")
        assert again.startswith(f"re: {rewrite}")

    # A run of its own has all of it from the ledger, and nobody is asked.
    assert main(["again" if word == "killed" else word for word in words if word != "--yes"]) == 0
    assert server.seen()["creates"] == 2
    assert chains(here, "again") == chains(here, "killed")


def test_what_a_killed_local_rewriter_has_answered_is_not_computed_again(here: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config_of("llama"), dtype=torch.float32).save_pretrained(here / "model")
    word_tokenizer().save_pretrained(here / "model")
    words = ["audit", "rewrite", "--attribute", "words", "--data", "data.jsonl", "--rewriter", "model"]
    words += ["--rewriter.temperature", "2", "--rewriter.max_tokens", "60", "--rewriter.token_budget", "256"]
    with started(here, [*words, "--run", "killed"]) as process:
        wait_until(lambda: totals(here).answered >= 6, process, here)
        process.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == -signal.SIGKILL
    with Ledger(here / "runs/ledger/ledger.sqlite") as ledger:
        kept = ledger._all("SELECT key, text, changed FROM requests WHERE state = 'answered'")
    assert main([*words, "--run", "killed", "--resume"]) == 0
    with Ledger(here / "runs/ledger/ledger.sqlite") as ledger:
        now = ledger._all("SELECT key, text, changed FROM requests WHERE state = 'answered'")
    made = sum(len(chain["meta"]["outcomes"]) for chain in chains(here, "killed"))
    assert 6 <= len(kept) < made == len(now)
    # The moment of an answer stays: none was written twice.
    assert set(kept) <= set(now)
    (here / "runs/ledger").rename(here / "set-aside")
    assert main([*words, "--run", "whole"]) == 0
    assert chains(here, "whole") == chains(here, "killed")
