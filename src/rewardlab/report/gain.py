"""`rewardlab evaluate gain`: measures it (`evaluate.gain`) and writes its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardlab.audit.summary import number
from rewardlab.evaluate.gain import GainEvaluation, Values, gain_values, read_sets
from rewardlab.evaluate.summary import MINUS, estimate_lines, percent
from rewardlab.report.audit_figures import PURPLE, TEAL
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.forest import forest
from rewardlab.report.html import element
from rewardlab.report.page import MeasuredPage, write_page
from rewardlab.report.tables import Column, ResultTable
from rewardlab.report.vega import BLUE, GREY
from rewardlab.store.files import write_json, write_text
from rewardlab.store.runs import Run

RESULT, SUMMARY = "gain.json", "gain.txt"
PARTS = {
    "total": ("the whole gain", GREY),
    "non_length": ("within bins of length (NRG)", BLUE),
    "shared": ("within bins that hold both", BLUE),
    "at_equal_length": ("at equal length, regression", TEAL),
    "through_length": ("through length, regression", PURPLE),
}
SHORT = 0.05
"""Share of answers in one-sided bins from which on the page says by how much NRG is short."""
_GAINS = (
    "Grey is what a model gains over the baseline, in units of the reward. Blue and teal are two estimates of how much "
    "of it is left where lengths are alike; purple is the rest of the regression, what other lengths bring."
)
_STRATA = (
    "Answers in parts of equal size by their length. Where a model is only longer, its dots in one part are "
    "level with the baseline's."
)
_WINS = (
    "Pairs of answers to one prompt in parts of equal size by how much the model's answer is longer; the higher "
    "reward wins."
)


def evaluate_gain(config: GainEvaluation, run: Run) -> MeasuredPage:
    """Write `gain.json`, `gain.txt`, `report.html` and its figures.

    Raises:
        DataError: as `evaluate.gain.read_sets`.
    """
    values = gain_values(read_sets(config), config)
    values = {**values, "findings": findings(values)}
    sections = gain_sections(values)
    write_json(run.path(RESULT), values)
    write_text(run.path(SUMMARY), "\n".join([*values["findings"], *estimate_lines(values["estimates"])]) + "\n")
    return MeasuredPage(write_page(run, config.title, sections), values)


def findings(values: Values) -> list[str]:
    """What was found, in sentences."""
    lines = []
    for name in values["bins"]:
        own = _parts(values, name)
        share = own["ratio"]
        part = f", {percent(share['value'])} % of it" if share["value"] is not None and share["low"] is not None else ""
        lengths = [_mean(values, "tokens", who) for who in (values["baseline"], name)]
        lines.append(
            f"{name} over {values['baseline']}: reward {_spanned(own['total'])}, within bins of length "
            f"{_spanned(own['non_length'])}{part}, at equal length by regression {_spanned(own['at_equal_length'])}; "
            f"{lengths[0]:.0f} against {lengths[1]:.0f} {values['unit']} on average."
        )
        if _is_short(own):
            lines.append(_short_words(name, own))
    return lines


def _is_short(own: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether bins of one model alone make NRG short of the gain in the others by a share that matters.

    Where they hold few answers it still does if the interval is narrow: short by half a standard error, a quarter of
    the half-width, a 95 % interval holds in 92 of 100 samples what it would hold in 95.
    """
    low, high = own["non_length"]["low"], own["non_length"]["high"]
    if own["one_sided"]["value"] >= SHORT or low is None or own["shared"]["value"] is None:
        return bool(own["one_sided"]["value"] >= SHORT)
    return bool(abs(own["shared"]["value"] - own["non_length"]["value"]) > (high - low) / 8.0)


def _short_words(name: str, own: Mapping[str, Mapping[str, Any]]) -> str:
    share = f"{name}: {percent(own['one_sided']['value'])} % of the answers are in bins of length that hold answers of "
    if own["shared"]["value"] is None:
        return f"{share}one of the two alone, so NRG says nothing."
    return (
        f"{share}one of the two alone and add nothing to NRG, which is that much short of a gain that is the same at "
        f"every length; within the other bins the gain is {_spanned(own['shared'])}."
    )


def _mean(values: Values, what: str, name: str) -> float:
    return float(next(one["value"] for one in values["estimates"]["sets"] if one["name"] == f"{what}.{name}"))


def _parts(values: Values, name: str) -> dict[str, Mapping[str, Any]]:
    """The estimates of a gain, by kind."""
    return {one["name"].partition(".")[0]: one for one in values["estimates"]["gain"] if _name(one) == name}


def _name(one: Mapping[str, Any]) -> str:
    """What stands behind the kind in an estimate's name."""
    return str(one["name"]).partition(".")[2]


def _spanned(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "none"
    ends = "" if one["low"] is None else f" ({number(one['low'])} to {number(one['high'])})"
    return f"{number(one['value'], signed=True)}{ends}"


def gain_sections(values: Values) -> list[Section]:
    """The sections of the page, in order."""
    level = f"{100 * values['options']['level']:g}"
    lead = (
        f"Gains in reward over {values['baseline']}, by {values['scorer']}, on {values['counts']['prompts']:,} prompts "
        f"that all sets have ({values['counts']['left_out']:,} others are left out). Intervals ({level} %) are over "
        "prompts."
    )
    told = element("ol", [element("li", line) for line in values["findings"]])
    tables = [_sets(values), *bin_tables(values)]
    return [
        Section("findings", "Findings", lead, [told, gain_figure(values)]),
        Section("strata", "By length", "", [_strata(values), _wins(values)]),
        Section("tables", "The numbers", "", [table.to_html() for table in tables]),
    ]


def gain_figure(values: Values, name: str = "gains", by: str = "") -> Figure:
    """The gains over the baseline, and how much of them is left at equal length.

    Args:
        values: what gain.json holds.
        name: of the figure.
        by: which reward, for the title.
    """
    rows = []
    short = {name for name in values["bins"] if _is_short(_parts(values, name))}
    for one in values["estimates"]["gain"]:
        part = str(one["name"]).partition(".")[0]
        if part in PARTS and one["value"] is not None and (part != "shared" or _name(one) in short):
            label, color = PARTS[part]
            rows.append(_lane(one, _name(one), label, color))
    told = f"Gains over {values['baseline']}{by}"
    spec = forest(rows, axis_title="Gain (units of the reward)", reference_label="no gain")
    return Figure(name, told, told, _GAINS, spec, plain=False)


def _strata(values: Values) -> Figure:
    own = [one for one in values["estimates"]["strata"] if one["value"] is not None]
    ranges = list(dict.fromkeys(_range(one) for one in own))
    rows = [
        _lane(one, f"{ends} {values['unit']}", _name(one).rpartition(".")[0], GREY if _is_base(values, one) else BLUE)
        for ends in ranges
        for one in own
        if _range(one) == ends
    ]
    told = "Reward within parts of equal length"
    spec = forest(rows, axis_title="Mean reward", reference=None)
    return Figure("strata", told, told, _STRATA, spec, plain=False)


def _wins(values: Values) -> Figure:
    rows = []
    name = ""
    for one in values["estimates"]["wins"]:
        known = _name(one)
        name = known if known in values["bins"] else name
        label = "all" if known == name else f"{_range(one)} {values['unit']} longer"
        if one["value"] is not None:
            ends = {key: None if one[key] is None else 100 * one[key] for key in ("value", "low", "high")}
            text = f"{percent(one['value'])} %"
            words = {"text": text, "short": text, "hint": one["reading"], "color": BLUE}
            rows.append({"group": name, "label": label, **ends, **words})
    told = f"How often the reward is above that of {values['baseline']}"
    spec = forest(rows, axis_title="Higher reward (%)", reference=50.0, reference_label="even")
    return Figure("wins", told, told, _WINS, spec, plain=False)


def _range(one: Mapping[str, Any]) -> str:
    return str(one["name"]).rpartition(".")[2].replace("-", MINUS)


def _is_base(values: Values, one: Mapping[str, Any]) -> bool:
    return _name(one).rpartition(".")[0] == str(values["baseline"])


def _lane(one: Mapping[str, Any], group: str, label: str, color: str) -> dict[str, Any]:
    ends = {name: one[name] for name in ("value", "low", "high")}
    words = {"text": _spanned(one), "short": number(one["value"], signed=True), "hint": one["reading"]}
    return {"group": group, "label": label, **ends, **words, "color": color}


def _sets(values: Values) -> ResultTable:
    columns = (
        Column("set", "Set"),
        Column("reward", "Mean reward", number),
        Column("tokens", f"Mean {values['unit']}", lambda value: f"{value:.1f}"),
        Column("n", "Answers", lambda value: f"{value:,}"),
    )
    rows = tuple(
        {
            "set": name,
            "reward": _mean(values, "reward", name),
            "tokens": _mean(values, "tokens", name),
            "n": next(one["n"] for one in values["estimates"]["sets"] if one["name"] == f"reward.{name}"),
        }
        for name in values["sets"]
    )
    return ResultTable("The sets", columns, rows)


def bin_tables(values: Values) -> list[ResultTable]:
    """The bins of length behind NRG, a table for each set over the baseline."""
    return [_bins(values, name) for name in values["bins"]]


def _bins(values: Values, name: str) -> ResultTable:
    columns = (
        Column("range", values["unit"].capitalize()),
        Column("first", f"Answers of {values['baseline']}", lambda value: f"{value:,}"),
        Column("second", f"Answers of {name}", lambda value: f"{value:,}"),
        Column("first_mean", "Mean reward", number),
        Column("second_mean", "Mean reward", number),
    )
    rows = tuple({**one, "range": f"[{one['low']}, {one['high']})"} for one in values["bins"][name])
    return ResultTable(f"Bins of length: {values['baseline']} and {name}", columns, rows)
