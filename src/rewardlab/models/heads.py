"""Reward heads as other libraries write them, and which of a classifier's outputs is the reward.

A causal language model's checkpoint may carry the head of a reward or value model under names of its own:

    v_head.summary.weight, .bias   TRL's AutoModelForCausalLMWithValueHead, in `model.safetensors`; LLaMA-Factory, in
                                   `value_head.safetensors` beside the weights or the adapter
    value_head.weight              OpenRLHF, in `model.safetensors` (later versions call it `score`, as transformers do)
    score.weight                   of several outputs, where the configuration does not say that it is a classifier

All of them are one linear map of the last hidden state. Only safetensors are read: a `.bin` is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from rewardlab.errors import InputError, ModelError, Problem
from rewardlab.store.files import read_json

HEADS = ("v_head.summary", "value_head")
OPENRLHF_HEAD = "value_head.weight"
SCORE = "score.weight"
HEAD_FILE = "value_head.safetensors"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("value_head.bin", "pytorch_model.bin", "pytorch_model.bin.index.json")
CONVERT = (
    "Convert it once, where you trust it: torch.load(FILE, weights_only=True), then safetensors.torch.save_file to "
    f"{HEAD_FILE} (the head) or {WEIGHTS} (all weights)."
)

FileOf = Callable[[str], Path | None]
"""Where a file of a folder or hub id lies; None where there is no such file."""


class ValueHead(NamedTuple):
    """A linear head.

    Attributes:
        names: of its weights in the checkpoint.
        weight: shape [outputs, hidden].
        bias: shape [outputs], or None.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor | None

    def module(self, dtype: torch.dtype | None) -> torch.nn.Linear:
        """The head as a module; in its own precision where no dtype is given."""
        outputs, width = self.weight.shape
        head = torch.nn.Linear(width, outputs, bias=self.bias is not None, dtype=dtype or self.weight.dtype)
        with torch.no_grad():
            head.weight.copy_(self.weight)
            if self.bias is not None:
                head.bias.copy_(self.bias)
        return head


def read_value_head(file_of: FileOf, width: int) -> ValueHead | None:
    """The first head of `HEADS` among the safetensors of a checkpoint; None where there is none.

    Args:
        file_of: finds its files.
        width: of the hidden states that the head has to read.

    Raises:
        ModelError: the head is unreadable or of another shape.
    """
    places = _places(file_of)
    for head in HEADS:
        names = tuple(name for name in (f"{head}.weight", f"{head}.bias") if name in places)
        if f"{head}.weight" in names:
            tensors = [_tensor(places[name], name) for name in names]
            found = ValueHead(names, tensors[0], tensors[1] if len(tensors) > 1 else None)
            _check_shape(found, places[names[0]], width)
            return found
    return None


def stored_outputs(file_of: FileOf) -> int:
    """Rows of the `score` of a checkpoint that does not say it is a classifier; 1 where it has none.

    Raises:
        ModelError: unreadable files.
    """
    file = _places(file_of).get(SCORE)
    if file is None:
        return 1
    with safe_open(file, "pt") as stored:
        shape = stored.get_slice(SCORE).get_shape()
    return int(shape[0]) if len(shape) == 2 and shape[0] > 0 else 1


def pickled_head(file_of: FileOf) -> str | None:
    """The name of a pickle that may hold the head; None where there is none."""
    return next((name for name in PICKLES if file_of(name) is not None), None)


def label_index(path: str, config: Any, label: int | str | None) -> tuple[int, Problem | None]:
    """The output of a classifier that is the reward, and what is wrong with the choice.

    Args:
        path: of the model, for messages.
        config: its configuration.
        label: an index or a name of `id2label` (a text counts as a name first); None where there is one output only.
    """
    names = {int(index): str(name) for index, name in config.id2label.items()}
    listed = ", ".join(f"{index} ({name})" for index, name in sorted(names.items()))
    if label is None:
        if len(names) == 1:
            return 0, None
        found = f"{len(names)} labels: {listed}"
        return 0, Problem(path, found, "one label, or which of them is the reward", "Choose with --label.")
    matches = [index for index, name in names.items() if name == label]
    if not matches and (isinstance(label, int) or label.isdecimal()) and int(label) in names:
        matches = [int(label)]
    if len(matches) == 1:
        return matches[0], None
    return 0, Problem("label", repr(label), f"an index or a name of {path}: {listed}")


def _places(file_of: FileOf) -> dict[str, Path]:
    """Which file holds each weight that a checkpoint has in safetensors."""
    files = [file for file in (file_of(WEIGHTS), file_of(HEAD_FILE)) if file is not None]
    index = file_of(INDEX)
    shards: dict[str, Path] = {}
    if index is not None:
        try:
            named = read_json(index)["weight_map"]
            wanted = {name: shard for name, shard in named.items() if name.startswith((*HEADS, SCORE))}
        except (InputError, LookupError, TypeError, AttributeError) as error:
            raise _unreadable(index, "no weight_map") from error
        found = {name: file_of(str(shard)) for name, shard in wanted.items()}
        shards = {name: file for name, file in found.items() if file is not None}
    return shards | {name: file for file in files for name in _names(file)}


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, "pt") as stored:
            return list(stored.keys())
    except Exception as error:  # safetensors raises errors of its own
        raise _unreadable(file, str(error)[:200]) from error


def _tensor(file: Path, name: str) -> Tensor:
    try:
        with safe_open(file, "pt") as stored:
            tensor: Tensor = stored.get_tensor(name)
    except Exception as error:
        raise _unreadable(file, str(error)[:200]) from error
    return tensor


def _check_shape(head: ValueHead, file: Path, width: int) -> None:
    rows = head.weight.shape[0] if head.weight.ndim else 0
    shapes = {"weight": head.weight.shape} | ({} if head.bias is None else {"bias": head.bias.shape})
    if rows == 0 or shapes != {"weight": (rows, width)} | ({} if head.bias is None else {"bias": (rows,)}):
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        problem = Problem(f"{file}, {head.names[0]}", found, f"weight [outputs, {width}] and, if any, bias [outputs]")
        raise ModelError("The reward head does not fit the model", [problem])


def _unreadable(file: Path, found: str) -> ModelError:
    return ModelError("The reward head cannot be read", [Problem(str(file), found, "safetensors with the head")])
