"""The seams between rooms that do not see each other. Everything else is final."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from rewardlab.records import Prompt, Response


@runtime_checkable
class Scorer(Protocol):
    """Anything that gives a reward to completions of prompts; higher is better."""

    @property
    def name(self) -> str:
        """Identity that score tables are keyed by: changes whenever the scores could."""
        ...

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float]]:
        """Rewards of `completions[i][k]` as an answer to `prompts[i]`, in the order given.

        A reward depends on its own prompt and completion only, never on what else is in the call.
        """
        ...


@runtime_checkable
class RewardTerms(Protocol):
    """What a policy is trained on: named terms, each logged alone; the reward is their weighted sum."""

    @property
    def weights(self) -> Mapping[str, float]:
        """What each term is multiplied by in the sum, by its name."""
        ...

    def terms(self, responses: Sequence[Response]) -> dict[str, list[float]]:
        """The value of every term for every response, in the order given, not yet multiplied by its weight."""
        ...


class Folder(Protocol):
    """What a verb that only writes results needs of a run: where to write."""

    def path(self, name: str | Path = "") -> Path:
        """Where the result `name` goes; its parent folder is made."""
        ...
