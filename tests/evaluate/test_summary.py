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
        ((0.63, 0.60, 0.66), 0.62, "its scores claim 62.0 %, which is inside that interval"),
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
        "Its accuracy is 5.0 points (1.0 to 9.0) above counting words and 2.0 points (\N{MINUS SIGN}1.0 to 5.0) "
        "below preferring the longer answer; with the prompts shuffled it loses 4.0 points (1.0 to 7.0): it uses the "
        "prompt, or such an input is only strange to it."
    )
    blind = findings(result(**known, ignorance__response_only__lost=(0.01, -0.01, 0.03)))[2]
    assert blind.endswith(
        "without the prompt it loses 1.0 points (\N{MINUS SIGN}1.0 to 3.0): nothing shows that it uses the prompt."
    )
    better = findings(result(**known, ignorance__shuffled_prompt__lost=(-0.115, -0.247, 0.016)))[2]
    assert better.endswith(
        "with the prompts shuffled it does not lose but is 11.5 points (\N{MINUS SIGN}1.6 to 24.7) better: nothing "
        "shows that it uses the prompt."
    )


@pytest.mark.parametrize("gain", [0.0, -0.0, 0.0001, -0.0001])
def test_what_rounds_to_nothing_has_no_sign(gain: float) -> None:
    sentence = findings(result(baselines__bag_of_words__gain=(gain, -0.0002, 0.0004)))[2]
    assert sentence.startswith("Its accuracy is 0.0 points (0.0 to 0.0) ")


def candidates_only(**values: tuple[float, float, float] | float | None) -> dict[str, Any]:
    made = result(**values)
    return {**made, "counts": {"pairs": 0, "candidates": 14, "prompts": 14, "shared_roots": 0}}


def test_candidates_alone_say_what_needs_pairs() -> None:
    """The intervals are those of the estimates, and nobody reads of 0 pairs."""
    made = candidates_only(
        accuracy=None,
        agreement__pairwise=(0.952, 0.882, 1.0),
        length__tokens__within_prompt_pearson=(0.785, 0.493, 1.0),
    )
    assert findings(made) == [
        (
            "It orders 95.2 % (95 % interval 88.2 to 100.0) of the pairs of candidates of a prompt of the set test "
            "(14 prompts) as their rewards do."
        ),
        "Among the answers to one prompt, its scores correlate with length by +0.79 (0.49 to 1.00).",
        (
            "Baselines, probes, calibration and margins need pairs, and these data hold none: `data prepare "
            "--candidates pairs` makes pairs of candidates with rewards."
        ),
    ]
    assert format_accuracy(made).startswith("model on test: 14 prompts; ")


@pytest.mark.parametrize(("shared", "told"), [(None, True), (0, False), (3, False)])
def test_overlap_that_was_not_looked_for_is_told_below_the_first_finding(shared: int | None, told: bool) -> None:
    made = result(accuracy=(0.94, 0.9, 0.98), calibration__confidence=0.9)
    made["counts"] |= {"shared_roots": shared, "roots": 900}
    warning = "Training data were not given (`--train`), so overlap with them was not checked."
    assert (findings(made)[1] == warning) == told
    assert (warning in findings(made)) == told


def test_one_is_singular() -> None:
    made = result(accuracy=(0.63, 0.6, 0.66), calibration__confidence=0.62)
    made["counts"] = {"pairs": 1, "prompts": 1, "roots": 1, "shared_roots": 1}
    sentences = findings(made)
    assert "of 1 pair of the set" in sentences[0]
    assert sentences[-1].startswith("Of the 1 conversation evaluated, 1 begins like")
    assert "test: 1 pair, 1 prompt;" in format_accuracy(made)


def test_the_known_truth_is_told() -> None:
    gold = {"gold__accuracy_of_labels": (0.84, 0.81, 0.87), "gold__accuracy": (0.76, 0.72, 0.8)}
    first = findings(result(**gold, gold__accuracy_clear=(0.91, 0.87, 0.95)))[0]
    assert first.endswith(
        "The truth is known here (gold): 84.0 % (81.0 to 87.0) of the labels follow it, as many as a model that knew "
        "it would get; this one orders 76.0 % (72.0 to 80.0) of the pairs as it does, and 91.0 % (87.0 to 95.0) of "
        "those whose gold rewards differ by more than 4."
    )
    assert findings(result(**gold, gold__accuracy_clear=None))[0].endswith("of the pairs as it does.")


def test_nothing_known_is_said_too() -> None:
    sentences = findings(result(accuracy=None))
    assert len(sentences) == 3
    assert all(sentence.endswith(".") for sentence in sentences)


def test_the_table_has_a_line_per_estimate() -> None:
    text = format_accuracy(result(accuracy=(0.63, 0.6, 0.66), margin__sd=None))
    assert text.splitlines()[0] == "model on test: 1,200 pairs, 900 prompts; 95 % intervals, clustered by prompt"
    assert "accuracy     0.630  [0.600, 0.660]    200 pairs" in text
    assert "margin.sd        -  not to be had" in text
