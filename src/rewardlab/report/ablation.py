"""`rewardlab evaluate ablation`: ways to make a reward model side by side, on the same data, against a baseline.

What does an intervention on the data, another readout or another objective buy, and what does it cost? Every arm is
measured on what all arms hold, over its seeds, and compared with the baseline pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from rewardlab.audit.effects_file import effects_folder
from rewardlab.audit.summary import number
from rewardlab.config import Config, Paths
from rewardlab.errors import DataError, Problem
from rewardlab.functional.intervals import Interval
from rewardlab.functional.ratio import NOT_TOLD_FROM_ZERO
from rewardlab.report.ablation_figures import gains, trade
from rewardlab.report.ablation_measures import MEASURES, ArmResult, Measure, compared, plainly
from rewardlab.report.audit_words import p_words
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.figures import write_images
from rewardlab.report.html import Html, element
from rewardlab.report.page import page
from rewardlab.report.tables import Column, ResultTable, write_tables
from rewardlab.store.files import write_json, write_text
from rewardlab.store.runs import Run

RESULT = "ablation.json"
LEVEL = 0.95


class Arm(Config):
    """What one way to make a reward model left: folders of its models, one per seed."""

    evaluate: Paths = ()
    """Folders of `evaluate accuracy` on the same pairs."""

    candidates: Paths = ()
    """Folders of `score` of several completions a prompt: how length and reward go together within a prompt."""

    effects: Paths = ()
    """Folders of `audit effects` of the same rewrites, or of `audit run`: what an attribute causes."""

    def folders(self, part: str) -> list[Path]:
        """The folders of `evaluate`, `candidates` or `effects`; of an `audit run` that of its effects."""
        return [effects_folder(one) if part == "effects" else one for one in getattr(self, part)]


class Ablation(Config):
    """Which ways to make a reward model are compared."""

    arms: dict[str, Arm] = Field(min_length=2)
    """By name; each with its folders."""

    baseline: str
    """The arm that the others are compared with."""

    title: str = "Ways to make a reward model, side by side"
    """Heading of the page."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.baseline not in self.arms:
            raise ValueError(f"expected baseline to be one of {', '.join(self.arms)}")
        empty = [name for name, arm in self.arms.items() if not (arm.evaluate or arm.candidates or arm.effects)]
        if empty:
            raise ValueError(f"expected folders for every arm; there are none for {', '.join(empty)}")
        return self


@dataclass(frozen=True)
class ComparedArms:
    """What was written.

    Attributes:
        page: the HTML file.
        results: of every measure, arm by arm.
        findings: the sentences at the top of the page.
    """

    page: Path
    results: Mapping[str, Sequence[ArmResult]]
    findings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The findings, and where the page is."""
        return [*self.findings, f"The report: {self.page}"]


def compare_arms(config: Ablation, run: Run) -> ComparedArms:
    """Write `ablation.json`, `report.html`, its figures as SVG and PNG, and `tables/effects.*`.

    Raises:
        DataError: folders that cannot be used, all of them, or nothing that two arms have in common.
        RunError: the run directory cannot be written to, or the disk is full.
    """
    problems: list[Problem] = []
    results: dict[str, list[ArmResult]] = {}
    read = cache(plainly)
    for measure in MEASURES:
        folders = {name: arm.folders(measure.part) for name, arm in config.arms.items()}
        try:
            found = compared(measure, folders, config.baseline, read, LEVEL)
        except DataError as error:
            # Several measures read the same folders.
            problems += [one for one in error.problems if one not in problems]
            continue
        if found:
            results[measure.name] = found
    if problems:
        raise DataError("cannot compare", problems)
    shown = [measure for measure in MEASURES if measure.name in results]
    lines = findings(shown, results, config.baseline)
    table = results_table(shown, results, config.baseline)
    sections = [
        _findings(shown, results, config.baseline, lines),
        Section("results", "Results", _LEAD, [table.to_html()]),
    ]
    write_json(run.path(RESULT), _as_json(shown, results, config.baseline))
    write_images(run.path("figures"), {one.name: one.spec for section in sections for one in section.figures})
    write_tables(run.path("tables"), {"effects": table})
    path = run.path("report.html")
    write_text(path, page(config.title, sections))
    run.log.info("wrote %s", path)
    return ComparedArms(path, results, tuple(lines))


_LEAD = (
    "Each value is the mean over the seeds. Intervals (95 %) are over the data, pairs clustered by conversation and "
    "responses by prompt, and over the seeds where an arm has several; with one seed they say nothing of another. "
    "Differences are paired, observation by observation, and not adjusted for how many there are. What is left of an "
    "effect is the arm's as a share of the baseline's, each in standard deviations of its own rewards; its interval "
    "(Fieller's) holds the shares that the same data and seeds do not refute."
)


def findings(shown: Sequence[Measure], results: Mapping[str, Sequence[ArmResult]], baseline: str) -> list[str]:
    """A sentence per measure: what the baseline has, which arms differ from it, and which have no such number."""
    lines = []
    for measure in shown:
        by_arm = {one.arm: one for one in results[measure.name]}
        without = [f"{name} has none: {one.found.reason}" for name, one in by_arm.items() if one.found.value is None]
        own = by_arm.pop(baseline, None)
        if own is None:
            continue
        changes = [
            f"{name} {_words(measure, one.found.value)}, that is {_words(measure, one.gain.value, signed=True)} "
            f"({_span(measure, one.gain.low, one.gain.high)}) against {baseline}"
            for name, one in by_arm.items()
            if one.gain is not None and one.gain.low is not None and one.gain.high is not None
            if one.gain.low > 0.0 or one.gain.high < 0.0
        ]
        told = changes or ["no arm differs from it beyond its interval"]
        if own.found.value is not None:
            without = [f"{baseline} {_words(measure, own.found.value)}", *told, *without]
        title = measure.title.removesuffix(" (%)")
        lines.append(f"{title[0].upper()}{title[1:]}: {'; '.join(without)}.")
        left = [_left_words(one.arm, one.left) for one in by_arm.values() if one.left is not None]
        if left and own.found.value is not None:
            lines.append(f"Against {baseline}, {'; '.join(left)}.")
    return lines


def _left_words(arm: str, left: Interval) -> str:
    if left.value is None or left.reason == NOT_TOLD_FROM_ZERO:
        return f"what is left of it in {arm} cannot be said: {left.reason}"
    told = f"in {arm} {_share(left.value)} % of the effect is left"
    if left.low is None or left.high is None:
        return f"{told}, without an interval: {left.reason}"
    halved = ", less than half" if left.low > -0.5 and left.high < 0.5 else ""
    return f"{told} ({_share(left.low)} to {_share(left.high)}){halved}"


def results_table(shown: Sequence[Measure], results: Mapping[str, Sequence[ArmResult]], baseline: str) -> ResultTable:
    """Every measure of every arm, with its difference from the baseline."""
    rows = tuple(
        {
            "measure": measure.title,
            "arm": one.arm,
            **{name: getattr(one.found, name) for name in ("value", "low", "high", "n", "clusters", "reason")},
            "seeds": len(one.seeds),
            "seed_spread": _spread(one.seeds),
            **{f"gain_{name}": getattr(one.gain, name, None) for name in ("value", "low", "high", "p")},
            **{f"left_{name}": getattr(one.left, name, None) for name in ("value", "low", "high", "reason")},
            "percent": measure.percent,
        }
        for measure in shown
        for one in results[measure.name]
    )
    words = [_cell(row) for row in rows]
    columns = (
        Column("measure", "Measure"),
        Column("arm", "Arm"),
        Column("shown_value", "Value"),
        Column("shown_gain", f"Minus {baseline}"),
        Column("gain_p", "p", p_words),
        Column("shown_left", f"Left of {baseline} (%)"),
        Column("seeds", "Seeds", str),
        Column("shown_spread", "Sd of the seeds"),
        Column("n", "n", lambda value: f"{value:,}"),
        Column("clusters", "Clusters", lambda value: f"{value:,}"),
        *(
            Column(name, name, str, shown=False)
            for name in (
                *("value", "low", "high", "seed_spread", "gain_value", "gain_low", "gain_high"),
                *("left_value", "left_low", "left_high", "left_reason", "reason"),
            )
        ),
    )
    caption = "Every arm by every measure, with 95 % intervals, and its paired difference from the baseline"
    return ResultTable(caption, columns, tuple({**row, **more} for row, more in zip(rows, words, strict=True)))


def _cell(row: Mapping[str, Any]) -> dict[str, str]:
    percent = row["percent"]
    value, spread, gain = row["value"], row["seed_spread"], row["gain_value"]
    own = (
        f"none: {row['reason']}" if value is None else _with_span(percent, value, row["low"], row["high"], signed=False)
    )
    return {
        "shown_value": own,
        "shown_gain": "" if gain is None else _with_span(percent, gain, row["gain_low"], row["gain_high"], signed=True),
        "shown_left": _shown_left(row),
        "shown_spread": "" if spread is None else _shown(percent, spread),
    }


def _shown_left(row: Mapping[str, Any]) -> str:
    value, reason = row["left_value"], row["left_reason"]
    if value is None or reason == NOT_TOLD_FROM_ZERO:
        return f"none: {reason}" if reason else ""
    return _with_span(True, value, row["left_low"], row["left_high"], signed=False)


def _share(value: float) -> str:
    return _shown(True, value)


def _with_span(percent: bool, value: float, low: float | None, high: float | None, *, signed: bool) -> str:
    span = "" if low is None or high is None else f" ({_shown(percent, low)} to {_shown(percent, high)})"
    return f"{_shown(percent, value, signed=signed)}{span}"


def _words(measure: Measure, value: float | None, *, signed: bool = False) -> str:
    unit = "" if not measure.percent else " points" if signed else " %"
    return "none" if value is None else f"{_shown(measure.percent, value, signed=signed)}{unit}"


def _span(measure: Measure, low: float, high: float) -> str:
    return f"{_shown(measure.percent, low)} to {_shown(measure.percent, high)}"


def _shown(percent: bool, value: float, *, signed: bool = False) -> str:
    if not percent:
        return number(value, signed=signed)
    shown = f"{100 * value:{'+' if signed else ''}.1f}"
    return shown.replace("-", "\N{MINUS SIGN}")


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation of the seeds; None of one seed."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (len(values) - 1))


def _findings(
    shown: Sequence[Measure], results: Mapping[str, Sequence[ArmResult]], baseline: str, lines: Sequence[str]
) -> Section:
    blocks: list[Figure | Html] = [element("ol", [element("li", line) for line in lines])]
    by_name = {measure.name: measure for measure in shown}
    for across, up in (("effect", "accuracy"), ("within_prompt", "accuracy"), ("effect", "gold_accuracy")):
        if across in by_name and up in by_name:
            spec = trade(by_name[across], results[across], by_name[up], results[up], baseline)
            if spec is not None:
                title = f"{by_name[up].title} and {by_name[across].title}"
                reading = (
                    "An arm is a cross: its values with their intervals; the baseline is orange. Higher is right more "
                    "often; nearer to 0 across is less moved by the attribute."
                )
                blocks.append(
                    Figure(f"trade-{across}-{up}".replace("_", "-"), title, title, reading, spec, plain=False)
                )
    for measure in shown:
        spec = gains(measure, results[measure.name], baseline)
        blocks.append(
            Figure(
                f"arms-{measure.name}".replace("_", "-"),
                measure.title,
                measure.title,
                f"{measure.reading} Dots without a line are single seeds.",
                spec,
                plain=False,
            )
        )
    return Section("findings", "Findings", "", blocks)


def _as_json(shown: Sequence[Measure], results: Mapping[str, Sequence[ArmResult]], baseline: str) -> dict[str, Any]:
    return {
        "baseline": baseline,
        "level": LEVEL,
        "measures": [
            {
                "name": measure.name,
                "title": measure.title,
                "reading": measure.reading,
                "unit": measure.unit,
                "arms": [
                    {
                        "arm": one.arm,
                        **one.found._asdict(),
                        "seeds": list(one.seeds),
                        "difference": None if one.gain is None else one.gain._asdict(),
                        "left": None if one.left is None else one.left._asdict(),
                    }
                    for one in results[measure.name]
                ],
            }
            for measure in shown
        ],
    }
