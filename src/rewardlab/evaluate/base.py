"""What evaluations of score tables have in common: their data and intervals, and results that are one JSON object."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rewardlab.config import Config, Paths
from rewardlab.evaluate.summary import format_accuracy
from rewardlab.protocols import Folder
from rewardlab.records import Estimate
from rewardlab.store.files import write_json, write_text


class ScoresEvaluation(Config):
    """Data, their scores, and how to put intervals around what they show."""

    data: Paths = Field(min_length=1)
    """Canonical files that were scored, as `rewardlab data prepare` writes them; with folds, the test file of each."""
    scores: Paths = Field(min_length=1)
    """Folders of `rewardlab score` (or their Parquet tables): one per data file, or one for all of them."""
    split: str | None = None
    """What the data are called. Default: the names of the files."""
    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""
    cluster: Literal["prompt", "root"] = "prompt"
    """What makes records dependent: the same prompt, or the same conversation root (first user turn)."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first so many records of every data file (smoke run)."""

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        if len(self.scores) not in (1, len(self.data)):
            raise ValueError(f"scores for {len(self.data)} data files: one score table each, or one for all of them")
        return self

    @property
    def title(self) -> str:
        """What the data are called."""
        return self.split or ", ".join(dict.fromkeys(path.name for path in self.data))


@dataclass(frozen=True)
class EvaluationResult(abc.ABC):
    """What the file of an evaluation holds.

    Attributes:
        raw: the object.
    """

    raw: dict[str, Any]

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of that machine name; KeyError where there is none."""
        for group in self.raw["estimates"].values():
            for one in group:
                if one["name"] == name:
                    return Estimate.from_dict(one)
        raise KeyError(name)

    @abc.abstractmethod
    def lines(self) -> list[str]:
        """The findings in plain words."""

    def write(self, run: Folder, result: str, summary: str) -> None:
        """Write the object under the name `result`, and a text to read in a terminal under the name `summary`."""
        write_text(run.path(summary), "\n\n".join([*self.lines(), format_accuracy(self.raw)]) + "\n")
        write_json(run.path(result), self.raw)
