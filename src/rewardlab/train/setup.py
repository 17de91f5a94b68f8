"""What every training begins with: its device, its records, and how much it keeps in memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainingArguments

from rewardlab.data.load import Loaded, load_all
from rewardlab.data.source import DataSource, with_limit
from rewardlab.data.splits import place
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.models.loading import torch_device
from rewardlab.models.policy import PolicyModel
from rewardlab.models.reward import RewardModel
from rewardlab.records import Record
from rewardlab.train.trainer import StepPlan


class Optimisation(Protocol):
    """Of a configuration what says how steps are made."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def schedule(self) -> str:
        """Learning rate after the warm-up."""
        ...

    @property
    def warmup_share(self) -> float:
        """Share of the steps over which the rate rises from 0."""
        ...

    @property
    def weight_decay(self) -> float:
        """AdamW weight decay."""
        ...

    @property
    def betas(self) -> tuple[float, float]:
        """AdamW betas."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """Gradients are clipped to this norm."""
        ...

    @property
    def evaluations_per_epoch(self) -> int:
        """How often the evaluation sets are run."""
        ...

    @property
    def checkpoints_per_epoch(self) -> int:
        """How often a state to resume from is written."""
        ...

    @property
    def seed(self) -> int:
        """Of the order and of what is drawn."""
        ...


class Data(Protocol):
    """Of a configuration what says which data there are."""

    @property
    def train(self) -> Sequence[DataSource]:
        """Training data."""
        ...

    @property
    def validation(self) -> Mapping[str, DataSource]:
        """Named evaluation sets."""
        ...

    @property
    def validation_share(self) -> float:
        """Share of conversations held out where no set is named."""
        ...

    @property
    def limit(self) -> int | None:
        """Rows to a source."""
        ...

    @property
    def seed(self) -> int:
        """Of the split."""
        ...


def training_device(name: str) -> str:
    """The kind of device to train on: transformers takes the first one of its kind, whatever it is told.

    Raises:
        ModelError: a device that is not there, or another than the first.
    """
    kind, _, index = torch_device(name).partition(":")
    if index not in ("", "0"):
        expected = f"{kind}: training takes the first device that the process sees"
        problem = Problem("device", name, expected, "The variable CUDA_VISIBLE_DEVICES says which one that is.")
        raise ModelError("The device cannot be chosen by its number", [problem])
    return kind


def training_records(config: Data) -> tuple[list[Record], dict[str, list[Record]], list[str]]:
    """Training records, validation records by name, and a line per training file for the card."""
    sources = [*config.train, *config.validation.values()]
    loaded = load_all((with_limit(source, config.limit) for source in sources), usable=True)
    training = [record for one in loaded[: len(config.train)] for record in one.records]
    named = {name: list(one.records) for name, one in zip(config.validation, loaded[len(config.train) :], strict=True)}
    described = lines_of(loaded[: len(config.train)])
    if not named:
        training, held_out = _held_out(training, config)
        named = {"val": held_out}
    return training, named, described


def lines_of(loaded: Sequence[Loaded]) -> list[str]:
    """A line per file that was read, for the card."""
    return [
        f"{Path(file.name).name}: {file.rows} rows" + (f", sha256 {file.sha256[:16]}" if file.sha256 else "")
        for one in loaded
        for file in one.files
    ]


def _held_out(records: Sequence[Record], config: Data) -> tuple[list[Record], list[Record]]:
    """Training and validation records: a share of the conversations, at least one, by their stable places.

    Raises:
        DataError: all records are of one conversation.
    """
    # A purpose of its own: data that were split before have no root left in the first part of the unit interval.
    places = {record.prompt.root_id: place(record.prompt.root_id, config.seed, "validation") for record in records}
    if len(places) < 2:
        found = f"{len(records)} records of {len(places)} conversation"
        remedy = "Name an evaluation set: --validation.NAME.path FILE."
        raise DataError("Nothing can be held out", [Problem("train", found, "two conversations or more", remedy)])
    due = sum(at < config.validation_share for at in places.values())
    held_out = set(sorted(places, key=places.__getitem__)[: min(max(due, 1), len(places) - 1)])
    training = [record for record in records if record.prompt.root_id not in held_out]
    return training, [record for record in records if record.prompt.root_id in held_out]


def checkpoint_activations(model: RewardModel | PolicyModel) -> None:
    """Recompute activations in the backward pass."""
    network: Any = model.network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns that the cache is off, which it is anyway
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if model.network is not model.plain_network:
        network.enable_input_require_grads()


def trainer_arguments(
    config: Optimisation, folder: Path, plan: StepPlan, device: str, *, best: str, **own: Any
) -> TrainingArguments:
    """What `GroupTrainer` takes: one optimiser step per item, every step logged, no tracker unless named.

    Args:
        config: how steps are made.
        folder: of the checkpoints.
        plan: the training steps.
        device: kind of device.
        best: the measure that says which checkpoint is best, `<set>_<measure>`; higher is better of accuracies alone.
        own: further arguments, or others in place of these.
    """
    arguments: dict[str, Any] = {
        "lr_scheduler_type": config.schedule,
        "warmup_steps": int(config.warmup_share * len(plan)),
        "report_to": [],
    }
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=math.ceil(plan.per_epoch / config.evaluations_per_epoch),
        save_strategy="steps",
        save_steps=math.ceil(plan.per_epoch / config.checkpoints_per_epoch),
        metric_for_best_model=f"eval_{best}",
        greater_is_better=best.endswith("_accuracy"),
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device == "cpu",
        seed=config.seed,
        **(arguments | own),
    )
