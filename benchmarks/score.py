"""Scoring texts in bf16: the transformers text-classification pipeline, a plain loop, and ours.

Tokenising is inside the clock for all; loading the model is not. Every side gives its scores in the order of the
texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import ceiling
from benchmarks.setting import SIDES, Row, Sizes, Worker, rows

GRID = ("pipeline 32", "pipeline 8 sorted", "pipeline 4 sorted", "pipeline 1", "loop 1")
"""Peer settings: texts to a batch; `sorted` by characters first; `loop` calls the model without a pipeline."""

WARM_UP = 4

SLICES = 3
"""Into how many parts our work of a round is cut, to measure the ceiling between them: a neighbour comes and goes
within seconds."""


def theirs(folder: Path, pairs: list[Row], setting: str) -> dict[str, Any]:
    """Score with transformers."""
    texts = [row["prompt"] + row[side] for row in pairs for side in SIDES]
    kind, size, *order = setting.split()
    if kind == "loop":
        return _timed(lambda some: [theirs_one(folder, text) for text in some], texts)
    return _timed(lambda some: _pipeline_scores(folder, some, int(size), bool(order)), texts)


def theirs_one(folder: Path, text: str) -> float:
    """Score of one text by a plain call of the model."""
    import torch

    model, tokenizer = _plain(folder)
    with torch.inference_mode():
        score: float = model(**tokenizer(text, return_tensors="pt")).logits.item()
    return score


def ours(folder: Path, pairs: list[Row]) -> dict[str, Any]:
    """Score with `load_scorer`."""
    return _timed(lambda some: ours_many(folder, some), _work(pairs))


def ours_many(folder: Path, work: list[tuple[str, list[str]]], precision: str = "bfloat16") -> list[float]:
    """Scores of all answers of (prompt, answers), in order."""
    from rewardlab.records import Prompt

    prompts = [Prompt.of_text(prompt) for prompt, _ in work]
    scores = _scorer(folder, precision).score(prompts, [answers for _, answers in work])
    return [score for group in scores for score in group]


def exact(folder: Path, pairs: list[Row]) -> list[float]:
    """Scores in float32."""
    return ours_many(folder, _work(pairs), "float32")


def run(folder: Path, sizes: Sizes, repeats: int, peer: Worker, own: Worker) -> dict[str, Any]:
    """All rounds: the peer's settings, then ceiling and ours in turns; then how far the scores are from float32."""
    rounds, scores = [], {}
    for number in range(repeats):
        pairs = rows(folder, number * sizes.scored, sizes.scored)
        results = {setting: peer(theirs, folder, pairs, setting) for setting in GRID}
        ceilings, slices = [own(_ceiling, sizes)], []
        size = math.ceil(len(pairs) / SLICES)
        for start in range(0, len(pairs), size):
            slices.append(own(ours, folder, pairs[start : start + size]))
            ceilings.append(own(_ceiling, sizes))
        results["rewardlab"] = {
            "texts": sum(one["texts"] for one in slices),
            "seconds": sum(one["seconds"] for one in slices),
            "scores": [score for one in slices for score in one["scores"]],
        }
        scores = {name: result.pop("scores") for name, result in results.items()}
        rounds.append({"tokens": own(_tokens, folder, pairs), "ceilings": ceilings, "results": results})
    reference = own(exact, folder, pairs)
    worst = {name: max(abs(a - b) for a, b in zip(found, reference, strict=True)) for name, found in scores.items()}
    return {"rounds": rounds, "largest_error": worst, "spread": max(reference) - min(reference)}


def _ceiling(sizes: Sizes) -> float:
    from rewardlab.score.local import CPU_BUDGET

    return ceiling.measure(sizes.shape, CPU_BUDGET, backward=False)


def _tokens(folder: Path, pairs: list[Row]) -> int:
    """Shared-prefix tokens of the pairs."""
    from rewardlab.models.reward import grouped
    from rewardlab.records import Prompt

    prompts = [Prompt.of_text(row["prompt"]) for row in pairs]
    encoded = _scorer(folder, "bfloat16").model.encode(prompts, [answers for _, answers in _work(pairs)])
    return sum(grouped(sequences).packed_size for sequences in encoded)


def _timed(score: Callable[[Any], list[float]], work: list[Any]) -> dict[str, Any]:
    score(work[:WARM_UP])
    began = time.perf_counter()
    scores = score(work)
    return {"texts": len(scores), "seconds": time.perf_counter() - began, "scores": scores}


@lru_cache(maxsize=1)
def _plain(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", dtype=torch.bfloat16).eval()
    return model, AutoTokenizer.from_pretrained(folder / "model")


def _pipeline_scores(folder: Path, texts: list[str], size: int, is_sorted: bool) -> list[float]:
    from transformers import pipeline

    model, tokenizer = _plain(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, function_to_apply="none", device=-1)
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index])) if is_sorted else list(range(len(texts)))
    scores = [0.0] * len(texts)
    for index, result in zip(order, classify([texts[index] for index in order], batch_size=size), strict=True):
        scores[index] = result["score"]
    return scores


@lru_cache(maxsize=2)
def _scorer(folder: Path, precision: Any) -> Any:
    from rewardlab import load_scorer
    from rewardlab.data.tokenize import Encoding

    return load_scorer(folder / "model", device="cpu", precision=precision, encoding=Encoding(append_eos=False))


def _work(pairs: list[Row]) -> list[tuple[str, list[str]]]:
    return [(row["prompt"], [row[side] for side in SIDES]) for row in pairs]
