from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardlab.errors import ConfigError
from rewardlab.store.files import read_jsonl
from rewardlab.train.base import BaseTraining, corpus, learning_rate_share, padded, train_base

SMALL = BaseTraining(
    size="nano", vocabulary=500, steps=12, texts_per_step=4, log_every=5, precision="float32", device="cpu"
)


class Folder:
    def __init__(self, path: Path) -> None:
        self.folder = path

    def path(self, name: str) -> Path:
        return self.folder / name


def test_leaves_a_language_model_that_transformers_loads(tmp_path: Path) -> None:
    summary = train_base(SMALL, Folder(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.num_parameters() == summary.parameters
    assert len(tokenizer) == 500
    history = list(read_jsonl(tmp_path / "history.jsonl"))
    assert [line["step"] for line in history] == [5, 10, 12]
    assert history[0]["loss"] == summary.first_loss
    assert summary.last_loss < summary.first_loss
    assert "nats per token" in summary.lines()[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "model"]


def test_a_limit_is_of_texts_and_the_schedule_ends_with_them(tmp_path: Path) -> None:
    limited = SMALL.model_copy(update={"limit": 10})
    assert corpus(limited) == corpus(SMALL)[:10]
    train_base(limited, Folder(tmp_path))
    (line,) = read_jsonl(tmp_path / "history.jsonl")
    assert line["step"] == 3  # 4 + 4 + 2 texts
    three = SMALL.model_copy(update={"steps": 3})
    assert [learning_rate_share(step, limited) for step in range(4)] == [
        learning_rate_share(step, three) for step in range(4)
    ]
    assert SMALL.model_copy(update={"limit": 1000}).texts == SMALL.texts == 48


def test_the_same_configuration_gives_the_same_weights(tmp_path: Path) -> None:
    states = []
    for name, config in (("a", SMALL), ("b", SMALL), ("c", SMALL.model_copy(update={"seed": 1}))):
        (tmp_path / name).mkdir()
        train_base(config, Folder(tmp_path / name))
        states.append(AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_loss_is_the_mean_over_real_tokens_whatever_the_padding() -> None:
    """Two texts of unequal length in one batch: the loss by hand, text by text, from the model's log-probabilities."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    ).eval()
    batch: Sequence[Sequence[int]] = [[1, 5, 6, 2], [1, 7, 8, 9, 10, 11, 2]]
    ids, labels = padded(batch)
    total = count = 0.0
    for text in batch:
        logs = model(torch.tensor([text])).logits[0].log_softmax(-1)
        total -= sum(logs[place, text[place + 1]].item() for place in range(len(text) - 1))
        count += len(text) - 1
    assert model(input_ids=ids, labels=labels).loss.item() == pytest.approx(total / count, rel=1e-5)


def test_schedule_rises_then_falls_to_its_floor() -> None:
    config = BaseTraining(steps=100, warmup=0.1)
    shares = [learning_rate_share(step, config) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(shares[10:]))
    assert shares[100] == pytest.approx(0.1)


def test_corpus_follows_the_policy_dial() -> None:
    config = BaseTraining.build({"steps": 50, "texts_per_step": 10, "policy": {"rate": {"politeness": 0.9}}})
    share = sum(answer.reading.levels.high("politeness") for answer in corpus(config)) / 500
    assert abs(share - 0.9) < 4 * (0.09 / 500) ** 0.5


def test_a_bad_configuration_names_every_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        BaseTraining.build({"steps": 0, "size": "huge", "vocabulary": 10})
    assert len(caught.value.problems) == 3
