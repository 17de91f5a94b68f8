"""From the rewards of a micro-batch to one loss per example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rewardlab.config import Config
from rewardlab.functional import preference
from rewardlab.train.examples import Example, Target


class AnyObjective(Protocol):
    """What the trainer minimises: one loss per example, from the numbers that the model gives to its sequences."""

    def losses(self, target: Target, values: Tensor, examples: Sequence[Example], /) -> Tensor:
        """One loss per example, shape [examples], of `values` [sequences] by example, then sequence."""
        ...

    def weight(self, examples: Sequence[Example], /) -> float:
        """What the sum of the losses of a step, or of a set, is divided by."""
        ...

    def measures(self, target: Target, values: Tensor, examples: Sequence[Example], /) -> dict[str, float]:
        """What an evaluation says beside the loss."""
        ...

    def step_measures(self, target: Target, values: Tensor, examples: Sequence[Example], /) -> dict[str, float]:
        """What a step says beside the loss."""
        ...


class Objective(Config):
    """What is minimised."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Believed share of flipped preferences (epsilon)."""

    centring: float = Field(0.0, ge=0)
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards around 0; .01 is usual."""

    use_margin: bool = True
    """Subtract the margin of a pair, where the data have one, inside the logistic."""

    candidates: Literal["pairs", "plackett-luce"] = "pairs"
    """What candidates are learned by: all their pairs (Bradley-Terry), or their order as a whole."""

    ties: float = Field(0.0, ge=0)
    """Weight of ties, completions with equal rewards, each learned with a target of one half; 0 leaves them out."""

    @model_validator(mode="after")
    def _smooths_pairs_only(self) -> Objective:
        if self.candidates == "plackett-luce" and self.label_smoothing:
            raise ValueError("expected label_smoothing 0 beside plackett-luce: no order is the flipped one of a list")
        return self

    def weight(self, examples: Sequence[Example]) -> float:
        """The loss of a step is the mean over its examples."""
        return len(examples)

    def measures(self, target: Target, rewards: Tensor, examples: Sequence[Example]) -> dict[str, float]:
        """Accuracy; nothing where there is no right or wrong."""
        hits = correct(target, rewards, examples)
        return {"accuracy": sum(hits) / len(hits)} if hits else {}

    def step_measures(self, *_: object) -> dict[str, float]:
        """Nothing."""
        return {}

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
        """Bradley-Terry over all ordered pairs of different targets, averaged within an example; and its ties."""
        pairs, owners, shares, margins = list[tuple[int, int]](), list[int](), list[float](), list[float]()
        ties, tie_owners, tie_shares = list[tuple[int, int]](), list[int](), list[float]()
        start = 0
        for owner, example in enumerate(examples):
            places = range(start, start + len(example.targets))
            targets = dict(zip(places, example.targets, strict=True))
            ordered = [(i, j) for i, j in permutations(places, 2) if targets[i] > targets[j]]
            equal = [(i, j) for i, j in combinations(places, 2) if targets[i] == targets[j]] if self.ties else []
            pairs += ordered
            owners += [owner] * len(ordered)
            shares += [1 / len(ordered) for _ in ordered]
            margins += [example.margin if self.use_margin else 0.0] * len(ordered)
            ties += equal
            tie_owners += [owner] * len(equal)
            tie_shares += [self.ties / len(equal) for _ in equal]
            start += len(example.targets)
        chosen, rejected = _both(rewards, pairs)
        margin = torch.tensor(margins, device=rewards.device) if any(margins) else None
        losses = preference.bradley_terry(chosen, rejected, margin, self.label_smoothing)
        if self.candidates == "plackett-luce":
            # Their pairs go out, and what is learned from their order comes in once.
            is_list = [len(examples[owner].targets) > 2 for owner in owners]
            losses = losses.masked_fill(torch.tensor(is_list, dtype=torch.bool, device=rewards.device), 0.0)
        if self.centring:
            losses = losses + self.centring * preference.centring(chosen, rejected)
        found = _by_owner(losses, owners, shares, len(examples))
        if ties:
            found = found + _by_owner(preference.tied(*_both(rewards, ties)), tie_owners, tie_shares, len(examples))
        return found + _orders(rewards, examples) if self.candidates == "plackett-luce" else found


def _both(rewards: Tensor, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The rewards of both sides of pairs of places."""
    first, second = torch.tensor(pairs, dtype=torch.long, device=rewards.device).reshape(-1, 2).unbind(dim=1)
    return rewards[first], rewards[second]


def _by_owner(losses: Tensor, owners: Sequence[int], shares: Sequence[float], count: int) -> Tensor:
    """Sums of shares of losses by the example that they belong to, shape [examples]."""
    places = torch.tensor(owners, dtype=torch.long, device=losses.device)
    parts = losses * torch.tensor(shares, dtype=losses.dtype, device=losses.device)
    return losses.new_zeros(count).index_add(0, places, parts)


def _orders(rewards: Tensor, examples: Sequence[Example]) -> Tensor:
    """The loss of the order of every list of three or more, 0 for pairs; shape [examples]."""
    losses = []
    for own, example in zip(rewards.split([len(one.targets) for one in examples]), examples, strict=True):
        # Ranks, since values that are different may be the same in the precision of a device.
        ranks = {value: rank for rank, value in enumerate(sorted(set(example.targets)))}
        values = torch.tensor([ranks[value] for value in example.targets], device=own.device)
        is_list = len(example.targets) > 2
        losses.append(preference.plackett_luce(own, values) if is_list else torch.zeros((), device=own.device))
    return torch.stack(losses)


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
