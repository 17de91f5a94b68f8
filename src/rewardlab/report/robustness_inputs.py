"""What `evaluate bench` and `evaluate perturb` wrote: bench.json and perturb.json as records."""

from __future__ import annotations

from pathlib import Path

from rewardlab.evaluate import battery_words, bench, bench_words, perturb
from rewardlab.report.reading import EstimatesFile
from rewardlab.store.shapes import Shape, read_object, shaped


class StyleCell(Shape):
    """How often right answers of one style win against wrong answers of another."""

    right: str
    wrong: str
    value: float
    low: float | None
    high: float | None
    n: int


class BenchCurves(Shape):
    """The curves of bench.json."""

    style_matrix: list[StyleCell]


class TurnedPair(Shape):
    """A pair that a perturbation turned around."""

    source: str
    prompt: str
    chosen_after: str
    rejected_after: str
    margin: float
    margin_after: float


class BenchFile(EstimatesFile):
    """bench.json."""

    counts: dict[str, int]
    absent_subsets: list[str]
    curves: BenchCurves

    @property
    def findings(self) -> list[str]:
        """Plain sentences."""
        return bench_words.findings(self.model_dump())


class PerturbFile(EstimatesFile):
    """perturb.json."""

    counts: dict[str, int]
    examples: dict[str, list[TurnedPair]]

    @property
    def findings(self) -> list[str]:
        """Plain sentences."""
        return battery_words.findings(self.model_dump())


def read_bench(folder: Path) -> BenchFile:
    """The file of a benchmark.

    Raises:
        DataError: missing, unreadable or of another shape.
    """
    path = folder / bench.RESULT
    return shaped(BenchFile, read_object(path), path)


def read_perturb(folder: Path) -> PerturbFile:
    """The file of a battery.

    Raises:
        DataError: missing, unreadable or of another shape.
    """
    path = folder / perturb.RESULT
    return shaped(PerturbFile, read_object(path), path)
