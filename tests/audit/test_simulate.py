"""`audit simulate`: its table against hand values, what it refuses, and scorers of text against the gold reward."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from rewardlab.audit.simulate import Simulation, simulate
from rewardlab.audit.simulated import Sample, Setting, causes_of, findings, rows_of
from rewardlab.cli.main import main
from rewardlab.data.world import do, respond
from rewardlab.errors import ConfigError, DataError
from rewardlab.functional.effects import Rewards
from tests.audit.test_laws_on_the_world import simulated
from tests.report.audited import Here

SETTING = Setting("cumulation", 0.4, 0.5)
TREATED = np.array([True, True, False, False])


def made(original: list[int], s: list[int], d: list[int], t: list[int], *, truth: float, more: list[float]) -> Sample:
    columns = (np.array(column, dtype=np.float64) for column in (original, s, d, t))
    # One text's effect differs, so that ATT and ATU do.
    exact = np.full(4, truth) + np.array([1.0, 0.0, 0.0, 0.0])
    return Sample(Rewards(TREATED, *columns), exact, np.array(more))


# Within W the originals differ from their mean by 1: their standard deviation is sqrt(4 / 2).
FIRST = made([5, 3, 1, -1], [2, 2, 3, 3], [4, 5, 0, 1], [3, 1, 3, 4], truth=1.75, more=[1.0, 3.0, 2.0, 2.4])
SECOND = made([6, 4, 1, -1], [3, 3, 2, 2], [4, 4, 1, 2], [3, 3, 2, 2], truth=1.25, more=[1.0, 1.0, 1.0, 1.4])
UNIT = sqrt(2)


def test_rows_are_as_by_hand() -> None:
    """Signed differences: single [3, 1, 2, 4], [3, 1, 1, 3]; double [2, 3, 3, 2], [1, 1, 1, 0]; truth 2 and 1.5."""
    rows = rows_of(SETTING, [FIRST, SECOND], 0.5, {("double", "ATE"): 0.3})
    found = {(row["estimator"], row["target"]): row for row in rows}
    assert len(rows) == len(found) == 13
    row = found["double", "ATE"]
    assert {name: row[name] for name in Setting._fields} == SETTING._asdict()
    # Estimates 2.5 and .75 against the mean truth 1.75; against each sample's own, .5 and -.75.
    hand = {"unit": UNIT, "truth": 1.75 / UNIT, "bias": -0.125 / UNIT, "bias_error": 0.625 / UNIT,
            "sd": 1.75 / sqrt(2) / UNIT, "rmse": sqrt((0.75**2 + 1.0**2) / 2) / UNIT, "stated": 0.3 / UNIT}  # fmt: skip
    assert {name: row[name] for name in hand} == pytest.approx(hand)
    assert found["naive", "ATE"]["bias"] == pytest.approx((4.5 - 1.75) / UNIT)
    assert found["naive", "ATE"]["stated"] is None
    # The truth of the ATT is (2.25 + 1.75) / 2, of the ATU (1.75 + 1.25) / 2.
    assert found["single", "ATT"]["bias"] == pytest.approx((2.0 - 2.0) / UNIT)
    assert found["single", "ATU"]["bias"] == pytest.approx((2.5 - 1.5) / UNIT)
    assert found["corrected", "ATT"]["bias"] == pytest.approx(((2.5 + 1.0) / 2 - 2.0) / UNIT)
    assert found["corrected", "balanced"]["bias"] == pytest.approx(((2.625 + 0.75) / 2 - 1.75) / UNIT)
    # Half intervals with one degree of freedom are one standard error wide: [2, 4] misses 1.5, [1, 3] holds it.
    assert found["single", "ATU"]["coverage"] == 0.5
    assert found["single", "ATT"]["coverage"] == 1.0
    # [2.21, 2.79] (t of 2 degrees of freedom: .816) and [.5, 1] miss 1.75.
    assert row["coverage"] == 0.0
    # Where W = 1 the second sample has no spread, so no interval.
    assert found["double", "ATT"]["coverage"] is None


def test_causes_are_as_by_hand() -> None:
    """RATE 2.5 and .75, in the rewriter's state 2.1 and 1.1, in the originals' 2 and 1.5."""
    hand = {"unit": UNIT, "bias": -0.125, "from_asymmetry": 0.025, "from_non_additivity": -0.15, "noise": 1.25 / UNIT}
    found = causes_of(SETTING, [FIRST, SECOND])
    assert {name: found[name] * (1 if name == "unit" else UNIT) for name in hand} == pytest.approx(hand)
    assert found["from_asymmetry_error"] == pytest.approx(0.75 / 2 / UNIT)
    assert found["from_non_additivity_error"] == pytest.approx(0.5 / 2 / UNIT)


def test_non_additivity_is_what_the_interaction_makes_of_the_drift(tmp_path: Path) -> None:
    gold = {"per_level": {"sentiment": 0.4}, "interaction": 0.3}
    found = simulated(
        tmp_path, gold=gold, samples=8, texts=150, confounding=[0.4], asymmetry=[1.0], laws=["replacement"]
    )
    for cause in found.result["causes"]:
        # By hand: sentiment gains 2 * 2 levels times .3 per level of politeness, which goes from 0 to .5 in the mean.
        size, error = (cause[f"from_non_additivity{end}"] * cause["unit"] for end in ("", "_error"))
        assert abs(size - 4 * 0.3 * 0.5) < 4 * error
        assert error < 0.1
        assert cause["from_asymmetry"] + cause["from_non_additivity"] == pytest.approx(cause["bias"])
    assert {row["stated"] for row in found.result["rows"]} == {None}
    assert found.lines()[-1].startswith("This reward is not additive: up to +0.")


FROM_TEXT = '''
from rewardlab.data.world import GoldReward, parse

GOLD = GoldReward(per_level={"sentiment": 0.4, "politeness": 0.4, "structure": 0.4})


def reward(completions, **_):
    """The gold reward of the levels, read off the text."""
    return [GOLD.of_levels(parse(messages[0]["content"]).reading.levels) for messages in completions]


def constant(completions, **_):
    return [1.0 for _ in completions]
'''


def test_a_scorer_of_texts_is_held_against_its_own_truth(tmp_path: Path) -> None:
    """A rule that reads the levels off the text gives what the gold reward of the same levels gives."""
    (tmp_path / "rule.py").write_text(FROM_TEXT)
    options = {"samples": 2, "texts": 50, "confounding": [0.4], "asymmetry": [0.5]}
    gold = {"per_level": {"sentiment": 0.4, "politeness": 0.4, "structure": 0.4}, "coverage": 0, "correctness": 0,
            "relevance": 0}  # fmt: skip
    by_rule = simulated(tmp_path, model=f"python:{tmp_path / 'rule.py'}:reward", **options).result
    by_gold = simulated(tmp_path, gold=gold, **options).result
    assert by_rule["reward"].startswith("python:rule.py:reward@")
    assert by_gold["reward"] == "gold"
    for mine, other in zip(by_rule["rows"], by_gold["rows"], strict=True):
        assert mine == pytest.approx({**other, "stated": None})
    for mine, other in zip(by_rule["causes"], by_gold["causes"], strict=True):
        assert mine == pytest.approx(other, abs=1e-12)


def test_the_result_is_a_file_and_can_be_repeated(tmp_path: Path) -> None:
    config = Simulation(samples=3, texts=50, confounding=[0.0], asymmetry=[0.0], limit=2, seed=5)
    first = simulate(config, Here(tmp_path / "a"))
    simulate(config, Here(tmp_path / "b"))
    written = (tmp_path / "a" / "simulation.json").read_bytes()
    assert written == (tmp_path / "b" / "simulation.json").read_bytes()
    assert json.loads(written) == first.result
    assert first.result["samples"] == 2
    assert len(first.result["rows"]) == 2 * 2 * 13
    assert first.lines() == findings(first.result)
    with pytest.raises(StopIteration):
        first.row(Setting("replacement", 0.9, 0.0), "double")


def test_a_rewriter_that_changes_nothing_else_leaves_no_bias(tmp_path: Path) -> None:
    found = simulated(tmp_path, drift={}, samples=2, texts=50, confounding=[0.4], asymmetry=[0.0], laws=["cumulation"])
    for estimator in ("single", "double", "corrected"):
        assert found.row(Setting("cumulation", 0.4, 0.0), estimator)["bias"] == pytest.approx(0.0, abs=1e-12)


def test_a_reward_without_spread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text(FROM_TEXT)
    with pytest.raises(DataError, match="no effect to find"):
        simulated(tmp_path, model=f"python:{tmp_path / 'rule.py'}:constant", samples=2, texts=50)


def test_all_problems_of_a_configuration_come_at_once() -> None:
    flags = [("samples", "1"), ("texts", "10"), ("confounding", "[1.0]"), ("asymmetry", "[]"), ("laws", "[replace]")]
    with pytest.raises(ConfigError) as caught:
        Simulation.build(flags=[*flags, ("drift.loudness", "1")])
    said = "\n".join(str(problem) for problem in caught.value.problems)
    for place in ("samples", "texts", "confounding.0", "asymmetry", "laws.0", "drift.loudness"):
        assert f"--{place.split('.')[0]}" in said, place
    assert len(caught.value.problems) == 6
    with pytest.raises(ConfigError, match="drift of other attributes than sentiment"):
        Simulation.build(flags=[("drift.sentiment", "0.5")])


def test_a_sample_without_one_side_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardlab.audit.simulate.respond", lambda *given: do(respond(*given), "sentiment", True))
    with pytest.raises(DataError, match="too few texts") as caught:
        simulated(tmp_path, texts=50, samples=2)
    assert caught.value.problems[0].found == "50 of 50 texts with W = 1 at seed 0"


def test_the_command_line_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--samples", "2", "--texts", "50", "--confounding", "0.4", "--asymmetry", "0", "--laws", "replacement"]
    assert main(["audit", "simulate", *small, "--run", "known"]) == 0
    assert (
        "Replacement, drift alike in both directions: the ATE is biased by up to (sd) naive" in capsys.readouterr().out
    )
    assert (tmp_path / "home" / "known" / "simulation.json").is_file()
    assert main(["audit", "simulate", "--base", "2"]) == 2
    assert "--base: found 2" in capsys.readouterr().err
