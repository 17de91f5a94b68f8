"""The pictures of an ablation: arms by one measure, and two measures against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardlab.report.ablation_measures import ArmResult, Measure
from rewardlab.report.vega import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH_PIXELS,
    Row,
    Spec,
    domain,
    number_field,
    reference_line,
    specification,
)

ROW_PIXELS = 34
_ROLES = {"baseline": ORANGE, "arm": BLUE}


def gains(measure: Measure, results: Sequence[ArmResult], baseline: str) -> Spec:
    """A line per arm: its value with the interval, and its seeds as small dots; an empty line where there is none."""
    factor = 100.0 if measure.percent else 1.0
    rows = [_row(one, baseline, factor) for one in results]
    seeds = [{"arm": one.arm, "seed": factor * value} for one in results if len(one.seeds) > 1 for value in one.seeds]
    own = next((row["value"] for row in rows if row["role"] == "baseline"), None)
    scale: Spec = {
        "domain": domain([*rows, *({"value": one["seed"]} for one in seeds)], own),
        "zero": False,
        "nice": False,
    }
    x: Spec = {"type": "quantitative", "title": measure.title, "scale": scale, "axis": {"tickCount": 7}}
    names = [one.arm for one in results]
    y: Spec = {
        "field": "arm",
        "type": "nominal",
        "title": None,
        "scale": {"domain": names},
        "axis": {"labelLimit": 180},
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeWidth": 3, "strokeCap": "round", "opacity": 0.55},
            "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, "y": y, "color": _color()},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
            "encoding": {"x": {"field": "value", **x}, "y": y, "color": _color(), "tooltip": _pointer()},
        },
        {
            "data": {"values": seeds},
            "mark": {"type": "point", "filled": True, "size": 18, "opacity": 0.9, "color": GREY, "yOffset": 9},
            "encoding": {"x": {"field": "seed", **x}, "y": y},
        },
    ]
    if own is not None:
        layers.insert(0, reference_line("x", own, scale=scale))
    return specification(rows, layers, height=ROW_PIXELS * max(len(rows), 1))


def trade(
    across: Measure, left: Sequence[ArmResult], up: Measure, right: Sequence[ArmResult], baseline: str
) -> Spec | None:
    """Two measures against each other, an arm a cross of its intervals; None where fewer than two have both."""
    by_arm = {one.arm: one for one in right}
    rows: list[dict[str, Any]] = []
    for one in left:
        other = by_arm.get(one.arm)
        if other is None or one.found.value is None or other.found.value is None:
            continue
        first = _row(one, baseline, 100.0 if across.percent else 1.0)
        second = _row(other, baseline, 100.0 if up.percent else 1.0)
        rows.append({**first, **{f"up_{name}": second[name] for name in ("value", "low", "high")}})
    if len(rows) < 2:
        return None
    ups: list[Row] = [{name: row[f"up_{name}"] for name in ("value", "low", "high")} for row in rows]
    x: Spec = _axis(across.title, rows)
    y: Spec = _axis(up.title, ups)
    place = {"x": {"field": "value", **x}, "y": {"field": "up_value", **y}, "color": _color()}
    pointer = [
        {"field": "arm", "type": "nominal", "title": "Arm"},
        number_field("value", "Across", ".3f"),
        number_field("up_value", "Up", ".3f"),
    ]
    rule = {"type": "rule", "strokeWidth": 2, "opacity": 0.5}
    layers: list[Spec] = [
        {"mark": rule, "encoding": {**place, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
        {"mark": rule, "encoding": {**place, "y": {"field": "up_low", **y}, "y2": {"field": "up_high"}}},
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {**place, "tooltip": pointer},
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 8, "dy": -8, "limit": WIDTH_PIXELS // 3},
            "encoding": {"x": place["x"], "y": place["y"], "text": {"field": "arm"}},
        },
    ]
    return specification(rows, layers)


def _row(one: ArmResult, baseline: str, factor: float) -> dict[str, Any]:
    ends = {
        name: None if (value := getattr(one.found, name)) is None else factor * value
        for name in ("value", "low", "high")
    }
    return {"arm": one.arm, "role": "baseline" if one.arm == baseline else "arm", "n": one.found.n, **ends}


def _axis(title: str, rows: Sequence[Row]) -> Spec:
    scale = {"domain": domain(rows, None), "zero": False, "nice": False}
    return {"type": "quantitative", "title": title, "scale": scale, "axis": {"tickCount": 6}}


def _color() -> Spec:
    scale = {"domain": list(_ROLES), "range": list(_ROLES.values())}
    return {"field": "role", "type": "nominal", "legend": None, "scale": scale}


def _pointer() -> list[Spec]:
    return [
        {"field": "arm", "type": "nominal", "title": "Arm"},
        number_field("value", "Value", ".3f"),
        number_field("low", "From", ".3f"),
        number_field("high", "To", ".3f"),
        number_field("n", "n", ","),
    ]
