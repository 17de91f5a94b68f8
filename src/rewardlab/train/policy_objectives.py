"""From the log-probabilities of a micro-batch to one loss per example: imitation, and the objectives of alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardlab.functional.alignment import per_token
from rewardlab.functional.objectives import PolicyObjective
from rewardlab.train.completions import policy_examples
from rewardlab.train.examples import Example, Target
from rewardlab.train.objectives import correct


class Imitation:
    """The negative log-likelihood of completions: the loss of a step is the mean over the tokens that it learns."""

    def losses(self, _: Target, values: Tensor, __: Sequence[Example]) -> Tensor:
        """Minus the log-probability of each example's one completion, nats."""
        return -values

    def weight(self, examples: Sequence[Example]) -> float:
        """Tokens of all completions, and of their prompts where these are learned."""
        return sum(sum(example.lengths) for example in policy_examples(examples))

    def measures(self, _: Target, __: Tensor, examples: Sequence[Example]) -> dict[str, float]:
        """How many tokens the loss is a mean over."""
        return {"tokens": self.weight(examples)}

    def step_measures(self, target: Target, values: Tensor, examples: Sequence[Example]) -> dict[str, float]:
        """The same."""
        return self.measures(target, values, examples)


@dataclass(frozen=True)
class Alignment:
    """An objective of `functional.objectives` with its options; the loss of a step is the mean over its prompts.

    Attributes:
        objective: what is minimised.
        options: beta and the others that it has.
        per_token: divide every log-ratio by the number of tokens.
    """

    objective: PolicyObjective
    options: Mapping[str, float] = field(default_factory=dict)
    per_token: bool = False

    def losses(self, _: Target, values: Tensor, examples: Sequence[Example]) -> Tensor:
        """One loss per prompt, of log-probabilities under the policy."""
        ratios, lengths, present = self._table(values, examples)
        if self.per_token:
            ratios = per_token(ratios, lengths)
        rewards = None
        if self.objective.labels == "rewards":
            rewards = _padded([example.targets for example in examples], values)
        found: Tensor = self.objective.losses(ratios, rewards=rewards, lengths=lengths, present=present, **self.options)
        return found

    def weight(self, examples: Sequence[Example]) -> float:
        """Prompts."""
        return len(examples)

    def measures(self, _: Target, values: Tensor, examples: Sequence[Example]) -> dict[str, float]:
        """How the implicit rewards, beta times log-ratio, order completions, and how far apart they are.

        `accuracy` is over all pairs of completions with different rewards; the others are of the best and the worst
        completion of a prompt.
        """
        ratios, lengths, _present = self._table(values, examples)
        if self.per_token or self.objective.lengths:
            ratios = per_token(ratios, lengths)
        implicit = self.options["beta"] * ratios
        chosen, rejected, flat, ordered = [], [], [], []
        for row, example in zip(implicit, examples, strict=True):
            own, targets = row[: len(example.targets)], example.targets
            if len(set(targets)) > 1:
                chosen.append(own[targets.index(max(targets))])
                rejected.append(own[targets.index(min(targets))])
                flat.append(own)
                ordered.append(example)
        if not ordered:
            return {}
        hits = correct("preference", torch.cat(flat), ordered)
        won, lost = torch.stack(chosen).double().mean().item(), torch.stack(rejected).double().mean().item()
        return {
            "accuracy": sum(hits) / len(hits),
            "margin": won - lost,
            "chosen_reward": won,
            "rejected_reward": lost,
        }

    def step_measures(self, target: Target, values: Tensor, examples: Sequence[Example]) -> dict[str, float]:
        """The same, of the examples of a step."""
        return self.measures(target, values, examples)

    def _table(self, values: Tensor, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-ratios (or, without a reference, log-probabilities), lengths in tokens, and which completions there are;
        shape [prompts, most completions] each."""
        own = policy_examples(examples)
        counts = [len(example.targets) for example in own]
        table = pad_sequence(list(values.split(counts)), batch_first=True)
        if self.objective.reference:
            table = table - _padded([example.reference for example in own], values)
        lengths = _padded([example.lengths for example in own], values)
        present = torch.arange(max(counts), device=values.device) < torch.tensor(counts, device=values.device)[:, None]
        return table, lengths, present


def _padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    tensors = [torch.tensor(row, dtype=torch.float32) for row in rows]
    return pad_sequence(tensors, batch_first=True).to(like.device)
