"""The figure of numbers with intervals under each other: a forest.

Texts from the data stand in values only, as in `figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardlab.report.vega import (
    GREY,
    NARROW_PIXELS,
    Row,
    Spec,
    clipped,
    readable_domain,
    reference_line,
    specification,
    tooltip_fields,
)

LANE_PIXELS, HEADING_PIXELS = 24, 34
_LABEL_PIXELS, _FIGURES_PIXELS = 196, 176
_NARROW_LABEL_PIXELS, _NARROW_FIGURES_PIXELS = 118, 54
_COLOR: Spec = {"field": "color", "type": "nominal", "scale": None, "legend": None}
_TEXT: Spec = {"type": "text", "baseline": "middle"}


def forest(rows: Sequence[Row], *, axis_title: str, reference: float | None = 0.0, reference_label: str = "") -> Spec:
    """One lane per number under the heading of its group: name at the left, dot with interval, figures at the right.

    Args:
        rows: `group, label, value, low, high, text, short, color` and, for the pointer, `hint`; rows of a group stand
            together; `low` and `high` may be None, `value` not.
        axis_title: with the unit.
        reference: where a vertical line stands; None for none.
        reference_label: what the line means.
    """
    lanes, headings, height = _placed(rows)
    ends_drawn = readable_domain(lanes, reference)
    lanes, beyond = clipped(lanes, ends_drawn)
    y: Spec = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [height, 0], "nice": False}}
    ends = [
        {"expr": f"width < {NARROW_PIXELS} ? {_NARROW_LABEL_PIXELS} : {_LABEL_PIXELS}"},
        {"expr": f"width - (width < {NARROW_PIXELS} ? {_NARROW_FIGURES_PIXELS} : {_FIGURES_PIXELS})"},
    ]
    x_scale: Spec = {"domain": ends_drawn, "zero": False, "nice": False, "range": ends}
    x: Spec = {"type": "quantitative", "title": axis_title, "scale": x_scale, "axis": {"tickCount": 6, "grid": True}}
    layers = [*_dots_with_intervals(x, y), *_names_and_figures(y)]
    if beyond:
        layers.append(_beyond(beyond, x, y))
    if headings:
        layers.append(
            {
                "data": {"values": headings},
                "mark": {**_TEXT, "align": "left", "fontWeight": "bold", "limit": {"expr": "width"}},
                "encoding": {"x": {"value": 0}, "y": y, "text": {"field": "group"}},
            }
        )
    if reference is not None:
        layers.insert(0, reference_line("x", reference, scale=x_scale))
        # Above the lanes: beside the line it would stand in the figures at the right, or in a name at the left.
        label = {**_TEXT, "align": "center", "dy": -9, "color": GREY, "fontSize": 11.5, "text": reference_label}
        place = {"x": {"datum": reference, "type": "quantitative", "scale": x_scale}, "y": {"value": 0}}
        layers.append({"data": {"values": [{}]}, "mark": label, "encoding": place})
    return specification(lanes, layers, height=height)


def _dots_with_intervals(x: Spec, y: Spec) -> list[Spec]:
    pointer = tooltip_fields({"label": "", "text": "Estimate", "hint": "How to read it"})
    return [
        {
            "mark": {"type": "rule", "strokeWidth": 3, "strokeCap": "round", "opacity": 0.55},
            "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, "y": y, "color": _COLOR},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": {"field": "value", **x}, "y": y, "color": _COLOR, "tooltip": pointer},
        },
    ]


def _names_and_figures(y: Spec) -> list[Spec]:
    """The words at the left and at the right of every lane."""
    figures_text = {"condition": {"test": f"width < {NARROW_PIXELS}", "field": "short"}, "field": "text"}
    room = {"expr": f"(width < {NARROW_PIXELS} ? {_NARROW_LABEL_PIXELS} : {_LABEL_PIXELS}) - 12"}
    return [
        {
            "mark": {**_TEXT, "align": "left", "limit": room},
            "encoding": {"x": {"value": 0}, "y": y, "text": {"field": "label"}},
        },
        {
            "mark": {**_TEXT, "align": "right"},
            "encoding": {"x": {"value": "width"}, "y": y, "text": figures_text},
        },
    ]


def _beyond(beyond: Sequence[Row], x: Spec, y: Spec) -> Spec:
    """Marks at the edge, for ends of intervals that lie outside of what is drawn."""
    return {
        "data": {"values": beyond},
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.8},
        "encoding": {
            "x": {"field": "at", **x},
            "y": y,
            "color": _COLOR,
            "shape": {"field": "shape", "type": "nominal", "scale": None, "legend": None},
        },
    }


def _placed(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Rows and headings with their distance from the top in pixels, and the height of the whole."""
    lanes, headings, at = [], [], 6
    group = ""
    for row in rows:
        if row["group"] != group:
            group = str(row["group"])
            at += HEADING_PIXELS
            headings.append({"group": group, "y": at - LANE_PIXELS / 2})
        lanes.append({**row, "y": at + LANE_PIXELS / 2})
        at += LANE_PIXELS
    return lanes, headings, max(at + 6, LANE_PIXELS)
