"""Attention over a packed stream of groups with shared prefixes: the tensor side of `data.layout`.

Registered with transformers as the attention implementation `rewardlab_packed`. A forward pass that hands over a
`PackedAttention` (as the keyword `packed`) attends within groups; any other pass runs transformers' own sdpa, so one
model serves both layouts.

Per group there is one causal call over prefix and first branch, which lie next to each other, and one call per
further branch, whose queries see the prefix and their own branch. No mask over the whole stream is ever built.

On CPUs torch's fused kernel spends most of its time outside the matrix products at the lengths of preference data
(20 to 1,000 tokens); plain products with a saved softmax are about three times as fast there, forward and backward.
Longer rows and other devices use the fused kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewardlab.data.layout import Segment

IMPLEMENTATION = "rewardlab_packed"
MATRIX_ATTENTION_LIMIT = 2**23
"""Largest score matrix (heads x queries x keys) that is kept for the backward pass: 16 MiB in bf16."""
EXTRA_TERMS = ("softcap", "s_aux", "sinks", "position_bias")
"""What some architectures add to softmax(scale q k' + mask) v; the packed layout does not know them."""


class PackedAttention:
    """The groups of one packed stream, with the masks that their branches need.

    Args:
        segments: where each group lies.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self._masks: dict[tuple[int, int], Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention output of tensors of shape [1, heads, tokens, dim]; same shape."""
        outputs = []
        for segment in self.segments:
            end = segment.start + segment.prefix + segment.branches[0]
            own = slice(segment.start, end)
            outputs.append(self._causal(query[:, :, own], key[:, :, own], value[:, :, own], 0, scale))
            shared = slice(segment.start, segment.start + segment.prefix)
            for length in segment.branches[1:]:
                own = slice(end, end + length)
                keys = torch.cat((key[:, :, shared], key[:, :, own]), dim=2)
                values = torch.cat((value[:, :, shared], value[:, :, own]), dim=2)
                outputs.append(self._causal(query[:, :, own], keys, values, segment.prefix, scale))
                end += length
        return torch.cat(outputs, dim=2)

    def _causal(self, query: Tensor, key: Tensor, value: Tensor, prefix: int, scale: float) -> Tensor:
        """Queries that stand after `prefix` keys: each sees the prefix and the keys up to itself."""
        length = query.shape[2]
        scores = query.shape[1] * length * key.shape[2]
        if query.device.type == "cpu" and scores <= MATRIX_ATTENTION_LIMIT:
            output: Tensor = _MatrixAttention.apply(  # type: ignore[no-untyped-call]  # torch types no apply
                query, key, value, self._mask(prefix, length, query), scale
            )
            return output
        if prefix == 0:
            return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        return scaled_dot_product_attention(query, key, value, attn_mask=self._mask(prefix, length, query), scale=scale)

    def _mask(self, prefix: int, length: int, query: Tensor) -> Tensor:
        """Additive mask, shape [length, prefix + length]; made once for all layers."""
        if (prefix, length) not in self._masks:
            mask = torch.full((length, prefix + length), float("-inf"), dtype=query.dtype, device=query.device)
            self._masks[prefix, length] = mask.triu_(prefix + 1)
        return self._masks[prefix, length]


class _MatrixAttention(torch.autograd.Function):
    """softmax(scale q k' + mask) v by matrix products, the probabilities kept for the backward pass."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale).add_(mask)
        probabilities = torch.softmax(scores, dim=-1)
        context.save_for_backward(query, key, value, probabilities)
        context.scale = scale
        return torch.matmul(probabilities, value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, probabilities = context.saved_tensors
        for_value = torch.matmul(probabilities.transpose(-1, -2), gradient)
        for_probabilities = torch.matmul(gradient, value.transpose(-1, -2))
        for_scores = torch._softmax_backward_data(for_probabilities, probabilities, -1, probabilities.dtype)
        for_scores.mul_(context.scale)
        for_query = torch.matmul(for_scores, key)
        for_key = torch.matmul(for_scores.transpose(-1, -2), query)
        return for_query, for_key, for_value, None, None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: PackedAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: packed where `packed` is given, else its sdpa.

    The packed layout has no dropout: one mask in a shared prefix would serve all branches, which is not the flat
    distribution.

    Raises:
        ValueError: the architecture asks for a term that is not part of plain attention.
    """
    if packed is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    # Under autocast projections are bf16 and rotary positions turn queries and keys back into float32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    extra = [name for name in EXTRA_TERMS if kwargs.get(name) is not None]
    if extra:
        raise ValueError(f"attention with {', '.join(extra)} is not plain softmax attention")
    # Norms of queries and keys (Qwen3) hand over float32 under autocast; products are in the dtype of the values.
    query, key = query.to(value.dtype), key.to(value.dtype)
    repeats = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packed.attend(query, key, value, scale).transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
