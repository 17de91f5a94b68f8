"""Laws that every preference loss obeys, over one table of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rewardlab.functional import preference

Loss = Callable[[Tensor, Tensor], Tensor]

MARGIN = 0.25
PAIRWISE: dict[str, Loss] = {
    "bradley_terry": preference.bradley_terry,
    "bradley_terry, margin": lambda c, r: preference.bradley_terry(c, r, torch.full_like(c, MARGIN)),
    "bradley_terry, smoothed": lambda c, r: preference.bradley_terry(c, r, label_smoothing=0.1),
    "bradley_terry, margin, smoothed": lambda c, r: preference.bradley_terry(c, r, torch.full_like(c, MARGIN), 0.1),
    "tied": preference.tied,
    "centring": preference.centring,
}
# The second argument is what the loss compares a reward with.
POINTWISE: dict[str, Loss] = {
    "binary": lambda rewards, targets: preference.binary(rewards, (targets > 0).to(rewards.dtype)),
    "regression": preference.regression,
}
LOSSES = PAIRWISE | POINTWISE

DEPENDS_ON_DIFFERENCE = [name for name in PAIRWISE if name != "centring"]
LARGE = 1e4


def sides(seed: int, n: int = 64, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, n, generator=generator, dtype=torch.float64).mul(3.0).to(dtype)
    return first, second


@pytest.mark.parametrize("name", LOSSES)
def test_one_loss_per_row_that_depends_on_that_row_alone(name: str) -> None:
    first, second = sides(1)
    together = LOSSES[name](first, second)
    assert together.shape == first.shape
    for row in (0, 17, 63):
        # A vectorised logarithm may round the last bit otherwise than a single one.
        alone = LOSSES[name](first[row : row + 1], second[row : row + 1])
        assert alone.item() == pytest.approx(together[row].item(), rel=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_permuting_rows_permutes_losses(name: str) -> None:
    first, second = sides(2)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(LOSSES[name](first[order], second[order]), LOSSES[name](first, second)[order])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_never_negative(name: str) -> None:
    assert (LOSSES[name](*sides(4)) >= 0).all()


@pytest.mark.parametrize("name", DEPENDS_ON_DIFFERENCE)
def test_adding_a_constant_to_all_rewards_changes_nothing(name: str) -> None:
    chosen, rejected = sides(5)
    torch.testing.assert_close(LOSSES[name](chosen + 7.5, rejected + 7.5), LOSSES[name](chosen, rejected))


def test_centring_is_what_ties_the_constant_down() -> None:
    chosen, rejected = sides(6)
    shift = -(chosen + rejected).mean() / 2
    assert preference.centring(chosen + shift, rejected + shift).mean() < preference.centring(chosen, rejected).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_swapping_sides_is_flipping_labels(smoothing: float, margin: float) -> None:
    """loss(r, c; eps) = (1 - eps) l(r, c) + eps l(c, r): the loss of the flipped pair, label by label."""
    chosen, rejected = sides(7)
    margins = torch.full_like(chosen, margin)
    straight = preference.bradley_terry(chosen, rejected, margins)
    flipped = preference.bradley_terry(rejected, chosen, margins)
    mixed = preference.bradley_terry(rejected, chosen, margins, smoothing)
    torch.testing.assert_close(mixed, (1 - smoothing) * flipped + smoothing * straight)


def test_sides_and_their_swap_differ_by_the_difference_of_rewards() -> None:
    """-log sigma(-h) + log sigma(h) = h, exactly the identity of the logistic function."""
    chosen, rejected = sides(8)
    gap = preference.bradley_terry(rejected, chosen) - preference.bradley_terry(chosen, rejected)
    torch.testing.assert_close(gap, chosen - rejected)


@pytest.mark.parametrize("name", ["centring", "tied"])
def test_what_has_no_better_side_does_not_see_the_sides(name: str) -> None:
    first, second = sides(9)
    assert torch.equal(PAIRWISE[name](first, second), PAIRWISE[name](second, first))


def test_flipping_a_label_is_flipping_the_reward() -> None:
    rewards, _ = sides(10)
    ones, zeros = torch.ones_like(rewards), torch.zeros_like(rewards)
    torch.testing.assert_close(preference.binary(rewards, zeros), preference.binary(-rewards, ones))


def test_a_label_against_a_reference_of_zero_is_a_pair() -> None:
    """Pointwise logistic on a good row is Bradley-Terry against a completion of reward 0."""
    rewards, _ = sides(11)
    torch.testing.assert_close(
        preference.binary(rewards, torch.ones_like(rewards)),
        preference.bradley_terry(rewards, torch.zeros_like(rewards)),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_losses_are_computed_in_float32_at_least(name: str, dtype: torch.dtype) -> None:
    first, second = sides(12, dtype=dtype)
    found = LOSSES[name](first, second)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = LOSSES[name](first.double(), second.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    first, second = (side.requires_grad_() for side in sides(13, n=8))
    # A label is a choice, not a quantity: the pointwise target has no gradient.
    inputs = (first, second) if name != "binary" else (first, second.detach())
    assert torch.autograd.gradcheck(LOSSES[name], inputs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_losses_and_gradients_stay_finite_at_large_rewards(name: str, dtype: torch.dtype, sign: float) -> None:
    first = torch.tensor([sign * LARGE, 0.0, -LARGE], dtype=dtype, requires_grad=True)
    second = torch.tensor([-sign * LARGE, 0.0, -LARGE], dtype=dtype)
    loss = LOSSES[name](first, second)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("name", DEPENDS_ON_DIFFERENCE)
def test_gradients_of_a_pair_are_bounded_and_cancel(name: str) -> None:
    chosen, rejected = (side.requires_grad_() for side in sides(14))
    LOSSES[name](chosen, rejected).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    torch.testing.assert_close(chosen.grad, -rejected.grad)
    assert (chosen.grad.abs() <= 1.0).all()


@pytest.mark.parametrize("name", ["bradley_terry", "bradley_terry, margin"])
def test_a_larger_win_costs_less(name: str) -> None:
    chosen = torch.linspace(-5.0, 5.0, 41, dtype=torch.float64)
    assert (LOSSES[name](chosen, torch.zeros_like(chosen)).diff() < 0).all()


@pytest.mark.parametrize("smoothing", [0.05, 0.2])
def test_a_smoothed_loss_is_least_at_the_believed_odds(smoothing: float) -> None:
    best = torch.tensor([math.log((1 - smoothing) / smoothing)], dtype=torch.float64, requires_grad=True)
    preference.bradley_terry(best, torch.zeros_like(best), label_smoothing=smoothing).sum().backward()
    assert best.grad is not None
    assert best.grad.item() == pytest.approx(0.0, abs=1e-12)
