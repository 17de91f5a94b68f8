"""The rule that makes a text longer or shorter, and milder on the way."""

from __future__ import annotations

import pytest

from rewardlab.audit.measures import measure_named
from rewardlab.audit.mild import MILDER, Mild, milder
from rewardlab.audit.rules import Length, RuleRewriter
from rewardlab.audit.units import Task, Unit
from rewardlab.records import Prompt

REVIEW = "An excellent film. I LOVED the end! The plot is terrible, and Terrible things happen. Nothing else to say."


@pytest.mark.parametrize(
    ("strong", "mild"),
    [
        ("The best film, a GREAT one.", "The better film, a SOLID one."),
        ("I LOVED it! Terrible, though.", "I LIKED it! Uneven, though."),
        ("nothing strong, excellently put", "nothing strong, excellently put"),
        ("", ""),
    ],
)
def test_strong_words_become_mild_ones_and_nothing_else_changes(strong: str, mild: str) -> None:
    assert milder(strong) == mild


def test_a_second_pass_changes_nothing() -> None:
    """Replacement, not cumulation: what RATE assumes."""
    assert not set(MILDER.values()) & MILDER.keys()
    assert milder(milder(REVIEW)) == milder(REVIEW) != REVIEW


@pytest.mark.parametrize("treated", [True, False])
def test_both_ways_end_in_the_mild_words(treated: bool) -> None:
    unit = Unit(Prompt.of_text("Write: "), REVIEW, treated)
    (chain,) = RuleRewriter(Mild(Length(measure_named("words"), 12 if treated else 30))).chains([Task(unit)], 2)
    first, second = (rewrite.text or "" for rewrite in chain.rewrites)
    assert (len(first.split()) < 12) if treated else (len(first.split()) > 30)
    assert (len(second.split()) > 12) if treated else (len(second.split()) < 30)
    for text in (first, second):
        assert not {word.strip(".,!").lower() for word in text.split()} & MILDER.keys()


def test_its_name_is_not_that_of_the_rule_inside() -> None:
    length = Length(measure_named("words"), 12)
    names = {RuleRewriter(rule).name for rule in (length, Mild(length))}
    assert len(names) == 2
    assert any(name.startswith("mild_length@") for name in names)
