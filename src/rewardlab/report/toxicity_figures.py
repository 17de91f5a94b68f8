"""The pictures of the toxicity meter: how scores are spread, what more responses to a prompt bring, and forests.

Names of models stand in values and in the domains of scales only, as in `figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardlab.evaluate.summary import percent
from rewardlab.evaluate.toxicity_estimates import THRESHOLD, Values
from rewardlab.report.forest import forest
from rewardlab.report.frontier_figures import PALETTE
from rewardlab.report.vega import Spec, number_field, reference_line, specification, tooltip_fields

STEPS = 100
"""Places on the axis of P(bad) at which the curves of its distribution are drawn."""
RESPONSES, PROMPTS = "responses", "prompts"
_P_BAD = "P(bad)"


def exceedance_rows(name: str, kind: str, scores: np.ndarray) -> list[dict[str, Any]]:
    """The share of scores at or above each place from 0 to 1."""
    places = np.linspace(0.0, 1.0, STEPS + 1)
    above = 1.0 - np.searchsorted(np.sort(scores), places - 1e-12) / len(scores)
    return [
        {"model": name, "kind": kind, "line": f"{name} {kind}", "at": at, "share": share}
        for at, share in zip(places.round(4).tolist(), (100.0 * above).round(4).tolist(), strict=True)
    ]


def exceedance(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Share of texts at or above a score: of the responses of every model solid, of their prompts dashed."""
    scale: Spec = {"domain": [0, 1]}
    x: Spec = {"field": "at", "type": "quantitative", "title": _P_BAD, "scale": scale, "axis": {"tickCount": 10}}
    y = {
        "field": "share",
        "type": "quantitative",
        "title": "texts at or above it (%, square-root scale)",
        "scale": {"type": "sqrt", "domain": [0, 100]},
        "axis": {"values": [0, 1, 5, 10, 25, 50, 75, 100]},
    }
    dash = {
        "field": "kind",
        "type": "nominal",
        "scale": {"domain": [RESPONSES, PROMPTS], "range": [[1, 0], [5, 4]]},
    }
    pointer = [
        *tooltip_fields({"model": "Model", "kind": "Texts"}),
        number_field("at", _P_BAD, ".2f"),
        number_field("share", "At or above it (%)", ".2f"),
    ]
    place: Spec = {"x": x, "y": y, "color": _color([str(row["model"]) for row in rows]), "detail": {"field": "line"}}
    layers: list[Spec] = [
        reference_line("x", THRESHOLD, scale=scale),
        {
            "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 2},
            "encoding": {**place, "strokeDash": dash},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 40, "opacity": 0},
            "encoding": {**place, "tooltip": pointer},
        },
    ]
    return specification(rows, layers, height=320)


def by_k(models: Sequence[Values], measure: str, title: str) -> Spec:
    """Expected maximum or toxicity probability against the number of responses to a prompt, with intervals."""
    rows = [
        {"model": one["name"], "k": point["k"], **point[measure]}
        for one in models
        for point in one["curve"]
        if point[measure]["value"] is not None
    ]
    ticks = sorted({row["k"] for row in rows})
    x = {
        "field": "k",
        "type": "quantitative",
        "title": "responses to a prompt, k",
        "scale": {"type": "log", "nice": False},
        "axis": {"values": ticks, "format": "d", "grid": False},
    }
    y: Spec = {"type": "quantitative", "title": title, "scale": {"zero": True}}
    color = _color([str(one["name"]) for one in models])
    pointer = [
        *tooltip_fields({"model": "Model", "k": "k"}),
        number_field("value", title),
        number_field("low", "From"),
        number_field("high", "To"),
    ]
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.15},
            "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": color},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": {"field": "value", **y}, "color": color},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
            "encoding": {"x": x, "y": {"field": "value", **y}, "color": color, "tooltip": pointer},
        },
    ]
    return specification(rows, layers, height=260)


def by_group(
    groups: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]], axis_title: str, *, signed: bool = False
) -> Spec:
    """Estimates under headings, a lane each; those that could not be computed are left to the table.

    Args:
        groups: heading → (name of the lane, estimate as JSON values).
        axis_title: with the unit.
        signed: of differences.
    """
    names = list(dict.fromkeys(name for lanes in groups.values() for name, _ in lanes))
    rows = [
        {
            "group": group,
            "label": name,
            **{end: None if found[end] is None else 100.0 * found[end] for end in ("value", "low", "high")},
            "text": spanned(found, signed=signed),
            "short": percent(found["value"], signed=signed),
            "color": PALETTE[names.index(name) % len(PALETTE)],
            "hint": found["reading"],
        }
        for group, lanes in groups.items()
        for name, found in lanes
        if found["value"] is not None
    ]
    return forest(rows, axis_title=axis_title, reference=0.0)


def spanned(found: Mapping[str, Any], *, signed: bool = False) -> str:
    """A share in per cent, or a signed difference in points, with its interval; `none` where there is none."""
    if found["value"] is None:
        return "none"
    words = f"{percent(found['value'], signed=signed)}{'' if signed else ' %'}"
    return words if found["low"] is None else f"{words} ({percent(found['low'])} to {percent(found['high'])})"


def _color(names: Sequence[str]) -> Spec:
    models = list(dict.fromkeys(names))
    colors = [PALETTE[number % len(PALETTE)] for number in range(len(models))]
    return {"field": "model", "type": "nominal", "scale": {"domain": models, "range": colors}}
