"""Where completions' tokens are predicted: by hand, and token by token against the groups' plain sequences."""

from __future__ import annotations

import random

import numpy as np

from rewardlab.data.layout import Group, pack, pad, share_prompt
from rewardlab.data.predictions import flat_predictions, packed_predictions

GROUPS = [share_prompt([1, 2], [[3, 4, 5], [3, 6]]), share_prompt([7], [[8]])]
"""1 2 3 | 4 5 | 6, then the 7 before the 8: completions 3 4 5, 3 6 and 8."""


def test_the_prompt_ends_where_it_ends() -> None:
    assert GROUPS[0] == Group((1, 2, 3), ((4, 5), (6,)), start=2)
    assert GROUPS[0].part([1]) == Group((1, 2, 3), ((6,),), start=2)
    # The last token is always a branch's.
    assert share_prompt([1], [[2, 3]]) == Group((1, 2), ((3,),), start=1)
    assert share_prompt([1, 2], [[3], [3]]) == Group((1, 2), ((3,), (3,)), start=2)


def test_a_stream_by_hand() -> None:
    """Ids of the stream 1 2 3 4 5 6 7 8: the 3 is predicted by the 2, 4 and 6 by the 3, 5 by 4, 8 by 7."""
    found = packed_predictions(GROUPS)
    assert pack(GROUPS).ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found.at.tolist() == [1, 2, 3, 2, 6]
    assert found.ids.tolist() == [3, 4, 5, 6, 8]
    assert found.terms.tolist() == [0, 1, 2, 0, 3, 4]
    assert found.owners.tolist() == [0, 0, 0, 1, 1, 2]


def test_rows_by_hand() -> None:
    found = flat_predictions(GROUPS, 5)
    assert found.at.tolist() == [1, 2, 3, 6, 7, 10]
    assert found.ids.tolist() == [3, 4, 5, 3, 6, 8]
    assert found.terms.tolist() == list(range(6))
    assert found.owners.tolist() == [0, 0, 0, 1, 1, 2]


def test_every_completion_is_there_once_in_its_order() -> None:
    generator = random.Random(0)

    def ids(low: int) -> list[int]:
        return generator.choices([4, 5], k=generator.randint(low, 5))  # few tokens: completions often begin alike

    for _ in range(200):
        groups = [
            share_prompt(ids(1), [ids(1) for _ in range(generator.randint(1, 4))])
            for _ in range(generator.randint(1, 3))
        ]
        sequences = [(group.start, ids) for group in groups for ids in group.sequences()]
        rows = pad(groups, 0).ids
        for found, before in (
            (packed_predictions(groups), pack(groups).ids),
            (flat_predictions(groups, rows.shape[1]), rows.reshape(-1)),
        ):
            for number, (start, sequence) in enumerate(sequences):
                terms = found.terms[found.owners == number]
                assert tuple(found.ids[terms]) == sequence[start:]
                assert tuple(before[found.at[terms]]) == sequence[start - 1 : -1]
            assert len(found.terms) == len(found.owners) == sum(len(ids) - start for start, ids in sequences)
            assert set(found.terms) == set(np.arange(len(found.ids)))
