from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from rewardlab.data.world import Copula, render, respond, write_prompt
from rewardlab.models.tiny import SIZES, build, shape_of, train_tokenizer

TEXTS = [render(respond(0, write_prompt(0, f"k{i}"), "a", Copula())) for i in range(100)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 600)


def test_special_tokens_are_three_and_distinct(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert ids == {0, 1, 2}
    assert tokenizer("a b")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in tokenizer("a b")["input_ids"]


@pytest.mark.parametrize("text", [*TEXTS[:5], "naïve 漢字 \U0001f600 \t\n  two  spaces ", "", " leading", "<s"])
def test_every_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id is None


def test_vocabulary_is_bounded_and_words_of_the_world_are_short(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == 600
    words = sum(len(text.split()) for text in TEXTS)
    ids = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS)
    assert ids < 2.5 * words


def test_chat_template_writes_the_special_tokens_once(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<s>Why?\nSo.</s>"
    ids = tokenizer("<s>Why?\nSo.</s>", add_special_tokens=False)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1


def test_a_saved_folder_loads_with_plain_transformers(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("llama", "nano", tokenizer, seed=0).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([words(TEXTS[0])["input_ids"]])
    assert ids[0].tolist() == tokenizer(TEXTS[0])["input_ids"]
    torch.testing.assert_close(again.eval()(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert (words.pad_token_id, words.chat_template) == (tokenizer.pad_token_id, tokenizer.chat_template)


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_families_run_and_their_weights_come_from_the_seed(tokenizer: PreTrainedTokenizerFast, family: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (build(family, "nano", tokenizer, seed=seed).eval() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"][:20]])
    inputs = {"input_ids": ids, "labels": ids} if family == "t5" else {"input_ids": ids}
    logits = first(**inputs).logits
    assert logits.shape == ((1, 1) if family == "bert" else (1, 20, len(tokenizer)))
    assert torch.equal(logits, again(**inputs).logits)
    assert not torch.equal(logits, other(**inputs).logits)


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_sizes_are_those_of_the_table(tokenizer: PreTrainedTokenizerFast, family: str) -> None:
    for name, size in SIZES.items():
        shape = shape_of(family, name, tokenizer)
        assert shape.num_hidden_layers == size.layers
        assert shape.hidden_size == size.hidden
        assert shape.num_attention_heads == size.heads
        assert shape.vocab_size == len(tokenizer)
        assert size.hidden % size.heads == 0
