"""What every training begins with: its device, its records, and how much it keeps in memory."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainingArguments

from rewardlab.data.files import unreadable
from rewardlab.data.load import Loaded, load_all
from rewardlab.data.prepare import DROPPED
from rewardlab.data.source import with_limit
from rewardlab.data.splits import place
from rewardlab.errors import DataError, ModelError, Problem, counted
from rewardlab.models.located import located
from rewardlab.models.policy import PolicyModel
from rewardlab.models.reward import RewardModel
from rewardlab.models.source import torch_device
from rewardlab.records import Record
from rewardlab.train.configuration import Training
from rewardlab.train.examples import Examples
from rewardlab.train.tensorboard import TENSORBOARD
from rewardlab.train.trainer import GroupTrainer, StepPlan

CPU_BUDGET, ACCELERATOR_BUDGET = 1024, 16384
"""Tokens of a micro-batch where the configuration names none."""


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


class TrainingData(NamedTuple):
    """What a training reads.

    Attributes:
        train: its records.
        evaluation: records of evaluation sets by name.
        described: a line per training file, for the card.
        set_aside: what `set_aside_of` gives.
    """

    train: Sequence[Record]
    evaluation: Mapping[str, Sequence[Record]]
    described: Sequence[str]
    set_aside: Mapping[str, Mapping[str, int]]

    def as_given(self, config: Training) -> dict[str, Sequence[Record]]:
        """The records by the names of the sets that the user gave, with their files: what was held out of the training
        data stands among them."""
        files = {"train": ", ".join(source.path for source in config.train)}
        files |= {f"validation.{name}": source.path for name, source in config.validation.items()}
        held_out = [] if config.validation else [record for one in self.evaluation.values() for record in one]
        validation = [self.evaluation[name] for name in config.validation]
        sets = [[*self.train, *held_out], *validation]
        return {f"{name} ({own})": records for (name, own), records in zip(files.items(), sets, strict=True)}


def training_records(config: Training) -> TrainingData:
    """Training records and validation records.

    Raises:
        DataError: unusable data; with a model that is not there either in the same error.
    """
    sources = [*config.train, *config.validation.values()]
    try:
        loaded = load_all((with_limit(source, config.limit) for source in sources), usable=True)
    except DataError as error:
        raise unreadable([*error.problems, *_absent_model(config)]) from error
    training = [record for one in loaded[: len(config.train)] for record in one.records]
    named = {name: list(one.records) for name, one in zip(config.validation, loaded[len(config.train) :], strict=True)}
    described = lines_of(loaded[: len(config.train)])
    sets = {"train": loaded[: len(config.train)]}
    sets |= {name: [one] for name, one in zip(config.validation, loaded[len(config.train) :], strict=True)}
    if not named:
        training, held_out = _held_out(training, config)
        named = {"val": held_out}
    return TrainingData(training, named, described, set_aside_of(sets))


def _absent_model(config: Training) -> Sequence[Problem]:
    """Why the model that training begins with is not found; nothing where it is, or is none."""
    if config.model.path is not None:
        try:
            located(config.model.path, config.model.revision)
        except ModelError as error:
            return error.problems
    return ()


def set_aside_of(sets: Mapping[str, Sequence[Loaded]]) -> dict[str, dict[str, int]]:
    """Set → reason → number of rows of it that cannot be used, with that of empty completions dropped from others.

    Sets without any are left out.
    """
    totals = {
        name: sum((Counter(one.reasons) + Counter({DROPPED: one.dropped}) for one in parts), Counter[str]())
        for name, parts in sets.items()
    }
    return {name: dict(total) for name, total in totals.items() if total}


def lines_of(loaded: Sequence[Loaded]) -> list[str]:
    """A line per file that was read, for the card."""
    return [
        f"{Path(file.name).name}: {file.rows} rows" + (f", sha256 {file.sha256[:16]}" if file.sha256 else "")
        for one in loaded
        for file in one.files
    ]


def _held_out(records: Sequence[Record], config: Training) -> tuple[list[Record], list[Record]]:
    """Training and validation records: a share of the conversations, at least one, by their stable places.

    Raises:
        DataError: all records are of one conversation.
    """
    # A purpose of its own: data that were split before have no root left in the first part of the unit interval.
    places = {record.prompt.root_id: place(record.prompt.root_id, config.seed, "validation") for record in records}
    if len(places) < 2:
        found = f"{counted(len(records), 'record')} of {counted(len(places), 'conversation')}"
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


def micro_batch_tokens(config: Training, device: str) -> int:
    """Tokens of a micro-batch on this kind of device."""
    return config.token_budget or (CPU_BUDGET if device == "cpu" else ACCELERATOR_BUDGET)


def trainer_arguments(
    config: Training, folder: Path, plan: StepPlan, device: str, *, best: str, **own: Any
) -> TrainingArguments:
    """What `GroupTrainer` takes: one optimiser step per item, every step logged, trackers as configured.

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
        "report_to": [name for name in config.report_to if name != TENSORBOARD],
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


def log_start(log: logging.Logger, trainer: GroupTrainer, sets: Mapping[str, Examples]) -> None:
    """What a person who reads the log has to know."""
    model = trainer.whole
    for name, data in sets.items():
        counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in data.counts.items())
        log.info("%s: %d used as %s (%s)", name, len(data), data.target, counts)
    log.info(
        "%d parameters, %d of them trained, on %s, products in %s; %s layout%s; %d tokens a micro-batch; %d steps",
        sum(weight.numel() for weight in model.parameters()),
        sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        trainer.args.device,
        trainer.precision,
        model.layout,
        f" ({model.fallback})" if model.fallback else "",
        trainer.budget,
        len(trainer.plan),
    )
