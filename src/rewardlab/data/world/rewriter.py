"""The imperfect rewriter: sets an attribute, and disturbs the others in a declared way.

For the target attribute the level becomes that of the exact counterfactual, unless the rewrite fails. For every other
attribute k, a rewrite in direction d gives

    level_k ← round((1 - s) · level_k + s · house_k + δ_{k,d} + ε),     ε ~ N(0, variance_{k,d})

where s is the saturation and rounding is up or down at random so that means are kept. At s = 0 drifts cumulate from
rewrite to rewrite; at s = 1 the state after a rewrite hangs on its direction alone: a house style, and idempotent,
because a text's draws for a direction are the same each time. Content damage replaces right values by wrong ones
and is never undone.

Law for an additive reward with weights a_k per level, s = 1, no failures and no damage: RATE estimates each of ATT,
ATU and ATE with bias Σ_k a_k (δ_{k,high} - δ_{k,low}). Law at s = 0, with δ_d = Σ_k a_k δ_{k,d}: the bias is +δ_high
for the ATT and -δ_low for the ATU. Both hold while no level meets its bound; originals leave at least two levels
of room.
"""

from __future__ import annotations

import math
from dataclasses import replace

from pydantic import Field, field_validator

from rewardlab.config import Config
from rewardlab.data.world.draws import Draws
from rewardlab.data.world.facts import Statement
from rewardlab.data.world.latents import ATTRIBUTES, Levels, Response, do, wrong_value


class Direction(Config):
    """What a rewrite in one direction does beside setting its target."""

    drift: dict[str, float] = Field(default_factory=dict)
    """Mean change δ of the level of each off-target attribute, by name, in levels; 0 where not named."""
    variance: dict[str, float] = Field(default_factory=dict)
    """Variance of that change from text to text, in levels squared, before rounding; 0 where not named."""
    failure: float = Field(default=0.0, ge=0.0, le=1.0)
    """Probability that the target attribute is left as it was."""
    damage: float = Field(default=0.0, ge=0.0, le=1.0)
    """Probability, for each statement, that its value is replaced by a wrong one."""

    @field_validator("drift", "variance")
    @classmethod
    def _known_attributes(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(ATTRIBUTES))
        if unknown:
            raise ValueError(f"only {', '.join(ATTRIBUTES)}; not {', '.join(unknown)}")
        return value

    @field_validator("variance")
    @classmethod
    def _not_negative(cls, value: dict[str, float]) -> dict[str, float]:
        if any(number < 0 for number in value.values()):
            raise ValueError("no negative variance")
        return value


class Rewriter(Config):
    """A rewriter with declared faults. The default one has none: it writes exact counterfactuals."""

    high: Direction = Direction()
    """What rewrites towards the high side do."""
    low: Direction = Direction()
    """What rewrites towards the low side do."""
    saturation: float = Field(default=0.0, ge=0.0, le=1.0)
    """s: from 0, where drifts cumulate, to 1, where every rewrite puts the house style in place of what was there."""
    house: dict[str, float] = Field(default_factory=dict)
    """Level of each attribute in the house style, by name; 0 where not named."""

    @field_validator("house")
    @classmethod
    def _known_attributes(cls, value: dict[str, float]) -> dict[str, float]:
        return Direction(drift=value).drift

    def rewrite(self, response: Response, attribute: str, high: bool, draw: int = 0) -> Response:
        """`response` rewritten so that `attribute` is high or low.

        Args:
            response: the text to rewrite: an original or a rewrite.
            attribute: the target.
            high: the direction.
            draw: number of the independent attempt; the same number gives the same rewrite.
        """
        side = self.high if high else self.low
        draws = Draws(response.draws.seed, f"{response.draws.key}/{attribute}/{'high' if high else 'low'}/{draw}")
        failed = draws.flag("failure", side.failure)
        levels = (response if failed else do(response, attribute, high)).reading.levels
        for name in ATTRIBUTES:
            if name != attribute:
                levels = self._drifted(levels, name, side, draws)
        reading = replace(response.reading, levels=levels, statements=_damaged(response, side, draws))
        return replace(response, reading=reading)

    def _drifted(self, levels: Levels, name: str, side: Direction, draws: Draws) -> Levels:
        kept = (1 - self.saturation) * levels[name] + self.saturation * self.house.get(name, 0.0)
        noise = math.sqrt(side.variance.get(name, 0.0)) * draws.normal(f"{name}.noise")
        return levels.put(name, draws.rounded(f"{name}.rounding", kept + side.drift.get(name, 0.0) + noise))


def _damaged(response: Response, side: Direction, draws: Draws) -> tuple[Statement, ...]:
    statements = []
    for index, statement in enumerate(response.reading.statements):
        # A policy also states points of which the notes say nothing: no value of them is right.
        right = response.prompt.truth.get(statement.point) == statement.value
        if right and draws.flag(f"damage.{index}", side.damage):
            wrong = wrong_value(draws, f"damage.{index}.value", response.prompt, statement.point)
            statement = Statement(statement.point, wrong)
        statements.append(statement)
    return tuple(statements)
