"""What `evaluate shift` is told: policies, attributes and forecasts; and what stands in the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from rewardlab.audit.effects_file import effects_path, judged_by_measure, read_effects
from rewardlab.audit.judge import judge_of, same_rule
from rewardlab.audit.template import Treatment
from rewardlab.config import Config, Distances, Paths, nearest
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.checkpoint_samples import CheckpointSamples
from rewardlab.evaluate.shift import Seen
from rewardlab.report.forecast import RESULT as FORECAST_FILE
from rewardlab.store.shapes import Shape, read_object, shaped

SHIFT_FILE = "shift.json"


class ShiftEvaluation(CheckpointSamples):
    """Configuration of `evaluate shift`."""

    forecasts: dict[str, Path] = Field(default_factory=dict)
    """By name of the run, the folder of `audit forecast` of the reward that it was trained on. Its attributes are
    looked for in what all policies write. Runs with the same folder share a reward model."""

    effects: Paths = ()
    """Folders of `audit effects` or `audit run`: further attributes, as a measure sees them there."""

    measures: dict[str, Treatment] = Field(default_factory=dict)
    """Further attributes by name: a measure of the text, and the number that it has to exceed."""

    n: int = Field(8, ge=1)
    """Completions of every prompt by every checkpoint, and by the reference."""

    divergences: Distances = Field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Distances from the reference, in nats per completion, at which shifts are told."""

    least_shift: float = Field(0.03, ge=0.0)
    """The change of a share from which on its sign counts."""

    draws: int = Field(10_000, ge=100)
    """Resamples of reward models."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    title: str = "What the policies have learned"
    """Heading of the page."""

    @field_validator("measures")
    @classmethod
    def _measured(cls, value: dict[str, Treatment]) -> dict[str, Treatment]:
        wrong = [name for name, one in value.items() if one.measure is None or not isinstance(one.above, float)]
        if wrong:
            raise ValueError(f"expected a measure, and a number that it has to exceed, for {', '.join(wrong)}")
        return value

    @model_validator(mode="after")
    def _attributes_of_runs(self) -> Self:
        unknown = [name for name in self.forecasts if name not in self.runs]
        if unknown:
            raise ValueError(f"expected forecasts by names of the runs, not {', '.join(unknown)}")
        if not (self.forecasts or self.effects or self.measures):
            raise ValueError("expected attributes: forecasts, effects or measures")
        return self


class ForecastEvaluation(Config):
    """Configuration of `evaluate forecasts`."""

    shifts: Path
    """Folder of `evaluate shift`, or its shift.json."""

    forecasts: dict[str, Path] = Field(min_length=1)
    """By name of a run there, the folder of `audit forecast` of the reward that it was trained on. Runs with the same
    folder share a reward model."""

    least_shift: float = Field(0.03, ge=0.0)
    """The change of a share from which on its sign counts."""

    draws: int = Field(10_000, ge=100)
    """Resamples of reward models."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the resamples."""

    title: str = "How forecasts met what was learned"
    """Heading of the page."""


class ForecastAttribute(Shape):
    """An attribute with its effect on the reward."""

    name: str
    high: str
    judge: dict[str, Any]
    effect: float
    error: float


class ForecastRow(Shape):
    """A forecast of an attribute at a distance."""

    attribute: str
    by: str
    divergence: float
    value: float | None
    low: float | None
    high: float | None


class ForecastFile(Shape):
    """forecast.json."""

    spoken: bool
    attributes: list[ForecastAttribute]
    forecasts: list[ForecastRow]


class SeenAttribute(Shape):
    """Of shift.json, an attribute that was looked for."""

    name: str
    judge: dict[str, Any]


class ShiftEnds(Shape):
    """Of shift.json, a value with its interval."""

    value: float | None
    low: float | None
    high: float | None


class PathRow(ShiftEnds):
    """Of shift.json, an attribute at a checkpoint."""

    run: str
    seed: int
    step: int
    kl: float
    attribute: str


class ReferenceValues(Shape):
    """Of shift.json, what the reference writes."""

    rates: dict[str, ShiftEnds]


class ShiftRow(Shape):
    """Of shift.json, a shift."""

    run: str
    attribute: str
    divergence: float
    value: float | None
    low: float | None
    high: float | None
    error: float | None
    reason: str
    seeds: list[float | None]
    unreached: int
    before_first: int
    log_odds: ShiftEnds


class ShiftFile(Shape):
    """shift.json."""

    level: float
    prompts: int
    n: int
    attributes: list[SeenAttribute]
    reference: ReferenceValues
    checkpoints: list[dict[str, Any]]
    paths: list[PathRow]
    shifts: list[ShiftRow]
    warnings: list[str]


@dataclass(frozen=True)
class Attribute:
    """What is looked for in texts.

    Attributes:
        name: of the attribute.
        high: what a text with it is, in words.
        judge: how code sees it, as in audit.json.
        place: where that is said.
    """

    name: str
    high: str
    judge: Mapping[str, Any]
    place: Path

    def seen(self) -> Seen:
        """From texts to whether each has it."""
        return judge_of(self.judge, self.place)


def read_forecasts(folders: Mapping[str, Path]) -> dict[str, ForecastFile]:
    """The forecasts by run.

    Raises:
        DataError: every one that cannot be read.
    """
    found: dict[str, ForecastFile] = {}
    problems: list[Problem] = []
    for run, folder in folders.items():
        path = folder / FORECAST_FILE if folder.is_dir() else folder
        try:
            found[run] = shaped(ForecastFile, read_object(path), path)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError("forecasts that cannot be used", problems)
    return found


def read_shifts(config: ForecastEvaluation, forecasts: Mapping[str, ForecastFile]) -> dict[str, Any]:
    """shift.json, in which every run and attribute of the forecasts is.

    Raises:
        DataError: it cannot be read, or lacks runs or attributes: every problem.
    """
    path = config.shifts / SHIFT_FILE if config.shifts.is_dir() else config.shifts
    values = read_object(path)
    known = shaped(ShiftFile, values, path)
    runs = list(dict.fromkeys(row.run for row in known.shifts))
    seen = {one.name: one.judge for one in known.attributes}
    problems = [
        Problem(f"forecasts.{run}", f"no run of that name in {path}", f"one of {', '.join(runs)}", nearest(run, runs))
        for run in forecasts
        if run not in runs
    ]
    problems += [
        Problem(str(config.forecasts[run]), one.name, f"an attribute as {path} has it: {', '.join(seen)}")
        for run, file in forecasts.items()
        for one in file.attributes
        if one.name not in seen or not same_rule(one.judge, seen[one.name])
    ]
    if problems:
        raise DataError("forecasts that do not belong to these shifts", problems)
    return values


def attributes_of(config: ShiftEvaluation, forecasts: Mapping[str, ForecastFile]) -> list[Attribute]:
    """Everything that is looked for, each once, in the order of forecasts, effects and measures.

    Raises:
        DataError: effects that cannot be read, attributes that no measure sees, or one name for different attributes:
            every problem.
    """
    given = [
        Attribute(one.name, one.high, one.judge, config.forecasts[run])
        for run, file in forecasts.items()
        for one in file.attributes
    ]
    problems: list[Problem] = []
    for folder in config.effects:
        path = effects_path(folder)
        try:
            file = read_effects(path)
            given.append(Attribute(file.attribute.name, file.attribute.high, judged_by_measure(file, path), path))
        except DataError as error:
            problems += error.problems
    for name, one in config.measures.items():
        judge = {key: getattr(one, key) for key in ("measure", "above", "model", "against")}
        given.append(Attribute(name, f"{one.measure} above {one.above:g}", judge, Path(f"measures.{name}")))
    found: dict[str, Attribute] = {}
    for attribute in given:
        known = found.setdefault(attribute.name, attribute)
        if not same_rule(known.judge, attribute.judge):
            words = f"{attribute.name}, which is another attribute in {known.place}"
            problems.append(Problem(str(attribute.place), words, "one meaning for a name"))
    if problems:
        raise DataError("attributes that cannot be used", problems)
    return list(found.values())
