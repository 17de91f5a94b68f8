"""Intervals of benchmarks and perturbations: what is seen again of a prompt, or of a conversation, says nothing new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scored_data import Workshop, score_rows

from rewardlab.evaluate.bench import BenchEvaluation, evaluate_bench
from rewardlab.evaluate.matching import Cluster
from rewardlab.evaluate.perturb import PerturbEvaluation, evaluate_perturb
from rewardlab.records import Candidates, Estimate, Message, Pair, Prompt, Record

PROMPTS, COPIES = 24, 3
Evaluate = Callable[[Path, list[Record], Cluster], dict[str, Estimate]]


def prompt_of(name: str, copy: int, kind: Cluster) -> Prompt:
    """The same prompt again, or another one that begins alike."""
    turns = [Message("user", name)]
    if kind == "root":
        turns += [Message("assistant", "And?"), Message("user", f"{copy}")]
    return Prompt(tuple(turns))


def records_of(copies: int, kind: Cluster) -> list[Record]:
    """Answers begin with their scores; those of a prompt have the same ones in every copy."""
    rng = np.random.default_rng(0)
    records: list[Record] = []
    for number in range(PROMPTS):
        scores = rng.integers(0, 9, 4).tolist()
        loud = rng.choice(["LOUD", "quiet"], 4).tolist()
        for copy in range(copies):
            prompts = [prompt_of(f"{sort} {number}", copy, kind) for sort in ("pair", "best", "styled")]
            texts = tuple(
                f"{score} {word} {at} {copy}" for at, (score, word) in enumerate(zip(scores, loud, strict=True))
            )
            subset = ("hep-go", "llmbar-natural")[number % 2]
            styles = {"styles": ["plain", "rich"] * 2, "subset": "chat"}
            records += [
                Pair(prompts[0], texts[0], texts[1], meta={"subset": subset}),
                Candidates(prompts[1], texts, (1.0, 0.0, 0.0, 0.0), meta={"subset": subset}),
                Candidates(prompts[2], texts, (1.0, 1.0, 0.0, 0.0), meta=styles),
            ]
    return records


def score_text(prompt: Prompt, text: str) -> float:
    """Lower case costs what was loud four points."""
    number, word, *_ = text.split()
    return float(number) - 4.0 * (word == "loud")


def bench(folder: Path, records: list[Record], cluster: Cluster) -> dict[str, Estimate]:
    workshop, data, scores = made(folder, records)
    result = evaluate_bench(BenchEvaluation(data=(data,), scores=(scores,), cluster=cluster), workshop)
    return estimates_of(result.raw)


def battery(folder: Path, records: list[Record], cluster: Cluster) -> dict[str, Estimate]:
    workshop, data, scores = made(folder, records)
    rows = score_rows(records, lambda prompt, text: score_text(prompt, text.lower()))
    workshop.table("scores", rows, "scores.casing.parquet")
    config = PerturbEvaluation(data=(data,), scores=(scores,), cluster=cluster, scoring_seed=0)
    found = evaluate_perturb(config, workshop)
    return estimates_of(found.raw)


def made(folder: Path, records: list[Record]) -> tuple[Workshop, Path, Path]:
    (folder / "run").mkdir(parents=True)
    workshop = Workshop(folder)
    return workshop, workshop.records("data.jsonl", records), workshop.scores("scores", records, score_text)


def estimates_of(raw: dict[str, object]) -> dict[str, Estimate]:
    groups = raw["estimates"]
    assert isinstance(groups, dict)
    every = [Estimate.from_dict(one) for group in groups.values() for one in group]
    return {one.name: one for one in every if one.value is not None and one.low is not None}


@pytest.mark.parametrize("kind", ["prompt", "root"])
@pytest.mark.parametrize(("evaluate", "least"), [(bench, 15), (battery, 9)])
def test_copies_make_no_interval_narrower(evaluate: Evaluate, least: int, kind: Cluster, tmp_path: Path) -> None:
    once = evaluate(tmp_path / "once", records_of(1, kind), kind)
    again = evaluate(tmp_path / "again", records_of(COPIES, kind), kind)
    assert once.keys() == again.keys()
    assert len(once) >= least, sorted(once)
    for name, one in once.items():
        other = again[name]
        assert (other.n, other.clusters) == (COPIES * one.n, one.clusters), name
        # The sample standard deviation of answers is over one fewer than there are: 1 % of 24.
        near = 0.03 if ".shift" in name else 1e-9
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high), rel=near), name


@pytest.mark.parametrize("evaluate", [bench, battery])
def test_prompts_of_one_conversation_are_apart_if_asked(evaluate: Evaluate, tmp_path: Path) -> None:
    records = records_of(COPIES, "root")
    roots = evaluate(tmp_path / "roots", records, "root")
    prompts = evaluate(tmp_path / "prompts", records, "prompt")
    for name, one in roots.items():
        assert prompts[name].clusters == COPIES * one.clusters, name
