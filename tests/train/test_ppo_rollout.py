"""What is computed of a batch before anything is learned from it: micro-batches, prompts, rewards, advantages."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardlab.errors import ConfigError
from rewardlab.functional import shaping
from rewardlab.records import Prompt, Response
from rewardlab.train.ppo import PPOTraining
from rewardlab.train.ppo_loop import Loop
from rewardlab.train.ppo_rollout import (
    Measured,
    Prompts,
    Row,
    at,
    batch_measures,
    learned_from,
    mask_of,
    pieces,
    shaped,
    without_long,
)

PROMPT = Prompt.of_text("river")


def config(**settings: Any) -> PPOTraining:
    return PPOTraining.build({"model": "m", "train": "t"} | settings)


def row(length: int, *, prompt: int = 1, finished: bool = True, first: int = 10) -> Row:
    ids = tuple(range(first, first + length))
    return Row((prompt,) * 3, ids, Response(PROMPT, "x" * length, length, finished))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("budget", [8, 30, 1000])
def test_micro_batches_hold_every_token_of_their_rows_once_and_in_order(shared: bool, budget: int) -> None:
    rows = [row(4, prompt=7), row(2), row(6, prompt=7, first=20), row(1), row(4, prompt=7), row(5, first=30)]
    mask = mask_of(rows)
    found = torch.zeros(mask.shape, dtype=torch.long)
    for piece in pieces(rows, [0, 1, 2, 4, 5], budget, shared=shared):
        tokens = [sequence[group.start :] for group in piece.groups for sequence in group.sequences()]
        assert [group.prefix[:3] for group in piece.groups for _ in group.branches] == [
            rows[place].prompt_ids for place in piece.rows
        ]
        found[at(mask, piece.rows)] += torch.tensor([token for own in tokens for token in own])
    expected = torch.zeros_like(found)
    for place in (0, 1, 2, 4, 5):
        expected[place, : len(rows[place].ids)] = torch.tensor(rows[place].ids)
    assert torch.equal(found, expected)


def test_every_pass_over_the_prompts_has_each_once() -> None:
    prompts = [Prompt.of_text(str(number)) for number in range(5)]
    stream = Prompts(prompts, [(number,) for number in range(5)], seed=3)
    numbers = [place for step in range(1, 6) for place in stream.of_step(step, 4)]
    passes = [numbers[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(own) == list(range(5)) for own in passes)
    assert len(set(map(tuple, passes))) > 1, "in another order"
    again = Prompts(prompts, stream.ids, seed=3)
    assert again.of_step(4, 4) == numbers[12:16], "a step is the same without those before it"
    seeds = {again.response_seed(place, step, sample) for place in range(5) for step in range(9) for sample in range(4)}
    assert len(seeds) == 180


def loop(training: list[tuple[int, ...]], held_out: list[tuple[int, ...]]) -> Loop:
    """Of nothing but prompts."""
    streams = [Prompts([Prompt.of_text(str(ids)) for ids in own], own, seed=0) for own in (training, held_out)]
    nothing: Any = None
    return Loop(config(), nothing, nothing, nothing, *streams)


def test_the_digest_tells_prompts_apart_by_their_tokens_and_by_what_they_are_for() -> None:
    found = [
        loop(*prompts).digest
        for prompts in (
            ([(1, 2), (3,)], [(4,)]),
            ([(1,), (2, 3)], [(4,)]),
            ([(1, 2)], [(3,), (4,)]),
            ([(1, 2), (3,), (4,)], []),
            ([(3,), (1, 2)], [(4,)]),
            ([(1, 2), (5,)], [(4,)]),
        )
    ]
    assert len(set(found)) == 6
    assert loop([(1, 2), (3,)], [(4,)]).digest == found[0]


def test_the_digest_is_made_once() -> None:
    """Every checkpoint has it: of a hundred thousand prompts it takes seconds."""
    one = loop([(1, 2)], [])
    assert one.digest is one.digest


def test_unfinished_rows_are_replaced_with_all_they_have() -> None:
    rows = [row(3, finished=False), row(2, prompt=5), row(4, finished=False)]
    assert without_long(rows, [0, 1]) == [rows[1]] * 3
    assert without_long(rows[::2], [0, 1]) == []


def test_rewards_are_shaped_in_the_order_of_the_specification() -> None:
    """Scores 1, 2, 3 with baseline 1 are 0, 1, 2: mu 1, s 1. Lengths 50, 100, 200 add 2 s (1 - len / 100) = 1, 0, -2;
    then (R - mu) / s = 0, 0, -1, cut at .3. A penalty comes before the statistics."""
    rows = [row(50), row(100), row(200)]
    scores = torch.tensor([1.0, 2.0, 3.0])
    settings = {"reward_baseline": 1.0, "len_penalty": 2.0, "scale_reward": True}
    rewards, history = shaped(config(**settings), rows, scores, ())
    torch.testing.assert_close(rewards, torch.tensor([0.0, 0.0, -0.3]))
    assert history == (shaping.Batch(1.0, 1.0),)
    uncut, _ = shaped(config(**settings, scale_clip=None), rows, scores, (shaping.Batch(3.0, 3.0),))
    # mu 2, s 2: penalties 2, 0, -4, then (R - 2) / 2.
    torch.testing.assert_close(uncut, torch.tensor([0.0, -0.5, -2.0]))
    cut_off = [row(50), row(100), row(200, finished=False)]
    punished, history = shaped(config(missing_eos_penalty=2.0), cut_off, scores, ())
    assert punished.tolist() == [1.0, 2.0, 1.0]
    assert history[0].mean == pytest.approx(4 / 3)


def batch(**settings: Any) -> tuple[Any, Measured, torch.Tensor]:
    rows = [row(3), row(1), row(2), row(4)]
    mask = mask_of(rows)
    generator = torch.Generator().manual_seed(1)
    old, reference, values = torch.where(mask, torch.randn(3, *mask.shape, generator=generator), 0.0)
    measured = Measured(old, reference, values, torch.where(mask, 1.5, 0.0))
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0])
    return learned_from(config(**settings), rows, measured, rewards, mask, beta=0.5), measured, mask


def test_with_lambda_1_returns_are_what_is_still_to_come() -> None:
    found, measured, mask = batch(gae_lambda=1.0, whiten=False)
    cost = 0.5 * (measured.old - measured.reference)
    for place, score in enumerate([1.0, 2.0, 3.0, 4.0]):
        for time in range(int(mask[place].sum())):
            to_come = score - cost[place, time:].sum()
            assert found.returns[place, time].item() == pytest.approx(to_come.item(), abs=1e-5)
            advantage = to_come - measured.values[place, time]
            assert found.advantages[place, time].item() == pytest.approx(advantage.item(), abs=1e-5)
    assert batch()[0].advantages[mask].mean().item() == pytest.approx(0.0, abs=1e-6)


def test_without_a_critic_a_response_is_measured_by_its_siblings() -> None:
    found, measured, mask = batch(baseline="rloo", samples=2, batch_size=4, whiten=False)
    totals = torch.tensor([1.0, 2.0, 3.0, 4.0]) - 0.5 * (measured.old - measured.reference).sum(dim=1)
    for place, sibling in ((0, 1), (1, 0), (2, 3), (3, 2)):
        own = found.advantages[place][mask[place]]
        torch.testing.assert_close(own, (totals[place] - totals[sibling]).expand_as(own))
    assert batch_measures(found, config(baseline="rloo", samples=2))["explained_variance"] is None


def test_the_divergence_is_the_mean_of_sums_over_tokens() -> None:
    found, measured, _ = batch()
    measures = batch_measures(found, config())
    assert measures["kl"] == pytest.approx((measured.old - measured.reference).sum().item() / 4, rel=1e-5)
    assert measures["length"] == 2.5
    assert measures["entropy"] == pytest.approx(1.5)


@pytest.mark.parametrize(("settings", "said"), [
    ({"lora": {"dropout": 0.1}}, "lora.dropout 0"),
    ({"batch_size": 30, "samples": 4}, "multiple of samples, 4"),
    ({"mini_batches": 33}, "mini_batches to be at most batch_size"),
    ({"baseline": "rloo"}, "samples 2 or more"),
    ({"baseline": "rloo", "samples": 2, "omit_long": True}, "no omit_long"),
    ({"baseline": "rloo", "samples": 2, "critic": "c"}, "no critic"),
    ({"model": {"path": "m", "quantisation": "8bit"}}, "lora beside model.quantisation"),
    ({"critic": {"path": "m", "quantisation": "8bit"}}, "no critic.quantisation"),
    ({"temperature": 0.0}, "greater than 0"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**settings)
