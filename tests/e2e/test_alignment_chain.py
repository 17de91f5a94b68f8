"""Fine-tuning, sampling, labels, alignment, best of N: each command reads what the one before it wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardlab.cli.main import main
from rewardlab.data.canonical import read_records
from rewardlab.records import Candidates, Rated
from rewardlab.store.files import read_json, read_jsonl

STORIES = [
    ("Once upon a time, there was a little girl named Lily.", " She loved to play outside in the park."),
    ("Tom had a big red ball.", " He kicked it very far. The ball went away."),
    ("The cat was sad.", " It had no food."),
    ("One day, a dog ran to the lake.", " He saw a fish and a bird."),
    ("Mia and Ben", " went home. They were happy."),
]
COUNT, REWARD_BETA = 3, 5.0
COMPUTING = ["--device", "cpu"]
TRAINING = [*COMPUTING, "--precision", "float32", "--checkpoints", "1", "--seed", "1"]


def command(*words: str) -> None:
    assert main([str(word) for word in words]) == 0


def test_every_stage_reads_what_the_one_before_wrote(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", str(tmp_path / "runs"))
    rows = [{"prompt": prompt, "completion": text, "label": True} for prompt, text in STORIES]
    Path("stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start, runs = str(shared / "models" / "stories260k"), Path("runs")

    lengths = ["--encoding.max_prompt_tokens", "48", "--encoding.max_completion_tokens", "16"]
    lora = ["--lora.r", "4", "--learning_rate", "1e-3", "--batch_size", "2"]
    command("train", "sft", "--model", start, "--train", "stories.jsonl", "--run", "sft", *lora, *lengths, *TRAINING)
    (kept,) = (runs / "sft" / "policies").iterdir()
    assert (kept / "adapter_config.json").is_file()

    # Adapters alone are the policy that they were merged into: greedily both write what transformers does.
    drawn = {}
    for name, model in {"adapter": kept, "merged": runs / "sft" / "model"}.items():
        greedy = ["--n", "1", "--temperature", "0", "--run", name]
        command("sample", "--model", str(model), "--data", "stories.jsonl", *greedy, *COMPUTING)
        drawn[name] = [one.meta["token_ids"][0] for one in candidates(runs / name / "completions.jsonl")]
    assert drawn["adapter"] == drawn["merged"] == written_by_transformers(runs / "sft" / "model")
    assert drawn["merged"] != written_by_transformers(Path(start)), "the adapters do something"

    draws = ["--n", str(COUNT), "--run", "samples", "--seed", "1"]
    command("sample", "--model", str(kept), "--data", "stories.jsonl", *draws, *COMPUTING)
    samples = "runs/samples/completions.jsonl"
    command("score", "--model", "rule:length_words", "--data", samples, "--run", "scores")
    source = ["--sources.s.path", samples, "--scores", "runs/scores"]
    command("data", "convert", *source, "--to", "labelled", "--run", "labelled")
    command("data", "convert", *source, "--to", "labelled", "--to", "best", "--of", str(COUNT), "--run", "best")
    labelled = candidates(runs / "labelled" / "s.jsonl")
    words = [[len(text.split()) for text in one.completions] for one in labelled]
    assert [list(one.rewards or ()) for one in labelled] == words
    (best,) = (runs / "best").glob("s.best*.jsonl")
    picked = read_records(best)
    assert [len(one.completion.split()) for one in picked if isinstance(one, Rated)] == [max(own) for own in words]

    command("train", "sft", "--model", str(kept), "--train", str(best), "--run", "rejection", *lora, *TRAINING)
    assert sum(one["used"] for one in read_json(runs / "rejection" / "summary.json")["counts"].values()) == len(STORIES)

    aligned = ["--objective", "exo-rw", "--reward_beta", str(REWARD_BETA), "--validation.val", "runs/labelled/s.jsonl"]
    aligned += ["--train", "runs/labelled/s.jsonl", "--run", "exo", "--learning_rate", "1e-3"]
    command("train", "exo", "--model", "runs/sft/model", *aligned, *TRAINING)
    first = next(line for line in read_jsonl(runs / "exo" / "history.jsonl") if line["split"] == "train")
    # Before the first step policy and reference are one: the divergence of even shares from those of the rewards.
    assert first["loss"] == pytest.approx(sum(map(even_against, words)) / len(words), rel=1e-3)

    # The policy as a reward, for accuracy.
    command("data", "convert", *source, "--to", "labelled", "--to", "pairs", "--run", "pairs")
    implicit = [
        "--implicit.policy",
        "runs/exo/model",
        "--implicit.reference",
        "runs/sft/model",
        "--implicit.beta",
        "0.5",
    ]
    pairs = ["--data", "runs/pairs/s.jsonl"]
    command("score", *implicit, *pairs, "--run", "implicit", "--verify", "5", *COMPUTING)
    table = pq.read_table(runs / "implicit" / "scores.parquet").sort_by(
        [("row", "ascending"), ("candidate", "ascending")]
    )
    chosen, rejected = (table["score"].to_pylist()[side::2] for side in (0, 1))
    assert max(map(abs, chosen + rejected)) > 1e-3
    command("evaluate", "accuracy", *pairs, "--scores", "runs/implicit", "--run", "accuracy")
    accuracy, *_ = read_json(runs / "accuracy" / "accuracy.json")["estimates"]["accuracy"]
    assert accuracy["value"] == sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(chosen)


def candidates(path: Path) -> list[Candidates]:
    return [one for one in read_records(path) if isinstance(one, Candidates)]


def even_against(rewards: list[int]) -> float:
    """KL of even shares to a softmax of rewards."""
    largest = max(rewards)
    weights = [math.exp((reward - largest) / REWARD_BETA) for reward in rewards]
    return sum(math.log(sum(weights) / (len(rewards) * weight)) for weight in weights) / len(rewards)


def written_by_transformers(folder: Path) -> list[list[int]]:
    from rewardlab.models.policies import load_policy

    network: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    encoder = load_policy("runs/sft/model").encoder
    found = []
    for prompt, _ in STORIES:
        row = torch.tensor(
            [[encoder.tokenizer.bos_token_id, *encoder.tokenizer(prompt, add_special_tokens=False).input_ids]]
        )
        made = network.generate(row, do_sample=False, max_new_tokens=16)[0, row.shape[1] :]
        found.append(made.tolist())
    return found
