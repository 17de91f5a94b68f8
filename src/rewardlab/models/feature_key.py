"""What cached hidden states depend on besides their sequences: two models with the same facts have the same states.

The weights count themselves, whatever folder or hub id they came from; so do the configuration, what is read of the
network and how it is computed, our code and the libraries.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rewardlab.models.backbones import unread_weights
from rewardlab.models.readouts import LAST, READS
from rewardlab.models.reward import RewardModel
from rewardlab.store.keys import code_key, path_digest

UNRELATED = ("_name_or_path", "architectures", "id2label", "label2id", "problem_type", "dtype")
"""Of a network's configuration what says nothing about its states; the weights say their dtype themselves."""

FeatureDtype = Literal["float32", "bfloat16", "float16"]


def feature_facts(model: RewardModel, dtype: FeatureDtype, precision: str) -> dict[str, Any]:
    """Everything that cached states depend on besides their sequences; JSON values.

    Args:
        model: its weights without a gradient are the backbone's.
        dtype: of the stored states.
        precision: of the products.
    """
    network: Any = model.plain_network
    readout = model.readout.config if model.readout else LAST
    config = {name: value for name, value in network.config.to_dict().items() if name not in UNRELATED}
    return {
        "weights": _weights_digest(model),
        "network": code_of(network),
        # Some hold an infinity, which is no JSON.
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "readout": readout.name,
        "layers": readout.layers if READS[readout.name].several_layers else 1,
        "layout": model.layout,
        "precision": precision,
        "dtype": dtype,
        "code": code_key(__name__),
        # Builds of one version for several devices differ in rounding alone.
        "packages": {name: version(name).partition("+")[0] for name in ("torch", "transformers")},
    }


def code_of(network: Any) -> str:
    """The network's class by its name, or where it came with a checkpoint, by the code in its folder."""
    kind = type(network)
    own = kind.__module__.startswith("transformers_modules.")
    return f"{kind.__name__} {path_digest(Path(inspect.getfile(kind)).parent)}" if own else kind.__name__


def _weights_digest(model: RewardModel) -> str:
    """Hex sha256 of all frozen weights that are read and of all buffers, names included."""
    readout = model.readout
    # A pooler that the checkpoint lacks is drawn anew with every seed.
    unread = unread_weights(model.plain_network, readout.config, readout.backbone) if readout else set()
    frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
    frozen = {name: weight for name, weight in frozen.items() if name.removeprefix("network.") not in unread}
    return tensors_digest(frozen | dict(model.named_buffers()))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 of tensors, with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{content.dtype}\0{list(content.shape)}\0".encode())
        digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
