"""What is done to the rewards of a batch because of the length of its completions, in this order.

    1. omit_long      unfinished completions are replaced by finished ones of the batch, with their scores
    2. rewards        R = score - baseline, or of the length alone (len_only)
    3. statistics     running mean mu and standard deviation s of R
    4. len_penalty    R += w s (1 - len / N)
    5. scale_reward   R = clip((R - mu) / s, -c, c), with mu and s from before the penalty

Conventions
    len          tokens of a completion, an end-of-sequence token included
    N            length in tokens
    mu, s        means over the last ten batches at most, this one included, of the batch means and of the batch
                 standard deviations (those of a sample, divided by n - 1)
    shapes       [rows], one number per completion of the batch

References
    [1] Singhal et al. 2023, A long way to go: investigating length correlations in RLHF, arXiv 2310.03716, section 5,
        and its code, whose penalty has weight 2 and N = 100 (the paper: weight 1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BATCHES = 10
"""Batches that the running statistics look back on, this one included."""


class Batch(NamedTuple):
    """What is remembered of the rewards of a batch.

    Attributes:
        mean: of them.
        sd: their sample standard deviation; None of a single row, which has none.
    """

    mean: float
    sd: float | None


class Running(NamedTuple):
    """The statistics that rewards are scaled by.

    Attributes:
        mean: mu.
        sd: s; above 0.
    """

    mean: float
    sd: float


def finished_rows(finished: Bool[Tensor, " rows"], generator: torch.Generator) -> Int[Tensor, " rows"] | None:
    """Which row stands at each place once unfinished ones are replaced; None where no row is finished.

    A finished row stays; in place of any other comes a finished one, each as likely as the others.

    Args:
        finished: which completions ended by themselves.
        generator: of the draws.

    Source: [1], `omit_long`.
    """
    places = torch.arange(len(finished))
    kept = places[finished]
    if not len(kept):
        return None
    drawn = kept[torch.randint(len(kept), (len(finished),), generator=generator)]
    return torch.where(finished, places, drawn)


def length_rewards(lengths: Int[Tensor, " rows"], target: float) -> Float[Tensor, " rows"]:
    """Rewards that depend on the length alone: 1 - |len / N - 1|, at most 1, where len = N.

    Args:
        lengths: len.
        target: N.

    Raises:
        ValueError: N that is not above 0.

    Source: [1], length-only PPO.
    """
    _check_length(target)
    return 1.0 - (lengths.double() / target - 1.0).abs()


def batch_statistics(rewards: Float[Tensor, " rows"]) -> Batch:
    """What is remembered of the rewards of a batch of step 2.

    Args:
        rewards: at least one.

    Source: [1], code.
    """
    wide = rewards.double()
    return Batch(float(wide.mean()), float(wide.std()) if len(wide) > 1 else None)


def remembered(history: tuple[Batch, ...], batch: Batch) -> tuple[Batch, ...]:
    """The last batches, this one included, ten at most.

    Args:
        history: of the batches before, oldest first.
        batch: this one.

    Source: [1], code.
    """
    return (*history, batch)[-BATCHES:]


def running(history: tuple[Batch, ...]) -> Running:
    """Mean and standard deviation that the last of these batches is scaled by.

    s is 1 where all deviations are 0, and where the last batch is a single row.

    Args:
        history: of at least one batch, oldest first.

    Source: [1], code.
    """
    mean = sum(batch.mean for batch in history) / len(history)
    deviations = [batch.sd for batch in history if batch.sd is not None]
    sd = sum(deviations) / len(deviations) if deviations and history[-1].sd is not None else 0.0
    return Running(mean, sd if sd > 0.0 else 1.0)


def length_penalised(
    rewards: Float[Tensor, " rows"], lengths: Int[Tensor, " rows"], sd: float, weight: float, target: float
) -> Float[Tensor, " rows"]:
    """Rewards with what the length costs: R + w s (1 - len / N). Below N it is a gain.

    Args:
        rewards: R.
        lengths: len.
        sd: s.
        weight: w.
        target: N.

    Raises:
        ValueError: N that is not above 0.

    Source: [1], `len_penalty`.
    """
    _check_length(target)
    return rewards + weight * sd * (1.0 - lengths.to(rewards.dtype) / target)


def scaled(rewards: Float[Tensor, " rows"], statistics: Running, clip: float | None) -> Float[Tensor, " rows"]:
    """Rewards in standard deviations from their running mean, cut at both ends: clip((R - mu) / s, -c, c).

    Args:
        rewards: R, a penalty included.
        statistics: mu and s, from before the penalty.
        clip: c; None cuts nothing.

    Source: [1], `scale_reward`.
    """
    found = (rewards - statistics.mean) / statistics.sd
    return found if clip is None else found.clamp(-clip, clip)


def _check_length(target: float) -> None:
    if not target > 0:
        raise ValueError(f"found a length of {target} tokens; expected more than 0")
