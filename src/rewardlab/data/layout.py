"""The layout engine's integers: shared prefixes, optimiser steps and micro-batches under a token budget.

A *group* is the set of sequences that share a prompt: the two sides of a pair, K candidates, an original and its
rewrites. It is laid out as its longest common token prefix once, then one *branch* per sequence:

    packed     prefix | branch 0 | branch 1 | ...     positions restart after the prefix in every branch
    flat       every sequence whole, in a row of its own, padded on the right

A token attends to the tokens before it in its own group's prefix and its own branch, and to itself, which is what it
sees in the flat layout; so both layouts give the same numbers. Several groups follow each other in one packed stream,
without padding.

Nothing here knows a model or a device; `models.attention` turns the integers into attention.

Units: every size, budget and position is in tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """Sequences with a common prefix; every branch holds at least one token.

    Attributes:
        types: segment ids of every plain sequence, where they are text pairs and the tokenizer tells the texts apart;
            otherwise empty. Only the flat layout knows them.
        start: tokens of every plain sequence that are the prompt's, where a policy goes on from a prompt. The prefix
            may be longer: completions may begin alike.
    """

    prefix: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    types: tuple[tuple[int, ...], ...] = ()
    start: int = 0

    @property
    def packed_size(self) -> int:
        """Tokens with the prefix counted once."""
        return len(self.prefix) + sum(map(len, self.branches))

    @property
    def longest(self) -> int:
        """Tokens of the longest plain sequence."""
        return len(self.prefix) + max(map(len, self.branches))

    def sequences(self) -> list[tuple[int, ...]]:
        """The plain sequences that the group stands for, in branch order."""
        return [self.prefix + branch for branch in self.branches]

    def part(self, branches: Sequence[int]) -> Group:
        """The same prefix with some of the branches."""
        types = tuple(self.types[index] for index in branches) if self.types else ()
        return Group(self.prefix, tuple(self.branches[index] for index in branches), types, self.start)


def share_prefix(sequences: Sequence[Sequence[int]]) -> Group:
    """The group of `sequences` (each at least one token), with their longest common prefix.

    The last token of a sequence is always in its branch, since it is the one that is read.
    """
    limit = min(map(len, sequences)) - 1
    first = sequences[0]
    length = 0
    while length < limit and all(sequence[length] == first[length] for sequence in sequences):
        length += 1
    return Group(tuple(first[:length]), tuple(tuple(sequence[length:]) for sequence in sequences))


def share_prompt(prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> Group:
    """The group of completions (each at least one token) of a prompt (at least one token, which the first follows)."""
    group = share_prefix([[*prompt, *completion] for completion in completions])
    return Group(group.prefix, group.branches, start=len(prompt))


@dataclass(frozen=True)
class Segment:
    """Where a group lies in a packed stream.

    Attributes:
        start: index of its first token.
        prefix: tokens in the shared prefix.
        branches: tokens in each branch; the branches follow the prefix in order.
    """

    start: int
    prefix: int
    branches: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """Groups in one stream.

    Attributes:
        ids: token ids, shape [tokens].
        positions: position ids, shape [tokens].
        reads: index of the last token of every sequence, by group, then branch, shape [sequences].
        segments: where each group lies.
    """

    ids: np.ndarray
    positions: np.ndarray
    reads: np.ndarray
    segments: tuple[Segment, ...]

    def members(self) -> np.ndarray:
        """Which tokens every sequence is made of, prefix and branch, shape [sequences, tokens]."""
        made_of = np.zeros((len(self.reads), len(self.ids)), bool)
        row = 0
        for segment in self.segments:
            start = segment.start + segment.prefix
            for length in segment.branches:
                made_of[row, segment.start : segment.start + segment.prefix] = True
                made_of[row, start : start + length] = True
                start += length
                row += 1
        return made_of


def pack(groups: Sequence[Group]) -> Packed:
    """Groups one after another, each prefix once."""
    ids: list[int] = []
    positions: list[int] = []
    reads: list[int] = []
    segments = []
    for group in groups:
        segments.append(Segment(len(ids), len(group.prefix), tuple(map(len, group.branches))))
        ids += group.prefix
        positions += range(len(group.prefix))
        for branch in group.branches:
            ids += branch
            positions += range(len(group.prefix), len(group.prefix) + len(branch))
            reads.append(len(ids) - 1)
    return Packed(np.array(ids, np.int64), np.array(positions, np.int64), np.array(reads, np.int64), tuple(segments))


@dataclass(frozen=True)
class Padded:
    """Sequences in rows, padded on the right.

    Attributes:
        ids: token ids, shape [sequences, longest].
        mask: 1 at real tokens, shape [sequences, longest].
        reads: column of the last real token, shape [sequences].
        types: segment ids, 0 at the padding, shape [sequences, longest]; all 0 where the groups have none.
    """

    ids: np.ndarray
    mask: np.ndarray
    reads: np.ndarray
    types: np.ndarray


def pad(groups: Sequence[Group], pad_id: int) -> Padded:
    """Every sequence of every group in a row of its own, by group, then branch."""
    sequences = [sequence for group in groups for sequence in group.sequences()]
    lengths = np.array([len(sequence) for sequence in sequences])
    ids = np.full((len(sequences), lengths.max()), pad_id, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    types = np.zeros_like(ids)
    for row, own in enumerate(own for group in groups for own in group.types or [()] * len(group.branches)):
        types[row, : len(own)] = own
    return Padded(ids, mask, lengths - 1, types)


def cost(groups: Sequence[Group], *, shared: bool) -> int:
    """Tokens that the groups take in one micro-batch: the packed stream, or the padded rectangle."""
    if shared:
        return sum(group.packed_size for group in groups)
    return sum(len(group.branches) for group in groups) * max(group.longest for group in groups)


def micro_batches(groups: Sequence[Group], budget: int, *, shared: bool) -> list[list[int]]:
    """Indices of `groups` in micro-batches of at most `budget` tokens, groups of like size together.

    A group larger than the budget stands alone; `split` cuts it further. Deterministic: equal sizes keep their order.
    """
    # Padding is lost on the shorter neighbours, so the flat layout goes by the longest sequence.
    sizes = [group.packed_size if shared else group.longest for group in groups]
    order = sorted(range(len(groups)), key=lambda index: -sizes[index])
    batches: list[list[int]] = []
    tokens = rows = 0
    for index in order:
        group = groups[index]
        width = groups[batches[-1][0]].longest if batches else 0
        wanted = tokens + group.packed_size if shared else (rows + len(group.branches)) * width
        if not batches or wanted > budget:
            batches.append([])
            tokens = rows = 0
        batches[-1].append(index)
        tokens += group.packed_size
        rows += len(group.branches)
    return batches


def split(group: Group, budget: int, *, shared: bool) -> list[list[int]]:
    """Branches of one group in parts that fit the budget, at least one branch in each part."""
    parts: list[list[int]] = [[]]
    for index in range(len(group.branches)):
        if parts[-1] and cost([group.part([*parts[-1], index])], shared=shared) > budget:
            parts.append([])
        parts[-1].append(index)
    return parts


def parts(group: Group, limit: int, *, shared: bool) -> list[Group]:
    """The group whole where it takes at most `limit` tokens, else cut by `split`; the branches keep their order."""
    if cost([group], shared=shared) <= limit:
        return [group]
    return [group.part(branches) for branches in split(group, limit, shared=shared)]


def shares(groups: Sequence[Group], count: int, *, shared: bool) -> list[list[int]]:
    """Groups dealt to `count` processes, of about the same number of tokens each, in their order; some may be empty.

    The largest first, each to the process with the fewest tokens so far: a pure function of its arguments, so that
    every process comes to the same result.
    """
    if count == 1:
        return [list(range(len(groups)))]
    costs = [cost([group], shared=shared) for group in groups]
    dealt: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, process) for process in range(count)]
    for index in sorted(range(len(groups)), key=lambda index: (-costs[index], index)):
        load, process = heapq.heappop(loads)
        dealt[process].append(index)
        heapq.heappush(loads, (load + costs[index], process))
    return [sorted(indices) for indices in dealt]


def optimiser_steps(count: int, per_step: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The epoch's order of `count` examples, `per_step` to an optimiser step; the last step may be smaller.

    A pure function of its arguments: resuming in the middle of an epoch is an index.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + per_step].tolist() for start in range(0, count, per_step)]
