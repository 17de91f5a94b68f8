"""PPO by closed forms, slow loops, finite differences and worked numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardlab.functional import ppo

MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 5, [True] + [False] * 4])


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spoiled(values: Tensor, mask: Tensor = MASK) -> Tensor:
    """What stands outside the mask must not matter."""
    return torch.where(mask, values, torch.nan)


# --- divergence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_both_estimators_have_the_exact_divergence_as_their_mean(estimator: ppo.Estimator) -> None:
    """Over a small vocabulary the mean under the policy is a sum, so there is no sampling error."""
    policy, reference = (drawn(seed, 7).log_softmax(0) for seed in (1, 2))
    exact = torch.nn.functional.kl_div(reference, policy, log_target=True, reduction="sum")
    found = (policy.exp() * ppo.divergence(policy, reference, estimator)).sum()
    torch.testing.assert_close(found, exact)


def test_k3_is_never_negative_and_exact_near_zero() -> None:
    policy = torch.tensor([0.0, -1.0, -1e-4], dtype=torch.float64)
    reference = torch.tensor([1.0, -3.0, 0.0], dtype=torch.float64)
    found = ppo.divergence(policy, reference, "k3")
    assert found[0].item() == pytest.approx(math.e - 1 - 1)
    assert found[1].item() == pytest.approx(math.exp(-2) - 1 + 2)
    assert found[2].item() == pytest.approx(5e-9, rel=1e-3), "d^2 / 2"
    assert (ppo.divergence(policy, reference) < 0).any()


# --- rewards and advantages ---------------------------------------------------------------------------------------


def test_the_score_stands_at_the_last_token() -> None:
    found = ppo.token_rewards(spoiled(torch.ones(4, 5)), torch.tensor([5.0, 7.0, 9.0, 11.0]), MASK, beta=0.1)
    expected = torch.tensor([[-0.1, -0.1, -0.1, -0.1, 4.9], [-0.1, -0.1, 6.9, 0, 0], [0] * 5, [10.9, 0, 0, 0, 0]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_advantages_are_the_double_sum(gamma: float, lam: float) -> None:
    rewards, values = drawn(3, 4, 5), drawn(4, 4, 5)
    found = ppo.generalised_advantages(spoiled(rewards), spoiled(values), MASK, gamma, lam)
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        v = [*values[row, :length].tolist(), 0.0]
        delta = [rewards[row, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(5):
            expected = sum((gamma * lam) ** (later - t) * delta[later] for later in range(t, length))
            assert found.advantages[row, t].item() == pytest.approx(expected if t < length else 0.0)
            expected_return = expected + v[t] if t < length else 0.0
            assert found.returns[row, t].item() == pytest.approx(expected_return)


def test_without_discount_and_with_lambda_one_returns_are_rewards_to_go() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    found = ppo.generalised_advantages(rewards, torch.tensor([[0.5, 0.25, 8.0]]), torch.ones(1, 3).bool(), 1.0, 1.0)
    torch.testing.assert_close(found.returns, torch.tensor([[7.0, 6.0, 4.0]]))


def test_leave_one_out_by_hand() -> None:
    scores = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    expected = torch.tensor([[1 - 4.0, 2 - 3.5, 6 - 1.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(ppo.leave_one_out(scores), expected)
    with pytest.raises(ValueError, match="two or more"):
        ppo.leave_one_out(torch.ones(3, 1))


def test_whitened_values_have_mean_0_and_variance_1() -> None:
    values = spoiled(40.0 + 3.0 * drawn(5, 4, 5))
    found = ppo.whitened(values, MASK)
    assert found[MASK].mean().item() == pytest.approx(0.0, abs=1e-12)
    assert found[MASK].var(correction=0).item() == pytest.approx(1.0, abs=1e-8)
    assert (found[~MASK] == 0).all()
    order, given = found[MASK].argsort(), values[MASK].argsort()
    assert torch.equal(order, given), "whitening keeps the order"


@pytest.mark.parametrize("mask", [MASK, torch.zeros(4, 5).bool()])
def test_equal_values_and_none_at_all_become_0(mask: Tensor) -> None:
    assert torch.equal(ppo.whitened(torch.full((4, 5), 3.0), mask), torch.zeros(4, 5))


# --- losses -------------------------------------------------------------------------------------------------------


def test_at_ratio_1_the_gradient_is_that_of_the_plain_policy_gradient() -> None:
    old, advantages = drawn(6, 9), drawn(7, 9)
    new = old.clone().requires_grad_()
    losses = ppo.policy_losses(new, old, advantages)
    torch.testing.assert_close(losses, -advantages)
    losses.sum().backward()
    torch.testing.assert_close(new.grad, -advantages)
    assert not ppo.is_clipped(old, old, advantages).any()


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped"), [
    (1.5, 2.0, -2.4, True),
    (1.5, -2.0, 3.0, False),
    (0.5, 2.0, -1.0, False),
    (0.5, -2.0, 1.6, True),
    (1.1, 2.0, -2.2, False),
    (1.5, 0.0, 0.0, False),
])  # fmt: skip
def test_the_clipped_objective_by_hand(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    new = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    given = torch.zeros(1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    found = ppo.policy_losses(new, *given)
    assert found.item() == pytest.approx(loss)
    assert ppo.is_clipped(new, *given).item() is clipped
    found.backward()
    assert new.grad is not None
    assert (new.grad.item() == 0.0) is (clipped or advantage == 0.0)


@pytest.mark.parametrize(("value", "loss"), [(0.1, 0.5 * 0.9**2), (0.9, 0.5 * 0.8**2), (2.0, 0.5 * 1.0), (-1.0, 2.0)])
def test_the_value_loss_by_hand(value: float, loss: float) -> None:
    """Old value 0, return 1, clip .2: a value may approach the return by .2 only; moving away is never forgiven."""
    found = ppo.value_losses(torch.tensor([value]), torch.zeros(1), torch.ones(1), 0.2)
    assert found.item() == pytest.approx(loss)


def test_entropy_by_hand_and_at_a_temperature() -> None:
    assert ppo.entropy(torch.zeros(8)).item() == pytest.approx(math.log(8))
    logits = drawn(8, 6, 11)
    expected = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    torch.testing.assert_close(ppo.entropy(logits, 0.7), expected)
    assert ppo.entropy(torch.tensor([0.0, -torch.inf, 0.0])).item() == pytest.approx(math.log(2))
    assert torch.autograd.gradcheck(lambda x: ppo.entropy(x, 0.7), (logits.requires_grad_(),))
    with pytest.raises(ValueError, match="temperature 0"):
        ppo.entropy(logits, 0.0)


# --- beta, explained variance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("divergence", "factor"), [(6.0, 1.0), (12.0, 1.002), (0.0, 0.998), (6.6, 1.001), (-3.0, 0.998)]
)
def test_beta_follows_the_divergence(divergence: float, factor: float) -> None:
    """The published values: beta .2, target 6, horizon 10,000, here with 100 completions a batch."""
    assert ppo.adapted_beta(0.2, divergence, 6.0, 100, 10_000) == pytest.approx(0.2 * factor)
    with pytest.raises(ValueError, match="horizon"):
        ppo.adapted_beta(0.2, divergence, 6.0, 100, 0)


def test_explained_variance() -> None:
    returns = drawn(9, 4, 5)
    assert ppo.explained_variance(spoiled(returns + 3), spoiled(returns), MASK) == pytest.approx(1.0)
    assert ppo.explained_variance(torch.ones(4, 5).double(), returns, MASK) == pytest.approx(0.0)
    assert ppo.explained_variance(-returns, returns, MASK) == pytest.approx(-3.0)
    assert math.isnan(ppo.explained_variance(returns, torch.ones(4, 5).double(), MASK))
    assert math.isnan(ppo.explained_variance(returns, returns, MASK & False))


def test_means_and_sums_leave_out_what_is_masked() -> None:
    values = spoiled(torch.arange(20.0).reshape(4, 5))
    assert ppo.masked_mean(values, MASK).item() == pytest.approx((0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 15) / 9)
    assert ppo.row_sums(values, MASK).tolist() == [10.0, 18.0, 0.0, 15.0]
    assert ppo.masked_mean(values, MASK & False).item() == 0.0
