"""The benchmarks that need no peers, and our side of PPO: readouts, training from cached states, sampling; the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ppo, report, results, setting

ROOT = Path(__file__).resolve().parents[2]
MADE = {"command": "python -m benchmarks", "date": "2026-01-01", "machine": "one", "versions": {"torch": "2"}}


def test_ratios_are_taken_within_a_round() -> None:
    """The machine is ten times slower in the second round: 1.5, 1.2 and 1.1 times the linear head all the same."""
    rounds = [{"last": 1.0, "mean": 1.5}, {"last": 10.0, "mean": 12.0}, {"last": 2.0, "mean": 2.2}]
    part = {
        "pairs": 4,
        "note": "somewhere",
        "made": MADE,
        "backbones": {"causal": {"linear": "last", "rounds": rounds}},
    }
    page = report.page({"parts": {"readouts": part}})
    assert "| causal | last | 2.00 | 1 (the linear head) |  |" in page
    assert "| causal | mean | 2.20 | 1.20 | 1.10-1.50 |" in page
    assert "Measured somewhere." in page


def test_alignment_is_compared_like_with_like() -> None:
    """From an empty cache with TRL's default, with a cached reference with TRL's precomputed one."""
    seconds = {
        "TRL 16x1": (80.0, 40.0),
        "TRL 1x16, precomputed": (12.0, 9.0),
        "TRL 2x8, precomputed": (15.0, 6.0),
        "rewardlab": (8.0, 5.0),
        "rewardlab, cached": (6.0, 3.0),
    }
    results = {name: {"pairs": 16, "seconds": one, "work": work, "peak": 1234} for name, (one, work) in seconds.items()}
    part = {
        "note": "",
        "made": MADE,
        "rounds": [{"results": results}],
        "agreement": {"TRL": [2.0, 1.5], "rewardlab": [2.0, 1.50002]},
        "precision": "float32",
        "parameters": 20,
        "output_layer": 10,
        "tokens": {"padded": 3000, "shared": 2000, "logits": 500},
    }
    page = report.page({"parts": {"alignment": part}})
    assert "**10.0x the peer's default from an empty cache, 2.0x its best setting" in page
    assert "in seconds of processors 8.0x and 3.0x.**" in page
    assert "| TRL 2x8, precomputed | 1.067 | 0.38 | 2.5x | 2.0x | 1,234 |" in page
    assert "at most 2.0e-05 apart" in page
    # (20 + 10) * 3,000 against 20 * 2,000 + 10 * 500.
    assert "reads 3,000 tokens and has logits at all of them; with shared prompts ours has 2,000, of which 500" in page
    assert "2.0 times our operations" in page
    assert "Rounds: 1, of 16 pairs each; products in float32." in page


def test_sampling_is_compared_at_as_many_rows_and_best_against_best() -> None:
    rounds = [
        {"generate 16": 10.0, "rewardlab 16": 30.0, "generate 32": 20.0, "rewardlab 32": 50.0},
        {"generate 16": 1.0, "rewardlab 16": 2.0, "generate 32": 2.0, "rewardlab 32": 4.0},
        {"generate 16": 12.0, "rewardlab 16": 30.0, "generate 32": 16.0, "rewardlab 32": 40.0},
    ]
    part = {"prompts": 8, "longest": 256, "answers": 8, "rows": [16, 32], "rounds": rounds, "note": "", "made": MADE}
    page = report.page({"parts": {"sampling": part}})
    # Medians: 10 and 30, 16 and 40; ratios by round 3, 2, 2.5 and 2.5, 2, 2.5.
    assert "**2.50x plain batched generate" in page
    assert "| generate 16 | 10.0 | 1.0-12.0 | 2.50x |" in page
    assert "| rewardlab 32 | 40.0 | 4.0-50.0 |  |" in page


def test_the_page_is_made_of_the_numbers_that_are_kept(tmp_path: Path) -> None:
    """2,805.549 has six digits in the file, 2,805.55, which the page shows as 2,805.6 and not 2,805.5."""
    rounds = [{"generate 16": 2805.549, "rewardlab 16": 3000.0}]
    part = {"prompts": 8, "longest": 256, "answers": 8, "rows": [16], "rounds": rounds, "note": "", "made": MADE}
    results.write(tmp_path, "sampling", part)
    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == report.page(kept)
    assert "| generate 16 | 2805.6 |" in report.page(kept)


def part_of_ppo() -> dict[str, Any]:
    """A round of two batches of two responses, three tokens each; ceilings of 2,000 and 1,000 operations a second."""
    seconds = {
        "TRL 8x4": (80.0, 100.0),
        "TRL 2x16": (40.0, 60.0),
        "rewardlab": (20.0, 15.0),
        "rewardlab, critic of its own": (25.0, 30.0),
    }
    phases = {"sampling": 2.0, "scoring": 1.0, "measuring": 3.0, "reference": 1.0, "update": 8.0}
    results = {
        name: {"seconds": one, "work": work, "responses": 4, "tokens": 12, "peak": 1234, "phases": phases}
        for name, (one, work) in seconds.items()
    }
    ceilings = [
        {"forward": 1e-6, "training": 0.5e-6, "decoding": 1e-6},
        {"forward": 3e-6, "training": 1.5e-6, "decoding": 1e-6},
    ]
    return {
        "note": "",
        "made": MADE,
        "default": "TRL 8x4",
        "precision": "float32",
        "peer": {"trl": "1.12.0"},
        "parameters": 1000,
        "output_layer": 100,
        "responses": 2,
        "longest": 3,
        "inner_epochs": 4,
        "rounds": [{"results": results, "ceilings": ceilings, "prompt_tokens": 40}],
    }


def test_the_floor_of_ppo_is_operations_over_the_ceiling() -> None:
    """By hand: 52 tokens are read, 12 of them predicted, 4 with the prompts and 8 one after another."""
    part = part_of_ppo()
    (one,) = part["rounds"]
    read, predicted = 52 * 1000, 12 * 100
    sampling = 2 * (40 * 1000 + 4 * 100) / 2000 + 2 * 8 * 1100 / 1000
    assert report.ppo_floor(part, one, has_critic=False) == pytest.approx(
        {
            "sampling": sampling / 2,
            "scoring": 2 * read / 2000 / 2,
            "measuring": 2 * (read + predicted) / 2000 / 2,
            "reference": 2 * (read + predicted) / 2000 / 2,
            "update": 4 * 6 * (read + predicted) / 1000 / 2,
        }
    )
    both = report.ppo_floor(part, one, has_critic=True)
    assert both["measuring"] == pytest.approx(2 * (2 * read + predicted) / 2000 / 2)
    assert both["update"] == pytest.approx(4 * 6 * (2 * read + predicted) / 1000 / 2)
    assert both["reference"] == pytest.approx(2 * (read + predicted) / 2000 / 2)


def test_ppo_is_compared_with_and_without_a_critic_of_its_own() -> None:
    page = report.page({"parts": {"ppo": part_of_ppo()}})
    assert "**4.0x the peer's default, 2.0x its best setting; with a critic of its own" in page
    assert "as the peer has one, 3.2x and 1.6x.**" in page
    assert "| TRL 8x4 (default) | 0.050 | 0.050-0.050 | 25.00 | 4.0x | 3.2x | 1,234 |" in page
    assert "| TRL 2x16 (best) | 0.100 | 0.100-0.100 | 15.00 | 2.0x | 1.6x | 1,234 |" in page
    assert "| update | 4.00 | 4.00 | 4.00 | 638.40 | 4.00 | 1262.40 |" in page
    assert "| all | 40.00 | 20.00 | 10.00 | 746.60 | 12.50 | 1396.60 |" in page
    assert "prompts of 10 tokens on average. Products in float32." in page


def test_the_page_has_what_was_measured() -> None:
    """The page that is committed is that of the numbers beside it, with all readouts on all backbones."""
    parts: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == report.page(parts)
    assert list(parts["parts"]["readouts"]["backbones"]) == ["causal", "encoder", "encoder-decoder"]
    assert parts["parts"]["features"]["rounds"]


def run(module: str, folder: Path, shared: Path, *words: str) -> dict[str, Any]:
    """A toy run of a benchmark: its raw numbers."""
    folders = ["--data", shared / "data" / "hh-rlhf", "--work", folder / "work", "--output", folder / "out"]
    command = [sys.executable, "-m", module, "--quick", "--repeats", "1", *words, *folders]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    parts: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))["parts"]
    assert (folder / "out" / "RESULTS.md").read_text(encoding="utf-8") == report.page({"parts": parts})
    return parts


@pytest.mark.slow
def test_a_toy_run_of_both(shared: Path, tmp_path: Path) -> None:
    part = run("benchmarks.readouts", tmp_path, shared, "--pairs", "2")["readouts"]
    tokens = {"mean", "layerwise-attention", "full-attention", "pooled-encoder"}
    assert {kind: set(found["rounds"][0]) for kind, found in part["backbones"].items()} == {
        "causal": {"last", *tokens},
        "encoder": {"last", *tokens},
        "encoder-decoder": {"decoder-output", "pooled-decoder", *tokens},
    }
    assert all(seconds > 0 for found in part["backbones"].values() for seconds in found["rounds"][0].values())
    (one,) = run("benchmarks.features", tmp_path, shared, "--pairs", "64", "--precision", "float32")["features"][
        "rounds"
    ]
    assert one["difference"] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [ppo.HEAD, ppo.CRITIC])
def test_a_toy_run_of_our_side_of_ppo(shared: Path, tmp_path: Path, name: str) -> None:
    """All responses are as long as they may be, and what time went on is less than all of it."""
    setting.prepare(shared / "data" / "hh-rlhf", tmp_path, setting.QUICK)
    setting.prepare_policy(tmp_path)
    prompts = [one["text"] for one in ppo.prompts_of(tmp_path, ppo.RESPONSES)]
    found = ppo.ours(tmp_path, prompts, "float32", name == ppo.CRITIC)
    assert (found["responses"], found["tokens"]) == (ppo.RESPONSES, ppo.RESPONSES * ppo.LONGEST)
    assert set(found["phases"]) == set(report.PHASES)
    assert all(seconds > 0 for seconds in found["phases"].values())
    assert sum(found["phases"].values()) <= found["seconds"]


@pytest.mark.slow
def test_a_toy_run_of_sampling(shared: Path, tmp_path: Path) -> None:
    part = run("benchmarks", tmp_path, shared, "--part", "sampling")["sampling"]
    (one,) = part["rounds"]
    assert set(one) == {f"{side} {rows}" for side in ("generate", "rewardlab") for rows in (16, 32, 64)}
    assert all(tokens_per_second > 0 for tokens_per_second in one.values())
