"""Groups and draws against cases done by hand and the chances that they claim."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rewardlab.functional.candidates import consecutive_groups, drawn_candidates


def test_groups_are_consecutive() -> None:
    assert consecutive_groups(6, 2).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert consecutive_groups(6, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert consecutive_groups(4, 4).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("candidates", "size"), [(5, 2), (3, 4), (8, 3)])
def test_candidates_that_would_be_left_over_are_refused(candidates: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"found {candidates} candidates .* expected a multiple of {size}"):
        consecutive_groups(candidates, size)


@pytest.mark.parametrize("size", [0, 1, -2])
def test_groups_of_less_than_two_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"found groups of {size}"):
        consecutive_groups(4, size)
    with pytest.raises(ValueError, match=f"found groups of {size}"):
        drawn_candidates(4, size, seed=0, epoch=0, prompt=0)


def test_every_set_is_drawn_as_often() -> None:
    """Each of the 6 pairs of 4 candidates 1/6 of the time: 1,000 of 6,000, with a standard deviation of 29."""
    found = Counter(tuple(drawn_candidates(4, 2, seed=0, epoch=0, prompt=prompt).tolist()) for prompt in range(6000))
    assert sorted(found) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert max(abs(count - 1000) for count in found.values()) < 120


def test_a_draw_hangs_on_seed_epoch_and_prompt() -> None:
    def draws(seed: int, epoch: int) -> list[list[int]]:
        return [drawn_candidates(8, 4, seed=seed, epoch=epoch, prompt=prompt).tolist() for prompt in range(20)]

    assert draws(1, 0) == draws(1, 0)
    together = [draws(1, 0), draws(1, 1), draws(2, 0), draws(0, 1)]
    assert len({str(one) for one in together}) == 4


def test_fewer_candidates_than_asked_for_are_all_taken() -> None:
    assert drawn_candidates(3, 4, seed=0, epoch=0, prompt=0).tolist() == [0, 1, 2]
    assert drawn_candidates(4, 4, seed=0, epoch=0, prompt=0).tolist() == [0, 1, 2, 3]


def test_draws_of_the_first_prompt_are_not_the_order_of_the_epoch() -> None:
    """Two sets of 4 of 8 are the same by chance once in 70 times."""

    def order(epoch: int) -> list[int]:
        return sorted(np.random.default_rng([3, epoch]).permutation(8)[:4].tolist())

    same = [drawn_candidates(8, 4, seed=3, epoch=epoch, prompt=0).tolist() == order(epoch) for epoch in range(200)]
    assert sum(same) < 15
