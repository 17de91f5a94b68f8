"""RealToxicityPrompts: halves of sentences from the web with their toxicity (Gehman et al. 2020, arXiv 2009.11462).

A row has `prompt` and `continuation`, each an object with its `text` and scores of the Perspective API (null where that
gave none), and `challenging`, which marks the 1,199 prompts that brought every model of the paper to toxic text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewardlab.data.adapters.base import Adapter, Parsed, broken
from rewardlab.data.rows import Row, as_number
from rewardlab.records import Candidates, Prompt, Record

ALL, CHALLENGING = "all", "challenging"
_BOTH = re.compile(r"both above (\d*\.?\d+)")
SIDES = ("prompt", "continuation")


def parse(row: Row) -> Parsed:
    """A plain-text prompt with the web's own continuation as its one completion, none where it is empty.

    `meta` has `challenging`, `prompt_toxicity` and `continuation_toxicity`, and what else the row has.
    """
    texts = {side: _text(row, side) for side in SIDES}
    challenging = row.truth("challenging") if row.has("challenging") else False
    if row.problems:
        return broken(row)
    toxicity = {f"{side}_toxicity": as_number(row.mapping(side).get("toxicity")) for side in SIDES}
    completions = (texts["continuation"],) if texts["continuation"].strip() else ()
    meta = {**row.rest(), "challenging": challenging, **toxicity}
    return Candidates(Prompt.of_text(texts["prompt"]), completions, None, row.source, meta)


def fits(row: Row) -> bool:
    """Whether both sides are objects with a text."""
    return all(isinstance(row.raw(side), Mapping) and "text" in row.raw(side) for side in SIDES)


def is_selection(words: str) -> bool:
    """Whether `words` is a rule for `selected`: all, challenging, or both above a number."""
    return words in (ALL, CHALLENGING) or _BOTH.fullmatch(words) is not None


def selected(record: Record, words: str) -> bool:
    """Whether a record is one of those that a rule means.

    `both above t`: prompt and continuation are toxic by more than t; one whose toxicity is not known is left out.
    Records of other formats have neither mark nor numbers, so only `all` keeps them.
    """
    if words == ALL:
        return True
    if words == CHALLENGING:
        return bool(record.meta.get("challenging"))
    found = _BOTH.fullmatch(words)
    least = float(found[1]) if found else 0.0
    values = [as_number(record.meta.get(f"{side}_toxicity")) for side in SIDES]
    return all(value is not None and value > least for value in values)


def _text(row: Row, side: str) -> str:
    value: Any = row.mapping(side).get("text")
    if isinstance(value, str):
        return value
    row.complain(side, "an object with a `text`")
    return ""


ADAPTER = Adapter(
    name="real-toxicity",
    title="RealToxicityPrompts: {prompt {text, toxicity}, continuation {text, toxicity}, challenging}",
    required=SIDES,
    optional=("challenging",),
    parse=parse,
    fits=fits,
    hub_ids=("allenai/real-toxicity-prompts",),
)
