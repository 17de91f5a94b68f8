"""Batches for PPO: responses that the policy samples, their rewards, and what each of their tokens is worth.

All chance is a function of the seed and of a response's number, so a run that is resumed samples what it would have
sampled. Rows are responses; tensors are [rows, time], padded on the right, on the policy's device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardlab.data.layout import Group, micro_batches, share_prompt, split
from rewardlab.data.rows import shown
from rewardlab.errors import ModelError, Problem
from rewardlab.functional import ppo, shaping
from rewardlab.functional.rewards import weighted_sums
from rewardlab.protocols import RewardTerms
from rewardlab.records import Prompt, Response, content_id
from rewardlab.train.ppo import PENALTY_TOKENS, PPOTraining


class Row(NamedTuple):
    """A response as tokens and as text.

    Attributes:
        prompt_ids: what it follows.
        ids: its tokens, the one that ends it included.
        response: what rewards see of it.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    response: Response


class Piece(NamedTuple):
    """A micro-batch: groups of responses to a prompt, and the rows they are, by group, then branch."""

    groups: list[Group]
    rows: list[int]


def pieces(rows: Sequence[Row], places: Sequence[int], budget: int, *, shared: bool) -> list[Piece]:
    """Micro-batches of some rows under a token budget; rows of one prompt share it.

    Args:
        rows: all.
        places: which of them.
        budget: tokens to a micro-batch; a longer response stands alone.
        shared: whether a prompt is run once for all its responses.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for place in places:
        by_prompt.setdefault(rows[place].prompt_ids, []).append(place)
    groups: list[Group] = []
    members: list[list[int]] = []
    for prompt, own in by_prompt.items():
        whole = share_prompt(prompt, [rows[place].ids for place in own])
        for branches in split(whole, budget, shared=shared):
            groups.append(whole.part(branches))
            members.append([own[branch] for branch in branches])
    return [
        Piece([groups[index] for index in batch], [row for index in batch for row in members[index]])
        for batch in micro_batches(groups, budget, shared=shared)
    ]


def mask_of(rows: Sequence[Row]) -> Tensor:
    """Which places hold a token, [rows, time]."""
    lengths = torch.tensor([len(row.ids) for row in rows])
    return torch.arange(int(lengths.max()))[None] < lengths[:, None]


def at(mask: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Row and time of the tokens of some rows, in the order in which their tokens follow each other."""
    chosen = torch.tensor(rows, device=mask.device)
    places, times = mask[chosen].nonzero(as_tuple=True)
    return chosen[places], times


class Prompts:
    """An endless stream of prompts: every pass over them in an order of its own.

    Args:
        prompts: different ones.
        ids: what a response to each follows.
        seed: of the orders and of the responses.
        truncated: how many of them were cut.
    """

    def __init__(
        self, prompts: Sequence[Prompt], ids: Sequence[tuple[int, ...]], seed: int, *, truncated: int = 0
    ) -> None:
        self.prompts = prompts
        self.ids = ids
        self.truncated = truncated
        self.seed = seed
        # The order of one pass at a time: numbers are asked for in their order.
        self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return len(self.prompts)

    def of_step(self, step: int, count: int) -> list[int]:
        """The prompts of a step, by number; steps count from 1."""
        return [self._place(number) for number in range((step - 1) * count, step * count)]

    def response_seed(self, place: int, *parts: int | str) -> int:
        """Of a response's chance: of its prompt and of what else tells it from others, such as the step."""
        return int(content_id([self.prompts[place].id, self.seed, *parts]), 16)

    def _place(self, number: int) -> int:
        epoch, within = divmod(number, len(self.prompts))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.prompts))
        return int(self._order[1][within])


@dataclass(frozen=True)
class Measured:
    """What the networks say of every token of a batch, [rows, time]; 0 where there is none.

    Attributes:
        old: log-probabilities under the policy that sampled them.
        reference: under the reference.
        values: of the critic; 0 without one.
        entropies: of the distributions they were drawn from.
    """

    old: Tensor
    reference: Tensor
    values: Tensor
    entropies: Tensor


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    rows: list[Row]
    mask: Tensor
    measured: Measured
    advantages: Tensor
    returns: Tensor


def without_long(rows: Sequence[Row], seed: Sequence[int]) -> list[Row]:
    """Rows with a finished one in the place of every one that did not end; empty where none did."""
    finished = torch.tensor([row.response.finished for row in rows])
    generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**63)))
    places = shaping.finished_rows(finished, generator)
    return [] if places is None else [rows[place] for place in places.tolist()]


def weighted(rewards: RewardTerms, responses: Sequence[Response]) -> list[tuple[float, dict[str, float]]]:
    """Of every response the weighted sum of the terms of the reward, and the terms by name.

    Raises:
        ModelError: a sum that is no finite number.
        RewardlabError: terms that cannot be had.
    """
    terms = rewards.terms(responses)
    sums = weighted_sums(terms, rewards.weights)
    wrong = [
        Problem(f"response {place} (to prompt {one.prompt.id})", f"{total} for {shown(one.text)}", "a finite number")
        for place, (total, one) in enumerate(zip(sums, responses, strict=True))
        if not math.isfinite(total)
    ]
    if wrong:
        raise ModelError("The weighted sum of the terms is no reward", wrong)
    return [(total, {name: own[place] for name, own in terms.items()}) for place, total in enumerate(sums)]


def shaped(
    config: PPOTraining, rows: Sequence[Row], scores: Tensor, history: tuple[shaping.Batch, ...]
) -> tuple[Tensor, tuple[shaping.Batch, ...]]:
    """Steps 2 to 5 of `functional.shaping`: rewards to learn from, and the batches that the next one looks back on.

    Args:
        config: what is done.
        rows: of the batch.
        scores: of every response, [rows].
        history: of the batches before.
    """
    lengths = torch.tensor([len(row.ids) for row in rows])
    unfinished = torch.tensor([not row.response.finished for row in rows])
    rewards = scores - config.reward_baseline - config.missing_eos_penalty * unfinished
    history = shaping.remembered(history, shaping.batch_statistics(rewards))
    statistics = shaping.running(history)
    if config.len_penalty is not None:
        weight, target = config.len_penalty, config.len_penalty_tokens or PENALTY_TOKENS
        rewards = shaping.length_penalised(rewards, lengths, statistics.sd, weight, target)
    if config.scale_reward:
        rewards = shaping.scaled(rewards, statistics, config.scale_clip)
    return rewards, history


def learned_from(
    config: PPOTraining, rows: list[Row], measured: Measured, rewards: Tensor, mask: Tensor, beta: float
) -> Batch:
    """Advantages and returns of all tokens.

    Args:
        config: how they are computed.
        rows: of the batch.
        measured: what the networks say of them.
        rewards: of every response, [rows], on the device.
        mask: of tokens.
        beta: what a nat of divergence costs.
    """
    divergences = ppo.divergence(measured.old, measured.reference, config.kl_estimator)
    if config.baseline == "rloo":
        totals = rewards - beta * ppo.row_sums(divergences, mask)
        alone = ppo.leave_one_out(totals.reshape(-1, config.samples)).reshape(-1)
        found = ppo.Advantages(torch.where(mask, alone[:, None], 0.0), torch.zeros_like(measured.old))
    else:
        earned = ppo.token_rewards(divergences, rewards, mask, beta)
        found = ppo.generalised_advantages(earned, measured.values, mask, config.gamma, config.gae_lambda)
    advantages = ppo.whitened(found.advantages, mask) if config.whiten else found.advantages
    return Batch(rows, mask, measured, advantages, found.returns)


def divergence_of(measured: Measured, mask: Tensor, estimator: ppo.Estimator) -> Tensor:
    """Of every response from the reference, the sum over its tokens, [rows]."""
    return ppo.row_sums(ppo.divergence(measured.old, measured.reference, estimator), mask)


def batch_measures(batch: Batch, config: PPOTraining) -> dict[str, float | None]:
    """What the history says of a batch before anything is learned from it."""
    rows, count = batch.rows, len(batch.rows)
    sums = divergence_of(batch.measured, batch.mask, config.kl_estimator)
    lengths = [len(row.ids) for row in rows]
    explained = ppo.explained_variance(batch.measured.values, batch.returns, batch.mask)
    return {
        "kl": float(sums.mean()),
        "kl_error": float(sums.std() / math.sqrt(count)) if count > 1 else 0.0,
        "length": sum(lengths) / count,
        "entropy": float(ppo.masked_mean(batch.measured.entropies, batch.mask)),
        "explained_variance": None if math.isnan(explained) or config.baseline == "rloo" else explained,
    }
