"""What the section on training says of its numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from scipy import stats

from rewardlab.report.curves import MOST_CURVE_POINTS
from rewardlab.report.html import Html
from rewardlab.report.inputs import HistoryRow, Inputs, Stage, Training
from rewardlab.report.page import named_findings, page_sections
from rewardlab.report.stages import score_section, training_section


def stage(
    label: str, *lines: dict[str, Any], config: str = "", summary: dict[str, Any] | None = None
) -> Stage[Training]:
    return Stage(label, {}, config, Training([HistoryRow.model_validate(line) for line in lines], summary or {}))


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


def test_the_last_training_value_is_where_its_curve_ends() -> None:
    """A curve of many points is drawn as means of neighbours: words and table say the last mean, not one noisy step.

    241 steps are drawn in means of 5, of which the last has all five: 4, 6, 4, 6, 30 make 10.
    """
    ends = [4.0, 6.0, 4.0, 6.0, 30.0]
    losses = [1.0] * (4 * MOST_CURVE_POINTS + 1 - len(ends)) + ends
    lines = [{"step": step, "split": "train", "loss": loss} for step, loss in enumerate(losses, start=1)]
    run = stage("run", *lines)
    found, table = findings_and_table(run)
    assert found["training-loss"] == "Last loss: train 10.0 (mean of the last 5 logged steps)."
    assert "10.000<" in table
    figure = next(block for block in training_section([run]).blocks if not isinstance(block, Html))
    assert figure.spec["data"]["values"][-1]["value"] == 10.0
    assert figure.spec["data"]["values"][-1]["step"] == len(losses)


def test_the_last_evaluation_speaks_for_itself() -> None:
    """However many there are: its interval is that of one evaluation."""
    lines = [held_out(step, 0.5 + (step == 200) / 8, n=80) for step in range(1, 201)]
    found, _ = findings_and_table(stage("run", *lines))
    assert found["training-accuracy"].startswith("Last accuracy (%): val 62.5 (")


def test_scoring_is_told_in_words_and_what_is_empty_is_left_out() -> None:
    summary = {
        "scorer": "model",
        "fallback": "",
        "encoding": {"template": None, "truncation_side": "left", "overlong": "truncate"},
        "set_aside": {"identical": 2},
        "verified": {"difference": 3.5762786865234375e-07, "tolerance": 1e-05},
    }
    (block,) = score_section([Stage("score", {}, "", summary)]).blocks
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", str(block))
    assert facts == [
        ("Model", "model"),
        ("Side cut beyond them", "left"),
        ("Rows set aside: identical", "2"),
        ("Largest difference then", "3.6e-07"),
        ("Difference allowed", "1e-05"),
    ]


def test_several_folds_have_their_mean_and_how_far_they_lie_apart() -> None:
    stages = [stage(str(fold), held_out(5, accuracy, n=50)) for fold, accuracy in enumerate((0.5, 0.6, 0.7))]
    found, _ = findings_and_table(*stages)
    assert found["training-accuracy"] == "Last accuracy (%): val 60.0 (mean of 3 folds, which go from 50.0 to 70.0)."


@pytest.mark.parametrize(("accuracy", "words"), [(1.0, "(69.2 to 100.0)"), (0.0, "(0.0 to 30.8)")])
def test_all_right_and_all_wrong_have_exact_bounds(accuracy: float, words: str) -> None:
    """Clopper and Pearson for 10 of 10: .025 ** .1 = .692."""
    found, _ = findings_and_table(stage("run", held_out(5, accuracy, n=10)))
    assert words in found["training-accuracy"]


def row(table: str) -> dict[str, str]:
    """The only row of the table of training, by its headings."""
    names = re.findall(r"<th[^>]*scope=.col.[^>]*>(.*?)</th>", table)
    values = re.findall(r"<td[^>]*><span>(.*?)</span></td>", table)
    assert len(names) == len(values) + 1
    return dict(zip(names[1:], values, strict=True))


LOSSES = (
    held_out(25, 0.62, n=100, loss=0.646),
    held_out(50, 0.67, n=100, loss=0.668),
    held_out(75, 0.67, n=100, loss=0.844),
)


@pytest.mark.parametrize(
    ("config", "summary", "step", "accuracy", "loss", "measure"),
    [
        # What was saved counts, though another step has the highest accuracy.
        ("choose_by: loss", {"best": {"step": 25}}, "25", "62.0 %", "0.646", "loss"),
        ("choose_by: auto", {"best": {"step": 50}}, "50", "67.0 %", "0.668", "accuracy"),
        # Cut short: no summary yet; of equals the first, as training chooses.
        ("choose_by: loss", {}, "25", "62.0 %", "0.646", "loss"),
        ("choose_by: [unfinished", {}, "50", "67.0 %", "0.668", "accuracy"),
    ],
)
def test_the_table_names_the_checkpoint_that_was_chosen_and_by_what(
    config: str, summary: dict[str, Any], step: str, accuracy: str, loss: str, measure: str
) -> None:
    run = stage("run", *LOSSES, config=config, summary=summary)
    found = row(findings_and_table(run)[1])
    assert found["Chosen at step"] == step
    assert found["Held-out accuracy then (95 % interval)"].startswith(accuracy)
    assert found["Held-out loss then"] == loss
    lead = training_section([run]).lead
    assert f"chosen by held-out {measure}," in lead
    assert "read another split" in lead


def test_scores_have_a_chosen_step_though_they_have_no_accuracy() -> None:
    lines = [{"step": step, "split": "val", "loss": loss, "n": 10} for step, loss in ((5, 0.9), (10, 0.4), (15, 0.5))]
    run = stage("run", *lines, config="choose_by: auto", summary={"target": "score"})
    assert row(findings_and_table(run)[1]) == {"Chosen at step": "10", "Held-out loss then": "0.400"}
    assert "chosen by held-out loss," in training_section([run]).lead


POLICY_LOSSES = [
    {"step": step, "split": "val", "loss": loss, "accuracy": accuracy, "n": 100}
    for step, loss, accuracy in ((25, 0.5, 0.7), (50, 0.4, 0.6), (75, 0.6, 0.65))
]


@pytest.mark.parametrize("summary", [{"best": {"step": 50}, "last": {"step": 75}}, {}])
def test_a_policy_is_that_of_the_last_step_unless_it_was_told_to_keep_the_best(summary: dict[str, Any]) -> None:
    """Also while the training still runs."""
    last = stage("run", *POLICY_LOSSES, config="keep_best: false\nobjective: dpo-pref", summary=summary)
    found = row(findings_and_table(last)[1])
    assert "Chosen at step" not in found
    assert (found["Kept at the last step"], found["Held-out loss then"]) == ("75", "0.600")
    lead = training_section([last]).lead
    assert "chosen by held-out" not in lead
    assert "chosen by nothing" in lead
    best = stage("run", *POLICY_LOSSES, config="keep_best: true", summary=summary)
    found = row(findings_and_table(best)[1])
    assert (found["Chosen at step"], found["Held-out loss then"]) == ("50", "0.400")
    assert "chosen by held-out loss," in training_section([best]).lead


def test_the_test_set_stands_in_the_table_and_the_findings_with_its_interval() -> None:
    """97 of 150, against Student's interval of as many ones and zeros."""
    summary = {"best": {"step": 25}, "test": {"loss": 0.6416, "accuracy": 97 / 150, "n": 150}}
    run = stage("run", *LOSSES, config="choose_by: loss", summary=summary)
    values = [1.0] * 97 + [0.0] * 53
    low, high = stats.t.interval(0.95, 149, loc=97 / 150, scale=stats.sem(values))
    words = f"64.7 % ({100 * low:.1f} to {100 * high:.1f})"
    _, table = findings_and_table(run)
    found = row(table.split("<details>")[0])
    assert found["Test accuracy (95 % interval)"] == words
    assert found["Test loss"] == "0.642"
    assert "test.accuracy" not in table
    assert "The test set was scored once, at the end, and chose nothing." in training_section([run]).lead
    inputs = Inputs(train=[run])
    assert named_findings(inputs) == (
        f"On the test set of its training, which chose nothing: {words} right, loss 0.642, on 150 records.",
    )
    assert words in str(page_sections(inputs, max_examples=0, seed=0)[0].blocks[0])


def test_what_a_model_was_trained_on_is_told_in_words() -> None:
    (block,) = score_section([Stage("score", {}, "", {"trained_prompts": "conversation"})]).blocks
    assert "<dt>Prompts that it was trained on</dt><dd>conversation</dd>" in str(block)
