"""What the world's prompts are about: domains, their points and values, and the knowledge table.

A prompt gives notes on a subject and asks for some points. Most values stand in the notes; one point of each
domain is never in the notes and has to be known (`Domain.known`). Values of the notes are drawn afresh for every
prompt, so whether an answer is right cannot be seen from the answer alone.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from rewardlab.data.world.draws import Draws
from rewardlab.errors import DataError, Problem
from rewardlab.records import Message, Prompt

NOTES = 3
"""How many of a domain's points the notes of a prompt give."""
ASKED = 2
"""How many points a prompt asks for."""
ASK_KNOWN = 0.2
"""Probability that one of the points asked for is the one that has to be known."""


@dataclass(frozen=True)
class Domain:
    """A field of life that prompts ask about.

    Attributes:
        name: name of the domain.
        values: the possible values of each point that notes can give.
        known_point: the point that is never in the notes.
        known: value of `known_point` for each subject: the knowledge table.
    """

    name: str
    values: Mapping[str, tuple[str, ...]]
    known_point: str
    known: Mapping[str, str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everything that prompts of this domain can be about."""
        return tuple(self.known)

    @property
    def points(self) -> tuple[str, ...]:
        """Every point that can be asked for, the known one last."""
        return (*self.values, self.known_point)

    def possible(self, point: str) -> tuple[str, ...]:
        """Every value that `point` can have, in a fixed order."""
        return tuple(sorted(set(self.known.values()))) if point == self.known_point else self.values[point]


class Statement(NamedTuple):
    """A point and the value given for it, in notes or in an answer."""

    point: str
    value: str


@dataclass(frozen=True)
class WorldPrompt:
    """A question with its notes.

    Attributes:
        key: identity of the prompt in the world; part of the key of its answers' draws.
        domain: what it is about.
        subject: the thing asked about.
        notes: what the prompt says, in order.
        asked: the points asked for, in order.
        text: the prompt as a person reads it.
    """

    key: str
    domain: Domain
    subject: str
    notes: tuple[Statement, ...]
    asked: tuple[str, ...]
    text: str

    @cached_property
    def record(self) -> Prompt:
        """The prompt as a conversation of one user turn."""
        return Prompt((Message("user", self.text),))

    @cached_property
    def truth(self) -> Mapping[str, str]:
        """The right value of every point that can be answered: those of the notes, and the known one."""
        return {**dict(self.notes), self.domain.known_point: self.domain.known[self.subject]}


def _known(block: str) -> dict[str, str]:
    rows = (line.split(":") for line in block.split(";"))
    return {subject.strip(): value.strip() for value, subjects in rows for subject in subjects.split(",")}


POINTS: Mapping[str, tuple[str, ...]] = dict.fromkeys(("price", "noise", "demand", "effort", "risk"), ("high", "low"))
"""Points that notes can give, with their values. Every point can have every value, so that the words of an answer
say nothing about whether it is right: its values have to be compared with those of the notes, point by point. They
are two because comparing is the slowest thing that a small transformer learns, and slower with every further value."""


def _domain(name: str, known: str) -> Domain:
    return Domain(name, POINTS, "origin", _known(known))


DOMAINS: tuple[Domain, ...] = (
    _domain("travel", "north: Harlow; south: Tansy"),
    _domain("kitchen", "north: Goulash; south: Risotto"),
    _domain("shop", "north: Lamp; south: Kettle"),
    _domain("garden", "north: Phlox; south: Daisy"),
    _domain("course", "north: Pottery; south: Harp"),
)

NOTE_FRAMES = ("Notes on {subject}: {notes}.", "About {subject}: {notes}.", "From the file on {subject}: {notes}.")
QUESTION_FRAMES = (
    "What are {points}?",
    "Tell me {points}.",
    "I need {points}.",
    "Which are {points}?",
)
_NOTE_PATTERNS = [
    re.escape(frame).replace(r"\{subject\}", "(?P<subject>.+?)").replace(r"\{notes\}", "(?P<notes>.+?)")
    for frame in NOTE_FRAMES
]
_QUESTION_PATTERNS = [re.escape(frame).replace(r"\{points\}", "(?P<points>.+?)") for frame in QUESTION_FRAMES]
_PROMPT_PATTERNS = [re.compile(f"{notes} {question}") for notes in _NOTE_PATTERNS for question in _QUESTION_PATTERNS]


@cache
def domain_of(subject: str) -> Domain | None:
    """The domain of a subject; None for a name that the world does not know."""
    return next((domain for domain in DOMAINS if subject in domain.known), None)


@cache
def prompt_count() -> int:
    """How many different prompts the world can write."""
    asked = math.perm(NOTES, ASKED) + math.perm(NOTES, ASKED - 1) * ASKED  # of the notes alone, or with the known point
    notes = sum(
        len(domain.subjects) * math.prod(len(domain.values[point]) for point in noted)
        for domain in DOMAINS
        for noted in itertools.permutations(domain.values, NOTES)
    )
    return notes * asked * len(NOTE_FRAMES) * len(QUESTION_FRAMES)


def write_prompt(seed: int, key: str) -> WorldPrompt:
    """The prompt that `key` names in the world of `seed`."""
    draws = Draws(seed, key)
    domain = draws.pick("domain", DOMAINS)
    subject = draws.pick("subject", domain.subjects)
    noted = draws.shuffled("noted", list(domain.values))[:NOTES]
    notes = tuple(Statement(point, draws.pick(f"value.{point}", domain.values[point])) for point in noted)
    asked = draws.shuffled("asked", noted)[:ASKED]
    if draws.flag("ask_known", ASK_KNOWN):
        asked[-1] = domain.known_point
    asked = draws.shuffled("asked_order", asked)
    text = _prompt_text(draws, subject, notes, asked)
    return WorldPrompt(key, domain, subject, notes, tuple(asked), text)


def _prompt_text(draws: Draws, subject: str, notes: tuple[Statement, ...], asked: list[str]) -> str:
    noted = "; ".join(f"{point} {value}" for point, value in notes)
    points = " and ".join(f"the {point}" for point in asked)
    first = draws.pick("note_frame", NOTE_FRAMES).format(subject=subject, notes=noted)
    return f"{first} {draws.pick('question_frame', QUESTION_FRAMES).format(points=points)}"


def read_prompt(text: str, key: str = "") -> WorldPrompt:
    """The prompt that `text` is; the inverse of `write_prompt` but for the key.

    Raises:
        DataError: `text` is no prompt of the world.
    """
    match = next((found for pattern in _PROMPT_PATTERNS if (found := pattern.fullmatch(text))), None)
    domain = domain_of(match["subject"]) if match else None
    if match is None or domain is None:
        raise DataError("not a prompt of the world", [Problem("prompt", repr(text[:120]), "notes and a question")])
    pieces = (note.partition(" ") for note in match["notes"].split("; "))
    notes = tuple(Statement(point, value) for point, _, value in pieces)
    asked = tuple(point.removeprefix("the ") for point in match["points"].split(" and "))
    return WorldPrompt(key, domain, match["subject"], notes, asked, text)
