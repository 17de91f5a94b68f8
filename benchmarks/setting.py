"""What all parts share: sizes, the model, the pairs, and the processes in which peers and we run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PAIRS_PER_STEP = 16
MAX_TOKENS = 1024

SIDES = ("chosen", "rejected")

Row = dict[str, str]
"""A pair as texts: prompt, chosen, rejected."""
Timed = dict[str, Any]
"""What was measured, by name."""


@dataclass(frozen=True)
class Sizes:
    """How large the work is.

    Attributes:
        shape: the Llama shape: hidden, inner, layers, heads.
        vocabulary: entries of the BPE vocabulary.
        sources: pairs that the vocabulary is learned from and rows are drawn from.
        steps: optimiser steps that are timed in a round; one more goes before them to warm up.
        scored: pairs that are scored in a round.
        triples: responses with two rewrites, whose effects are estimated.
        peer_triples: of those, as many as the peer can bear.
        prompts: to which several answers are sampled in a round.
        longest: tokens of a sampled answer, at most.
        batches: of responses in a round of PPO.
    """

    shape: tuple[int, int, int, int] = (512, 1376, 8, 8)
    vocabulary: int = 16_000
    sources: int | None = None
    steps: int = 6
    scored: int = 150
    triples: int = 1_000_000
    peer_triples: int = 5_000
    prompts: int = 8
    longest: int = 256
    batches: int = 2

    @property
    def trained(self) -> int:
        """Pairs in a round of training, the warm-up step included."""
        return (self.steps + 1) * PAIRS_PER_STEP


QUICK = Sizes(
    shape=(64, 128, 2, 2),
    vocabulary=1_000,
    sources=300,
    steps=1,
    scored=8,
    triples=4_000,
    peer_triples=300,
    prompts=2,
    longest=12,
    batches=1,
)


def prepare(data: Path, folder: Path, sizes: Sizes) -> None:
    """Write tokenizer, randomly initialised model and text pairs of at most `MAX_TOKENS` into `folder`, once."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from rewardlab.data.load import DataSource, load
    from rewardlab.data.render import plain_text, render
    from rewardlab.models.tiny import train_tokenizer
    from rewardlab.records import Pair
    from rewardlab.store.files import write_jsonl

    if (folder / "pairs.jsonl").is_file():
        return
    records = load(DataSource(path=str(data), adapter="hh-rlhf", split="all")).records
    pairs = [record for record in records if isinstance(record, Pair)]
    order = np.random.default_rng(0).permutation(len(pairs))[: sizes.sources]
    rows = []
    for pair in (pairs[index] for index in order):
        prompt = plain_text(pair.prompt)
        sides = (render(pair.prompt, text).text.removeprefix(prompt) for text in pair.completions)
        rows.append(dict(zip(("prompt", "chosen", "rejected"), (prompt, *sides), strict=True)))
    tokenizer = train_tokenizer((row["prompt"] + row[side] for row in rows for side in SIDES), sizes.vocabulary)
    hidden, inner, layers, heads = sizes.shape
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2 * MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        num_labels=1,
    )
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lengths = {side: tokenizer([row["prompt"] + row[side] for row in rows])["input_ids"] for side in SIDES}
    # One more token for the EOS of training.
    kept = [row for i, row in enumerate(rows) if all(len(lengths[side][i]) < MAX_TOKENS for side in SIDES)]
    write_jsonl(folder / "pairs.jsonl", kept)


def rows(folder: Path, start: int, count: int) -> list[Row]:
    """Pairs `start` to `start + count` of the fixed random order; begins again at its end."""
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(lines[index % len(lines)]) for index in range(start, start + count)]


def groups(folder: Path, pairs: Sequence[Row]) -> list[Any]:
    """The pairs as token groups, EOS appended: what both sides train on."""
    from transformers import AutoTokenizer

    from rewardlab.data.tokenize import Encoder, Encoding
    from rewardlab.models.reward import grouped
    from rewardlab.records import Prompt

    encoder = Encoder(AutoTokenizer.from_pretrained(folder / "model"), Encoding(max_tokens=MAX_TOKENS))
    prompts = [Prompt.of_text(row["prompt"]) for row in pairs]
    return [grouped(encoded) for encoded in encoder.encode(prompts, [[row[side] for side in SIDES] for row in pairs])]


def prepare_policy(folder: Path) -> None:
    """Write a language model of the setting's shape, new weights, beside its reward model; once."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    if (folder / "policy" / "tokenizer.json").is_file():
        return
    torch.manual_seed(0)
    LlamaForCausalLM(AutoConfig.from_pretrained(folder / "model")).save_pretrained(folder / "policy")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "policy")


class Worker:
    """A process of its own: what one side does to allocator, caches or patches never reaches the other.

    Args:
        log: file that gets the process's standard error.
    """

    def __init__(self, log: Path) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_enter, initargs=(str(log),))

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)` over there."""
        return self._pool.submit(function, *arguments).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


@contextlib.contextmanager
def working(log: Path) -> Iterator[Worker]:
    """A worker that ends."""
    worker = Worker(log)
    try:
        yield worker
    finally:
        worker.close()


def alone(log: Path, function: Callable[..., Timed], *arguments: Any) -> Timed:
    """`function(*arguments)` in a process of its own, with its peak memory in MiB."""
    with working(log) as worker:
        found: Timed = worker(function, *arguments)
        return found | {"peak": worker(peak_mebibytes)}


class Done:
    """What was measured before a run was stopped: it goes on from there.

    Args:
        path: of the file, deleted at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def once(self, key: str, measure: Callable[..., Timed], *arguments: Any) -> Timed:
        """`measure(*arguments)`, or what it gave before."""
        found: dict[str, Timed] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        if key not in found:
            found[key] = measure(*arguments)
            self.path.write_text(json.dumps(found, indent=1), encoding="utf-8")
        return found[key]


def _enter(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


@contextlib.contextmanager
def stopwatch(clock: Callable[[], float] = time.perf_counter, *, begin: bool = False) -> Iterator[list[float]]:
    """Times at the ends of the optimiser steps of every transformers Trainer that is made inside.

    Args:
        clock: gives seconds.
        begin: with the time at which training begins before them.
    """
    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    marks: list[float] = []

    class Stopwatch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            if begin:
                marks.append(clock())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(clock())

    DEFAULT_CALLBACKS.append(Stopwatch)
    try:
        yield marks
    finally:
        DEFAULT_CALLBACKS.remove(Stopwatch)


@contextlib.contextmanager
def clocks() -> Iterator[dict[str, list[float]]]:
    """Marks at the beginning and at the ends of optimiser steps: seconds, and seconds of processors."""
    with stopwatch(begin=True) as marks, stopwatch(time.process_time, begin=True) as work:
        yield {"seconds": marks, "work": work}


def backbone_parameters(folder: Path) -> int:
    """Parameters of the model without its embeddings."""
    from safetensors import safe_open

    with safe_open(folder / "model" / "model.safetensors", framework="pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118  # not a dict
    return sum(math.prod(shape) for name, shape in shapes.items() if "embed" not in name)


def output_parameters(folder: Path) -> int:
    """Parameters of the policy's output layer."""
    shape = json.loads((folder / "policy" / "config.json").read_text(encoding="utf-8"))
    return int(shape["hidden_size"] * shape["vocab_size"])


def cpu_precision(asked: str) -> str:
    """Of products, on both sides; `auto`: bfloat16 where the processor multiplies it in hardware, float32 elsewhere."""
    from rewardlab.models.source import product_precision

    return product_precision(asked, "cpu")


def peak_mebibytes() -> int:
    """Largest resident memory that this process has had."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise OSError("the kernel reports no VmHWM")
