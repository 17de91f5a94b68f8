"""The figures of a simulation: what became of the estimators while a dial was turned.

Each takes rows of simulation.json, of one law, in which one dial varies. Everything but coverage is in standard
deviations of the original rewards. Colours are those of the figures of audits. Names in the rows are the program's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardlab.functional.intervals import proportion
from rewardlab.report.audit_figures import COLORS, PURPLE, TEAL
from rewardlab.report.audit_words import ESTIMATORS, TARGETS
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
    tooltip_fields,
)

DIALS: Mapping[str, str] = {
    "confounding": "confounding: correlation of the attribute with the author's skill",
    "asymmetry": "asymmetry of the rewriter's drift (0: none; 1: only towards W = 1)",
}
TARGET_COLORS: Mapping[str, str] = {"ATE": BLUE, "ATT": ORANGE, "ATU": PURPLE, "balanced": TEAL}
CAUSES: Mapping[str, tuple[str, str]] = {
    "bias": ("Bias", BLUE),
    "from_asymmetry": ("of it asymmetry", ORANGE),
    "from_non_additivity": ("of it non-additivity", PURPLE),
    "noise": ("Noise (sd)", GREY),
}
HEIGHT = 260
_NORMAL_95 = 1.96
_ON_TOP = "RATE, corrected"


def bias_by_dial(rows: Sequence[Row], dial: str, ends: Sequence[float], *, by: str = "estimator") -> Spec:
    """Bias with 95 % intervals over the samples, a line per estimator or target; dashed, what the laws state.

    Args:
        rows: `bias, bias_error, stated`, the dial, and `estimator` or `target`.
        dial: what varies.
        ends: of the axis of biases, shared with the figure beside this one.
        by: what a line is, `estimator` or `target`.
    """
    values = [{**row, **_band(row["bias"], row["bias_error"])} for row in _named(rows, by)]
    y = _y("bias (standard deviations)", ends)
    stated: Spec = {
        "transform": [{"filter": "isValid(datum.stated)"}],
        "mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [2, 3]},
        "encoding": {"y": {"field": "stated", **y}, "detail": {"field": "name"}, "color": {"value": "#20262d"}},
    }
    numbers = {"value": "Bias (sd)", "low": "From", "high": "To", "stated": "Stated by the law"}
    return _curves(values, dial, _colors(values), [*_dots(y, numbers), stated], reference_line("y", 0.0))


def rmse_by_dial(rows: Sequence[Row], dial: str, top: float) -> Spec:
    """Root mean squared error (lines with dots) and standard deviation (dashed) of the estimators.

    Args:
        rows: `rmse, sd, estimator` and the dial.
        dial: what varies.
        top: of the axis, shared with the figure beside this one.
    """
    values = [{**row, "value": row["rmse"], "low": None, "high": None} for row in _named(rows, "estimator")]
    y = _y("RMSE, and dashed sd (standard deviations)", (0.0, top))
    spread: Spec = {
        "mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [5, 4]},
        "encoding": {"y": {"field": "sd", **y}},
    }
    return _curves(values, dial, _colors(values), [spread, *_dots(y, {"value": "RMSE (sd)", "sd": "sd (sd)"})])


def coverage_by_dial(rows: Sequence[Row], dial: str, samples: int, level: float) -> Spec:
    """Share of the samples whose interval holds the truth, with 95 % intervals, in per cent.

    Args:
        rows: `coverage, estimator` and the dial; without `coverage` where there are no intervals.
        dial: what varies.
        samples: over which `coverage` is a share.
        level: coverage that the intervals claim.
    """
    values = []
    for row in _named(rows, "estimator"):
        if row["coverage"] is not None:
            held = round(row["coverage"] * samples)
            found = proportion((np.arange(samples) < held).astype(np.float64))
            low, high = (100.0 * end if end is not None else None for end in (found.low, found.high))
            values.append({**row, "value": 100.0 * row["coverage"], "low": low, "high": high})
    y = _y("samples whose interval holds the truth (%)", (0.0, 100.0))
    claimed = reference_line("y", 100.0 * level)
    numbers = {"value": "Coverage (%)", "low": "From", "high": "To"}
    return _curves(values, dial, _colors(values), _dots(y, numbers, ".1f"), claimed)


def causes_by_dial(rows: Sequence[Row], dial: str, ends: Sequence[float]) -> Spec:
    """The bias of RATE, what of it is asymmetry and what non-additivity, and the noise from sample to sample.

    Args:
        rows: of `causes` in simulation.json.
        dial: what varies.
        ends: of the axis, shared with the figure beside this one.
    """
    values = [
        {dial: row[dial], "name": title, **_band(row[cause], row.get(f"{cause}_error", 0.0))}
        for cause, (title, _) in CAUSES.items()
        for row in rows
    ]
    y = _y("error of RATE (standard deviations)", ends)
    colors = dict(CAUSES.values())
    numbers = {"value": "Error (sd)", "low": "From", "high": "To"}
    return _curves(values, dial, colors, _dots(y, numbers), reference_line("y", 0.0))


def shared_ends(rows: Sequence[Row], names: Sequence[str]) -> list[float]:
    """Ends of an axis that has room for these columns of all rows, with their errors, and for 0."""
    values = [
        _band(row[name], row.get(f"{name}_error", 0.0)) for row in rows for name in names if row.get(name) is not None
    ]
    return domain(values, 0.0)


def _band(value: float, error: float) -> dict[str, float]:
    return {"value": value, "low": value - _NORMAL_95 * error, "high": value + _NORMAL_95 * error}


def _named(rows: Sequence[Row], by: str) -> list[dict[str, Any]]:
    """The rows with the words for what their line is."""
    words, colors = (ESTIMATORS, COLORS) if by == "estimator" else (TARGETS, TARGET_COLORS)
    return [{**row, "name": words[row[by]], "color": colors[row[by]]} for row in rows]


def _colors(values: Sequence[Row]) -> dict[str, str]:
    return {row["name"]: row["color"] for row in values}


def _y(title: str, ends: Sequence[float]) -> Spec:
    scale = {"domain": list(ends), "zero": False, "nice": False}
    return {"type": "quantitative", "title": title, "scale": scale, "axis": {"tickCount": 6}}


def _dots(y: Spec, numbers: Mapping[str, str], form: str = ".3f") -> list[Spec]:
    """Lines with dots and intervals; estimates that lie on each other are seen through."""
    on_top = {"test": f"datum.name === '{_ON_TOP}'"}
    pointer = [*tooltip_fields({"name": ""}), *(number_field(name, title, form) for name, title in numbers.items())]
    return [
        {
            "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.45},
            "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}},
        },
        {"mark": {"type": "line", "strokeWidth": 2, "opacity": 0.75}, "encoding": {"y": {"field": "value", **y}}},
        {
            "mark": {"type": "point", "filled": False, "strokeWidth": 2, "opacity": 1},
            "encoding": {
                "y": {"field": "value", **y},
                "size": {"condition": {**on_top, "value": 150}, "value": 45},
                "tooltip": pointer,
            },
        },
    ]


def _curves(
    values: Sequence[Row], dial: str, colors: Mapping[str, str], layers: list[Spec], reference: Spec | None = None
) -> Spec:
    encoding: Spec = {
        "x": {
            "field": dial,
            "type": "quantitative",
            "title": DIALS[dial],
            "scale": {"zero": False, "nice": False, "padding": 14},
            "axis": {"tickCount": 6, "grid": False},
        },
        "color": {"field": "name", "type": "nominal", "scale": color_scale(colors), "legend": {"columns": 2}},
    }
    # The reference line stands outside: it has no place along the dial.
    curves: Spec = {"layer": layers, "encoding": encoding}
    return specification(values, [curves] if reference is None else [reference, curves], height=HEIGHT)
