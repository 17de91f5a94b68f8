"""Backbones that a readout of ours reads: what kind one is, what fits it, and how readout and backbone lie on the disk.

Beside the files of the backbone (`config.json`, `model.safetensors`) a folder has `readout.safetensors`; which readout
that is stands in `rewardlab.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from rewardlab.errors import ConfigError, ModelError, Problem
from rewardlab.models.readouts import READS, AnyReadout, Backbone, Readout, build_readout

READOUT_WEIGHTS = "readout.safetensors"
_SHOWN = 4


def backbone_kind(config: PreTrainedConfig) -> Backbone:
    """What kind of backbone a configuration describes: its classifier says what it reads."""
    # The folder of an encoder alone says that it is no encoder-decoder, while the network made for it has both.
    if config.is_encoder_decoder or config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return "encoder-decoder"
    with torch.device("meta"):
        classifier: Any = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    return "causal" if "score" in dict(classifier.named_children()) else "encoder"


def check_readout(readout: Readout, config: PreTrainedConfig) -> Backbone:
    """The kind of backbone, where the readout is defined on it.

    Raises:
        ConfigError: it is not, or reads more layers than there are, or layers of different widths.
    """
    kind = backbone_kind(config)
    reads = READS[readout.name]
    problems = []
    if reads.of_decoder and kind != "encoder-decoder":
        fitting = [name for name, other in READS.items() if not other.of_decoder]
        found = f"{readout.name} on {config.model_type}, which is {_KINDS[kind]}"
        problems.append(
            Problem("model.readout", found, "an encoder-decoder such as T5", f"Choose one of {', '.join(fitting)}.")
        )
    elif reads.several_layers:
        inner, last = state_widths(config)
        if readout.layers > 1 and inner != last:
            found = (
                f"{readout.name} on {config.model_type} with states of {inner} numbers, and {last} in the last layer"
            )
            remedy = "Use --model.readout.layers 1, or a readout of the last layer: mean."
            problems.append(Problem("model.readout", found, "one width in all layers that are read", remedy))
        there = state_count(config, of_decoder=reads.of_decoder)
        if readout.layers > there:
            expected = f"at most {there}: the embeddings and {there - 1} layers"
            problem = Problem(
                "model.readout.layers", str(readout.layers), expected, f"Use --model.readout.layers {there}."
            )
            problems.append(problem)
    if problems:
        raise ConfigError("The readout does not fit the backbone", problems)
    return kind


_KINDS = {"causal": "a causal model", "encoder": "an encoder", "encoder-decoder": "an encoder-decoder"}


def name_decoder_start(config: PreTrainedConfig) -> None:
    """Say which token a decoder begins with, where the configuration of an encoder-decoder does not: 0, as T5."""
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0


def state_count(config: PreTrainedConfig, *, of_decoder: bool) -> int:
    """Hidden states of a token: one per layer, and the embeddings."""
    names = ("num_decoder_layers", "decoder_layers") if of_decoder else ()
    counts = [getattr(config, name, None) for name in (*names, "num_hidden_layers")]
    return 1 + next(int(count) for count in counts if count is not None)


def state_widths(config: PreTrainedConfig) -> tuple[int, int]:
    """Width of the hidden states, and of the last ones, which some OPT models project to that of their embeddings."""
    inner: int = config.hidden_size
    last: int = getattr(config, "word_embed_proj_dim", None) or inner
    return inner, last


def unread_weights(network: Any, readout: Readout, backbone: Backbone) -> set[str]:
    """Names of the weights that the readout's states do not depend on: poolers, and a decoder that is not run."""
    unread = {name for name, _ in network.named_parameters() if "pooler" in name.split(".")}
    if backbone == "encoder-decoder" and not READS[readout.name].of_decoder:
        read = {id(weight) for weight in network.get_encoder().parameters()}
        ours = {id(weight) for weight in network.get_decoder().parameters()} - read
        unread |= {name for name, weight in network.named_parameters() if id(weight) in ours}
    return unread


def check_backbone(path: str, network: Any, missing: Mapping[str, str], readout: Readout) -> None:
    """All weights that a readout's states depend on are there.

    Args:
        path: of the checkpoint, for messages.
        network: made from it.
        missing: names of the network's weights that it does not have, and how to print each.
        readout: what reads the network.

    Raises:
        ModelError: some are not.
    """
    unread = unread_weights(network, readout, backbone_kind(network.config))
    read = [text for key, text in sorted(missing.items()) if key not in unread]
    if read:
        more = f" and {len(read) - _SHOWN} more" if len(read) > _SHOWN else ""
        found = f"no weights for {', '.join(read[:_SHOWN])}{more}"
        problem = Problem(path, found, "every weight of the backbone that is read", "Is it truncated?")
        raise ModelError("The model cannot be used as a reward model", [problem])


def refuse_choice(path: str, label: int | str | None, output: str | None) -> None:
    """A readout gives one number.

    Raises:
        ModelError: a choice among several.
    """
    given = {"label": label, "output": output}
    expected = f"nothing: the readout of {path} gives one number"
    problems = [Problem(name, repr(value), expected) for name, value in given.items() if value is not None]
    if problems:
        raise ModelError("The model does not say which number is the reward", problems)


def fresh_readout(readout: Readout, network: Any) -> AnyReadout:
    """A readout for a backbone, with weights drawn from torch's generator."""
    return build_readout(readout, state_widths(network.config)[1], backbone_kind(network.config))


def save_readout(readout: AnyReadout, folder: Path) -> None:
    """Write the readout's weights into a folder."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in readout.state_dict().items()}
    save_file(weights, folder / READOUT_WEIGHTS)


def read_readout(file: Path | None, path: str, config: Readout, width: int, backbone: Backbone) -> AnyReadout:
    """A saved readout, in float32.

    Args:
        file: its weights; None where there is no such file.
        path: of the model, for messages.
        config: the readout.
        width: of the hidden states.
        backbone: what kind of network they are of.

    Raises:
        ModelError: no file, an unreadable one, or weights of another readout.
    """
    readout = build_readout(config, width, backbone)
    expected = f"the weights of the readout {config.name}"
    if file is None:
        raise ModelError("The readout cannot be loaded", [Problem(path, f"no {READOUT_WEIGHTS}", expected)])
    try:
        readout.load_state_dict(load_file(file))
    except Exception as error:  # safetensors raises errors of its own, torch a RuntimeError with every name
        found = " ".join(str(error).split())[:300]
        raise ModelError("The readout cannot be loaded", [Problem(str(file), found, expected)]) from error
    return readout
