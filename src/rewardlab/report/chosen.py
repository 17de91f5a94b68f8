"""What a training says of the model that it saved: the checkpoint that was chosen, by what, and the test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from rewardlab.errors import counted
from rewardlab.functional.intervals import proportion
from rewardlab.report.inputs import HistoryRow, Stage, Training
from rewardlab.report.words import DASH, plain_number

HEADER = (
    "Chosen at step",
    "Kept at the last step",
    "Held-out accuracy then (95 % interval)",
    "Held-out loss then",
    "Test accuracy (95 % interval)",
    "Test loss",
)


@dataclass(frozen=True)
class Measured:
    """What the saved model has on one set; None where it was not measured."""

    step: int | None = None
    accuracy: float | None = None
    loss: float | None = None
    records: int = 0

    def accuracy_words(self) -> str:
        """`63.0 % (56.2 to 69.7)`, or a dash."""
        if self.accuracy is None:
            return DASH
        return f"{100 * self.accuracy:.1f} %{interval_words(self.accuracy, self.records)}"

    def loss_words(self) -> str:
        """The loss with three digits, or a dash."""
        return DASH if self.loss is None else plain_number(self.loss)


def chosen_by(stage: Stage[Training]) -> str:
    """The measure that chose the checkpoint, as training says it: `choose_by`, whose auto is the loss of scores; of a
    policy the loss with `keep_best`, and else none: empty."""
    try:
        config = yaml.safe_load(stage.config)
    except yaml.YAMLError:
        config = None
    said = config if isinstance(config, Mapping) else {}
    if "keep_best" in said:
        return "loss" if said["keep_best"] is True else ""
    if said.get("choose_by") in ("accuracy", "loss"):
        return str(said["choose_by"])
    return "loss" if stage.content.summary.get("target") == "score" else "accuracy"


def chosen(stage: Stage[Training]) -> Measured:
    """The evaluation at the step whose weights were saved; of a run that was cut short, the best one so far, or the
    last one where nothing chooses."""
    history = stage.content.history
    chooser = next((row.split for row in history if row.split != "train"), "")
    rows = [row for row in history if row.split == chooser]
    by = chosen_by(stage)
    saved = stage.content.summary.get("best" if by else "last")
    step = saved.get("step") if isinstance(saved, Mapping) else None
    row = next((row for row in reversed(rows) if row.step == step), None) or (_best(rows, by) if by else _last(rows))
    if row is None:
        return Measured()
    return Measured(
        row.step, _finite(row.measure("accuracy")), _finite(row.measure("loss")), int(row.measure("n") or 0)
    )


def tested(stage: Stage[Training]) -> Measured:
    """The saved model on the test set, which chose nothing."""
    found = stage.content.summary.get("test")
    if not isinstance(found, Mapping):
        return Measured()
    return Measured(None, _number(found, "accuracy"), _number(found, "loss"), int(_number(found, "n") or 0))


def cells(stage: Stage[Training]) -> list[str]:
    """The cells of `HEADER`."""
    held_out, test = chosen(stage), tested(stage)
    step = DASH if held_out.step is None else f"{held_out.step:,}"
    steps = [step, DASH] if chosen_by(stage) else [DASH, step]
    return [*steps, held_out.accuracy_words(), held_out.loss_words(), test.accuracy_words(), test.loss_words()]


def choice_words(stages: Sequence[Stage[Training]]) -> str:
    """By what checkpoints were chosen, and what that means for the numbers of the set that chose."""
    measures = list(dict.fromkeys(filter(None, map(chosen_by, stages))))
    last = (
        "A model that is kept at the last step was chosen by nothing; the interval of its held-out accuracy takes "
        "records for independent."
    )
    if not measures:
        return last
    kept = "" if all(map(chosen_by, stages)) else f" {last}"
    words = (
        f"The checkpoint is chosen by held-out {' or '.join(measures)}, so its held-out numbers flatter the model, "
        "and their interval with them, which knows nothing of the choice and takes records for independent"
    )
    if any(tested(stage) != Measured() for stage in stages):
        return f"{words}. The test set was scored once, at the end, and chose nothing.{kept}"
    return f"{words}: the sections on accuracy read another split.{kept}"


def test_findings(stage: Stage[Training]) -> list[str]:
    """The sentence on the test set; none where there is no such set."""
    test = tested(stage)
    if test == Measured():
        return []
    right = "" if test.accuracy is None else f"{test.accuracy_words()} right, "
    records = counted(test.records, "record")
    return [f"On the test set of its training, which chose nothing: {right}loss {test.loss_words()}, on {records}."]


def interval_words(accuracy: float, records: int) -> str:
    """` (60.2 to 65.9)`: the 95 % interval of an accuracy in per cent; empty where nobody says of how many.

    Takes the records for independent, and those of candidates for all or nothing, which makes it no narrower.
    """
    found = proportion(np.clip(accuracy * records - np.arange(records), 0.0, 1.0))
    if found.low is None or found.high is None:
        return ""
    return f" ({plain_number(100 * found.low, 1)} to {plain_number(100 * found.high, 1)})"


def _best(rows: Sequence[HistoryRow], measure: str) -> HistoryRow | None:
    sign = -1.0 if measure == "loss" else 1.0
    known = [(sign * value, row) for row in rows if (value := _finite(row.measure(measure))) is not None]
    return max(known, key=lambda one: one[0])[1] if known else None


def _last(rows: Sequence[HistoryRow]) -> HistoryRow | None:
    return rows[-1] if rows else None


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return _finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
