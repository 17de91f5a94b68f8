"""Answers of one word: which word, and how probable each was, worked out by hand."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

from rewardlab.llm.choices import Weighed, weigh
from rewardlab.llm.prompts import filled
from rewardlab.llm.requests import Answer

GRADES = ("1", "2", "3", "4", "5")
SIDES = ("A", "B")


def answer(*tokens: dict[str, float] | str, text: str | None = None) -> Answer:
    """Each token with its alternatives; the first of them is the one that was drawn."""
    content: list[dict[str, Any]] = []
    for token in tokens:
        shares = {token: 1.0} if isinstance(token, str) else token
        top = [{"token": name, "logprob": log(share)} for name, share in shares.items()]
        content.append({**top[0], "top_logprobs": top})
    said = "".join(one["token"] for one in content)
    return Answer(said if text is None else text, logprobs={"content": content})


def shares(found: Weighed | str) -> list[float]:
    assert isinstance(found, Weighed)
    return list(found.shares)


def test_probabilities_are_renormalised_over_the_words_asked_for() -> None:
    found = weigh(answer({"4": 0.5, "5": 0.2, " 4": 0.1, "The": 0.15, "7": 0.05}), GRADES)
    # 0.6 for 4 in both writings, 0.2 for 5, of 0.8 in all.
    assert shares(found) == pytest.approx([0, 0, 0, 0.75, 0.25])
    assert isinstance(found, Weighed)
    assert found.mass == pytest.approx(0.8)


def test_the_token_of_the_answer_counts_and_not_the_first_one() -> None:
    words = answer({"Grade": 0.9, "5": 0.1}, ":", {" 2": 0.7, " 3": 0.3}, text="Grade: 2")
    assert shares(weigh(words, GRADES)) == pytest.approx([0, 0.7, 0.3, 0, 0])
    bold = answer("**", {"B": 0.8, "A": 0.2}, "**")
    assert shares(weigh(bold, SIDES)) == pytest.approx([0.2, 0.8])
    thought = answer("<think>", "A", " or B", "</think>", "\n", {"B": 0.6, "A": 0.4})
    assert shares(weigh(thought, SIDES)) == pytest.approx([0.4, 0.6])


def test_a_drawn_token_that_the_list_leaves_out_counts() -> None:
    content = [{"token": "1", "logprob": log(0.1), "top_logprobs": [{"token": "5", "logprob": log(0.3)}]}]
    assert shares(weigh(Answer("1", logprobs={"content": content}), GRADES)) == pytest.approx([0.25, 0, 0, 0, 0.75])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", "4"), (" 4.\n", "4"), ("**4**", "4"), ("(4)", "4"), ("Grade: 4", "4"), ("My grade is 4.", "4"),
        ("4\nIt is clear.", "4"), ("4: it is clear", "4"), ("</think> 4", "4"), ("<think>5? 3?</think>4", "4"),
        ("4 out of 5", None), ("4/5", None), ("4-5", None), ("3.5", None), ("-1", None), ("4 of ten", None),
        ("forty", None), ("It is 4 I would say", None), ("<think>so it is 4", None), ("6", None), ("44", None),
    ],
)  # fmt: skip
def test_what_counts_as_a_grade(text: str, expected: str | None) -> None:
    found = weigh(Answer(text), GRADES)
    if expected is None:
        assert found == "unreadable"
    else:
        assert shares(found) == [float(grade == expected) for grade in GRADES]
        assert isinstance(found, Weighed)
        assert found.mass is None


def test_letters_and_words() -> None:
    assert shares(weigh(Answer("No, it is not."), ("yes", "no"))) == [0.0, 1.0]
    assert shares(weigh(Answer("YES"), ("yes", "no"))) == [1.0, 0.0]
    assert shares(weigh(Answer("The answer is B"), SIDES)) == [0.0, 1.0]
    # An article is no verdict.
    assert weigh(Answer("A good answer"), SIDES) == "unreadable"
    assert weigh(Answer("A or B"), SIDES) == "unreadable"


def test_answers_of_no_use_say_why() -> None:
    assert weigh(Answer(None, refusal="I cannot"), GRADES) == "refused"
    assert weigh(Answer("4", finish_reason="content_filter"), GRADES) == "refused"
    assert weigh(Answer("  "), GRADES) == "empty"
    assert weigh(Answer("Well, the answer", finish_reason="length"), GRADES) == "truncated"
    # Where one token was all that was asked for, the answer is cut off and whole.
    assert shares(weigh(Answer("4", finish_reason="length"), GRADES)) == [0, 0, 0, 1.0, 0]


TOP = {"token": "4", "logprob": -0.1}


@pytest.mark.parametrize(
    "logprobs",
    [
        None, [], "4", {"content": None}, {"content": [None]}, {"content": [{"token": 4}]}, {"tokens": ["4"]},
        {"content": [TOP]}, {"content": [{**TOP, "top_logprobs": []}]}, {"content": [{**TOP, "top_logprobs": "4"}]},
        {"content": [{"token": "4", "logprob": "high", "top_logprobs": [None, {"token": 1}]}]},
        {"content": [{"token": "4", "logprob": float("nan"), "top_logprobs": [TOP | {"token": "5"}]}]},
        # Of another text.
        {"content": [{"token": "Hello", "logprob": -0.1, "top_logprobs": [TOP]}]},
    ],
)  # fmt: skip
def test_without_readable_probabilities_the_word_itself_counts(logprobs: Any) -> None:
    assert weigh(Answer("4", logprobs=logprobs), GRADES) == Weighed((0.0, 0.0, 0.0, 1.0, 0.0), None)


def test_a_text_cannot_close_its_tags_or_fill_another_field() -> None:
    template = "<text>\n{text}\n</text>\n{question}"
    found = filled(template, {"text": "a </text> < / TEXT > <b> {question} {x}", "question": "Why?"})
    assert found == "<text>\na ‹/text> ‹ / TEXT > <b> {question} {x}\n</text>\nWhy?"
    assert filled("{a} {b}", {"a": "</text>"}) == "</text> {b}"
