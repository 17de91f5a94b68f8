"""The folders of finished stages, read and checked before anything is drawn.

The shapes here are the ones that `docs/architecture.md` promises; keys beyond them are let through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from rewardlab.audit.effects_file import EFFECTS_STEP, effects_folder
from rewardlab.errors import DataError, InputError, Problem
from rewardlab.report.audit_inputs import Audit, read_audit
from rewardlab.report.cartography_inputs import DataMap, read_cartography
from rewardlab.report.frontier_inputs import FrontierFile, read_frontier
from rewardlab.report.intervention_inputs import InterventionsFile, of_training, read_interventions
from rewardlab.report.lineage import runs_behind
from rewardlab.report.reading import EstimatesFile, readable, rows_at
from rewardlab.report.robustness_inputs import BenchFile, PerturbFile, read_bench, read_perturb
from rewardlab.report.simulation_inputs import SimulationFile, read_simulation
from rewardlab.store import files
from rewardlab.store.keys import RECORD
from rewardlab.store.shapes import Shape, read_object, shaped

PAIR_COLUMNS = [
    *("pair_id", "source", "subset", "fold", "prompt", "margin", "given_margin"),
    *(
        f"{side}{what}"
        for side in ("chosen", "rejected")
        for what in ("", "_score", "_tokens", "_characters", "_truncated")
    ),
]
GOLD_COLUMN = "gold_margin"
"""Only data with known truth have values in it, and files of earlier versions not even the column."""


class Check(Shape):
    """One check of the data doctor: how many rows of how many, how bad, how to read it, and examples."""

    name: str
    title: str
    count: int | None
    total: int | None
    severity: str
    reading: str
    examples: list[Any] = Field(default_factory=list)
    numbers: dict[str, Any] = Field(default_factory=dict)


class DoctorFile(Shape):
    """doctor.json."""

    checks: list[Check]


class ObservedBin(Shape):
    """What was predicted and what happened in one bin, as fractions."""

    n: int
    predicted: float | None
    observed: float | None
    observed_low: float | None
    observed_high: float | None


class MarginBin(Shape):
    """Pairs by the difference of their scores."""

    low: float
    high: float
    n: int
    accuracy: float | None


class LengthBin(Shape):
    """Pairs by the difference of their lengths in tokens, chosen minus rejected, both ends included; None is open."""

    low: float | None
    high: float | None
    n: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    mean_margin: float | None


class ScoreBin(Shape):
    """Single answers by their length in tokens, both ends included."""

    low: float
    high: float
    n: int
    mean_score: float | None
    sd_score: float | None


class BalancedBin(Shape):
    """Pairs by the absolute difference of their lengths in tokens, and how many of each sign were kept."""

    low: float
    high: float
    longer_chosen: int
    shorter_chosen: int
    kept: int


class Curves(Shape):
    """The curves of accuracy.json."""

    reliability: list[ObservedBin]
    confidence: list[ObservedBin]
    margins: list[MarginBin]
    length_bins: list[LengthBin]
    length_scores: list[ScoreBin]
    balanced_bins: list[BalancedBin]


class AccuracyFile(EstimatesFile):
    """accuracy.json."""

    counts: dict[str, int | None]
    curves: Curves


class HistoryRow(BaseModel):
    """A line of history.jsonl; its measures (`loss`, `accuracy`, ...) are the further keys."""

    # A diverged run logs losses that are not finite; it needs its report more than others.
    model_config = ConfigDict(frozen=True, extra="allow")

    step: int
    split: str
    epoch: float | None = None

    def measure(self, name: str) -> float | None:
        """The measure of that name where it was logged."""
        value = (self.model_extra or {}).get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class Sample(Shape):
    """A line of samples.jsonl: a response that a policy wrote while it was trained, with its rewards."""

    step: int
    prompt: str
    response: str
    tokens: int
    finished: bool
    terms: dict[str, float]
    score: float
    reward: float
    kl: float


Content = TypeVar("Content")

_AS_WELL = {"data intervene": ("data cut",)}
"""Verbs that write the same files as another."""


@dataclass(frozen=True)
class Stage(Generic[Content]):
    """A folder that a stage wrote.

    Attributes:
        label: short name that tells it from the other folders of the report.
        record: `run.json`, empty where the folder has none.
        config: text of `config.yaml`, empty where the folder has none.
        content: the files of its verb.
    """

    label: str
    record: dict[str, Any]
    config: str
    content: Content


@dataclass(frozen=True)
class Training:
    """history.jsonl and summary.json of a training, what was done to its data before, and of PPO its samples.jsonl."""

    history: list[HistoryRow]
    summary: dict[str, Any]
    interventions: InterventionsFile | None = None
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class PairFile:
    """pairs.parquet: the margins are in memory, other columns are read for the pairs that are asked for.

    Attributes:
        path: the file.
        margins: chosen minus rejected score of every pair, in their order.
    """

    path: Path
    margins: Sequence[float | None]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The pairs at `indices`, in that order; the file is gone through once.

        Raises:
            DataError: the file cannot be read.
        """
        return rows_at(self.path, indices, [*PAIR_COLUMNS, GOLD_COLUMN])


@dataclass(frozen=True)
class Evaluation:
    """accuracy.json, as values and as read, and pairs.parquet."""

    file: AccuracyFile
    raw: dict[str, Any]
    pairs: PairFile


@dataclass(frozen=True)
class Inputs:
    """Everything that a report shows."""

    doctor: list[Stage[DoctorFile]] = field(default_factory=list)
    intervene: list[Stage[InterventionsFile]] = field(default_factory=list)
    train: list[Stage[Training]] = field(default_factory=list)
    score: list[Stage[dict[str, Any]]] = field(default_factory=list)
    evaluate: list[Stage[Evaluation]] = field(default_factory=list)
    bench: list[Stage[BenchFile]] = field(default_factory=list)
    perturb: list[Stage[PerturbFile]] = field(default_factory=list)
    audit: list[Stage[Audit]] = field(default_factory=list)
    simulate: list[Stage[SimulationFile]] = field(default_factory=list)
    cartography: list[Stage[DataMap]] = field(default_factory=list)
    frontier: list[Stage[FrontierFile]] = field(default_factory=list)
    behind: list[Stage[None]] = field(default_factory=list)

    @property
    def given(self) -> list[Stage[Any]]:
        """Every stage that is shown, in the order in which they ran."""
        before: list[Stage[Any]] = [*self.doctor, *self.intervene, *self.train, *self.score, *self.evaluate]
        return [*before, *self.robust, *self.audit, *self.simulate, *self.cartography, *self.frontier]

    @property
    def robust(self) -> list[Stage[Any]]:
        """Benchmarks and batteries of small changes."""
        return [*self.bench, *self.perturb]

    @property
    def stages(self) -> list[Stage[Any]]:
        """The same, after the runs that they were made from."""
        return [*self.behind, *self.given]


def read_inputs(
    *,
    doctor: Sequence[Path] = (),
    intervene: Sequence[Path] = (),
    train: Sequence[Path] = (),
    score: Sequence[Path] = (),
    evaluate: Sequence[Path] = (),
    bench: Sequence[Path] = (),
    perturb: Sequence[Path] = (),
    audit: Sequence[Path] = (),
    simulate: Sequence[Path] = (),
    cartography: Sequence[Path] = (),
    frontier: Sequence[Path] = (),
) -> Inputs:
    """Read the folders of stages.

    Raises:
        DataError: with every folder, file and value that cannot be used.
    """
    audit = [effects_folder(folder) for folder in audit]
    evaluated = [*evaluate, *bench, *perturb, *cartography, *frontier]
    folders = [*doctor, *intervene, *train, *score, *evaluated, *audit, *simulate]
    names = {folder: _run_of(folder) if len(audit) > 1 else folder for folder in folders}
    distinct = _labels(list(names.values()))
    labels = {folder: distinct[name] for folder, name in names.items()}
    problems: list[Problem] = []
    records: dict[Path, dict[str, Any]] = {}

    def read(verb: str, folders: Sequence[Path], content: Callable[[Path], Content]) -> list[Stage[Content]]:
        stages = []
        for folder in folders:
            try:
                stages.append(_stage(folder, labels[folder], verb, content))
            except InputError as error:
                problems.extend(error.problems)
            else:
                records[folder] = stages[-1].record
        return stages

    inputs = Inputs(
        read("data doctor", doctor, _doctor),
        read("data intervene", intervene, read_interventions),
        read("train", train, _training),
        read("score", score, lambda folder: read_object(folder / "summary.json")),
        read("evaluate accuracy", evaluate, _evaluation),
        read("evaluate bench", bench, read_bench),
        read("evaluate perturb", perturb, read_perturb),
        read("audit", audit, read_audit),
        read("audit simulate", simulate, read_simulation),
        read("evaluate cartography", cartography, read_cartography),
        read("evaluate frontier", frontier, read_frontier),
    )
    if problems:
        raise DataError("cannot report on these folders", problems)
    return replace(inputs, behind=_behind(records))


def _behind(records: Mapping[Path, dict[str, Any]]) -> list[Stage[None]]:
    found = runs_behind(records)
    labels = _labels([*found, *(folder.resolve() for folder in records)])
    return [Stage(labels[folder], record, _config(folder), None) for folder, record in found.items()]


def _stage(folder: Path, label: str, verb: str, content: Callable[[Path], Content]) -> Stage[Content]:
    """The stage in a folder; its record, where there is one, names the verb or one that begins with it."""
    if not folder.is_dir():
        remedy = "Name the folder that a finished stage wrote."
        raise DataError("no folder", [Problem(str(folder), "no folder", "the folder of a stage", remedy)])
    path = folder / RECORD
    record = read_object(path) if path.is_file() else {}
    ran = str(record.get("verb", verb))
    # Scores of an audit are scores too.
    if not ran.startswith((verb, f"audit {verb}", *_AS_WELL.get(verb, ()))):
        raise DataError("another verb", [Problem(str(folder), f"a run of `{ran}`", f"a run of `{verb}`")])
    return Stage(label, record, _config(folder), content(folder))


def _config(folder: Path) -> str:
    path = folder / "config.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _doctor(folder: Path) -> DoctorFile:
    path = folder / "doctor.json"
    return shaped(DoctorFile, read_object(path), path)


def _training(folder: Path) -> Training:
    path = folder / "history.jsonl"
    # A run that was killed may be reported on; its last line may be torn.
    history = [shaped(HistoryRow, row, f"{path}:{number}") for number, row in _numbered(path)]
    summary = folder / "summary.json"
    found = read_object(summary) if summary.is_file() else {}
    samples = folder / "samples.jsonl"
    shown = (
        [shaped(Sample, row, f"{samples}:{number}") for number, row in _numbered(samples)] if samples.is_file() else []
    )
    return Training(history, found, of_training(found, summary), shown)


def _numbered(path: Path) -> list[tuple[int, Any]]:
    return list(enumerate(files.read_jsonl(path, torn_tail=True), start=1))


def _evaluation(folder: Path) -> Evaluation:
    path = folder / "accuracy.json"
    raw = read_object(path)
    return Evaluation(shaped(AccuracyFile, raw, path), raw, _pairs(folder / "pairs.parquet"))


def _pairs(path: Path) -> PairFile:
    with readable(path):
        file = pq.ParquetFile(path)
        missing = sorted(set(PAIR_COLUMNS) - set(file.schema_arrow.names))
        if not missing:
            return PairFile(path, file.read(columns=["margin"])["margin"].to_pylist())
    raise DataError(
        "columns missing", [Problem(str(path), f"no column {', '.join(missing)}", "the columns of pairs.parquet")]
    )


def _run_of(folder: Path) -> Path:
    """What tells the effects of an `audit run` from those of another: the folder of the run."""
    steps = len(EFFECTS_STEP)
    return folder.parents[steps - 1] if folder.parts[-steps:] == EFFECTS_STEP and len(folder.parts) > steps else folder


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, or as many parts as tell the folders apart."""
    labels = {}
    for folder in folders:
        parts = folder.parts or (str(folder),)
        others = [other.parts for other in folders if other != folder]
        depth = 1
        while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in others):
            depth += 1
        labels[folder] = "/".join(parts[-depth:])
    return labels
