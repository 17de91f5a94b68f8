"""Substitutions mined from human rewrites of opposite sentiment, and a rule that applies them.

A pair (original, rewrite) is cut into words and marks and compared (difflib); every stretch of at most three words that
one has in place of the other counts as a substitution, in the direction of the rewrite. One is kept in a direction
where it was seen often enough, more often than in the other ("the" for "a" goes both ways and is about nothing), and
where its words were mostly not left alone: people replace few of all "not"s, and a rule cannot tell which.
Words that a person merely added have no place of their own to go to, and are left out.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from rewardlab.audit.judged import judged
from rewardlab.audit.units import Rewrite, Task
from rewardlab.data.world.draws import Draws

LONGEST = 3
"""Words of the longest stretch that counts."""

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
Words = tuple[str, ...]


class HumanPair(NamedTuple):
    """A text and what a person made of it.

    Attributes:
        original, rewrite: the texts.
        positive: whether the rewrite is the positive one.
    """

    original: str
    rewrite: str
    positive: bool


class Substitution(NamedTuple):
    """Words in place of others.

    Attributes:
        old, new: the words, in lower case.
        seen: how often people did that in this direction.
        seen_other: how often in the other one.
        share: of all occurrences of `old` in the originals of this direction, how many were replaced, by whatever.
    """

    old: Words
    new: Words
    seen: int
    seen_other: int
    share: float


def mined(pairs: Iterable[HumanPair], least: int = 3, share: float = 0.2) -> dict[bool, list[Substitution]]:
    """Substitutions towards positive (True) and towards negative (False), the most frequent first.

    Args:
        pairs: texts with their human rewrites.
        least: how often a substitution has to be seen in its direction.
        share: of the occurrences of its words in originals, how many people have to have replaced.
    """
    counts: dict[bool, Counter[tuple[Words, Words]]] = {True: Counter(), False: Counter()}
    there: dict[bool, Counter[Words]] = {True: Counter(), False: Counter()}
    for pair in pairs:
        counts[pair.positive].update(differences(pair.original, pair.rewrite))
        there[pair.positive].update(_stretches(_words(pair.original)))
    return {way: _kept(counts[way], counts[not way], there[way], least, share) for way in (True, False)}


def _kept(
    own: Counter[tuple[Words, Words]],
    other: Counter[tuple[Words, Words]],
    there: Counter[Words],
    least: int,
    share: float,
) -> list[Substitution]:
    replaced: Counter[Words] = Counter()
    for (old, _), count in own.items():
        replaced[old] += count
    found = (
        Substitution(old, new, count, other[old, new], replaced[old] / there[old]) for (old, new), count in own.items()
    )
    kept = [one for one in found if one.seen >= least and one.seen > one.seen_other and one.share >= share]
    return sorted(kept, key=lambda one: (-one.seen, one.old, one.new))


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _stretches(words: list[str]) -> Iterator[Words]:
    """Every stretch of one to three words."""
    for length in range(1, LONGEST + 1):
        yield from (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def differences(original: str, rewrite: str) -> Iterator[tuple[Words, Words]]:
    """What the rewrite has in place of what the original had: stretches of at most three words, in lower case."""
    old, new = _words(original), _words(rewrite)
    for kind, start, end, new_start, new_end in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        short = end - start <= LONGEST and new_end - new_start <= LONGEST
        if kind in ("replace", "delete") and short:
            yield tuple(old[start:end]), tuple(new[new_start:new_end])


@dataclass(frozen=True)
class Mined:
    """The rule that applies mined substitutions; W = 1 is the positive side.

    Attributes:
        substitutions: of each direction, as `mined` gives them.
        most: substitutions to a text, the most frequent ones of those that apply; all of them where None.
    """

    substitutions: Mapping[bool, list[Substitution]]
    most: int | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its texts hang on."""
        words = {str(target): [one[:3] for one in self.substitutions[target]] for target in (True, False)}
        return {"rule": "mined", "substitutions": words, "most": self.most}

    @cached_property
    def best(self) -> dict[bool, dict[Words, Substitution]]:
        """The most frequent substitution of every stretch of words, by direction."""
        rarest_first = {way: sorted(found, key=lambda one: one.seen) for way, found in self.substitutions.items()}
        return {way: {one.old: one for one in found} for way, found in rarest_first.items()}

    def rewrite(self, text: str, target: bool, task: Task, draws: Draws) -> Rewrite:  # noqa: ARG002
        """The text with the substitutions that apply to it."""
        return judged(text, self.applied(text, target)[0])

    def applied(self, text: str, target: bool) -> tuple[str, list[Substitution]]:
        """The text with its substitutions, and which they were, from left to right."""
        tokens = list(_TOKEN.finditer(text))
        words = [token.group().lower() for token in tokens]
        # The most frequent first; a word that one substitution has taken is gone for the others.
        places = sorted(self._places(words, target), key=lambda place: (-place[1].seen, place[0]))
        taken: set[int] = set()
        chosen: list[tuple[int, Substitution]] = []
        for start, one in places:
            own = set(range(start, start + len(one.old)))
            if taken.isdisjoint(own) and (self.most is None or len(chosen) < self.most):
                taken |= own
                chosen.append((start, one))
        chosen.sort()
        result, end = [], 0
        for start, one in chosen:
            first, last = tokens[start], tokens[start + len(one.old) - 1]
            before = text[end : first.start()]
            new = written(one.new, first.group())
            # Words that go take the white space before them with them.
            result += [before if new else before.rstrip(), new]
            end = last.end()
        joined = "".join([*result, text[end:]])
        return joined if text[:1].isspace() else joined.lstrip(), [one for _, one in chosen]

    def _places(self, words: list[str], target: bool) -> Iterator[tuple[int, Substitution]]:
        best = self.best[target]
        for start in range(len(words)):
            for length in range(1, LONGEST + 1):
                one = best.get(tuple(words[start : start + length]))
                if one is not None and start + length <= len(words):
                    yield start, one


def written(words: Words, like: str) -> str:
    """Words as a text, marks close behind the word before, with the capitals of the word that they stand for."""
    text = ""
    for word in words:
        text += word if not text or not word[:1].isalnum() else f" {word}"
    if len(like) > 1 and like.isupper():
        return text.upper()
    return text[:1].upper() + text[1:] if like[:1].isupper() else text
