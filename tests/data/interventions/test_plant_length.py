"""A planted length bias: the share that was asked for, by leaving out pairs of one kind only."""

from __future__ import annotations

import numpy as np
import pytest
from made_pairs import pairs_with

from rewardlab.data.interventions.plant_length import plant_length

DIFFERENCES = [5] * 60 + [-5] * 40 + [0] * 7
"""The longer answer is chosen in three pairs of five."""


@pytest.mark.parametrize(
    ("share", "longer", "shorter"),
    [
        (0.8, 60, 15),
        (0.9, 60, 7),
        (0.6, 60, 40),
        (0.5, 40, 40),
        (0.25, 13, 40),
    ],
)
def test_pairs_of_the_kind_that_is_too_many_are_left_out(share: float, longer: int, shorter: int) -> None:
    """60 / (60 + n) = share has n = 15 at .8 and 6.7 at .9; n / (n + 40) = .25 has n = 13.3."""
    pairs = pairs_with(DIFFERENCES)
    done = plant_length(pairs, DIFFERENCES, share, seed=0)
    by_id = dict(zip([one.id for one in pairs], DIFFERENCES, strict=True))
    left = [by_id[one.id] for one in done.records]
    assert [left.count(difference) for difference in (5, -5, 0)] == [longer, shorter, 7]
    assert [one.id for one in done.records] == [one.id for one in pairs if one in done.records]
    assert done.counts == {"kept": len(left), "dropped": len(pairs) - len(left)}


def test_every_pair_of_the_kind_is_as_likely_to_stay() -> None:
    """Over 400 seeds 15 of 40 stay each time: .375, whose standard error is .024."""
    pairs = pairs_with(DIFFERENCES)
    stays = np.zeros(40)
    for seed in range(400):
        kept = {one.id for one in plant_length(pairs, DIFFERENCES, 0.8, seed).records}
        stays += [one.id in kept for one in pairs[60:100]]
    assert np.all(np.abs(stays / 400 - 0.375) < 4.5 * 0.0242)
    assert stays.sum() == 400 * 15
