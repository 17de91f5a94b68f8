"""Preference pairs of the world: two answers to a prompt, labelled by Bradley-Terry on the gold reward, with noise.

    P(first preferred) = ε + (1 - 2ε) · σ((R_first - R_second) / T)

T = 0 prefers the higher reward always; ε is label noise on top.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pydantic import Field

from rewardlab.config import Config
from rewardlab.data.world.draws import Draws
from rewardlab.data.world.facts import write_prompt
from rewardlab.data.world.gold import GoldReward, quality
from rewardlab.data.world.latents import ATTRIBUTES, Copula, Response, respond
from rewardlab.data.world.lexicon import Part
from rewardlab.data.world.render import render
from rewardlab.records import Pair, Source

ANSWERS = ("a", "b")
"""Names of the two answers to a prompt; with the prompt's key, what their draws belong to."""


class Preference(Config):
    """How a rater of the world chooses."""

    temperature: float = Field(default=1.0, ge=0.0)
    """T: the gold reward's difference that shifts the log-odds by one; 0 always prefers the better answer."""
    noise: float = Field(default=0.05, ge=0.0, le=0.5)
    """ε: probability that the label is flipped afterwards."""

    def probability(self, gap: float) -> float:
        """P(first preferred) for a difference `gap` of gold rewards, first minus second."""
        if self.temperature == 0:
            better = 0.5 if gap == 0 else float(gap > 0)
        else:
            # tanh does not overflow where exp would.
            better = (1 + math.tanh(gap / self.temperature / 2)) / 2
        return self.noise + (1 - 2 * self.noise) * better


class WorldPair(NamedTuple):
    """Two answers to one prompt with their gold rewards, the preferred one first."""

    chosen: Response
    rejected: Response
    chosen_gold: float
    rejected_gold: float

    def record(self, part: Part = "training", source: Source | None = None) -> Pair:
        """The pair as text, its latents in `meta`."""
        meta = {
            "seed": self.chosen.draws.seed,
            "key": self.chosen.prompt.key,
            "domain": self.chosen.prompt.domain.name,
            "chosen": latents_row(self.chosen, self.chosen_gold),
            "rejected": latents_row(self.rejected, self.rejected_gold),
        }
        texts = render(self.chosen, part), render(self.rejected, part)
        return Pair(self.chosen.prompt.record, *texts, source=source, meta=meta)


def latents_row(response: Response, gold: float) -> dict[str, Any]:
    """Every latent of a response by name, with its gold reward."""
    levels = {name: response.reading.levels[name] for name in ATTRIBUTES}
    return {"author": response.author, **quality(response.prompt, response.reading)._asdict(), **levels, "gold": gold}


def draw_pair(seed: int, key: str, copula: Copula, gold: GoldReward, preference: Preference) -> WorldPair:
    """The pair that `key` names in the world of `seed`."""
    prompt = write_prompt(seed, key)
    first, second = (respond(seed, prompt, name, copula) for name in ANSWERS)
    rewards = gold([first, second])
    first_wins = Draws(seed, key).flag("label", preference.probability(rewards[0] - rewards[1]))
    if first_wins:
        return WorldPair(first, second, *rewards)
    return WorldPair(second, first, rewards[1], rewards[0])
