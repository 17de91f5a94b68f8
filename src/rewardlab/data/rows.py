"""A row of somebody's data, with typed reading that remembers every complaint.

Adapters read columns through `Row`. A wrong type does not raise: it is noted in `Row.problems`, the reader gets
a harmless stand-in and goes on, so that one pass over a file finds everything that is wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardlab.errors import Problem
from rewardlab.records import Message, Source

ROLES = ("system", "developer", "user", "assistant", "tool", "text")
"""Roles that a message may have; "text" stands for plain text, as canonical files write it."""

SHOWN_CHARACTERS = 60
"""How much of an offending value an error shows."""


def shown(value: Any) -> str:
    """A value as an error shows it: its type where that says enough, shortened text otherwise."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(repr, list(value)[:5])) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def is_messages(value: Any) -> bool:
    """Whether a value looks like a list of chat messages."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) and "role" in turn for turn in value)
    )


def json_safe(value: Any) -> Any:
    """A value as strict JSON can hold it: NaN and infinities become null, dates and bytes text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


@dataclass(slots=True)
class Row:
    """One row and what is wrong with it.

    Attributes:
        source: where it stands.
        values: the row as read.
        columns: our column name → theirs; a dotted name of theirs reaches into nested objects.
        problems: what the typed readers found wrong, in reading order.
        read: top-level columns that a reader has asked for; `rest` is what remains.
        dropped: empty completions that its record does without.
    """

    source: Source
    values: Mapping[str, Any]
    columns: Mapping[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    dropped: int = 0

    def theirs(self, name: str) -> str:
        """The column of the file that stands for our column `name`."""
        return self.columns.get(name, name)

    def has(self, name: str) -> bool:
        """Whether the column is there and not null."""
        return self.raw(name) is not None

    def raw(self, name: str) -> Any:
        """The value as it stands, null where the column is absent."""
        column = self.theirs(name)
        if column in self.values:
            self.read.add(column)
            return self.values[column]
        value: Any = self.values
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        self.read.add(column.split(".")[0])
        return value

    def complain(self, name: str, expected: str, remedy: str = "", found: str | None = None) -> None:
        """Note a problem with a column."""
        column = self.theirs(name)
        if found is None:
            found = shown(self.raw(name)) if column in self.values or self.has(name) else "no such column"
        self.problems.append(Problem(f'{self.source}, column "{column}"', found, expected, remedy))

    def text(self, name: str, *, empty: bool = False) -> str:
        """A string; with `empty`, null is the empty string (an answer that is not there)."""
        value = self.raw(name)
        if isinstance(value, str):
            return value
        if value is None and empty and self.knows(name):
            return ""
        self.complain(name, "a string")
        return ""

    def number(self, name: str) -> float | None:
        """A finite number, also written as a string; None where the value is absent, null or empty."""
        value = self.raw(name)
        if value is None or value == "":
            return None
        number = as_number(value)
        if number is None:
            self.complain(name, "a finite number")
        return number

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """A list of finite numbers; None where the value is absent or null."""
        if not self.has(name):
            return None
        values = [as_number(value) for value in self.items(name)]
        if any(value is None for value in values):
            self.complain(name, "a list of finite numbers", found=f"{shown(self.raw(name))} with other values")
            return None
        return tuple(value for value in values if value is not None)

    def truth(self, name: str) -> bool:
        """A binary label: true/false, positive/negative, 1/0 or those words."""
        value = self.raw(name)
        known = dict.fromkeys(("true", "positive", "1", "1.0"), True)
        known |= dict.fromkeys(("false", "negative", "0", "0.0"), False)
        answer = known.get(str(value).strip().lower())
        if answer is None:
            self.complain(name, "true or false (or positive or negative, or 1 or 0)")
            return False
        return answer

    def items(self, name: str) -> list[Any]:
        """A list, also as JSON in a string (CSV cells)."""
        value = _unpacked(self.raw(name))
        if isinstance(value, list | tuple):
            return list(value)
        self.complain(name, "a list")
        return []

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, also as JSON in a string (CSV cells); empty where the value is absent or null."""
        value = _unpacked(self.raw(name))
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return dict(value)
        self.complain(name, "an object")
        return {}

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; null items are empty answers."""
        items = self.items(name)
        for position, item in enumerate(items):
            if item is not None and not isinstance(item, str):
                self.complain(name, "a list of strings", found=f"{shown(item)} at position {position}")
                return ()
        return tuple(item or "" for item in items)

    def conversation(self, name: str) -> str | tuple[Message, ...]:
        """A string as it stands, or a list of chat messages (also as JSON in a string)."""
        value = self.raw(name)
        unpacked = _unpacked(value)
        if is_messages(unpacked):
            return self._messages(name, unpacked)
        if isinstance(value, str):
            return value
        if value is None and self.knows(name):
            return ""
        self.complain(name, "a string or a list of messages with role and content")
        return ""

    def messages(self, name: str) -> tuple[Message, ...]:
        """A list of chat messages (also as JSON in a string)."""
        unpacked = _unpacked(self.raw(name))
        if is_messages(unpacked):
            return self._messages(name, unpacked)
        self.complain(name, "a list of messages with role and content")
        return ()

    def rest(self) -> dict[str, Any]:
        """The columns that no reader has asked for, as strict JSON."""
        return {name: json_safe(value) for name, value in self.values.items() if name not in self.read}

    def knows(self, name: str) -> bool:
        """Whether the row has the column, null or not."""
        column = self.theirs(name)
        return column in self.values or column.split(".")[0] in self.values

    def _messages(self, name: str, turns: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        messages = []
        for position, turn in enumerate(turns):
            role, content = turn["role"], _content(turn.get("content"))
            if role not in ROLES:
                self.complain(name, f"a role among {', '.join(ROLES[:-1])}", found=f"{shown(role)} at turn {position}")
            elif content is None:
                self.complain(name, "text as content", found=f"{shown(turn.get('content'))} at turn {position}")
            else:
                messages.append(Message(role, content))
        return tuple(messages)


def as_number(value: Any) -> float | None:
    """A finite float from a number or a numeric string, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _unpacked(value: Any) -> Any:
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _content(value: Any) -> str | None:
    """The text of a message: a string, null (nothing said), or a list of text parts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
    return None
