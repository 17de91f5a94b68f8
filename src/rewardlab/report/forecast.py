"""`rewardlab audit forecast`: forecasts (`audit.forecast`) and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardlab.audit.forecast import (
    ASSOCIATIONS,
    BEST_OF,
    DOUBLE,
    EFFECTS,
    NAIVE,
    OWN,
    SINGLE,
    TILT,
    Forecasting,
    Values,
    forecast,
)
from rewardlab.audit.summary import number
from rewardlab.report.audit_figures import BROWN, PURPLE, TEAL
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.figures import write_images
from rewardlab.report.html import Html, element
from rewardlab.report.page import MeasuredPage, page
from rewardlab.report.tables import Column, ResultTable
from rewardlab.report.vega import (
    BLUE,
    GREY,
    ORANGE,
    Spec,
    color_scale,
    domain,
    number_field,
    reference_line,
    specification,
)
from rewardlab.store.files import write_json, write_text
from rewardlab.store.runs import Run

RESULT = "forecast.json"
WAYS = {
    EFFECTS: "from effects",
    ASSOCIATIONS: "from associations",
    TILT: "tilt of the samples",
    BEST_OF: "best of n",
    DOUBLE: "from the effect alone",
    OWN: "from the effect alone, audited on the policy's samples",
    SINGLE: "from a single rewrite's effect alone",
    NAIVE: "from the audit's naive effect alone",
}
READINGS = (DOUBLE, OWN, SINGLE, NAIVE)
"""Ways to compare with: what one effect alone says. They are straight lines through 0 and told in the table alone."""
COLORS = {
    EFFECTS: BLUE,
    ASSOCIATIONS: GREY,
    TILT: ORANGE,
    BEST_OF: TEAL,
    DOUBLE: PURPLE,
    OWN: BROWN,
    SINGLE: "#c2528b",
    NAIVE: "#b5a21f",
}


def write_forecast(config: Forecasting, run: Run) -> MeasuredPage:
    """Forecast, then write `forecast.json`, `report.html` and its figures as SVG and PNG.

    Raises:
        DataError: as `audit.forecast.forecast`.
    """
    found = forecast(config)
    values = {**found, "findings": findings(found)}
    sections = forecast_sections(values)
    write_json(run.path(RESULT), values)
    write_images(run.path("figures"), {one.name: one.spec for section in sections for one in section.figures})
    path = run.path("report.html")
    write_text(path, page(config.title, sections))
    return MeasuredPage(path, values)


def findings(values: Values) -> list[str]:
    """What is forecast, in sentences."""
    explained = values["explained"]
    share = f"{explained['value']:.0%}{between(explained, '.0%')}"
    head = (
        f"{values['prompts']:,} prompts with {values['completions']} completions each, scored by {values['scorer']}: "
        f"the effects of {len(values['attributes'])} attributes explain {share} of what the reward differs by between "
        "answers to a prompt."
    )
    if not values["spoken"]:
        least = f"{values['least_explained']:.0%}"
        refusal = (
            f"That is less than {least}: no forecast is made from effects. What else the reward pays for decides what "
            "is learnt; audit further attributes. What single effects say by themselves is for comparison and no "
            "forecast."
        )
        return [head, refusal, *_told(values, ASSOCIATIONS)]
    return [head, *_told(values, EFFECTS), *_carried(values), _reach(values)]


def _told(values: Values, by: str) -> list[str]:
    """The shifts at every distance that was asked for, a sentence each."""
    rows = [row for row in values["forecasts"] if row["by"] == by and row["asked"]]
    lines = []
    for divergence in dict.fromkeys(row["divergence"] for row in rows):
        own = sorted((row for row in rows if row["divergence"] == divergence), key=lambda row: -abs(row["value"]))
        shifts = "; ".join(
            f"{row['attribute']} {number(row['value'], signed=True)}{between(row, '+.2f')}" for row in own
        )
        lines.append(f"At {divergence:g} nats from where it starts, {WAYS[by]}: {shifts}.")
    return lines


def _carried(values: Values) -> list[str]:
    """Attributes that move for the company they keep more than for their own effect."""
    last = max((row["divergence"] for row in values["forecasts"] if row["by"] == EFFECTS and row["asked"]), default=0)
    rows = [row for row in values["forecasts"] if row["by"] == EFFECTS and row["divergence"] == last and row["asked"]]
    led = [row for row in rows if abs(row["carried"]) > abs(row["direct"]) and _sure(row)]
    names = ", ".join(row["attribute"] for row in led)
    return [f"Carried along more than paid for themselves: {names}."] if led else []


def _sure(row: Values) -> bool:
    return row["low"] is not None and (row["low"] > 0 or row["high"] < 0)


def _reach(values: Values) -> str:
    return (
        f"The samples can be tilted up to {values['farthest']:.2f} nats; beyond that fewer than two answers to a "
        "prompt would decide."
    )


def between(row: Values, form: str) -> str:
    """The interval of a row in brackets; nothing where it has none."""
    if row["low"] is None:
        return ""
    low, high = (format(row[end], form).replace("-", "\N{MINUS SIGN}") for end in ("low", "high"))
    return f" ({low} to {high})"


def forecast_sections(values: Values) -> list[Section]:
    """The sections of the page."""
    sentences: list[Figure | Html] = [element("ol", [element("li", line) for line in values["findings"]])]
    figures: list[Figure | Html] = []
    for place, attribute in enumerate(values["attributes"], start=1):
        rows = [row for row in values["forecasts"] if row["attribute"] == attribute["name"]]
        title = f"{attribute['name']}: now in {attribute['rate']:.0%} of the answers"
        figures.append(Figure(f"shift-{place}", title, title, _READING, shift_curves(rows), plain=False, half=True))
    return [
        Section("findings", "Findings", _LEAD, sentences),
        Section("shifts", "What moves, and how far", "", figures),
        Section("attributes", "Attributes", _TABLE, [_attributes(values).to_html(), _shifts(values).to_html()]),
    ]


_LEAD = (
    "A forecast of what a policy learns from this reward, made before any training: how far the share of answers with "
    "an attribute moves, at a given distance (KL) from the policy as it is now."
)
_READING = (
    "Change of the share of answers that have the attribute, against the distance from the policy as it is now. From "
    "effects: what each attribute causes in the reward, as audited, carried through the way in which attributes go "
    "together in the policy's own answers; to first order. From associations, tilt and best of n: from the rewards of "
    "the policy's own answers. Bands are intervals."
)
_TABLE = (
    "Direct is what an attribute moves by its own effect on the reward; carried, what it moves because it goes along "
    "with attributes that have one. Intervals are over prompts, and know the standard errors of the effects."
)


def shift_curves(rows: Sequence[Values]) -> Spec:
    """Shift of an attribute against distance: a curve per way of forecasting, with the band of its interval."""
    drawn = [{**row, "way": WAYS[row["by"]]} for row in rows if row["by"] not in READINGS and row["value"] is not None]
    present = [by for by in WAYS if any(row["by"] == by for row in drawn)]
    scale: Spec = {"domain": domain(drawn, 0.0), "zero": False, "nice": False}
    y: Spec = {"type": "quantitative", "title": "change of the share", "scale": scale, "axis": {"tickCount": 6}}
    x: Spec = {
        "field": "divergence",
        "type": "quantitative",
        "title": "KL from the policy as it is (nats)",
        "axis": {"grid": False, "tickCount": 6},
    }
    color: Spec = {
        "field": "way",
        "type": "nominal",
        "scale": color_scale({WAYS[by]: COLORS[by] for by in present}),
        "legend": {"symbolType": "stroke"},
    }
    shared: Spec = {"x": x, "color": color}
    pointer = [
        {"field": "way", "type": "nominal", "title": "Forecast"},
        number_field("divergence", "KL (nats)", ".2f"),
        number_field("value", "Shift", "+.3f"),
        number_field("low", "From", "+.3f"),
        number_field("high", "To", "+.3f"),
    ]
    return specification(
        drawn,
        [
            reference_line("y", 0.0, scale=scale),
            {
                "transform": [{"filter": f"datum.by === '{EFFECTS}'"}],
                "mark": {"type": "area", "opacity": 0.18},
                "encoding": {**shared, "y": {"field": "low", **y}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "line", "strokeWidth": 2.2}, "encoding": {**shared, "y": {"field": "value", **y}}},
            {
                "transform": [{"filter": f"datum.asked || datum.by === '{BEST_OF}'"}],
                "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
                "encoding": {**shared, "y": {"field": "value", **y}, "tooltip": pointer},
            },
        ],
    )


def _attributes(values: Values) -> ResultTable:
    names = [one["name"] for one in values["attributes"]]
    rows = []
    for place, one in enumerate(values["attributes"]):
        with_reward = values["correlations"][place][-1]
        others = [
            f"{name} {number(value, signed=True)}"
            for name, value in zip(names, values["correlations"][place], strict=False)
            if name != one["name"] and value is not None
        ]
        rows.append(
            {
                "name": one["name"],
                "high": one["high"],
                "rate": one["rate"],
                "effect": one["effect"] / values["sd"],
                "error": one["error"] / values["sd"],
                "reward": with_reward,
                "others": ", ".join(others),
            }
        )
    columns = (
        Column("name", "Attribute"),
        Column("high", "An answer with it is"),
        Column("rate", "Share now", lambda value: f"{value:.1%}"),
        Column("effect", "Effect (sd of the reward)", lambda value: number(value, signed=True)),
        Column("error", "SE", lambda value: f"{value:.3f}"),
        Column("reward", "Correlation with the reward", lambda value: number(value, signed=True)),
        Column("others", "With other attributes"),
    )
    return ResultTable("Attributes in the policy's own answers, within prompts", columns, tuple(rows))


def _shifts(values: Values) -> ResultTable:
    rows = tuple(_shift_row(row, values["spoken"]) for row in values["forecasts"] if row["asked"])
    columns = (
        Column("attribute", "Attribute"),
        Column("divergence", "KL (nats)", lambda value: f"{value:g}"),
        Column("way", "Forecast"),
        Column("shift", "Shift"),
        Column("direct", "Direct", lambda value: number(value, signed=True)),
        Column("carried", "Carried", lambda value: number(value, signed=True)),
        Column("size", "Answers it rests on", lambda value: f"{value:.1f}"),
        Column("reason", "Why not"),
    )
    return ResultTable(f"Shifts, with {values['level']:.0%} intervals", columns, rows)


def _shift_row(row: Values, spoken: bool) -> dict[str, Any]:
    value = row["value"]
    refused = "" if spoken or row["by"] not in READINGS else " (refused, for comparison)"
    return {
        "attribute": row["attribute"],
        "divergence": row["divergence"],
        "way": f"{WAYS[row['by']]}{refused}",
        "shift": "" if value is None else f"{number(value, signed=True)}{between(row, '+.2f')}",
        "direct": row.get("direct"),
        "carried": row.get("carried"),
        "size": row.get("size"),
        "reason": row["reason"] if value is None else "",
    }
