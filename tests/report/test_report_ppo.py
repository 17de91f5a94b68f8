"""The section on trainings by PPO: which curves, which numbers, which responses."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from rewardlab.report.blocks import Figure, section_html
from rewardlab.report.html import Html
from rewardlab.report.inputs import read_inputs
from rewardlab.report.page import page_sections
from rewardlab.report.ppo import MOST_STEPS, is_ppo, ppo_findings, ppo_section
from tests.report import finished
from tests.report.test_report_html import read


def text(*folders: Path) -> str:
    return read(str(section_html(ppo_section(read_inputs(train=folders).train)))).text


def figures(*folders: Path) -> dict[str, Figure]:
    return {one.name: one for one in ppo_section(read_inputs(train=folders).train).figures}


def test_there_is_a_curve_for_every_measure_that_was_logged(tmp_path: Path) -> None:
    found = figures(finished.write_ppo(tmp_path / "run"))
    measures = ("kl", "length", "entropy", "clip-share", "explained-variance", "unfinished", "beta")
    assert list(found) == ["ppo-score", "ppo-term-1", "ppo-term-2", *(f"ppo-{name}" for name in measures)]
    # 80 steps are drawn in means of two; the two last ones have 39.5 and 40.
    assert "train 39.8 (mean of the last 2 logged steps), validation 39.0" in found["ppo-score"].finding
    assert found["ppo-kl"].spec["data"]["values"][-1] == {"step": 80, "value": 7.95, "split": "train", "fold": "run"}
    # Held-out prompts say of how many they are: 10 % of 50.
    assert re.search(r"validation 10\.0 \(1\.\d to 18\.\d\)", found["ppo-unfinished"].finding)
    # A single term is the reward itself; without a critic there is nothing to explain.
    folder = finished.write_ppo(tmp_path / "plain")
    lines = (folder / "history.jsonl").read_text().replace('"term.dull": -0.5, ', "")
    (folder / "history.jsonl").write_text(lines.replace('"explained_variance": 0.4', '"explained_variance": null'))
    assert {"ppo-score", "ppo-kl"} < figures(folder).keys()
    assert not {"ppo-term-1", "ppo-explained-variance"} & figures(folder).keys()
    # A beta that stays where it was is no curve.
    lines = re.sub(r'"beta": [0-9.]+', '"beta": 0.05', lines)
    (folder / "history.jsonl").write_text(lines)
    assert "ppo-beta" not in figures(folder)
    assert "Each line is one run." in figures(folder, finished.write_ppo(tmp_path / "run"))["ppo-kl"].reading


def test_numbers_of_the_beginning_and_the_end_stand_in_a_row(tmp_path: Path) -> None:
    found = text(finished.write_ppo(tmp_path / "run"))
    for words in (
        "2.25 \N{RIGHTWARDS ARROW} 38.25",
        "0.45 \N{RIGHTWARDS ARROW} 7.65",
        "39.00, step 80",
        "2,560",
        "512",
    ):
        assert words in found, words
    folder = finished.write_ppo(tmp_path / "chosen")
    summary = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(summary.replace('"best": {', '"best_by": "gold", "best": {'))
    assert "39.00 by gold, step 80" in text(folder)
    # A run that was killed has no summary.
    folder = finished.write_ppo(tmp_path / "killed")
    (folder / "summary.json").unlink()
    assert "2,560" not in text(folder)


def test_a_page_says_how_far_a_training_has_come(tmp_path: Path) -> None:
    folder = finished.write_ppo(tmp_path / "run")
    (stage,) = read_inputs(train=[folder]).train
    course, left_out = ppo_findings(stage)
    assert course == (
        "The mean reward was 2.25 in the first tenth of the steps and 38.25 in the last, 7.65 nats from the policy "
        "that it began as; a response had 31.00 tokens at first and 31.00 at last."
    )
    assert left_out == "1 steps were left out, as none of their responses ended."
    # Nothing was learned, and nothing was written: it is a training by PPO all the same.
    (folder / "summary.json").unlink()
    (folder / "history.jsonl").write_text(
        '{"step": 1, "epoch": 0.1, "split": "train", "unfinished": 1.0, "skipped": 1}\n'
    )
    (stage,) = read_inputs(train=[folder]).train
    assert is_ppo(stage)
    assert ppo_findings(stage) == []


def test_responses_are_folded_and_those_of_many_steps_spaced_out(tmp_path: Path) -> None:
    folder = finished.write_ppo(tmp_path / "run", steps=400, every=10)
    blocks = [str(block) for block in ppo_section(read_inputs(train=[folder]).train).blocks if isinstance(block, Html)]
    steps = [int(one) for block in blocks for one in re.findall(r"^<details><summary>Step (\d+):", block)]
    assert len(steps) == MOST_STEPS
    assert (steps[0], steps[-1]) == (1, 400)
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) - min(gaps) <= 10
    found = text(folder)
    assert f"Those of {MOST_STEPS} of 41 recorded steps are here" in found
    assert found.count("(empty)") == found.count("22, cut off") == MOST_STEPS
    assert "recorded steps are here" not in text(finished.write_ppo(tmp_path / "few", steps=40, every=10))


def test_a_reward_model_and_a_policy_have_sections_of_their_own(tmp_path: Path) -> None:
    paths = finished.write_all(tmp_path, pairs=8, folds=1)["train"]
    names = [one.name for one in page_sections(read_inputs(train=paths), max_examples=10, seed=0)]
    assert names == ["findings", "runs", "training", "ppo"]
    names = [one.name for one in page_sections(read_inputs(train=paths[1:]), max_examples=10, seed=0)]
    assert names == ["findings", "runs", "ppo"]
