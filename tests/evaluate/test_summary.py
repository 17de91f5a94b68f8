"""Findings say in words what the numbers say, whatever is missing."""

from __future__ import annotations

from typing import Any

import pytest

from rewardlab.evaluate.summary import findings, format_accuracy
from rewardlab.records import Estimate


def result(**values: tuple[float, float, float] | float | None) -> dict[str, Any]:
    """An accuracy.json with these estimates (value, low, high), `__` for a dot in their names."""
    estimates = []
    for name, value in values.items():
        value, low, high = value if isinstance(value, tuple) else (value, None, None)
        reason = "not to be had" if value is None else ""
        estimates.append(Estimate(name.replace("__", "."), value, low, high, n=200, reason=reason).as_dict())
    return {
        "split": "test",
        "scorer": {"names": ["model"], "folds": 1},
        "options": {"level": 0.95, "cluster": "prompt", "seed": 0},
        "counts": {"pairs": 1200, "prompts": 900},
        "estimates": {"all": estimates},
    }


@pytest.mark.parametrize(
    ("accuracy", "claimed", "words"),
    [
        ((0.63, 0.60, 0.66), 0.70, "its scores claim 70.0 %, so it is overconfident"),
        ((0.63, 0.60, 0.66), 0.55, "its scores claim 55.0 %, so it is underconfident"),
        ((0.63, 0.60, 0.66), 0.62, "its scores claim 62.0 %, about what it keeps"),
        ((0.51, 0.48, 0.54), 0.60, "not distinguishable from a coin flip"),
        ((0.40, 0.36, 0.44), 0.60, "worse than a coin flip"),
    ],
)
def test_how_good(accuracy: tuple[float, float, float], claimed: float, words: str) -> None:
    sentence = findings(result(accuracy=accuracy, calibration__confidence=claimed))[0]
    assert sentence.startswith(f"It prefers the chosen answer in {100 * accuracy[0]:.1f} % (95 % interval ")
    assert "1,200 pairs of the set test" in sentence
    assert words in sentence


def test_how_much_is_length() -> None:
    sentence = findings(
        result(
            length__tokens__longer_scores_higher=(0.71, 0.68, 0.74),
            length__tokens__heuristic_accuracy=0.52,
            length__tokens__longer_is_chosen=0.55,
            length__tokens__accuracy_longer_chosen=0.8,
            length__tokens__accuracy_shorter_chosen=0.4,
            length__tokens__accuracy_balanced=0.56,
        )
    )[1]
    assert sentence == (
        "It scores the longer answer higher in 71.0 % (68.0 to 74.0) of the pairs that differ in length; the data "
        "prefer it in 55.0 %. It is right in 80.0 % where the longer answer was chosen, 40.0 % where the shorter one "
        "was, 56.0 % where length cannot help."
    )


def test_length_from_candidates_alone() -> None:
    assert (
        "correlate with length by \N{MINUS SIGN}0.25"
        in findings(result(length__tokens__within_prompt_pearson=-0.25))[1]
    )


def test_what_more_it_knows() -> None:
    known = {
        "baselines__bag_of_words__gain": (0.05, 0.01, 0.09),
        "baselines__longer_tokens__gain": (-0.02, -0.05, 0.01),
    }
    reads = findings(result(**known, ignorance__shuffled_prompt__lost=(0.04, 0.01, 0.07)))[2]
    assert reads == (
        "It gains 5.0 points (1.0 to 9.0) over counting words and \N{MINUS SIGN}2.0 points (\N{MINUS SIGN}5.0 to 1.0) "
        "over preferring the longer answer; with the prompts shuffled it loses 4.0 points (1.0 to 7.0), so it uses the "
        "prompt."
    )
    blind = findings(result(**known, ignorance__response_only__lost=(0.01, -0.01, 0.03)))[2]
    assert blind.endswith("nothing shows that it uses the prompt.")


def test_nothing_known_is_said_too() -> None:
    sentences = findings(result(accuracy=None))
    assert len(sentences) == 3
    assert all(sentence.endswith(".") for sentence in sentences)


def test_the_table_has_a_line_per_estimate() -> None:
    text = format_accuracy(result(accuracy=(0.63, 0.6, 0.66), margin__sd=None))
    assert text.splitlines()[0] == "model on test: 1,200 pairs, 900 prompts; 95 % intervals, clustered by prompt"
    assert "accuracy     0.630  [0.600, 0.660]    200 pairs" in text
    assert "margin.sd        -  not to be had" in text
