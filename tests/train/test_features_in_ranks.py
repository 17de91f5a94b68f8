"""Hidden states in several processes: each computes its share, all find everything, and a kill loses a shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from toys import Killed, examples_of, kill, on_call, pairs, toy_model

from rewardlab.data.layout import Group
from rewardlab.errors import ElsewhereError, RunError
from rewardlab.models import features as module
from rewardlab.models.features import FeatureModel, cached_features, sequence_digests
from rewardlab.models.readouts import Readout
from rewardlab.models.reward import RewardModel
from rewardlab.store.processes import processes
from rewardlab.store.rows import RowStore

RECORDS = pairs(40)
SHARD = 8


def frozen(tokenizer: str, seed: int = 1) -> RewardModel:
    readout = Readout(name="pooled-encoder", layers=2, width=8)
    return toy_model(Path(tokenizer), readout=readout, freeze_backbone=True, seed=seed).eval()


def groups_of(model: RewardModel, records: Sequence[Any] = RECORDS) -> list[Group]:
    return [example.group for example in examples_of(model, records).items]


def cached(model: RewardModel, groups: Sequence[Group]) -> FeatureModel:
    found = cached_features(model, groups, dtype="float32", precision="float32", budget=512, instead="")
    return FeatureModel(model, found)


def refused(tokenizer: str, *, seed: int = 1, records: Sequence[Any] = RECORDS) -> str:
    model = frozen(tokenizer, seed)
    try:
        cached(model, groups_of(model, records))
    except (RunError, ElsewhereError) as error:
        return str(error)
    return ""


def shared(tokenizer: str) -> dict[str, Any]:
    """All that is asked of the processes, in one launch; both are killed at their second shard first."""
    module.SHARD_SEQUENCES = SHARD
    model = frozen(tokenizer)
    groups = groups_of(model)
    written: list[list[str]] = []
    write = RowStore.write

    def counted(store: RowStore, digests: Sequence[bytes], rows: torch.Tensor) -> None:
        write(store, digests, rows)
        written.append([digest.hex() for digest in digests])

    RowStore.write = on_call(counted, 2, kill)  # type: ignore[method-assign]
    killed = False
    try:
        cached(model, groups)
    except Killed:
        killed = True
    RowStore.write = counted  # type: ignore[method-assign]
    features = cached(model, groups)
    again = cached(model, groups)
    with torch.no_grad():
        rewards = features(groups).tolist()
    return {
        "killed": killed,
        "written": written,
        "counts": [features.features.sequences, features.features.computed, again.features.computed],
        "rewards": rewards,
    }


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_share_what_is_missing(count: int, tokenizer: Path, tmp_path: Path) -> None:
    found = run_ranks(shared, count, str(tokenizer))
    model = frozen(str(tokenizer))
    groups = groups_of(model)
    everything = {digest.hex() for group in groups for digest in sequence_digests(group)}
    assert len(everything) == 80
    shards = [shard for one in found for shard in one["written"]]
    # Each sequence is computed once, by whichever process; what stood on the disk before the kill, not again.
    assert sorted(digest for shard in shards for digest in shard) == sorted(everything)
    assert all(len(shard) == SHARD for shard in shards)
    shares = [sum(map(len, one["written"])) for one in found]
    assert max(shares) - min(shares) <= SHARD
    for one in found:
        assert one["killed"]
        assert one["counts"] == [80, 80 - SHARD * count, 0]
    with torch.no_grad():
        expected = model(groups)
        for one in found:
            torch.testing.assert_close(torch.tensor(one["rewards"]), expected, rtol=0, atol=1e-5)
    # One process goes on from what several have left.
    assert cached(model, groups).features.computed == 0


def test_processes_with_other_weights_or_data_are_refused(tokenizer: Path) -> None:
    first, second = run_ranks(refusals, 2, str(tokenizer))
    assert "the model of process 1: found another than in the first process" in first[0]
    assert "the data of process 1: found another than in the first process" in first[1]
    assert all("The first process of this run has failed" in said for said in second)


def refusals(tokenizer: str) -> list[str]:
    rank = processes().rank
    return [refused(tokenizer, seed=1 + rank), refused(tokenizer, records=RECORDS[rank:])]
