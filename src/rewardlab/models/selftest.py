"""Is the shared-prefix layout exact on this backbone? Asked of a two-layer clone, before any work is done.

A backbone that adds position biases of its own (ALiBi), keeps a recurrent state or slides a window shorter than the
rows does not honour the packed stream. Right backbones differ by rounding (seen: below 1e-6 in fp32), wrong ones by
.001 and more.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from rewardlab.data.layout import Group, pad
from rewardlab.models.attention import IMPLEMENTATION, packed_states
from rewardlab.models.seeds import seeded

TOLERANCE = 1e-5
"""Largest difference of final hidden states (which are normed, so of order 1) that still counts as rounding."""

CLONE_VOCABULARY = 64
CLONE_WINDOW = 8
CLONE_WIDTH = 256
GROUP_SIZES = ((9, 5, 7), (0, 6, 3, 4), (12, 1, 14))
"""Tokens of the prefix and of every branch, of the groups that are compared."""
LONGEST_ROW = max(prefix + max(branches) for prefix, *branches in GROUP_SIZES)


class _NotCausalError(Exception):
    """The architecture is not read at the last token: an encoder, or an encoder and decoder."""


def shared_layout_problem(config: PreTrainedConfig, max_tokens: int) -> str:
    """Why the shared layout cannot be used for models of this configuration; empty when it can.

    Args:
        config: of the backbone.
        max_tokens: the longest sequence that will be run.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        difference = _difference(_clone_config(config, max_tokens))
    except _NotCausalError:
        return f"{config.model_type} is not a causal backbone"
    except Exception as error:  # noqa: BLE001  # whatever an unknown architecture raises, the answer is the flat layout
        return f"{config.model_type} cannot run it ({type(error).__name__}: {str(error)[:200]})"
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not difference <= TOLERANCE:
        return f"{config.model_type} gives other rewards in it (by {difference:.1e}, tolerance {TOLERANCE:.0e})"
    return ""


def _clone_config(config: PreTrainedConfig, max_tokens: int) -> PreTrainedConfig:
    """The same architecture with two layers, a small vocabulary and a window of 8 tokens where a window matters."""
    clone = copy.deepcopy(config)
    layer_types = getattr(config, "layer_types", None)
    if layer_types:
        # One layer of every kind, so that a rare kind is tested too.
        kinds = list(dict.fromkeys(layer_types))
        clone.layer_types = kinds if len(kinds) > 1 else kinds * 2
        clone.num_hidden_layers = len(clone.layer_types)
    else:
        clone.num_hidden_layers = min(2, config.num_hidden_layers)
    clone.vocab_size = CLONE_VOCABULARY
    clone.pad_token_id = 0
    clone.bos_token_id = clone.eos_token_id = None
    clone.num_labels = 1
    window = getattr(config, "sliding_window", None)
    if window is not None:
        clone.sliding_window = CLONE_WINDOW if window < max_tokens else max(window, LONGEST_ROW)
    _narrow(clone)
    for name in vars(clone):
        if name.endswith(("pdrop", "dropout")) and isinstance(getattr(clone, name), float):
            setattr(clone, name, 0.0)
    return clone


def _narrow(clone: PreTrainedConfig) -> None:
    """Wide models are narrowed, so that the test takes a second: width changes no mechanism of attention."""
    heads = getattr(clone, "num_attention_heads", None)
    sizes = ("hidden_size", "intermediate_size", "num_key_value_heads", "head_dim")
    if heads is None or clone.hidden_size <= CLONE_WIDTH or any(not hasattr(clone, size) for size in sizes):
        return
    clone.num_key_value_heads = max(1, 4 * clone.num_key_value_heads // heads)
    clone.num_attention_heads = 4
    clone.hidden_size = CLONE_WIDTH
    clone.intermediate_size = 2 * CLONE_WIDTH
    clone.head_dim = CLONE_WIDTH // 4


def _difference(config: PreTrainedConfig) -> float:
    """Largest difference between packed and flat hidden states at the read positions."""
    generator = torch.Generator().manual_seed(0)
    groups = [_random_group(generator, *sizes) for sizes in GROUP_SIZES]
    with seeded(0), torch.inference_mode():
        model: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
        if "score" not in dict(model.named_children()):
            raise _NotCausalError
        # Before ours is set: the truth is the attention that the architecture comes with, extra terms included.
        truth = _flat_states(model, groups)
        model.set_attn_implementation(IMPLEMENTATION)
        return (packed_states(model, groups) - truth).abs().max().item()


def _random_group(generator: torch.Generator, prefix: int, *branches: int) -> Group:
    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, CLONE_VOCABULARY, (count,), generator=generator).tolist())

    return Group(ids(prefix), tuple(ids(length) for length in branches))


def _flat_states(model: Any, groups: list[Group]) -> torch.Tensor:
    """Every sequence alone, with no mask, no position ids and no padding: the plainest use of the model there is."""
    states = []
    for group in groups:
        for sequence in group.sequences():
            padded = pad([Group((), (sequence,))], 0)
            hidden = model.base_model(input_ids=torch.from_numpy(padded.ids), use_cache=False).last_hidden_state
            states.append(hidden[0, -1])
    return torch.stack(states)
