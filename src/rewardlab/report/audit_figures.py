"""The figures of an audit: each takes rows, mostly those of `tables.effects_table`, and gives a specification.

Effects are drawn in standard deviations of the original rewards, with the attribute minus without it. Blue is RATE,
orange the naive comparison (in figures of texts: blue is the rewrite of the rewrite, orange the rewrite, grey the
original). Texts from the data stand in values only, as in `figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.report.audit_words import ESTIMATORS, TARGETS, p_words, short
from rewardlab.report.forest import forest
from rewardlab.report.vega import (
    BLUE,
    GREY,
    ORANGE,
    Row,
    Spec,
    color_scale,
    number_field,
    specification,
    tooltip_fields,
)

PURPLE, TEAL, BROWN = "#8a5fc0", "#1f9183", "#8f6b2e"
COLORS: Mapping[str, str] = {
    "naive": ORANGE,
    "single": PURPLE,
    "double": BLUE,
    "corrected": TEAL,
    "per_protocol": GREY,
    "unflawed": BROWN,
}
STAGE_COLORS: Mapping[str, str] = {
    "original": GREY,
    "rewrite": ORANGE,
    "rewrite of rewrite": BLUE,
    "third rewrite": PURPLE,
}
DOUBT = "\N{DAGGER}"
"""Stands behind an interval that says less than it seems to; the table has the reason."""
EFFECT_TITLE = "effect on the reward (standard deviations)"
_MOST_LABEL = 30


def effects_by_estimator(rows: Sequence[Row]) -> Spec:
    """The naive comparison beside single rewrites and RATE, reward model by reward model.

    Args:
        rows: of `tables.effects_table`, of which the ATE is drawn; where a reward model has none, because a group
            is empty, the effect over the other one.
    """
    drawn = []
    for (attribute, scorer, audit), own in _grouped(rows, ("attribute", "scorer", "audit")).items():
        for estimator in ESTIMATORS:
            there = {row["over"]: row for row in own if row["estimator"] == estimator and row["value_sd"] is not None}
            over = next((name for name in ("ATE", "ATT", "ATU") if name in there), None)
            if over is not None:
                label = ESTIMATORS[estimator] + ("" if over == "ATE" else f" ({over})")
                drawn.append(_lane(there[over], _heading(rows, attribute, scorer, audit), label))
    return forest(drawn, axis_title=EFFECT_TITLE, reference_label="no effect")


def effects_by_target(rows: Sequence[Row]) -> Spec:
    """ATE, ATT and ATU of one reward model, single rewrites beside RATE.

    Args:
        rows: of `tables.effects_table`, of one reward model.
    """
    drawn = [
        _lane(row, words, ESTIMATORS[estimator])
        for target, words in TARGETS.items()
        if target != "population"
        for estimator in ESTIMATORS
        for row in rows
        if (row["over"], row["estimator"]) == (target, estimator) and row["value_sd"] is not None
        if estimator != "naive"
    ]
    return forest(drawn, axis_title=EFFECT_TITLE, reference_label="no effect")


def naive_and_rate(rows: Sequence[Row]) -> Spec:
    """The naive comparison and RATE only, for many attributes and reward models.

    Args:
        rows: of `tables.effects_table`.
    """
    return effects_by_estimator([row for row in rows if row["estimator"] in ("naive", "double")])


def effects_by_subgroup(rows: Sequence[Row]) -> Spec:
    """RATE within bands and subgroups.

    Args:
        rows: `family, label, value, low, high, text, p_adjusted`, in sd.
    """
    drawn = [
        {
            **row,
            "group": row["family"],
            "label": short(row["label"], _MOST_LABEL),
            "short": row["text"].split(" (")[0],
            "hint": f"adjusted p {p_words(row['p_adjusted'])}",
            "color": BLUE,
        }
        for row in rows
    ]
    return forest(drawn, axis_title=EFFECT_TITLE, reference_label="no effect")


def off_target_changes(rows: Sequence[Row]) -> Spec:
    """What rewrites change in the texts, measure by measure and direction by direction.

    Args:
        rows: `measure, label, stage, value, text`: the change from the original in sd of the originals.
    """
    drawn = [
        {
            **row,
            "group": row["measure"],
            "low": None,
            "high": None,
            "short": row["text"],
            "hint": row["stage"],
            "color": STAGE_COLORS.get(row["stage"], GREY),
        }
        for row in rows
    ]
    return forest(drawn, axis_title="change from the original (standard deviations)", reference_label="no change")


def changes_by_rewriting(rows: Sequence[Row]) -> Spec:
    """What two rewrites alone do to rewards.

    Args:
        rows: `group, label, value, low, high, text`, in sd.
    """
    drawn = [{**row, "short": row["text"].split(" (")[0], "hint": "", "color": BLUE} for row in rows]
    return forest(drawn, axis_title="change of the reward (standard deviations)", reference_label="no change")


def score_densities(rows: Sequence[Row], ends: tuple[float, float], top: float) -> Spec:
    """How rewards are spread, a curve for originals, rewrites and rewrites of rewrites.

    Args:
        rows: `stage, reward, density`, a row per point of a curve.
        ends: of the axis of rewards, shared with the figures beside this one.
        top: of the axis of densities.
    """
    colors = {stage: color for stage, color in STAGE_COLORS.items() if any(row["stage"] == stage for row in rows)}
    encoding: Spec = {
        "x": {
            "field": "reward",
            "type": "quantitative",
            "title": "reward",
            "scale": {"domain": list(ends), "zero": False, "nice": False},
            "axis": {"tickCount": 6, "grid": False},
        },
        "y": {
            "field": "density",
            "type": "quantitative",
            "title": "density of texts",
            "scale": {"domain": [0.0, top]},
            # Densities are read by shape: their unit, 1 / reward, tells a reader nothing.
            "axis": {"labels": False, "ticks": False, "grid": False},
        },
        "color": {
            "field": "stage",
            "type": "nominal",
            "scale": color_scale(colors),
            "legend": {"symbolType": "stroke"},
        },
        "strokeDash": {
            "field": "stage",
            "type": "nominal",
            "scale": {"domain": list(colors), "range": [_DASHES[stage] for stage in colors]},
        },
    }
    pointer = [*tooltip_fields({"stage": "Texts"}), number_field("reward", "Reward", ".3g")]
    layers: list[Spec] = [
        {"mark": {"type": "line", "strokeWidth": 2.5}},
        {"mark": {"type": "point", "opacity": 0, "size": 60}, "encoding": {"tooltip": pointer, "strokeDash": None}},
    ]
    return specification(rows, layers, height=220, encoding=encoding)


_DASHES: Mapping[str, list[int]] = {
    "original": [1, 0],
    "rewrite": [6, 3],
    "rewrite of rewrite": [1, 0],
    "third rewrite": [2, 2],
}


def _lane(row: Row, group: str, label: str) -> dict[str, Any]:
    value, low, high = (row[f"{name}_sd"] for name in ("value", "low", "high"))
    words = {name: format(one, "+z.2f" if name == "value" else "z.2f").replace("-", "\N{MINUS SIGN}")
             for name, one in (("value", value), ("low", low), ("high", high)) if one is not None}  # fmt: skip
    text = words["value"] if low is None or high is None else f"{words['value']} ({words['low']} to {words['high']})"
    # A row with an interval has a reason only where the interval is not to be trusted.
    doubted = bool(row["reason"]) and low is not None
    return {
        "group": group,
        "label": label,
        "value": value,
        "low": low,
        "high": high,
        "text": f"{text} {DOUBT}" if doubted else text,
        "short": f"{words['value']} {DOUBT}" if doubted else words["value"],
        "hint": f"{row['effect']}, {row['target']}; {row['n']:,} responses, p {p_words(row['p'])}"
        + (f"; {row['reason']}" if doubted else ""),
        "color": COLORS[row["estimator"]],
    }


def _grouped(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _heading(rows: Sequence[Row], attribute: str, scorer: str, audit: str) -> str:
    """The reward model, with as much before and behind it as tells it from the others."""
    several = len({row["attribute"] for row in rows}) > 1
    alike = {row["audit"] for row in rows if (row["attribute"], row["scorer"]) == (attribute, scorer)}
    parts = [attribute if several else "", scorer, audit if len(alike) > 1 else ""]
    return " \N{MIDDLE DOT} ".join(short(part, 60) for part in parts if part)
