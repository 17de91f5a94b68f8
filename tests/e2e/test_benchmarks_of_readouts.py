"""The benchmarks that need no peers: readouts beside the linear head, training from cached states, sampling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report

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
    }
    page = report.page({"parts": {"alignment": part}})
    assert "**10.0x the peer's default from an empty cache, 2.0x its best setting" in page
    assert "in seconds of processors 8.0x and 3.0x.**" in page
    assert "| TRL 2x8, precomputed | 1.067 | 0.38 | 2.5x | 2.0x | 1,234 |" in page
    assert "at most 2.0e-05 apart" in page


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
def test_a_toy_run_of_sampling(shared: Path, tmp_path: Path) -> None:
    part = run("benchmarks", tmp_path, shared, "--part", "sampling")["sampling"]
    (one,) = part["rounds"]
    assert set(one) == {f"{side} {rows}" for side in ("generate", "rewardlab") for rows in (16, 32, 64)}
    assert all(tokens_per_second > 0 for tokens_per_second in one.values())
