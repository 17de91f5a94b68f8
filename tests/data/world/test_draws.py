from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import stats

from rewardlab.data.world import Draws


def test_draws_are_pinned_for_ever() -> None:
    # A change would silently give every study another world.
    digest = hashlib.blake2b(b"7\x1fa\x1fb", digest_size=8).hexdigest()
    assert Draws(7, "a").uniform("b") == pytest.approx(int(digest, 16) / 2**64, abs=2**-52)
    assert round(Draws(0, "train/0").uniform("domain"), 12) == 0.693927163664


def test_uniforms_are_uniform_and_independent_across_slots() -> None:
    draws = np.array([[Draws(0, f"k{i}").uniform(slot) for slot in "ab"] for i in range(4000)])
    assert stats.kstest(draws[:, 0], "uniform").pvalue > 0.01
    assert abs(np.corrcoef(draws.T)[0, 1]) < 4 / np.sqrt(4000)


def test_normals_are_normal() -> None:
    draws = [Draws(1, f"k{i}").normal("z") for i in range(4000)]
    assert stats.kstest(draws, "norm").pvalue > 0.01


def test_rounding_keeps_the_mean_and_moves_to_a_neighbour() -> None:
    for value in (-1.3, 0.25, 2.0):
        rounded = np.array([Draws(2, f"k{i}").rounded("r", value) for i in range(4000)])
        assert set(rounded) <= {np.floor(value), np.ceil(value)}
        assert abs(rounded.mean() - value) < 4 * 0.5 / np.sqrt(4000)


def test_a_shuffle_keeps_every_item() -> None:
    assert sorted(Draws(3, "k").shuffled("s", [5, 1, 1, 2])) == [1, 1, 2, 5]
    first = [Draws(3, f"k{i}").shuffled("s", "abc")[0] for i in range(3000)]
    assert stats.chisquare([first.count(letter) for letter in "abc"]).pvalue > 0.01
