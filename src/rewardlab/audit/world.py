"""The synthetic world's imperfect rewriter over units whose texts are the world's.

A text is read back by the world's parser. Where the unit's `meta` names the draws that the text was written with, as
records of `data world` do, the rewrite keeps its wording letter for letter but for what the rewriter changes, so it
equals `data.world.triples` on the same responses and exact effects can be joined by id. Any other text that the parser
can read whole is rewritten in a wording of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rewardlab.audit.judged import judged
from rewardlab.audit.rules import chain
from rewardlab.audit.units import Chain, Rewrite, Task, Unit
from rewardlab.data.rows import as_number
from rewardlab.data.world.draws import Draws
from rewardlab.data.world.facts import WorldPrompt, read_prompt
from rewardlab.data.world.latents import Reading, Response
from rewardlab.data.world.lexicon import Part
from rewardlab.data.world.pairs import ANSWERS
from rewardlab.data.world.parse import parse
from rewardlab.data.world.render import render
from rewardlab.data.world.rewriter import Rewriter
from rewardlab.errors import DataError
from rewardlab.records import content_id

Attribute = Literal["length", "sentiment", "politeness", "structure"]


@dataclass(frozen=True)
class WorldRewriter:
    """A `Rewriter` of the world's texts.

    Attributes:
        attribute: what it sets.
        rewriter: its declared faults.
        part: which style words it writes with.
    """

    attribute: Attribute
    rewriter: Rewriter
    part: Part = "training"

    @property
    def name(self) -> str:
        """The attribute, and a hash of everything that the texts hang on."""
        settings = [self.attribute, self.rewriter.model_dump(mode="json"), self.part]
        return f"world-{self.attribute}@{content_id(settings)[:12]}"

    def chains(self, tasks: Sequence[Task], steps: int) -> Iterator[Chain]:
        """A chain per task, in order."""
        for task in tasks:
            yield self._chain(task, steps)

    def _chain(self, task: Task, steps: int) -> Chain:
        start = response_of(task.unit, self.part)
        if isinstance(start, str):
            return Chain(task, (Rewrite(None, "failed", start),))
        states = [start]

        def rewrite(text: str, target: bool) -> Rewrite:
            states.append(self.rewriter.rewrite(states[-1], self.attribute, target, task.draw))
            return judged(text, render(states[-1], self.part))

        return chain(task, steps, rewrite)


def response_of(unit: Unit, part: Part = "training") -> Response | str:
    """The world's response that a unit's text is, or in words why it is none."""
    key = unit.meta.get("key", "")
    try:
        prompt = read_prompt(unit.prompt.messages[0].content if len(unit.prompt.messages) == 1 else "", str(key))
    except DataError:
        return "its prompt is none of the world's"
    found = parse(unit.response)
    if found.unread:
        return f"the world cannot read {found.unread[0][:60]!r}"
    if not found.reading.statements:
        return "no statement to be read"
    named = _named(unit, prompt, found.reading, part)
    return named or Response(prompt, Draws(0, unit.id), 0.0, found.reading)


def _named(unit: Unit, prompt: WorldPrompt, reading: Reading, part: Part) -> Response | None:
    """The response with the draws that the unit's `meta` names, where they write its text; None where they do not."""
    seed, latents = unit.meta.get("seed"), unit.meta.get(str(unit.meta.get("side")))
    author = as_number(latents.get("author")) if isinstance(latents, Mapping) else None
    if not isinstance(seed, int) or author is None:
        return None
    answers = (Response(prompt, Draws(seed, f"{prompt.key}/{name}"), author, reading) for name in ANSWERS)
    return next((answer for answer in answers if render(answer, part) == unit.response), None)
