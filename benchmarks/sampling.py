"""Sampling N answers a prompt at skewed lengths: plain batched `generate` of transformers, and ours, in turns.

Lengths are drawn once from a log-normal distribution, a row each, and both sides end each row at its length, so that
both make the same tokens: theirs by a stopping criterion that says of every row whether it has ended, as its own
criterion of an end token does; ours by the row's own limit. Both draw at temperature 1. Theirs gets each prompt N times
(`num_return_sequences`), prompts of like length together. A part of `python -m benchmarks`, and alone with other sizes:

    python -m benchmarks.sampling --rounds 5
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.report import OURS, page
from benchmarks.results import made
from benchmarks.setting import Sizes, Worker

Shape = tuple[int, int, int, int]
N = 8
ROWS = (16, 32, 64)
PAD = 0
CACHE_BLOCKS = 64
"""Of the cache of continuous batching, 256 tokens each."""


@lru_cache(1)
def network_of(shape: Shape, vocabulary: int, precision: str) -> Any:
    """A Llama with random weights: hidden, inner, layers, heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inner, layers, heads = shape
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        pad_token_id=PAD,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).to(getattr(torch, precision)).eval()


def work_of(prompts: int, longest: int, vocabulary: int, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of 16 to 128 tokens, and N lengths of answers to each: median 48, a tenth of 173 or more, cut off."""
    import numpy as np

    generator = np.random.default_rng(seed)
    ids = [generator.integers(4, vocabulary, size).tolist() for size in generator.integers(16, 129, prompts)]
    lengths = np.exp(generator.normal(np.log(48), 1.0, (prompts, N))).round().clip(1, longest).astype(int)
    return ids, lengths.tolist()


def theirs(network: Any, ids: list[list[int]], lengths: list[list[int]], rows: int) -> int:
    """Tokens made by `generate`, prompts of like length together, `rows` answers to a batch."""
    import torch
    from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

    class AtLength(StoppingCriteria):  # type: ignore[misc]
        def __init__(self, ends: torch.Tensor) -> None:
            self.ends = ends

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
            return input_ids.shape[1] >= self.ends

    made = 0
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    for start in range(0, len(order), rows // N):
        own = order[start : start + rows // N]
        width = max(len(ids[number]) for number in own)
        padded = torch.tensor([[PAD] * (width - len(ids[number])) + ids[number] for number in own])
        mask = torch.tensor([[0] * (width - len(ids[number])) + [1] * len(ids[number]) for number in own])
        limits = [length for number in own for length in lengths[number]]
        settings = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=max(limits), num_return_sequences=N, pad_token_id=PAD
        )
        criteria = StoppingCriteriaList([AtLength(torch.tensor(limits) + width)])
        found = network.generate(padded, attention_mask=mask, generation_config=settings, stopping_criteria=criteria)
        for row, limit in zip(found[:, width:].tolist(), limits, strict=True):
            made += len(row[:limit])
    return made


def continuous(network: Any, ids: list[list[int]], lengths: list[list[int]], rows: int) -> int:  # noqa: ARG001
    """Tokens made by the continuous batching of transformers, which forms its batches itself."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    settings = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, temperature=1.0, pad_token_id=PAD, eos_token_id=-1)
    # Its own choice, most of the memory that is free, makes it many times slower on a CPU.
    batching = ContinuousBatchingConfig(num_blocks=CACHE_BLOCKS, max_batch_tokens=512)
    waiting = made = 0
    with network.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=batching, block=True, timeout=5
    ) as manager:
        for prompt, own in zip(ids, lengths, strict=True):
            for length in own:
                manager.add_request(prompt, max_new_tokens=length)
                waiting += 1
        while waiting and manager.is_running():
            result = manager.get_result(timeout=5)
            if result is not None and result.is_finished():
                made, waiting = made + len(result.generated_tokens), waiting - 1
    return made


def ours(network: Any, ids: list[list[int]], lengths: list[list[int]], rows: int) -> int:
    """Tokens made by `models/generate.py`, `rows` answers at once."""
    from rewardlab.models.decoding import Decoding
    from rewardlab.models.generate import Asked, generate

    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    asked = [Asked(tuple(ids[n]), length, n * N + k) for n in order for k, length in enumerate(lengths[n])]
    return sum(len(one.ids) for one in generate(network, asked, Decoding(), ends=(), pad=PAD, places=rows))


SIDES: dict[str, Callable[..., int]] = {"generate": theirs, OURS: ours, "continuous batching": continuous}


def rate(
    side: str, shape: Shape, vocabulary: int, precision: str, ids: list[list[int]], lengths: list[list[int]], rows: int
) -> float:
    """Tokens a second of one side, all of which it has to make."""
    from rewardlab.models.memory import keep_freed_memory

    if side == OURS:
        keep_freed_memory()
    network = network_of(shape, vocabulary, precision)
    began = time.perf_counter()
    made = SIDES[side](network, ids, lengths, rows)
    seconds = time.perf_counter() - began
    if made != sum(map(sum, lengths)):
        raise AssertionError(f"{side} made {made} tokens, not {sum(map(sum, lengths))}")
    return made / seconds


def run(
    sizes: Sizes,
    repeats: int,
    peer: Worker,
    own: Worker,
    *,
    rows: Sequence[int] = ROWS,
    precision: str = "float32",
    sides: Sequence[str] = ("generate",),
) -> dict[str, Any]:
    """Tokens a second of both sides at every number of rows, in every round.

    Args:
        sizes: shape and vocabulary of the model, prompts and longest answers.
        repeats: rounds.
        peer: the process of `generate`.
        own: ours.
        rows: answers at once, a setting each.
        precision: dtype of the weights.
        sides: of the peer.
    """
    rounds = []
    for number in range(repeats):
        ids, lengths = work_of(sizes.prompts, sizes.longest, sizes.vocabulary, number)
        work = (sizes.shape, sizes.vocabulary, precision, ids, lengths)
        rates = {}
        for count in rows:
            for side in (*sides, OURS):
                rates[f"{side} {count}"] = (own if side == OURS else peer)(rate, side, *work, count)
                print(f"round {number}, {side} {count}: {rates[f'{side} {count}']:.1f} tokens/s", file=sys.stderr)
        rounds.append(rates)
    return {"prompts": sizes.prompts, "longest": sizes.longest, "answers": N, "rows": list(rows), "rounds": rounds}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--prompts", type=int, default=16, help=f"prompts a round, {N} answers each (default: 16)")
    parser.add_argument("--longest", type=int, default=256, help="tokens of an answer, at most (default: 256)")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="rows at once, a setting each")
    parser.add_argument("--shape", type=int, nargs=4, default=(512, 1376, 8, 8), help="hidden, inner, layers, heads")
    parser.add_argument("--vocabulary", type=int, default=16_000)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--continuous", action="store_true", help="also continuous batching of transformers")
    options = parser.parse_args()
    shape = tuple(options.shape)
    sizes = Sizes(shape=shape, vocabulary=options.vocabulary, prompts=options.prompts, longest=options.longest)
    sides = ("generate", *(["continuous batching"] if options.continuous else []))
    with tempfile.TemporaryDirectory() as temporary:
        peer, own = (Worker(Path(temporary) / f"{name}.log") for name in ("peer", "own"))
        try:
            part = run(sizes, options.rounds, peer, own, rows=options.rows, precision=options.precision, sides=sides)
        finally:
            peer.close()
            own.close()
    part["made"] = made("benchmarks.sampling", ("torch", "transformers"))
    print(page({"parts": {"sampling": part}}))


if __name__ == "__main__":
    main()
