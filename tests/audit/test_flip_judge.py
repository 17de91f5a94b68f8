"""The judge that code is, and what a balance table measures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rewardlab.audit.judge import judge_of, judge_words, off_target_measures


def test_a_text_has_the_attribute_above_the_number(tmp_path: Path) -> None:
    holds = judge_of({"measure": "words", "above": 3.0, "model": None, "against": None, "decided": True}, tmp_path)
    assert holds(["a b", "a b c", "a b c d"]).tolist() == [0.0, 0.0, 1.0]
    vowel = judge_of({"measure": "vowel", "above": 0.0}, tmp_path)
    assert vowel(["An apple.", "The apple.", ""]).tolist() == [1.0, 0.0, 0.0]


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
