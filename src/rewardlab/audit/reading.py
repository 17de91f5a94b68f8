"""Rows and records → the responses that stand in them, as a template says. Nothing here touches disk or network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardlab.audit.template import Template
from rewardlab.data.adapters.base import set_aside, user_prompt
from rewardlab.data.adapters.hh_rlhf import dialogue
from rewardlab.data.rows import Row, json_safe
from rewardlab.records import Message, Pair, Prompt, Rated, Record, SetAside, Source


@dataclass(frozen=True)
class Found:
    """A response as it was read, before W is known.

    Attributes:
        prompt: what it answers.
        response: the text.
        source: where it stands.
        side: of the pair that it is one side of.
        column: the value that W is decided by, where that is a column.
        transcript: the whole dialogue it stands in; the response itself where there is none.
        meta: whatever else the row carried.
    """

    prompt: Prompt
    response: str
    source: Source
    side: str | None = None
    column: Any = None
    transcript: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def aside(self, reason: str, detail: str) -> SetAside:
        """The response, set aside."""
        return SetAside(self.source, reason, detail, {"response": self.response, **self.meta})


def read_row(template: Template, row: Row) -> list[Found | SetAside]:
    """The responses of a row; what is wrong with it is noted in `row.problems`."""
    return _read_columns(template, row) if template.reads == "columns" else _read_transcripts(template, row)


def read_record(template: Template, record: Record, source: Source) -> list[Found | SetAside]:
    """The responses of a record; `source` is where it stands."""
    values = dict(record.meta)
    if isinstance(record, Rated):
        values |= {"label": record.label, "score": record.score}
    if not record.completions:
        return [SetAside(source, "no_completion", "a prompt without a completion", values)]
    wanted: list[tuple[str | None, str]] = [(None, text) for text in record.completions]
    if isinstance(record, Pair):
        both = {"chosen": record.chosen, "rejected": record.rejected}
        wanted = [(side, both[side]) for side in template.sides]
    column = None if template.treated.column is None else Row(source, values).raw(template.treated.column)
    found: list[Found | SetAside] = []
    for index, (side, text) in enumerate(wanted):
        meta = {**record.meta, "record": record.id, **({"candidate": index} if side is None else {"side": side})}
        found.append(_usable(Found(record.prompt, text, source, side, column, text, meta)))
    return found


def _read_columns(template: Template, row: Row) -> list[Found | SetAside]:
    prompt = user_prompt(row.conversation("prompt") if template.question is None else template.question)
    value = row.raw("response")
    texts = row.texts("response") if isinstance(value, list | tuple) else (row.text("response"),)
    column = None if template.treated.column is None else row.raw(template.treated.column)
    if template.treated.column is not None and not row.knows(template.treated.column):
        row.complain(template.treated.column, "the column that W is decided by")
    meta = row.rest()
    if template.treated.column is not None:
        meta[template.treated.column] = json_safe(column)
    if not texts:
        return [set_aside(row, "no_response", "an empty list of responses")]
    return [_usable(Found(prompt, text, row.source, None, column, text, meta)) for text in texts]


def _read_transcripts(template: Template, row: Row) -> list[Found | SetAside]:
    found: list[Found | SetAside] = []
    for side in template.sides:
        text = row.text(side)
        turns = dialogue(text)
        parts = None if turns is None else _turns(turns, first=template.reads == "first_turn")
        if parts is None:
            detail = f"{side} has no human turn with an answer" if turns else f"{side} does not begin with a mark"
            found.append(set_aside(row, "no_answer" if turns else "no_dialogue", detail))
        else:
            found.append(_usable(Found(*parts, row.source, side, None, text, {"side": side})))
    return found


def _turns(turns: Sequence[Message], *, first: bool) -> tuple[Prompt, str] | None:
    """Prompt and response: the first human and the first assistant turn, or the last answer and all before it."""
    answers = [at for at, turn in enumerate(turns) if turn.role == "assistant"]
    asked = [at for at, turn in enumerate(turns) if turn.role == "user"]
    if not answers or not asked or answers[-1] < asked[0]:
        return None
    if first:
        return Prompt((turns[asked[0]],)), turns[answers[0]].content
    return Prompt(tuple(turns[: answers[-1]])), turns[answers[-1]].content


def _usable(found: Found) -> Found | SetAside:
    return found if found.response.strip() else found.aside("empty", "an empty response")
