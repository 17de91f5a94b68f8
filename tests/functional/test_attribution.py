"""Shares and entropies of attributions by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.functional.attribution import attribution_entropy, prompt_share

NAN = float("nan")
MATRIX = np.array([[1.0, 0.0, 0.0], [-3.0, 2.0, 0.0], [NAN, 2.0, 0.0], [NAN, NAN, 0.0]])


def test_signs_do_not_count_and_what_comes_later_has_no_share() -> None:
    found = prompt_share(MATRIX, 2)
    assert found[:2].tolist() == [1.0, 0.5]
    assert np.isnan(found[2])


def test_the_entropy_is_that_of_the_shares() -> None:
    by_hand = [-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), math.log(2.0)]
    assert attribution_entropy(MATRIX)[:2].tolist() == pytest.approx(by_hand)
    assert attribution_entropy(np.array([[0.0], [5.0]])).tolist() == [0.0]
    assert attribution_entropy(np.ones((7, 1))).tolist() == pytest.approx([math.log(7.0)])
