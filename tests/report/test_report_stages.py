"""What the section on training says of its numbers."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from rewardlab.report.html import Html
from rewardlab.report.inputs import HistoryRow, Stage, Training
from rewardlab.report.stages import MOST_CURVE_POINTS, training_section


def stage(label: str, *lines: dict[str, Any]) -> Stage[Training]:
    return Stage(label, {}, "", Training([HistoryRow.model_validate(line) for line in lines], {}))


def held_out(step: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "split": "val", "loss": 0.6, "accuracy": accuracy} | more


def findings_and_table(*stages: Stage[Training]) -> tuple[dict[str, str], str]:
    blocks = training_section(stages).blocks
    found = {block.name: block.finding for block in blocks if not isinstance(block, Html)}
    return found, " ".join(str(block) for block in blocks if isinstance(block, Html))


def test_held_out_accuracy_has_the_interval_of_a_mean_of_as_many_records() -> None:
    """Against Student's interval of 126 ones and 74 zeros, and of 61 % of 200."""
    found, table = findings_and_table(stage("run", held_out(10, 0.63, n=200), held_out(20, 0.61, n=200)))
    for ones, shown in ((126, table), (122, found["training-accuracy"])):
        values = [1.0] * ones + [0.0] * (200 - ones)
        low, high = stats.t.interval(0.95, 199, loc=ones / 200, scale=stats.sem(values))
        assert f"({100 * low:.1f} to {100 * high:.1f})" in shown
    assert found["training-accuracy"].startswith("Last accuracy (%): val 61.0 (")


def test_lines_that_do_not_say_of_how_many_records_have_no_interval() -> None:
    found, table = findings_and_table(stage("run", held_out(10, 0.63)))
    assert found["training-accuracy"] == "Last accuracy (%): val 63.0."
    assert "63.0 %<" in table


def test_the_last_value_is_not_the_mean_of_the_last_few() -> None:
    """Curves of many points are drawn as means of neighbours; the words are about the last point."""
    steps = range(1, 10 * MOST_CURVE_POINTS + 1)
    lines = [{"step": step, "split": "train", "loss": float(step)} for step in steps]
    found, _ = findings_and_table(stage("run", *lines))
    assert found["training-loss"] == f"Last loss: train {float(len(steps)):.1f}."


def test_several_folds_have_their_mean_and_how_far_they_lie_apart() -> None:
    stages = [stage(str(fold), held_out(5, accuracy, n=50)) for fold, accuracy in enumerate((0.5, 0.6, 0.7))]
    found, _ = findings_and_table(*stages)
    assert found["training-accuracy"] == "Last accuracy (%): val 60.0 (mean of 3 folds, which go from 50.0 to 70.0)."


@pytest.mark.parametrize(("accuracy", "words"), [(1.0, "(69.2 to 100.0)"), (0.0, "(0.0 to 30.8)")])
def test_all_right_and_all_wrong_have_exact_bounds(accuracy: float, words: str) -> None:
    """Clopper and Pearson for 10 of 10: .025 ** .1 = .692."""
    found, _ = findings_and_table(stage("run", held_out(5, accuracy, n=10)))
    assert words in found["training-accuracy"]
