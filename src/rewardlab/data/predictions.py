"""Which positions of a micro-batch predict the tokens of completions: the integers behind a policy's log-probabilities.

A token is predicted one position before it. Of a group (`data.layout`) the tokens from `start` on are a completion's;
those of them in the shared prefix are predicted once, and count for every branch.

Nothing here knows a model; `models.policy` turns the integers into sums of log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rewardlab.data.layout import Group


class Predictions(NamedTuple):
    """The tokens of completions, and where they are predicted.

    Attributes:
        at: what predicts each token, shape [tokens]: its index in the packed stream, or in the rows of the flat layout
            one after another.
        ids: of the tokens, shape [tokens].
        terms: indices into both, sequence by sequence, shape [terms]; a shared token is there once per branch.
        owners: the sequence of every term, by group, then branch, shape [terms].
    """

    at: np.ndarray
    ids: np.ndarray
    terms: np.ndarray
    owners: np.ndarray


def packed_predictions(groups: Sequence[Group]) -> Predictions:
    """Predictions in the packed stream of the groups; every group has a prompt."""
    at: list[int] = []
    ids: list[int] = []
    terms: list[int] = []
    owners: list[int] = []
    start = sequence = 0
    for group in groups:
        length = len(group.prefix)
        first = len(ids)
        at += range(start + group.start - 1, start + length - 1)
        ids += group.prefix[group.start :]
        shared = range(first, len(ids))
        here = start + length
        for branch in group.branches:
            own = len(ids)
            at += [start + length - 1, *range(here, here + len(branch) - 1)]
            ids += branch
            terms += [*shared, *range(own, len(ids))]
            owners += [sequence] * (len(shared) + len(branch))
            here += len(branch)
            sequence += 1
        start = here
    return Predictions(*(np.array(values, np.int64) for values in (at, ids, terms, owners)))


def flat_predictions(groups: Sequence[Group], width: int) -> Predictions:
    """Predictions in rows of `width` tokens, one row per sequence."""
    at: list[int] = []
    ids: list[int] = []
    owners: list[int] = []
    for group in groups:
        for sequence in group.sequences():
            row = owners[-1] + 1 if owners else 0
            at += range(row * width + group.start - 1, row * width + len(sequence) - 1)
            ids += sequence[group.start :]
            owners += [row] * (len(sequence) - group.start)
    return Predictions(np.array(at, np.int64), np.array(ids, np.int64), np.arange(len(ids)), np.array(owners, np.int64))
