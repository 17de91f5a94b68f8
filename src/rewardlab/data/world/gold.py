"""The gold reward: a declared function of what a response says, never of how it happens to be worded.

    R = c · coverage + k · correctness + r · relevance + Σ_a w_a · f_a(level_a) + η · sentiment · politeness

    coverage      share of the points asked for that are answered
    correctness   share of the values given that are right
    relevance     1 when the response is about the subject asked about, else 0
    f_length(x)   (1 - exp(-κ x)) / κ, so x itself at κ = 0; f_a(x) = x for the other attributes

With η = 0 and κ = 0 it is additive in the levels, and the effect of an attribute is w_a times the change of its level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, field_validator

from rewardlab.config import Config
from rewardlab.data.world.facts import WorldPrompt
from rewardlab.data.world.latents import ATTRIBUTES, Levels, Reading, Response


class Quality(NamedTuple):
    """How well a response answers its prompt, each in [0, 1]."""

    coverage: float
    correctness: float
    relevance: float


def quality(prompt: WorldPrompt, reading: Reading) -> Quality:
    """Quality is relational: the same response is good for one prompt and bad for another."""
    stated = {point for point, _ in reading.statements}
    right = [prompt.truth.get(point) == value for point, value in reading.statements]
    return Quality(
        coverage=sum(point in stated for point in prompt.asked) / len(prompt.asked),
        correctness=sum(right) / len(right) if right else 0.0,
        relevance=float(reading.subject == prompt.subject),
    )


class GoldReward(Config):
    """Weights and dials of the gold reward."""

    coverage: float = 3.0
    """Weight c of coverage."""
    correctness: float = 4.0
    """Weight k of correctness."""
    relevance: float = 3.0
    """Weight r of relevance."""
    per_level: dict[str, float] = Field(default={"length": 0.2, "sentiment": 0.1, "politeness": 0.1, "structure": 0.1})
    """Weight w of one level of each attribute, by name; 0 where not named."""
    interaction: float = 0.0
    """Weight η of sentiment level times politeness level."""
    length_saturation: float = Field(default=0.0, ge=0.0, le=1.0)
    """κ: how fast more length stops helping; 0 is linear."""

    @field_validator("per_level")
    @classmethod
    def _known_attributes(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(ATTRIBUTES))
        if unknown:
            raise ValueError(f"only {', '.join(ATTRIBUTES)}; not {', '.join(unknown)}")
        return value

    @property
    def is_additive(self) -> bool:
        """Whether the reward is a sum of parts, one for each latent, linear in the levels."""
        return self.interaction == 0 and self.length_saturation == 0

    def of(self, prompt: WorldPrompt, reading: Reading) -> float:
        """The reward of a reading as an answer to `prompt`."""
        return self.of_quality(quality(prompt, reading)) + self.of_levels(reading.levels)

    def of_quality(self, value: Quality) -> float:
        """The part of the reward that quality brings."""
        return self.coverage * value.coverage + self.correctness * value.correctness + self.relevance * value.relevance

    def of_levels(self, levels: Levels) -> float:
        """The part of the reward that the attributes bring."""
        shaped = {name: float(levels[name]) for name in ATTRIBUTES}
        if self.length_saturation > 0:
            shaped["length"] = -math.expm1(-self.length_saturation * levels.length) / self.length_saturation
        linear = sum(self.per_level.get(name, 0.0) * value for name, value in shaped.items())
        return linear + self.interaction * levels.sentiment * levels.politeness

    def __call__(self, responses: Sequence[Response]) -> list[float]:
        """The rewards of responses to their own prompts."""
        return [self.of(response.prompt, response.reading) for response in responses]
