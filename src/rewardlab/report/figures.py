"""The figures of a report as Vega-Lite specifications: plain dictionaries, data included.

Each public function takes a table (a list of rows) and returns one specification of a fixed width; the page
stretches it to the reader's screen and `write_images` makes SVG and PNG files of it.

Conventions: accuracies and shares come as fractions and are drawn in per cent; differences are always chosen
minus rejected; the colour blue means ranked right or "this model", orange wrong or "for comparison". The two,
and the grey beside them, are told apart by colour-blind readers and keep a contrast of 3:1 on white and on
the page's dark background.

Texts from the data stand in the values and in the domains of scales only. Elsewhere, in a `sort` or a `test`,
Vega-Lite would write them into the code of an expression.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from rewardlab.report.vega import (
    BLUE,
    GREY,
    HEIGHT_PIXELS,
    NARROW_PIXELS,
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
from rewardlab.store import files

ROW_PIXELS = 48
ABOVE_DOT_PIXELS, BELOW_DOT_PIXELS = 8, 16
"""From where the name of a row ends, above its dot, to where that of the next one begins."""
LENGTH_TITLE = "length of chosen minus rejected (tokens)"
LINEAR_WITHIN_TOKENS = 10
"""Differences about this small are drawn to scale, larger ones by their logarithm."""
_HALO = "<style>.mark-text text { paint-order: stroke; stroke: white; stroke-width: 4px; }</style>"
"""As in page.css: text in a drawing has an outline of paper, so that no line runs through the letters."""
PNG_SCALE = 2.0


def dots_with_intervals(
    rows: Sequence[Row], *, axis_title: str, reference: float | None, reference_label: str = "", percent: bool = True
) -> Spec:
    """One line per number: its name above, a dot with its interval, the figures at the right.

    Args:
        rows: `label, value, low, high, text, short, n, method, reading, role`: the numbers in words with and
            without interval; `role` is "model" or "comparison"; `low` and `high` may be None, `value` not.
        axis_title: with the unit.
        reference: where a vertical line stands (.5 for a coin), in the units of `value`; None for none.
        reference_label: what the line means.
        percent: fractions that are drawn in per cent.
    """
    factor = 100.0 if percent else 1.0
    values = [{**_scaled(row, ("value", "low", "high"), factor), "line": line} for line, row in enumerate(rows)]
    line = {"field": "line", "type": "ordinal", "axis": None, "scale": {"paddingOuter": 0.35}}
    x: Spec = {
        "type": "quantitative",
        "title": axis_title,
        "scale": {
            "domain": domain(values, None if reference is None else reference * factor),
            "zero": False,
            "nice": False,
        },
        "axis": {"tickCount": 7},
    }
    # A phone has no room for the interval beside the name; the table below the figure has it.
    figures_text = {"condition": {"test": f"width < {NARROW_PIXELS}", "field": "short"}, "field": "text"}
    color = {
        "field": "role",
        "type": "nominal",
        "legend": None,
        "scale": color_scale({"model": BLUE, "comparison": ORANGE}),
    }
    tooltip = tooltip_fields(
        {"label": "", "text": "Estimate", "n": "n", "method": "Interval", "reading": "How to read it"}
    )
    text = {"type": "text", "baseline": "middle", "dy": -16}
    room = {"expr": f"width - (width < {NARROW_PIXELS} ? 90 : 180)"}
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeWidth": 3, "strokeCap": "round", "opacity": 0.55},
            "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}, "color": color},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
            "encoding": {"x": {"field": "value", **x}, "color": color, "tooltip": tooltip},
        },
        {
            "mark": {**text, "align": "left", "limit": room},
            "encoding": {"x": {"value": 0}, "text": {"field": "label"}},
        },
        {
            "mark": {**text, "align": "right", "fontWeight": "bold"},
            "encoding": {"x": {"value": "width"}, "text": figures_text},
        },
    ]
    if reference is not None:
        whole = reference_line("x", reference * factor, reference_label, x["scale"])
        layers.insert(0, _beside_dots(whole, line))
    return specification(values, layers, height=ROW_PIXELS * max(len(values), 1), encoding={"y": line})


def _beside_dots(reference: Spec, line: Spec) -> Spec:
    """A reference line in pieces, one beside each dot: a whole one would run through the names above them."""
    rule, *label = reference.get("layer", [reference])
    mark = {**rule["mark"], "yOffset": -ABOVE_DOT_PIXELS, "y2Offset": BELOW_DOT_PIXELS}
    place = {**rule["encoding"], "y": line, "y2": {"field": "line"}}
    return {"layer": [{"mark": mark, "encoding": place}, *label]}


def training_curve(
    rows: Sequence[Row],
    *,
    axis_title: str,
    percent: bool = False,
    height: int = HEIGHT_PIXELS,
    steps: str = "optimiser steps",
) -> Spec:
    """One measure over optimiser steps, a colour per split and a line per fold.

    Args:
        rows: `step, value, split, fold`.
        axis_title: with the unit.
        percent: fractions that are drawn in per cent.
        height: in pixels.
        steps: what they are.
    """
    values = [_scaled(row, ("value",), 100.0 if percent else 1.0) for row in rows]
    splits = list(dict.fromkeys(str(row["split"]) for row in rows))
    palette = [BLUE, ORANGE, "#8a5fc0", "#1f9183", GREY]
    # Training loss comes first where there is one; held-out measures keep their colour in every figure.
    colors = {split: ORANGE if split == "val" else BLUE if split == "train" else "" for split in splits}
    spare = [color for color in palette if color not in colors.values()]
    colors = {split: color or spare[index % len(spare)] for index, (split, color) in enumerate(colors.items())}
    encoding = {
        "x": {
            "field": "step",
            "type": "quantitative",
            "title": steps,
            "axis": {"format": "d", "tickCount": 6, "grid": False},
            "scale": {"zero": True, "nice": False},
        },
        "y": {"field": "value", "type": "quantitative", "title": axis_title, "scale": {"zero": False}},
        "color": {"field": "split", "type": "nominal", "scale": color_scale(colors)},
        "detail": {"field": "fold"},
    }
    tooltip = [*tooltip_fields({"fold": "Fold", "split": "Split", "step": "Step"}), number_field("value", axis_title)]
    # Training is logged often and its points would run together: they are there for the pointer only.
    dots = {"condition": {"test": "datum.split == 'train'", "value": 0}, "value": 1}
    layers: list[Spec] = [
        {"mark": {"type": "line", "strokeWidth": 2, "opacity": 0.75}},
        {
            "mark": {"type": "point", "filled": True, "size": 36},
            "encoding": {"tooltip": tooltip, "opacity": dots},
        },
    ]
    return specification(values, layers, height=height, encoding=encoding)


def reliability_curve(rows: Sequence[Row], *, x_title: str, y_title: str, low: float = 0.0) -> Spec:
    """What was predicted against what happened, with intervals and the diagonal of perfect calibration.

    Args:
        rows: `n, predicted, observed, observed_low, observed_high`, fractions.
        x_title: what was predicted.
        y_title: what happened.
        low: where the diagonal begins: 0 for probabilities, .5 for confidences.
    """
    names = ("predicted", "observed", "observed_low", "observed_high")
    values = [_scaled(row, names, 100.0) for row in rows]
    seen = [row["observed_low"] for row in values if row["observed_low"] is not None]
    floor = 10.0 * math.floor(min([low * 100.0, *seen]) / 10.0)
    axis = {"tickCount": 6}
    x_scale, y_scale = {"domain": [low * 100.0, 100.0]}, {"domain": [floor, 100.0]}
    x = {"field": "predicted", "type": "quantitative", "title": x_title, "scale": x_scale, "axis": axis}
    y = {"type": "quantitative", "title": y_title, "scale": y_scale, "axis": axis}
    tooltip = [
        number_field("predicted", "Predicted (%)", ".1f"),
        number_field("observed", "Observed (%)", ".1f"),
        number_field("observed_low", "Interval from (%)", ".1f"),
        number_field("observed_high", "Interval to (%)", ".1f"),
        *tooltip_fields({"n": "Cases"}),
    ]
    diagonal = [{"predicted": end, "observed": end} for end in (low * 100.0, 100.0)]
    layers: list[Spec] = [
        {
            "data": {"values": diagonal},
            "mark": {"type": "line", "color": GREY, "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {"x": x, "y": {"field": "observed", **y}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.5, "color": BLUE, "strokeCap": "round"},
            "encoding": {"x": x, "y": {"field": "observed_low", **y}, "y2": {"field": "observed_high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "color": BLUE},
            "encoding": {"x": x, "y": {"field": "observed", **y}, "tooltip": tooltip},
        },
    ]
    return specification(values, layers, height=340)


def margin_histogram(rows: Sequence[Row]) -> Spec:
    """How far apart the two scores are, coloured by which side of zero they fall on.

    Args:
        rows: `low, high, n, accuracy`; bins of chosen minus rejected score, with 0 among their ends.
    """
    values = [{**row, "side": "ranked right" if row["low"] >= 0 else "ranked wrong"} for row in rows]
    colors = {"ranked wrong": ORANGE, "ranked right": BLUE}
    bar: Spec = {
        "mark": {"type": "bar", "binSpacing": 1},
        "encoding": {
            "x": {
                "field": "low",
                "bin": "binned",
                "type": "quantitative",
                "title": "score of chosen minus rejected (reward units)",
                "axis": {"tickCount": 9, "grid": False},
            },
            "x2": {"field": "high"},
            "y": {"field": "n", "type": "quantitative", "title": "pairs"},
            "color": {"field": "side", "type": "nominal", "scale": color_scale(colors)},
            "tooltip": [number_field("low", "From"), number_field("high", "To"), *tooltip_fields({"n": "Pairs"})],
        },
    }
    return specification(values, [bar, reference_line("x", 0.0)], height=240)


def accuracy_by_length(rows: Sequence[Row]) -> Spec:
    """Accuracy against the difference in length, a step per bin with its interval.

    Args:
        rows: `low, high, n, accuracy, accuracy_low, accuracy_high`; bins of chosen minus rejected tokens, both
            ends included, the outer ones open (`low` or `high` None) and drawn as wide as their neighbour.
    """
    closed = closed_bins(rows)
    values = [_scaled(row, ("accuracy", "accuracy_low", "accuracy_high"), 100.0) for row in closed if row["n"]]
    x = {
        "type": "quantitative",
        "title": f"{LENGTH_TITLE[:-1]}, logarithmic scale away from 0)",
        # The bins grow with the difference: to scale, the narrow ones near 0 would share a few pixels.
        "scale": {"type": "symlog", "constant": LINEAR_WITHIN_TOKENS, "zero": False, "nice": False},
        "axis": {"values": _outer_ends(rows), "labelOverlap": True},
    }
    y = {"type": "quantitative", "title": "accuracy (%)", "scale": {"domain": [0, 100]}}
    tooltip = [
        *tooltip_fields({"range": "Chosen minus rejected (tokens)", "n": "Pairs"}),
        number_field("accuracy", "Accuracy (%)", ".1f"),
        number_field("accuracy_low", "Interval from (%)", ".1f"),
        number_field("accuracy_high", "Interval to (%)", ".1f"),
    ]
    layers: list[Spec] = [
        reference_line("y", 50.0, "coin flip"),
        reference_line("x", 0.0),
        *_steps(x, y, "accuracy", ("accuracy_low", "accuracy_high"), tooltip),
    ]
    return specification(values, layers)


def _outer_ends(rows: Sequence[Row]) -> list[float]:
    """Of every closed bin the end that lies further from 0: round numbers, where the bins are chosen to have them."""
    bins = [(row["low"], row["high"]) for row in rows]
    return sorted({0, *(max(ends, key=abs) for ends in bins if None not in ends)})


def length_scatter(points: Sequence[Row], means: Sequence[Row]) -> Spec:
    """Difference in length against difference in reward, a dot per pair, and the mean in steps of length.

    Args:
        points: `tokens, reward, ranked, prompt`; both differences chosen minus rejected; `ranked` is "right",
            "wrong" or "tie".
        means: `low, high, n, mean_margin`, bins of the difference in tokens over all pairs.
    """
    x = {"type": "quantitative", "title": LENGTH_TITLE, "axis": {"tickCount": 8}}
    y = {"type": "quantitative", "title": "score of chosen minus rejected (reward units)"}
    colors = {"ranked right": BLUE, "ranked wrong": ORANGE, "tie": GREY}
    present = {f"ranked {row['ranked']}" if row["ranked"] != "tie" else "tie" for row in points}
    values = [
        {**row, "ranked": row["ranked"] if row["ranked"] == "tie" else f"ranked {row['ranked']}"} for row in points
    ]
    spread = [row["tokens"] for row in points]
    steps = [
        row
        for row in closed_bins(means, ends=(min(spread, default=0), max(spread, default=0)))
        if row["n"] and row.get("mean_margin") is not None
    ]
    opacity = min(0.75, max(0.2, 12.0 / math.sqrt(max(len(points), 1))))
    mean: Spec = {
        "name": "means",
        "data": {"values": steps},
        "mark": {"type": "rule", "color": "#20262d", "strokeWidth": 3},
        "encoding": {
            "x": {"field": "low", **x},
            "x2": {"field": "high"},
            "y": {"field": "mean_margin", **y},
            "tooltip": [
                *tooltip_fields({"range": "Chosen minus rejected (tokens)", "n": "Pairs"}),
                number_field("mean_margin", "Mean difference of scores", "+.3f"),
            ],
        },
    }
    layers: list[Spec] = [
        reference_line("x", 0.0),
        reference_line("y", 0.0),
        {
            "mark": {"type": "point", "filled": True, "size": 30, "opacity": opacity},
            "encoding": {
                "x": {"field": "tokens", **x},
                "y": {"field": "reward", **y},
                "color": {
                    "field": "ranked",
                    "type": "nominal",
                    "scale": color_scale({name: color for name, color in colors.items() if name in present}),
                },
                "tooltip": [
                    *tooltip_fields({"prompt": "Prompt", "ranked": "Result"}),
                    number_field("tokens", "Difference in tokens", "+d"),
                    number_field("reward", "Difference of scores", "+.3f"),
                ],
            },
        },
        mean,
    ]
    return specification(values, layers, height=360)


def score_by_length(rows: Sequence[Row]) -> Spec:
    """Mean score of single answers by their length, a step per bin, with one standard deviation either way.

    Args:
        rows: `low, high, n, mean_score, sd_score`; bins of completion tokens, both ends included.
    """
    values = []
    for row in closed_bins(rows):
        if row["n"] and row["mean_score"] is not None:
            spread = row["sd_score"] or 0.0
            ends = {"below": row["mean_score"] - spread, "above": row["mean_score"] + spread}
            values.append({**row, **ends, "low": max(row["low"], 0.0)})
    # Bins of equal mass crowd where most answers are; a square root gives them room and allows length 0.
    x = {
        "type": "quantitative",
        "title": "length of the answer (tokens, square-root scale)",
        "axis": {"tickCount": 8},
        "scale": {"type": "sqrt"},
    }
    y = {"type": "quantitative", "title": "score (reward units)", "scale": {"zero": False}}
    tooltip = [
        *tooltip_fields({"range": "Tokens", "n": "Answers"}),
        number_field("mean_score", "Mean score"),
        number_field("sd_score", "Standard deviation"),
    ]
    layers = _steps(x, y, "mean_score", ("below", "above"), tooltip)
    return specification(values, layers, height=260)


def closed_bins(rows: Sequence[Row], ends: tuple[float, float] | None = None) -> list[dict[str, Any]]:
    """Bins of whole numbers, both ends included, with edges to draw and a `range` in words that tells the truth.

    The edges lie half a number beyond the ends: neighbours meet, and a bin of one number has a width.

    Args:
        rows: with `low` and `high`, of which the first `low` and the last `high` may be None.
        ends: the smallest and largest value seen, to draw open bins up to; by default they are drawn as wide
            as their neighbour.
    """
    closed = []
    for index, row in enumerate(rows):
        low, high = row["low"], row["high"]
        words = _range_words(low, high)
        if low is None:
            low = min(ends[0], high) if ends else high - _width(rows, index + 1)
        elif high is None:
            high = max(ends[1], low) if ends else low + _width(rows, index - 1)
        closed.append({**row, "low": low - 0.5, "high": high + 0.5, "range": words})
    return closed


def stretched(spec: Spec) -> Spec:
    """The same figure as wide as the element it stands in, on the page's own background."""
    config = {**spec["config"], "background": "transparent"}
    return {**spec, "width": "container", "config": config}


def write_images(folder: Path, specs: Mapping[str, Spec]) -> list[str]:
    """Write `<name>.svg` and `<name>.png` for each figure, all of them or none.

    Returns:
        The file names written, sorted.

    Raises:
        RunError: the folder cannot be written to, or the disk is full.
    """
    with files.atomic_folder(folder) as unfinished:
        for name, spec in specs.items():
            svg = vl_convert.vegalite_to_svg(spec).replace(">", f">{_HALO}", 1)
            (unfinished / f"{name}.svg").write_text(svg, encoding="utf-8")
            (unfinished / f"{name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE))
    return sorted(path.name for path in folder.iterdir())


def _steps(x: Spec, y: Spec, value: str, band: tuple[str, str], tooltip: list[Spec]) -> list[Spec]:
    """A horizontal line per bin from `low` to `high`, in a box from one field of `band` to the other."""
    ends = {"x": {"field": "low", **x}, "x2": {"field": "high"}, "tooltip": tooltip}
    box = {"y": {"field": band[0], **y}, "y2": {"field": band[1]}}
    return [
        {"mark": {"type": "rect", "opacity": 0.22, "color": BLUE}, "encoding": {**ends, **box}},
        {
            "mark": {"type": "rule", "strokeWidth": 3, "color": BLUE},
            "encoding": {**ends, "y": {"field": value, **y}},
        },
    ]


def _scaled(row: Row, names: Iterable[str], factor: float) -> dict[str, Any]:
    changed = {name: None if row.get(name) is None else row[name] * factor for name in names}
    return {**row, **changed}


def _width(rows: Sequence[Row], index: int) -> float:
    """From end to end of the bin at `index`, or 0 where there is no such closed bin."""
    row = rows[index] if 0 <= index < len(rows) else None
    if row is None or row["low"] is None or row["high"] is None:
        return 0.0
    return float(row["high"] - row["low"])


def _range_words(low: float | None, high: float | None) -> str:
    if low is None:
        return f"{high:g} or less"
    if high is None:
        return f"{low:g} or more"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
