"""DIALOCONAN: dialogues of hate speech and counter-narratives, a turn to a row (Bonaldi et al. 2022, arXiv 2211.03433).

    {text, TARGET, dialogue_id, turn_id, type (HS | CN), source}

The turns of a dialogue, in the order of the rows, make pairs of what a user says and what an assistant answers. Every
pair becomes an example: the prompt is the dialogue so far as one text, the completion is the answer.

    User: {first turn}.
    Assistant: {answer}
    User: {next turn}.
    Assistant:

A last turn without an answer is set aside (`odd_turn`). What the text looks like is `dialogue` of the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rewardlab.data.adapters.base import Adapter, Parsed, broken, prompt_of, set_aside, usable
from rewardlab.data.files import FileRows
from rewardlab.data.rows import Row
from rewardlab.data.source import DataSource, DialogueText
from rewardlab.records import Candidates, Source

ASKED, ANSWER = "asked", "answer"
"""Columns that `gather` adds: the dialogue up to the answer, and the answer."""
KINDS = ("HS", "CN")
_ENDS = (".", "?", "!")

Turn = tuple[Source, Mapping[str, Any]]


def gather(file: FileRows, source: DataSource) -> FileRows:
    """The user's row of every pair, with the dialogue so far and the answer; dialogues in order of their first rows."""
    dialogues: dict[str, list[Turn]] = {}
    for place, values in file.rows:
        dialogues.setdefault(str(Row(place, values, source.columns).raw("dialogue_id")), []).append((place, values))
    form = source.dialogue or DialogueText()
    rows = (row for turns in dialogues.values() for row in _examples(turns, source.columns, form))
    return replace(file, rows=tuple(rows))


def _examples(turns: Sequence[Turn], columns: Mapping[str, str], form: DialogueText) -> Iterator[Turn]:
    history = ""
    texts = [Row(place, values, columns).raw("text") for place, values in turns]
    for number in range(0, len(turns) - 1, 2):
        place, values = turns[number]
        said, answer = texts[number], texts[number + 1]
        asked = f"{history}{form.user_name} {_ended(_line(said), form)}\n{form.bot_name}"
        own = {} if form.delete_last_assistant_response else {ANSWER: answer}
        yield place, {**values, ASKED: asked, **own}
        history = f"{asked} {_line(answer)}\n"
    if len(turns) % 2:
        yield turns[-1]


def _line(text: Any) -> str:
    return str(text).replace("\n", " ")


def _ended(text: str, form: DialogueText) -> str:
    is_ended = form.full_stop == "where missing" and text.rstrip().endswith(_ENDS)
    return text if is_ended else f"{text}."


def parse(row: Row) -> Parsed:
    """A gathered row as a prompt with its answer, or as a prompt alone where answers are left out."""
    row.text("text")
    asked = row.text(ASKED) if row.has(ASKED) else None
    answers = (f" {_line(row.text(ANSWER))}",) if row.knows(ANSWER) else ()
    if row.problems:
        return broken(row)
    if asked is None:
        return set_aside(row, "odd_turn", "the last turn of its dialogue, which nobody answers")
    return usable(row, Candidates(prompt_of(asked), answers, None, row.source, row.rest()))


def fits(row: Row) -> bool:
    """Whether the kind of turn is one of ours."""
    return row.raw("type") in KINDS


ADAPTER = Adapter(
    name="dialoconan",
    title="DIALOCONAN: {text, dialogue_id, turn_id, type HS or CN}, a turn to a row, dialogues as texts",
    required=("text", "dialogue_id", "turn_id", "type"),
    optional=(ASKED, ANSWER),
    parse=parse,
    fits=fits,
    gather=gather,
)
