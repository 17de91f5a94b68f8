"""The reward manager as the reward function of TRL's GRPO and RLOO trainers, on a tiny random policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rewardlab import load_rewards
from rewardlab.models.tiny import build, train_tokenizer

PROMPTS = ["Why is the sky blue?", "Name a prime.", "Say hello.", "Count to three."]
TERMS = """
rewards:
  characters: {model: "rule:length_characters", weight: 0.01}
  length: {length: {target: 6}, weight: 0.5}
  end: {missing_eos: {}, weight: 2.0}
  repeats: {repetition: {n: 2}}
"""
WEIGHTS = {"characters": 0.01, "length": 0.5, "end": 2.0, "repeats": 1.0}
MOST = 8


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize(("kind", "arguments"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_a_step_sees_every_term(tmp_path: Path, kind: Any, arguments: Any, conversational: bool) -> None:
    file = tmp_path / "rewards.yaml"
    file.write_text(TERMS)
    tokenizer = train_tokenizer(PROMPTS * 20, 300)
    rewards = load_rewards(file, tokenizer=tokenizer)
    seen: list[tuple[Any, list[float]]] = []

    def watched(**columns: Any) -> list[float]:
        seen.append((columns, rewards(**columns)))
        return seen[-1][1]

    policy = build("llama", "nano", tokenizer, seed=0)
    before = policy.get_input_embeddings().weight.detach().clone()
    # RLOO loads its reference by the policy's name.
    policy.save_pretrained(tmp_path / "policy")
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS] if conversational else PROMPTS
    trainer = kind(
        model=str(tmp_path / "policy"),
        reward_funcs=[rewards, watched],
        args=arguments(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=MOST,
            max_steps=1,
            learning_rate=1e-2,
            logging_steps=1,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts, "answer": ["a", "b", "c", "d"]}),
        processing_class=tokenizer,
    )
    trainer.train()
    log = trainer.state.log_history[0]
    ((columns, given),) = seen
    ids = columns["completion_ids"]
    ends = [-1.0 if own[-1] != tokenizer.eos_token_id else 0.0 for own in ids]
    assert log["end"] == pytest.approx(sum(ends) / len(ends))
    assert log["completions/clipped_ratio"] == pytest.approx(-log["end"]), "TRL's own share of unfinished ones"
    lengths = [1 - abs(len(own) / 6 - 1) for own in ids]
    assert log["length"] == pytest.approx(sum(lengths) / len(lengths))
    assert log["rewards/rewards/mean"] == pytest.approx(sum(given) / len(given), rel=1e-5)
    # Means are linear: those that are logged apart add up to the one that is trained on.
    assert sum(WEIGHTS[name] * log[name] for name in WEIGHTS) == pytest.approx(sum(given) / len(given), rel=1e-5)
    assert (trainer.model.get_input_embeddings().weight != before).any()
