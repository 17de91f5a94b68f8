"""From text to latents: exact for text that the world wrote, tolerant of text that a policy wrote.

A text is cut into lines and sentences, and each sentence is either one of the finite set that the lexicon and its
frames can make, or a lead, a statement or a restatement, which a pattern recognises. Quoted words and names are
recognised as such, so a word counts only where it means something. What cannot be read is returned, not guessed at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from rewardlab.data.world.facts import DOMAINS, Statement
from rewardlab.data.world.latents import ATTRIBUTES, SCALES, Levels, Reading
from rewardlab.data.world.lexicon import (
    ADJECTIVE,
    ASIDE_FILLERS,
    ASIDE_MARKERS,
    BULLET,
    CHANNELS,
    CLOSE,
    DISAVOWAL_FRAMES,
    ELABORATION,
    FILLER,
    HEDGE,
    LEAD_FELT,
    LEAD_PLAIN,
    MODAL,
    MODAL_FRAMES,
    NAME_FRAMES,
    NEGATION_FRAMES,
    NEGATORS,
    OPENING,
    ORDINAL,
    OUTCOME,
    OUTCOME_FRAMES,
    PARAGRAPH,
    QUOTE_FRAMES,
    RESTATEMENT,
    SIGNPOST,
    STATEMENTS,
    VERB,
    VERB_FRAMES,
    Channel,
)


class _Cue(NamedTuple):
    """What speaks for an attribute.

    Attributes:
        attribute: the attribute.
        channel: through which channel, as `Scale.slots` names them.
        pole: +1 high, -1 low.
    """

    attribute: str
    channel: str
    pole: int


@dataclass(frozen=True)
class Parsed:
    """What a text says.

    Attributes:
        reading: its latents.
        unread: sentences that are none of the world's, in order; empty for every text the world wrote.
    """

    reading: Reading
    unread: tuple[str, ...]


def parse(text: str) -> Parsed:
    """The latents of a text, and what of it could not be read.

    A pole of a channel counts at most as often as the channel has slots, however often a policy repeats it; levels are
    cut off at their bounds. Text of the world never says more.
    """
    subject: str | None = None
    statements: list[Statement] = []
    cues: Counter[_Cue] = Counter()
    unread: list[str] = []
    bulleted, pieces = _pieces(text)
    if bulleted:
        cues[_cue(BULLET, +1)] += 1
    aside = False
    for piece in pieces:
        if piece in ASIDE_MARKERS:
            aside = True
            continue
        found = _read(piece)
        if found is None:
            unread.append(piece)
            continue
        subject = found.subject or subject
        statements += found.statements
        cues.update(cue for cue in found.cues if not (aside and cue.attribute == "length"))
    return Parsed(Reading(subject, tuple(statements), _levels(cues)), tuple(unread))


def _levels(cues: Counter[_Cue]) -> Levels:
    levels = Levels(0, 0, 0, 0)
    for attribute in ATTRIBUTES:
        slots = list(SCALES[attribute].slots.values())
        spoken = [cue.pole * min(cues[cue], slots.count(cue.channel)) for cue in cues if cue.attribute == attribute]
        levels = levels.put(attribute, sum(spoken) - SCALES[attribute].resting)
    return levels


def _cue(channel: Channel, pole: int) -> _Cue:
    return _Cue(channel.attribute, channel.name, pole)


@dataclass(frozen=True)
class _Found:
    """What one sentence says."""

    cues: tuple[_Cue, ...] = ()
    subject: str | None = None
    statements: tuple[Statement, ...] = ()


def _pieces(text: str) -> tuple[bool, list[str]]:
    """Whether the text has bullets, and its sentences and titles without them."""
    bulleted, pieces = False, []
    for line in text.splitlines():
        glyph, _, rest = line.partition(" ")
        if rest and glyph in BULLET.high:
            bulleted, line = True, rest
        pieces += [piece for piece in re.split(r"(?<=\.)\s+", line.strip()) if piece]
    return bulleted, pieces


def _read(piece: str) -> _Found | None:
    """What a sentence or title says; None when it is none of the world's."""
    fixed = _fixed_sentences().get(piece)
    if fixed is not None:
        return _Found((fixed,))
    if any(pattern.fullmatch(piece) for pattern in _neutral_patterns()):
        return _Found()
    for pattern, cues in _open_patterns():
        match = pattern.fullmatch(piece)
        if match:
            return _open_sentence(match.groupdict(), cues)
    return None


def _open_sentence(groups: dict[str, str | None], cues: tuple[_Cue, ...]) -> _Found:
    """A lead, statement or restatement: its parts are the named groups of its pattern."""
    spoken = [
        _pole_of()[name, word.lower()] for name, word in groups.items() if word and (name, word.lower()) in _pole_of()
    ]
    point, value = groups.get("point"), groups.get("value")
    statements = (Statement(point, value),) if point and value else ()
    return _Found((*cues, *spoken), groups.get("subject"), statements)


@cache
def _fixed_sentences() -> dict[str, _Cue]:
    """Every sentence without a subject, point or value, with the cue it gives."""
    sentences: dict[str, _Cue] = {}
    for channel in (OPENING, CLOSE, SIGNPOST, PARAGRAPH, ELABORATION):
        sentences |= {word: _cue(channel, pole) for word, pole in _poles(channel)}
    for channel, frames in ((VERB, VERB_FRAMES), (OUTCOME, OUTCOME_FRAMES), (MODAL, MODAL_FRAMES)):
        for word, pole in _poles(channel):
            sentences |= {frame.format(**{channel.name: word}): _cue(channel, pole) for frame in frames}
    for word, pole in _poles(ADJECTIVE):
        for frame in NEGATION_FRAMES:
            for negator in NEGATORS:
                sentences[frame.format(negator=negator, adjective=word)] = _Cue("sentiment", "negation", -pole)
    for channel in CHANNELS:
        if channel.attribute in ("politeness", "structure"):
            for word, pole in _poles(channel):
                disavowed = (frame.format(word=word.removesuffix(".")) for frame in DISAVOWAL_FRAMES)
                sentences |= dict.fromkeys(disavowed, _Cue(channel.attribute, "disavowal", -pole))
    return sentences


@cache
def _pole_of() -> dict[tuple[str, str], _Cue]:
    """The cue of a word in a pattern's group, by (group name, lower-case word)."""
    channels = {"adjective": ADJECTIVE, "hedge": HEDGE, "filler": FILLER, "ordinal": ORDINAL, "connector": BULLET}
    return {
        (group, word.lower()): _cue(channel, pole)
        for group, channel in channels.items()
        for word, pole in _poles(channel)
    }


def _poles(channel: Channel) -> Iterator[tuple[str, int]]:
    yield from ((word, +1) for word in channel.high)
    yield from ((word, -1) for word in channel.low)


def _any_of(words: Iterable[str]) -> str:
    """A pattern for one of `words`, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _frame(frame: str, **groups: str) -> str:
    """The pattern of a frame: its fields become groups."""
    pattern = re.escape(frame)
    for name, inner in groups.items():
        pattern = pattern.replace(rf"\{{{name}\}}", f"(?P<{name}>{inner})")
    return pattern


@cache
def _neutral_patterns() -> list[re.Pattern[str]]:
    quotes = r'"[^"]+"(?:(?:, | and )"[^"]+")*'
    quoted = [re.compile(_frame(frame, quotes=quotes)) for frame in QUOTE_FRAMES]
    fillers = [re.compile(_frame(frame, filler=_any_of(FILLER.high))) for frame in ASIDE_FILLERS]
    return quoted + fillers + [re.compile(_frame(frame, name=r"[A-Z][a-z]+")) for frame in NAME_FRAMES]


@cache
def _open_patterns() -> list[tuple[re.Pattern[str], tuple[_Cue, ...]]]:
    """Patterns of leads, restatements and statements, with the cue that the frame itself gives."""
    subjects = _any_of(subject for domain in DOMAINS for subject in domain.subjects)
    points = _any_of({point for domain in DOMAINS for point in domain.points})
    values = _any_of({value for domain in DOMAINS for point in domain.points for value in domain.possible(point)})
    adjectives = _any_of([*ADJECTIVE.high, *ADJECTIVE.low])
    filler = f"(?:, (?P<filler>{_any_of(FILLER.high)}))?"
    restated = [frame for frame, _ in _poles(RESTATEMENT)]

    leads = [_frame(frame, subject=subjects) for frame in LEAD_PLAIN]
    leads += [
        _frame(frame, subject=subjects, adjective=adjectives).replace(r"a\ (?P<adj", r"an?\ (?P<adj")
        for frame in LEAD_FELT
    ]
    leads = [lead + filler + r"\." for lead in leads]

    prefix = "".join(
        f"(?:(?P<{group}>{_any_of(words)}), )?"
        for group, words in (
            ("connector", BULLET.low),
            ("ordinal", [*ORDINAL.high, *ORDINAL.low]),
            ("hedge", [*HEDGE.high, *HEDGE.low]),
        )
    )
    felt = f"(?:, which is (?P<adjective>{adjectives}))?"
    items = [prefix + _frame(frame, point=points, value=values) + filler + felt + r"\." for frame in STATEMENTS]
    length = (_cue(RESTATEMENT, +1),)
    return [
        *((re.compile(pattern), ()) for pattern in leads),
        # A restatement says nothing new: its point and value are matched but not read.
        *((re.compile(_restatement(frame, points, values)), length) for frame in restated),
        *((re.compile(pattern, re.IGNORECASE), ()) for pattern in items),
    ]


def _restatement(frame: str, points: str, values: str) -> str:
    return re.escape(frame).replace(r"\{point\}", f"(?:{points})").replace(r"\{value\}", f"(?:{values})")
