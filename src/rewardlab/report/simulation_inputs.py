"""What `audit simulate` wrote: simulation.json as records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rewardlab.audit.simulate import RESULT
from rewardlab.audit.simulated import LAWS, findings
from rewardlab.store.shapes import Shape, read_object, shaped


class SimulatedOptions(Shape):
    """What the page says of the configuration."""

    attribute: str
    texts: int
    share: float
    base: float
    level: float
    drift: dict[str, float]


class SimulatedRow(Shape):
    """An estimator and target at one setting; in standard deviations of the original rewards but for `unit`."""

    law: str
    confounding: float
    asymmetry: float
    estimator: str
    target: str
    unit: float
    truth: float
    bias: float
    bias_error: float
    sd: float
    rmse: float
    coverage: float | None
    stated: float | None


class SimulatedCauses(Shape):
    """The error of RATE's ATE at one setting, by cause."""

    law: str
    confounding: float
    asymmetry: float
    bias: float
    bias_error: float
    from_asymmetry: float
    from_asymmetry_error: float
    from_non_additivity: float
    from_non_additivity_error: float
    noise: float


class SimulationFile(Shape):
    """simulation.json."""

    reward: str
    samples: int = Field(ge=2)
    options: SimulatedOptions
    rows: list[SimulatedRow] = Field(min_length=1)
    causes: list[SimulatedCauses] = Field(min_length=1)

    @property
    def laws(self) -> list[str]:
        """The laws that were tried, in their order."""
        found = {row.law for row in self.rows}
        return [law for law in LAWS if law in found]

    @property
    def findings(self) -> list[str]:
        """Plain sentences."""
        return findings(self.model_dump())

    def along(self, dial: str, law: str, rows: Sequence[SimulatedRow | SimulatedCauses]) -> list[dict[str, Any]]:
        """The rows of a law in which one dial varies and the other stands at its base, in its order."""
        kept = [
            row.model_dump()
            for row in rows
            if row.law == law
            and (row.asymmetry == 0.0 if dial == "confounding" else row.confounding == self.options.base)
        ]
        return sorted(kept, key=lambda row: float(row[dial]))


def read_simulation(folder: Path) -> SimulationFile:
    """The file of a simulation.

    Raises:
        DataError: missing, unreadable or of another shape.
    """
    path = folder / RESULT
    return shaped(SimulationFile, read_object(path), path)
