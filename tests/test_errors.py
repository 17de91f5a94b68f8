"""Errors: every problem in one message, exit codes by kind."""

from __future__ import annotations

import re

import pytest

from rewardlab import errors
from rewardlab.errors import InputError, MissingExtraError, Problem, RewardlabError, counted


def test_a_problem_reads_as_a_sentence() -> None:
    assert str(Problem("a.jsonl:3", "'x'", "a number")) == "a.jsonl:3: found 'x'; expected a number"
    assert str(Problem("a", "b", "c", "Do d.")) == "a: found b; expected c. Do d."


@pytest.mark.parametrize("count", [0, 1, 20, 21, 50])
def test_twenty_problems_are_shown_and_the_rest_counted(count: int) -> None:
    error = InputError("cannot", [Problem(f"row {i}", "x", "y") for i in range(count)])
    lines = str(error).splitlines()
    assert lines[0] == "cannot"
    assert len(error.problems) == count
    assert len(lines) == 1 + min(count, 20) + (count > 20)
    if count > 20:
        assert lines[-1] == f"  ... and {count - 20} more ({count} in all)"


def test_the_tree_is_as_drawn_and_decides_the_exit_code() -> None:
    drawn = re.findall(r"(\w+Error)", (errors.__doc__ or "").split("Of a run in several")[0])
    assert drawn[0] == "RewardlabError"
    for name in drawn:
        kind = getattr(errors, name)
        assert issubclass(kind, RewardlabError)
        assert kind.exit_code == (1 if kind is RewardlabError else 2)
        assert (name == "RewardlabError") or issubclass(kind, InputError)


def test_a_missing_extra_names_its_install_line() -> None:
    assert (
        str(MissingExtraError("peft", "peft", "LoRA")) == "LoRA needs the package peft: pip install 'rewardlab[peft]'"
    )


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(number, "policy") for number in (0, 1, 2)] == ["0 policies", "1 policy", "2 policies"]
    assert [counted(number, "batch") for number in (1, 3)] == ["1 batch", "3 batches"]
    assert [counted(number, "held-out record") for number in (1, 1204)] == [
        "1 held-out record",
        "1,204 held-out records",
    ]
