"""Backbones in 8 or 4 bits: a configuration that is passed through to transformers, and the way back to plain weights.

Quantised weights are not trained: low-rank adapters are, beside them (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import AutoQuantizationConfig

from rewardlab.errors import ConfigError, MissingExtraError, ModelError, Problem
from rewardlab.models.adapters import import_peft

Quantisation = Literal["8bit", "4bit"] | dict[str, Any]
"""A short name, or the fields of a configuration of transformers: `{"load_in_4bit": true, ...}`, of methods other than
bitsandbytes with their `quant_method`."""

SHORT_NAMES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "8bit": {"load_in_8bit": True},
        # As published with QLoRA.
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
        },
    }
)
REMEDY = "Does this machine have what the method needs? bitsandbytes needs a GPU, or a recent CPU version."


def loading_options(given: Quantisation | None) -> dict[str, Any]:
    """Further arguments of `from_pretrained`.

    Raises:
        ConfigError: fields that transformers does not know.
        MissingExtraError: bitsandbytes is not installed.
    """
    if given is None:
        return {}
    fields = dict(SHORT_NAMES[given] if isinstance(given, str) else given)
    if fields.get("load_in_8bit") or fields.get("load_in_4bit"):
        _import_bitsandbytes()
    try:
        config = AutoQuantizationConfig.from_dict(dict(fields))
    except Exception as error:  # transformers and the packages below raise many kinds
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        expected = "8bit, 4bit, or fields of a quantisation configuration of transformers"
        raise ConfigError("The model cannot be quantised", [Problem("quantisation", found, expected)]) from error
    known = config.to_dict()
    problems = [
        Problem(f"quantisation.{name}", "an unknown field", ", ".join(known)) for name in fields if name not in known
    ]
    if problems:
        raise ConfigError("The model cannot be quantised", problems)
    return {"quantization_config": config}


def quantised_by(network: Any) -> dict[str, Any] | None:
    """What a network's weights were quantised by, as transformers says it; None where they were not."""
    config: Any = getattr(network.config, "quantization_config", None)
    return config if config is None or isinstance(config, dict) else config.to_dict()


def _import_bitsandbytes() -> None:
    """Load the package now, with the warnings of what it imports left aside, and those that come with every product.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "quantisation", "Quantisation to 8 or 4 bits") from error
    # In 8 bits: that inputs are cast to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def prepare_training(path: str, network: Any) -> None:
    """Make sure that adapters beside quantised weights get their gradients, and the weights can be made plain again.

    Raises:
        ModelError: they are stored the other way round, which no way back takes into account.
    """
    turned = [name for name, part in network.named_modules() if getattr(part, "source_cls", None) is Conv1D]
    if turned:
        found = f"{type(network).__name__}, which keeps its weights the other way round ({turned[0]})"
        raise ModelError(
            "The model cannot be trained in few bits",
            [Problem(path, found, "linear layers", "Train it with lora alone.")],
        )
    for part in network.modules():
        if type(part).__name__ == "Linear4bit":
            # On some CPUs an evaluation packs the weights in another way for good, through which no gradient passes
            # when training goes on (seen in bitsandbytes 0.50).
            part.support_avx512bf16_for_cpu = False


@torch.no_grad()
def plain_network(network: Any) -> Any:
    """The network of a trained PEFT model with quantised weights: these in float32, its adapters merged into them.

    The network given is used up. What the plain one gives differs from it by the rounding of its products: bf16 in 4
    bits, activations of 8 bits in 8.
    """
    peft = import_peft("Training with LoRA")
    layers = dict(network.get_base_model().named_modules())
    changes = {
        name: layer.get_delta_weight("default").float()
        for name, layer in layers.items()
        if isinstance(layer, peft.tuners.lora.LoraLayer)
    }
    plain = network.unload().dequantize(torch.float32)
    for name, change in changes.items():
        weight = plain.get_submodule(name).weight
        weight.add_(change.to(weight.device))
    return plain.float().requires_grad_(True)
