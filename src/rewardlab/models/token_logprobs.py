"""Log-probabilities of tokens from the states that predict them, without the logits of all tokens at once.

What `functional.logprobs.token_log_probabilities` gives for `states @ weight' + bias`, chunk by chunk. Under autograd
logits, their softmax and its logarithm would be kept for every token; here it is the probabilities alone, and where
they are many, nothing: the backward pass computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rewardlab.functional.ppo import entropy

KEPT = 2**25
"""Most probabilities (tokens x vocabulary) that are kept for the backward pass: 64 MiB in bf16."""
CPU_CHUNK, ACCELERATOR_CHUNK = 2**24, 2**28
"""Most logits at once: 64 MiB and 1 GiB in float32. Every chunk adds to a gradient as large as the output layer."""


def product_dtype(weight: Tensor) -> torch.dtype:
    """What products with a weight are taken in: the dtype of autocast where it is on, else the weight's own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def token_log_probabilities(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    temperature: float = 1.0,
    *,
    cast: Tensor | None = None,
) -> Tensor:
    """Log-probability of every token, shape [tokens], in float32 (float64 where the weight is float64).

    Products are taken in the dtype of autocast where it is on, else in that of the weight.

    Args:
        states: what predicts the tokens, shape [tokens, width].
        weight: of the output layer, shape [vocabulary, width].
        bias: of the output layer, shape [vocabulary], or None.
        ids: of the tokens, shape [tokens].
        temperature: divides the logits; above 0.
        cast: the weight's values in `product_dtype`, where they are there already.
    """
    matrix = weight.detach().to(product_dtype(weight)) if cast is None else cast
    with torch.autocast(states.device.type, enabled=False):
        found: Tensor = _TokenLogProbabilities.apply(  # type: ignore[no-untyped-call]  # torch types no apply
            states, weight, bias, ids, temperature, matrix
        )
    return found


def token_entropies(states: Tensor, weight: Tensor, bias: Tensor | None, temperature: float = 1.0) -> Tensor:
    """Entropy of the distribution that each token is drawn from, shape [tokens], in float32 (float64 where the weight
    is float64).

    Chunk by chunk; with a gradient, the backward pass computes the logits of each again.

    Args:
        states: what predicts the tokens, shape [tokens, width].
        weight: of the output layer, shape [vocabulary, width].
        bias: of the output layer, shape [vocabulary], or None.
        temperature: divides the logits; above 0.
    """

    def of(part: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(part, weight, bias)
        return entropy(logits if logits.dtype == torch.float64 else logits.float(), temperature)

    parts = [states[part] for part in chunks(len(states), len(weight), states.device.type)]
    if not torch.is_grad_enabled():
        return torch.cat([of(part) for part in parts])
    return torch.cat([checkpoint(of, part, use_reentrant=False) for part in parts])


class _TokenLogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        temperature: float,
        matrix: Tensor,
    ) -> Tensor:
        dtype = matrix.dtype
        rows = states.to(dtype)
        found = torch.empty(len(ids), dtype=torch.promote_types(dtype, torch.float32), device=states.device)
        is_trained = any(context.needs_input_grad[:3])
        keeps = is_trained and len(ids) * len(weight) <= KEPT
        kept = []
        for part in chunks(len(ids), len(weight), states.device.type):
            log_probabilities = _log_softmax(rows[part], matrix, bias, temperature)
            found[part] = log_probabilities.gather(1, ids[part, None])[:, 0]
            if keeps:
                kept.append(log_probabilities.exp_().to(dtype))
        if is_trained:
            context.save_for_backward(rows, matrix, bias, ids, found, *kept)
            context.temperature = temperature
            context.dtypes = states.dtype, weight.dtype
        return found

    @staticmethod
    def backward(
        context: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        rows, matrix, bias, ids, found, *kept = context.saved_tensors
        wants_states, wants_weight, wants_bias = context.needs_input_grad[:3]
        states_dtype, weight_dtype = context.dtypes
        # d log softmax(z / T)[id] / dz = (1[id] - p) / T
        scaled = gradient / context.temperature
        at_token = -scaled * torch.expm1(found)
        for_states = torch.empty_like(rows) if wants_states else None
        # A weight's gradient is a sum over chunks: taken in float32. It begins with the first chunk, mostly the only
        # one: zeros as large as the vocabulary cost as much as a product.
        for_weight: Tensor | None = None
        for_bias = torch.zeros_like(bias, dtype=found.dtype) if wants_bias and bias is not None else None
        for number, part in enumerate(chunks(len(ids), len(matrix), rows.device.type)):
            if kept:
                for_logits = kept[number] * -scaled[part, None].to(rows.dtype)
            else:
                probabilities = _log_softmax(rows[part], matrix, bias, context.temperature).exp_()
                for_logits = probabilities.mul_(-scaled[part, None]).to(rows.dtype)
            for_logits.scatter_(1, ids[part, None], at_token[part, None].to(rows.dtype))
            if for_states is not None:
                for_states[part] = torch.mm(for_logits, matrix)
            if wants_weight:
                product = torch.mm(for_logits.t(), rows[part])
                for_weight = product.to(found.dtype) if for_weight is None else for_weight.add_(product)
            if for_bias is not None:
                for_bias += for_logits.sum(dim=0, dtype=found.dtype)
        if wants_weight and for_weight is None:
            for_weight = torch.zeros_like(matrix)  # no tokens
        return (
            None if for_states is None else for_states.to(states_dtype),
            None if for_weight is None else for_weight.to(weight_dtype),
            None if for_bias is None or bias is None else for_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _log_softmax(rows: Tensor, matrix: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = torch.mm(rows, matrix.t())
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if bias is not None:
        wide += bias
    return torch.log_softmax(wide / temperature if temperature != 1.0 else wide, dim=1)


def chunks(tokens: int, vocabulary: int, kind: str) -> Iterator[slice]:
    """Parts of so many tokens whose logits may be held at once.

    Args:
        tokens: how many there are.
        vocabulary: logits to a token.
        kind: of the device.
    """
    size = max((CPU_CHUNK if kind == "cpu" else ACCELERATOR_CHUNK) // vocabulary, 1)
    return (slice(start, start + size) for start in range(0, tokens, size))
