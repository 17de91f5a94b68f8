"""The networks of PPO and what is done with them: sampling, measuring tokens, learning from a batch.

Where memory runs out, the work begins anew with half as much at once, with the same result up to rounding.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rewardlab.errors import RewardlabError
from rewardlab.functional import ppo
from rewardlab.models.critic import Critic
from rewardlab.models.decoding import Decoding
from rewardlab.models.generate import Asked, Generated, generate
from rewardlab.models.memory import within_memory
from rewardlab.models.policy import PolicyModel
from rewardlab.store.processes import processes
from rewardlab.train.ppo import PPOTraining
from rewardlab.train.ppo_rollout import Batch, Row, at, pieces
from rewardlab.train.shares import add_up_gradients, as_in_the_first, own_places
from rewardlab.train.trainer import halved_budget, refuse_non_finite

log = logging.getLogger("rewardlab")

STOP_AT = 1.5
"""Times `inner_kl` at which the passes over a batch end."""

Result = TypeVar("Result")


class Learner:
    """A policy that learns, its critic, its reference and the optimiser.

    Args:
        config: everything; its precision is no longer `auto`.
        policy: on its device.
        critic: on the same; None without one.
        ends: tokens that end a response.
        budget: tokens to a micro-batch.
    """

    def __init__(
        self, config: PPOTraining, policy: PolicyModel, critic: Critic | None, *, ends: frozenset[int], budget: int
    ) -> None:
        self.config = config
        self.ends = ends
        self.policy = policy
        self.critic = critic
        self.reference = None if policy.has_adapters else _frozen(policy)
        self.budget = budget
        self.places: int | None = None
        """Responses at once in sampling; None is a process's share of a batch, which held-out prompts may exceed."""
        self.optimiser = _optimiser(config, policy, critic)

    def begin_together(self) -> None:
        """Let every process have the weights of the first one: they were drawn alike, and from now on stay alike."""
        as_in_the_first(list(self.trained().values()))

    # --- sampling ---------------------------------------------------------------------------------------------

    def sample(self, asked: Sequence[Asked]) -> list[Generated]:
        """A response to each, drawn from the policy at its temperature and nothing else.

        Raises:
            RewardlabError: one alone does not fit into memory.
        """
        self.policy.eval()
        own = own_places(range(len(asked)))
        whole, share = (-(-count // processes().count) for count in (len(asked), self.config.batch_size))

        def places() -> int:
            return min(self.places or share, share, whole)

        def work() -> list[Generated]:
            with self._autocast():
                return self._generated([asked[place] for place in own], places())

        found = within_memory(work, lambda: self._halve_places(places()))
        return [Generated(tuple(ids), end) for ids, end, _ in processes().in_order(own, found, len(asked))]

    def _halve_places(self, places: int) -> None:
        if places == 1:
            raise RewardlabError("Out of memory with one response at a time. Lower max_new_tokens, or use lora.")
        self.places = -(-places // 2)
        log.warning("out of memory: from here on %d responses are sampled at once", self.places)

    def _generated(self, asked: Sequence[Asked], places: int) -> list[Generated]:
        pad: int | None = self.policy.tokenizer.pad_token_id
        decoding = Decoding(self.config.temperature)
        return generate(self.policy.plain_network, asked, decoding, ends=self.ends, pad=pad or 0, places=places)

    # --- measuring --------------------------------------------------------------------------------------------

    def measure(self, rows: Sequence[Row], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, values and entropies of every token under the policy and its critic, [rows, time]."""
        found = self._within_memory(lambda: self._measured(rows, mask))
        processes().add_up([found])
        old, values, entropies = found
        return old, values, entropies

    def refer(self, rows: Sequence[Row], mask: Tensor) -> Tensor:
        """Log-probabilities of every token under the reference, [rows, time]."""
        found = self._within_memory(lambda: self._referred(rows, mask))
        processes().add_up([found])
        return found

    @torch.no_grad()
    def _measured(self, rows: Sequence[Row], mask: Tensor) -> Tensor:
        """What `measure` gives, of the rows of this process: one below the other, [3, rows, time], 0 for all others."""
        self.policy.eval()
        found = torch.zeros(3, *mask.shape, device=mask.device)
        with self._autocast(), self.policy.steady():
            for piece in self._pieces(self.policy, rows, own_places(range(len(rows)))):
                tokens = self.policy.tokens(piece.groups, entropies=True)
                where = at(mask, piece.rows)
                found[0][where] = tokens.log_probabilities
                if self.critic is not None:
                    found[1][where] = self.critic(piece.groups, tokens.states)
                if tokens.entropies is not None:
                    found[2][where] = tokens.entropies
        return found

    @torch.no_grad()
    def _referred(self, rows: Sequence[Row], mask: Tensor) -> Tensor:
        """What `refer` gives, of the rows of this process; 0 for all others."""
        model = self.reference or self.policy
        found = torch.zeros(mask.shape, device=mask.device)
        with model.without_adapters(), self._autocast(), model.steady():
            for piece in self._pieces(model, rows, own_places(range(len(rows)))):
                found[at(mask, piece.rows)] = model.tokens(piece.groups).log_probabilities
        return found

    # --- learning ---------------------------------------------------------------------------------------------

    def learn(self, batch: Batch, step: int) -> dict[str, float]:
        """The passes over a batch; gives the means over its optimiser steps.

        Args:
            batch: what is learned from.
            step: its number, from 1; says in which order its rows come.

        Raises:
            RewardlabError: training diverged, or one response does not fit into memory.
        """
        self.policy.train()
        order = np.random.default_rng([self.config.seed, step, 1])
        found: list[dict[str, float]] = []
        stopped = 0
        for _ in range(self.config.inner_epochs):
            for part in np.array_split(order.permutation(len(batch.rows)), self.config.mini_batches):
                measures = self._gradients(batch, part.tolist())
                refuse_non_finite(f"the loss of step {step}", measures["loss"])
                if measures["kl_from_old"] > STOP_AT * self.config.inner_kl:
                    stopped = 1
                    break
                found.append(measures | {"grad_norm": self._step(step)})
            if stopped:
                break
        self.optimiser.zero_grad()
        means = {name: sum(one[name] for one in found) / len(found) for name in (found[0] if found else {})}
        return means | {"inner_steps": len(found), "stopped_early": stopped}

    def _gradients(self, batch: Batch, part: Sequence[int]) -> dict[str, float]:
        """Gradients of the mean loss over the tokens of a mini-batch, and what it came to, in all processes."""
        total = int(batch.mask[torch.tensor(part, device=batch.mask.device)].sum())
        sums = self._within_memory(lambda: self._own_gradients(batch, own_places(part), total))
        processes().add_up([sums])
        add_up_gradients(list(self.trained().values()))
        return {name: value / total for name, value in zip(self._measures, sums.tolist(), strict=True)}

    def _own_gradients(self, batch: Batch, places: Sequence[int], total: int) -> Tensor:
        """The share of some rows in the gradients; gives the sums of `_measures` over their tokens."""
        self.optimiser.zero_grad()
        sums = torch.zeros(len(self._measures), dtype=torch.float64, device=batch.mask.device)
        with self._autocast(), self.policy.steady():
            for piece in self._pieces(self.policy, batch.rows, places):
                terms = self._terms(batch, piece.groups, at(batch.mask, piece.rows))
                loss = terms["loss"].sum() / total
                with torch.autocast(loss.device.type, enabled=False):
                    loss.backward()
                sums += torch.stack([terms[name].detach().double().sum() for name in self._measures])
        return sums

    @property
    def _measures(self) -> tuple[str, ...]:
        """What an optimiser step is measured by, means over its tokens."""
        of_critic = () if self.critic is None else ("value_loss",)
        return ("loss", "policy_loss", *of_critic, "clip_share", "kl_from_old")

    def _terms(self, batch: Batch, groups: Any, where: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """What is summed up over tokens, [tokens] each; `loss` has the gradient."""
        config, measured = self.config, batch.measured
        tokens = self.policy.tokens(groups, entropies=config.ent_coef > 0)
        new, old, advantages = tokens.log_probabilities, measured.old[where], batch.advantages[where]
        policy_loss = ppo.policy_losses(new, old, advantages, config.clip)
        loss = policy_loss
        found = {"policy_loss": policy_loss}
        if self.critic is not None:
            values = self.critic(groups, tokens.states)
            value_loss = ppo.value_losses(values, measured.values[where], batch.returns[where], config.value_clip)
            loss = loss + config.vf_coef * value_loss
            found["value_loss"] = value_loss
        if tokens.entropies is not None:
            loss = loss - config.ent_coef * tokens.entropies
        with torch.no_grad():
            found["clip_share"] = ppo.is_clipped(new, old, advantages, config.clip).float()
            # The old policy is the one that was sampled from: KL(old || new), which k3 never has below 0.
            found["kl_from_old"] = ppo.divergence(old, new, "k3")
        return {"loss": loss, **found}

    def _step(self, step: int) -> float:
        """One step of the optimiser; gives the norm of the policy's gradient before it was clipped."""
        norms = []
        # Each for itself: a critic that is far off has a large gradient, which would take the policy's step away.
        for part in self.modules.values():
            weights = [weight for weight in part.parameters() if weight.requires_grad]
            norms.append(float(torch.nn.utils.clip_grad_norm_(weights, self.config.max_grad_norm)))
            refuse_non_finite(f"the norm of the gradient of step {step}", norms[-1])
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self.rate_share(step)
        self.optimiser.step()
        return norms[0]

    def rate_share(self, step: int) -> float:
        """Share of the peak learning rate in a step."""
        return 1.0 if self.config.schedule == "constant" else 1.0 - (step - 1) / self.config.steps

    # --- what is trained --------------------------------------------------------------------------------------

    @property
    def modules(self) -> nn.ModuleDict:
        """Policy and critic under their names in checkpoints."""
        parts: dict[str, nn.Module] = {"policy": self.policy}
        return nn.ModuleDict(parts if self.critic is None else parts | {"critic": self.critic})

    def trained(self) -> dict[str, Tensor]:
        """The weights that training changes."""
        return {name: weight for name, weight in self.modules.named_parameters() if weight.requires_grad}

    def free_optimiser(self) -> None:
        """Let go of gradients, moments and reference: what is left is done with the policy alone."""
        self.optimiser = self.reference = None  # type: ignore[assignment]
        self.policy.zero_grad()

    # --- memory -----------------------------------------------------------------------------------------------

    def _pieces(self, model: PolicyModel, rows: Sequence[Row], places: Sequence[int]) -> Any:
        return pieces(rows, places, self.budget, shared=model.layout == "shared")

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, which begins anew with half the budget whenever memory runs out in any process.

        Raises:
            RewardlabError: the smallest budget does not fit into memory.
        """
        return within_memory(work, self._halve_budget)

    def _halve_budget(self) -> None:
        self.budget = halved_budget(self.budget, "", "a smaller max_new_tokens", log)
        self.policy.zero_grad()


def _frozen(policy: PolicyModel) -> PolicyModel:
    """The policy as it is now, which never changes."""
    return copy.deepcopy(policy).eval().requires_grad_(False)


def _optimiser(config: PPOTraining, policy: PolicyModel, critic: Critic | None) -> torch.optim.Optimizer:
    groups = list(_groups(policy, config.learning_rate, config.weight_decay))
    if critic is not None:
        groups += _groups(critic, config.rate_of_critic, config.weight_decay)
    if config.optimiser == "adafactor":
        return torch.optim.Adafactor(groups)
    return torch.optim.AdamW(groups, betas=config.betas, fused=True)


def _groups(module: nn.Module, rate: float, weight_decay: float) -> Iterator[dict[str, Any]]:
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    # Biases and norms are vectors.
    for matrices, decay in ((True, weight_decay), (False, 0.0)):
        own = [weight for weight in weights if (weight.ndim > 1) is matrices]
        if own:
            yield {"params": own, "lr": rate, "peak": rate, "weight_decay": decay}
