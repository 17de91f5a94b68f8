"""Losses against closed forms written with `math`, and their gradients against finite differences."""

from __future__ import annotations

import math
from itertools import permutations

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


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (1.5, -0.25), (-2.0, 3.0)])
def test_a_tie_is_the_cross_entropy_with_one_half(first: float, second: float) -> None:
    """Its gradient is that of logistic regression, the probability minus its target."""
    reward = one(first).requires_grad_()
    found = preference.tied(reward, one(second))
    win = sigma(first - second)
    assert found.item() == pytest.approx(-0.5 * math.log(win) - 0.5 * math.log(1.0 - win), rel=1e-12)
    found.sum().backward()
    assert reward.grad is not None
    assert reward.grad.item() == pytest.approx(win - 0.5, abs=1e-12)


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


# --- orders ----------------------------------------------------------------------------------------------------------


def order_of(rewards: list[float], values: list[float]) -> float:
    return preference.plackett_luce(torch.tensor(rewards, dtype=torch.float64), torch.tensor(values)).item()


@pytest.mark.parametrize("rewards", [[0.3, -1.0], [0.0, 0.0, 2.0], [1.5, -0.5, 0.2, -3.0], [0.1, 2.0, -1.0, 0.7, 0.4]])
def test_the_probabilities_of_all_orders_add_up_to_one(rewards: list[float]) -> None:
    orders = [list(map(float, order)) for order in permutations(range(len(rewards)))]
    assert sum(math.exp(-order_of(rewards, order)) for order in orders) == pytest.approx(1.0, rel=1e-12)


def test_an_order_is_a_choice_of_the_best_of_the_rest_again_and_again() -> None:
    """Strengths 1, 2 and 3: the third first 3/6, then the second 2/3."""
    strengths = [math.log(strength) for strength in (1, 2, 3)]
    assert math.exp(-order_of(strengths, [0.0, 5.0, 5.5])) == pytest.approx(3 / 6 * 2 / 3, rel=1e-12)
    assert math.exp(-order_of(strengths, [9.0, -1.0, 2.0])) == pytest.approx(1 / 6 * 3 / 5, rel=1e-12)


def test_equal_candidates_are_not_compared_with_each_other() -> None:
    a, b, c = (math.log(strength) for strength in (1, 2, 3))
    # The best of three, and nothing about the other two.
    assert math.exp(-order_of([a, b, c], [0.0, 0.0, 1.0])) == pytest.approx(3 / 6, rel=1e-12)
    # Two that are each better than the third.
    assert math.exp(-order_of([a, b, c], [1.0, 1.0, 0.0])) == pytest.approx(1 / 4 * 2 / 5, rel=1e-12)
    assert order_of([a, b, c], [1.0, 1.0, 1.0]) == 0.0


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, 0.0), (1.5, -0.25), (-2.0, 3.0)])
def test_an_order_of_two_is_a_pair(chosen: float, rejected: float) -> None:
    pair = preference.bradley_terry(one(chosen), one(rejected)).item()
    assert order_of([chosen, rejected], [1.0, 0.0]) == pytest.approx(pair, rel=1e-12)
    assert order_of([rejected, chosen], [0.0, 1.0]) == pytest.approx(pair, rel=1e-12)


def test_an_order_depends_on_differences_alone_and_not_on_how_it_is_listed() -> None:
    rewards, values = [0.3, -1.0, 2.0, 0.4], [2.0, 0.0, 0.0, 1.0]
    expected = order_of(rewards, values)
    assert order_of([reward + 100.0 for reward in rewards], values) == pytest.approx(expected, rel=1e-12)
    assert order_of(rewards[::-1], values[::-1]) == pytest.approx(expected, rel=1e-12)
    assert order_of(rewards, [math.exp(value) for value in values]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0]])
def test_gradients_of_an_order_are_those_of_finite_differences(values: list[float]) -> None:
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: preference.plackett_luce(given, torch.tensor(values)), rewards)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_order_of_large_rewards_stays_finite(dtype: torch.dtype) -> None:
    rewards = torch.tensor([1e4, -1e4, 0.0], dtype=dtype, requires_grad=True)
    loss = preference.plackett_luce(rewards, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.dtype == torch.float32
    # The third before the first, then the second before the first.
    assert loss.item() == pytest.approx(1e4 + 2e4, rel=1e-2)
    assert rewards.grad is not None
    assert rewards.grad.isfinite().all()
