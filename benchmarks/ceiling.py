"""The machine's ceiling: the bare matrix products of the model, at its own shapes and in a precision.

    forward    X W'  for every weight of a layer
    backward   G W   and  G' X  for every weight of a layer

with X [tokens, in], G [tokens, out], W [out, in]. Operations are 2 x tokens x in x out a product; the weights of a
layer follow each other as they occur, so the rate is weighted as the model weights it.
"""

from __future__ import annotations

import statistics
import time

import torch

PASSES = 45


def measure(shape: tuple[int, int, int, int], tokens: int, *, backward: bool, precision: str = "bfloat16") -> float:
    """GFLOP/s over the products of one layer, the median of `PASSES` passes.

    Args:
        shape: hidden, inner, layers, heads.
        tokens: of a micro-batch.
        backward: with the products of the backward pass.
        precision: a dtype of torch.
    """
    hidden, inner, _, _ = shape
    sizes = [(hidden, hidden)] * 4 + [(inner, hidden)] * 2 + [(hidden, inner)]
    dtype = getattr(torch, precision)
    layer = [_operands(out, into, tokens, dtype) for out, into in sizes]
    seconds = []
    for _ in range(PASSES + 2):
        began = time.perf_counter()
        for inputs, gradients, weight, results in layer:
            torch.mm(inputs, weight.T, out=results[0])
            if backward:
                torch.mm(gradients, weight, out=results[1])
                torch.mm(gradients.T, inputs, out=results[2])
        seconds.append(time.perf_counter() - began)
    products = 3 if backward else 1
    operations = 2 * tokens * sum(out * into for out, into in sizes) * products
    return operations / statistics.median(seconds[2:]) / 1e9


def _operands(
    out: int, into: int, tokens: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs, gradients, weight = (
        torch.randn(*size, generator=generator).to(dtype) for size in ((tokens, into), (tokens, out), (out, into))
    )
    # Results are made once: the ceiling is about products, not about memory.
    return inputs, gradients, weight, [torch.empty_like(like) for like in (gradients, inputs, weight)]
