"""The pictures of a frontier: reward against KL, and both rewards against its square root.

Names of runs and rewards stand in values only, as in `figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.evaluate.frontier_estimates import REWARD, Values, over_seeds
from rewardlab.evaluate.frontier_runs import BEST_OF
from rewardlab.report.audit_figures import PURPLE, TEAL
from rewardlab.report.vega import (
    BLUE,
    GREY,
    ORANGE,
    Row,
    Spec,
    color_scale,
    domain,
    number_field,
    reference_line,
    specification,
)

HEIGHT = 400
PALETTE = (BLUE, ORANGE, TEAL, PURPLE, "#b0413e", "#5b7f2b", "#8a6d00", "#3f4c8c")
TRAINED_ON, HELD_OUT = "reward trained on", "held out"
BY_SIZE = ("#9ec5ec", BLUE, "#123f75", "#0a2140")
"""Colours of data sizes, the smallest first."""
_ALL_SEEDS = "mean of the seeds"
_BELOW = 0.02
_LEGEND_WIDTH, _LEGEND_MARK = 80, 5
"""In characters: a line of the legend, and what stands before a name."""
_HALF_WIDTH = 48
"""The same in a picture of half the width."""
_GOLD_OR_PROXY = {HELD_OUT: "gold", TRAINED_ON: "proxy"}


def frontier_curves(values: Values, name: str, title: str) -> Spec:
    """A reward against KL: a curve per run along its training, its seeds as thin lines, and best-of-n.

    Args:
        values: of frontier.json.
        name: of the reward.
        title: what it is called.
    """
    rows = curve_rows(values, name)
    own = values["reference"]["rewards"][name]["value"]
    x = _distance(
        "KL from the reference (nats)",
        [{"value": row["kl"], "low": row["kl_low"], "high": row["kl_high"]} for row in rows],
    )
    y = _axis(title, rows, own)
    color = _color([row["curve"] for row in rows])
    place: Spec = {"x": {"field": "kl", **x}, "y": {"field": "value", **y}, "color": color}
    faded: Spec = {"condition": {"param": "shown", "empty": True, "value": 1.0}, "value": 0.08}
    hovered: Spec = {"condition": {"param": "hover", "empty": False, "value": 0.9}, "value": 0.0}
    shown: Spec = {"name": "shown", "select": {"type": "point", "fields": ["curve"]}, "bind": "legend"}
    hover: Spec = {"name": "hover", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}
    # Of an interval that begins left of 0 what is in the picture is drawn.
    rule: Spec = {"type": "rule", "strokeWidth": 2, "clip": True}
    line: Spec = {**place, "detail": {"field": "line"}, "order": {"field": "step"}, "opacity": faded}
    layers: list[Spec] = [
        _lines(line, "seed", {"strokeWidth": 0.9}),
        _lines(line, "mean", {"strokeWidth": 2.4}),
        _lines(line, "best", {"strokeWidth": 2}),
        {
            "mark": rule,
            "encoding": {**place, "y": {"field": "low", **y}, "y2": {"field": "high"}, "opacity": hovered},
        },
        {
            "mark": rule,
            "encoding": {**place, "x": {"field": "kl_low", **x}, "x2": {"field": "kl_high"}, "opacity": hovered},
        },
        {
            "params": [shown, hover],
            "transform": [{"filter": "!datum.start"}],
            "mark": {"type": "point", "filled": True},
            "encoding": {
                **place,
                "size": {"condition": {"test": "datum.chosen", "value": 170}, "value": 55},
                "shape": {"condition": {"test": "datum.chosen", "value": "diamond"}, "value": "circle"},
                "opacity": faded,
                "tooltip": _pointer(title),
            },
        },
    ]
    if own is not None:
        layers.insert(0, reference_line("y", own, "reference", scale=y["scale"], dashed=False))
    return specification(rows, layers, height=HEIGHT)


def over_optimisation(values: Values, name: str) -> Spec | None:
    """The reward trained on (dashed) and a held-out one (solid) above the reference's, in its standard deviations,
    against the square root of KL; None where a reward of the reference has no spread.

    Source: Gao, Schulman and Hilton 2023, Scaling laws for reward model overoptimization, arXiv 2210.10760, figure 1.
    """
    rows = standard_rows(values, name)
    if rows is None:
        return None
    x = _distance("square root of KL (nats)", [{"value": row["root"]} for row in rows])
    y = _axis("above the reference (sd)", rows, 0.0)
    color = _color([row["curve"] for row in rows])
    place: Spec = {"x": {"field": "root", **x}, "y": {"field": "value", **y}, "color": color}
    faded: Spec = {"condition": {"param": "shown", "empty": True, "value": 1.0}, "value": 0.08}
    shown: Spec = {"name": "shown", "select": {"type": "point", "fields": ["curve"]}, "bind": "legend"}
    order = {"detail": {"field": "line"}, "order": {"field": "step"}, "opacity": faded}
    layers: list[Spec] = [
        reference_line("y", 0.0, scale=y["scale"], dashed=False),
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {**place, **order, "strokeDash": _dash(HELD_OUT, TRAINED_ON)},
        },
        {
            "params": [shown],
            "transform": [{"filter": "!datum.start"}],
            "mark": {"type": "point", "filled": True, "size": 45},
            "encoding": {
                **place,
                "opacity": faded,
                "tooltip": [{"field": "kind", "type": "nominal", "title": "Reward"}, *_pointer("Above (sd)")],
            },
        },
    ]
    return specification(rows, layers, height=HEIGHT)


def standard_rows(values: Values, name: str) -> list[dict[str, Any]] | None:
    """The rows of both rewards above the reference's, in standard deviations of its completions, with `kind` and
    `root`, the square root of KL; None where a reward of the reference has no spread."""
    rows: list[dict[str, Any]] = []
    for which, kind in ((REWARD, TRAINED_ON), (name, HELD_OUT)):
        sd, own = values["sd"][which], values["reference"]["rewards"][which]["value"]
        if sd is None or own is None:
            return None
        for row in curve_rows(values, which):
            # A mean stands for its seeds, which would hide each other here.
            if row["role"] != "seed":
                ends = {end: None if row[end] is None else (row[end] - own) / sd for end in ("value", "low", "high")}
                more = {"kind": kind, "root": math.sqrt(max(row["kl"], 0.0)), "line": f"{row['line']} {kind}"}
                rows.append({**row, **ends, **more})
    return rows


def by_data(rows: Sequence[Row], method: str) -> Spec:
    """One method under several data sizes, proxy dashed and gold solid; axes are those of all methods.

    Source: as of `over_optimisation`.

    Args:
        rows: of `standard_rows`, with the size's name as `data`, of all methods and sizes in their order.
        method: the run, or best of n, that is drawn.
    """
    own = [{**row, "kind": _GOLD_OR_PROXY[row["kind"]]} for row in rows if row["curve"] == method]
    x = _distance("square root of KL (nats)", [{"value": row["root"]} for row in rows])
    y = _axis("above the reference (sd)", rows, 0.0)
    names = list(dict.fromkeys(row["data"] for row in rows))
    shown: Spec = {"name": "shown", "select": {"type": "point", "fields": ["data"]}, "bind": "legend"}
    faded: Spec = {"condition": {"param": "shown", "empty": True, "value": 1.0}, "value": 0.08}
    colors = {name: BY_SIZE[min(number, len(BY_SIZE) - 1)] for number, name in enumerate(names)}
    legend = {"columns": _columns(names, _HALF_WIDTH)}
    place: Spec = {
        "x": {"field": "root", **x},
        "y": {"field": "value", **y},
        "color": {"field": "data", "type": "nominal", "scale": color_scale(colors), "legend": legend},
        "opacity": faded,
    }
    line: Spec = {**place, "detail": {"field": "line"}, "order": {"field": "step"}}
    line["strokeDash"] = _dash(_GOLD_OR_PROXY[HELD_OUT], _GOLD_OR_PROXY[TRAINED_ON], orient="bottom")
    band: Spec = {**place, "y": {"field": "low", **y}, "y2": {"field": "high"}}
    tooltip = [
        {"field": "data", "type": "nominal", "title": "Data"},
        {"field": "kind", "type": "nominal", "title": "Reward"},
        *_pointer("Above (sd)"),
    ]
    layers: list[Spec] = [
        reference_line("y", 0.0, scale=y["scale"], dashed=False),
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "rule", "strokeWidth": 1},
            "encoding": band,
        },
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": line},
        {
            "params": [shown],
            "transform": [{"filter": "!datum.start"}],
            "mark": {"type": "point", "filled": True, "size": 40},
            "encoding": {**place, "tooltip": tooltip},
        },
    ]
    return specification(own, layers)


def curve_rows(values: Values, name: str) -> list[dict[str, Any]]:
    """A row per point of a curve: of a run with several seeds also the mean of those at each step.

    `role` is `seed` (one of several), `mean` (of several, or the only one) or `best`.
    """
    picked = {(one["run"], one["seed"], one["step"]) for one in values["chosen"]}
    reference = values["reference"]
    start = {**_point(reference, name), "start": True, "chosen": False, "step": -1, "label": "reference"}
    found = []
    for run in dict.fromkeys(one["run"] for one in values["checkpoints"]):
        own = [one for one in values["checkpoints"] if one["run"] == run and one["rewards"][name]["value"] is not None]
        seeds = sorted({one["seed"] for one in own})
        role = "mean" if len(seeds) < 2 else "seed"
        for seed in seeds:
            line = {"curve": run, "line": f"{run} {seed}", "role": role, "label": f"seed {seed}"}
            found += [{**start, **line}] if run in values["from_reference"] else []
            for one in own:
                if one["seed"] == seed:
                    chosen = (run, seed, one["step"]) in picked
                    found.append({**_point(one, name), **line, "step": one["step"], "start": False, "chosen": chosen})
        if role == "seed":
            line = {"curve": run, "line": run, "role": "mean", "label": _ALL_SEEDS}
            found += [{**start, **line}] if run in values["from_reference"] else []
            found += [{**row, **line} for row in _means(own, name, len(seeds), values["level"])]
    for one in values["best_of"]:
        if one["rewards"][name]["value"] is not None:
            known: Values = {**one, "kl": {"value": one["kl"], "low": None, "high": None}}
            line = {"curve": BEST_OF, "line": BEST_OF, "role": "best", "label": f"best of {one['n']}", "step": one["n"]}
            found.append({**_point(known, name), **line, "start": False, "chosen": False})
    return found


def _means(own: Sequence[Values], name: str, seeds: int, level: float) -> list[dict[str, Any]]:
    """Means over the seeds at the steps that all of them have, with intervals of the rewards."""
    found = []
    for step in sorted({one["step"] for one in own}):
        points = [_point(one, name) for one in own if one["step"] == step]
        if len(points) == seeds:
            means = {key: _mean([point[key] for point in points]) for key in points[0]}
            together = over_seeds([one["rewards"][name] for one in own if one["step"] == step], level)
            ends = {"low": together["low"], "high": together["high"], "kl_low": None, "kl_high": None}
            found.append({**means, **ends, "step": step, "start": False, "chosen": False})
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return math.fsum(known) / len(known) if known else None


def _point(one: Values, name: str) -> dict[str, Any]:
    reward, divergence = one["rewards"][name], one["kl"]
    return {
        "kl": divergence["value"],
        "kl_low": divergence["low"],
        "kl_high": divergence["high"],
        "value": reward["value"],
        "low": reward["low"],
        "high": reward["high"],
        "tokens": one["tokens"]["value"],
        "unfinished": one.get("unfinished", {}).get("value"),
        "distinct_2": one.get("distinct_2"),
    }


def _lines(encoding: Spec, role: str, mark: Mapping[str, Any]) -> Spec:
    return {
        "transform": [{"filter": f"datum.role === '{role}'"}],
        "mark": {"type": "line", **mark},
        "encoding": encoding,
    }


def _distance(title: str, rows: Sequence[Row]) -> Spec:
    """The axis of divergences: from 0 on, unless estimates are below it by more than 2 % of the way to the largest.

    Intervals make no room on the left, where no divergence is.
    """
    axis = _axis(title, rows, 0.0)
    values = [row["value"] for row in rows]
    is_below = min(values, default=0.0) < -_BELOW * max(values, default=0.0)
    axis["scale"]["domain"][0] = domain([{"value": value} for value in values], 0.0)[0] if is_below else 0.0
    return axis


def _axis(title: str, rows: Sequence[Row], reference: float | None) -> Spec:
    scale = {"domain": domain(rows, reference), "zero": False, "nice": False}
    return {"type": "quantitative", "title": title, "scale": scale, "axis": {"tickCount": 7, "grid": True}}


def _color(names: Sequence[str]) -> Spec:
    runs = [name for name in dict.fromkeys(names) if name != BEST_OF]
    colors = [PALETTE[number % len(PALETTE)] for number in range(len(runs))]
    if BEST_OF in names:
        runs, colors = [*runs, BEST_OF], [*colors, GREY]
    legend = {"columns": _columns(runs, _LEGEND_WIDTH)}
    return {"field": "curve", "type": "nominal", "scale": {"domain": runs, "range": colors}, "legend": legend}


def _columns(names: Sequence[str], width: int) -> int:
    """As many as a line of the legend holds: what is beyond the edge would be cut off."""
    return max(1, width // (max(map(len, names)) + _LEGEND_MARK))


def _dash(solid: str, dashed: str, orient: str = "top") -> Spec:
    stroke = {"symbolType": "stroke", "symbolStrokeColor": "#20262d", "symbolStrokeWidth": 2, "symbolSize": 300}
    scale = {"domain": [solid, dashed], "range": [[1, 0], [5, 4]]}
    return {"field": "kind", "type": "nominal", "legend": {**stroke, "orient": orient}, "scale": scale}


def _pointer(title: str) -> list[Spec]:
    return [
        {"field": "curve", "type": "nominal", "title": "Run"},
        {"field": "label", "type": "nominal", "title": "Which"},
        number_field("step", "Step, or n", "d"),
        number_field("kl", "KL (nats)"),
        number_field("kl_low", "KL from"),
        number_field("kl_high", "KL to"),
        number_field("value", title),
        number_field("low", "From"),
        number_field("high", "To"),
        number_field("tokens", "Tokens", ".1f"),
        number_field("unfinished", "Unfinished", ".1%"),
        number_field("distinct_2", "Distinct 2-grams"),
    ]
