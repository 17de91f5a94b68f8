"""The live rewriter and the ledger against a server that nobody here wrote: `transformers serve` with a real model.

The model tells stories and rewrites nothing. What counts is that every request, answer and outcome is recorded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardlab.cli.main import main
from rewardlab.llm.ledger import Ledger
from rewardlab.store.files import read_json, read_jsonl

pytestmark = pytest.mark.slow

SECONDS = 240
TEXTS = 12
# What `transformers[serving]` brings.
MISSING = [name for name in ("fastapi", "openai", "uvicorn") if importlib.util.find_spec(name) is None]


class Served:
    """A server under way: its URL, its model as it calls it, and what it has logged."""

    def __init__(self, url: str, model: str, log: Path) -> None:
        self.url, self.model, self._log = url, model, log

    def asked(self) -> int:
        """Requests for chat completions so far, by its access log."""
        return self._log.read_text(errors="replace").count("POST /v1/chat/completions")


@pytest.fixture
def served(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}: pip install 'transformers[serving]'")
    model = shared / "models/stories260k"
    if not model.is_dir():
        pytest.skip("needs models/stories260k in the shared folder")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    log = tmp_path / "server.log"
    # The port is the kernel's choice; the server says which.
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--host", "127.0.0.1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--port", "0", "--device", "cpu"], stdout=said, stderr=said, env=environment
        )
    try:
        end = time.monotonic() + SECONDS
        while (
            found := re.search(r"running on (http://127\.0\.0\.1:[1-9]\d*)", log.read_text(errors="replace"))
        ) is None:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.2)
        yield Served(f"{found[1]}/v1", str(model), log)
    finally:
        process.kill()
        process.wait(SECONDS)


def test_every_request_is_in_the_ledger_every_chain_has_an_outcome_and_nothing_is_paid_twice(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    stories = ["Lily had a red ball", "Tom saw a big dog in the park. They ran and played all day", "Mia was sad"]
    rows = [{"prompt": f"Tell story {n}.", "completion": f"{stories[n % 3]} {n} times."} for n in range(TEXTS)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["audit", "rewrite", "--attribute", "words", "--data", "data.jsonl", "--endpoint", served.url]
    # The model never ends a story: its answers are cut after a sentence, or after so many tokens.
    words += ["--endpoint.model", served.model, "--endpoint.max_tokens", "24"]
    words += ["--endpoint.parameters", '{"stop": ["."]}']
    assert main([*words, "--endpoint.concurrency", "4", "--yes", "--run", "first"]) == 0

    chains = list(read_jsonl(tmp_path / "runs/first/rewrites.jsonl"))
    outcomes = [outcome for chain in chains for outcome in chain["meta"]["outcomes"]]
    assert len(chains) == TEXTS
    assert all(chain["meta"]["outcomes"] for chain in chains)
    assert set(outcomes) <= {"ok", "identical", "chatter", "truncated", "empty"}
    # Both ends are met: sentences that end, which are asked for again, and sentences that are cut off.
    assert {"ok", "truncated"} <= set(outcomes)
    # Stories grow alike: what is asked twice, the same text to the same side, is one request.
    asked = {
        (text, chain["meta"]["treated"] == (step % 2 == 1))
        for chain in chains
        for step, (text, _) in enumerate(zip(chain["completions"], chain["meta"]["outcomes"], strict=False))
    }
    with Ledger(tmp_path / "runs/ledger/ledger.sqlite") as ledger:
        paid = ledger.totals()
    assert TEXTS < len(asked) <= len(outcomes)
    assert (paid.answered, paid.failed, paid.sent) == (len(asked), 0, 0)
    assert served.asked() == len(asked)
    assert 0 < paid.completion_tokens <= 24 * len(asked)
    assert sum(read_json(tmp_path / "runs/first/audit.json")["counts"]["outcomes"].values()) == len(outcomes)

    # Nothing is left to pay, so nobody is asked: neither the user nor the server.
    assert main([*words, "--run", "second"]) == 0
    assert served.asked() == len(asked)
    assert list(read_jsonl(tmp_path / "runs/second/rewrites.jsonl")) == chains
