"""From latents to English: text = render(prompt, latents, draws).

    [opening] [signpost] lead [elaboration]           the lead names the subject
    [title]
    statement ... statement                           one per point, the first and the last carry most cues
    [digression] verb · negation · outcome · modal · disavowals · quotation · name, in random order
    [aside]
    [close]

What a slot says and where it stands hangs on the slot's own draws only, so an intervention leaves every other
word in place. Line breaks that mean nothing and words that are merely quoted keep any one token from giving an
attribute away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rewardlab.data.world.draws import Draws
from rewardlab.data.world.facts import Statement
from rewardlab.data.world.latents import ATTRIBUTES, SCALES, Response, speaking
from rewardlab.data.world.lexicon import (
    ADJECTIVE,
    ASIDE_FILLERS,
    ASIDE_MARKERS,
    CHANNELS,
    DISAVOWAL_FRAMES,
    ELABORATION,
    FILLER,
    LEAD_FELT,
    LEAD_PLAIN,
    MODAL_FRAMES,
    NAME_FRAMES,
    NEGATION_FRAMES,
    NEGATORS,
    OUTCOME_FRAMES,
    QUOTE_FRAMES,
    RESTATEMENT,
    STATEMENTS,
    VERB_FRAMES,
    Channel,
    Part,
)

NEUTRAL_USES: Mapping[str, tuple[str, float]] = {
    "sentiment.neutral": ("sentiment", 0.25),
    "politeness.neutral": ("politeness", 0.25),
    "structure.neutral": ("structure", 0.5),
}
"""Places where a text may use a lexeme without meaning it: attribute and probability."""
ASIDE = 0.5
"""Probability of each kind of aside: an elaboration, a restatement or a filler that does not belong to the answer."""
IDLE_BREAK = 0.6
"""Probability of a line break that has nothing to do with structure, at each of two places."""

_CHANNEL = {channel.name: channel for channel in CHANNELS}
_SLOT_CHANNEL = {slot: name for scale in SCALES.values() for slot, name in scale.slots.items()}
_TAIL = ("verb", "negation", "outcome", "modal", "politeness_disavowal", "structure_disavowal", "quotation", "name")


def render(response: Response, part: Part = "training") -> str:
    """The text of a response.

    Args:
        response: latents and draws.
        part: which lexemes may be used.
    """
    return _Writer(response, part).text()


def quotable(attribute: str) -> tuple[Channel, ...]:
    """The channels of an attribute whose lexemes can stand in quotes: a restatement needs a point and a value."""
    return tuple(channel for channel in CHANNELS if channel.attribute == attribute and channel is not RESTATEMENT)


@dataclass(frozen=True)
class _Words:
    """The cues of a text: the slots that speak, and what they say."""

    draws: Draws
    signs: Mapping[str, int]
    part: Part

    def word(self, slot: str, pole: int | None = None) -> str:
        """What `slot` says; empty where it is silent. With `pole`, silent unless it speaks for that pole."""
        sign = self.signs.get(slot)
        if sign is None or (pole is not None and sign != pole):
            return ""
        if slot == "negation":
            return self._lexeme(slot, ADJECTIVE, -sign)
        if slot.endswith("disavowal"):
            return self._lexeme(slot, self.draws.pick(f"{slot}.channel", quotable(slot.split("_")[0])), -sign)
        return self._lexeme(slot, _CHANNEL[_SLOT_CHANNEL[slot]], sign)

    def _lexeme(self, slot: str, channel: Channel, pole: int) -> str:
        return self.draws.pick(f"{slot}.word", channel.lexemes(pole, self.part))


class _Writer:
    """Puts one text together."""

    def __init__(self, response: Response, part: Part) -> None:
        self.draws = response.draws
        self.reading = response.reading
        signs = {slot: sign for name in ATTRIBUTES for slot, sign in speaking(response, name).items()}
        self.words = _Words(self.draws, signs, part)
        self.part: Part = part

    def text(self) -> str:
        title = self.words.word("paragraph", +1)
        head = _joined(self.words.word("opening"), self.words.word("signpost"), self._lead())
        tail = _joined(self.words.word("paragraph", -1), *self._tail(), self._aside())
        bulleted = bool(self.words.word("bullet", +1))
        before = f"\n\n{title}\n" if title else "\n" if bulleted else self._break("lead")
        after = "\n\n" if title else "\n" if bulleted else " "
        body = head + before + self._items() + (after + tail if tail else "")
        close = self.words.word("close")
        return body + self._break("close") + close if close else body

    def _break(self, slot: str) -> str:
        return "\n" if self.draws.flag(f"{slot}.break", IDLE_BREAK) else " "

    def _lead(self) -> str:
        adjective = self.words.word("lead_adjective")
        frame = self.draws.pick("lead.frame", LEAD_FELT if adjective else LEAD_PLAIN)
        if adjective[:1] in set("aeiou"):
            frame = frame.replace("a {adjective}", "an {adjective}")
        lead = frame.format(subject=self.reading.subject, adjective=adjective)
        return _sentence(_listed(lead, self.words.word("lead_filler")))

    def _items(self) -> str:
        count = len(self.reading.statements)
        texts = [self._item(index, count, statement) for index, statement in enumerate(self.reading.statements)]
        glyph = self.words.word("bullet", +1)
        return "\n".join(f"{glyph} {text}" for text in texts) if glyph else " ".join(texts)

    def _item(self, index: int, count: int, statement: Statement) -> str:
        place = "first" if index == 0 else "last" if index == count - 1 else ""
        core = self.draws.pick(f"statement.{index}.frame", STATEMENTS).format(**statement._asdict())
        adjective = self.words.word("first_adjective") if place == "first" else ""
        hedge = self.words.word("hedge") if place == self._hedged() else ""
        sentence = _listed(
            self.words.word("bullet", -1) if place == "last" else "",
            self.words.word("ordinal") if place == "first" else "",
            f"{hedge}, {core}" if hedge else core,
            self.words.word(f"{place}_filler"),
            f"which is {adjective}" if adjective else "",
        )
        restated = self.words.word(f"{place}_restatement").format(**statement._asdict())
        return _joined(_sentence(sentence), self.words.word(f"{place}_elaboration"), restated)

    def _hedged(self) -> str:
        return self.draws.pick("hedge.place", ("first", "last"))

    def _tail(self) -> list[str]:
        quoted, named = self._neutral_words()
        written = {
            "verb": self._framed("verb", VERB_FRAMES),
            "negation": self._framed("negation", NEGATION_FRAMES),
            "outcome": self._framed("outcome", OUTCOME_FRAMES),
            "modal": self._framed("modal", MODAL_FRAMES),
            "politeness_disavowal": self._disavowed("politeness_disavowal"),
            "structure_disavowal": self._disavowed("structure_disavowal"),
            "quotation": self._quotation(quoted),
            "name": _joined(*(self._named(word) for word in named)),
        }
        return [written[slot] for slot in self.draws.shuffled("tail", _TAIL)]

    def _framed(self, slot: str, frames: tuple[str, ...]) -> str:
        word = self.words.word(slot)
        if not word:
            return ""
        field = "adjective" if slot == "negation" else slot
        negator = self.draws.pick("negator", NEGATORS)
        return self.draws.pick(f"{slot}.frame", frames).format(**{field: word}, negator=negator)

    def _disavowed(self, slot: str) -> str:
        word = self.words.word(slot).removesuffix(".")
        return self.draws.pick(f"{slot}.frame", DISAVOWAL_FRAMES).format(word=word) if word else ""

    def _neutral_words(self) -> tuple[list[str], list[str]]:
        """Lexemes used without meaning: those to quote, and those that make a name."""
        quoted: list[str] = []
        named: list[str] = []
        for slot, (attribute, probability) in NEUTRAL_USES.items():
            if self.draws.flag(slot, probability):
                word = self._neutral_word(slot, attribute)
                as_name = word.isalpha() and word.islower() and self.draws.flag(f"{slot}.named", 0.5)
                (named if as_name else quoted).append(word.removesuffix("."))
        return quoted, named

    def _neutral_word(self, slot: str, attribute: str) -> str:
        channel = self.draws.pick(f"{slot}.channel", quotable(attribute))
        pole = -1 if channel.low and self.draws.flag(f"{slot}.pole", 0.5) else 1
        return self.draws.pick(f"{slot}.word", channel.lexemes(pole, self.part))

    def _aside(self) -> str:
        """Pieces of length's own channels that stand apart: a count of words cannot tell them from the answer's."""
        subject = self.draws.pick("aside.statement", self.reading.statements)
        pieces = {
            "elaboration": self._aside_lexeme(ELABORATION),
            "restatement": self._aside_lexeme(RESTATEMENT).format(**subject._asdict()),
            "filler": self.draws.pick("aside.frame", ASIDE_FILLERS).format(filler=self._aside_lexeme(FILLER)),
        }
        present = [piece for name, piece in pieces.items() if self.draws.flag(f"aside.{name}", ASIDE)]
        return _joined(self.draws.pick("aside.marker", ASIDE_MARKERS), *present) if present else ""

    def _aside_lexeme(self, channel: Channel) -> str:
        return self.draws.pick(f"aside.{channel.name}.word", channel.lexemes(+1, self.part))

    def _quotation(self, words: list[str]) -> str:
        if not words:
            return ""
        marked = [f'"{word}"' for word in words]
        listed = marked[0] if len(marked) == 1 else ", ".join(marked[:-1]) + f" and {marked[-1]}"
        return self.draws.pick("quotation.frame", QUOTE_FRAMES).format(quotes=listed)

    def _named(self, word: str) -> str:
        return self.draws.pick(f"{word}.frame", NAME_FRAMES).format(name=word.title())


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _listed(*phrases: str) -> str:
    return ", ".join(filter(None, phrases))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
