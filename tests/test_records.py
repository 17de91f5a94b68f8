"""Records: ids that come from content alone and stay for ever."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest

from rewardlab.records import (
    Candidates,
    Estimate,
    Message,
    Pair,
    Prompt,
    Rated,
    Source,
    canonical_json,
    completion_id,
    content_id,
)


def sha16(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


HELLO = Prompt((Message("user", "Hello"),))


def test_ids_are_those_written_down() -> None:
    """Written out by hand: a change here breaks every table that users keep."""
    prompt_id = sha16('[{"content":"Hello","role":"user"}]')
    assert HELLO.id == prompt_id == "013cf0c05f083773"
    assert HELLO.root_id == sha16('"Hello"')
    assert completion_id(HELLO, "Hi") == sha16(f'["{prompt_id}","Hi"]')
    assert Pair(HELLO, "Hi", "No").id == sha16(f'["{prompt_id}","Hi","No"]')
    assert Candidates(HELLO, ("a", "b")).id == sha16(f'["{prompt_id}","a","b"]')
    assert Rated(HELLO, "Hi", label=True).id == completion_id(HELLO, "Hi")


def test_ids_do_not_know_source_extras_or_composition() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    assert composed != decomposed
    assert Prompt.of_text(composed).id == Prompt.of_text(decomposed).id
    assert Prompt.of_text("a").id != Prompt((Message("user", "a"),)).id
    assert Pair(HELLO, "a", "b", margin=1, source=Source("x", 1), meta={"k": 1}).id == Pair(HELLO, "a", "b").id
    assert Pair(HELLO, "a", "b").id != Pair(HELLO, "b", "a").id


def test_conversations_that_begin_alike_share_their_root() -> None:
    longer = Prompt((Message("system", "Be kind"), *HELLO.messages, Message("assistant", "Hi"), Message("user", "Bye")))
    assert longer.root_id == HELLO.root_id == Prompt.of_text("Hello").root_id
    assert longer.id != HELLO.id
    no_user = Prompt((Message("assistant", "Hi"),))
    assert no_user.root_id == no_user.id


TRANSCRIPT = "\n\nHuman: Hello \n\nAssistant: Hi\n\nHuman: Bye\n\nAssistant:"


@pytest.mark.parametrize(
    "text",
    [
        "\n\nHuman: Hello\n\nAssistant:",
        TRANSCRIPT,
        TRANSCRIPT.lstrip(),
        f" \n{TRANSCRIPT}",
        f"\n\nAssistant: What is it?{TRANSCRIPT}",
        "Human: Hello",
    ],
)
def test_a_transcript_has_the_root_of_the_same_conversation_in_messages(text: str) -> None:
    """Else the turns of one conversation could fall into train and test."""
    assert Prompt.of_text(text).root_id == HELLO.root_id
    assert Prompt.of_text(text).id != HELLO.id


@pytest.mark.parametrize(
    "text", ["Hello, see\n\nHuman: Hello\n\nAssistant:", "Humans: Hello", "\n\nAssistant: Hi", "\n\nHuman Hello", ""]
)
def test_any_other_text_is_its_own_root(text: str) -> None:
    assert Prompt.of_text(text).root_id == content_id(text)


def test_options_of_the_template_are_part_of_a_prompt() -> None:
    """They change the text that is scored; without any, ids are as they were before options counted."""
    plain, tools = HELLO.messages, {"tools": [{"name": "f"}]}
    prompts = [Prompt(plain, options) for options in ({}, tools, {"tools": [{"name": "g"}]}, {"think": True})]
    assert len({prompt.id for prompt in prompts}) == len({completion_id(prompt, "Hi") for prompt in prompts}) == 4
    assert prompts[0].id == HELLO.id
    turns = '[{"content":"Hello","role":"user"}]'
    assert prompts[1].id == sha16(f'[{turns},{{"tools":[{{"name":"f"}}]}}]')
    assert {prompt.root_id for prompt in prompts} == {HELLO.root_id}
    assert len(set(prompts)) == 4
    again = Prompt(plain, {"tools": [{"name": "f"}]})
    assert again == prompts[1] != prompts[2]
    assert hash(again) == hash(prompts[1])
    no_user = Prompt((Message("assistant", "Hi"),), tools)
    assert no_user.root_id == Prompt(no_user.messages).root_id


def test_a_lone_surrogate_has_an_id_of_its_own() -> None:
    assert content_id("\ud800") not in {content_id("\ud801"), content_id("?"), content_id("")}


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": (1, 2.5), "a": {"d": None, "c": "é"}}) == '{"a":{"c":"é","d":null},"b":[1,2.5]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_prompts_say_whether_they_are_text() -> None:
    assert Prompt.of_text("a").is_text
    assert not HELLO.is_text


def test_estimates_survive_a_file() -> None:
    estimate = Estimate("accuracy", 0.5, 0.4, 0.6, n=10, clusters=4, method="t", reading="half")
    assert Estimate.from_dict(estimate.as_dict() | {"later": 1}) == estimate
    assert Estimate.from_dict({"name": "x", "value": None, "reason": "no pairs"}).level == 0.95
