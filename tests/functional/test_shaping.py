"""The length interventions by hand, and in their order."""

from __future__ import annotations

import pytest
import torch

from rewardlab.functional import shaping


def test_unfinished_rows_become_finished_ones() -> None:
    finished = torch.tensor([True, False, True, False, False, True])
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(6, 6)
    for _ in range(3000):
        found = shaping.finished_rows(finished, generator)
        assert found is not None
        counts[torch.arange(6), found] += 1
    assert counts.diag().tolist() == [3000, 0, 3000, 0, 0, 3000]
    drawn = counts[~finished][:, finished]
    assert drawn.sum().item() == 9000
    # Of 3,000 draws of probability 1/3 the count has a standard deviation of 26.
    assert (drawn - 1000).abs().max() < 4 * 26


def test_no_finished_row_is_no_batch() -> None:
    assert shaping.finished_rows(torch.zeros(3).bool(), torch.Generator()) is None


@pytest.mark.parametrize(("length", "reward"), [(156, 1.0), (78, 0.5), (234, 0.5), (312, 0.0), (468, -1.0), (0, 0.0)])
def test_the_reward_of_a_length(length: int, reward: float) -> None:
    assert shaping.length_rewards(torch.tensor([length]), 156.0).item() == pytest.approx(reward)


def test_running_statistics_look_back_ten_batches() -> None:
    """Batches 0, 1, ..., 14 have means t and standard deviations of sqrt(2) t (of t - t and t + t: a pair)."""
    history: tuple[shaping.Batch, ...] = ()
    for t in range(15):
        batch = shaping.batch_statistics(torch.tensor([0.0, 2.0 * t]))
        history = shaping.remembered(history, batch)
    assert len(history) == 10
    found = shaping.running(history)
    assert found.mean == pytest.approx(sum(range(5, 15)) / 10)
    assert found.sd == pytest.approx(2**0.5 * sum(range(5, 15)) / 10)


def test_where_there_is_no_deviation_it_is_1() -> None:
    constant = shaping.batch_statistics(torch.full((4,), 3.0))
    assert shaping.running((constant,)) == (3.0, 1.0)
    single = shaping.batch_statistics(torch.tensor([5.0]))
    assert single == (5.0, None)
    assert shaping.running((single,)) == (5.0, 1.0)
    wide = shaping.Batch(1.0, 4.0)
    assert shaping.running((wide, single)) == (3.0, 1.0), "a batch of one row is scaled by 1"
    assert shaping.running((single, wide)) == (3.0, 4.0), "and is no deviation of 0 for the next"


def test_the_penalty_by_hand() -> None:
    rewards, lengths = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([50, 100, 150])
    found = shaping.length_penalised(rewards, lengths, sd=0.5, weight=2.0, target=100.0)
    torch.testing.assert_close(found, torch.tensor([1.5, 1.0, 0.5]))


def test_scaling_by_hand() -> None:
    statistics = shaping.Running(1.0, 2.0)
    rewards = torch.tensor([1.0, 1.4, 5.0, -5.0])
    torch.testing.assert_close(shaping.scaled(rewards, statistics, 0.3), torch.tensor([0.0, 0.2, 0.3, -0.3]))
    torch.testing.assert_close(shaping.scaled(rewards, statistics, None), torch.tensor([0.0, 0.2, 2.0, -3.0]))


@pytest.mark.parametrize("length", [0.0, -1.0])
def test_a_length_of_nothing_is_refused(length: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        shaping.length_rewards(torch.tensor([1]), length)
    with pytest.raises(ValueError, match="more than 0"):
        shaping.length_penalised(torch.ones(1), torch.tensor([1]), 1.0, 1.0, length)
