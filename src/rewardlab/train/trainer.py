"""The one trainer: `transformers.Trainer` with whole optimiser steps as its data.

The training set is the list of optimiser steps of all epochs, so Trainer's own step count, clipping, schedule,
trackers and resume stay right, and resuming in the middle of an epoch is an index. A step is cut into micro-batches
under a token budget; its loss is the mean over its examples (or their tokens), whatever the cut, and whatever the
number of processes that share the step (`shares`).
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from rewardlab.data.layout import Group, micro_batches, optimiser_steps, parts
from rewardlab.errors import ConfigError, Problem, RewardlabError, RunError
from rewardlab.models.features import FeatureModel
from rewardlab.models.memory import is_out_of_memory, within_memory
from rewardlab.models.policy import PolicyModel
from rewardlab.models.reward import RewardModel
from rewardlab.store.files import (
    append_line,
    clear_when_disk_is_full,
    read_json,
    sync_file,
    write_json,
)
from rewardlab.store.processes import clear_when_lost, processes
from rewardlab.store.together import together
from rewardlab.train.checkpoints import cut_history, newest_complete, rotate, seal, step_of
from rewardlab.train.examples import Example, Examples, Target
from rewardlab.train.margins import MARGIN_LOG, MarginLog
from rewardlab.train.objectives import AnyObjective
from rewardlab.train.schedules import EpochDecay
from rewardlab.train.shares import (
    Held,
    Rewards,
    add_up_gradients,
    as_in_the_first,
    own_share,
    rewards_in_order,
    step_seed,
)

WEIGHTS = "trained.safetensors"
LAYOUT_STATE = "layout.json"
TRAINER_STATE = "trainer_state.json"
SMALLEST_BUDGET = 64
SPLIT_AT = 2
"""Budgets that a group may take alone before it is split, which costs a second forward pass and prefix."""

Result = TypeVar("Result")
Watcher = Callable[[str, Sequence[Example], Rewards], None]
"""Is told what was scored, in training and in evaluation: name of the set (`train`), the examples of a step or of the
set, and the rewards of each. Of a step that was repeated for lack of memory it is told once."""


class StepPlan(Dataset[list[Example]]):
    """Every optimiser step of every epoch, in order.

    Args:
        examples: of the training set.
        per_step: examples to a step.
        epochs: passes over the data.
        seed: of the order.
    """

    def __init__(self, examples: Sequence[Example], per_step: int, epochs: int, seed: int) -> None:
        self.examples = examples
        self.per_step = per_step
        self.per_epoch = math.ceil(len(examples) / per_step)
        self.epochs = epochs
        self.seed = seed
        # The order of one epoch at a time: steps are asked for in their order.
        self._epoch = -1
        self._steps: list[list[int]] = []

    def __len__(self) -> int:
        return self.per_epoch * self.epochs

    def __getitem__(self, index: int) -> list[Example]:
        epoch, step = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            self._steps = optimiser_steps(len(self.examples), self.per_step, seed=self.seed, epoch=epoch)
            self._epoch = epoch
        return [self.taken(epoch, place) for place in self._steps[step]]

    def taken(self, epoch: int, place: int) -> Example:
        """What an epoch takes of an example: all of it."""
        return self.examples[place]

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of what is trained on and in which order: two plans with one digest have the same steps."""
        digest = hashlib.sha256(f"{self.per_step} {self.epochs} {self.seed}".encode())
        for example in self.examples:
            parts = (example.group.prefix, *example.group.branches)
            start = [example.group.start] if example.group.start else []
            sizes = np.array([len(parts), *map(len, parts), *start], np.int64)
            digest.update(sizes.tobytes() + np.array([token for part in parts for token in part], np.int64).tobytes())
            digest.update(np.array([*example.targets, example.margin], np.float64).tobytes())
        return digest.hexdigest()


class GroupTrainer(Trainer):
    """Trains a model of groups of sequences.

    Args:
        model: a reward model, or its head or readout on cached states; or a policy.
        arguments: Trainer's own; one optimiser step per item, logging every step, no rotation.
        plan: the training steps.
        evaluation: named evaluation sets; the first one chooses the best checkpoint. They may be of another kind of
            target than the training set.
        objective: what is minimised.
        target: what the targets of the training examples mean.
        precision: `bfloat16` runs products in bf16 over float32 weights.
        budget: tokens per micro-batch.
        patience: evaluations without a new best after which training stops; None never stops early.
        history: file that gets one line per step and evaluation.
        log: gets what a person should know.
        decay: the schedule, where it is none of transformers'.
    """

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: RewardModel | FeatureModel | PolicyModel,
        arguments: TrainingArguments,
        plan: StepPlan,
        *,
        evaluation: dict[str, Examples],
        objective: AnyObjective,
        target: Target,
        precision: str,
        budget: int,
        patience: int | None,
        history: Path,
        log: logging.Logger,
        decay: EpochDecay | None = None,
    ) -> None:
        self.plan = plan
        self.evaluation = evaluation
        self.objective = objective
        self.target: Target = target
        self.precision = precision
        self.budget = budget
        self.patience = patience
        self.history = history
        self.run_log = log
        self.margins = MarginLog(Path(str(arguments.output_dir)) / MARGIN_LOG)
        self.decay = decay
        self.watchers: list[Watcher] = []
        self._step_began = time.monotonic()
        self._step_examples = 0
        self._step_weight = 0.0
        self._step_measures: dict[str, float] = {}
        # One device: over several, Trainer would cut the list of groups in pieces (DataParallel).
        arguments._n_gpu = min(arguments.n_gpu, 1)
        # Trainer only checks that there is an evaluation set: `evaluate` is ours.
        super().__init__(model=model, args=arguments, train_dataset=plan, eval_dataset=plan)
        as_in_the_first(list(self._trained().values()))
        self.remove_callback(PrinterCallback)  # the history and the bar say it better

    @property
    def whole(self) -> Any:
        """The reward model, its backbone included, or the policy."""
        model: RewardModel | FeatureModel | PolicyModel = self.model
        return model.whole if isinstance(model, FeatureModel) else model

    def create_accelerator_and_postprocess(self) -> None:
        """Trainer's own, without a wrapper around the model: gradients are added up here, once a step.

        Raises:
            ConfigError: the launcher asks for sharded weights.
        """
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            remedy = "Launch with torchrun, or with accelerate launch --multi_gpu and without FSDP and DeepSpeed."
            problem = Problem("the launcher", "sharded weights", "the whole model in every process", remedy)
            raise ConfigError("weights are not sharded", [problem])
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Trainer's own, or one that falls from epoch to epoch."""
        if self.decay is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = self.decay.scheduler(optimizer or self.optimizer)
        return self.lr_scheduler

    # --- data -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[list[Example]]:
        """Steps in their order, one a time."""
        return DataLoader(self.plan, batch_size=1, shuffle=False, collate_fn=_only_item)

    # --- one optimiser step -----------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: list[Example], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of the mean loss over the step's examples, of which every process computes its share.

        Raises:
            RewardlabError: the loss is not finite, or the smallest token budget does not fit into memory.
        """
        self._step_began = time.monotonic()
        self._step_examples = len(inputs)
        self._step_weight = self.objective.weight(inputs)
        model.train()
        share = own_share(inputs, shared=self._shared)
        loss, held = self._within_memory(partial(self._accumulate, model, share))
        processes().add_up([loss])
        refuse_non_finite(f"the loss of step {self.state.global_step + 1}", loss.item())
        rewards = rewards_in_order(inputs, held)
        if processes().is_first:
            self.margins.write(self.state.global_step + 1, inputs, rewards)
        self._step_measures = self.objective.step_measures(self.target, _flat(rewards), inputs)
        self._tell("train", inputs, rewards)
        add_up_gradients(list(self._trained().values()))
        return loss

    def _accumulate(self, model: Any, examples: Sequence[Example]) -> tuple[Tensor, Held]:
        """This process's share of the loss, with its gradients, and the rewards."""
        torch.manual_seed(step_seed(self.args.seed, self.state.global_step))
        total = torch.zeros((), device=self.args.device)
        held = []
        # One autocast context for the whole step, so that weights are cast once and not once a micro-batch.
        with self._autocast(), self._steady():
            for batch in self._micro_batches(examples):
                parts = self._parts(batch)
                if parts:
                    loss, rewards = self._split_step(model, batch[0], parts)
                else:
                    rewards = model([example.group for example in batch])
                    loss = self._loss(rewards, batch)
                    self._backward(loss)
                held.append((batch, rewards.detach()))
                total += loss.detach()
        return total, held

    def _loss(self, rewards: Tensor, examples: Sequence[Example]) -> Tensor:
        """What these examples add to the loss of the step."""
        return self.objective.losses(self.target, rewards, examples).sum() / self._step_weight

    def _split_step(self, model: Any, example: Example, parts: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """A group too large for a micro-batch: rewards without gradient, dL/dr of every branch, then part by part.

        Exact for every loss of the rewards, since dL/dw = sum over branches of dL/dr dr/dw. Both passes over a part
        see the same draws of dropout.

        Returns:
            The loss, and the rewards.
        """
        seeds: list[int] = torch.randint(2**31, (len(parts),)).tolist()
        with torch.no_grad(), self._autocast(cache=False):
            rewards = torch.cat([self._drawn(seed, model, part) for seed, part in zip(seeds, parts, strict=True)])
        rewards.requires_grad_()
        loss = self._loss(rewards, [example])
        (weights,) = torch.autograd.grad(loss, rewards)
        shares = weights.split([len(part.branches) for part in parts])
        for seed, part, share in zip(seeds, parts, shares, strict=True):
            self._backward((self._drawn(seed, model, part) * share).sum())
        return loss, rewards

    def _drawn(self, seed: int, model: Any, part: Group) -> Tensor:
        """Rewards of a part of a group, with dropout drawn from `seed`."""
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            rewards: Tensor = model([part])
        return rewards

    def _tell(self, name: str, examples: Sequence[Example], rewards: Rewards) -> None:
        if processes().is_first:
            for watcher in self.watchers:
                watcher(name, examples, rewards)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Trainer's own, without the norms that it does not know by their names: `head.norms.0` of a readout."""
        norms = {
            f"{name}.{own}"
            for name, part in model.named_modules()
            if type(part).__name__.endswith("Norm")
            for own, _ in part.named_parameters(recurse=False)
        }
        return [name for name in super().get_decay_parameter_names(model) if name not in norms]

    def _backward(self, loss: Tensor) -> None:
        with torch.autocast(self.args.device.type, enabled=False):
            self.accelerator.backward(loss)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        refuse_non_finite(f"the norm of the gradient of step {self.state.global_step + 1}", float(norm))
        return norm

    # --- micro-batches ----------------------------------------------------------------------------------------

    def _micro_batches(self, examples: Sequence[Example]) -> Iterator[list[Example]]:
        batches = micro_batches([example.group for example in examples], self.budget, shared=self._shared)
        return ([examples[index] for index in indices] for indices in batches)

    def _parts(self, batch: Sequence[Example]) -> list[Group]:
        """The one group of a micro-batch in parts, where it is too large for one; else empty."""
        if len(batch) > 1:
            return []
        cut = parts(batch[0].group, SPLIT_AT * self.budget, shared=self._shared)
        return cut if len(cut) > 1 else []

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, which begins anew with half the budget whenever memory runs out in any process.

        Raises:
            RewardlabError: the smallest budget does not fit into memory.
        """
        return within_memory(work, self._halve_budget)

    def _halve_budget(self) -> None:
        shorter = "a smaller encoding.max_tokens"
        self.budget = halved_budget(self.budget, f" at step {self.state.global_step + 1}", shorter, self.run_log)
        self.model.zero_grad()

    @property
    def _shared(self) -> bool:
        model: RewardModel | FeatureModel | PolicyModel = self.model
        return model.layout == "shared"

    def _autocast(self, *, cache: bool = True) -> contextlib.AbstractContextManager[Any]:
        """bf16 products where they are asked for.

        Without `cache` no cast weight is kept: older versions of torch use one that was cast where no gradient is
        recorded again where one is, and the weight gets none (pytorch issue 112583).
        """
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=enabled, cache_enabled=cache)

    def _steady(self) -> contextlib.AbstractContextManager[Any]:
        """A policy casts its output layer once while this lasts."""
        model: Any = self.model
        return model.steady() if isinstance(model, PolicyModel) else contextlib.nullcontext()

    # --- evaluation -------------------------------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss and further measures on every evaluation set; a history line each."""
        metrics: dict[str, float] = {}
        for name, examples in self.evaluation.items():
            result = self.measured(name, examples)
            # Without the number of records no reader could say how sure these measures are.
            self._write_history(name, result | {"n": len(examples)})
            metrics |= {f"eval_{name}_{key}": value for key, value in result.items()}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measured(self, name: str, examples: Examples) -> dict[str, float]:
        """Loss and further measures on one set: accuracy, where there is right and wrong."""
        share = own_share(examples.items, shared=self._shared)
        ordered = rewards_in_order(examples.items, self._within_memory(partial(self._scored, share)))
        self._tell(name, examples.items, ordered)
        rewards = _flat(ordered)
        losses = self.objective.losses(examples.target, rewards, examples.items)
        loss = losses.double().sum().item() / self.objective.weight(examples.items)
        refuse_non_finite(f"a held-out loss after step {self.state.global_step}", loss)
        return {"loss": loss} | self.objective.measures(examples.target, rewards, examples.items)

    @torch.no_grad()
    def _scored(self, examples: Sequence[Example]) -> Held:
        """The rewards of this process's share, in micro-batches."""
        model: Any = self.model
        model.eval()
        held = []
        with self._autocast(), self._steady():
            for batch in self._micro_batches(examples):
                parts = self._parts(batch)
                rewards = torch.cat([model([part]) for part in parts]) if parts else model([one.group for one in batch])
                held.append((batch, rewards))
        return held

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """A new best, and the end, are saved at once: weights and the record of them are one checkpoint."""
        is_best: bool = super()._determine_best_metric(metrics, trial)
        if self.is_over(self.state):
            self.control.should_training_stop = True
        if is_best or self.control.should_training_stop:
            self.control.should_save = True
        return is_best

    def is_over(self, state: TrainerState) -> bool:
        """Whether nothing follows this state: all steps are done, or there was no new best for too long."""
        waited = state.global_step - (state.best_global_step or 0)
        out_of_patience = self.patience is not None and waited >= self.patience * self.args.eval_steps
        return bool(out_of_patience or state.global_step >= len(self.plan))

    # --- logs -------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's logs, with the epoch counted in passes over the data; steps also go to the history."""
        is_step = "loss" in logs
        if is_step:
            logs |= self._step_measures
            logs["pairs_per_second"] = round(self._step_examples / (time.monotonic() - self._step_began), 3)
            self._write_history("train", logs)
        self.state.epoch = self._epoch()
        super().log(logs, start_time)
        if is_step:
            # The history has it. Kept here it would be written again with every checkpoint.
            self.state.log_history.pop()

    def _write_history(self, name: str, values: dict[str, float]) -> None:
        if not processes().is_first:
            return
        line = {"step": self.state.global_step, "epoch": self._epoch(), "split": name}
        # Forced to disk with the next checkpoint: what comes after that one is computed again anyway.
        append_line(self.history, line | values, force=False)

    def _epoch(self) -> float:
        steps: int = self.state.global_step
        return round(steps / self.plan.per_epoch, 4)

    # --- checkpoints ------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trained weights; frozen ones are where they came from."""
        if not processes().is_first:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: weight.detach().contiguous() for name, weight in self._trained().items()}
        save_file(trained, folder / WEIGHTS)
        write_json(folder / LAYOUT_STATE, {"budget": self.budget, "plan": self.plan.digest})

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing: what a step draws comes from its own seed."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not processes().is_first:
            super()._save_checkpoint(model, trial)  # writes nothing, and waits where the first process waits
            return
        folder = Path(str(self.args.output_dir))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        try:
            with clear_when_disk_is_full(checkpoint):
                super()._save_checkpoint(model, trial)
                sync_file(self.history)
                self.margins.sync()
                seal(checkpoint)
        except Exception:
            # A part of a checkpoint is of no use, and takes room where there is none.
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        rotate(folder, {self.state.global_step, self.state.best_global_step or self.state.global_step})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        layout = read_json(checkpoint / LAYOUT_STATE)
        if layout.get("plan") != self.plan.digest:
            found = "a run that now has other training examples, or has them in another order"
            remedy = "Put the training data and the tokenizer back as they were, or start another run."
            problem = Problem(str(checkpoint), found, "those that it was trained on", remedy)
            raise RunError("a training is resumed with the data it began with", [problem])
        self.load_weights(checkpoint)
        # A run may go on on a smaller device than it began on.
        self.budget = min(self.budget, layout["budget"])

    def load_weights(self, checkpoint: Path) -> None:
        """Put a checkpoint's weights into the model.

        Raises:
            RewardlabError: they are not those of this model.
        """
        # Of several processes each has a number on its device, also on a CPU, where safetensors knows none.
        kind = self.args.device.type
        weights = load_file(checkpoint / WEIGHTS, device=kind if kind == "cpu" else str(self.args.device))
        if weights.keys() != self._trained().keys():
            raise RewardlabError(f"{checkpoint} does not hold the weights that this run trains")
        self.whole.load_state_dict(weights, strict=False)

    def load_best(self) -> int:
        """Put the best weights into the model; their step."""
        processes().wait()  # the first one may still be writing them
        step: int = self.state.best_global_step or self.state.global_step
        self.load_weights(Path(str(self.args.output_dir)) / f"checkpoint-{step}")
        return step

    def free_optimiser(self) -> None:
        """Let go of the gradients and of the optimiser, whose moments take twice the memory of the trained weights."""
        self.optimizer = self.lr_scheduler = None
        self.callback_handler.optimizer = self.callback_handler.lr_scheduler = None
        self.accelerator.free_memory()
        self.model.zero_grad()
        gc.collect()  # torch ties an optimiser to its own wrapped methods

    def load_end(self, checkpoint: Path) -> None:
        """Take over a checkpoint that nothing follows."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.whole.named_parameters() if weight.requires_grad}


def run_training(trainer: GroupTrainer, *, resume: bool) -> bool:
    """Train to the end, from the newest complete checkpoint where there is one to resume.

    Interrupts (Ctrl-C, SIGTERM) end the step, save a checkpoint and then stop.

    Returns:
        Whether training ended by itself.

    Raises:
        RunError: the training data are not those that the checkpoint was trained on.
    """
    _refuse_different_plans(trainer)
    checkpoint = _checkpoint_to_go_on_from(trainer, resume=resume)
    if checkpoint is not None:
        trainer.run_log.info("goes on after step %d of %d", step_of(checkpoint), len(trainer.plan))
        if trainer.is_over(TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))):
            trainer.load_end(checkpoint)
            return True
    with stop_signals() as stopped, _Progress() as progress:
        trainer.add_callback(_StopCallback(stopped))
        if processes().is_first:
            trainer.add_callback(progress)
        with clear_when_lost():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer.is_over(trainer.state)


@contextlib.contextmanager
def clear_when_out_of_memory() -> Iterator[None]:
    """Memory that runs out where a smaller micro-batch is no help: moving the model, updating it, loading it again.

    Raises:
        RewardlabError: what helps.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RewardlabError(
            "Out of memory outside of the passes over the data, where smaller micro-batches do not help: the weights, "
            "their gradients and the two moments of AdamW take 16 bytes per trained parameter. Use lora, a smaller "
            "model, or a device with more memory."
        ) from error


def halved_budget(budget: int, where: str, shorter: str, log: logging.Logger) -> int:
    """Half the tokens a micro-batch, after memory ran out.

    Args:
        budget: tokens a micro-batch then.
        where: it ran out; begins with a space, or is empty.
        shorter: the option that makes texts shorter, in words.
        log: is told.

    Raises:
        RewardlabError: there is nothing smaller.
    """
    if budget <= SMALLEST_BUDGET:
        raise RewardlabError(
            f"Out of memory{where} with {budget} tokens a micro-batch, the smallest there is. Use "
            f"gradient_checkpointing, {shorter}, lora, or a smaller model."
        )
    smaller = max(budget // 2, SMALLEST_BUDGET)
    log.warning("out of memory: repeated with %d tokens a micro-batch", smaller)
    return smaller


def _refuse_different_plans(trainer: GroupTrainer) -> None:
    """Every process is to know the whole of every step, of which it takes its share.

    Raises:
        RunError: one has read other data, or has them in another order.
    """
    differ = processes().any(trainer.plan.digest != processes().first(lambda: trainer.plan.digest))

    def refuse() -> None:
        if differ:
            remedy = "Do all machines see the same files?"
            problem = Problem("the training examples", "others in another process", "the same in all", remedy)
            raise RunError("the processes do not train on the same data", [problem])

    together(refuse)


def _checkpoint_to_go_on_from(trainer: GroupTrainer, *, resume: bool) -> Path | None:
    """The newest complete checkpoint, with the history cut back to it."""

    def found() -> str | None:
        checkpoint = newest_complete(Path(str(trainer.args.output_dir))) if resume else None
        for file in (trainer.history, trainer.margins.path):
            cut_history(file, step_of(checkpoint) if checkpoint else 0)
        return None if checkpoint is None else str(checkpoint)

    path = processes().first(found)
    return None if path is None else Path(path)


class _StopCallback(TrainerCallback):
    def __init__(self, stopped: list[int]) -> None:
        self.stopped = stopped

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        # A signal may reach one process only: all of them stop after the same step.
        if processes().any(bool(self.stopped)):
            control.should_save = True
            control.should_training_stop = True
        return control


class _Progress(TrainerCallback):
    """One bar over all steps: rate, time left, loss and examples per second. A context manager."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="training", mininterval=0.5)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            shown = {"loss": f"{logs['loss']:.3f}", "pairs/s": f"{logs['pairs_per_second']:.1f}"}
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(state.global_step - self.bar.n)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Signals received so far; a second one raises KeyboardInterrupt at once."""
    received: list[int] = []

    def handler(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread: signals are the caller's
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handler)
    try:
        yield received
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _flat(rewards: Rewards) -> Tensor:
    return torch.tensor([reward for own in rewards for reward in own])


def _only_item(items: list[list[Example]]) -> list[Example]:
    (item,) = items
    return item


def refuse_non_finite(name: str, value: float) -> None:
    """Stop a training that has diverged.

    Raises:
        RewardlabError: the value is no number, or infinite.
    """
    if not math.isfinite(value):
        raise RewardlabError(
            f"Training diverged: {name} is {value}; expected a finite number. Lower learning_rate or max_grad_norm, "
            "raise warmup_share, or set precision to float32; look for extreme scores or margins in the data."
        )
