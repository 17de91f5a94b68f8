"""Objectives against closed forms written with `math` alone."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from rewardlab.data.layout import Group
from rewardlab.errors import ConfigError
from rewardlab.train.examples import Example
from rewardlab.train.objectives import Objective, correct


def example(*targets: float, margin: float = 0.0) -> Example:
    return Example(Group((), tuple((1,) for _ in targets)), targets, margin)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def losses(objective: Objective, rewards: list[float], *examples: Example, target: str = "preference") -> list[float]:
    values: Tensor = objective.losses(target, torch.tensor(rewards), examples)  # type: ignore[arg-type]
    return values.tolist()


PAIR = example(1.0, 0.0)
MARGIN_PAIR = example(1.0, 0.0, margin=0.7)


def test_bradley_terry() -> None:
    assert losses(Objective(), [1.2, 0.4], PAIR) == pytest.approx([softplus(-0.8)], rel=1e-6)
    assert losses(Objective(), [3.0, 3.0], PAIR) == pytest.approx([math.log(2)], rel=1e-6)


def test_margins_are_subtracted_inside_the_logistic_where_wanted() -> None:
    rewards = [1.2, 0.4, 1.2, 0.4]
    assert losses(Objective(), rewards, MARGIN_PAIR, PAIR) == pytest.approx([softplus(-0.1), softplus(-0.8)], rel=1e-6)
    assert losses(Objective(use_margin=False), rewards, MARGIN_PAIR, PAIR) == pytest.approx([softplus(-0.8)] * 2)


def test_label_smoothing_mixes_in_the_flipped_pair() -> None:
    expected = 0.9 * softplus(-0.8) + 0.1 * softplus(0.8)
    assert losses(Objective(label_smoothing=0.1), [1.2, 0.4], PAIR) == pytest.approx([expected], rel=1e-6)
    with pytest.raises(ConfigError):
        Objective.build({"label_smoothing": 0.5})


def test_centring_adds_the_squared_sum() -> None:
    expected = softplus(-0.8) + 0.01 * (1.2 + 0.4) ** 2
    assert losses(Objective(centring=0.01), [1.2, 0.4], PAIR) == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize("objective", [Objective(), Objective(label_smoothing=0.2, centring=0.1)])
def test_candidates_are_the_average_of_their_pairs(objective: Objective) -> None:
    values, rewards = [2.0, 0.5, 0.5, -1.0], [0.3, -0.2, 1.1, 0.4]
    ordered = [(i, j) if values[i] > values[j] else (j, i) for i, j in combinations(range(4), 2)]
    ordered = [(i, j) for i, j in ordered if values[i] != values[j]]
    assert len(ordered) == 5
    single = [losses(objective, [rewards[i], rewards[j]], PAIR)[0] for i, j in ordered]
    # A pair before and a pair behind: rewards are found by position.
    together = losses(objective, [1.0, 0.0, *rewards, 5.0, 4.0], PAIR, example(*values), PAIR)
    assert together[1] == pytest.approx(sum(single) / 5, rel=1e-6)
    assert together[0] == pytest.approx(losses(objective, [1.0, 0.0], PAIR)[0], rel=1e-6)
    assert together[2] == pytest.approx(losses(objective, [5.0, 4.0], PAIR)[0], rel=1e-6)


def test_an_order_is_learned_as_a_whole_where_wanted() -> None:
    """Strengths 1, 2, 3 and 3 in the order 3 = 3 > 2 > 1, by hand; pairs beside it stay pairs, margins too."""
    rewards = [math.log(strength) for strength in (1, 2, 3, 3)]
    by_hand = -math.log((3 / 6) * (3 / 6) * (2 / 3))
    together = losses(
        Objective(candidates="plackett-luce"),
        [1.2, 0.4, *rewards, 1.2, 0.4],
        PAIR,
        example(0.0, 1e-9, 7.0, 7.0),
        MARGIN_PAIR,
    )
    assert together == pytest.approx([softplus(-0.8), by_hand, softplus(-0.1)], rel=1e-6)
    centred = losses(Objective(candidates="plackett-luce", centring=0.5), [1.0, 2.0, 3.0], example(0.0, 1.0, 2.0))
    plain = losses(Objective(candidates="plackett-luce"), [1.0, 2.0, 3.0], example(0.0, 1.0, 2.0))
    assert centred[0] - plain[0] == pytest.approx(0.5 * (3**2 + 4**2 + 5**2) / 3, rel=1e-6)


def test_orders_are_not_smoothed() -> None:
    with pytest.raises(ConfigError, match="label_smoothing 0 beside plackett-luce"):
        Objective.build({"candidates": "plackett-luce", "label_smoothing": 0.1})


def test_ties_are_learned_with_a_target_of_one_half_where_wanted() -> None:
    """A tie, a pair, and three of which two are equal: what is ordered is averaged as ever, ties are added."""
    tie, three = example(0.0, 0.0), example(1.0, 0.0, 0.0)
    rewards = [1.2, 0.4, 1.2, 0.4, 0.3, -0.2, 1.1]
    equal = 0.5 * (softplus(-0.8) + softplus(0.8))
    ordered = 0.5 * (softplus(-0.5) + softplus(0.8))
    among = 0.5 * (softplus(1.3) + softplus(-1.3))
    found = losses(Objective(ties=2.0), rewards, tie, PAIR, three)
    assert found == pytest.approx([2.0 * equal, softplus(-0.8), ordered + 2.0 * among], rel=1e-6)
    assert losses(Objective(), rewards, tie, PAIR, three) == pytest.approx([0.0, softplus(-0.8), ordered], rel=1e-6)
    assert losses(Objective(ties=1.0, centring=0.1, candidates="plackett-luce"), [1.2, 0.4], tie) == pytest.approx(
        [equal], rel=1e-6
    )


def test_ties_take_away_what_is_paid_for_an_attribute_and_leave_the_rest() -> None:
    """Answers have a quality and a length; who labels pays 1 for each. Ties of answers that differ in length alone take
    the price of length down to next to nothing, and that of quality stays where it was.

    2,000 pairs, fitted to the optimum: the standard error of a price is about .06."""
    generator = torch.Generator().manual_seed(5)
    sides = torch.randn(2000, 2, 2, generator=generator, dtype=torch.float64)
    utility = sides.sum(dim=2)
    first_wins = torch.rand(2000, generator=generator, dtype=torch.float64) < (utility[:, 0] - utility[:, 1]).sigmoid()
    answers = torch.where(first_wins[:, None, None], sides, sides.flip(1))
    quality, length = sides[:500, 0].unbind(dim=1)
    alike = torch.stack([torch.stack([quality, length + 1.0], dim=1), torch.stack([quality, length], dim=1)], dim=1)

    def prices(weight: float) -> list[float]:
        price = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        examples = [PAIR] * 2000 + [example(0.0, 0.0)] * 500
        optimiser = torch.optim.LBFGS([price], max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            rewards = torch.cat([answers.reshape(-1, 2), alike.reshape(-1, 2)]) @ price
            found = Objective(ties=weight).losses("preference", rewards, examples).mean()
            found.backward()  # type: ignore[no-untyped-call]
            return found

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        found: list[float] = price.tolist()
        return found

    before, after, strong = prices(0.0), prices(1.0), prices(100.0)
    assert before == pytest.approx([1.0, 1.0], abs=0.2)
    assert after[1] < 0.85 * before[1]
    assert abs(strong[1]) < 0.05
    assert strong[0] == pytest.approx(before[0], abs=0.3)


def test_a_tie_is_half_of_both_orders() -> None:
    both = losses(Objective(), [1.2, 0.4, 0.4, 1.2], PAIR, PAIR)
    assert losses(Objective(ties=1.0), [1.2, 0.4], example(0.0, 0.0)) == pytest.approx([sum(both) / 2], rel=1e-6)


def test_labels_are_logistic_and_scores_are_squared() -> None:
    labelled = losses(Objective(), [1.5, 1.5], example(1.0), example(0.0), target="label")
    assert labelled == pytest.approx([softplus(-1.5), softplus(1.5)], rel=1e-6)
    assert losses(Objective(), [1.5], example(-0.5), target="score") == pytest.approx([4.0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_losses_are_float32_and_gradients_have_a_closed_form(dtype: torch.dtype) -> None:
    rewards = torch.tensor([0.5, 0.25], dtype=dtype, requires_grad=True)
    loss = Objective().losses("preference", rewards, [PAIR])
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss.sum(), rewards)
    share = 1 / (1 + math.exp(0.25))
    assert gradient.float().tolist() == pytest.approx([-share, share], rel=1e-2)


def test_correct_counts_ties_half_and_candidates_by_pairs() -> None:
    rewards = torch.tensor([1.0, 0.0, 2.0, 2.0, 0.1, 0.2, 0.3])
    assert correct("preference", rewards, [PAIR, PAIR, example(3.0, 2.0, 2.0)]) == [1.0, 0.5, 0.0]
    assert correct("preference", torch.tensor([2.0, 1.0, 3.0]), [example(2.0, 1.0, 1.0)]) == [0.5]


def test_a_label_is_right_by_the_sign_and_a_score_never() -> None:
    labelled = [example(1.0), example(0.0), example(1.0), example(0.0)]
    assert correct("label", torch.tensor([0.1, 0.1, -3.0, 0.0]), labelled) == [1.0, 0.0, 0.0, 0.5]
    assert correct("score", torch.tensor([0.1]), [example(1.0)]) == []
