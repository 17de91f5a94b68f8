"""The sections on a frontier in the one report: the numbers of frontier.json are on the page, other files refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from rewardlab.errors import ConfigError, DataError
from rewardlab.report.frontier_figures import frontier_curves, over_optimisation
from rewardlab.report.frontier_sections import findings
from rewardlab.report.inputs import read_inputs
from rewardlab.report.lineage import rewarded_by
from rewardlab.report.page import Report, page_sections, write_report
from rewardlab.score.choice import ScorerChoice
from rewardlab.store.runs import Run
from tests.report.test_report_page import Folder

HOSTILE = "</script><script>alert(1)</script>"


def spanned(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.25, "high": value + 0.25, "error": 0.125, "n": 8, "reason": ""}


def policy(run: str, step: int, kl: float, reward: float, gold: float) -> dict[str, Any]:
    return {
        "run": run,
        "seed": 0,
        "step": step,
        "prompts": 4,
        "completions": 8,
        "kl": spanned(kl),
        "rewards": {"reward": spanned(reward), f"held_out.{HOSTILE}": spanned(gold)},
        "tokens": spanned(12.0),
        "unfinished": spanned(0.5),
        "distinct_1": 0.3,
        "distinct_2": None,
    }


def write_frontier(folder: Path, **changes: Any) -> Path:
    """A folder of `evaluate frontier`: two checkpoints that begin at the reference."""
    folder.mkdir(parents=True)
    gold = f"held_out.{HOSTILE}"
    best_of = {"n": 4, "kl": 0.636, "rewards": policy("", 0, 0, 1.75, 1.5)["rewards"], "tokens": spanned(12.0)}
    values = {
        "n": 2,
        "temperature": 1.0,
        "max_new_tokens": 16,
        "scorers": {"reward": "rm", gold: "gold-rm"},
        "sd": {"reward": 0.5, gold: 2.0},
        "from_reference": ["exo"],
        "reference": policy("reference", 0, 0.0, 1.0, 1.0),
        "checkpoints": [policy("exo", 5, 2.25, 2.0, 2.0), policy("exo", 10, 6.25, 3.0, 0.0)],
        "best_of": [best_of],
        "chosen": [{"run": "exo", "seed": 0, "step": 5}],
        "findings": [f"found {HOSTILE}"],
    }
    (folder / "frontier.json").write_text(json.dumps(values | changes))
    return folder


def test_the_pictures_hold_the_numbers_of_the_file(tmp_path: Path) -> None:
    inputs = read_inputs(frontier=[write_frontier(tmp_path / "one")])
    *_, drawn, policies = page_sections(inputs, max_examples=0, seed=0)
    trained, held_out, over = (figure.spec["data"]["values"] for figure in drawn.figures)
    assert [(row["kl"], row["value"]) for row in trained] == [(0.0, 1.0), (2.25, 2.0), (6.25, 3.0), (0.636, 1.75)]
    assert [row["chosen"] for row in held_out] == [False, True, False, False]
    # Above the reference in its standard deviations: (3 - 1) / .5, and (0 - 1) / 2; at the root of 6.25 nats.
    assert {(row["root"], row["value"]) for row in over if row["step"] == 10} == {(2.5, 4.0), (2.5, -0.5)}
    assert [section.name for section in (drawn, policies)] == ["frontier", "checkpoints"]


def test_several_stand_one_after_the_other_under_names_of_their_own(tmp_path: Path) -> None:
    folders = tuple(write_frontier(tmp_path / name) for name in ("one", "two"))
    written = write_report(Report(frontier=folders), cast(Run, Folder(tmp_path / "out")))
    assert written.findings == (f"one: found {HOSTILE}", f"two: found {HOSTILE}")
    text = written.page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    names = re.findall(r'id="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert "Reward against distance of two" in text
    assert (tmp_path / "out" / "figures" / "frontier-2-1.svg").is_file()


def test_a_folder_of_another_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="checkpoints"):
        read_inputs(frontier=[write_frontier(tmp_path / "one", checkpoints=None)])
    (tmp_path / "one" / "frontier.json").unlink()
    with pytest.raises(DataError, match=r"frontier\.json"):
        read_inputs(frontier=[tmp_path / "one"])
    with pytest.raises(ConfigError, match="--frontier"):
        write_report(Report(), cast(Run, Folder(tmp_path / "out")))


def test_records_tell_what_was_trained_on_a_reward(tmp_path: Path) -> None:
    def run(name: str, verb: str, config: dict[str, Any], *inputs: str) -> Path:
        (tmp_path / name).mkdir()
        session = {"started": "2026-01-01", "directory": str(tmp_path)}
        record = {"verb": verb, "sessions": [session], "inputs": [{"path": one} for one in inputs]}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
        (tmp_path / name / "config.yaml").write_text(json.dumps(config))
        return tmp_path / name

    (tmp_path / "rm").mkdir()
    run("scores", "score", {"model": "rm"})
    run("labelled", "data convert", {"scores": "scores"}, "scores")
    exo = run("exo", "train exo", {"model": {"path": "base"}}, "labelled/hh.jsonl")
    ppo = run("ppo", "train ppo", {"rewards": {"words": {"model": "rule:length_words", "weight": 2.0}}})
    model, words = ScorerChoice(model=str(tmp_path / "rm")), ScorerChoice(model="rule:length_words")
    folders = (exo, exo / "policies" / "step-000003", ppo)
    told = [[rewarded_by(folder, one) for folder in folders] for one in (model, words)]
    assert told == [[True, True, False], [False, False, True]]
    (tmp_path / "scores" / "run.json").write_text("{")
    assert not rewarded_by(exo, model), "a record that cannot be read stops no page"


@pytest.mark.parametrize(("nearest", "begins"), [(0.1, 0.0), (-0.05, 0.0), (-0.5, -0.5 - 0.06 * 6.75)])
def test_the_axis_of_divergences_begins_at_0_unless_estimates_are_below(
    tmp_path: Path, nearest: float, begins: float
) -> None:
    steps = [policy("exo", 5, nearest, 2.0, 2.0), policy("exo", 10, 6.25, 3.0, 0.0)]
    values = json.loads((write_frontier(tmp_path / "one", checkpoints=steps) / "frontier.json").read_text())
    spec = frontier_curves(values, "reward", "reward")
    low, high = spec["layer"][1]["encoding"]["x"]["scale"]["domain"]
    assert low == pytest.approx(begins), "intervals make no room on the left"
    assert high > 6.5, "intervals to the right have their room"
    rules = [one["mark"] for one in spec["layer"] if one.get("mark", {}).get("type") == "rule"]
    assert [mark["clip"] for mark in rules] == [True, True]


def test_a_dash_is_the_reward_trained_on_and_nothing_else(tmp_path: Path) -> None:
    values = json.loads((write_frontier(tmp_path / "one") / "frontier.json").read_text())
    gold = next(name for name in values["scorers"] if name != "reward")
    assert "strokeDash" not in json.dumps(frontier_curves(values, "reward", "reward"))
    over = json.dumps(over_optimisation(values, gold))
    assert over.count('"strokeDash"') == 1
    assert '"domain": ["held out", "reward trained on"], "range": [[1, 0], [5, 4]]' in over


def test_a_legend_of_many_curves_has_several_lines(tmp_path: Path) -> None:
    values = json.loads((write_frontier(tmp_path / "frontier") / "frontier.json").read_text())
    names = [f"a training by rule {number}" for number in range(6)]
    values["checkpoints"] = [policy(name, 2, 1.0, 2.0, 1.0) for name in names]
    spec = json.dumps(frontier_curves(values, "reward", "reward"))
    columns = {int(found) for found in re.findall(r'"legend": {"columns": (\d+)}', spec)}
    # A line of the picture is as wide as about 80 characters, the marks before the names included.
    assert columns == {80 // (len("a training by rule 0") + 5)}


def found(tmp_path: Path, **changes: Any) -> list[str]:
    values = json.loads((write_frontier(tmp_path / "one", **changes) / "frontier.json").read_text())
    none: dict[str, Any] = {name: [] for name in ("changes", "areas", "differences", "warnings")}
    return findings({**none, "area_from": 0.5, "area_to": 5.0, **values})


def chosen(gold: float) -> dict[str, Any]:
    return policy("exo", 5, 2.25, 2.0, gold) | {"by": f"held_out.{HOSTILE}"}


@pytest.mark.parametrize(("gold", "none"), [(1.5, False), (1.0, True), (0.5, True)])
def test_the_best_of_a_training_may_be_no_more_than_the_reference(gold: float, none: bool, tmp_path: Path) -> None:
    text = "\n".join(found(tmp_path, chosen=[chosen(gold)]))
    assert f"step 5 has the best {HOSTILE} (held out)" in text
    assert ("which is no more than the reference's" in text) == none


def test_a_policy_that_writes_longer_or_stops_ending_is_told_by_its_last_step(tmp_path: Path) -> None:
    def writes(run: str, step: int, tokens: float, unfinished: float) -> dict[str, Any]:
        return policy(run, step, 1.0, 1.0, 1.0) | {"tokens": spanned(tokens), "unfinished": spanned(unfinished)}

    checkpoints = [
        writes("alike", 5, 30.0, 0.9), writes("alike", 10, 13.0, 0.52), writes("long", 5, 18.0, 0.5),
        writes("short", 5, 6.0, 0.5), writes("endless", 5, 12.0, 0.75),
    ]  # fmt: skip
    lines = [line for line in found(tmp_path, checkpoints=checkpoints, chosen=[]) if "without an end" in line]
    assert [line.partition(",")[0] for line in lines] == ["long", "short", "endless"]
    assert "step 5: 12 tokens on average in place of 12, and 75.0% without an end in place of 50.0%" in lines[2]
