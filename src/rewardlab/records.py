"""The frozen records that rooms exchange, and the stable ids of their content.

Ids depend on content alone, so they stay the same in every file, split, machine and version:

    prompt_id      first 16 hex digits of sha256 over the canonical JSON of the messages, or of
                   [messages, template options] where there are options
    completion_id  likewise over [prompt_id, completion]
    pair_id        likewise over [prompt_id, chosen, rejected]
    root_id        likewise over the first user turn, also of a transcript: what splits go by

Canonical JSON: keys sorted, no spaces, UTF-8, strings in Unicode normal form C. Exact duplicates share an
id; tables tell them apart by `occurrence` (0, 1, ...).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

TEXT_ROLE = "text"
"""Role of a prompt that is plain text and is rendered as it stands."""

TRANSCRIPT_MARK = re.compile(r"\n\n(Human|Assistant):")
"""Where a turn begins in a conversation that is written as one text."""

_MARKED_OPENING = re.compile(
    r"(?:User:(.*?)\nAssistant:|<human>:(.*?)\n<bot>:|### Question:(.*?)\n### Answer:)", re.DOTALL
)
"""The first turn of a user in the other common ways to write one."""


def _normal_form(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, Mapping):
        return {_normal_form(key): _normal_form(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal_form(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """`value` as the one JSON text that ids and content keys are taken over."""
    return json.dumps(_normal_form(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def content_id(value: Any) -> str:
    """First 16 hex digits of the sha256 of `value`'s canonical JSON."""
    # A lone surrogate is legal in JSON but not in UTF-8: "surrogatepass" gives it an id all the same.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Message:
    """One turn. `role` is system, user, assistant, tool, or "text" for a prompt that is plain text."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """JSON values, as in canonical records."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Prompt:
    """What a completion answers: a conversation so far, or one piece of plain text.

    Attributes:
        messages: the turns, oldest first; a plain text is one message of role "text".
        template_options: extra arguments of the chat template by name (`tools`, ...); JSON values.
    """

    messages: tuple[Message, ...]
    template_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of_text(cls, text: str) -> Prompt:
        """A prompt that is plain text."""
        return cls((Message(TEXT_ROLE, text),))

    @property
    def is_text(self) -> bool:
        """Whether this is plain text rather than a conversation."""
        return len(self.messages) == 1 and self.messages[0].role == TEXT_ROLE

    @cached_property
    def id(self) -> str:
        """The prompt_id: the messages, and the template options where there are any, since they change the text."""
        turns = [message.as_dict() for message in self.messages]
        return content_id([turns, self.template_options] if self.template_options else turns)

    @cached_property
    def root_id(self) -> str:
        """Id of the first user turn; conversations that begin alike share it, written as messages or as one text."""
        for message in self.messages:
            if message.role in ("user", TEXT_ROLE):
                return content_id(_opening(message.content) if message.role == TEXT_ROLE else message.content)
        return content_id([message.as_dict() for message in self.messages])


def _opening(text: str) -> str:
    """The first turn of a user in a transcript, stripped; all of any other text."""
    marked = _MARKED_OPENING.match(text.lstrip())
    if marked:
        return next(turn.strip() for turn in marked.groups() if turn is not None)
    before, *parts = TRANSCRIPT_MARK.split(f"\n\n{text.lstrip()}")
    if before:
        return text
    turns = zip(parts[::2], parts[1::2], strict=True)
    return next((turn.strip() for mark, turn in turns if mark == "Human"), text)


def completion_id(prompt: Prompt, completion: str) -> str:
    """Id of a completion as an answer to its prompt."""
    return content_id([prompt.id, completion])


@dataclass(frozen=True)
class Source:
    """Where a record came from: file (or hub id) and 1-based row."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}:{self.row}"


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, the first preferred.

    Attributes:
        margin: by how much `chosen` is better, in reward units, where the data say so.
        meta: whatever else the row carried; JSON values.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    source: Source | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @cached_property
    def id(self) -> str:
        """The pair_id."""
        return content_id([self.prompt.id, self.chosen, self.rejected])

    @property
    def completions(self) -> tuple[str, ...]:
        """Chosen, then rejected."""
        return self.chosen, self.rejected


@dataclass(frozen=True)
class Candidates:
    """K completions of one prompt, with a reward each where the data have them; none yet in data of prompts alone."""

    prompt: Prompt
    completions: tuple[str, ...]
    rewards: tuple[float, ...] | None = None
    source: Source | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @cached_property
    def id(self) -> str:
        """Id of the prompt with its completions in order."""
        return content_id([self.prompt.id, *self.completions])


@dataclass(frozen=True)
class Rated:
    """One completion with a binary label or a real-valued score (pointwise data).

    Attributes:
        label: good (True) or bad (False); exactly one of `label` and `score` is set.
        score: the value to regress on.
    """

    prompt: Prompt
    completion: str
    label: bool | None = None
    score: float | None = None
    source: Source | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @cached_property
    def id(self) -> str:
        """The completion_id."""
        return completion_id(self.prompt, self.completion)

    @property
    def completions(self) -> tuple[str, ...]:
        """The one completion."""
        return (self.completion,)


Record = Pair | Candidates | Rated


@dataclass(frozen=True)
class Response:
    """What a policy wrote, as the rewards that train it see it.

    Attributes:
        prompt: what it answers.
        text: decoded, without special tokens; may be empty.
        tokens: of the policy's tokenizer, an end-of-sequence token included.
        finished: whether it ended by itself; otherwise it was cut off.
    """

    prompt: Prompt
    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class SetAside:
    """A row that is well-formed but unusable, with the reason; counted and written to a file.

    Attributes:
        reason: a short fixed word (`identical`, `empty`, `prefix_mismatch`, ...), so that reasons count up.
        detail: what exactly, for a person.
    """

    source: Source
    reason: str
    detail: str
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    Attributes:
        name: stable machine name, e.g. `accuracy` or `length.within_prompt_pearson`.
        value: the point estimate; None when it cannot be computed, and then `reason` says why.
        low, high: ends of the interval at `level`; None when there is no interval.
        n: observations used (pairs, rows or prompts: `unit` says which).
        clusters: independent clusters behind the interval (prompts, conversation roots), None if not clustered.
        method: how the interval was made, e.g. `t, clustered by prompt (CR1)`.
        reading: one sentence that says how to read the number.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int = 0
    unit: str = "pairs"
    clusters: int | None = None
    method: str = ""
    reading: str = ""
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The estimate that `as_dict` gave; unknown keys are left out."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})
