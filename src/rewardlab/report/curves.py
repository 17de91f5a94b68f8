"""Curves of history.jsonl: a measure over the steps, a line per training, with its end in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.report import chosen, figures
from rewardlab.report.blocks import Figure
from rewardlab.report.inputs import HistoryRow, Stage, Training
from rewardlab.report.vega import HEIGHT_PIXELS
from rewardlab.report.words import plain_number

MOST_CURVE_POINTS = 60
FLAT_HEIGHT_PIXELS = 160
"""Height of a figure of the whole width."""


@dataclass(frozen=True)
class Measure:
    """A measure of history.jsonl and how it is drawn.

    Attributes:
        key: its name there.
        title: of the figure.
        axis: what is on its axis, with the unit.
        reading: how to read it.
        percent: whether a fraction is drawn in per cent.
        half: whether it is drawn at half the width of the page.
        name: of the figure; empty is that of the measure, of a training.
        each: what a line is, where there are several.
        steps: what is on the other axis.
    """

    key: str
    title: str
    axis: str
    reading: str
    percent: bool = False
    half: bool = True
    name: str = ""
    each: str = "fold"
    steps: str = "optimiser steps"


def curve(stages: Sequence[Stage[Training]], measure: Measure) -> Figure | None:
    """The figure of one measure; None where no stage logged it."""
    rows: list[dict[str, Any]] = []
    averaged = False
    for stage in stages:
        for split in dict.fromkeys(row.split for row in stage.content.history):
            points = points_of(stage.content.history, split, measure.key)
            thin = thinned(points, MOST_CURVE_POINTS)
            averaged |= len(thin) < len(points)
            rows += [{"step": step, "value": value, "split": split, "fold": stage.label} for step, value in thin]
    if not rows:
        return None
    folds = f" Each line is one {measure.each}." if len(stages) > 1 else ""
    means = " Neighbouring steps are averaged, as there are too many to draw; the last value of train is such a mean."
    more = means if averaged else ""
    height = HEIGHT_PIXELS if measure.half else FLAT_HEIGHT_PIXELS
    return Figure(
        measure.name or f"training-{measure.key.replace('_', '-')}",
        measure.title,
        _last_words(stages, measure),
        f"{measure.reading}{folds}{more}",
        figures.training_curve(
            rows, axis_title=measure.axis, percent=measure.percent, height=height, steps=measure.steps
        ),
        half=measure.half,
    )


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` points: means of runs of neighbours, at the last step of each run.

    A shorter run, where they do not come out even, stands first: the last point is what people quote.
    """
    size = _run_length(len(points), most)
    starts = range(len(points) % size - size if len(points) % size else 0, len(points), size)
    runs = [points[max(start, 0) : start + size] for start in starts]
    return [(run[-1][0], math.fsum(value for _, value in run) / len(run)) for run in runs]


def _run_length(points: int, most: int = MOST_CURVE_POINTS) -> int:
    """How many neighbours of a curve are averaged into one of its points."""
    return max(1, math.ceil(points / most))


def _measured(history: Iterable[HistoryRow], split: str, measure: str) -> list[tuple[HistoryRow, float]]:
    """The lines of a split that hold a measure, with its value."""
    lines = [(row, row.measure(measure)) for row in history if row.split == split]
    return [(row, value) for row, value in lines if value is not None and math.isfinite(value)]


def points_of(history: Iterable[HistoryRow], split: str, measure: str) -> list[tuple[int, float]]:
    """Step and value of every line of a split that holds a measure."""
    return [(row.step, value) for row, value in _measured(history, split, measure)]


def _last_words(stages: Sequence[Stage[Training]], measure: Measure) -> str:
    """The end of every curve; of several folds mean and range. The finding of the figure."""
    parts = []
    for split in dict.fromkeys(row.split for stage in stages for row in stage.content.history):
        last = [line for stage in stages for line in last_points(stage.content.history, split, measure.key)]
        if last:
            parts.append(f"{split} {_last_value(last, measure)}")
    return f"Last {measure.axis}: {', '.join(parts)}."


@dataclass(frozen=True)
class _Last:
    """The end of a curve: its value, the line of the log it stands on, and over how many lines it is a mean."""

    value: float
    row: HistoryRow
    averaged: int

    @property
    def over(self) -> str:
        """`mean of the last 4 logged steps`; empty for a single one."""
        return f"mean of the last {self.averaged} logged steps" if self.averaged > 1 else ""


def last_points(history: Sequence[HistoryRow], split: str, measure: str) -> list[_Last]:
    """The end of a curve, none where there is no curve.

    A training step is one noisy batch, so its end is the mean that the curve is drawn with; an evaluation speaks for
    itself.
    """
    lines = _measured(history, split, measure)
    size = _run_length(len(lines)) if split == "train" else 1
    values = [value for _, value in lines[-size:]]
    return [_Last(math.fsum(values) / len(values), lines[-1][0], len(values))] if lines else []


def _last_value(last: Sequence[_Last], measure: Measure) -> str:
    scale = 100.0 if measure.percent else 1.0
    values = [scale * one.value for one in last]
    mean = math.fsum(values) / len(values)
    digits = 1 if mean >= 10 else 3
    words = plain_number(mean, digits)
    if len(values) > 1:
        ends = f"{plain_number(min(values), digits)} to {plain_number(max(values), digits)}"
        each = f", each the {last[0].over}" if last[0].over else ""
        return f"{words} (mean of {len(values)} {measure.each}s, which go from {ends}{each})"
    if measure.percent:
        return f"{words}{_interval_words(last[0].row, last[0].value)}"
    return f"{words} ({last[0].over})" if last[0].over else words


def _interval_words(row: HistoryRow, accuracy: float) -> str:
    """The 95 % interval of an accuracy of one line of the log; empty where the line does not say of how many."""
    return chosen.interval_words(accuracy, int(row.measure("n") or 0))
