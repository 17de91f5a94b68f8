"""Log-probabilities of completions against products of probabilities written with `math`."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from rewardlab.functional import logprobs

WEIGHTS = [[1.0, 2.0, 5.0], [3.0, 1.0, 1.0], [1.0, 1.0, 2.0], [9.0, 9.0, 9.0]]
LOGITS = torch.tensor([WEIGHTS], dtype=torch.float64).log()


def test_a_completion_by_hand() -> None:
    """After the prompt's last token (position 1) the tokens 0 and 2: 3/5, then 2/4."""
    ids = torch.tensor([[1, 2, 0, 2]])
    of_completion = torch.tensor([[False, False, True, True]])
    found = logprobs.completion_log_probabilities(LOGITS, ids, of_completion)
    assert found.item() == pytest.approx(math.log(3 / 5 * 2 / 4), rel=1e-12)


def test_a_temperature_takes_powers_of_probabilities() -> None:
    """At T = 1/2 the weights are squared."""
    ids = torch.tensor([[1, 2, 0, 2]])
    of_completion = torch.tensor([[False, True, True, False]])
    found = logprobs.completion_log_probabilities(LOGITS, ids, of_completion, 0.5)
    assert found.item() == pytest.approx(math.log(25 / 30 * 9 / 11), rel=1e-12)


def test_the_probabilities_of_all_completions_add_up_to_one() -> None:
    ids = torch.tensor([[1, *tokens] for tokens in product(range(3), repeat=3)])
    of_completion = torch.tensor([[False, True, True, True]]).expand(27, -1)
    found = logprobs.completion_log_probabilities(LOGITS.expand(27, -1, -1), ids, of_completion, 0.8)
    assert found.exp().sum().item() == pytest.approx(1.0, rel=1e-12)


def test_padding_on_either_side_and_other_rows_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    ids = torch.randint(7, (3, 5), generator=generator)
    of_completion = torch.tensor([[False, True, True, False, False], [False] * 3 + [True] * 2, [False] * 5])
    found = logprobs.completion_log_probabilities(logits, ids, of_completion)
    short = logprobs.completion_log_probabilities(logits[:1, :3], ids[:1, :3], of_completion[:1, :3])
    padded_left = logprobs.completion_log_probabilities(logits[1:2, 2:], ids[1:2, 2:], of_completion[1:2, 2:])
    torch.testing.assert_close(found, torch.cat([short, padded_left, torch.zeros(1, dtype=torch.float64)]))


def test_padding_that_cannot_be_adds_nothing_and_has_no_gradient() -> None:
    logits = LOGITS.clone()
    logits[0, 2, 0] = -torch.inf
    logits.requires_grad_()
    ids, of_completion = torch.tensor([[1, 2, 1, 0]]), torch.tensor([[False, True, True, False]])
    found = logprobs.completion_log_probabilities(logits, ids, of_completion)
    assert found.item() == pytest.approx(math.log(5 / 8 * 1 / 5), rel=1e-12)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 2:] == 0).all()


def test_the_softmax_of_half_precision_is_taken_in_float32() -> None:
    """Among 50,000 equal logits a token has log-probability -10.8198; in bfloat16 that would be -10.8125."""
    logits = torch.zeros(1, 50_000, dtype=torch.bfloat16)
    found = logprobs.token_log_probabilities(logits, torch.tensor([7]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(-math.log(50_000), abs=1e-5)


def test_places_of_any_shape() -> None:
    found = logprobs.token_log_probabilities(LOGITS[0], torch.tensor([2, 0, 1, 0]))
    assert found.tolist() == pytest.approx([math.log(p) for p in (5 / 8, 3 / 5, 1 / 4, 1 / 3)], rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    of_completion = torch.tensor([[False, False, True, True], [False, True, True, False]])
    assert torch.autograd.gradcheck(
        lambda given: logprobs.completion_log_probabilities(given, ids, of_completion, 0.8), logits
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_makes_no_sense_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="found temperature"):
        logprobs.token_log_probabilities(LOGITS, torch.zeros(1, 4, dtype=torch.int64), temperature)


def test_a_completion_without_anything_before_it_is_refused() -> None:
    of_completion = torch.tensor([[True, True, False, False]])
    with pytest.raises(ValueError, match="found a completion at the first position"):
        logprobs.completion_log_probabilities(LOGITS, torch.zeros(1, 4, dtype=torch.int64), of_completion)


def test_the_policy_is_the_best_one_for_its_implied_reward() -> None:
    """pi = pi_ref exp(r / beta), normalised: the rewards come back, up to their constant."""
    beta, rewards = 0.3, [1.0, -0.5, 0.2]
    reference = [0.2, 0.5, 0.3]
    tilted = [weight * math.exp(reward / beta) for weight, reward in zip(reference, rewards, strict=True)]
    policy = torch.tensor([weight / sum(tilted) for weight in tilted], dtype=torch.float64).log()
    found = logprobs.implicit_reward(policy, torch.tensor(reference, dtype=torch.float64).log(), beta)
    assert (found - found[0] + rewards[0]).tolist() == pytest.approx(rewards, rel=1e-9)


def test_implied_rewards_are_not_rounded_to_half_precision() -> None:
    policy, reference = torch.tensor([-257.0, -3.0]), torch.tensor([-256.0, -4.0]).bfloat16()
    found = logprobs.implicit_reward(policy, reference, 0.5)
    assert found.dtype == torch.float32
    assert found.tolist() == [-0.5, 0.5]


def test_the_divergence_of_tokens_is_that_of_completions_counted_out() -> None:
    """Two tokens of a vocabulary of 3, the second after the first: the sum of the divergences of both, averaged over
    what the policy writes, is the divergence of the nine completions."""
    generator = torch.Generator().manual_seed(3)
    own, other = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = ((logits / 0.7).softmax(dim=1) for logits in (own, other))
    pairs = [(p[0, a] * p[1 + a, b], q[0, a] * q[1 + a, b]) for a, b in product(range(3), repeat=2)]
    expected = sum((one * (one / two).log()).item() for one, two in pairs)
    tokens = logprobs.token_divergences(own, other, 0.7)
    assert (tokens[0] + (p[0] * tokens[1:]).sum()).item() == pytest.approx(expected, rel=1e-12)
    assert logprobs.token_divergences(own, own).abs().max().item() == 0.0


def test_a_token_that_the_policy_never_writes_adds_nothing() -> None:
    own = torch.tensor([[0.0, 0.0, -torch.inf]])
    other = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf]])
    found = logprobs.token_divergences(own.expand(2, -1), other)
    assert found.tolist() == pytest.approx([math.log(1.5), 0.0])
    with pytest.raises(ValueError, match="temperature"):
        logprobs.token_divergences(own, own, 0.0)
