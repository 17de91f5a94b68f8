"""What TensorBoard shows of a training: measures as curves, rewards and their differences as histograms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from rewardlab.errors import MissingExtraError
from rewardlab.train.examples import Example, Target
from rewardlab.train.shares import Rewards

TENSORBOARD = "tensorboard"
"""The tracker's name, and the folder of its event files in a run."""
_OF_EVALUATION = "eval_"


def import_writer() -> Any:
    """The class that writes event files.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard", "Writing for TensorBoard") from error
    return SummaryWriter


class TensorBoard(TrainerCallback):
    """Writes event files: curves with every step and evaluation, histograms with every evaluation.

    Histograms of the training data are over what was trained on since the evaluation before, or since the run was
    resumed, as it scored then.

    Args:
        folder: of the event files. Of a resumed run a further file joins them, which takes back what the steps after
            its checkpoint had left.
        targets: what the targets of each set mean, by its name.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, targets: dict[str, Target]) -> None:
        self._make: Any = import_writer()
        self._writer: Any = None
        self.folder = folder
        self.targets = targets
        self._seen: dict[str, list[dict[str, Tensor]]] = defaultdict(list)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the file of this session."""
        self._writer = self._make(log_dir=str(self.folder), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Measures of a step, or of an evaluation."""
        for key, value in (logs or {}).items():
            if key.startswith(_OF_EVALUATION):
                name, _, measure = key.removeprefix(_OF_EVALUATION).rpartition("_")
                self._writer.add_scalar(f"{name}/{measure}", value, state.global_step)
            elif "loss" in logs and isinstance(value, int | float):
                self._writer.add_scalar(f"train/{key}", value, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The histograms of every set."""
        self._write_histograms(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Everything is on the disk whenever training stops."""
        self._writer.flush()

    def watch(self, name: str, examples: Sequence[Example], rewards: Rewards) -> None:
        """Keep the rewards of examples of the set `name` until its histograms are written."""
        flat = torch.tensor([reward for own in rewards for reward in own])
        self._seen[name].append(histograms_of(self.targets[name], examples, flat))

    def write_last(self, name: str, measures: dict[str, float], step: int) -> None:
        """Measures and histograms of a set that is scored once, with the best model, which is that of `step`."""
        if self._writer is None:  # resumed after the last step
            self._writer = self._make(log_dir=str(self.folder))
        for measure, value in measures.items():
            self._writer.add_scalar(f"{name}/{measure}", value, step)
        self._write_histograms(step)

    def _write_histograms(self, step: int) -> None:
        for name, parts in self._seen.items():
            for kind in dict.fromkeys(kind for part in parts for kind in part):
                values = torch.cat([part[kind] for part in parts if kind in part])
                if len(values):
                    self._writer.add_histogram(f"{name}/{kind}", values, step)
        self._seen.clear()


def histograms_of(target: Target, examples: Sequence[Example], rewards: Tensor) -> dict[str, Tensor]:
    """What is drawn of a micro-batch, by name.

    Of preferences, over all pairs of different targets: `chosen`, `rejected`, `difference` (chosen minus rejected) and
    `sigma` (the logistic function of it). Of labels `chosen` (good) and `rejected`; of scores `reward`.

    Args:
        target: what the targets mean.
        examples: of the micro-batch.
        rewards: by example, then sequence; shape [sequences].
    """
    if target == "score":
        return {"reward": rewards}
    if target == "label":
        good = torch.tensor([example.targets[0] > 0 for example in examples], device=rewards.device)
        return {"chosen": rewards[good], "rejected": rewards[~good]}
    winners, losers = [], []
    for example, own in zip(examples, _places(examples), strict=True):
        for i, value in zip(own, example.targets, strict=True):
            worse = [j for j, other in zip(own, example.targets, strict=True) if other < value]
            winners += [i] * len(worse)
            losers += worse
    chosen, rejected = rewards[winners], rewards[losers]
    difference = chosen - rejected
    return {"chosen": chosen, "rejected": rejected, "difference": difference, "sigma": difference.sigmoid()}


def _places(examples: Sequence[Example]) -> list[range]:
    """Where the rewards of each example stand."""
    places, start = [], 0
    for example in examples:
        places.append(range(start, start + len(example.targets)))
        start += len(example.targets)
    return places
