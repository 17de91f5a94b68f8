"""What an adapter is, and the few steps that adapters share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rewardlab.data.files import FileRows
from rewardlab.data.pairs import KEPT, PER_COMPLETION, picked
from rewardlab.data.rows import Row, json_safe
from rewardlab.data.source import DataSource, read_source
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Message, Pair, Prompt, Record, SetAside

Turns = tuple[Message, ...]
Parsed = Record | SetAside


@dataclass(frozen=True)
class Adapter:
    """One format of rows.

    Attributes:
        name: what `adapter` in a configuration says.
        title: one line for lists of formats.
        required: columns that every row has.
        optional: further columns that mean something.
        parse: a row → its record, or why it is set aside; wrong types are noted in the row's problems. Pure.
        fits: whether a row that has the required columns is of this format; every one where this is None.
        load: a source → rows; the only step that touches disk or network.
        gather: rows of a file → rows of which each makes a record, as the source says; None where every row does. Pure.
        hub_ids: datasets on the hub that have this format.
    """

    name: str
    title: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    parse: Callable[[Row], Parsed]
    fits: Callable[[Row], bool] | None = None
    load: Callable[[DataSource, list[Problem]], list[FileRows]] = read_source
    gather: Callable[[FileRows, DataSource], FileRows] | None = None
    hub_ids: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that mean something."""
        return self.required + self.optional


def set_aside(row: Row, reason: str, detail: str) -> SetAside:
    """The row, set aside."""
    return SetAside(row.source, reason, detail, json_safe(row.values))


def broken(row: Row) -> SetAside:
    """Stand-in for the record of a row that has problems; it is never used."""
    return set_aside(row, "invalid", "has problems")


def usable(row: Row, record: Record, *, whole: bool = False, lists: tuple[str, ...] = ()) -> Parsed:
    """The record, or the row set aside where a side is empty or the sides of a pair are identical.

    Of candidates the empty ones are dropped one by one, and the row is set aside where nothing is left.

    Args:
        row: counts the completions that are dropped.
        record: of the row.
        whole: candidates that say nothing without all of their completions: one that is empty sets the row aside.
        lists: names in `meta` of lists with an element a completion, beside those of sampled ones.
    """
    if isinstance(record, Pair):
        sides = {"chosen": record.chosen, "rejected": record.rejected}
        if record.chosen.strip() == record.rejected.strip():
            return set_aside(row, "identical", "chosen and rejected are the same text")
    elif isinstance(record, Candidates):
        sides = {f"completion {number}": text for number, text in enumerate(record.completions)}
        filled = [place for place, text in enumerate(record.completions) if text.strip()]
        if filled and not whole and len(filled) < len(sides):
            return _without_empty(row, record, filled, lists)
    else:
        sides = {"completion": record.completion}
    empty = [name for name, text in sides.items() if not text.strip()]
    return set_aside(row, "empty", f"empty: {', '.join(empty)}") if empty else record


def _without_empty(row: Row, record: Candidates, filled: list[int], lists: tuple[str, ...]) -> Candidates:
    """The candidates at these places, with their rewards; `meta` says which they were of how many."""
    count = len(record.completions)
    row.dropped += count - len(filled)
    meta = picked(record.meta, count, filled, PER_COMPLETION + lists) | {KEPT: {"of": count, "places": filled}}
    completions = tuple(record.completions[place] for place in filled)
    rewards = None if record.rewards is None else tuple(record.rewards[place] for place in filled)
    return replace(record, completions=completions, rewards=rewards, meta=meta)


def prompt_of(conversation: str | Turns, options: Mapping[str, Any] | None = None) -> Prompt:
    """A prompt from a plain text or from messages."""
    if isinstance(conversation, str):
        return Prompt((Prompt.of_text(conversation).messages[0],), options or {})
    return Prompt(conversation, options or {})


def user_prompt(conversation: str | Turns, options: Mapping[str, Any] | None = None) -> Prompt:
    """A prompt in which a plain text is what the user said."""
    if isinstance(conversation, str):
        return Prompt((Message("user", conversation),), options or {})
    return Prompt(conversation, options or {})


def template_options(row: Row) -> dict[str, Any]:
    """Extra arguments of the chat template: `chat_template_kwargs`, and `tools` beside them."""
    options = row.mapping("chat_template_kwargs")
    if row.has("tools"):
        options["tools"] = row.items("tools")
    # Options are part of the id of a prompt, which is taken over strict JSON.
    safe: dict[str, Any] = json_safe(options)
    return safe


def answer(row: Row, name: str, value: str | Turns) -> str | None:
    """The text of a completion; None where it is several turns. A single turn must be the assistant's."""
    if isinstance(value, str):
        return value
    if len(value) > 1:
        return None
    if value and value[0].role != "assistant":
        row.complain(name, "an assistant turn", found=f"a turn of role {value[0].role!r}")
    return value[0].content if value else ""


@dataclass(frozen=True)
class Divergence:
    """Where two dialogues part.

    Attributes:
        shared: the turns both begin with, up to the answers.
        chosen, rejected: the first assistant turn in which they differ.
        dropped: later turns left out, of the longer side.
    """

    shared: Turns
    chosen: str
    rejected: str
    dropped: int


def divergence(chosen: Turns, rejected: Turns) -> Divergence | str:
    """Where two dialogues part: at an answer; otherwise the reason why they make no pair.

    Identical dialogues part at their last turn.
    """
    turns = min(len(chosen), len(rejected))
    at = next((i for i in range(turns) if chosen[i] != rejected[i]), turns)
    if at == turns and len(chosen) == len(rejected):
        at = turns - 1
    if at < 0 or at >= turns:
        return f"one side ends where the other goes on, after turn {turns}"
    for side in (chosen[at], rejected[at]):
        if side.role != "assistant":
            return f"the sides part at turn {at + 1}, a {side.role} turn"
    dropped = max(len(chosen), len(rejected)) - at - 1
    return Divergence(chosen[:at], chosen[at].content, rejected[at].content, dropped)


def dialogue_pair(row: Row, chosen: Turns, rejected: Turns, origin: Mapping[str, Any] | None = None) -> Parsed:
    """The pair of two whole dialogues; answers are the first assistant turns in which they differ.

    Later turns are left out and counted in `meta["dropped_turns"]`; `origin` goes to `meta` too.
    """
    parting = divergence(chosen, rejected)
    if isinstance(parting, str):
        return set_aside(row, "prefix_mismatch", parting)
    extra = {"dropped_turns": parting.dropped} if parting.dropped else {}
    prompt, margin = Prompt(parting.shared, template_options(row)), row.number("margin")
    # What is left of the row is known once everything else has been read.
    meta = {**(origin or {}), **row.rest(), **extra}
    return usable(row, Pair(prompt, parting.chosen, parting.rejected, margin, row.source, meta))
