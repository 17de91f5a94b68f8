"""The page of what policies have learned: predicted against realised shifts, the ways there, and the tables.

Names of runs and attributes stand in values only, as in `figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from rewardlab.audit.forecast import ASSOCIATIONS, BEST_OF, DOUBLE, EFFECTS, NAIVE, OWN, SINGLE, TILT
from rewardlab.audit.summary import number
from rewardlab.evaluate.shift import Values
from rewardlab.report.blocks import Figure, Section, disclosure
from rewardlab.report.forecast import COLORS, WAYS, between
from rewardlab.report.frontier_figures import PALETTE
from rewardlab.report.html import Html, element
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
from rewardlab.report.words import DASH

_PRIMARY = (NAIVE, DOUBLE)
"""Forecasts that those from effects are set beside whatever the outcome."""
_MOST_RUNS_TOLD = 3
"""Runs of which every shift is told in a sentence; of more the table tells them."""

_MOST_ROWS_OPEN = 40
"""Rows of the table of shifts that are shown at once."""
MEASURES = {
    "rank": "Rank correlation",
    "error": "Mean distance of forecast and shift",
    "slope": "Slope of shifts on forecasts (1: the right size)",
    "signs": "Signs forecast",
    "carried": "Signs forecast, without an effect of their own",
    "coverage": "Shifts within the forecast's interval",
}
_MET = (
    "Each dot is an attribute after a training: across, what was forecast before it; upwards, what the policy has "
    "learned at that distance from its reference. On the dashed line both are the same. Bars are intervals. A forecast "
    "is a straight line and may go beyond what a share can do. Other ways to forecast are in the table."
)
_PATH = (
    "Change of the share of answers with the attribute, against the distance from the reference, checkpoint by "
    "checkpoint; a thin line for every seed. Dashed: the forecast from effects."
)
_PATH_OF_MANY = (
    "Change of the share of answers with the attribute, against the distance from the reference, checkpoint by "
    "checkpoint; a line for every seed of every training, in the colour of what the audit says of the attribute under "
    "the reward that was trained on. Dashed: the forecast from effects."
)
FOR, NOTHING, AGAINST, NOT_AUDITED = "paid for", "no effect of its own", "paid against", "not audited"
PAID = {FOR: BLUE, NOTHING: GREY, AGAINST: ORANGE, NOT_AUDITED: "#b9bcc2"}
"""What an audit says of an attribute: its effect is above 0, not told from 0, or below."""
_SHIFTS = (
    "Shifts are changes of the share of answers that have the attribute, read along straight lines in the root of the "
    "distance between checkpoints; nothing is told beyond the last one. Intervals are over prompts and seeds."
)
_AGREEMENT = (
    "Intervals are percentiles over resamples of whole reward models. Signs count where a shift is larger than what "
    "matters and than two standard errors. A slope below 1 means that forecasts promise too much. Rows may speak of "
    "different shifts, as some forecasts are refused: the second table is on the same ones."
)
_PARTS = (
    "Forecasts from effects, attribute by attribute, and by the direction that they say: attributes are learned at "
    "different speeds, and much of the order of all shifts is their direction."
)
_PART = (
    "Each dot is an attribute under a reward model: across, what was forecast from effects; upwards, what the policy "
    "has learned. An attribute whose dots lie along a line of its own is forecast in order, and not in size."
)
WAY_COLORS = {WAYS[by]: COLORS[by] for by in WAYS}
_KEY = (
    (EFFECTS, "effects of the audit, and which attributes go together in the policy's own answers"),
    (DOUBLE, "the attribute's own effect in the audit, by rewrites of rewrites"),
    (OWN, "the same, audited on answers of the policy"),
    (SINGLE, "the same by single rewrites"),
    (NAIVE, "the audit's difference in reward between answers with and without the attribute"),
    (ASSOCIATIONS, "rewards of the policy's own answers: how they go along with the attribute"),
    (TILT, "rewards of the policy's own answers, weighted towards the high ones"),
    (BEST_OF, "rewards of the policy's own answers, the best of some"),
)
"""What each way of forecasting is made from."""


def findings(values: Values) -> list[str]:
    """What was learned, and how forecasts met it, in sentences."""
    runs = list(dict.fromkeys(row["run"] for row in values["shifts"]))
    head = (
        f"{len(values['checkpoints']):,} checkpoints of {len(runs):,} runs wrote {values['n']} answers to each of "
        f"{values['prompts']:,} prompts, as the reference did."
    )
    moved = [line for run in runs for line in _moved(values, run)] if len(runs) <= _MOST_RUNS_TOLD else []
    return [
        head,
        *moved,
        *_met(values),
        *_refused(values),
        *_unreached(values, runs),
        *_unpaid(values),
        *values["warnings"],
    ]


def _moved(values: Values, run: str) -> list[str]:
    """The shifts of a run at every distance that it reaches, a sentence each."""
    own = [row for row in values["shifts"] if row["run"] == run and row["value"] is not None]
    lines = []
    for divergence in dict.fromkeys(row["divergence"] for row in own):
        rows = sorted((row for row in own if row["divergence"] == divergence), key=lambda row: -abs(row["value"]))
        told = "; ".join(f"{row['attribute']} {_span(row)}{_forecast_of(row)}" for row in rows)
        lines.append(f"{run}, at {divergence:g} nats from its reference: {told}.")
    return lines


def _span(row: Mapping[str, Any]) -> str:
    return f"{number(row['value'], signed=True)}{between(dict(row), '+.2f')}"


def _forecast_of(row: Values) -> str:
    told = row["predicted"].get(EFFECTS)
    return "" if told is None else f", forecast {_span(told)}"


def _unreached(values: Values, runs: Sequence[str]) -> list[str]:
    if len(runs) > _MOST_RUNS_TOLD:
        return _unreached_of_many(values)
    lines = []
    for run in runs:
        own = [row for row in values["shifts"] if row["run"] == run and row["unreached"]]
        told = list(dict.fromkeys((row["divergence"], row["unreached"], len(row["seeds"])) for row in own))
        if told:
            words = "; ".join(f"{divergence:g} nats by {few} of {all_of} seeds" for divergence, few, all_of in told)
            lines.append(f"{run}: not reached are {words}.")
        far = list(dict.fromkeys(f"{row['divergence']:g}" for row in values["shifts"] if _is_before(row, run)))
        if far:
            lines.append(
                f"{run}: {', '.join(far)} nats lie before the first checkpoint of a seed; what is told there lies on a "
                "straight line from the reference: keep more checkpoints."
            )
    return lines


def _unreached_of_many(values: Values) -> list[str]:
    """A sentence for every distance, as attributes share their trainings."""
    first = values["attributes"][0]["name"]
    lines = []
    for divergence in _distances(values):
        rows = [row for row in values["shifts"] if (row["divergence"], row["attribute"]) == (divergence, first)]
        seeds, few = sum(len(row["seeds"]) for row in rows), sum(row["unreached"] for row in rows)
        if few:
            none = [row["run"] for row in rows if row["unreached"] == len(row["seeds"])]
            without = f", by none of {', '.join(none)}" if none else ""
            lines.append(f"{divergence:g} nats are not reached by {few} of {seeds} trainings{without}.")
        early = sum(row["before_first"] for row in rows)
        if early:
            lines.append(
                f"{divergence:g} nats lie before the first checkpoint of {early} of {seeds} trainings; what is told "
                "there lies on a straight line from the reference: keep more checkpoints."
            )
    return lines


def _is_before(row: Values, run: str) -> bool:
    return bool(row["run"] == run and row["before_first"])


def _met(values: Values) -> list[str]:
    """How forecasts met the shifts, by distance: their order beside that of others, and how far they are off."""
    agreement = values["agreement"]
    lines = []
    for divergence in _distances(values):
        rows = {(row["by"], row["measure"]): row for row in agreement["measures"] if row["divergence"] == divergence}
        own = rows.get((EFFECTS, "error"))
        if own is None or own["value"] is None:
            continue
        models = "model" if own["units"] == 1 else "models"
        about = f"At {divergence:g} nats, {own['n']} shifts under {own['units']} reward {models}"
        if rows[EFFECTS, "rank"]["value"] is not None:
            apart = {row["second"]: row for row in agreement["differences"] if _ranks(row, divergence)}
            told = [f"{_span_of(rows[EFFECTS, 'rank'])} {WAYS[EFFECTS]}"]
            told += [
                f"{_span_of(rows[by, 'rank'])} {WAYS[by]}{_of_others(rows[by, 'rank'], own)}{_less(apart.get(by))}"
                for by in _PRIMARY
                if (by, "rank") in rows and rows[by, "rank"]["value"] is not None
            ]
            most = next((row["rank"] for row in agreement["ceiling"] if row["divergence"] == divergence), None)
            perfect = "" if most is None else f"; a perfect forecast would reach {number(most)}, for the noise of seeds"
            lines.append(f"{about}: rank correlation of forecasts and shifts {'; '.join(told)}{perfect}.")
        slope, signs, within = (rows[EFFECTS, name] for name in ("slope", "signs", "coverage"))
        parts = [
            f"{MEASURES['slope'].lower()} {_span_of(slope)}",
            f"{MEASURES['signs'].lower()} {_span_of(signs)}, of {signs['n']} that can be told",
            f"{MEASURES['coverage'].lower()} {_span_of(within)}",
            f"beyond what a share can do are {_beyond_a_share(values, divergence)} of {own['n']}",
        ]
        lines.append(f"{about}: forecasts from effects are {_span_of(own)} off on average; {'; '.join(parts)}.")
        ranks = [row for row in agreement["parts"] if _ranks(row, divergence) and row["n"] < own["n"]]
        if ranks:
            told = [f"{_span_of(row)} of {row['part']}" for row in ranks]
            lines.append(f"{about}, part by part: rank correlation of forecasts from effects {'; '.join(told)}.")
    return lines


def _ranks(row: Values, divergence: float) -> bool:
    return bool((row["measure"], row["divergence"]) == ("rank", divergence) and row["low"] is not None)


def _beyond_a_share(values: Values, divergence: float) -> int:
    """How many forecasts from effects would leave a share below 0 or above 1."""
    rates = {name: rate["value"] for name, rate in values["reference"]["rates"].items()}
    rows = [row for row in values["shifts"] if row["divergence"] == divergence and row["value"] is not None]
    told = [rates[row["attribute"]] + row["predicted"][EFFECTS]["value"] for row in rows if EFFECTS in row["predicted"]]
    return sum(not 0.0 <= share <= 1.0 for share in told)


def _less(row: Values | None) -> str:
    """By how much another forecast orders less well than that from effects."""
    if row is None:
        return ""
    if not (row["low"] > 0.0 or row["high"] < 0.0):
        return f", not told apart (a difference of {_span_of(row)})"
    return f", {'less' if row['value'] > 0 else 'more'} by {_span_of(row)}"


def _of_others(row: Values, own: Values) -> str:
    """Of how many shifts, where a way of forecasting speaks of others: where forecasts from effects were refused."""
    same = (row["n"], row["units"]) == (own["n"], own["units"])
    return "" if same else f" (of {row['n']} shifts under {row['units']} reward models)"


def _refused(values: Values) -> list[str]:
    """For which reward models the forecast from effects was refused."""
    runs = [name for name, file in values["forecasts"].items() if not file["spoken"]]
    few = f"Of {len(values['forecasts'])} forecasts from effects {len(runs)} were refused"
    return [f"{few}, as effects explain too little of the reward: {', '.join(runs)}."] if runs else []


def _span_of(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "not defined"
    return f"{number(row['value'])}{between(dict(row), '.2f')}"


def _unpaid(values: Values) -> list[str]:
    rows = values["agreement"]["unpaid"]
    last = max((row["divergence"] for row in rows), default=None)
    told = [f"{row['attribute']} ({row['run']}) {number(row['value'], signed=True)}" for row in rows
            if row["divergence"] == last]  # fmt: skip
    return [f"Moved at {last:g} nats without an effect of their own: {'; '.join(told)}."] if told else []


def shift_sections(values: Values) -> list[Section]:
    """The sections of the page."""
    sentences: list[Figure | Html] = [element("ol", [element("li", line) for line in values["findings"]])]
    met = [one for one in (_met_figure(values, at) for at in _distances(values)) if one is not None]
    parts = [one for one in (_part_figure(values, at) for at in _distances(values)) if one is not None]
    paths: list[Figure | Html] = [_path_figure(values, place, one) for place, one in enumerate(values["attributes"])]
    told = values["agreement"]["parts"]
    tables: list[Figure | Html] = []
    if values["agreement"]["measures"]:
        key = [element("li", f"{WAYS[by]}: {words}.") for by, words in _KEY]
        tables = [element("ul", key), _agreement_table(values).to_html(), _differences_table(values).to_html()]
    sections = [
        Section("findings", "Findings", "", sentences),
        Section("met", "Predicted and realised", "", met),
        Section("paths", "The ways there", "", paths),
        Section("agreement", "How forecasts met shifts", _AGREEMENT, tables),
        Section("parts", "Where forecasts hold", _PARTS, [*parts, _part_table(values).to_html()] if told else []),
        Section("shifts", "Shifts", _SHIFTS, [_folded(_shift_table(values))]),
    ]
    return [section for section in sections if section.blocks]


def _folded(table: ResultTable) -> Html:
    """A long table behind a line to open it."""
    if len(table.rows) <= _MOST_ROWS_OPEN:
        return table.to_html()
    return disclosure(f"All {len(table.rows):,} shifts", table.to_html())


def _distances(values: Values) -> list[float]:
    return list(dict.fromkeys(row["divergence"] for row in values["shifts"]))


def met_rows(values: Values, divergence: float) -> list[dict[str, Any]]:
    """A row per shift and way of forecasting it, at a distance: `x` and its ends are predicted, `y` realised."""
    return [
        {
            "run": row["run"],
            "attribute": row["attribute"],
            "way": WAYS[by],
            "x": told["value"],
            "x_low": told["low"],
            "x_high": told["high"],
            "y": row["value"],
            "y_low": row["low"],
            "y_high": row["high"],
        }
        for row in values["shifts"]
        if row["divergence"] == divergence and row["value"] is not None
        for by, told in row["predicted"].items()
    ]


def _met_figure(values: Values, divergence: float) -> Figure | None:
    rows = met_rows(values, divergence)
    if not rows:
        return None
    # Of more ways dots would lie on each other; the table has all of them.
    ways = {row["way"] for row in rows}
    beside = next((WAYS[by] for by in (NAIVE, ASSOCIATIONS) if WAYS[by] in ways), None)
    rows = [row for row in rows if row["way"] in (WAYS[EFFECTS], beside)] or rows
    title = f"At {divergence:g} nats from the reference"
    name = f"met-{_distances(values).index(divergence) + 1}"
    return Figure(name, title, title, _MET, met_picture(rows), plain=False, half=True)


def _part_figure(values: Values, divergence: float) -> Figure | None:
    """Forecasts from effects by attribute, where there are enough reward models to speak of one."""
    if not any(_ranks(row, divergence) for row in values["agreement"]["parts"]):
        return None
    rows = [row for row in met_rows(values, divergence) if row["way"] == WAYS[EFFECTS]]
    title = f"Attribute by attribute, at {divergence:g} nats from the reference"
    name = f"part-{_distances(values).index(divergence) + 1}"
    colors = dict(zip([one["name"] for one in values["attributes"]], cycle(PALETTE), strict=False))
    return Figure(name, title, title, _PART, met_picture(rows, "attribute", colors), plain=False, half=True)


def met_picture(rows: Sequence[Mapping[str, Any]], field: str = "way", colors: Mapping[str, str] = WAY_COLORS) -> Spec:
    """Predicted against realised shifts, with intervals both ways and the line on which both are the same.

    Args:
        rows: of `met_rows`.
        field: what colours tell.
        colors: of its values.
    """
    ends = domain(
        [{"value": row[axis], "low": row[f"{axis}_low"], "high": row[f"{axis}_high"]} for row in rows for axis in "xy"],
        0.0,
    )
    scale: Spec = {"domain": ends, "zero": False, "nice": False}
    x: Spec = {"type": "quantitative", "title": "predicted change of the share", "scale": scale}
    y: Spec = {"type": "quantitative", "title": "realised change of the share", "scale": scale}
    # Names side by side would run out of a picture of half a page.
    legend = {"labelLimit": 300, "columns": 1 if field == "way" else 2}
    shown_colors = {name: color for name, color in colors.items() if any(row[field] == name for row in rows)}
    place: Spec = {
        "x": {"field": "x", **x},
        "y": {"field": "y", **y},
        "color": {"field": field, "type": "nominal", "scale": color_scale(shown_colors), "legend": legend},
    }
    faded: Spec = {"condition": {"param": "shown", "empty": True, "value": 1.0}, "value": 0.06}
    bar: Spec = {"type": "rule", "strokeWidth": 1.5, "opacity": 0.45}
    pointer = [
        {"field": "run", "type": "nominal", "title": "Run"},
        {"field": "attribute", "type": "nominal", "title": "Attribute"},
        {"field": "way", "type": "nominal", "title": "Forecast"},
        number_field("x", "Predicted", "+.3f"),
        number_field("y", "Realised", "+.3f"),
        number_field("y_low", "From", "+.3f"),
        number_field("y_high", "To", "+.3f"),
    ]
    diagonal: Spec = {
        "data": {"values": [{"x": end, "y": end} for end in ends]},
        "mark": {"type": "line", "color": GREY, "strokeDash": [4, 4], "strokeWidth": 1.25},
        "encoding": {"x": {"field": "x", **x}, "y": {"field": "y", **y}},
    }
    shown: Spec = {"name": "shown", "select": {"type": "point", "fields": [field]}, "bind": "legend"}
    return specification(
        rows,
        [
            diagonal,
            {
                "transform": [{"filter": "isValid(datum.y_low)"}],
                "mark": bar,
                "encoding": {**place, "y": {"field": "y_low", **y}, "y2": {"field": "y_high"}},
            },
            {
                "transform": [{"filter": "isValid(datum.x_low)"}],
                "mark": bar,
                "encoding": {**place, "x": {"field": "x_low", **x}, "x2": {"field": "x_high"}},
            },
            {
                "params": [shown],
                "mark": {"type": "point", "filled": True, "size": 65},
                "encoding": {**place, "opacity": faded, "tooltip": pointer},
            },
        ],
        height=360,
    )


def _path_figure(values: Values, place: int, attribute: Mapping[str, Any]) -> Figure:
    rate = values["reference"]["rates"][attribute["name"]]["value"]
    title = f"{attribute['name']}: in {rate:.0%} of what the reference writes"
    rows = path_rows(values, attribute["name"])
    many = len({row["run"] for row in rows}) > len(PALETTE)
    told = _PATH_OF_MANY if many else _PATH
    return Figure(f"path-{place + 1}", title, title, told, path_picture(rows, by_effect=many), plain=False, half=True)


def paid(values: Values, run: str, attribute: str) -> str:
    """What the audit says of an attribute under the reward that a run was trained on: one of `PAID`."""
    file = values["forecasts"].get(run)
    own = [] if file is None else [one for one in file["attributes"] if one["name"] == attribute]
    if not own:
        return NOT_AUDITED
    effect, error = own[0]["effect"], own[0]["error"]
    return NOTHING if abs(effect) <= 2.0 * error else FOR if effect > 0 else AGAINST


def path_rows(values: Values, attribute: str) -> list[dict[str, Any]]:
    """A row per checkpoint of every run and seed, and per distance of its forecast from effects (`kind` forecast)."""
    rows: list[dict[str, Any]] = []
    own = [row for row in values["paths"] if row["attribute"] == attribute]
    for run, seed in dict.fromkeys((row["run"], row["seed"]) for row in own):
        line = {"run": run, "line": f"{run} {seed}", "kind": "realised", "paid": paid(values, run, attribute)}
        rows.append({**line, "step": 0, "kl": 0.0, "value": 0.0, "low": None, "high": None})
        rows += [
            {**line, **{name: row[name] for name in ("step", "kl", "value", "low", "high")}}
            for row in own
            if (row["run"], row["seed"]) == (run, seed)
        ]
    for run, file in values["forecasts"].items():
        told = [one for one in file["forecasts"] if (one["attribute"], one["by"]) == (attribute, EFFECTS)]
        if told:
            line = {"run": run, "line": f"{run} forecast", "kind": "forecast", "step": None}
            line["paid"] = paid(values, run, attribute)
            rows.append({**line, "kl": 0.0, "value": 0.0, "low": None, "high": None})
            rows += [
                {**line, "kl": one["divergence"], **{end: one[end] for end in ("value", "low", "high")}}
                for one in sorted(told, key=lambda one: float(one["divergence"]))
            ]
    return rows


def path_picture(rows: Sequence[Mapping[str, Any]], *, by_effect: bool = False) -> Spec:
    """Shift of an attribute against distance: a line for every seed, and the forecast from effects dashed.

    Args:
        rows: of `path_rows`.
        by_effect: colours are those of what the audit says of the attribute, in place of one for every run.
    """
    scale: Spec = {"domain": domain(rows, 0.0), "zero": False, "nice": False}
    # In the root of the distance what is read between checkpoints is a straight line.
    x: Spec = {
        "field": "kl",
        "type": "quantitative",
        "title": "KL from the reference (nats), on a scale of its root",
        "scale": {"type": "sqrt"},
    }
    y: Spec = {"type": "quantitative", "title": "change of the share", "scale": scale}
    field = "paid" if by_effect else "run"
    names = list(dict.fromkeys(row[field] for row in rows))
    colors = (
        {name: PAID[name] for name in PAID if name in names} if by_effect else dict(zip(names, PALETTE, strict=False))
    )
    place: Spec = {
        "x": x,
        "y": {"field": "value", **y},
        "color": {"field": field, "type": "nominal", "scale": color_scale(colors)},
    }
    clear = 0.6 if by_effect else 1.0
    faded: Spec = {"condition": {"param": "shown", "empty": True, "value": clear}, "value": 0.06}
    line: Spec = {**place, "detail": {"field": "line"}, "order": {"field": "kl"}, "opacity": faded}
    shown: Spec = {"name": "shown", "select": {"type": "point", "fields": [field]}, "bind": "legend"}
    pointer = [
        {"field": "line", "type": "nominal", "title": "Run and seed"},
        number_field("step", "Step", "d"),
        number_field("kl", "KL (nats)", ".2f"),
        number_field("value", "Shift", "+.3f"),
        number_field("low", "From", "+.3f"),
        number_field("high", "To", "+.3f"),
    ]
    return specification(
        rows,
        [
            reference_line("y", 0.0, scale=scale),
            {
                "transform": [{"filter": "datum.kind === 'forecast'"}],
                "mark": {"type": "line", "strokeWidth": 2, "strokeDash": [5, 4]},
                "encoding": line,
            },
            {
                "transform": [{"filter": "datum.kind === 'realised'"}],
                "mark": {"type": "line", "strokeWidth": 1.4},
                "encoding": {**line, "order": {"field": "step"}},
            },
            {
                "params": [shown],
                "transform": [{"filter": "datum.kind === 'realised' && datum.step > 0"}],
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": {**place, "opacity": faded, "tooltip": pointer},
            },
        ],
    )


def _shift_table(values: Values) -> ResultTable:
    rows = tuple(
        {
            "run": row["run"],
            "attribute": row["attribute"],
            "divergence": row["divergence"],
            "shift": DASH if row["value"] is None else _span(row),
            "odds": DASH if row["log_odds"]["value"] is None else _span(row["log_odds"]),
            "forecast": _span(row["predicted"][EFFECTS]) if EFFECTS in row["predicted"] else DASH,
            "seeds": f"{len(row['seeds']) - row['unreached']} of {len(row['seeds'])}",
            "reason": row["reason"],
        }
        for row in values["shifts"]
    )
    columns = (
        Column("run", "Run"),
        Column("attribute", "Attribute"),
        Column("divergence", "KL (nats)", lambda value: f"{value:g}"),
        Column("shift", "Shift of the share"),
        Column("odds", "Shift of the log-odds"),
        Column("forecast", "Forecast from effects"),
        Column("seeds", "Seeds that get there"),
        Column("reason", "Remark"),
    )
    return ResultTable(f"Shifts, with {values['level']:.0%} intervals", columns, rows)


def _agreement_table(values: Values) -> ResultTable:
    agreement = values["agreement"]
    found = {(row["by"], row["divergence"], row["measure"]): row for row in agreement["measures"]}
    rows = []
    for dealt in agreement["permutations"]:
        own = {name: found[dealt["by"], dealt["divergence"], name] for name in MEASURES}
        rows.append(
            {
                "divergence": dealt["divergence"],
                "way": WAYS[dealt["by"]],
                "n": own["error"]["n"],
                "units": own["error"]["units"],
                **{name: DASH if row["value"] is None else _span_of(row) for name, row in own.items()},
                "p": dealt["rank_p"],
                "reason": own["error"]["reason"] or dealt["reason"],
            }
        )
    rows += [
        {
            "divergence": row["divergence"],
            "way": "a perfect one, for the noise of seeds",
            "n": row["n"],
            "units": None,
            **dict.fromkeys(MEASURES, ""),
            "rank": DASH if row["rank"] is None else number(row["rank"]),
            "error": number(row["error"]),
            "p": None,
            "reason": "",
        }
        for row in agreement["ceiling"]
    ]
    columns = (
        Column("divergence", "KL (nats)", lambda value: f"{value:g}"),
        Column("way", "Forecast"),
        Column("rank", MEASURES["rank"]),
        Column("p", "p of it, forecasts dealt out anew", lambda value: f"{value:.3g}"),
        *(Column(name, title) for name, title in MEASURES.items() if name != "rank"),
        Column("n", "Shifts", lambda value: f"{value:,}"),
        Column("units", "Reward models", lambda value: f"{value:,}"),
        Column("reason", "Why no interval, or no p"),
    )
    rows.sort(key=lambda row: row["divergence"])
    return ResultTable(f"Forecasts and shifts, with {values['level']:.0%} intervals", columns, tuple(rows))


def _part_table(values: Values) -> ResultTable:
    found: dict[tuple[float, str], dict[str, Any]] = {}
    for row in values["agreement"]["parts"]:
        own = found.setdefault((row["divergence"], row["part"]), {"units": row["units"], "reason": ""})
        own[row["measure"]] = DASH if row["value"] is None else _span_of(row)
        if row["measure"] in ("signs", "carried"):
            own[row["measure"]] = f"{own[row['measure']]}, of {row['n']}" if row["n"] else DASH
        if row["measure"] == "error":
            own |= {"n": row["n"], "reason": row["reason"]}
    rows = tuple({"divergence": divergence, "part": part, **own} for (divergence, part), own in found.items())
    columns = (
        Column("divergence", "KL (nats)", lambda value: f"{value:g}"),
        Column("part", "Shifts"),
        *(Column(name, MEASURES[name]) for name in ("rank", "slope", "error", "signs", "carried")),
        Column("n", "How many", lambda value: f"{value:,}"),
        Column("units", "Reward models", lambda value: f"{value:,}"),
        Column("reason", "Why no interval"),
    )
    return ResultTable(f"Forecasts from effects, part by part, with {values['level']:.0%} intervals", columns, rows)


def _differences_table(values: Values) -> ResultTable:
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for row in values["agreement"]["differences"]:
        own = found.setdefault((row["second"], row["divergence"]), {"n": row["n"], "reason": row["reason"]})
        own[row["measure"]] = _span_of(row)
    rows = tuple(
        {"divergence": divergence, "second": WAYS[second], **own} for (second, divergence), own in found.items()
    )
    columns = (
        Column("divergence", "KL (nats)", lambda value: f"{value:g}"),
        Column("second", "Minus that of the forecast"),
        Column("rank", MEASURES["rank"]),
        Column("error", MEASURES["error"]),
        Column("n", "Shifts", lambda value: f"{value:,}"),
        Column("reason", "Why no interval"),
    )
    return ResultTable("Forecasts from effects minus others, on the shifts that both speak of", columns, rows)
