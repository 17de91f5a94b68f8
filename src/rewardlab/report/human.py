"""`rewardlab audit human`: estimators of an effect beside people's own rewrites, on one page.

report.html     the page, with its figures in figures/
human.json      everything on it: estimates, changes of length, and what each reward gives the words alone
tables/         the estimates as effects.json, effects.csv and effects.tex
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rewardlab.audit.about import read_about
from rewardlab.audit.chains import read_chains
from rewardlab.audit.human import SUBSTITUTIONS, read_substitutions
from rewardlab.audit.human_effects import HumanUnits, estimates, human_units, length_changes, lexicon_overlap
from rewardlab.audit.scored import ScoredChains, join_scores
from rewardlab.audit.summary import number
from rewardlab.config import Config, Paths
from rewardlab.functional.effects import scaled
from rewardlab.functional.intervals import Interval
from rewardlab.report import stages
from rewardlab.report.audit_figures import COLORS, EFFECT_TITLE, TEAL, forest
from rewardlab.report.audit_words import ESTIMATORS, LONGEST_NAME, reward_words, short
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.figures import write_images
from rewardlab.report.html import element
from rewardlab.report.inputs import read_inputs
from rewardlab.report.page import page
from rewardlab.report.tables import Column, ResultTable, write_tables
from rewardlab.report.vega import Row, Spec
from rewardlab.score.tables import read_scores
from rewardlab.store.files import write_json, write_text
from rewardlab.store.runs import Run

NAMES = {"human": "People", **ESTIMATORS}
OVERS = {"balanced": "both directions", "ATT": "texts with it", "ATU": "texts without it"}
_REWRITERS = {"human": "People", "single": "Rewrite", "double": "Rewrite of rewrite"}
_COLORS = {**COLORS, "human": TEAL}


class HumanComparison(Config):
    """Configuration of `audit human`."""

    rewrites: Path
    """Folder of `audit rewrite` on both sides of pairs of originals and human rewrites (a format such as
    counterfactual)."""

    scores: Paths = Field(min_length=1)
    """Folders of `audit score` on these rewrites: one per reward model."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    title: str = "Which estimator agrees with people's rewrites?"
    """Heading of the page."""


@dataclass(frozen=True)
class ComparedWithHumans:
    """What was written.

    Attributes:
        page: the HTML file.
        table: every estimate, with its difference from people's.
        findings: the sentences at the top of the page.
    """

    page: Path
    table: ResultTable
    findings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The findings, and where the page is."""
        return [*self.findings, f"The report: {self.page}"]


def compare_with_humans(config: HumanComparison, run: Run) -> ComparedWithHumans:
    """Write `report.html`, its figures, `human.json` and `tables/effects.*`.

    Raises:
        DataError: folders, files or values that cannot be used; no pair with all its rewrites.
        RunError: the run directory cannot be written to, or the disk is full.
    """
    chains, about = read_chains(config.rewrites), read_about(config.rewrites)
    tables = read_scores(config.scores)
    inputs = read_inputs(score=config.scores)
    words = config.rewrites / SUBSTITUTIONS
    substitutions = read_substitutions(words) if words.is_file() else None
    rows: list[dict[str, Any]] = []
    overlaps: list[dict[str, Any]] = []
    lengths: list[dict[str, Any]] = []
    for table in tables:
        scored = join_scores(chains, table, clusters=about.clusters)
        units = human_units(scored)
        rows += _rows(units, table.scorer, config.level)
        lengths = lengths or length_changes(units, _texts(units, scored), config.level)
        if substitutions is not None:
            overlaps += lexicon_overlap(units, scored, table, substitutions, config.level)
    attribute = f"{about.attribute['high']} against {about.attribute['low']}"
    results = estimates_table(rows, attribute)
    found = findings(results.rows)
    sections = [_findings(results, found, attribute), _lengths(lengths, about.attribute), _overlaps(overlaps)]
    sections = [section for section in sections if section.blocks] + [stages.runs_section(inputs)]
    write_images(run.path("figures"), {figure.name: figure.spec for section in sections for figure in section.figures})
    write_tables(run.path("tables"), results)
    write_json(run.path("human.json"), {"estimates": rows, "lengths": lengths, "words": overlaps})
    path = run.path("report.html")
    write_text(path, page(config.title, sections))
    run.log.info("wrote %s", path)
    return ComparedWithHumans(path, results, tuple(found))


def _texts(units: HumanUnits, scored: ScoredChains) -> list[tuple[str, ...]]:
    return [scored.chains[place].texts for place in units.chains.tolist()]


def _rows(units: HumanUnits, scorer: str, level: float) -> list[dict[str, Any]]:
    """A row per estimate of a reward model, in sd of the rewards of all texts and in units of the reward."""
    rows = []
    for (estimator, over), (raw, apart) in estimates(units, level).items():
        one, difference = scaled(raw, units.sd), scaled(apart, units.sd)
        rows.append(
            {
                "scorer": scorer,
                "estimator": estimator,
                "over": over,
                **_parts(one, "_sd"),
                **{f"difference_{name}": value for name, value in _parts(difference, "_sd").items()},
                **_parts(raw, ""),
                "p_difference": difference.p,
                "n": one.n,
                "clusters": one.clusters,
                "left_out": units.left_out,
                "level": level,
                "reason": one.reason or difference.reason,
            }
        )
    return rows


def _parts(found: Interval, ending: str) -> dict[str, float | None]:
    return {f"{name}{ending}": getattr(found, name) for name in ("value", "low", "high", "error")}


def _signed(value: float) -> str:
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
    Column("value_sd", "Effect (sd)", _signed),
    Column("low_sd", "From", number),
    Column("high_sd", "To", number),
    Column("difference_value_sd", "From people (sd)", _signed),
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
            lines.append(f"{short(scorer, LONGEST_NAME)}: people's rewrites give no estimate ({people['reason']}).")
            continue
        near: list[str] = []
        apart: list[str] = []
        for estimator, row in own.items():
            if row["difference_low_sd"] is None:
                continue
            words = f"{NAMES[estimator]} {_signed(row['value_sd'])} ({_difference(row)} from people)"
            within = row["difference_low_sd"] <= 0.0 <= row["difference_high_sd"]
            (near if within else apart).append(words)
        lines.append(
            f"{short(scorer, LONGEST_NAME)}: people's rewrites say {_with_ends(people, '')} standard deviations. "
            f"Cannot be told from that: {'; '.join(near) or 'nothing'}. Differs: {'; '.join(apart) or 'nothing'}."
        )
    return lines


def _with_ends(row: Row, prefix: str) -> str:
    value, low, high = (row[f"{prefix}{name}_sd"] for name in ("value", "low", "high"))
    return _signed(value) if low is None or high is None else f"{_signed(value)} ({number(low)} to {number(high)})"


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
            "group": short(row["scorer"], LONGEST_NAME),
            "label": NAMES[row["estimator"]],
            **{name: row[f"{prefix}{name}_sd"] for name in ("value", "low", "high")},
            "text": _with_ends(row, prefix),
            "short": _signed(row[f"{prefix}value_sd"]),
            "hint": f"{row['n']:,} texts of {row['clusters']:,} pairs",
            "color": _COLORS[row["estimator"]],
        }
        for row in rows
        if row["over"] == "balanced" and row[f"{prefix}value_sd"] is not None
    ]


def _findings(results: ResultTable, found: Sequence[str], attribute: str) -> Section:
    lead = (
        f"How much the rewards change because of {attribute}: by people's own minimal rewrites, and by estimators that "
        "do not have them. People's rewrites are single rewrites too; both directions are averaged, half and half, so "
        "that what people add either way cancels. An interval of the difference that holds 0 means that these texts "
        "cannot tell the two apart, not that they are the same."
    )
    drawn = [
        Figure(
            "human",
            "People's rewrites and the estimators",
            " ".join(found),
            "Right of the dashed line the attribute raises the reward. Teal is what people's rewrites say, orange the "
            "naive comparison of originals, purple a single rewrite, blue RATE, the rewrite of the rewrite against "
            "the rewrite. One standard deviation is the typical spread of the rewards of texts that are alike in the "
            "attribute.",
            human_and_estimates(results.rows),
            results.to_html(),
            plain=False,
        ),
        Figure(
            "differences",
            "How far from people",
            "The difference of every estimate from people's, pair by pair.",
            "On the dashed line an estimate says what people's rewrites say. The interval is that of the difference "
            "itself: both estimates come from the same pairs.",
            differences_from_people(results.rows),
            plain=False,
        ),
    ]
    return Section("findings", "Findings", lead, [element("ol", [element("li", line) for line in found]), *drawn])


def _lengths(rows: Sequence[Mapping[str, Any]], attribute: Mapping[str, str]) -> Section:
    columns = (
        Column("rewriter", "Text"),
        Column("towards", "Made"),
        Column("before", "Words before", lambda value: f"{value:.1f}"),
        Column("value", "Change in words", _signed),
        Column("low", "From", number),
        Column("high", "To", number),
        Column("unchanged", "Left as it was", lambda value: f"{100 * value:.1f} %"),
        Column("n", "Texts", lambda value: f"{value:,}"),
        Column("clusters", "Pairs", lambda value: f"{value:,}"),
    )
    caption = "What rewriting changes in length, against the text that it began with"
    shown = [
        {**row, "rewriter": _REWRITERS[row["rewriter"]], "towards": attribute["high" if row["towards"] else "low"]}
        for row in rows
    ]
    lead = "A change that goes the same way in both directions is drift; it is no part of the effect."
    return Section(
        "lengths", "What else rewriting changes", lead, [ResultTable(caption, columns, tuple(shown)).to_html()]
    )


def _overlaps(rows: Sequence[Mapping[str, Any]]) -> Section:
    if not rows:
        return Section("words", "", "", [])
    columns = (
        Column("scorer", "Reward model"),
        Column("verdict", "The words alone move it"),
        Column("value", "Share of uses", lambda value: f"{100 * value:.1f} %"),
        Column("low", "From", lambda value: f"{100 * value:.1f} %"),
        Column("high", "To", lambda value: f"{100 * value:.1f} %"),
        Column("uses", "Uses", lambda value: f"{value:,}"),
        Column("words", "Different", lambda value: f"{value:,}"),
    )
    lead = (
        "Every substitution that the rule made in the first rewrites, judged by what the reward gives the new words "
        "alone and the old words alone. A reward with a lexicon that the rule speaks too is moved as asked; words "
        f"outside it move it not at all. {rows[0]['removals']:,} uses that only take words away are not judged."
    )
    table = ResultTable("The mined substitutions and what each reward gives the words", columns, tuple(rows))
    return Section("words", "The words of the rule and the rewards", lead, [table.to_html()])
