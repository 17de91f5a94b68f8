"""From the rewards of a micro-batch to one loss per example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from pydantic import Field
from torch import Tensor

from rewardlab.config import Config
from rewardlab.functional import preference
from rewardlab.train.examples import Example, Target


class Objective(Config):
    """What is minimised."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Believed share of flipped preferences (epsilon)."""

    centring: float = Field(0.0, ge=0)
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards around 0; .01 is usual."""

    use_margin: bool = True
    """Subtract the margin of a pair, where the data have one, inside the logistic."""

    def losses(self, target: Target, rewards: Tensor, examples: Sequence[Example]) -> Tensor:
        """One loss per example.

        Args:
            target: what the examples' targets mean.
            rewards: by example, then sequence; shape [sequences].
            examples: the micro-batch.

        Returns:
            Shape [examples], float32.
        """
        if target == "preference":
            return self._preference(rewards, examples)
        targets = torch.tensor([example.targets[0] for example in examples], device=rewards.device)
        return preference.binary(rewards, targets) if target == "label" else preference.regression(rewards, targets)

    def _preference(self, rewards: Tensor, examples: Sequence[Example]) -> Tensor:
        """Bradley-Terry over all ordered pairs of different targets, averaged within an example."""
        winners, losers, owners, shares, margins = [], [], [], [], []
        start = 0
        for owner, example in enumerate(examples):
            indices = range(start, start + len(example.targets))
            ordered = [
                (i, j) for i, j in permutations(indices, 2) if example.targets[i - start] > example.targets[j - start]
            ]
            winners += [winner for winner, _ in ordered]
            losers += [loser for _, loser in ordered]
            owners += [owner] * len(ordered)
            shares += [1 / len(ordered)] * len(ordered)
            margins += [example.margin if self.use_margin else 0.0] * len(ordered)
            start += len(example.targets)
        chosen, rejected = rewards[winners], rewards[losers]
        margin = torch.tensor(margins, device=rewards.device) if any(margins) else None
        losses = preference.bradley_terry(chosen, rejected, margin, self.label_smoothing)
        if self.centring:
            losses = losses + self.centring * preference.centring(chosen, rejected)
        share = torch.tensor(shares, device=rewards.device)
        return losses.new_zeros(len(examples)).index_add(0, torch.tensor(owners, device=rewards.device), losses * share)


def correct(target: Target, rewards: Tensor, examples: Sequence[Example]) -> list[float]:
    """Per example: 1 right, 0 wrong, one half for a tie; over candidates the mean over their ordered pairs.

    A label is right when the sign of the reward says so. Scores have no right or wrong: an empty list.
    """
    if target == "score":
        return []
    values = rewards.tolist()
    results = []
    start = 0
    for example in examples:
        own = values[start : start + len(example.targets)]
        start += len(example.targets)
        if target == "label":
            gaps = [own[0] if example.targets[0] > 0 else -own[0]]
        else:
            pairs = permutations(range(len(own)), 2)
            gaps = [own[i] - own[j] for i, j in pairs if example.targets[i] > example.targets[j]]
        results.append(sum(0.5 if gap == 0 else float(gap > 0) for gap in gaps) / len(gaps))
    return results
