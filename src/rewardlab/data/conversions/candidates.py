"""Records of any kind → candidates with rewards, one by one or all records of a prompt as one.

A pair is [chosen, rejected] with the rewards (1, 0); its margin goes to `meta.pair_margin`. A rated completion is one
candidate: its reward is the score, or 1 for a good and 0 for a bad one.

Merged, the reward of a completion in pairs is the share of its comparisons that it has won, which for a single pair is
(1, 0); completions are told apart by their text. Those of candidates and rated completions all stay, in their order, as
samples may repeat themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.data.conversions.base import Converted, place
from rewardlab.data.pairs import PER_COMPLETION
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Pair, Record

PAIR_MARGIN = "pair_margin"
"""The margin of a pair, in the `meta` of its candidates."""
PAIR_REWARDS = (1.0, 0.0)
"""Of chosen and rejected."""


def as_candidates(name: str, records: Sequence[Record], merge: bool, problems: list[Problem]) -> Converted:
    """Every record as candidates.

    Args:
        name: of the set, for messages.
        records: of any kind.
        merge: whether all records of a prompt become one, where the first of them stands.
        problems: prompts whose records cannot be merged are added here.
    """
    if not merge:
        return Converted([candidates_of(record) for record in records])
    groups: dict[str, list[tuple[int, Record]]] = {}
    for number, record in enumerate(records, start=1):
        groups.setdefault(record.prompt.id, []).append((number, record))
    found: list[Record] = []
    for group in groups.values():
        number, first = group[0]
        found.append(_merged([record for _, record in group], place(name, number, first), problems))
    return Converted(found, {"records merged into another of their prompt": len(records) - len(found)})


def candidates_of(record: Record) -> Candidates:
    """A record as candidates; those that are some stay."""
    if isinstance(record, Candidates):
        return record
    if isinstance(record, Pair):
        extra = {} if record.margin is None else {PAIR_MARGIN: record.margin}
        return Candidates(record.prompt, record.completions, PAIR_REWARDS, record.source, {**record.meta, **extra})
    reward = float(bool(record.label)) if record.score is None else record.score
    return Candidates(record.prompt, record.completions, (reward,), record.source, record.meta)


def _merged(group: list[Record], where: str, problems: list[Problem]) -> Candidates:
    first, pairs = group[0], [record for record in group if isinstance(record, Pair)]
    if len(group) == 1 or len(pairs) not in (0, len(group)):
        if len(group) > 1:
            found = f"{len(pairs)} pairs and {len(group) - len(pairs)} other records of one prompt"
            remedy = "Wins and rewards are not on one scale: convert them apart."
            problems.append(Problem(where, found, "records of one kind to merge", remedy))
        return candidates_of(first)
    if pairs:
        won: dict[str, list[int]] = {}
        for pair in pairs:
            won.setdefault(pair.chosen, []).append(1)
            won.setdefault(pair.rejected, []).append(0)
        rewards = tuple(sum(own) / len(own) for own in won.values())
        return Candidates(first.prompt, tuple(won), rewards, first.source, _joint_meta(group))
    own = [candidates_of(record) for record in group]
    known = [one.rewards for one in own if one.rewards is not None]
    if len(known) not in (0, len(own)):
        found = f"{len(known)} of {len(own)} records of one prompt with rewards"
        problems.append(Problem(where, found, "rewards in all of them, or in none"))
        return own[0]
    joint = tuple(reward for one in known for reward in one) if known else None
    texts = tuple(text for one in own for text in one.completions)
    return Candidates(first.prompt, texts, joint, first.source, _joint_meta(group))


def _joint_meta(group: list[Record]) -> dict[str, Any]:
    """The first record's `meta`, with lists by completion joined where all have them, and the number of records."""
    metas: list[Mapping[str, Any]] = [record.meta for record in group]
    joint = {**metas[0], "merged": len(group)}
    joint.pop(PAIR_MARGIN, None)
    for key in PER_COMPLETION:
        lists = [meta.get(key) for meta in metas]
        whole = all(
            isinstance(one, list) and len(one) == len(record.completions)
            for one, record in zip(lists, group, strict=True)
        )
        if whole and not isinstance(group[0], Pair):
            joint[key] = [value for one in lists if one is not None for value in one]
        else:
            # Part of a list would be taken for that of all.
            joint.pop(key, None)
    return joint
