"""Losses against closed forms written with `math`, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from rewardlab.functional import preference


def sigma(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def one(value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype)


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, 0.0), (1.5, -0.25), (-2.0, 3.0), (4.0, 4.5)])
@pytest.mark.parametrize("margin", [None, 0.0, 0.7, -0.4])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.49])
def test_bradley_terry_is_its_formula(chosen: float, rejected: float, margin: float | None, smoothing: float) -> None:
    m = margin or 0.0
    won, lost = -math.log(sigma(chosen - rejected - m)), -math.log(sigma(rejected - chosen - m))
    found = preference.bradley_terry(
        one(chosen), one(rejected), None if margin is None else one(margin), label_smoothing=smoothing
    )
    assert found.item() == pytest.approx((1 - smoothing) * won + smoothing * lost, rel=1e-12)


def test_bradley_terry_of_equal_rewards_is_log_two() -> None:
    assert preference.bradley_terry(one(3.0), one(3.0)).item() == pytest.approx(math.log(2.0))


def test_margin_asks_for_a_larger_win() -> None:
    at_margin = preference.bradley_terry(one(2.0), one(1.0), one(1.0))
    assert at_margin.item() == pytest.approx(math.log(2.0))


def test_gradient_is_minus_the_probability_of_being_wrong() -> None:
    chosen = one(0.3).requires_grad_()
    preference.bradley_terry(chosen, one(1.1)).sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-sigma(1.1 - 0.3), rel=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0])
def test_label_smoothing_outside_its_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        preference.bradley_terry(one(0.0), one(0.0), label_smoothing=smoothing)


@pytest.mark.parametrize(("chosen", "rejected", "expected"), [(1.0, -1.0, 0.0), (2.0, 1.5, 12.25), (-3.0, 1.0, 4.0)])
def test_centring_is_the_squared_sum(chosen: float, rejected: float, expected: float) -> None:
    assert preference.centring(one(chosen), one(rejected)).item() == expected


@pytest.mark.parametrize("reward", [-3.0, 0.0, 0.5, 4.0])
@pytest.mark.parametrize("label", [0.0, 1.0, 0.25])
def test_binary_is_the_logistic_likelihood(reward: float, label: float) -> None:
    expected = -label * math.log(sigma(reward)) - (1 - label) * math.log(sigma(-reward))
    assert preference.binary(one(reward), one(label)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_binary_takes_labels_of_any_kind(dtype: torch.dtype) -> None:
    found = preference.binary(torch.tensor([2.0, 2.0]), torch.tensor([1, 0]).to(dtype))
    assert found.tolist() == pytest.approx([-math.log(sigma(2.0)), -math.log(sigma(-2.0))], rel=1e-6)


def test_regression_is_the_squared_error() -> None:
    assert preference.regression(one(1.5), one(-1.0)).item() == 6.25
