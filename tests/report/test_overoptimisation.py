"""Frontiers of several data sizes on one page: numbers by hand from rewards in round standard deviations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.report.frontier_figures import by_data, standard_rows
from rewardlab.report.overoptimisation import OverOptimisation, compare_frontiers
from rewardlab.report.page import WrittenReport
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run

GOLD = "held_out.gold"
SD = {"reward": 2.0, GOLD: 4.0}
OWN = {"reward": -1.0, GOLD: 8.0}


def spanned(value: float, room: float) -> dict[str, Any]:
    return {"value": value, "low": value - room, "high": value + room, "error": None}


def point(kl: float, proxy: float, gold: float) -> dict[str, Any]:
    """Of a policy: its rewards are so many standard deviations above the reference's, give or take half of one."""
    rewards = {"reward": proxy, GOLD: gold}
    return {
        "kl": spanned(kl, 0.5),
        "rewards": {name: spanned(OWN[name] + SD[name] * one, SD[name] / 2) for name, one in rewards.items()},
        "tokens": spanned(20.0, 1.0),
    }


def frontier(folder: Path, peak: float, **more: Any) -> Path:
    """A training that goes 1, 4 and 9 nats away: the proxy rises, gold has its `peak` at 4 nats and loses 1 sd."""
    steps = [(1, 1.0, 1.0, 0.5), (2, 4.0, 2.0, peak), (3, 9.0, 3.0, peak - 1.0)]
    run: dict[str, Any] = {"run": "<b>EXO</b>", "seed": 0}
    checkpoints = [{**run, "step": step, **point(*rest)} for step, *rest in steps]
    change = {GOLD: {"value": -4.0, "low": -6.0, "high": -2.0}}
    values = {
        "from_reference": ["<b>EXO</b>"],
        "scorers": dict.fromkeys(SD, "a"),
        "reference": point(0.0, 0.0, 0.0),
        "sd": SD,
        "checkpoints": checkpoints,
        "best_of": [{"n": n, **point(0.0, high, high / 2), "kl": kl} for n, kl, high in ((1, 0.0, 0.0), (8, 1.2, 1.4))],
        "chosen": [{"by": GOLD, **checkpoints[1]}],
        "changes": [{**run, "from": 2, "to": 3, "rewards": change}],
        **more,
    }
    folder.mkdir(parents=True)
    (folder / "frontier.json").write_text(json.dumps(values))
    return folder


def drawn(root: Path, frontiers: dict[str, Any]) -> WrittenReport:
    config = OverOptimisation(frontiers=frontiers)
    with Run.create(config, verb="evaluate overoptimisation", name="page", root=root) as run:
        return compare_frontiers(config, run)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
    return {"60 pairs": frontier(tmp_path / "a", 1.5), "960 <i>pairs</i>": frontier(tmp_path / "b", 2.5)}


def test_ends_are_in_standard_deviations_above_the_reference(folders: dict[str, Path], tmp_path: Path) -> None:
    page = drawn(tmp_path, folders)
    ends = read_json(tmp_path / "page" / "overoptimisation.json")["ends"]
    assert [(one["data"], one["method"]) for one in ends] == [
        (data, method) for data in folders for method in ("<b>EXO</b>", "best of n")
    ]
    for one, peak in zip(ends[::2], (1.5, 2.5), strict=True):
        assert (one["best_step"], one["best_kl"], one["step"], one["kl"]) == (2, 4.0, 3, 9.0)
        assert one["best_gold"] == pytest.approx(spanned(peak, 0.5))
        assert one["proxy"] == pytest.approx(spanned(3.0, 0.5))
        assert one["gold"] == pytest.approx(spanned(peak - 1.0, 0.5))
        assert one["change"] == pytest.approx(spanned(-1.0, 0.5))
    best = ends[1]
    assert (best["step"], best["kl"], best["change"]) == (8, 1.2, None)
    assert (best["proxy"]["value"], best["gold"]["value"]) == pytest.approx((1.4, 0.7))
    assert page.findings[0] == (
        "<b>EXO</b>, 60 pairs, seed 0: at the end, step 3 (9.0 nats), proxy +3.00 (2.50 to 3.50), "
        "gold +0.50 (0.00 to 1.00) sd; −1.00 (−1.50 to −0.50) in gold since step 2."
    )


def test_seeds_of_a_method_stand_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second seed's gold is .5 sd above the first one's at every step; both fall by as much."""
    monkeypatch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
    run = {"run": "<b>EXO</b>"}
    steps = [(2, 4.0, 2.0), (3, 9.0, 3.0)]
    points = [
        {**run, "seed": seed, "step": step, **point(kl, proxy, 2.5 - 1.0 * (step == 3) + 0.5 * seed)}
        for seed in (0, 1)
        for step, kl, proxy in steps
    ]
    changes = [{**run, "seed": seed, "rewards": {GOLD: {"value": -4.0, "low": -6.0, "high": -2.0}}} for seed in (0, 1)]
    seeds = {
        "checkpoints": points,
        "chosen": [{"by": GOLD, **points[0]}, {"by": GOLD, **points[2]}],
        "changes": changes,
    }
    page = drawn(tmp_path, {"60 pairs": frontier(tmp_path / "a", 0.0, level=0.95, **seeds)})
    found = read_json(tmp_path / "page" / "overoptimisation.json")
    exo, best = found["methods"]
    assert (exo["seeds"], exo["seed"], exo["step"], exo["best_step"], exo["kl"]) == (2, "0 to 1", "3", "2", 9.0)
    assert [exo[name]["value"] for name in ("best_gold", "gold", "change")] == pytest.approx([2.75, 1.75, -1.0])
    # Student's over two trainings, 1.5 and 2 sd: 12.7062 standard errors of .25 on either side.
    assert (exo["gold"]["low"], exo["gold"]["high"]) == pytest.approx((1.75 - 3.17655, 1.75 + 3.17655), abs=1e-4)
    assert best == {**found["ends"][-1], "seeds": 1}
    assert page.findings[0].startswith("<b>EXO</b>, 60 pairs, seeds 0 to 1: at the end, step 3 (9.0 nats), proxy +3.00")
    assert page.findings[0].endswith("in gold since the best, step 2.")


def test_several_frontiers_of_a_size_are_in_the_units_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has drawn fewer completions of the reference, whose mean and spread came out otherwise."""
    monkeypatch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
    run = {"run": "PPO", "seed": 0}
    last = {**run, "step": 5, **point(9.0, 1.0, 0.25)}
    other = {
        "reference": {**point(0.0, 0.4, 0.4), "policy": "p"},
        "sd": {"reward": 3.0, GOLD: 3.0},
        "checkpoints": [last],
        "chosen": [{"by": GOLD, **last}],
        "changes": [],
        "best_of": [],
    }
    first = frontier(tmp_path / "a", 1.5, reference={**point(0.0, 0.0, 0.0), "policy": "p"})
    drawn(tmp_path, {"60 pairs": [first, frontier(tmp_path / "b", 0.0, **other)]})
    ends = read_json(tmp_path / "page" / "overoptimisation.json")["ends"]
    assert [one["method"] for one in ends] == ["<b>EXO</b>", "best of n", "PPO"]
    assert (ends[-1]["proxy"], ends[-1]["gold"]) == (
        pytest.approx(spanned(1.0, 0.5)),
        pytest.approx(spanned(0.25, 0.5)),
    )


@pytest.mark.parametrize("other", [{"scorers": dict.fromkeys(SD, "b")}, {"reference": {"policy": "q"}}])
def test_frontiers_of_a_size_have_one_reference_and_the_same_rewards(
    other: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
    of = {"policy": "p", **point(0.0, 0.0, 0.0)}
    folders = [
        frontier(tmp_path / "a", 1.5, reference=of),
        frontier(tmp_path / "b", 1.5, **{"reference": of, **other}),
    ]
    with pytest.raises(DataError, match="other rewards, or another reference"):
        drawn(tmp_path, {"60 pairs": folders})


def test_the_page_has_a_panel_per_method_and_its_names_are_hostile(folders: dict[str, Path], tmp_path: Path) -> None:
    page = drawn(tmp_path, folders)
    text = page.page.read_text(encoding="utf-8")
    assert [text.count(f'id="figure-panel-{number}"') for number in range(3)] == [1, 1, 0]
    assert "<b>" not in text
    assert "<i>" not in text


def test_a_panel_has_its_method_alone_on_axes_of_all(folders: dict[str, Path]) -> None:
    rows: list[dict[str, Any]] = []
    for data, folder in folders.items():
        found = standard_rows(read_json(folder / "frontier.json"), GOLD)
        assert found is not None
        rows += [{**row, "data": data} for row in found]
    panels = [by_data(rows, method) for method in ("<b>EXO</b>", "best of n")]
    exo = panels[0]["data"]["values"]
    gold = [(row["root"], row["value"]) for row in exo if (row["data"], row["kind"]) == ("60 pairs", "gold")]
    assert np.array(gold) == pytest.approx(np.array([(0.0, 0.0), (1.0, 0.5), (2.0, 1.5), (3.0, 0.5)]))
    assert {row["curve"] for row in panels[1]["data"]["values"]} == {"best of n"}
    domains = [
        (one["encoding"]["x"]["scale"]["domain"], one["encoding"]["y"]["scale"]["domain"])
        for one in (panel["layer"][-1] for panel in panels)
    ]
    assert domains[0] == domains[1]
    assert domains[0][0][1] > 3.0
    assert domains[0][1][1] > 3.5


def test_what_is_no_frontier_with_gold_is_told_at_once(folders: dict[str, Path], tmp_path: Path) -> None:
    alone = [{"by": "reward", "run": "<b>EXO</b>", "seed": 0, "step": 1}]
    bad = {
        "none": tmp_path / "absent",
        "alone": frontier(tmp_path / "c", 1.0, chosen=alone),
        "flat": frontier(tmp_path / "d", 1.0, sd={**SD, GOLD: None}),
    }
    with pytest.raises(DataError) as caught:
        drawn(tmp_path, {**folders, **bad})
    assert [problem.found for problem in caught.value.problems] == [
        "no frontier.json of this version",
        "no held-out reward",
        "a reward without any spread",
    ]
