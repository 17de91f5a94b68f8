"""Small verbs for the tests of runs, studies and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from rewardlab.config import Config
from rewardlab.errors import DataError, Problem
from rewardlab.store.files import append_line, read_jsonl, write_json
from rewardlab.store.runs import Run
from rewardlab.studies.verbs import Verb


class Shape(Config):
    """How it looks."""

    width: int = Field(default=3, ge=1)
    """Columns."""
    colour: Literal["red", "blue"] = "red"
    """Of the lines."""


class Make(Config):
    """Lines made from nothing.

    A second paragraph that help leaves out.
    """

    word: str
    """What is repeated."""
    shape: Shape = Shape()
    """How it looks."""
    times: int = 3
    """How often."""
    rate: float = 1e-5
    """A small number."""
    shout: bool = False
    """In capitals."""
    source: Path | None = None
    """A file to read."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New names."""
    shapes: tuple[Shape, ...] = ()
    """More of them."""
    seed: int = 0
    """Of nothing."""
    limit: int | None = None
    """At most so many lines."""
    device: str = "auto"
    """Where."""
    trouble: Literal["", "input", "bug", "stop", "stop late"] = ""
    """What goes wrong."""


@dataclass(frozen=True)
class Made:
    """What `make` gives."""

    count: int

    def lines(self) -> list[str]:
        """One line."""
        return [f"{self.count} lines were made"]


def make(config: Make, run: Run) -> Made:
    """Append lines one by one, going on after those that are there."""
    if config.trouble == "input":
        raise DataError("cannot read", [Problem("a.jsonl:3", "rubbish", "a pair")])
    if config.trouble == "bug":
        raise ZeroDivisionError("an unexpected thing")
    if config.trouble == "stop":
        raise KeyboardInterrupt
    path = run.path("lines.jsonl")
    there = len(list(read_jsonl(path, torn_tail=True))) if path.exists() else 0
    word = config.word.upper() if config.shout else config.word
    count = config.times if config.limit is None else min(config.times, config.limit)
    for number in range(there, count):
        append_line(path, {"word": word, "number": number})
        if config.trouble == "stop late":
            raise KeyboardInterrupt
    return Made(count)


class Join(Config):
    """Files put together."""

    inputs: tuple[Path, ...]
    """What to read."""
    named: dict[str, Path | list[Path]] = Field(default_factory=dict)
    """Not read."""


def join(config: Join, run: Run) -> Made:
    """Put all lines into one file."""
    rows = [row for path in config.inputs for row in read_jsonl(path)]
    write_json(run.path("joined.json"), rows)
    return Made(len(rows))


VERBS = {
    "make": Verb("fake_verbs", "Make", "make", "make lines"),
    "join files": Verb("fake_verbs", "Join", "join", "put files together"),
}
