"""Which examples of a step each process takes, and how what they computed comes together again.

A step's loss is the mean over its examples, so the sum of the processes' gradients is the gradient of the step,
whoever took which example: each divides by the number of examples of the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rewardlab.data.layout import shares
from rewardlab.store.processes import processes
from rewardlab.train.examples import Example

Held = Sequence[tuple[Sequence[Example], Tensor]]
"""Micro-batches with their rewards, by example, then sequence."""
Rewards = Sequence[Sequence[float]]
"""Of every example the rewards of its sequences."""


def own_share(examples: Sequence[Example], *, shared: bool) -> list[Example]:
    """The examples of a step, or of an evaluation set, that this process takes, in their order."""
    here = processes()
    places = shares([example.group for example in examples], here.count, shared=shared)[here.rank]
    return [examples[place] for place in places]


def own_places(places: Sequence[int]) -> list[int]:
    """Those of some places that this process takes: neighbours, as many as any other takes but for one."""
    here = processes()
    return [int(place) for place in np.array_split(np.asarray(places, dtype=np.int64), here.count)[here.rank]]


def rewards_in_order(examples: Sequence[Example], held: Held) -> list[list[float]]:
    """Rewards of every example of a step or set, whichever process has computed them: the same list in all.

    Args:
        examples: all of them, in their order; each is there once.
        held: what this process has computed, in any order.

    Raises:
        LostProcessError: another process has ended.
        ValueError: an example was computed by nobody, or twice.
    """
    places = {id(example): place for place, example in enumerate(examples)}
    own = [places[id(example)] for batch, _ in held for example in batch]
    # One transfer from the device, and not one a micro-batch.
    flat = torch.cat([rewards.detach().float() for _, rewards in held]).tolist() if held else []
    ends = np.cumsum([0, *(len(example.targets) for batch, _ in held for example in batch)]).tolist()
    values = [flat[start:end] for start, end in pairwise(ends)]
    return processes().in_order(own, values, len(examples))


def step_seed(seed: int, step: int) -> int:
    """Seed of what is drawn in a step in this process: another one in every step and process.

    Drawn anew for every step, dropout goes on after a resume as it would have, whatever the number of processes was.
    """
    return int(np.random.default_rng([seed, step, processes().rank]).integers(2**63))


def add_up_gradients(weights: Sequence[Tensor]) -> None:
    """Give every weight the sum of its gradients over the processes, once for the whole step.

    In place of DistributedDataParallel: that one counts on a backward pass through its own forward in every process
    and on every weight being used, where a step here has as many micro-batches as fit, none at all in a process without
    an example, and groups that are split over two passes. It also keeps a second copy of all gradients.

    A weight that no process has used stays without a gradient, as in one process.
    """
    if processes().count == 1:
        return
    used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
    processes().add_up([used])
    trained = [weight for weight, count in zip(weights, used.tolist(), strict=True) if count]
    for weight in trained:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    processes().add_up([weight.grad for weight in trained if weight.grad is not None])


def as_in_the_first(weights: Sequence[Tensor]) -> None:
    """Give every process the weights of the first one; they were drawn alike, and from now on stay alike."""
    if not processes().is_first:
        with torch.no_grad():
            for weight in weights:
                weight.zero_()
    processes().add_up(weights)
