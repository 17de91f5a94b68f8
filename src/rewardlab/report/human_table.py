"""Estimates beside people's: the table, the sentences, and the figures, each of which takes the table's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.audit.summary import number
from rewardlab.report.audit_figures import COLORS, EFFECT_TITLE, TEAL
from rewardlab.report.audit_words import ESTIMATORS, reward_words, short
from rewardlab.report.forest import forest
from rewardlab.report.tables import Column, ResultTable
from rewardlab.report.vega import Row, Spec

NAMES = {"human": "People", **ESTIMATORS}
OVERS = {"balanced": "both directions", "ATT": "texts with it", "ATU": "texts without it"}
_COLORS = {**COLORS, "human": TEAL}


def signed(value: float) -> str:
    """A number with its sign."""
    return number(value, signed=True)


def estimates_table(rows: Sequence[Mapping[str, Any]], attribute: str) -> ResultTable:
    """Every estimate beside people's, with the paired difference.

    Args:
        rows: as `human.json` has them.
        attribute: in words.
    """
    level = f"{100 * rows[0]['level']:g}" if rows else "95"
    caption = (
        f"Effect of {attribute}, in standard deviations of the rewards of the texts, and how far it lies from what "
        f"people's rewrites say, with {level} % intervals clustered by pair"
    )
    named = [{**row, "estimate": NAMES[row["estimator"]], "texts": OVERS[row["over"]]} for row in rows]
    return ResultTable(caption, _COLUMNS, tuple(named))


_COLUMNS = (
    Column("estimate", "Estimate"),
    Column("scorer", "Reward model"),
    Column("texts", "Over"),
    Column("estimator", "Estimator", shown=False),
    Column("over", "Target", shown=False),
    Column("value_sd", "Effect (sd)", signed),
    Column("low_sd", "From", number),
    Column("high_sd", "To", number),
    Column("difference_value_sd", "From people (sd)", signed),
    Column("difference_low_sd", "From", number),
    Column("difference_high_sd", "To", number),
    Column("n", "Texts", lambda value: f"{value:,}"),
    Column("clusters", "Pairs", lambda value: f"{value:,}"),
    Column("left_out", "Pairs left out", str, shown=False),
    Column("p_difference", "p of the difference", str, shown=False),
    Column("value", "Effect (reward units)", reward_words, shown=False),
    Column("low", "From (reward units)", reward_words, shown=False),
    Column("high", "To (reward units)", reward_words, shown=False),
    Column("level", "Level", str, shown=False),
    Column("reason", "Note"),
)


def findings(rows: Sequence[Row]) -> list[str]:
    """What a reader takes home: a sentence or two per reward model."""
    lines = []
    for scorer in dict.fromkeys(row["scorer"] for row in rows):
        own = {row["estimator"]: row for row in rows if row["scorer"] == scorer and row["over"] == "balanced"}
        people = own.pop("human")
        if people["value_sd"] is None:
            lines.append(f"{short(scorer)}: people's rewrites give no estimate ({people['reason']}).")
            continue
        near: list[str] = []
        apart: list[str] = []
        for estimator, row in own.items():
            if row["difference_low_sd"] is None:
                continue
            words = f"{NAMES[estimator]} {signed(row['value_sd'])} ({_difference(row)} from people)"
            within = row["difference_low_sd"] <= 0.0 <= row["difference_high_sd"]
            (near if within else apart).append(words)
        lines.append(
            f"{short(scorer)}: people's rewrites say {_with_ends(people, '')} standard deviations. "
            f"Cannot be told from that: {'; '.join(near) or 'nothing'}. Differs: {'; '.join(apart) or 'nothing'}."
        )
    return lines


def _with_ends(row: Row, prefix: str) -> str:
    value, low, high = (row[f"{prefix}{name}_sd"] for name in ("value", "low", "high"))
    return signed(value) if low is None or high is None else f"{signed(value)} ({number(low)} to {number(high)})"


def _difference(row: Row) -> str:
    return _with_ends(row, "difference_").replace(" (", ", ").removesuffix(")")


def human_and_estimates(rows: Sequence[Row]) -> Spec:
    """People's rewrites and every estimator, reward model by reward model, over both directions.

    Args:
        rows: of `estimates_table`.
    """
    return forest(_lanes(rows, ""), axis_title=EFFECT_TITLE, reference_label="no effect")


def differences_from_people(rows: Sequence[Row]) -> Spec:
    """How far each estimate lies from people's, with the interval of the difference.

    Args:
        rows: of `estimates_table`.
    """
    title = "estimate minus people's (standard deviations)"
    return forest(_lanes(rows, "difference_"), axis_title=title, reference_label="as people")


def _lanes(rows: Sequence[Row], prefix: str) -> list[dict[str, Any]]:
    return [
        {
            "group": short(row["scorer"]),
            "label": NAMES[row["estimator"]],
            **{name: row[f"{prefix}{name}_sd"] for name in ("value", "low", "high")},
            "text": _with_ends(row, prefix),
            "short": signed(row[f"{prefix}value_sd"]),
            "hint": f"{row['n']:,} texts of {row['clusters']:,} pairs",
            "color": _COLORS[row["estimator"]],
        }
        for row in rows
        if row["over"] == "balanced" and row[f"{prefix}value_sd"] is not None
    ]
