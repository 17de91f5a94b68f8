"""A planted length bias: pairs are left out until the longer answer is the chosen one in a given share.

It makes the data worse on purpose, to see what another intervention, objective or audit makes of it. Of the pairs that
differ in length all are kept whose chosen answer is longer, and of the others as many as the share allows, those with
the lowest draws; where the share is below what the data hold it is the other way round. Pairs of equal length stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from rewardlab.config import Config
from rewardlab.data.interventions.base import Changed, Given, draws, pairs_only
from rewardlab.records import Pair, Record


class PlantLength(Config):
    """Pairs left out until the longer answer is chosen in a given share of those that differ in length."""

    name: Literal["plant-length"] = "plant-length"
    """Which intervention this is."""
    share: float = Field(gt=0, lt=1)
    """Of the pairs that differ in length, those whose chosen answer is the longer one."""
    seed: int = Field(0, ge=0)
    """Of the pairs that are left out."""

    def apply(self, records: Sequence[Record], given: Given) -> Changed:
        """See `plant_length`.

        Raises:
            DataError: records that are no pairs.
        """
        pairs = pairs_only(records, self.name)
        return plant_length(pairs, given.lengths.differences(pairs), self.share, self.seed)


def plant_length(pairs: Sequence[Pair], differences: Sequence[int], share: float, seed: int) -> Changed:
    """The pairs that are left, in their order.

    Args:
        pairs: the pairs.
        differences: length of the chosen minus that of the rejected answer, of each.
        share: of the pairs that differ, those with a positive difference in what is left; 0 < share < 1. As near as
            whole pairs come to it from the side of the data.
        seed: of the draws.
    """
    longer = [index for index, difference in enumerate(differences) if difference > 0]
    shorter = [index for index, difference in enumerate(differences) if difference < 0]
    if len(longer) < share * (len(longer) + len(shorter)):
        plenty, allowed = shorter, round(len(longer) * (1 - share) / share)
    else:
        plenty, allowed = longer, round(len(shorter) * share / (1 - share))
    drawn = draws(pairs, seed, "plant-length")
    left_out = set(sorted(plenty, key=lambda index: drawn[index])[allowed:])
    kept = [pair for index, pair in enumerate(pairs) if index not in left_out]
    return Changed(kept, {"kept": len(kept), "dropped": len(left_out)})
