"""The judge that code is, and what a balance table measures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardlab.audit.judge import judge_of, judge_words, off_target_measures, rule_words, same_rule
from rewardlab.errors import DataError


def test_a_text_has_the_attribute_above_the_number(tmp_path: Path) -> None:
    holds = judge_of({"measure": "words", "above": 3.0, "model": None, "against": None, "decided": True}, tmp_path)
    assert holds(["a b", "a b c", "a b c d"]).tolist() == [0.0, 0.0, 1.0]
    vowel = judge_of({"measure": "vowel", "above": 0.0}, tmp_path)
    assert vowel(["An apple.", "The apple.", ""]).tolist() == [1.0, 0.0, 0.0]


def test_a_judge_that_cannot_be_used_is_told_with_its_place(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"measure": "words"}, r"audit\.json: judge.above: found nothing; expected the number"),
        ({"measure": "words", "above": "median"}, "judge.above: found 'median'"),
        ({"measure": "words", "above": math.nan}, "judge.above: found nan"),
        ({"ask": {"question": "Is it?"}, "by": "some-model"}, "judge.above: found nothing"),
        ({"ask": {"question": "Is it?"}, "above": 0.5}, "judge.by: found nothing; expected the model that was asked"),
        ({"measure": "wrods", "above": 3.0}, "judge.measure: found 'wrods'; expected a known measure. Did you mean"),
        ({"above": 3.0}, "judge.measure: found nothing"),
        ({"measure": "tokens", "above": 3.0}, "judge.model: found no model"),
    ]
    for values, words in cases:
        with pytest.raises(DataError, match=words):
            judge_of(values, tmp_path / "audit.json")


def test_judges_are_the_same_by_measure_number_and_models() -> None:
    judge = {"measure": "tokens", "above": 4, "model": "gpt2", "decided": True}
    assert same_rule(judge, {"measure": "tokens", "above": 4.0, "model": "gpt2", "against": None, "decided": False})
    for other in ({"measure": "words"}, {"above": 5.0}, {"model": "opt"}, {"against": "opt"}):
        assert not same_rule(judge, {**judge, **other})
    assert rule_words(judge) == "tokens > 4 by gpt2"
    assert rule_words({"measure": "words", "above": 4.5, "model": None}) == "words > 4.5"


def test_a_caption_says_who_judges_and_whether_w_was_decided_by_it() -> None:
    measure = {"measure": "words", "above": 3.0}
    assert judge_words({**measure, "decided": True}) == "words > 3, which decided W too,"
    assert judge_words({**measure, "decided": False}) == "words > 3, which did not decide W,"
    asked = {"ask": {"question": "Is it?"}, "by": "some-model", "above": 0.5, "decided": False}
    assert judge_words(asked) == "some-model, which did not decide W,"


def test_the_balance_table_measures_what_code_can() -> None:
    text = "One two three.\n- four five."
    found = {name: measure([text]) for name, measure in off_target_measures().items()}
    assert found["characters"].tolist() == [27.0]
    assert found["words"].tolist() == [6.0]
    assert found["list_lines"].tolist() == [0.5]
    assert all(isinstance(values, np.ndarray) and math.isfinite(values[0]) for values in found.values())
    pytest.importorskip("vaderSentiment")
    assert (off_target_measures()["sentiment"](["Great!", "Awful!"]) > 0).tolist() == [True, False]
