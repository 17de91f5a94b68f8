"""Hidden states of a frozen backbone, computed once and read from disk ever after.

    <folder of runs>/features/<key>/about.json          what the key stands for
                                    <name>.safetensors  rows by the digest of their sequence (see `store.rows`)

The key is over everything that a state depends on besides its sequence (`models.feature_key`). A row is found by the
ids of its sequence, in which tokenizer, template and truncation have had their say. So there is nothing that a cached
state could be stale against, and sets that overlap (other splits, folds, limits) share their rows.
"""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rewardlab.data.layout import Group, cost, micro_batches, parts
from rewardlab.errors import ModelError, Problem, RunError
from rewardlab.models.feature_key import FeatureDtype, feature_facts
from rewardlab.models.memory import is_out_of_memory
from rewardlab.models.reward import Layout, RewardModel
from rewardlab.records import content_id
from rewardlab.store.files import write_json
from rewardlab.store.processes import processes
from rewardlab.store.rows import RowStore, digest_of, in_words
from rewardlab.store.settings import Settings
from rewardlab.store.together import together

FOLDER, ABOUT = "features", "about.json"
SHARD_SEQUENCES = 1024
"""What at most is computed again after a kill."""
CPU_BUDGET, ACCELERATOR_BUDGET = 2048, 65536

log = logging.getLogger("rewardlab")


@dataclass(frozen=True)
class Features:
    """Cached states of some groups.

    Attributes:
        store: their rows, of shape [layers, width].
        sequences: different ones among the groups.
        computed: of them, those that no earlier run had left.
    """

    store: RowStore
    sequences: int
    computed: int


class FeatureModel(nn.Module):
    """A reward model whose backbone is a table: groups in, one reward per sequence out.

    Args:
        whole: the reward model; its backbone is never run.
        features: the states of every sequence that will be asked for.
    """

    layout: Layout = "flat"

    def __init__(self, whole: RewardModel, features: Features) -> None:
        super().__init__()
        self.whole = whole
        self.features = features

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Rewards in float32, by group, then branch; shape [sequences].

        Raises:
            KeyError: a sequence that is not in the cache.
        """
        digests = [digest for group in groups for digest in sequence_digests(group)]
        return self.whole.rewards_of(self.features.store.read(digests).to(self.whole.device))


def cached_features(
    model: RewardModel,
    groups: Sequence[Group],
    *,
    dtype: FeatureDtype,
    precision: str,
    budget: int | None,
    instead: str,
) -> Features:
    """The states of all sequences, computing those that are missing; how much disk they need is told first.

    The processes of a run share what is missing, shard by shard. Where another run is computing states of the same
    kind, this waits for it, and then does the rest.

    Args:
        model: with fixed states, its backbone frozen, on the device that computes.
        groups: of token ids, at least one.
        dtype: of the stored states.
        precision: `bfloat16` runs products in bf16 over float32 weights, as in training.
        budget: tokens per micro-batch (default: 2,048 on a CPU, 65,536 elsewhere); halved where memory runs out.
        instead: what to do where the disk is too small.

    Raises:
        ModelError: one sequence does not fit into memory, or a state is no number in `dtype`.
        RunError: the disk is too small, or fills up; whole shards are kept. Or the processes of a run do not have the
            same model and data.
    """
    here = processes()
    budget = budget or (CPU_BUDGET if model.device.type == "cpu" else ACCELERATOR_BUDGET)
    backbone = _Backbone(model, precision, budget)
    facts = feature_facts(model, dtype, precision)
    folder = Settings.from_environment().home / FOLDER / content_id(facts)
    digests = [sequence_digests(group) for group in groups]
    flat = [digest for own in digests for digest in own]
    sequences = len(set(flat))
    _check_alike(here.gather([folder.name, digest_of(b"".join(flat)).hex()]))
    shape = backbone.states([groups[0].part([0])]).shape[1:]
    store = together(lambda: RowStore(folder, shape, getattr(torch, dtype)))

    def begin() -> list[tuple[int, list[int]]]:
        """What is missing, with the right to write where anything is; in the first process."""
        missing = _missing(digests, store)
        count = _count(missing)
        log.info("features: %d sequences, %d of them cached in %s", sequences, sequences - count, folder)
        if not missing:
            return []
        need, free = in_words(store.bytes_for(count)), in_words(store.free_bytes())
        log.info("features: the other %d take %s on the disk, which has %s free", count, need, free)
        store.check_room(count, instead)
        right.enter_context(store.writing())
        # For people; what a model is called is no part of the key.
        write_json(folder / ABOUT, {"model": getattr(model.plain_network.config, "_name_or_path", "")} | facts)
        # Another run may have computed some while this one waited.
        return _missing(digests, store)

    with ExitStack() as right:
        missing = here.first(begin)
        shards = _shards([groups[group].part(branches) for group, branches in missing], here.count)
        together(lambda: _compute(backbone, shards[here.rank :: here.count], store))
    # What the other processes have made.
    together(store.refresh)
    return Features(store, sequences, _count(missing))


def _check_alike(facts: Sequence[Sequence[str]]) -> None:
    """Key and digest of all sequences are the same in every process.

    Raises:
        RunError: they are not.
    """
    names = ("the model", "the data")
    problems = [
        Problem(f"{name} of process {rank}", "another than in the first process", "the same in all")
        for rank, own in enumerate(facts)
        for name, one, other in zip(names, own, facts[0], strict=True)
        if one != other
    ]

    def refuse() -> None:
        if problems:
            raise RunError("the processes do not cache the same states", problems)

    together(refuse)


def sequence_digests(group: Group) -> list[bytes]:
    """What the states of a group's sequences are found by, in branch order: their ids, and their segment ids."""
    types = group.types or [()] * len(group.branches)
    return [
        digest_of(array("q", (len(ids), *ids, *own)).tobytes())
        for ids, own in zip(group.sequences(), types, strict=True)
    ]


def _missing(digests: Iterable[Sequence[bytes]], store: RowStore) -> list[tuple[int, list[int]]]:
    """Groups with those of their branches that are neither in the store nor in an earlier group, by their places."""
    seen: set[bytes] = set()
    missing = []
    for place, own in enumerate(digests):
        fresh = []
        for branch, digest in enumerate(own):
            if digest not in store and digest not in seen:
                seen.add(digest)
                fresh.append(branch)
        if fresh:
            missing.append((place, fresh))
    return missing


def _count(missing: Iterable[tuple[int, list[int]]]) -> int:
    return sum(len(branches) for _, branches in missing)


def _compute(backbone: _Backbone, shards: Sequence[Sequence[Group]], store: RowStore) -> None:
    """Write the states of all sequences, shard by shard."""
    if not shards:
        return
    # Long sequences take longer: a bar of tokens knows the time that is left.
    total = sum(backbone.tokens(group) for shard in shards for group in shard)
    quiet = not processes().is_first
    with tqdm(total=total, unit="token", unit_scale=True, desc="features", mininterval=0.5, disable=quiet) as bar:
        for shard in shards:
            states = backbone.states(shard, bar)
            store.write([digest for group in shard for digest in sequence_digests(group)], _finite(states, store.dtype))


def _shards(groups: Sequence[Group], sharing: int) -> list[list[Group]]:
    """Groups to be written together, the longest first: what memory can bear shows at once."""
    size = min(SHARD_SEQUENCES, math.ceil(sum(len(group.branches) for group in groups) / sharing))
    shards: list[list[Group]] = []
    room = 0
    for group in sorted(groups, key=lambda group: -group.packed_size):
        if room <= 0:
            shards.append([])
            room = size
        shards[-1].append(group)
        room -= len(group.branches)
    return shards


def _finite(states: Tensor, dtype: torch.dtype) -> Tensor:
    """The states in the dtype that they are stored in.

    Raises:
        ModelError: one is no number there.
    """
    stored = states.to(dtype)
    if not torch.isfinite(stored).all():
        largest = states[torch.isfinite(states)].abs().max().item() if torch.isfinite(states).any() else float("nan")
        name = str(dtype).removeprefix("torch.")
        found = f"states that are no numbers in {name} (largest number: {largest:.3g})"
        remedy = "Store them in bfloat16 or float32." if torch.isfinite(states).all() else "Compute in float32."
        raise ModelError("The states cannot be stored", [Problem("features", found, "finite states", remedy)])
    return stored


class _Backbone:
    """Computes states in micro-batches.

    Args:
        model: with fixed states, on its device; put into evaluation mode.
        precision: of the products.
        budget: tokens per micro-batch.
    """

    def __init__(self, model: RewardModel, precision: str, budget: int) -> None:
        self.model = model.eval()
        self.precision = precision
        self.budget = budget

    @property
    def _shared(self) -> bool:
        return self.model.layout == "shared"

    def tokens(self, group: Group) -> int:
        """Tokens that are run for a group, padding left out."""
        return group.packed_size if self._shared else sum(map(len, group.sequences()))

    def states(self, groups: Sequence[Group], bar: Any = None) -> Tensor:
        """By group, then branch, on the CPU, shape [sequences, layers, width], float32."""
        cut = [part for group in groups for part in parts(group, self.budget, shared=self._shared)]
        found: dict[int, Tensor] = {}
        for members in micro_batches(cut, self.budget, shared=self._shared):
            batch = [cut[member] for member in members]
            states = self._batch(batch)
            found |= dict(zip(members, states.split([len(part.branches) for part in batch]), strict=True))
            if bar is not None:
                bar.update(sum(map(self.tokens, batch)))
        return torch.cat([found[member] for member in range(len(cut))])

    def _batch(self, groups: Sequence[Group]) -> Tensor:
        """States of a micro-batch; where memory runs out, with half its tokens from now on.

        Raises:
            ModelError: one sequence alone does not fit into memory.
        """
        kind = self.model.device.type
        try:
            with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16"):
                return self.model.states(groups).float().cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if sum(len(group.branches) for group in groups) == 1:
                found = f"out of memory with one sequence of {groups[0].longest} tokens"
                remedy = "Use a smaller --encoding.max_tokens or another --device."
                problem = Problem("features", found, "memory for one sequence", remedy)
                raise ModelError("The model does not fit into memory", [problem]) from error
        # Out here the error and the activations that its frames hold are gone.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.budget = cost(groups, shared=self._shared) // 2
        log.warning("out of memory: repeated with %d tokens a micro-batch", self.budget)
        return self.states(groups)
