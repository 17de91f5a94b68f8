"""What an audit rewrites, and what comes of it.

A unit is a response whose attribute w is known. A chain is what a rewriter makes of it: the rewrite to 1 - w, the
rewrite of that rewrite back to w, and where a third one was asked for, to 1 - w again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from rewardlab.records import Prompt, Source, completion_id

Outcome = Literal["ok", "identical", "chatter", "empty", "refused", "truncated", "failed"]
"""Of what use a rewrite is. `identical` to its input, and `chatter` ("Sure, here is ...") are texts that can be scored;
the last four leave no usable text, and their chain ends there."""

SCORABLE: frozenset[Outcome] = frozenset({"ok", "identical", "chatter"})


@dataclass(frozen=True)
class Unit:
    """A response to be audited.

    Attributes:
        prompt: what it answers.
        response: the text.
        treated: w, whether it has the attribute.
        source: where it came from.
        meta: whatever else the row carried; JSON values.
    """

    prompt: Prompt
    response: str
    treated: bool
    source: Source | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @cached_property
    def id(self) -> str:
        """The completion_id."""
        return completion_id(self.prompt, self.response)


@dataclass(frozen=True)
class Rewrite:
    """One rewritten text.

    Attributes:
        text: the text; None where there is none that can be used.
        outcome: of what use it is.
        detail: what exactly went wrong, for a person; empty where nothing did.
    """

    text: str | None
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Task:
    """A chain to be made.

    Attributes:
        unit: of which unit.
        draw: number of the independent attempt.
    """

    unit: Unit
    draw: int = 0


@dataclass(frozen=True)
class Chain:
    """The rewrites of a unit, in order: at most as many as were asked for, fewer where one of them is unusable."""

    task: Task
    rewrites: tuple[Rewrite, ...]


class Rewriter(Protocol):
    """Anything that rewrites responses so that an attribute is set or taken away."""

    @property
    def name(self) -> str:
        """Identity: changes whenever its texts could."""
        ...

    def chains(self, tasks: Sequence[Task], steps: int) -> Iterator[Chain]:
        """A chain per task, in any order, each as soon as it is finished.

        Args:
            tasks: what to rewrite; step k goes to 1 - w for odd k and back to w for even k.
            steps: rewrites to a chain, 2 or 3.
        """
        ...
