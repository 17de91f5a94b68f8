"""Log-probabilities under a policy that does not change, computed once and read from disk ever after.

    <folder of runs>/references/<key>/about.json          what the key stands for
                                      <name>.safetensors  a number per completion (see `store.rows`)

The key is over everything that a log-probability depends on besides its ids: weights, configuration, temperature,
precision, code. A row is found by the ids of prompt and completion, in which tokenizer and encoding have had their say.
So there is nothing that a cached number could be stale against.
"""

from __future__ import annotations

import hashlib
import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from rewardlab.data.layout import Group, cost, micro_batches, parts
from rewardlab.errors import ModelError, Problem
from rewardlab.models.feature_key import UNRELATED, code_of, tensors_digest
from rewardlab.models.memory import is_out_of_memory
from rewardlab.models.policies import load_policy
from rewardlab.models.policy import PolicyModel
from rewardlab.models.reward import Layout
from rewardlab.models.source import LayoutChoice
from rewardlab.records import content_id
from rewardlab.store.files import write_json
from rewardlab.store.keys import code_key
from rewardlab.store.rows import RowStore, digest_of
from rewardlab.store.settings import Settings

FOLDER, ABOUT = "references", "about.json"
SHARD_SEQUENCES = 1024
"""What at most is computed again after a kill."""
CPU_BUDGET, ACCELERATOR_BUDGET = 2048, 32768

log = logging.getLogger("rewardlab")


@dataclass(frozen=True)
class References:
    """Cached log-probabilities of the completions of some groups.

    Attributes:
        store: their rows, one number each.
        sequences: different ones among the groups.
        computed: of them, those that no earlier run had left.
    """

    store: RowStore
    sequences: int
    computed: int

    def of(self, group: Group) -> tuple[float, ...]:
        """Log-probabilities of the completions of a group, in branch order.

        Raises:
            KeyError: one is not in the cache.
        """
        return tuple(self.store.read(completion_digests(group)).tolist())


def load_reference(
    path: str,
    policy: PolicyModel,
    *,
    revision: str | None = None,
    layout: LayoutChoice = "auto",
    trust_remote_code: bool = False,
) -> PolicyModel:
    """What a policy is compared with: another one in float32, at its device, with its encoding and temperature.

    Args:
        path: a folder or a hub id.
        policy: what it is the reference of.
        revision: of a hub id.
        layout: `auto` shares prompts where the backbone passes the self-test.
        trust_remote_code: run Python code that comes with the checkpoint.

    Raises:
        ModelError: as `load_policy`; or another tokenizer.
    """
    reference = load_policy(
        path,
        revision=revision,
        device=str(policy.device),
        precision="float32",
        layout=layout,
        encoding=policy.encoding,
        temperature=policy.temperature,
        trust_remote_code=trust_remote_code,
    )
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        problem = Problem("reference", path, "a model with the policy's tokenizer", "Its ids mean other tokens.")
        raise ModelError("The reference reads other tokens than the policy", [problem])
    return reference


def cached_references(
    model: PolicyModel, groups: Sequence[Group], *, precision: str, budget: int | None = None
) -> References:
    """The log-probabilities of all completions, computing those that are missing.

    Where another process is computing some of the same, this waits for it, and then does the rest.

    Args:
        model: on the device that computes; of adapters it is the policy without them.
        groups: of token ids.
        precision: `bfloat16` runs products in bf16, as in training.
        budget: tokens per micro-batch (default: 2,048 on a CPU, 32,768 elsewhere); halved where memory runs out.

    Raises:
        ModelError: one sequence does not fit into memory, or has a log-probability that is no number.
        RunError: the disk fills up; whole shards are kept.
    """
    facts = reference_facts(model, precision)
    folder = Settings.from_environment().home / FOLDER / content_id(facts)
    store = RowStore(folder, (), torch.float32)
    sequences = len({digest for group in groups for digest in completion_digests(group)})
    missing = _missing(groups, store)
    count = _count(missing)
    log.info(
        "log-probabilities of %d completions: those of %d are in %s from before",
        sequences,
        sequences - count,
        folder,
    )
    if missing:
        with store.writing():
            # For people; what a model is called is no part of the key.
            write_json(folder / ABOUT, {"model": getattr(model.plain_network.config, "_name_or_path", "")} | facts)
            # Another process may have computed some while this one waited.
            missing = _missing(missing, store)
            with model.without_adapters():
                _compute(LogProbabilities(model, precision, budget), missing, store)
    return References(store, sequences, _count(missing))


def reference_facts(model: PolicyModel, precision: str) -> dict[str, Any]:
    """Everything that cached log-probabilities depend on besides ids; JSON values. Adapters that are trained are no
    part of it; those of a policy that was loaded, beside its quantised weights, are."""
    network = model.plain_network
    config = {
        name: value
        for name, value in network.config.to_dict().items()
        # Nothing is dropped out of a reference.
        if name not in UNRELATED and "drop" not in name
    }
    # What quantised weights are scaled by is no parameter and no buffer.
    scales = network.state_dict() if model.quantisation is not None else {}
    # With adapters beside them the same weights have names of peft's.
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in (*scales.items(), *network.named_parameters(), *network.named_buffers())
        if not (model.has_adapters and ".lora_" in name)
    }
    return {
        "weights": tensors_digest(weights),
        "network": code_of(network),
        # Some hold an infinity, which is no JSON.
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "temperature": model.temperature,
        "layout": model.layout,
        "precision": precision,
        "code": code_key(__name__),
        # Builds of one version for several devices differ in rounding alone.
        "packages": {name: version(name).partition("+")[0] for name in ("torch", "transformers")},
    }


def completion_digests(group: Group) -> list[bytes]:
    """What the log-probabilities of a group's completions are found by, in branch order: where the completion begins,
    and all ids."""
    return [digest_of(array("q", (group.start, len(ids), *ids)).tobytes()) for ids in group.sequences()]


class OfSequences(Protocol):
    """What gives a number per sequence of some groups, by group, then branch: a `PolicyModel`, or two compared."""

    @property
    def layout(self) -> Layout:
        """`shared` where prompts are run once."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def steady(self) -> AbstractContextManager[None]:
        """While no weight changes."""
        ...

    def __call__(self, groups: Sequence[Group], /) -> Tensor:
        """Shape [sequences]."""
        ...


class LogProbabilities:
    """Computes log-probabilities, or whatever else is a number per sequence, in micro-batches, without gradients.

    Args:
        model: on its device, in evaluation mode.
        precision: of the products.
        budget: tokens per micro-batch (default: 2,048 on a CPU, 32,768 elsewhere); halved where memory runs out.
    """

    def __init__(self, model: OfSequences, precision: str, budget: int | None = None) -> None:
        self.model = model
        self.precision = precision
        self.budget = budget or (CPU_BUDGET if model.device.type == "cpu" else ACCELERATOR_BUDGET)

    @property
    def _shared(self) -> bool:
        return self.model.layout == "shared"

    def tokens(self, group: Group) -> int:
        """Tokens that are run for a group, padding left out."""
        return group.packed_size if self._shared else sum(map(len, group.sequences()))

    def of(self, groups: Sequence[Group], bar: Any = None) -> Tensor:
        """By group, then branch, on the CPU, shape [sequences], float32.

        Raises:
            ModelError: one sequence alone does not fit into memory.
        """
        cut = [part for group in groups for part in parts(group, self.budget, shared=self._shared)]
        found: dict[int, Tensor] = {}
        kind, is_bf16 = self.model.device.type, self.precision == "bfloat16"
        # One context for all, so that weights are cast once and not once a micro-batch.
        autocast = torch.autocast(kind, torch.bfloat16, enabled=is_bf16)
        with torch.inference_mode(), autocast, self.model.steady():
            for members in micro_batches(cut, self.budget, shared=self._shared):
                batch = [cut[member] for member in members]
                sums = self._batch(batch)
                found |= dict(zip(members, sums.split([len(part.branches) for part in batch]), strict=True))
                if bar is not None:
                    bar.update(sum(map(self.tokens, batch)))
        return torch.cat([found[member] for member in range(len(cut))])

    def _batch(self, groups: Sequence[Group]) -> Tensor:
        try:
            sums: Tensor = self.model(groups)
            return sums.float().cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if _count(groups) == 1:
                found = f"out of memory with one sequence of {groups[0].longest} tokens"
                remedy = "Use smaller encoding.max_prompt_tokens and encoding.max_completion_tokens, or another device."
                problem = Problem("log-probabilities", found, "memory for one sequence", remedy)
                raise ModelError("The model does not fit into memory", [problem]) from error
        # Out here the error and the activations that its frames hold are gone.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.budget = cost(groups, shared=self._shared) // 2
        log.warning("out of memory: repeated with %d tokens a micro-batch", self.budget)
        return self.of(groups)


def _missing(groups: Sequence[Group], store: RowStore) -> list[Group]:
    """The groups without the completions that are in the store or in an earlier group."""
    seen: set[bytes] = set()
    missing = []
    for group in groups:
        fresh = []
        for branch, digest in enumerate(completion_digests(group)):
            if digest not in store and digest not in seen:
                seen.add(digest)
                fresh.append(branch)
        if fresh:
            missing.append(group.part(fresh))
    return missing


def _count(groups: Sequence[Group]) -> int:
    return sum(len(group.branches) for group in groups)


def _compute(model: LogProbabilities, groups: Sequence[Group], store: RowStore) -> None:
    """Write all log-probabilities, shard by shard, the longest first: what memory can bear shows at once."""
    ordered = sorted(groups, key=lambda group: -group.packed_size)
    total = sum(map(model.tokens, ordered))
    with tqdm(total=total, unit="token", unit_scale=True, desc="reference", mininterval=0.5) as bar:
        for shard in _shards(ordered):
            sums = model.of(shard, bar)
            if not torch.isfinite(sums).all():
                found = f"{int((~torch.isfinite(sums)).sum())} log-probabilities that are no numbers"
                problem = Problem("reference", found, "finite log-probabilities", "Compute in float32.")
                raise ModelError("The reference cannot be computed", [problem])
            store.write([digest for group in shard for digest in completion_digests(group)], sums)


def _shards(groups: Sequence[Group]) -> Iterator[list[Group]]:
    shard: list[Group] = []
    for group in groups:
        shard.append(group)
        if _count(shard) >= SHARD_SEQUENCES:
            yield shard
            shard = []
    if shard:
        yield shard
