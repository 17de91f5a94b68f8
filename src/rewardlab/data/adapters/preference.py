"""TRL's preference formats: {prompt, chosen, rejected} or {chosen, rejected}, as strings or as messages.

Without a prompt column the prompt is what both sides begin with: whole turns of conversations; of strings the
common beginning up to its last white space, so that no word is cut in two.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import (
    Adapter,
    Parsed,
    Turns,
    answer,
    broken,
    dialogue_pair,
    prompt_of,
    set_aside,
    template_options,
    usable,
    user_prompt,
)
from rewardlab.data.rows import Row
from rewardlab.records import Pair


def common_beginning(first: str, second: str) -> str:
    """What two strings begin with, up to before its last white space."""
    shortest = min(len(first), len(second))
    end = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    while end > 0 and not first[end - 1].isspace():
        end -= 1
    return first[:end].rstrip()


def parse(row: Row) -> Parsed:
    """A preference row as a pair."""
    prompt = row.conversation("prompt") if row.has("prompt") else None
    chosen, rejected = row.conversation("chosen"), row.conversation("rejected")
    if not row.problems and chosen and rejected and isinstance(chosen, str) != isinstance(rejected, str):
        row.complain("rejected", "the same form as chosen, text or messages")
    if row.problems:
        return broken(row)
    if isinstance(chosen, tuple) and isinstance(rejected, tuple):
        if prompt is None:
            return dialogue_pair(row, chosen, rejected)
        if isinstance(prompt, str) and len(chosen) > 1:
            return _whole_dialogues(row, prompt, chosen, rejected)
    if prompt is None:
        prompt = common_beginning(str(chosen), str(rejected))
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return _pair(row, prompt, chosen, rejected)


def _whole_dialogues(row: Row, prompt: str, chosen: Turns, rejected: Turns) -> Parsed:
    """Dialogues beside a prompt column that repeats what the user said in them (UltraFeedback)."""
    if not any(turn.role == "user" and turn.content == prompt for turn in chosen):
        return set_aside(row, "prefix_mismatch", "the prompt is no user turn of the chosen dialogue")
    return dialogue_pair(row, chosen, rejected)


def _pair(row: Row, prompt: str | Turns, chosen: str | Turns, rejected: str | Turns) -> Parsed:
    better, worse = answer(row, "chosen", chosen), answer(row, "rejected", rejected)
    if better is None or worse is None:
        return set_aside(row, "several_turns", "a completion of several turns")
    make = user_prompt if isinstance(chosen, tuple) else prompt_of
    context = make(prompt, template_options(row))
    return usable(row, Pair(context, better, worse, row.number("margin"), row.source, row.rest()))


ADAPTER = Adapter(
    name="preference",
    title="TRL preference: {prompt?, chosen, rejected}, strings or messages",
    required=("chosen", "rejected"),
    optional=("prompt", "margin", "chat_template_kwargs", "tools"),
    parse=parse,
)
