"""What `evaluate frontier` wrote: frontier.json as records."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rewardlab.evaluate.frontier import RESULT
from rewardlab.store.shapes import Shape, read_object, shaped


class Spanned(Shape):
    """A number with its interval, as far as there are any."""

    value: float | None
    low: float | None
    high: float | None
    error: float | None
    n: int = 0
    clusters: int | None = None
    reason: str = ""


class FrontierPolicy(Shape):
    """A policy: the reference, or one along a training."""

    run: str
    seed: int
    step: int
    prompts: int
    completions: int
    kl: Spanned
    rewards: dict[str, Spanned]
    tokens: Spanned
    unfinished: Spanned
    distinct_1: float | None
    distinct_2: float | None


class FrontierBestOf(Shape):
    """Best of n from the reference."""

    n: int
    kl: float
    rewards: dict[str, Spanned]
    tokens: Spanned


class FrontierChoice(Shape):
    """The policy that was chosen of a run and seed."""

    run: str
    seed: int
    step: int


class FrontierChange(Shape):
    """From the policy that was chosen of a run and seed to the last one, at step `to`, how each reward changes."""

    run: str
    seed: int
    to: int
    rewards: dict[str, Spanned]


class FrontierFile(Shape):
    """frontier.json."""

    level: float = 0.95
    n: int
    temperature: float
    max_new_tokens: int
    scorers: dict[str, str]
    sd: dict[str, float | None]
    from_reference: list[str]
    reference: FrontierPolicy
    checkpoints: list[FrontierPolicy]
    best_of: list[FrontierBestOf]
    chosen: list[FrontierChoice]
    changes: list[FrontierChange] = Field(default_factory=list)
    findings: list[str]


def read_frontier(folder: Path) -> FrontierFile:
    """The file of a frontier.

    Raises:
        DataError: missing, unreadable or of another shape.
    """
    path = folder / RESULT
    return shaped(FrontierFile, read_object(path), path)
