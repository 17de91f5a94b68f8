"""Prompts and completions of policies, tokenised apart: what follows what, where they are cut, what ends an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_models import word_tokenizer
from transformers import AutoTokenizer

from rewardlab.data.turns import Ids, PolicyEncoder, PolicyEncoding
from rewardlab.errors import ConfigError, DataError, ModelError
from rewardlab.records import Message, Prompt

BOS, EOS, TURN = 1, 2, 7
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ ' w5 ' + message['content'] + ' w3 w6 ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' w4' }}{% endif %}"
)
TEXT = Prompt.of_text("w10 w11 w12")
TALK = Prompt((Message("user", "w10 w11"),))


def encoder(tokenizer: Any = None, *, encoder_decoder: bool = False, **fields: Any) -> PolicyEncoder:
    tokenizer = tokenizer or word_tokenizer()
    return PolicyEncoder(tokenizer, PolicyEncoding.build(fields), encoder_decoder=encoder_decoder)


def w(*numbers: int) -> tuple[int, ...]:
    """Ids of the words w<number>: four special tokens come before them."""
    return tuple(number + 4 for number in numbers)


def test_a_prompt_has_the_prefix_and_a_completion_the_end() -> None:
    own = encoder()
    assert own.prompts([TEXT]) == [Ids((BOS, *w(10, 11, 12)), False)]
    assert own.completions([TEXT], [["w1 w2", "w3"]], [[True, False]]) == [
        [Ids((*w(1, 2), EOS), False), Ids(w(3), False)]
    ]


def test_an_encoder_reads_the_suffix_too_and_a_policy_without_a_prefix_starts_from_eos() -> None:
    suffixed = word_tokenizer("<s> $A </s>")
    assert encoder(suffixed, encoder_decoder=True).prompts([TEXT]) == [Ids((BOS, *w(10, 11, 12), EOS), False)]
    assert encoder(suffixed).prompts([TEXT]) == [Ids((BOS, *w(10, 11, 12)), False)]
    assert encoder(word_tokenizer("$A")).prompts([Prompt.of_text("")]) == [Ids((EOS,), False)]


@pytest.mark.parametrize(("most", "prompt"), [(4, (BOS, *w(10, 11, 12))), (3, (BOS, *w(11, 12))), (1, (BOS,))])
def test_a_longer_prompt_keeps_its_prefix_and_its_end(most: int, prompt: tuple[int, ...]) -> None:
    assert encoder(max_prompt_tokens=most).prompts([TEXT]) == [Ids(prompt, most < 4)]


@pytest.mark.parametrize(
    ("most", "ids"), [(3, (*w(1, 2), EOS)), (2, w(1, 2)), (1, w(1))], ids=["fills the window", "without end", "cut"]
)
def test_a_longer_completion_keeps_its_beginning_and_loses_its_end(most: int, ids: tuple[int, ...]) -> None:
    found = encoder(max_completion_tokens=most).completions([TEXT], [["w1 w2"]], [[True]])
    assert found == [[Ids(ids, most < 3)]]


def test_a_chat_template_writes_the_generation_prompt_and_says_what_ends_an_answer() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.add_special_tokens({"additional_special_tokens": ["w3"]})
    own = encoder(tokenizer)
    assert own.prompts([TALK]) == [Ids((BOS, *w(5, 10, 11, 3, 6, 4)), False)]
    assert own.completions([TALK], [["w1"]], [[True]]) == [[Ids(w(1, 3), False)]]
    assert own.end(TEXT) == (EOS,)
    chatty = encoder(tokenizer, form="chat")
    assert chatty.prompts([TEXT]) == [Ids((BOS, *w(5, 10, 11, 12, 3, 6, 4)), False)]
    assert chatty.end(TEXT) == w(3)


def test_a_prefix_that_the_text_has_brought_is_not_cut_off() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHAT
    assert encoder(tokenizer, max_prompt_tokens=4).prompts([TALK]) == [Ids((BOS, *w(3, 6, 4)), True)]
    text = Prompt.of_text("<s> w10 w11 w12")
    assert encoder(max_prompt_tokens=4).prompts([text]) == [Ids((BOS, *w(10, 11, 12)), False)]
    assert encoder(max_prompt_tokens=3).prompts([text]) == [Ids((BOS, *w(11, 12)), True)]
    # A chat template may write none, and then there is none.
    tokenizer.chat_template = CHAT.replace("{{ bos_token }}", "")
    assert encoder(tokenizer, max_prompt_tokens=3).prompts([TALK]) == [Ids(w(3, 6, 4), True)]


def test_a_template_string_says_what_stands_around_the_prompt_and_braces_are_text() -> None:
    own = encoder(template="w1 {prompt} w2")
    assert own.prompts([TEXT]) == [Ids((BOS, *w(1, 10, 11, 12, 2)), False)]
    tokenizer = word_tokenizer()
    braces = PolicyEncoder(tokenizer, PolicyEncoding(template="{prompt}"))
    assert braces.prompts([Prompt.of_text("{prompt} w1")])[0].ids[-1:] == w(1)


def test_white_space_does_not_tell_the_sides_of_a_transcript_apart(shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "gpt2-tokenizer")
    own = encoder(tokenizer)
    prompt = Prompt((Message("user", "Hello?"),))
    sides = own.completions([prompt], [["Yes.", " Yes. "]], [[True, True]])[0]
    assert sides[0] == sides[1]
    (whole,) = own.prompts([prompt])
    text = tokenizer.decode(whole.ids + sides[0].ids)
    assert text == "\n\nHuman: Hello?\n\nAssistant: Yes.<|endoftext|>"
    assert own.text(prompt, sides[0].ids) == "Yes."
    # In a plain text every character counts.
    plain = Prompt.of_text("Once")
    (story,) = own.completions([plain], [[" upon a time "]], [[True]])[0]
    assert own.text(plain, story.ids) == " upon a time "


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError):
        PolicyEncoding.build({"template": "no field"})
    with pytest.raises(ConfigError):
        PolicyEncoding.build({"template": "{prompt}", "form": "chat"})
    with pytest.raises(ModelError, match="no chat template"):
        encoder(form="chat")
    with pytest.raises(ModelError, match="no EOS token"):
        encoder(word_tokenizer(eos_token=None))
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('only users') }}"
    with pytest.raises(DataError, match="only users"):
        encoder(tokenizer).prompts([TALK])
