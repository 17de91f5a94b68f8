"""From messages to text: template strings, chat templates, and the plain form."""

from __future__ import annotations

import pytest
from small_models import word_tokenizer

from rewardlab.data.render import Rendered, plain_text, render
from rewardlab.errors import DataError
from rewardlab.records import Message, Prompt

TALK = Prompt(
    (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "?"))
)
PLAIN = "\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: ?\n\nAssistant:"
LISTING = "{% for message in messages %}[{{ message['role'] }}|{{ message['content'] }}]{% endfor %}{{ mood }}"


def test_a_text_is_verbatim() -> None:
    prompt = Prompt.of_text("Once upon \n")
    assert plain_text(prompt) == "Once upon \n"
    assert render(prompt, " a time") == Rendered("Once upon \n a time", False)


def test_a_conversation_reads_like_helpful_harmless_data() -> None:
    assert plain_text(TALK) == PLAIN
    assert render(TALK, "Good.") == Rendered(f"{PLAIN} Good.", False)
    assert render(TALK, "\nGood.").text == f"{PLAIN}\nGood.", "the answer's own white space is enough"


def test_an_unknown_role_keeps_its_name() -> None:
    assert plain_text(Prompt((Message("critic", "x"),))) == "\n\nCritic: x\n\nAssistant:"


def test_no_prompt_at_all() -> None:
    assert plain_text(Prompt(())) == ""
    assert render(Prompt(()), "x").text == "x"


def test_a_chat_template_renders_conversations_whole() -> None:
    tokenizer = word_tokenizer(chat_template=LISTING)
    expected = "[system|Be kind.][user|Hi][assistant|Hello][user|?][assistant|Good.]"
    assert render(TALK, "Good.", tokenizer=tokenizer) == Rendered(expected, True)


def test_a_plain_text_never_meets_the_chat_template() -> None:
    assert render(Prompt.of_text("a"), "b", tokenizer=word_tokenizer(chat_template=LISTING)) == Rendered("ab", False)


def test_a_template_string_wins() -> None:
    tokenizer = word_tokenizer(chat_template=LISTING)
    found = render(TALK, "Good.", template="Q{prompt}|{completion}!", tokenizer=tokenizer)
    assert found == Rendered(f"Q{PLAIN}|Good.!", False)


def test_fields_inside_the_texts_are_text() -> None:
    template = "{prompt}-{completion}"
    assert render(Prompt.of_text("{completion}"), "{prompt}{", template=template).text == "{completion}-{prompt}{"


def test_template_options_reach_the_template() -> None:
    prompt = Prompt((Message("user", "Hi"),), {"mood": "calm"})
    assert render(prompt, "x", tokenizer=word_tokenizer(chat_template=LISTING)).text.endswith("calm")


def test_a_conversation_that_the_template_refuses() -> None:
    template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(DataError, match="System role not supported") as caught:
        render(TALK, "x", tokenizer=word_tokenizer(chat_template=template))
    assert "--encoding.template" in str(caught.value)
    assert TALK.id in str(caught.value)


def test_code_in_the_data_is_not_run_by_the_template() -> None:
    prompt = Prompt((Message("user", "{{ 7 * 7 }}{% raw %}"),))
    assert "[user|{{ 7 * 7 }}{% raw %}]" in render(prompt, "x", tokenizer=word_tokenizer(chat_template=LISTING)).text
