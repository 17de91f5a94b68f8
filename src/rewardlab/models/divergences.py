"""How far a policy is from its reference on completions that it wrote: KL of every next token, summed along each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rewardlab.data.layout import Group
from rewardlab.functional.logprobs import token_divergences
from rewardlab.models.policy import PolicyModel
from rewardlab.models.references import LogProbabilities
from rewardlab.models.reward import Layout
from rewardlab.models.token_logprobs import chunks

AT_ONCE = 32
"""Groups between two looks at the bar."""


class Divergence:
    """Sums of KL(policy || reference) of the next token over the tokens of completions, at the policy's temperature.

    Args:
        policy: wrote the completions.
        reference: reads the same tokens, at the same device.
    """

    def __init__(self, policy: PolicyModel, reference: PolicyModel) -> None:
        self.policy = policy
        self.reference = reference

    @property
    def layout(self) -> Layout:
        """`shared` where both run prompts once."""
        return self.policy.layout if self.policy.layout == self.reference.layout else "flat"

    @property
    def device(self) -> torch.device:
        """That of both."""
        return self.policy.device

    def steady(self) -> AbstractContextManager[None]:
        """Nothing is kept between micro-batches."""
        return contextlib.nullcontext()

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """In nats, by group, then branch, shape [sequences]; logits are made a part at a time.

        Source: `functional.logprobs.token_divergences`.
        """
        own, other = self.policy.predictors(groups), self.reference.predictors(groups)
        width = int(own.head(own.states[:1]).shape[1])
        tokens = [
            token_divergences(own.head(own.states[part]), other.head(other.states[part]), self.policy.temperature)
            for part in chunks(len(own.states), width, self.device.type)
        ]
        sums = own.states.new_zeros(sum(len(group.branches) for group in groups), dtype=tokens[0].dtype)
        return sums.index_add(0, own.owners, torch.cat(tokens))


def divergences(policy: PolicyModel, reference: PolicyModel, groups: Sequence[Group]) -> np.ndarray:
    """The divergence of every completion, by group, then branch, in nats; with a bar that says how far it is.

    Args:
        policy: wrote the completions.
        reference: reads the same tokens, at the same device.
        groups: of `share_prompt`, in the order of the prompts.

    Raises:
        ModelError: one sequence alone does not fit into memory.
    """
    compute = LogProbabilities(Divergence(policy, reference), "float32")
    total = sum(map(compute.tokens, groups))
    with tqdm(total=total, unit="token", unit_scale=True, desc="divergence", mininterval=0.5) as bar:
        found = [compute.of(groups[start : start + AT_ONCE], bar) for start in range(0, len(groups), AT_ONCE)]
    return torch.cat(found).double().numpy()
