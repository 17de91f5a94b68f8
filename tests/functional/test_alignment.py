"""Losses of a policy against published values and closed forms written with `math`."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rewardlab.functional import alignment

PAIRWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "exo-pref": lambda s: alignment.exo_pref(s, 1.0),
    "exo-pref-published": lambda s: alignment.exo_pref_published(s, 1.0),
    "dpo-pref": lambda s: alignment.dpo_pref(s, 1.0),
    "robust": lambda s: alignment.robust(s, 1.0),
    "hinge": lambda s: alignment.hinge(s, 1.0),
    "ipo": lambda s: alignment.ipo(s, torch.ones_like(s), 1.0),
    "ipo-sum": lambda s: alignment.ipo_sum(s, 1.0),
    "simpo": lambda s: alignment.simpo(s, torch.ones_like(s), 1.0, 0.5),
}


def sigma(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def softmax(values: list[float]) -> list[float]:
    total = sum(map(math.exp, values))
    return [math.exp(value) / total for value in values]


# --- published and hand values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps", "h", "expected"),
    [
        (1e-3, 0.0, 2.7612),
        (1e-3, 0.5, 1.9457),
        (1e-3, 1.0, 1.2763),
        (1e-3, 2.0, 0.4590),
        (1e-3, 5.0, 0.0070),
        (0.1, 0.0, 0.5108),
        (0.1, 0.5, 0.2721),
        (0.1, 1.0, 0.1141),
        (0.1, 2.0, 0.0019),
        (0.1, 5.0, 0.0799),
    ],
)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_exo_pref_has_its_known_values(eps: float, h: float, expected: float, beta: float) -> None:
    found = alignment.exo_pref(torch.tensor([[h / beta - 3.0, -3.0]]), beta, eps)
    assert found.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("h", "expected"), [(0.0, 4.3069), (1.0, 2.1072), (2.0, 0.8267)])
def test_exo_pref_with_published_targets_has_its_known_values(h: float, expected: float) -> None:
    assert alignment.exo_pref_published(torch.tensor([[h, 0.0]]), 1.0).item() == pytest.approx(expected, abs=1e-4)


def test_robust_has_its_known_value() -> None:
    assert alignment.robust(torch.tensor([[1.0, 0.0]]), 1.0).item() == pytest.approx(0.1883, abs=1e-4)


def test_exo_pref_takes_the_recommended_smoothing() -> None:
    assert alignment.exo_pref(row(0.0, 0.0), 1.0).item() == pytest.approx(-math.log(2) - math.log(0.999e-3) / 2)


def test_candidates_by_hand() -> None:
    """q = (1, 2, 4) / 7 and p = (3, 1, 2) / 6."""
    ratios = row(0.0, math.log(2) / 0.5, math.log(4) / 0.5)
    rewards = row(2.0 * math.log(3), 0.0, 2.0 * math.log(2))
    divergence = 1 / 7 * math.log((1 / 7) / (1 / 2)) + 2 / 7 * math.log((2 / 7) / (1 / 6))
    divergence += 4 / 7 * math.log((4 / 7) / (1 / 3))
    assert alignment.exo_rw(ratios, rewards, 0.5, 2.0).item() == pytest.approx(divergence, rel=1e-12)
    crossed = -(1 / 2 * math.log(1 / 7) + 1 / 6 * math.log(2 / 7) + 1 / 3 * math.log(4 / 7))
    assert alignment.dpo_rw(ratios, rewards, 0.5, 2.0).item() == pytest.approx(crossed, rel=1e-12)


@pytest.mark.parametrize("h", [-2.0, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.49])
def test_dpo_and_robust_are_their_formulas(h: float, eps: float) -> None:
    ratios = row(2.0 * h + 1.0, 1.0)
    won, lost = -math.log(sigma(h)), -math.log(sigma(-h))
    assert alignment.dpo_pref(ratios, 0.5, eps).item() == pytest.approx((1 - eps) * won + eps * lost, rel=1e-12)
    expected = ((1 - eps) * won - eps * lost) / (1 - 2 * eps)
    assert alignment.robust(ratios, 0.5, eps).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("winner", "loser", "expected"), [(1.0, 3.0, 1.4), (3.0, 1.0, 0.6), (10.0, 1.0, 0.0)])
def test_hinge_by_hand(winner: float, loser: float, expected: float) -> None:
    assert alignment.hinge(row(winner, loser), 0.2).item() == pytest.approx(expected, rel=1e-12)


def test_ipo_by_hand() -> None:
    """6 / 3 - (-4) / 8 = 2.5 a token and 10 in sum; beta .25 asks for 2, beta .0625 for 8."""
    ratios, lengths = row(6.0, -4.0), torch.tensor([[3, 8]])
    assert alignment.ipo(ratios, lengths, 0.25).item() == pytest.approx(0.25, rel=1e-12)
    assert alignment.ipo_sum(ratios, 0.0625).item() == pytest.approx(4.0, rel=1e-12)


def test_simpo_by_hand() -> None:
    """Means -2 and -2.5, so that beta 2 makes 1 of them, less the margin."""
    found = alignment.simpo(row(-6.0, -20.0), torch.tensor([[3, 8]]), 2.0, 0.3)
    assert found.item() == pytest.approx(-math.log(sigma(0.7)), rel=1e-12)


def test_means_over_tokens() -> None:
    found = alignment.per_token(torch.tensor([[6.0, -4.0, 0.0]], dtype=torch.bfloat16), torch.tensor([[3, 8, 0]]))
    assert found.dtype == torch.float32
    assert found.tolist() == [[2.0, -0.5, 0.0]]


# --- gradients in closed form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [-3.0, 0.0, 0.4, 6.0])
@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_the_gradient_of_exo_goes_through_both_factors(h: float, eps: float) -> None:
    """dl/dh = sigma(h) sigma(-h) (h - log((1 - eps) / eps)): without either factor it is another one."""
    ratios = row(h, 0.0).requires_grad_()
    alignment.exo_pref(ratios, 1.0, eps).sum().backward()
    expected = sigma(h) * sigma(-h) * (h - math.log((1 - eps) / eps))
    assert ratios.grad is not None
    assert ratios.grad.tolist()[0] == pytest.approx([expected, -expected], rel=1e-9, abs=1e-12)


def test_gradients_over_candidates_are_those_of_the_softmax() -> None:
    """Of KL(q || p): beta q_k (log q_k - log p_k - KL); of the cross-entropy: beta (q_k - p_k)."""
    ratios, rewards = [0.3, -1.0, 2.0, 0.4], [1.0, 0.5, -2.0, 0.0]
    q, p = softmax([0.7 * s for s in ratios]), softmax([r / 1.5 for r in rewards])
    divergence = sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
    given = row(*ratios).requires_grad_()
    (exact,) = torch.autograd.grad(alignment.exo_rw(given, row(*rewards), 0.7, 1.5).sum(), given)
    assert exact.tolist()[0] == pytest.approx(
        [0.7 * a * (math.log(a / b) - divergence) for a, b in zip(q, p, strict=True)], rel=1e-9
    )
    (crossed,) = torch.autograd.grad(alignment.dpo_rw(given, row(*rewards), 0.7, 1.5).sum(), given)
    assert crossed.tolist()[0] == pytest.approx([0.7 * (a - b) for a, b in zip(q, p, strict=True)], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("exo-pref", math.log(999.0)),
        ("exo-pref-published", 10.0),
        ("hinge", 1.5),
        ("ipo", 0.5),
        ("ipo-sum", 0.5),
    ],
)
def test_the_gradient_ends_where_the_loss_is_content(name: str, best: float) -> None:
    below, there = row(best - 0.6, 0.0).requires_grad_(), row(best, 0.0).requires_grad_()
    (short,) = torch.autograd.grad(PAIRWISE[name](below).sum(), below)
    (content,) = torch.autograd.grad(PAIRWISE[name](there).sum(), there)
    assert short[0, 0] < -1e-6
    assert content.abs().max() < 1e-12


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_robust_never_stops_falling(eps: float) -> None:
    far = row(60.0, 0.0).requires_grad_()
    (gradient,) = torch.autograd.grad(alignment.robust(far, 1.0, eps).sum(), far)
    assert gradient[0].tolist() == pytest.approx([-eps / (1 - 2 * eps), eps / (1 - 2 * eps)], abs=1e-12)


# --- what the losses are to each other -------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [-2.0, 0.0, 1.0, 9.0])
def test_published_targets_are_a_smoothing_of_sigma_minus_ten(h: float) -> None:
    """They add up to 1 + exp(-10): the value is lower by its logarithm."""
    found = alignment.exo_pref_published(row(h, 0.0), 1.0)
    expected = alignment.exo_pref(row(h, 0.0), 1.0, sigma(-10.0)) - math.log1p(math.exp(-10.0))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("h", [-2.0, 0.3, 4.0])
def test_robust_is_right_on_average_over_flipped_labels(h: float) -> None:
    kept, flipped = alignment.robust(row(h, 0.0), 1.0, 0.2), alignment.robust(row(0.0, h), 1.0, 0.2)
    torch.testing.assert_close(0.8 * kept + 0.2 * flipped, alignment.dpo_pref(row(h, 0.0), 1.0))


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("candidates", [1, 3, 8])
def test_pairwise_losses_refuse_other_numbers_of_candidates(name: str, candidates: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: found {candidates} candidates to a prompt; expected 2"):
        PAIRWISE[name](torch.zeros(4, candidates))


@pytest.mark.parametrize("smoothing", [-0.1, 0.0, 0.5, 1.0, math.nan])
def test_exo_pref_refuses_a_smoothing_that_makes_no_sense(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"^exo-pref: found label_smoothing .*more than 0 and less than 0.5"):
        alignment.exo_pref(row(0.0, 0.0), 1.0, smoothing)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, math.nan])
@pytest.mark.parametrize(("name", "loss"), [("dpo-pref", alignment.dpo_pref), ("robust", alignment.robust)])
def test_the_others_refuse_it_too(name: str, loss: Callable[..., Tensor], smoothing: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found label_smoothing .*at least 0 and less than 0.5"):
        loss(row(0.0, 0.0), 1.0, smoothing)
