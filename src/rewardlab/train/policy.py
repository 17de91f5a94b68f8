"""What trainings of policies share: their configuration, the run through the one trainer, and what they leave.

model/                the policy at the end, a plain folder; adapters are merged into its weights
policies/step-000123/ evenly spaced checkpoints: plain folders, or with lora adapter folders, where the
                      policy began as a whole checkpoint
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rewardlab.config import Config
from rewardlab.data.source import DataSource, Sources
from rewardlab.data.turns import PolicyEncoding
from rewardlab.models.loading import LayoutChoice, LoRA, ModelSource, ProductPrecision
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.policies import new_policy
from rewardlab.models.policy import PolicyModel
from rewardlab.records import Record
from rewardlab.store.processes import processes
from rewardlab.train.examples import Examples
from rewardlab.train.objectives import AnyObjective
from rewardlab.train.reward import (
    Beta,
)
from rewardlab.train.sets import warnings_of
from rewardlab.train.setup import checkpoint_activations, training_device, training_records
from rewardlab.train.trainer import StepPlan

log = logging.getLogger("rewardlab")

MODEL, POLICIES = "model", "policies"


class PolicyTraining(Config):
    """What the configurations of `train sft`, `train dpo` and `train exo` share."""

    model: ModelSource
    """Where the policy comes from: a language model, decoder-only or encoder-decoder."""

    train: Sources = Field(min_length=1)
    """Training data, one source or several; a source may be its path alone."""

    validation: dict[str, DataSource] = Field(default_factory=dict)
    """Named evaluation sets; the loss on the first one says which step was best. None: a part of the training data."""

    validation_share: float = Field(0.05, gt=0, lt=0.5)
    """Share of conversations held out of the training data where no validation set is named; one at least."""

    encoding: PolicyEncoding | None = None
    """How text becomes ids. Default: as the model's folder says, where a training of ours has left it."""

    lora: LoRA | None = None
    """Low-rank adapters instead of full training."""

    layout: LayoutChoice = "auto"
    """auto runs a prompt once for all its completions where the backbone passes the self-test."""

    epochs: int = Field(1, ge=1)
    """Passes over the data."""

    batch_size: int = Field(16, ge=1)
    """Prompts per optimiser step."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens per micro-batch (one prompt alone: twice that); bounds memory, changes no result. Default: 1,024 on a CPU,
    16,384 elsewhere."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate."""

    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """Learning rate after the warm-up."""

    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises from 0."""

    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay, on weights but not on biases and norms."""

    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW betas."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""

    precision: ProductPrecision = "auto"
    """bfloat16: products in bf16 over float32 weights. auto takes it where the device multiplies bf16 in hardware."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    evaluations_per_epoch: int = Field(1, ge=1)
    """How often the evaluation sets are run, at most; and once at the end."""

    checkpoints_per_epoch: int = Field(1, ge=1)
    """How often a state to resume from is written, at most, besides every new best and the end."""

    checkpoints: int = Field(10, ge=0)
    """How many policies are kept in policies/, evenly spaced, the last one that of the end."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    device: str = "auto"
    """cpu, cuda, mps or auto. Of several GPUs the first that the process sees is used; with torchrun, one each."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of new weights, of the order of the data and of what is drawn."""

    @field_validator("validation")
    @classmethod
    def _not_train(cls, value: dict[str, DataSource]) -> dict[str, DataSource]:
        if "train" in value:
            raise ValueError("expected another name than train, which stands for the training data in every table")
        return value

    @model_validator(mode="after")
    def _whole_weights(self) -> Self:
        if self.model.quantisation is not None:
            raise ValueError("expected no model.quantisation: policies are trained in whole weights, or with lora")
        return self


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
        model: folder of the policy at the end.
        summary: what summary.json holds.
    """

    model: Path
    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        split, best, last = self.summary["split"], self.summary["best"], self.summary["last"]
        count = self.summary["counts"][split]["used"]
        lines = [f"At the end, step {last['step']}: {_words(last)}, on {count} held-out records ({split})."]
        if best["step"] != last["step"]:
            lines.append(f"The held-out loss was least at step {best['step']}: {_words(best)}.")
        lines += self.summary["left_out"]
        if self.summary["policies"]:
            lines.append(f"{len(self.summary['policies'])} policies along the way: {POLICIES}/")
        return [*lines, f"Policy: {self.model}"]


def _words(measures: Mapping[str, Any]) -> str:
    accuracy = f", accuracy {100 * measures['accuracy']:.0f} %" if "accuracy" in measures else ""
    return f"loss {measures['loss']:.4f}{accuracy}"


@dataclass(frozen=True)
class PolicyData:
    """Records of a training: by set, and a line per training file for the card."""

    train: Sequence[Record]
    evaluation: Mapping[str, Sequence[Record]]
    described: Sequence[str]


def policy_data(config: PolicyTraining) -> PolicyData:
    """Read and split the data.

    Raises:
        DataError: unusable data.
    """
    data = PolicyData(*training_records(config))
    if processes().is_first:
        for words in warnings_of(data.train, data.evaluation, []):
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
