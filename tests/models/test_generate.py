"""Answers in batches: each row as if it were alone, with the chance that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import SHAPES, VOCABULARY, config_of, word_tokenizer
from transformers import AutoModelForCausalLM

from rewardlab.errors import ModelError
from rewardlab.models.generate import Asked, Generated, generate
from rewardlab.models.loading import ModelSource, load_language_model

EOS = 2


def causal(shape: str, seed: int = 0) -> Any:
    """A causal language model with random weights, in fp32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.float32).eval()


def rows(count: int, seed: int = 0) -> list[Asked]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 40, count)
    return [Asked(tuple(generator.integers(4, VOCABULARY, size).tolist()), 100 + row)
            for row, size in enumerate(lengths)]  # fmt: skip


def answers(network: Any, asked: list[Asked], temperature: float, most: int = 12) -> list[Generated]:
    return generate(network, asked, most, temperature=temperature, ends={EOS}, pad=0)


QUICK = ("llama", "gpt2")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("shape", [pytest.param(one, marks=[pytest.mark.slow] * (one not in QUICK)) for one in SHAPES])
def test_a_row_in_a_batch_answers_as_it_does_alone(shape: str, temperature: float) -> None:
    network, asked = causal(shape), rows(5)
    together = answers(network, asked, temperature)
    assert together == [answers(network, [one], temperature)[0] for one in asked]
    assert answers(network, asked[::-1], temperature) == together[::-1]
    # Random weights say different things to different prompts, so the equality above is worth something.
    assert len({one.ids for one in together}) > 1


def test_the_likeliest_token_is_that_of_the_logits_step_by_step() -> None:
    network, asked = causal("qwen2"), rows(5, seed=1)
    for one, made in zip(asked, answers(network, asked, 0.0), strict=True):
        ids = list(one.ids)
        for _ in range(12):
            with torch.inference_mode():
                ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == EOS:
                break
        ended = ids[-1] == EOS
        assert made == Generated(tuple(ids[len(one.ids) : len(ids) - ended]), ended)


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_tokens_are_drawn_with_the_probabilities_of_the_softmax(temperature: float) -> None:
    network, prompt, draws = causal("llama", seed=3), (5, 17, 40), 4000
    with torch.inference_mode():
        expected = torch.softmax(network(torch.tensor([prompt])).logits[0, -1] / temperature, -1).double().numpy()
    made = generate(network, [Asked(prompt, seed) for seed in range(draws)], 1, temperature=temperature, ends=(), pad=0)
    counts = np.bincount([one.ids[0] for one in made], minlength=VOCABULARY)
    # Pearson's statistic: its mean is V - 1, its standard deviation sqrt(2 (V - 1)).
    statistic = float((np.square(counts - draws * expected) / (draws * expected)).sum())
    assert abs(statistic - (VOCABULARY - 1)) < 4.0 * (2 * (VOCABULARY - 1)) ** 0.5


def test_the_seed_decides_and_nothing_else() -> None:
    network, prompt = causal("gpt2"), (5, 6, 7)
    first, again, other = answers(network, [Asked(prompt, 1), Asked(prompt, 1), Asked(prompt, 2**64 - 1)], 1.0)
    assert first == again
    assert first != other


def test_an_answer_ends_where_the_model_ends_it_and_is_cut_elsewhere() -> None:
    network, asked = causal("llama"), rows(20, seed=2)
    made = answers(network, asked, 3.0, most=60)
    ended = [one for one in made if one.ended]
    assert 0 < len(ended) < len(made)
    assert all(EOS not in one.ids for one in made)
    assert all(len(one.ids) == 60 for one in made if not one.ended)
    assert all(len(one.ids) < 60 for one in ended)


def test_logits_that_are_no_numbers_are_refused() -> None:
    network = causal("llama")
    with torch.no_grad():
        network.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="no numbers"):
        answers(network, rows(1), 0.0)


def test_a_published_story_is_told_whatever_stands_beside_it(shared: Path) -> None:
    language = load_language_model(ModelSource(path=str(shared / "models/stories260k")))
    start = tuple(language.tokenizer("Once upon a time, there was a big dog").input_ids)
    told = generate(language.network, [Asked((1,)), Asked(start)], 40, temperature=0.0, ends=language.ends, pad=0)[0]
    text = language.tokenizer.decode(told.ids, skip_special_tokens=True)
    assert text.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside")


def test_a_checkpoints_own_sampling_is_not_in_force(tmp_path: Path) -> None:
    network = causal("llama")
    for name, own in (
        ("plain", {}),
        ("own", {"do_sample": True, "top_k": 1, "repetition_penalty": 3.0, "num_beams": 1}),
    ):
        network.generation_config.update(eos_token_id=[EOS, 7], **own)
        network.save_pretrained(tmp_path / name)
        word_tokenizer().save_pretrained(tmp_path / name)
    plain, own = (load_language_model(ModelSource(path=str(tmp_path / name))) for name in ("plain", "own"))
    assert plain.ends == own.ends == {EOS, 7}
    asked = rows(6, seed=4)
    found = [generate(one.network, asked, 16, temperature=1.0, ends=one.ends, pad=0) for one in (plain, own)]
    assert found[0] == found[1]
