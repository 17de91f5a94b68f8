"""Cached states while two processes compute those of overlapping data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_features import cached, frozen, groups_of

from rewardlab.data.layout import Group
from rewardlab.models.features import sequence_digests
from rewardlab.store.rows import RowStore


def test_what_another_process_left_meanwhile_is_not_computed_again(
    tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has the right to write first, and leaves the states of ten of the thirty pairs."""
    model = frozen(tokenizer)
    groups = groups_of(model, 30)
    states, writing = model.states, RowStore.writing
    run: list[bytes] = []

    def noted(asked: Sequence[Group]) -> torch.Tensor:
        run.extend(digest for group in asked for digest in sequence_digests(group))
        return states(asked)

    @contextmanager
    def after_the_other(store: RowStore) -> Iterator[None]:
        monkeypatch.setattr(RowStore, "writing", writing)
        cached(frozen(tokenizer), groups[5:15])
        run.clear()
        with writing(store):
            yield

    model.states = noted  # type: ignore[method-assign]
    monkeypatch.setattr(RowStore, "writing", after_the_other)
    features = cached(model, groups).features
    assert (features.sequences, features.computed) == (60, 40)
    assert sorted(run) == sorted(digest for group in groups[:5] + groups[15:] for digest in sequence_digests(group))
