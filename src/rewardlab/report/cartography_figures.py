"""The figures of a map of training data; conventions as in `figures`.

Correctness runs from orange (never right) over grey to blue (right in every epoch).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rewardlab.report.vega import (
    BLUE,
    GREY,
    ORANGE,
    Row,
    Spec,
    number_field,
    reference_line,
    specification,
    tooltip_fields,
)

MAP_PIXELS = 400


def data_map(points: Sequence[Row], *, x_title: str, y_title: str, reference: float, several: bool = False) -> Spec:
    """Confidence against variability, a dot per pair, coloured by correctness.

    Args:
        points: `confidence, variability, correctness, forgetting, prompt, chosen, rejected`.
        x_title: of variability, with the unit.
        y_title: of confidence, with the unit.
        reference: confidence of a coin.
        several: whether the numbers are means over trainings.
    """
    opacity = min(0.85, max(0.3, 16.0 / math.sqrt(max(len(points), 1))))
    y: Spec = {"type": "quantitative", "title": y_title, "scale": {"zero": False}}
    color: Spec = {
        "field": "correctness",
        "type": "quantitative",
        "scale": {"domain": [0, 0.5, 1], "range": [ORANGE, GREY, BLUE], "interpolate": "rgb"},
        "legend": {
            "title": "share of epochs ranked right",
            "format": ".0%",
            "values": [0, 0.5, 1],
            "gradientLength": 160,
        },
    }
    dots: Spec = {
        "mark": {"type": "point", "filled": True, "size": 34, "opacity": opacity},
        "encoding": {
            "x": {"field": "variability", "type": "quantitative", "title": x_title, "axis": {"tickCount": 6}},
            "y": {"field": "confidence", **y},
            "color": color,
            "tooltip": [
                *tooltip_fields({"prompt": "Prompt", "chosen": "Chosen", "rejected": "Rejected"}),
                number_field("confidence", "Confidence", "+.3f"),
                number_field("variability", "Variability"),
                number_field("correctness", "Epochs ranked right", ".0%"),
                number_field("forgetting", f"Times forgotten{' per training' * several}", ".3~r"),
            ],
        },
    }
    return specification(points, [reference_line("y", reference, scale=y["scale"]), dots], height=MAP_PIXELS)


def length_along_confidence(rows: Sequence[Row], *, x_title: str) -> Spec:
    """Share of pairs whose longer side is chosen along confidence, a dot with its interval per bin.

    Args:
        rows: `low, high, confidence, n, longer_is_chosen` with its ends; shares as fractions.
        x_title: of confidence, with the unit.
    """
    values: list[dict[str, Any]] = [
        {
            **row,
            "range": f"{row['low']:.3g} to {row['high']:.3g}".replace("-", "\N{MINUS SIGN}"),
            **{
                name: None if row[name] is None else 100.0 * row[name]
                for name in ("longer_is_chosen", "longer_is_chosen_low", "longer_is_chosen_high")
            },
        }
        for row in rows
        if row["longer_is_chosen"] is not None
    ]
    x: Spec = {"type": "quantitative", "title": x_title, "scale": {"zero": False}, "axis": {"tickCount": 8}}
    y: Spec = {"type": "quantitative", "title": "longer answer is chosen (%)", "scale": {"domain": [0, 100]}}
    pointer = [
        *tooltip_fields({"range": "Confidence", "n": "Pairs"}),
        number_field("longer_is_chosen", "Longer is chosen (%)", ".1f"),
        number_field("longer_is_chosen_low", "Interval from (%)", ".1f"),
        number_field("longer_is_chosen_high", "Interval to (%)", ".1f"),
    ]
    place = {"x": {"field": "confidence", **x}, "tooltip": pointer}
    layers: list[Spec] = [
        reference_line("y", 50.0, "coin flip"),
        {
            "mark": {"type": "line", "color": BLUE, "strokeWidth": 1.5, "opacity": 0.5},
            "encoding": {**place, "y": {"field": "longer_is_chosen", **y}},
        },
        {
            "mark": {"type": "rule", "color": BLUE, "strokeWidth": 3, "strokeCap": "round", "opacity": 0.45},
            "encoding": {
                **place,
                "y": {"field": "longer_is_chosen_low", **y},
                "y2": {"field": "longer_is_chosen_high"},
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "color": BLUE},
            "encoding": {**place, "y": {"field": "longer_is_chosen", **y}},
        },
    ]
    return specification(values, layers, height=280)
