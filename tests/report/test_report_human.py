"""Figures and sentences of `audit human`: rows come out as they went in, and hostile names stay names."""

from __future__ import annotations

import json
from typing import Any

import pytest
import vl_convert

from rewardlab.report.human_table import differences_from_people, estimates_table, findings, human_and_estimates
from tests.report.test_report_figures import HOSTILE, expressions, marks


def row(
    scorer: str, estimator: str, value: float | None, apart: float | None, over: str = "balanced"
) -> dict[str, Any]:
    def ends(name: str, at: float | None, half: float) -> dict[str, float | None]:
        low, high = (None, None) if at is None else (at - half, at + half)
        return {f"{name}value_sd": at, f"{name}low_sd": low, f"{name}high_sd": high, f"{name}error_sd": None}

    return {
        "scorer": scorer,
        "estimator": estimator,
        "over": over,
        **ends("", value, 0.2),
        **ends("difference_", apart, 0.1),
        **dict.fromkeys(("value", "low", "high", "p_difference")),
        "n": 974,
        "clusters": 487,
        "left_out": 0,
        "level": 0.9,
        "reason": "" if value is not None else "no original has it",
    }


ROWS = [
    *(row(scorer, estimator, value, None if estimator == "human" else value - 1.0) for scorer in ("judge", HOSTILE)
      for estimator, value in (("human", 1.0), ("naive", 0.5), ("single", 1.05), ("double", 1.3))),
    *(row("judge", estimator, 9.0, 8.0, over="ATT") for estimator in ("human", "single", "double")),
    row("silent", "human", None, None),
]  # fmt: skip


def test_what_cannot_be_told_from_people_and_what_differs() -> None:
    first, _, silent = findings(ROWS)
    assert first == (
        "judge: people's rewrites say +1.00 (0.80 to 1.20) standard deviations. Cannot be told from that: "
        "Single rewrite +1.05 (+0.05, \N{MINUS SIGN}0.05 to 0.15 from people). Differs: "
        "Naive +0.50 (\N{MINUS SIGN}0.50, \N{MINUS SIGN}0.60 to \N{MINUS SIGN}0.40 from people); "
        "RATE +1.30 (+0.30, 0.20 to 0.40 from people)."
    )
    assert silent == "silent: people's rewrites give no estimate (no original has it)."


@pytest.mark.parametrize(("figure", "shapes"), [(human_and_estimates, 8), (differences_from_people, 6)])
def test_a_lane_per_estimate_of_both_directions_and_no_text_becomes_code(figure: Any, shapes: int) -> None:
    spec = figure(estimates_table(ROWS, "good against bad").rows)
    svg = vl_convert.vegalite_to_svg(spec)
    assert marks(svg, "mark-symbol") == shapes
    compiled = vl_convert.vegalite_to_vega(json.dumps(spec, allow_nan=False))
    found = list(expressions({key: value for key, value in compiled.items() if key != "data"}))
    assert not [code for code in found if "alert" in code or "fourth" in code]


def test_the_difference_is_what_is_drawn_as_the_difference() -> None:
    spec = differences_from_people(ROWS)
    lanes = {(one["group"], one["label"]): one for one in spec["data"]["values"]}
    assert lanes["judge", "RATE"]["value"] == pytest.approx(0.3)
    assert lanes["judge", "RATE"]["text"] == "+0.30 (0.20 to 0.40)"
    assert ("judge", "People") not in lanes


def test_the_table_has_every_row_and_its_level() -> None:
    table = estimates_table(ROWS, "good against bad")
    assert len(table.rows) == len(ROWS)
    assert "with 90 % intervals clustered by pair" in table.caption
    assert len(table.to_csv().splitlines()) == len(ROWS) + 1
