"""Numbers and names as a reader sees them."""

from __future__ import annotations

import pytest

from rewardlab.records import Estimate
from rewardlab.report import words


def made(name: str, value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(name, value, low, high, n=1204, clusters=310)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (made("accuracy", 0.6714, 0.642, 0.7), "67.1\N{NO-BREAK SPACE}% (64.2 to 70.0)"),
        (made("accuracy.subset.a.b", 0.5), "50.0\N{NO-BREAK SPACE}%"),
        (made("baselines.bag_of_words.gain", 0.063, -0.01, 0.12), "+6.3 points (−1.0 to +12.0)"),
        (made("ignorance.shuffled_prompt.lost", -0.002), "−0.2 points"),
        (made("length.tokens.accuracy_gap", 0.1), "+10.0 points"),
        (made("length.tokens.heuristic_accuracy", 0.5), "50.0\N{NO-BREAK SPACE}%"),
        (made("length.tokens.delta_pearson", -0.1234, -0.2, 0.0), "−0.123 (−0.200 to 0.000)"),
        (made("calibration.ece", 0.046), "4.6\N{NO-BREAK SPACE}%"),
        (made("calibration.slope", 0.83), "0.830"),
        (made("margin.mean", 1.5), "1.500"),
        (made("accuracy", None), words.DASH),
    ],
)
def test_estimates(estimate: Estimate, expected: str) -> None:
    assert words.estimate_words(estimate) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", "Accuracy of the model"),
        ("accuracy.subset.helpful.base", "Subset helpful.base"),
        ("accuracy.fold.3", "Fold 3"),
        ("length.characters.longer_scores_higher", "Longer answer scores higher"),
        ("length.tokens.longer_is_chosen", "Longer answer is chosen"),
        ("length.characters.new_measure", "length.characters.new_measure"),
        ("something.else", "something.else"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert words.name_of(Estimate(name, 0.5)) == expected


def test_basis() -> None:
    assert words.basis_words(made("accuracy", 0.5)) == "1,204 pairs in 310 clusters"
    assert words.basis_words(Estimate("x", 0.5, n=3, unit="prompts")) == "3 prompts"


def test_nested_facts_are_flat_and_readable() -> None:
    values = {
        "a": {"b": 1234, "c": {"d": None}},
        "e": [True, 2.5],
        "f": [],
        "g": -3,
        "h": 1e300,
        "k": 3.5762786865234375e-07,
        "l": -1e-05,
        "m": 0.0,
        "i": {"j": [{"k": 1}]},
    }
    assert words.flat(values) == {
        "a.b": "1,234",
        "a.c.d": words.DASH,
        "e": "yes, 2.500",
        "f": words.DASH,
        "g": "−3",
        "h": "1e+300",
        "k": "3.6e-07",
        "l": "−1e-05",
        "m": "0.000",
        "i.j": "{'k': 1}",
    }
