"""Several completions of one prompt: {prompt, completions, rewards?}, and ranked {context, completions}."""

from __future__ import annotations

from collections.abc import Mapping

from rewardlab.data.adapters.base import (
    Adapter,
    Parsed,
    answer,
    broken,
    prompt_of,
    set_aside,
    template_options,
    usable,
    user_prompt,
)
from rewardlab.data.rows import Row, as_number, is_messages, shown
from rewardlab.records import Candidates


def parse(row: Row) -> Parsed:
    """Completions as strings or as one assistant message each, with a reward each where there are rewards."""
    prompt, items, rewards = row.conversation("prompt"), row.items("completions"), row.numbers("rewards")
    chat = any(is_messages(item) for item in items)
    texts = [_completion(row, position, item) for position, item in enumerate(items)]
    if rewards is not None and len(rewards) != len(items):
        row.complain("rewards", f"{len(items)} numbers, one a completion")
    if row.problems:
        return broken(row)
    if not items:
        return set_aside(row, "empty", "no completions")
    if None in texts:
        return set_aside(row, "several_turns", "a completion of several turns")
    context = (user_prompt if chat else prompt_of)(prompt, template_options(row))
    completions = tuple(text for text in texts if text is not None)
    return usable(row, Candidates(context, completions, rewards, row.source, row.rest()))


def _completion(row: Row, position: int, item: object) -> str | None:
    inner = Row(row.source, {f"completions[{position}]": item})
    text = answer(inner, f"completions[{position}]", inner.conversation(f"completions[{position}]"))
    row.problems += inner.problems
    return text


def parse_ranked(row: Row) -> Parsed:
    """Ranked completions; rank 1 is the best, and the reward is minus the rank."""
    context, items = row.conversation("context"), row.items("completions")
    ranks, texts = [], []
    for position, item in enumerate(items):
        rank = as_number(item.get("rank")) if isinstance(item, Mapping) else None
        text = item.get("completion") if isinstance(item, Mapping) else None
        if rank is None or not isinstance(text, str):
            row.complain("completions", "objects {rank, completion}", found=f"{shown(item)} at position {position}")
        else:
            ranks.append(rank)
            texts.append(text)
    if row.problems:
        return broken(row)
    if not items:
        return set_aside(row, "empty", "no completions")
    rewards = tuple(-rank for rank in ranks)
    return usable(row, Candidates(prompt_of(context), tuple(texts), rewards, row.source, row.rest()))


ADAPTER = Adapter(
    name="k-way",
    title="K completions of a prompt: {prompt, completions, rewards?}",
    required=("prompt", "completions"),
    optional=("rewards", "chat_template_kwargs", "tools"),
    parse=parse,
)

RANKED = Adapter(
    name="ranked",
    title="ranked completions: {context, completions: [{rank, completion}]}, 1 is the best",
    required=("context", "completions"),
    optional=(),
    parse=parse_ranked,
)
