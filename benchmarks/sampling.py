"""Sampling N answers a prompt at skewed lengths: plain batched `generate` of transformers, and ours, in turns.

Lengths are drawn once from a log-normal distribution, a row each, and both sides end each row at its length, so that
both make the same tokens: theirs by a stopping criterion that says of every row whether it has ended, as its own
criterion of an end token does; ours by the row's own limit. Both draw at temperature 1. Theirs gets each prompt N times
(`num_return_sequences`), prompts of like length together.

    python -m benchmarks.sampling --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

N = 8
PAD = 0
CACHE_BLOCKS = 64
"""Of the cache of continuous batching, 256 tokens each."""


def network_of(shape: tuple[int, int, int, int], vocabulary: int, precision: str) -> Any:
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


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--prompts", type=int, default=16, help=f"prompts a round, {N} answers each (default: 16)")
    parser.add_argument("--longest", type=int, default=256, help="tokens of an answer, at most (default: 256)")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 32, 64], help="rows at once, a setting each")
    parser.add_argument("--shape", type=int, nargs=4, default=(512, 1376, 8, 8), help="hidden, inner, layers, heads")
    parser.add_argument("--vocabulary", type=int, default=16_000)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--continuous", action="store_true", help="also continuous batching of transformers")
    options = parser.parse_args()
    from rewardlab.models.memory import keep_freed_memory

    keep_freed_memory()
    network = network_of(tuple(options.shape), options.vocabulary, options.precision)
    sides = {
        f"{name} {rows}": (side, rows)
        for rows in options.rows
        for name, side in (("generate", theirs), ("rewardlab", ours))
    }
    if options.continuous:
        sides["continuous batching"] = (continuous, 0)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds):
        ids, lengths = work_of(options.prompts, options.longest, options.vocabulary, number)
        expected = sum(map(sum, lengths))
        for name, (side, rows) in sides.items():
            began = time.perf_counter()
            made = side(network, ids, lengths, rows)
            rates[name].append(made / (time.perf_counter() - began))
            if made != expected:
                raise AssertionError(f"{name} made {made} tokens, not {expected}")
            print(f"round {number}, {name}: {rates[name][-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    print(
        json.dumps(
            {name: {"tokens_per_second": [round(rate, 1) for rate in found]} for name, found in rates.items()}, indent=1
        )
    )
    best = {
        side: max((statistics.median(rates[name]), name) for name in rates if name.startswith(side))
        for side in ("generate", "rewardlab")
    }
    for rate, name in best.values():
        print(f"best setting: {name} rows, median {rate:.1f} tokens/s")
    for rows in options.rows:
        ratios = [b / a for a, b in zip(rates[f"generate {rows}"], rates[f"rewardlab {rows}"], strict=True)]
        print(
            f"{rows} rows each: {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"best against best: {best['rewardlab'][0] / best['generate'][0]:.2f}")


if __name__ == "__main__":
    main()
