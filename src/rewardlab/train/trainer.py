"""The one trainer: `transformers.Trainer` with whole optimiser steps as its data.

The training set is the list of optimiser steps of all epochs, so Trainer's own step count, clipping, schedule,
trackers and resume stay right, and resuming in the middle of an epoch is an index. A step is cut into micro-batches
under a token budget; its loss is the mean over its examples, whatever the cut.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rewardlab.data.layout import cost, micro_batches, optimiser_steps, split
from rewardlab.models.reward import RewardModel
from rewardlab.store.files import append_line, read_json, read_jsonl, write_json, write_jsonl
from rewardlab.train.checkpoints import MANIFEST, newest_complete, rotate, seal, step_of
from rewardlab.train.examples import Example, Examples
from rewardlab.train.objectives import Objective, correct

WEIGHTS = "trained.safetensors"
LAYOUT_STATE = "layout.json"
SMALLEST_BUDGET = 64


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
        self.per_epoch = math.ceil(len(examples) / per_step)
        self._order = [
            step for epoch in range(epochs) for step in optimiser_steps(len(examples), per_step, seed=seed, epoch=epoch)
        ]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> list[Example]:
        return [self.examples[example] for example in self._order[index]]

    def counted(self, first: int, last: int) -> int:
        """Examples in the steps from `first` up to, not including, `last`."""
        return sum(map(len, self._order[first:last]))


class GroupTrainer(Trainer):
    """Trains a model of groups of sequences.

    Args:
        model: the model.
        arguments: Trainer's own; one optimiser step per item, logging every step, no rotation.
        plan: the training steps.
        evaluation: named evaluation sets; the first one chooses the best checkpoint.
        objective: what is minimised.
        precision: `bfloat16` runs products in bf16 over float32 weights.
        budget: tokens per micro-batch.
        history: file that gets one line per step and evaluation.
        target: what the examples' targets mean.
    """

    def __init__(
        self,
        model: RewardModel,
        arguments: TrainingArguments,
        plan: StepPlan,
        *,
        evaluation: dict[str, Examples],
        objective: Objective,
        target: Any,
        precision: str,
        budget: int,
        history: Path,
        callbacks: list[TrainerCallback],
        log: Any,
    ) -> None:
        self.plan = plan
        self.evaluation = evaluation
        self.objective = objective
        self.target = target
        self.precision = precision
        self.budget = budget
        self.history = history
        self.run_log = log
        # Trainer only checks that there is an evaluation set: `evaluate` is ours.
        super().__init__(model=model, args=arguments, train_dataset=plan, eval_dataset=plan, callbacks=callbacks)
        self.remove_callback(PrinterCallback)  # the history and the bar say it better

    # --- data -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[list[Example]]:
        """Steps in their order, one a time."""
        return DataLoader(self.plan, batch_size=1, shuffle=False, collate_fn=_only_item)

    # --- one optimiser step -----------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: list[Example], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of the mean loss over the step's examples; halves the budget when memory runs out."""
        model.train()
        while True:
            try:
                return self._accumulate(model, inputs)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or self.budget // 2 < SMALLEST_BUDGET:
                    raise
            model.zero_grad()
            self.budget //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.run_log.warning("out of memory: the step is repeated with %d tokens a micro-batch", self.budget)

    def _accumulate(self, model: Any, examples: Sequence[Example]) -> Tensor:
        shared = self._shared
        total = torch.zeros((), device=self.args.device)
        # One autocast context for the whole step, so that weights are cast once and not once a micro-batch.
        with self._autocast():
            for indices in micro_batches([example.group for example in examples], self.budget, shared=shared):
                batch = [examples[index] for index in indices]
                if len(batch) == 1 and self._is_split(batch[0]):
                    total += self._split_step(model, batch[0], len(examples))
                    continue
                rewards = model([example.group for example in batch])
                loss = self.objective.losses(self.target, rewards, batch).sum() / len(examples)
                with torch.autocast(self.args.device.type, enabled=False):
                    self.accelerator.backward(loss)
                total += loss.detach()
        return total

    def _is_split(self, example: Example) -> bool:
        too_large = cost([example.group], shared=self._shared) > self.budget
        # Two passes over a model with dropout would see two different draws: such groups run whole.
        return too_large and len(example.group.branches) > 1 and not _has_dropout(self.model)

    def _split_step(self, model: Any, example: Example, examples: int) -> Tensor:
        """A group larger than the budget: rewards without gradient, dL/dr of every branch, then part by part.

        Exact for every loss of the rewards, since dL/dw = sum over branches of dL/dr dr/dw.
        """
        parts = [example.group.part(branches) for branches in split(example.group, self.budget, shared=self._shared)]
        with torch.no_grad():
            rewards = torch.cat([model([part]) for part in parts])
        rewards.requires_grad_()
        loss = self.objective.losses(self.target, rewards, [example]).sum() / examples
        (weights,) = torch.autograd.grad(loss, rewards)
        for part, weight in zip(parts, weights.split([len(part.branches) for part in parts]), strict=True):
            weighted = (model([part]) * weight).sum()
            with torch.autocast(self.args.device.type, enabled=False):
                self.accelerator.backward(weighted)
        return loss.detach()

    @property
    def _shared(self) -> bool:
        model: RewardModel = self.model
        return model.layout == "shared"

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    # --- evaluation -------------------------------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss and accuracy on every evaluation set; a history line each."""
        metrics: dict[str, float] = {}
        for name, examples in self.evaluation.items():
            result = self._evaluated(examples.items)
            self._write_history(name, result)
            metrics |= {f"eval_{name}_{key}": value for key, value in result.items()}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _evaluated(self, examples: Sequence[Example]) -> dict[str, float]:
        model: Any = self.model
        model.eval()
        losses, hits = 0.0, []
        with self._autocast():
            for indices in micro_batches([example.group for example in examples], self.budget, shared=self._shared):
                batch = [examples[index] for index in indices]
                rewards = model([example.group for example in batch])
                losses += self.objective.losses(self.target, rewards, batch).sum().item()
                hits += correct(self.target, rewards, batch)
        result = {"loss": losses / len(examples)}
        return result | {"accuracy": sum(hits) / len(hits)} if hits else result

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """A new best is saved at once, so that the best weights and the record of them are one checkpoint."""
        is_best: bool = super()._determine_best_metric(metrics, trial)
        if is_best:
            self.control.should_save = True
        return is_best

    # --- logs -------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's logs, with the epoch counted in passes over the data; steps also go to the history."""
        if "loss" in logs:
            now = time.monotonic()
            done = self.state.global_step
            since = getattr(self, "_last_logged", None)
            if since is not None and since[1] < done:
                logs["pairs_per_second"] = round(self.plan.counted(since[1], done) / (now - since[0]), 3)
            self._last_logged = (now, done)
            self._write_history("train", logs)
        super().log(logs, start_time)
        self.state.log_history[-1]["epoch"] = self._epoch()

    def _write_history(self, name: str, values: dict[str, float]) -> None:
        line = {"step": self.state.global_step, "epoch": self._epoch(), "split": name}
        append_line(self.history, line | {key: value for key, value in values.items() if key != "epoch"})

    def _epoch(self) -> float:
        steps: int = self.state.global_step
        return round(steps / self.plan.per_epoch, 4)

    # --- checkpoints ------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trained weights; frozen ones are where they came from."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        save_file({name: weight.detach().contiguous() for name, weight in trained.items()}, folder / WEIGHTS)
        write_json(folder / LAYOUT_STATE, {"budget": self.budget})

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        if (checkpoint / MANIFEST).is_file():
            return  # saved at this step already: a best one that is also due
        super()._save_checkpoint(model, trial)
        seal(checkpoint)
        rotate(folder, {self.state.global_step, self.state.best_global_step or self.state.global_step})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))
        self.budget = read_json(Path(resume_from_checkpoint) / LAYOUT_STATE)["budget"]

    def load_weights(self, checkpoint: Path) -> None:
        """Put a checkpoint's weights into the model."""
        model: Any = self.model
        weights = load_file(checkpoint / WEIGHTS, device=str(self.args.device))
        model.load_state_dict(weights, strict=False)


def run_training(trainer: GroupTrainer, *, resume: bool) -> bool:
    """Train to the end, from the newest complete checkpoint where there is one to resume.

    Interrupts (Ctrl-C, SIGTERM) end the step, save a checkpoint and then stop.

    Returns:
        Whether training ended by itself.
    """
    folder = Path(str(trainer.args.output_dir))
    checkpoint = newest_complete(folder) if resume else None
    _cut_history(trainer.history, step_of(checkpoint) if checkpoint else 0)
    with _stop_signals() as stopped:
        trainer.add_callback(_StopCallback(stopped))
        trainer.add_callback(_ProgressCallback(trainer.plan))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return not stopped


def _cut_history(history: Path, last_step: int) -> None:
    """Forget the lines of steps after the checkpoint: they are computed again."""
    if history.exists():
        write_jsonl(history, [line for line in read_jsonl(history, torn_tail=True) if line["step"] <= last_step])


class _StopCallback(TrainerCallback):
    def __init__(self, stopped: list[int]) -> None:
        self.stopped = stopped

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True
        return control


class _ProgressCallback(TrainerCallback):
    """One bar over all steps: rate, time left, loss and examples per second."""

    def __init__(self, plan: StepPlan) -> None:
        self.plan = plan
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="training", mininterval=0.5)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            rate = logs.get("pairs_per_second")
            shown = {"loss": f"{logs['loss']:.3f}"} | ({"examples/s": f"{rate:.1f}"} if rate else {})
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
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


def _only_item(items: list[list[Example]]) -> list[Example]:
    (item,) = items
    return item


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def _has_dropout(model: Any) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
