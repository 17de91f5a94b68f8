"""Log-probabilities of tokens against the plain way with all logits, gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rewardlab.functional import logprobs
from rewardlab.models import token_logprobs

TOKENS, WIDTH, VOCABULARY = 23, 8, 37


def inputs(dtype: torch.dtype, *, bias: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(TOKENS, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    shift = torch.randn(VOCABULARY, generator=generator, dtype=dtype).requires_grad_() if bias else None
    return states, weight, shift, torch.randint(VOCABULARY, (TOKENS,), generator=generator)


def plain(states: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float) -> Tensor:
    return logprobs.token_log_probabilities(torch.nn.functional.linear(states, weight, bias), ids, temperature)


def gradients(found: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    upper = torch.randn(len(found), generator=torch.Generator().manual_seed(5), dtype=found.dtype)
    return list(torch.autograd.grad((found * upper).sum(), leaves))


@pytest.mark.parametrize("kept", [2**25, 0], ids=["kept", "computed again"])
@pytest.mark.parametrize("chunk", [2**24, 5 * VOCABULARY, 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_values_and_gradients_are_those_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, temperature: float, bias: bool, chunk: int, kept: int
) -> None:
    monkeypatch.setattr(token_logprobs, "CPU_CHUNK", chunk)
    monkeypatch.setattr(token_logprobs, "KEPT", kept)
    states, weight, shift, ids = inputs(torch.float32, bias=bias)
    leaves = [leaf for leaf in (states, weight, shift) if leaf is not None]
    found = token_logprobs.token_log_probabilities(states, weight, shift, ids, temperature)
    truth = plain(states, weight, shift, ids, temperature)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)
    for own, expected in zip(gradients(found, leaves), gradients(truth, leaves), strict=True):
        assert ((own - expected).norm() / expected.norm()).item() <= 1e-6


@pytest.mark.parametrize("kept", [2**25, 0])
def test_gradients_are_finite_differences(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(token_logprobs, "KEPT", kept)
    monkeypatch.setattr(token_logprobs, "CPU_CHUNK", 4 * VOCABULARY)
    states, weight, shift, ids = inputs(torch.float64, bias=True)
    assert torch.autograd.gradcheck(
        lambda *leaves: token_logprobs.token_log_probabilities(*leaves, ids, 0.7), (states, weight, shift)
    )


@pytest.mark.parametrize("frozen", ["states", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    states, weight, _, ids = inputs(torch.float32, bias=False)
    (states if frozen == "states" else weight).requires_grad_(False)
    token_logprobs.token_log_probabilities(states, weight, None, ids).sum().backward()
    assert (states.grad is None) == (frozen == "states")
    assert (weight.grad is None) == (frozen == "weight")


def test_under_autocast_products_are_bf16_and_sums_are_not() -> None:
    states, weight, _, ids = inputs(torch.float32, bias=False)
    exact = token_logprobs.token_log_probabilities(states, weight, None, ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logprobs.token_log_probabilities(states, weight, None, ids)
    assert found.dtype == torch.float32
    rounded = plain(states.bfloat16(), weight.bfloat16(), None, ids, 1.0)
    torch.testing.assert_close(found, rounded, rtol=1e-6, atol=1e-6)
    assert not torch.equal(found, exact)
    own, expected = gradients(found, [states, weight]), gradients(exact, [states, weight])
    for one, other in zip(own, expected, strict=True):
        assert one.dtype == torch.float32
        assert ((one - other).norm() / other.norm()).item() <= 0.02


def test_a_certain_token_has_an_exact_gradient_in_bf16() -> None:
    """1 - p of a nearly certain token is not what bf16 leaves of 1 minus p."""
    weight = torch.eye(4).requires_grad_()
    states = torch.tensor([[9.0, 0.0, 0.0, 0.0]])
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logprobs.token_log_probabilities(states, weight, None, torch.tensor([0]))
    found.sum().backward()
    assert weight.grad is not None
    missing = 3 / (3 + torch.tensor(9.0).exp().item())
    assert weight.grad[0, 0].item() == pytest.approx(9 * missing, rel=0.01)
