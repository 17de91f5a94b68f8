"""What every pair's rewards were when it was trained on: the raw material of cartography.

The rewards are those of the training pass itself (dropout and precision included), before the update that they lead
to; nothing is computed for them. While a training runs, a line per optimiser step goes to a log beside the
checkpoints. A resume cuts the log back to its checkpoint, so that what is trained on again replaces what was written
before. At the end the log becomes one table, which appears whole.

    checkpoints/margins.jsonl   {"step", "rewards": [[chosen, rejected] or null, ...]}, in the order of the step
    margins.parquet             a row per pair and epoch, in the order of training
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from rewardlab.data.layout import optimiser_steps
from rewardlab.store.files import append_line, read_jsonl, sync_file
from rewardlab.store.table import write_parquet
from rewardlab.train.examples import Example
from rewardlab.train.shares import Rewards

MARGIN_LOG = "margins.jsonl"
MARGINS = "margins.parquet"
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("occurrence", pa.int32()),
        ("epoch", pa.int32()),
        ("step", pa.int32()),
        ("chosen_reward", pa.float32()),
        ("rejected_reward", pa.float32()),
        ("margin", pa.float32()),
    ]
)
"""Columns of margins.parquet; epochs and steps count from 1."""


class Order(Protocol):
    """What was trained on in which order: a `StepPlan`."""

    examples: Sequence[Example]
    per_step: int
    per_epoch: int
    seed: int


class MarginLog:
    """The log of one training; one writer.

    Args:
        path: the file; made with the first step that has pairs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, examples: Sequence[Example], rewards: Rewards) -> None:
        """Add the line of a step, where it has pairs.

        Args:
            step: counted from 1.
            examples: of the whole step, in its order.
            rewards: of each.
        """
        pairs = step_rewards(examples, rewards)
        if not np.isnan(pairs).all():
            # Single precision is written in the digits that it has.
            rows = [None if np.isnan(row).any() else [float(str(value)) for value in row] for row in pairs]
            append_line(self.path, {"step": step, "rewards": rows}, force=False)

    def sync(self) -> None:
        """Force what was written to the disk: the next checkpoint counts on it."""
        if self.path.is_file():
            sync_file(self.path)


def step_rewards(examples: Sequence[Example], rewards: Rewards) -> np.ndarray:
    """Chosen and rejected reward of every example of a step.

    Args:
        examples: in the order of the step.
        rewards: of each.

    Returns:
        Shape [examples, 2], float32; not a number for what is no pair or has no id.
    """
    found = np.full((len(examples), 2), np.nan, dtype=np.float32)
    for place, (example, own) in enumerate(zip(examples, rewards, strict=True)):
        if _is_pair(example):
            chosen = int(example.targets[1] > example.targets[0])
            found[place] = own[chosen], own[1 - chosen]
    return found


def _is_pair(example: Example) -> bool:
    """Whether one of two sides is the better one, by a name that a map can find it by."""
    return len(example.targets) == 2 and example.targets[0] != example.targets[1] and bool(example.id)


def write_margins(log: MarginLog, plan: Order, steps: int, path: Path, messages: logging.Logger) -> None:
    """The log as a table, whole or not at all; nothing where no pair was trained on.

    Args:
        log: of the training.
        plan: what was trained on; the log names examples by their place in it.
        steps: optimiser steps taken.
        path: of the table.
        messages: gets a warning where steps are missing.
    """
    if not log.path.is_file():
        return
    parts, epoch, order, recorded = [], 0, list[list[int]](), 0
    for line in read_jsonl(log.path):
        past, within = divmod(line["step"] - 1, plan.per_epoch)
        if past + 1 != epoch:
            epoch = past + 1
            order = optimiser_steps(len(plan.examples), plan.per_step, seed=plan.seed, epoch=past)
        examples = [plan.examples[index] for index in order[within]]
        parts.append(_rows(examples, line["rewards"], epoch, line["step"]))
        recorded += 1
    write_parquet(path, pa.concat_tables(parts))
    if recorded < steps and all(map(_is_pair, plan.examples)):
        messages.warning("margins of %d of %d steps were not recorded", steps - recorded, steps)


def _rows(examples: Sequence[Example], rewards: Sequence[list[float] | None], epoch: int, step: int) -> pa.Table:
    pairs = [(one, own) for one, own in zip(examples, rewards, strict=True) if own is not None]
    values = np.array([own for _, own in pairs], dtype=np.float32).reshape(-1, 2)
    columns = {
        "pair_id": [one.id for one, _ in pairs],
        "occurrence": [one.occurrence for one, _ in pairs],
        "epoch": [epoch] * len(pairs),
        "step": [step] * len(pairs),
        "chosen_reward": values[:, 0],
        "rejected_reward": values[:, 1],
        "margin": values[:, 0] - values[:, 1],
    }
    return pa.table(columns, schema=SCHEMA)
