"""What `audit effects` left, for the stages that go on from it: where it lies, and what stands in effects.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from rewardlab.audit.effects import RESULT
from rewardlab.audit.judge import measured_by
from rewardlab.errors import DataError, Problem
from rewardlab.store.shapes import Shape, read_object, shaped

EFFECTS_STEP = ("steps", "effects")
"""Where an `audit run` keeps its effects."""
RATE = "double.ATE"
"""RATE over all responses, in units of the reward."""


class Attribute(Shape):
    """What was audited: its name, and what a response with it and one without it is."""

    name: str = Field(min_length=1)
    high: str
    low: str


class EffectValue(Shape):
    """An estimate, as far as other stages go on from it."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    error: float | None
    reason: str


class ModelEffects(Shape):
    """What an audit says about one reward model: `estimates` by group."""

    scorer: str
    sd: float | None
    estimates: dict[str, list[EffectValue]]

    def __getitem__(self, name: str) -> EffectValue | None:
        """The estimate of that machine name over all responses; its first part is its group."""
        group = self.estimates.get(name.partition(".")[0], [])
        return next((one for one in group if one.name == name), None)


class EffectsFile(Shape):
    """effects.json."""

    attribute: Attribute
    judge: dict[str, Any] | None
    models: list[ModelEffects] = Field(min_length=1)


def effects_folder(folder: Path) -> Path:
    """The folder of effects in that of an `audit run`; any other one, and a file, as it is."""
    inside = folder.joinpath(*EFFECTS_STEP)
    return inside if inside.is_dir() and not (folder / RESULT).exists() else folder


def effects_path(folder: Path) -> Path:
    """effects.json of a folder of `audit effects` or `audit run`; a file as it is."""
    found = effects_folder(folder)
    return found / RESULT if found.is_dir() else found


def read_effects(path: Path) -> EffectsFile:
    """effects.json, at the `effects_path` of what the user named.

    Raises:
        DataError: it cannot be read, or has another shape: everything that does not fit.
    """
    try:
        return shaped(EffectsFile, read_object(path), path)
    except DataError as error:
        raise DataError("effects cannot be read", error.problems) from error


def judged_by_measure(file: EffectsFile, path: Path) -> dict[str, Any]:
    """The judge of an attribute that code can see in any text, as judges are in audit.json.

    Raises:
        DataError: no measure judges it, or none that is known: every problem; `path` names the file.
    """
    if file.judge is None or "measure" not in file.judge:
        expected = "an attribute that code can see in a text: a measure decides it, or judges it"
        problem = Problem(str(path), f"{file.attribute.name}, which no measure sees", expected)
        raise DataError("effects that cannot be used", [problem])
    measured_by(file.judge, path)
    return file.judge
