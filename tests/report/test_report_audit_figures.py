"""Figures of audits compile, draw what they are given and let no text become code."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from rewardlab.report import audit_along, audit_figures, forest, vega
from tests.report.test_report_figures import HOSTILE, SVG, expressions, luminance, marks


def effect(estimator: str, over: str, value: float | None, **others: Any) -> dict[str, Any]:
    half = 0.1
    return {
        "effect": estimator,
        "target": over,
        "attribute": "length",
        "scorer": HOSTILE,
        "audit": "a",
        "estimator": estimator,
        "over": over,
        "value_sd": value,
        "low_sd": None if value is None else value - half,
        "high_sd": None if value is None else value + half,
        "p": 0.02,
        "n": 1200,
        "reason": "",
        **others,
    }


EFFECTS = [
    effect("naive", "ATE", 0.99),
    *(effect(estimator, over, value) for estimator in ("single", "double", "corrected")
      for over, value in (("ATE", 0.3), ("ATT", 0.4), ("ATU", -0.2), ("balanced", 0.1), ("population", 0.3))),
    effect("naive", "ATE", None, scorer="one side"),
    effect("double", "ATE", None, scorer="one side"),
    effect("double", "ATT", 0.2, scorer="one side", low_sd=None),
]  # fmt: skip
GROUPS = [
    {"family": family, "label": HOSTILE, "value": 0.2, "low": 0.1, "high": 0.3, "text": "+0.20 (0.10 to 0.30)",
     "p_adjusted": 0.01}
    for family in ("Length", HOSTILE, HOSTILE)
]  # fmt: skip
CHANGES = [
    {"measure": measure, "label": f"{stage}, to {HOSTILE}", "stage": stage, "value": 0.2, "text": "+0.20"}
    for measure in ("words", HOSTILE)
    for stage in ("rewrite", "rewrite of rewrite", "third rewrite", HOSTILE)
]
DRIFT = [{"group": HOSTILE, "label": "W = 1", "value": -0.2, "low": -0.3, "high": -0.1, "text": "-0.20"}]
CURVES = [
    {"stage": stage, "reward": at / 2, "density": at}
    for stage in ("original", "rewrite", "rewrite of rewrite")
    for at in range(5)
]
DIAL = [
    effect(estimator, over, at * slope, along=at, attribute=HOSTILE)
    for estimator, slope in (("naive", 2.0), ("single", 1.0), ("double", 0.0), ("corrected", 3.0))
    for over in ("ATE", "ATT")
    for at in (0.0, 0.15, 0.3)
]
SPECS: dict[str, vega.Spec] = {
    "along": audit_along.effects_along([*DIAL, effect("single", "ATE", None, along=0.4)], axis_title=HOSTILE, truth=0),
    "estimators": audit_figures.effects_by_estimator(EFFECTS),
    "targets": audit_figures.effects_by_target([row for row in EFFECTS if row["scorer"] == HOSTILE]),
    "naive-and-rate": audit_figures.naive_and_rate(EFFECTS),
    "groups": audit_figures.effects_by_subgroup(GROUPS),
    "changes": audit_figures.off_target_changes(CHANGES),
    "drift": audit_figures.changes_by_rewriting(DRIFT),
    "densities": audit_figures.score_densities(CURVES, (0.0, 2.0), 4.0),
    "nothing": forest.forest([], axis_title="effect"),
    "no-reference": forest.forest(audit_figures.effects_by_subgroup(GROUPS)["data"]["values"], axis_title="x",
                                    reference=None),
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return {name: vl_convert.vegalite_to_svg(spec) for name, spec in SPECS.items()}


@pytest.mark.parametrize("name", SPECS)
def test_every_specification_is_json_and_compiles_without_a_warning(
    name: str, drawn: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    vl_convert.vegalite_to_vega(json.dumps(SPECS[name], allow_nan=False), show_warnings=True)
    assert "WARN" not in "".join(capfd.readouterr())
    assert ET.fromstring(drawn[name]).tag == f"{SVG}svg"


@pytest.mark.parametrize("name", SPECS)
def test_no_text_from_the_data_becomes_code(name: str) -> None:
    compiled = vl_convert.vegalite_to_vega(SPECS[name])
    found = list(expressions({key: value for key, value in compiled.items() if key != "data"}))
    found += list(expressions([{**source, "values": None} for source in compiled["data"]]))
    assert not [code for code in found if "alert" in code or "fourth" in code]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("estimators", 5),
        ("targets", 12),
        ("naive-and-rate", 3),
        ("groups", 3),
        ("changes", 8),
        ("drift", 1),
        ("along", 9),
    ],
)
def test_each_row_is_drawn_once(name: str, shapes: int, drawn: dict[str, str]) -> None:
    assert marks(drawn[name], "mark-symbol") == shapes


def test_without_an_overall_effect_that_of_the_side_that_is_there_is_drawn() -> None:
    rows = SPECS["naive-and-rate"]["data"]["values"]
    assert [(row["group"], row["label"]) for row in rows][-1] == ("one side", "RATE (ATT)")
    assert rows[-1]["text"] == "+0.20"


def test_an_interval_that_is_too_narrow_is_marked_where_it_is_drawn() -> None:
    rows = [effect("double", "balanced", 0.2, reason="only 2 prompts"), effect("double", "ATE", 0.2)]
    by_label = {row["group"]: row for row in audit_figures.effects_by_target(rows)["data"]["values"]}
    assert by_label["Half and half, (ATT + ATU) / 2"]["text"] == "+0.20 (0.10 to 0.30) \N{DAGGER}"
    assert by_label["Half and half, (ATT + ATU) / 2"]["hint"].endswith("; only 2 prompts")
    assert by_label["All responses (ATE)"]["text"] == "+0.20 (0.10 to 0.30)"


def test_numbers_are_drawn_where_the_scale_says_and_names_stand_beside_them(drawn: dict[str, str]) -> None:
    """Naive .99 and RATE .3: as far apart as the axis says, right of the names and left of the figures."""
    svg = drawn["naive-and-rate"]
    places = re.findall(r'translate\(([\d.]+),([\d.]+)\)" d="M[^"]*" fill="(#[0-9a-f]{6})"', svg)
    at: dict[str, float] = {}
    for x, _, color in places:
        at.setdefault(color, float(x))
    low, high = SPECS["naive-and-rate"]["layer"][1]["encoding"]["x"]["scale"]["domain"]
    width = (at[vega.ORANGE] - at[vega.BLUE]) / (0.99 - 0.3) * (high - low)
    left, right = 196, 176
    assert width == pytest.approx(vega.WIDTH_PIXELS - left - right, abs=12)
    assert all(left <= float(x) <= vega.WIDTH_PIXELS - right for x, _, _ in places)
    lanes = sorted({float(y) for _, y, _ in places})
    assert min(second - first for first, second in itertools.pairwise(lanes)) >= forest.LANE_PIXELS


def test_densities_share_axes_and_name_their_curves(drawn: dict[str, str]) -> None:
    assert marks(drawn["densities"], "mark-line") == 3
    for stage in ("original", "rewrite", "rewrite of rewrite"):
        assert f">{stage}<" in drawn["densities"]


@pytest.mark.parametrize("color", [*audit_figures.COLORS.values(), *audit_figures.STAGE_COLORS.values()])
@pytest.mark.parametrize("paper", ["#ffffff", "#14181d"])
def test_colours_stand_out_on_light_and_dark_paper(color: str, paper: str) -> None:
    light, dark = sorted([luminance(color), luminance(paper)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3.0
    assert paper in (Path(vega.__file__).parent / "page.css").read_text(encoding="utf-8")
