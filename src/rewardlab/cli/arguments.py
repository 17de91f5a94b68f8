"""Words of a command line → options, flags and names; pure.

    rewardlab train reward --config a.yaml --model.path gpt2 --learning-rate=3e-5 --no-shuffle --run first

Options (`--config`, `--run`) steer the command line itself, flags are fields of the configuration. A hyphen in a
field's name is an underscore; what goes beyond the fields known here (a key of a mapping, the id of a stage) stays as
it is. A switch is `--shuffle`, `--no-shuffle`, `--shuffle false` or `--shuffle=false`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from rewardlab.config import nearest
from rewardlab.errors import ConfigError, Problem

_TRUTH_WORDS = frozenset({"true", "false", "yes", "no", "on", "off"})


@dataclass(frozen=True)
class Grammar:
    """What a command understands.

    Attributes:
        options: options with a value.
        switches: options without.
        flags: dotted fields of the configuration; a flag may also go further into one of them (`columns.chosen`)
            or set a whole group (`model`).
        switch_flags: those of the fields that are true or false.
        open_flags: beginnings of flags that are judged later (`stages.`).
        names: what words that are no flags mean, e.g. `("RUN",)`.
        names_remedy: where to find them, for whoever has left one out; without names, what to give in their place.
    """

    options: Collection[str] = ()
    switches: Collection[str] = ()
    flags: Collection[str] = ()
    switch_flags: Collection[str] = ()
    open_flags: tuple[str, ...] = ()
    names: Sequence[str] = ()
    names_remedy: str = ""

    def flag(self, name: str) -> str | None:
        """The flag that `name` means: a field, a group of fields, something within a field; None where none of them."""
        if name.startswith(self.open_flags or "\0"):
            return name
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            field_name = _as_field(".".join(parts[:length]))
            if field_name in self.flags:
                return ".".join([field_name, *parts[length:]])
        whole = _as_field(name)
        return whole if any(flag.startswith(f"{whole}.") for flag in self.flags) else None


@dataclass
class Arguments:
    """What a command line says.

    Attributes:
        options: values of each option given, in order.
        switches: switches given.
        flags: (dotted field, text) in order.
        names: words that are no flags.
    """

    options: dict[str, list[str]] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    flags: list[tuple[str, str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def option(self, name: str, default: str = "") -> str:
        """The last value given to an option."""
        return self.options.get(name, [default])[-1]


def parse(words: Sequence[str], grammar: Grammar) -> Arguments:
    """What `words` say under `grammar`.

    Raises:
        ConfigError: every word that is not understood, with the nearest known one.
    """
    result, problems = Arguments(), list[Problem]()
    rest = _Words(words)
    for word in rest:
        if not word.startswith("--"):
            result.names.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        problem = _take(name, value if equals else None, rest, grammar, result)
        problems += [problem] if problem else []
    problems += _wrong_count(result.names, grammar)
    if problems:
        raise ConfigError("the command line cannot be understood", problems)
    return result


class _Words:
    """Words one by one, with a look at the next."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._next = 0

    def __iter__(self) -> Iterator[str]:
        while self._next < len(self._words):
            yield self.take()

    def peek(self) -> str | None:
        return self._words[self._next] if self._next < len(self._words) else None

    def take(self) -> str:
        self._next += 1
        return self._words[self._next - 1]


def _take(name: str, value: str | None, rest: _Words, grammar: Grammar, result: Arguments) -> Problem | None:
    """Put one `--name` into `result`; gives what is wrong with it."""
    if name in grammar.switches and value is None:
        result.switches.add(name)
        return None
    if name in grammar.options:
        text = _value(value, rest)
        if text is None:
            return Problem(f"--{name}", "nothing", "a value")
        result.options.setdefault(name, []).append(text)
        return None
    if name.startswith(("no-", "no_")) and _as_field(name[3:]) in grammar.switch_flags and value is None:
        result.flags.append((_as_field(name[3:]), "false"))
        return None
    flag = grammar.flag(name)
    if flag is None:
        if len(result.names) >= len(grammar.names):
            _value(value, rest)  # what follows belongs to it, and is no mistake of its own
        known = [*grammar.options, *grammar.switches, *grammar.flags]
        return Problem(f"--{name}", "an unknown flag", "a known one", _hint(_as_field(name), known))
    if flag in grammar.switch_flags and value is None and (rest.peek() or "").lower() not in _TRUTH_WORDS:
        result.flags.append((flag, "true"))
        return None
    text = _value(value, rest)
    if text is None:
        return Problem(f"--{name}", "nothing", "a value")
    result.flags.append((flag, text))
    return None


def _as_field(name: str) -> str:
    return name.replace("-", "_")


def _value(given: str | None, rest: _Words) -> str | None:
    """The value after `=`, or the next word unless that is a flag."""
    upcoming = rest.peek()
    if given is not None or upcoming is None or upcoming.startswith("--"):
        return given
    return rest.take()


def _hint(name: str, known: Sequence[str]) -> str:
    # All flags of a large configuration would bury the message.
    hint = nearest(name, known)
    return hint.replace('"', '"--', 1) if hint.startswith("Did") else "--help lists them."


def _wrong_count(given: Sequence[str], grammar: Grammar) -> list[Problem]:
    expected = grammar.names
    # Where no name is missing the remedy says which flags the words may have been meant for.
    remedy = "" if expected else grammar.names_remedy
    more = [
        Problem(repr(word), "one word too many", "flags that begin with --", remedy) for word in given[len(expected) :]
    ]
    return more + [Problem(word, "nothing", "a name", grammar.names_remedy) for word in expected[len(given) :]]
