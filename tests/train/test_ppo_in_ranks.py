"""PPO in several processes gives what one gives: history, weights, samples; stops, errors and resumes are agreed on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_toys import train
from ranks import run_ranks
from safetensors.torch import load_file
from toys import on_call, pairs

from rewardlab.errors import RewardlabError
from rewardlab.records import Candidates
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.processes import processes
from rewardlab.train.checkpoints import newest_complete, step_of
from rewardlab.train.ppo_learner import Learner

TIMES = ("completions_per_second", "seconds.")
RULE = """
def letter(completions, **_):
    return [float(text.count("a")) for text in completions]
"""
SETTINGS: dict[str, Any] = {
    "steps": 4,
    "batch_size": 7,  # an odd number: shares differ
    "max_new_tokens": 5,
    "inner_epochs": 2,
    "mini_batches": 2,
    "learning_rate": 3e-3,
    "evaluate_every": 2,
    "save_every": 2,
    "samples_every": 2,
    "checkpoints": 1,
    "token_budget": 256,
    "layout": "flat",
}


def ppo(tokenizer: str, folder: Path, *, resume: bool = False, **more: Any) -> None:
    rule, held_out = folder.parent / "rule.py", folder.parent / "held_out.jsonl"
    records = [Candidates(pair.prompt, ()) for pair in pairs(12)]
    if processes().is_first:
        folder.parent.mkdir(parents=True, exist_ok=True)
        rule.write_text(RULE, encoding="utf-8")
        # One prompt: of two processes one has none.
        held_out.write_text('{"prompt": "quiet metal: "}\n', encoding="utf-8")
    processes().wait()
    settings = SETTINGS | {"validation": [str(held_out)], "rewards": {"letter": f"python:{rule}:letter"}} | more
    train("train ppo", Path(tokenizer), folder, records, resume=resume, **settings)


def outcome(run: Path) -> dict[str, Any]:
    lines = [
        {name: value for name, value in line.items() if not name.startswith(TIMES)}
        for line in read_jsonl(run / "history.jsonl")
    ]
    return {
        "lines": lines,
        "samples": list(read_jsonl(run / "samples.jsonl")),
        "weights": {name: weight.numpy() for name, weight in load_file(run / "model" / "model.safetensors").items()},
        "counts": read_json(run / "summary.json")["counts"],
    }


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for line, other in zip(found["lines"], expected["lines"], strict=True):
        assert line.keys() == other.keys()
        # What a single response has no standard error of is null in both.
        known = [key for key, value in other.items() if key != "split" and value is not None]
        assert [line[key] for key in known] == pytest.approx([other[key] for key in known], rel=1e-3, abs=1e-4)
        assert all(line[key] == other[key] for key in line.keys() - set(known))
    texts = [[(line["step"], line["response"]) for line in one["samples"]] for one in (found, expected)]
    assert texts[0] == texts[1]
    assert found["counts"] == expected["counts"]
    for name, weight in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], weight, rtol=0, atol=1e-4, err_msg=name)


def stopped(tokenizer: str, folder: Path) -> int:
    """A signal that the last process gets in its second step; the step that is saved."""
    plain = Learner.learn
    if processes().rank == processes().count - 1:
        Learner.learn = on_call(plain, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))  # type: ignore[method-assign]
    try:
        ppo(tokenizer, folder)
        return -1
    except KeyboardInterrupt:
        checkpoint = newest_complete(folder / "checkpoints")
        return -2 if checkpoint is None else step_of(checkpoint)
    finally:
        Learner.learn = plain  # type: ignore[method-assign]


def without_reward(tokenizer: str, folder: Path) -> str:
    """A term that one process has no number for: both end, and the state before it is there."""
    rule = folder.parent / "broken.py"
    if processes().is_first:
        folder.parent.mkdir(parents=True, exist_ok=True)
        rule.write_text(
            "import os\n\ndef broken(completions, **_):\n"
            "    return [float('nan') if os.environ['RANK'] == '0' else 1.0 for _ in completions]\n"
        )
    try:
        ppo(tokenizer, folder, rewards={"broken": f"python:{rule}:broken"})
    except RewardlabError as error:
        return str(error)
    return ""


def events(tokenizer: str, folder: str) -> dict[str, Any]:
    """All that is asked of two processes, in one launch."""
    root = Path(folder)
    ppo(tokenizer, root / "both" / "run")
    return {
        "stopped": stopped(tokenizer, root / "stopped" / "run"),
        "error": without_reward(tokenizer, root / "broken" / "run"),
        "rank": processes().rank,
    }


def test_two_processes_train_as_one(tokenizer: Path, tmp_path: Path) -> None:
    ppo(str(tokenizer), tmp_path / "alone" / "run")
    expected = outcome(tmp_path / "alone" / "run")
    first, second = run_ranks(events, 2, str(tokenizer), str(tmp_path))
    assert_close(outcome(tmp_path / "both" / "run"), expected)
    # What is compared has moved.
    assert abs(expected["lines"][-2]["kl"]) > 1e-3
    # Both stop after the same step, and one process goes on where two had stopped.
    assert first["stopped"] == second["stopped"] == 2
    ppo(str(tokenizer), tmp_path / "stopped" / "run", resume=True)
    assert_close(outcome(tmp_path / "stopped" / "run"), expected)
    # The first process says why, the other that it does.
    assert "letter" not in first["error"]
    assert "rewards.broken" in first["error"]
    assert "it says why" in second["error"]
