"""Our training and scoring against TRL and transformers, on a toy Llama shape and real HH pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from benchmarks import reward
from benchmarks.setting import SIDES, rows
from rewardlab import load_scorer
from rewardlab.data.tokenize import Encoding
from rewardlab.models.reward import grouped
from rewardlab.models.tiny import build, train_tokenizer
from rewardlab.records import Prompt
from rewardlab.train.examples import Example
from rewardlab.train.objectives import Objective

CPU = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "gradient_checkpointing": False}


def texts_of(pairs: list[dict[str, str]]) -> list[str]:
    return [pair["prompt"] + pair[side] for pair in pairs for side in SIDES]


def pipeline_scores(folder: Path, texts: list[str], size: int) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, function_to_apply="none", device=-1)
    return [result["score"] for result in classify(texts, batch_size=size)]


def our_scores(folder: Path, pairs: list[dict[str, str]]) -> list[float]:
    scorer = load_scorer(folder, device="cpu", encoding=Encoding(append_eos=False))
    assert scorer.model.layout == "shared"
    return scorer([pair["prompt"] for pair in pairs for _ in SIDES], [pair[side] for pair in pairs for side in SIDES])


def test_gradients_in_float32(setting):
    found = reward.gradients(setting, rows(setting, 0, 8), "float32")
    assert found["largest_distance"] <= 1e-4


def test_gradients_in_bfloat16(setting):
    found = reward.gradients(setting, rows(setting, 0, 8), "bfloat16")
    assert found["cosine"] >= 0.999


@pytest.mark.parametrize("centring", [0.0, 0.01])
def test_loss_with_margins_and_centring(setting, tmp_path, centring):
    pairs = rows(setting, 8, 6)
    margins = [0.0, 0.5, 1.0, 0.25, 2.0, 0.1]
    scorer = load_scorer(setting / "model", device="cpu")
    prompts = [Prompt.of_text(pair["prompt"]) for pair in pairs]
    encoded = scorer.model.encode(prompts, [[pair[side] for side in SIDES] for pair in pairs])
    dataset = Dataset.from_list(
        [
            {"chosen_ids": list(chosen.ids), "rejected_ids": list(rejected.ids), "margin": margin}
            for (chosen, rejected), margin in zip(encoded, margins, strict=True)
        ]
    )
    model = AutoModelForSequenceClassification.from_pretrained(setting / "model", dtype=torch.float32)
    arguments = RewardConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=6,
        train_sampling_strategy="sequential",
        center_rewards_coefficient=centring or None,
        bf16=False,
        **CPU,
    )
    tokenizer = AutoTokenizer.from_pretrained(setting / "model")
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    (batch,) = trainer.get_train_dataloader()
    expected = trainer.compute_loss(trainer.model, batch).item()

    examples = [Example(grouped(pair), (1.0, 0.0), margin) for pair, margin in zip(encoded, margins, strict=True)]
    rewards = scorer.model([example.group for example in examples])
    found = Objective(centring=centring).losses("preference", rewards, examples).mean().item()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1, 5])
def test_scores_are_those_of_the_pipeline(setting, size):
    pairs = rows(setting, 20, 10)
    expected = pipeline_scores(setting / "model", texts_of(pairs), size)
    assert our_scores(setting / "model", pairs) == pytest.approx(expected, abs=1e-5)


def test_a_model_trained_by_trl_is_scored_as_the_pipeline_does(setting, tmp_path):
    pairs = rows(setting, 30, 8)
    model = AutoModelForSequenceClassification.from_pretrained(setting / "model", dtype=torch.float32)
    before = [weight.detach().clone() for weight in model.parameters()]
    arguments = RewardConfig(output_dir=str(tmp_path), per_device_train_batch_size=4, learning_rate=1e-3, **CPU)
    tokenizer = AutoTokenizer.from_pretrained(setting / "model")
    trainer = RewardTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer
    )
    trainer.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    trainer.save_model(str(tmp_path / "model"))
    tokenizer.save_pretrained(tmp_path / "model")
    expected = pipeline_scores(tmp_path / "model", texts_of(pairs), 1)
    assert our_scores(tmp_path / "model", pairs) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("conversational", [False, True])
def test_grpo_takes_the_scorer_as_a_reward_function(setting, tmp_path, conversational):
    scorer = load_scorer(setting / "model", device="cpu")
    seen: list[float] = []

    def watched(prompts, completions, **columns):
        rewards = scorer(prompts, completions, **columns)
        seen.extend(rewards)
        return rewards

    prompts = [pair["prompt"][-200:] for pair in rows(setting, 40, 4)]
    tokenizer = train_tokenizer(prompts, 400)
    policy = build("llama", "nano", tokenizer, seed=0)
    columns = [[{"role": "user", "content": prompt}] for prompt in prompts] if conversational else prompts
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        learning_rate=1e-2,
        logging_steps=1,
        bf16=False,
        **CPU,
    )
    before = policy.get_input_embeddings().weight.detach().clone()
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=[scorer, watched],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": columns}),
        processing_class=tokenizer,
    )
    trainer.train()
    log = trainer.state.log_history[0]
    expected = sum(seen) / len(seen)
    assert len(seen) == 4
    assert log[f"rewards/{scorer.name}/mean"] == pytest.approx(expected, rel=1e-5)
    assert len(set(seen)) > 1
    assert not torch.equal(policy.get_input_embeddings().weight, before)
