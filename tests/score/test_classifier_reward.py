"""Classifiers as rewards, against transformers' own text-classification pipeline."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from published_models import distilbert
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ConfigError, ModelError
from rewardlab.records import Prompt
from rewardlab.score.load import load_classifier

TEXTS = ["w1 w2 w3.", "w9!", "w4 w5 w5 w5 w6 w7 w8.", ""]


def set_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def probabilities(folder: Path, label: str) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device=-1)
    return [one["score"] for found in classify(TEXTS, top_k=None) for one in found if one["label"] == label]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    distilbert(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
@pytest.mark.parametrize("name", ["NEGATIVE", "0"])
def test_the_reward_falls_with_the_probability_of_what_is_bad(
    folder: Path, name: str, problem_type: str | None
) -> None:
    set_config(folder, problem_type=problem_type)
    expected = probabilities(folder, "NEGATIVE")
    bad = load_classifier(folder, bad=name, device="cpu")
    # The second prompt would change the score, were it read.
    found = bad(["", "w1 w2", "", ""], TEXTS)
    assert found == pytest.approx([1.0 - share for share in expected], abs=1e-6)
    good = load_classifier(folder, good=name, device="cpu")
    assert good([""] * 4, TEXTS) == pytest.approx(expected, abs=1e-6)
    odds = load_classifier(folder, bad=name, scale="logit", device="cpu")
    assert odds([""] * 4, TEXTS) == pytest.approx([math.log((1.0 - p) / p) for p in expected], abs=1e-4)
    assert len({bad.name, good.name, odds.name}) == 3
    assert bad.name.startswith("1 - P(NEGATIVE) of classifier@")
    assert odds.name.startswith("-logit P(NEGATIVE) of ")


def test_scores_in_batches_are_those_one_by_one(folder: Path) -> None:
    scorer = load_classifier(folder, bad=1, device="cpu")
    rewards = scorer([""] * len(TEXTS), TEXTS)
    assert scorer.verified([Prompt.of_text("")], [TEXTS], rewards).difference <= 1e-6


def test_an_unknown_label_lists_those_that_there_are(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"bad: found 'hate'.*0 \(NEGATIVE\), 1 \(POSITIVE\)"):
        load_classifier(folder, bad="hate")
    with pytest.raises(ModelError, match="good: found '2'"):
        load_classifier(folder, good="2")


@pytest.mark.parametrize("options", [{}, {"bad": "0", "good": "1"}])
def test_the_sign_has_to_be_said(folder: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="sign of the reward"):
        load_classifier(folder, **options)


def test_what_is_no_classifier_is_refused(folder: Path) -> None:
    set_config(folder, problem_type="regression")
    with pytest.raises(ModelError, match="regression"):
        load_classifier(folder, bad="0")


def test_only_the_response_can_be_read(folder: Path) -> None:
    with pytest.raises(ConfigError, match="response alone"):
        load_classifier(folder, bad="0", encoding=Encoding(form="pair", max_tokens=64))
