"""The benchmark harness, on toy sizes: both sides do the same work and the page says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import alignment, ppo, report

ROOT = Path(__file__).resolve().parents[2]


def test_quick_run_writes_the_page_and_the_raw_numbers(shared, tmp_path):
    parts = ["--part", "reward", "--part", "score"]
    folders = ["--data", shared / "data" / "hh-rlhf", "--work", tmp_path / "work", "--output", tmp_path]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--repeats", "1", *parts, *folders]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert parts["reward"]["gradients"]["float32"]["largest_distance"] <= 1e-4
    assert parts["reward"]["gradients"]["bfloat16"]["cosine"] >= 0.999
    (one,) = parts["reward"]["rounds"]
    assert {result["pairs"] for result in one["results"].values()} == {16}
    assert all(error < 0.05 * parts["score"]["spread"] for error in parts["score"]["largest_error"].values())
    page = (tmp_path / "RESULTS.md").read_text()
    assert page == report.page({"parts": parts})
    assert "TRL 16x1 (default)" in page
    assert "pipeline 32 (default)" in page


def test_policies_are_trained_alike_on_both_sides(shared, tmp_path):
    parts = ["--part", "alignment", "--part", "candidates", "--setting", "TRL 1x16, precomputed"]
    folders = ["--data", shared / "data" / "hh-rlhf", "--work", tmp_path / "work", "--output", tmp_path]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--repeats", "1", *parts, *folders]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    theirs, ours = parts["alignment"]["agreement"]["TRL"], parts["alignment"]["agreement"]["rewardlab"]
    assert ours == pytest.approx(theirs, abs=1e-4)
    # Policy and reference are the same before the first step, and no longer after it.
    assert ours[0] == pytest.approx(2.7612, abs=1e-4)
    assert abs(ours[-1] - ours[0]) > 1e-3
    (one,) = parts["alignment"]["rounds"]
    assert list(one["results"]) == ["TRL 16x1", "TRL 1x16, precomputed", alignment.COLD, alignment.CACHED]
    assert {result["pairs"] for result in one["results"].values()} == {16}
    assert [one["candidates"] for one in parts["candidates"]["rounds"][0].values()] == [16, 32, 64]
    page = (tmp_path / "RESULTS.md").read_text()
    assert page == report.page({"parts": parts})
    assert "TRL 16x1 (default)" in page


@pytest.mark.skipif(not ppo.PEER.is_file(), reason="TRL 1.12 has an environment of its own: make .venv-ppo/.ready")
def test_ppo_makes_the_same_responses_on_both_sides(shared, tmp_path):
    settings = ["--part", "ppo", "--setting", "TRL 4x8"]
    folders = ["--data", shared / "data" / "hh-rlhf", "--work", tmp_path / "work", "--output", tmp_path]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--repeats", "1", *settings, *folders]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    part = json.loads((tmp_path / "results.json").read_text())["parts"]["ppo"]
    (one,) = part["rounds"]
    assert list(one["results"]) == ["TRL 8x4", "TRL 4x8", ppo.HEAD, ppo.CRITIC]
    for name, found in one["results"].items():
        assert (found["responses"], found["tokens"]) == (32, 32 * 53), name
        assert all(seconds > 0 for seconds in found["phases"].values()), name
        assert sum(found["phases"].values()) <= found["seconds"] * (1 + 1e-5), name
    assert part["peer"]["trl"].startswith("1.12.")
    page = (tmp_path / "RESULTS.md").read_text()
    assert page == report.page({"parts": {"ppo": part}})
    assert "TRL 8x4 (default)" in page


def test_effects_are_resampled_alike_on_both_sides(tmp_path):
    folders = ["--work", tmp_path / "work", "--output", tmp_path]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--repeats", "1", "--part", "effects", *folders]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    part = json.loads((tmp_path / "results.json").read_text())["parts"]["effects"]
    assert [one["prompts"] for one in part["large"]] == [4000, 1000]
    assert all(one["seconds"] > 0 and one["peak"] > 0 and one["intervals"] == 22 for one in part["large"])
    results = part["rounds"][0]["results"]
    low, high = results["rewardlab"]["ends"]
    for name, found in results.items():
        # Two sets of 2,000 draws: an end is known to about .05 of the standard error, the width is four of these.
        assert found["ends"] == pytest.approx([low, high], abs=0.06 * (high - low)), name
    assert "scipy, batch 50" in (tmp_path / "RESULTS.md").read_text()


def test_ratios_are_medians_of_rounds_and_shares_use_their_own_ceiling():
    def one(ours: float, slow: float, fast: float, ceiling: float) -> dict[str, object]:
        seconds = {"default": slow, "other": fast, "rewardlab": ours}
        results = {name: {"pairs": 12, "seconds": value} for name, value in seconds.items()}
        return {"tokens": 10**9, "ceilings": [ceiling, ceiling], "results": results}

    rounds = [one(1, 8, 2, 10), one(2, 8, 6, 5), one(1, 6, 4, 20)]
    found = report.summary({"rounds": rounds}, "pairs", operations=3)
    assert found["rates"] == {"default": 1.5, "other": 3.0, "rewardlab": 12.0}
    assert found["ratios"] == {"default": 6.0, "other": 3.0}
    assert (found["default"], found["best"]) == ("default", "other")
    assert found["ceiling"] == 10
    assert found["share"] == 0.3
