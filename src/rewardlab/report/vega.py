"""What the figures share: the look, and the small parts of a Vega-Lite specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Row = Mapping[str, Any]

VEGA_LITE = "https://vega.github.io/schema/vega-lite/v6.json"
BLUE, ORANGE, GREY = "#2f7fd1", "#d1701a", "#7d8590"
WIDTH_PIXELS, HEIGHT_PIXELS = 640, 300
NARROW_PIXELS = 460
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif"
CONFIG: Spec = {
    "background": "#ffffff",
    "font": FONT,
    "view": {"stroke": None},
    # A picture is read out as its one sentence, with its table below, not as a thousand dots.
    "mark": {"aria": False},
    "axis": {
        "aria": False,
        "labelFontSize": 12,
        "titleFontSize": 12.5,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelColor": "#4b5560",
        "titleColor": "#20262d",
        "gridColor": "#e4e8ec",
        "domainColor": "#b6bec7",
        "tickColor": "#b6bec7",
        "labelOverlap": True,
    },
    "legend": {
        "aria": False,
        "orient": "top",
        "title": None,
        "labelFontSize": 12.5,
        "labelColor": "#20262d",
        "symbolSize": 90,
        "symbolOpacity": 1,
        "offset": 6,
        "columnPadding": 18,
    },
    "text": {"color": "#20262d", "fontSize": 12.5},
}


def specification(
    values: Sequence[Row], layers: list[Spec], *, height: Any = HEIGHT_PIXELS, encoding: Spec | None = None
) -> Spec:
    """A specification of the fixed width: layers over the values."""
    return {
        "$schema": VEGA_LITE,
        "width": WIDTH_PIXELS,
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 4,
        "config": CONFIG,
        "data": {"values": list(values)},
        **({"encoding": encoding} if encoding else {}),
        "layer": layers,
    }


def reference_line(
    channel: str, value: float, label: str = "", scale: Spec | None = None, *, dashed: bool = True
) -> Spec:
    """A thin line at a value; its label, if any, stands at its end.

    `scale` is that of the other layers where it is not the default, as layers share the union of their scales. It is
    not `dashed` where dashes tell curves apart.
    """
    place: Spec = {"datum": value, "type": "quantitative", **({"scale": scale} if scale else {})}
    line: Spec = {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": GREY, "strokeWidth": 1.25, **({"strokeDash": [4, 4]} if dashed else {})},
        "encoding": {channel: place, **({"y": None} if channel == "x" else {})},
    }
    if not label:
        return line
    offset = {"align": "left", "dx": 5, "dy": -7} if channel == "x" else {"align": "right", "dx": -2, "dy": -7}
    other = {"y": {"value": "height"}} if channel == "x" else {"x": {"value": "width"}}
    text: Spec = {
        "data": {"values": [{}]},
        "mark": {"type": "text", "color": GREY, "fontSize": 11.5, "text": label, **offset},
        "encoding": {channel: place, **other},
    }
    return {"layer": [line, text]}


def tooltip_fields(titles: Mapping[str, str]) -> list[Spec]:
    """Fields of a row for the pointer, as they stand, with their titles."""
    return [{"field": field, "type": "nominal", "title": title or field} for field, title in titles.items()]


def number_field(field: str, title: str, form: str = ".3f") -> Spec:
    """A number of a row for the pointer, in the given format."""
    return {"field": field, "type": "quantitative", "title": title, "format": form}


def color_scale(colors: Mapping[str, str]) -> Spec:
    """Names and their colours."""
    return {"domain": list(colors), "range": list(colors.values())}


def domain(values: Sequence[Row], reference: float | None) -> list[float]:
    """Room for every value, interval and the reference, with a margin of 6 %."""
    seen = [row[name] for row in values for name in ("value", "low", "high") if row.get(name) is not None]
    seen += [] if reference is None else [reference]
    low, high = min(seen, default=0.0), max(seen, default=1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return [low - room, high + room]


_SQUEEZED = 5.0
"""How many times as wide a picture may be for its widest intervals alone."""


def readable_domain(values: Sequence[Row], reference: float | None) -> list[float]:
    """As `domain`, but the widest intervals, a third of them at most, may end outside where all others would be dots.

    Values themselves are always inside.
    """
    whole = domain(values, reference)
    by_width = sorted((at for at, row in enumerate(values) if _width(row)), key=lambda at: -_width(values[at]))
    for count in range(1, len(by_width) // 3 + 1):
        cut = by_width[:count]
        kept = domain([{"value": row["value"]} if at in cut else row for at, row in enumerate(values)], reference)
        if (whole[1] - whole[0]) > _SQUEEZED * (kept[1] - kept[0]):
            return kept
    return whole


def clipped(values: Sequence[Row], ends: Sequence[float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows with intervals that end where the picture does, and for every end cut off a row `at, shape` beside."""
    drawn, beyond = [], []
    for row in values:
        low, high = row.get("low"), row.get("high")
        drawn.append({**row})
        if low is not None and low < ends[0]:
            drawn[-1]["low"] = ends[0]
            beyond.append({**row, "at": ends[0], "shape": "triangle-left"})
        if high is not None and high > ends[1]:
            drawn[-1]["high"] = ends[1]
            beyond.append({**row, "at": ends[1], "shape": "triangle-right"})
    return drawn, beyond


def _width(row: Row) -> float:
    low, high = row.get("low"), row.get("high")
    return 0.0 if low is None or high is None else float(high - low)
