"""Exact causal effects of any scorer in the world, and the two truths that an estimate can be held against.

    τ_orig,i = R(do(W=1) of text i) - R(do(W=0) of text i)         everything else as in the original
    τ_rw,i   = the same difference at the off-target state that the rewriter leaves, averaged over the states of
               the single rewrite and of the rewrite of the rewrite: what RATE estimates

R is any reward, e.g. a learned model's: the truth of a model is the exact effect of *that model*, not the planted
weight. For an additive reward the two truths agree. In general, for a rewriter that does not fail,

    RATE_i - τ_orig,i = (RATE_i - τ_rw,i) + (τ_rw,i - τ_orig,i) = asymmetry_i + non-additivity_i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rewardlab.data.world.latents import Response, do
from rewardlab.data.world.lexicon import Part
from rewardlab.data.world.render import render
from rewardlab.data.world.rewriter import Rewriter
from rewardlab.protocols import Scorer

Reward = Callable[[Sequence[Response]], Sequence[float]]
"""Rewards of responses to their own prompts: the gold reward, or a scorer through `scored_by`."""
Floats = npt.NDArray[np.float64]


class Effects(NamedTuple):
    """Mean effect over the texts with W = 1, with W = 0, and over all; nan where a group is empty."""

    att: float
    atu: float
    ate: float


class Triple(NamedTuple):
    """A text, its rewrite to the other side, and that rewrite rewritten back."""

    original: Response
    rewrite: Response
    back: Response


class Truths(NamedTuple):
    """Effect of the attribute on each text, in reward units: (n,) each."""

    original: Floats
    rewritten: Floats


def scored_by(scorer: Scorer, part: Part = "training") -> Reward:
    """The reward that `scorer` gives to the rendered texts."""

    def reward(responses: Sequence[Response]) -> list[float]:
        prompts = [response.prompt.record for response in responses]
        return [scores[0] for scores in scorer.score(prompts, [[render(response, part)] for response in responses])]

    return reward


def exact_effects(responses: Sequence[Response], attribute: str, reward: Reward) -> Floats:
    """R(do(W=1)) - R(do(W=0)) of each response: (n,)."""
    high = reward([do(response, attribute, True) for response in responses])
    low = reward([do(response, attribute, False) for response in responses])
    return np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)


def triples(responses: Sequence[Response], attribute: str, rewriter: Rewriter, draw: int = 0) -> list[Triple]:
    """Each response with its rewrite and the rewrite of the rewrite."""
    result = []
    for response in responses:
        high = response.reading.levels.high(attribute)
        single = rewriter.rewrite(response, attribute, not high, draw)
        result.append(Triple(response, single, rewriter.rewrite(single, attribute, high, draw)))
    return result


def truths(rewritten: Sequence[Triple], attribute: str, reward: Reward) -> Truths:
    """Both truths of each text."""
    at_single = exact_effects([triple.rewrite for triple in rewritten], attribute, reward)
    at_double = exact_effects([triple.back for triple in rewritten], attribute, reward)
    at_original = exact_effects([triple.original for triple in rewritten], attribute, reward)
    return Truths(at_original, (at_single + at_double) / 2)


def averaged(responses: Sequence[Response], attribute: str, effects: Floats) -> Effects:
    """Per-text effects as ATT, ATU and ATE."""
    treated = np.array([response.reading.levels.high(attribute) for response in responses], dtype=bool)
    return Effects(_mean(effects[treated]), _mean(effects[~treated]), _mean(effects))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
