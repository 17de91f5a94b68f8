"""What trainings of policies share: their configuration, the run through the one trainer, and what they leave.

model/                the policy at the end, or with keep_best that of the least held-out loss: a plain folder; adapters
                      are merged into its weights, or beside quantised ones are all that it has
policies/step-000123/ evenly spaced checkpoints: plain folders, or with lora adapter folders, where the
                      policy began as a whole checkpoint
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rewardlab.data.source import DataSource
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import counted
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.policies import new_policy
from rewardlab.models.policy import PolicyModel
from rewardlab.models.source import ModelSource
from rewardlab.store.processes import processes
from rewardlab.train.configuration import Beta, Training
from rewardlab.train.examples import Examples
from rewardlab.train.objectives import AnyObjective
from rewardlab.train.sets import set_aside_words, too_few_words, warnings_of
from rewardlab.train.setup import (
    TrainingData,
    checkpoint_activations,
    training_device,
    training_records,
)
from rewardlab.train.trainer import StepPlan

log = logging.getLogger("rewardlab")

MODEL, POLICIES = "model", "policies"


class PolicyTraining(Training):
    """What the configurations of `train sft`, `train dpo` and `train exo` share."""

    model: ModelSource
    """Where the policy comes from: a language model, decoder-only or encoder-decoder."""

    validation: dict[str, DataSource] = Field(default_factory=dict)
    """Named evaluation sets; the loss on the first one says which step was best. None: a part of the training data."""

    batch_size: int = Field(16, ge=1)
    """Examples per optimiser step: completions of `train sft`, groups of a prompt's completions of the others."""

    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """Learning rate after the warm-up."""

    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW betas."""

    encoding: PolicyEncoding | None = None
    """How text becomes ids. Default: as the model's folder says, where a training of ours has left it."""

    checkpoints: int = Field(10, ge=0)
    """How many policies are kept in policies/, evenly spaced, the last one that of the end."""

    keep_best: bool = False
    """model/ holds the policy of the least held-out loss in place of the last one."""

    def unmet(self) -> Iterator[str]:
        """What does not fit together."""
        yield from super().unmet()
        if self.model.quantisation is not None and self.lora is None:
            yield "expected lora beside model.quantisation: weights of few bits are not trained"


@dataclass
class Prepared:
    """A training that can begin.

    Attributes:
        model: the policy.
        plan: the training steps.
        examples: of the training set, and of each evaluation set by name.
        objective: what is minimised.
        card: what the model card says of the objective.
        summary: what summary.json holds besides.
    """

    model: PolicyModel
    plan: StepPlan
    examples: dict[str, Examples]
    objective: AnyObjective
    card: dict[str, object] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedPolicy:
    """What training gave.

    Attributes:
        model: folder of the policy.
        summary: what summary.json holds.
    """

    model: Path
    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        split, best, last = self.summary["split"], self.summary["best"], self.summary["last"]
        count = self.summary["counts"][split]["used"]
        lines = [f"At the end, step {last['step']}: {_words(last)}, on {counted(count, 'held-out record')} ({split})."]
        lines += too_few_words(count)
        if best["step"] != last["step"]:
            lines.append(f"The held-out loss was least at step {best['step']}: {_words(best)}.")
        lines += self.summary["left_out"]
        if self.summary["policies"]:
            lines.append(f"{counted(len(self.summary['policies']), 'policy')} along the way: {POLICIES}/")
        of = f", of step {self.summary['kept']}" if self.summary["kept"] != last["step"] else ""
        return [*lines, f"Policy: {self.model}{of}"]


def _words(measures: Mapping[str, Any]) -> str:
    accuracy = f", accuracy {100 * measures['accuracy']:.0f} %" if "accuracy" in measures else ""
    return f"loss {measures['loss']:.4f}{accuracy}"


def policy_data(config: PolicyTraining) -> TrainingData:
    """Read and split the data.

    Raises:
        DataError: unusable data.
    """
    data = training_records(config)
    if processes().is_first:
        for words in [*set_aside_words(data.set_aside), *warnings_of(data.train, data.evaluation, [])]:
            log.warning(words)
    return data


def start_policy(config: PolicyTraining, *, dropout: float = 0.0, temperature: float = 1.0) -> PolicyModel:
    """The policy before its first step, on the device that trains.

    Raises:
        ModelError: unusable model or device.
    """
    keep_freed_memory()
    device = training_device(config.device)
    model = new_policy(
        config.model,
        config.encoding,
        seed=config.seed,
        dropout=dropout,
        lora=config.lora,
        layout=config.layout,
        temperature=temperature,
    )
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    return model.to(device)
