"""Log-odds of classes against probabilities computed the long way."""

from __future__ import annotations

import math

import pytest
import torch

from rewardlab.functional.classes import log_odds

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [5.0, 5.0, -4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_exclusive_classes_have_the_odds_of_the_softmax(label: int) -> None:
    found = log_odds(LOGITS, label)
    for row, odds in zip(LOGITS.tolist(), found.tolist(), strict=True):
        masses = [math.exp(value) for value in row]
        share = masses[label] / sum(masses)
        assert odds == pytest.approx(math.log(share / (1.0 - share)), abs=1e-12)


def test_two_classes_are_mirrored_and_three_equal_ones_have_odds_of_one_to_two() -> None:
    two = LOGITS[:, :2]
    torch.testing.assert_close(log_odds(two, 0), -log_odds(two, 1))
    assert log_odds(LOGITS, 1)[2].item() == pytest.approx(-math.log(2.0))


def test_a_class_alone_and_classes_that_do_not_exclude_each_other_are_logistic() -> None:
    one = LOGITS[:, 1:2]
    torch.testing.assert_close(log_odds(one, 0), one[:, 0])
    torch.testing.assert_close(log_odds(LOGITS, 2, exclusive=False), LOGITS[:, 2])


def test_odds_go_on_where_probabilities_are_1() -> None:
    far = torch.tensor([[60.0, 0.0], [80.0, 0.0]], dtype=torch.float32)
    assert far.softmax(dim=1)[:, 0].tolist() == [1.0, 1.0]
    assert log_odds(far, 0).tolist() == [60.0, 80.0]
