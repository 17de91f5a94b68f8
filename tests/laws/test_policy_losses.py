"""Laws that every objective of a policy obeys, over the one table of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardlab.functional import alignment, preference
from rewardlab.functional.objectives import OBJECTIVES

OPTIONS = {"beta": 0.4, "reward_beta": 0.7, "label_smoothing": 0.1, "gamma": 0.5}
OF_REWARDS = [name for name, one in OBJECTIVES.items() if one.labels == "rewards"]
OF_ORDER = [name for name, one in OBJECTIVES.items() if one.labels == "order"]
# A shift of all log-ratios by one constant is another shift per token.
OF_SUMS = [name for name, one in OBJECTIVES.items() if not one.lengths]
LARGE = 1e4


def drawn(seed: int, candidates: int, prompts: int = 16, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Values, rewards and lengths."""
    generator = torch.Generator().manual_seed(seed)
    values, rewards = torch.randn(2, prompts, candidates, generator=generator, dtype=torch.float64).mul(3.0).to(dtype)
    return values, rewards, torch.randint(1, 50, (prompts, candidates), generator=generator)


def losses(name: str, values: Tensor, rewards: Tensor, lengths: Tensor, present: Tensor | None = None) -> Tensor:
    objective = OBJECTIVES[name]
    options = {key: OPTIONS[key] for key in objective.options}
    given = {"rewards": rewards} if objective.labels == "rewards" else {}
    return objective.losses(values, **given, lengths=lengths, present=present, **options)


def sizes(name: str) -> list[int]:
    return [2, 3, 8] if OBJECTIVES[name].largest is None else [2]


EACH = [pytest.param(name, size, id=f"{name}, {size}") for name in OBJECTIVES for size in sizes(name)]
EACH_OF_SUMS = [pytest.param(name, size, id=f"{name}, {size}") for name in OF_SUMS for size in sizes(name)]


@pytest.mark.parametrize(("name", "size"), EACH)
def test_one_loss_per_prompt_that_depends_on_that_prompt_alone(name: str, size: int) -> None:
    given = drawn(1, size)
    together = losses(name, *given)
    assert together.shape == (16,)
    for place in (0, 7, 15):
        alone = losses(name, *(one[place : place + 1] for one in given))
        # A vectorised logarithm may round the last bit otherwise than a single one.
        torch.testing.assert_close(alone, together[place : place + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OF_REWARDS)
@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_order_of_candidates_changes_nothing(name: str, size: int) -> None:
    given = drawn(2, size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(3))
    present = torch.rand(16, size, generator=torch.Generator().manual_seed(4)) < 0.7
    torch.testing.assert_close(losses(name, *(one[:, order] for one in given)), losses(name, *given))
    found = losses(name, *(one[:, order] for one in given), present=present[:, order])
    torch.testing.assert_close(found, losses(name, *given, present=present))


@pytest.mark.parametrize("name", OF_ORDER)
def test_winner_and_loser_are_not_the_same(name: str) -> None:
    """Of the orders of a pair, the one that the policy has already costs less."""
    values, rewards, lengths = drawn(4, 2)
    values = torch.sort(values, dim=1, descending=True).values.mul(0.1)
    lengths = lengths[:, :1].expand(-1, 2)
    assert (losses(name, values, rewards, lengths) < losses(name, values.flip(1), rewards, lengths)).all()


@pytest.mark.parametrize("name", OF_REWARDS)
def test_a_common_shift_of_rewards_changes_nothing(name: str) -> None:
    values, rewards, lengths = drawn(5, 4)
    shift = torch.linspace(-9.0, 9.0, 16, dtype=torch.float64).unsqueeze(1)
    found = losses(name, values, rewards + shift, lengths)
    torch.testing.assert_close(found, losses(name, values, rewards, lengths))


@pytest.mark.parametrize(("name", "size"), EACH_OF_SUMS)
def test_a_common_shift_of_log_ratios_changes_nothing(name: str, size: int) -> None:
    values, rewards, lengths = drawn(6, size)
    shift = torch.linspace(-9.0, 9.0, 16, dtype=torch.float64).unsqueeze(1)
    found = losses(name, values + shift, rewards, lengths)
    torch.testing.assert_close(found, losses(name, values, rewards, lengths))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - set(OF_SUMS)))
def test_a_common_shift_of_every_token_changes_nothing(name: str) -> None:
    values, rewards, lengths = drawn(6, 2)
    torch.testing.assert_close(
        losses(name, values + 1.5 * lengths, rewards, lengths), losses(name, values, rewards, lengths)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exo-rw", 0.0),
        ("dpo-rw", math.log(2)),
        ("exo-pref", -math.log(2) - math.log(0.09) / 2),
        ("exo-pref-published", 5.0 - math.log(2)),
        ("dpo-pref", math.log(2)),
        ("robust", math.log(2)),
        ("hinge", 1.0),
        ("ipo", 1.5625),
        ("ipo-sum", 1.5625),
        ("simpo", math.log1p(math.exp(0.5))),
    ],
)
def test_identical_candidates_have_the_loss_of_no_difference(name: str, expected: float) -> None:
    values, rewards, lengths = (one[:, :1].expand(-1, 2) for one in drawn(7, 2))
    found = losses(name, values, rewards, lengths)
    assert found.tolist() == pytest.approx([expected] * 16, abs=1e-12)


@pytest.mark.parametrize("name", OF_REWARDS)
@pytest.mark.parametrize("size", [3, 8])
def test_identical_candidates_of_equal_reward_have_no_gradient(name: str, size: int) -> None:
    values, rewards, lengths = (one[:, :1].repeat(1, size) for one in drawn(7, 2))
    (gradient,) = torch.autograd.grad(losses(name, values.requires_grad_(), rewards, lengths).sum(), values)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("name", OF_REWARDS)
@pytest.mark.parametrize("size", [2, 3, 8])
def test_at_the_optimum_the_gradient_is_zero_and_the_loss_the_least(name: str, size: int) -> None:
    """beta s = r / beta_r + constant makes q = p."""
    _, rewards, lengths = drawn(8, size)
    best = (rewards / (OPTIONS["beta"] * OPTIONS["reward_beta"]) - 3.0).requires_grad_()
    found = losses(name, best, rewards, lengths)
    (gradient,) = torch.autograd.grad(found.sum(), best)
    assert gradient.abs().max() < 1e-12
    p = torch.softmax(rewards / OPTIONS["reward_beta"], dim=1)
    entropy = -torch.special.xlogy(p, p).sum(dim=1)
    torch.testing.assert_close(found.detach(), torch.zeros_like(found) if name == "exo-rw" else entropy)
    for seed in range(5):
        other = best.detach() + drawn(seed, size)[0]
        assert (losses(name, other, rewards, lengths) > found).all()


@pytest.mark.parametrize("eps", [1e-3, 0.1, 0.4])
def test_two_candidates_with_smoothed_rewards_are_a_pair(eps: float) -> None:
    """Rewards whose softmax is (1 - eps, eps)."""
    values, _, _ = drawn(9, 2)
    rewards = torch.tensor([[math.log(1 - eps) + 5.0, math.log(eps) + 5.0]], dtype=torch.float64).mul(0.7).repeat(16, 1)
    torch.testing.assert_close(alignment.exo_rw(values, rewards, 0.4, 0.7), alignment.exo_pref(values, 0.4, eps))
    torch.testing.assert_close(alignment.dpo_rw(values, rewards, 0.4, 0.7), alignment.dpo_pref(values, 0.4, eps))


def test_dpo_is_bradley_terry_on_implied_rewards() -> None:
    values, _, _ = drawn(10, 2)
    expected = preference.bradley_terry(0.4 * values[:, 0], 0.4 * values[:, 1], label_smoothing=0.1)
    torch.testing.assert_close(alignment.dpo_pref(values, 0.4, 0.1), expected)


@pytest.mark.parametrize("name", OF_REWARDS)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rubbish", [0.0, 1e30, math.nan, -math.inf])
def test_absent_candidates_leave_the_loss_and_gradient_of_a_smaller_k(name: str, size: int, rubbish: float) -> None:
    places = torch.tensor([0, 2, 3, 4, 5, 6, 7])[:size]
    values, rewards, lengths = drawn(11, 8)
    present = torch.zeros(16, 8, dtype=torch.bool)
    present[:, places] = True
    values, rewards = (one.masked_fill(~present, rubbish) for one in (values, rewards))
    alone = values[:, places].requires_grad_()
    values.requires_grad_()
    function = {"exo-rw": alignment.exo_rw, "dpo-rw": alignment.dpo_rw}[name]
    expected = function(alone, rewards[:, places], OPTIONS["beta"], OPTIONS["reward_beta"])
    found = losses(name, values, rewards, lengths, present)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    (smaller,) = torch.autograd.grad(expected.sum(), alone)
    torch.testing.assert_close(gradient[:, places], smaller)
    assert (gradient[~present] == 0).all()


@pytest.mark.parametrize("name", OF_REWARDS)
def test_a_prompt_without_candidates_adds_nothing(name: str) -> None:
    values, rewards, lengths = drawn(12, 4)
    present = torch.ones(16, 4, dtype=torch.bool)
    present[3] = False
    values.requires_grad_()
    found = losses(name, values, rewards, lengths, present)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    assert found[3] == 0.0
    assert (gradient[3] == 0.0).all()
    torch.testing.assert_close(found[4:], losses(name, values, rewards, lengths)[4:])


@pytest.mark.parametrize(("name", "size"), EACH)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_losses_are_computed_in_float32_at_least(name: str, size: int, dtype: torch.dtype) -> None:
    values, rewards, lengths = drawn(13, size, dtype=dtype)
    found = losses(name, values, rewards, lengths)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = losses(name, values.double(), rewards.double(), lengths)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize(("name", "size"), EACH)
def test_gradients_are_those_of_finite_differences(name: str, size: int) -> None:
    values, rewards, lengths = drawn(14, size, prompts=6)
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: losses(name, given, rewards, lengths), values)


@pytest.mark.parametrize(("name", "size"), EACH)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_losses_and_gradients_stay_finite_and_right_at_large_values(
    name: str, size: int, dtype: torch.dtype, sign: float
) -> None:
    values, rewards, lengths = drawn(15, size, dtype=dtype)
    values = (values + sign * LARGE * torch.arange(size).flip(0)).to(dtype).requires_grad_()
    found = losses(name, values, rewards, lengths)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    assert found.isfinite().all()
    assert gradient.isfinite().all()
    exact = losses(name, values.detach().double(), rewards.double(), lengths)
    torch.testing.assert_close(found.detach().double(), exact, rtol=1e-4, atol=1e-4)
