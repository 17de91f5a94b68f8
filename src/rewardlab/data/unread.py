"""Columns of text that no format has read: told where a record lacks what one of them may hold."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rewardlab.data.rows import is_messages
from rewardlab.records import Pair, Record

_WORDS = re.compile(r"[^\W\d_]{2}")
"""What dates and numbers do not have."""


def unread_columns(records: Sequence[Record]) -> list[str]:
    """The columns in `meta` that hold texts of their own.

    Texts are words, messages, or lists of them, that mostly differ from row to row and say nothing that the record says
    already. Ids, which are one word, dates, and names of subsets and sources, which are few, are none.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for column, value in record.meta.items():
            if _is_text(value) and not _is_said(value, record):
                texts[column].append(str(value))
    return [column for column, found in texts.items() if 2 * len(set(found)) > len(records)]


def unread_words(records: Sequence[Record]) -> str:
    """The columns of text that were not read, and what to do where one was meant; empty where there are none."""
    columns = unread_columns(records)
    if not columns:
        return ""
    named = ", ".join(map(repr, columns))
    return (
        f"Text of the {'column' if len(columns) == 1 else 'columns'} {named} was not read; where the file is read, "
        "`columns` maps what is meant (our name: their name), as in `{rejected: worse}`."
    )


def without_prompt(records: Sequence[Record]) -> list[Record]:
    """The records whose prompt is empty text. Formats of texts alone have no prompt at all: those are none of them."""
    return [
        record
        for record in records
        if record.prompt.messages and not any(turn.content.strip() for turn in record.prompt.messages)
    ]


def is_half_read(record: Record) -> bool:
    """Whether one side of a pair was left unread."""
    return not isinstance(record, Pair) and any(name in record.meta for name in ("chosen", "rejected"))


def _is_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return is_messages(value) or any(_is_text(item) for item in value)
    # Of writing without spaces between words, a letter outside ASCII tells it from an id.
    return isinstance(value, str) and bool(_WORDS.search(value)) and (" " in value.strip() or not value.isascii())


def _is_said(value: Any, record: Record) -> bool:
    """Whether a text stands in the record, or all of the record in it."""
    if not isinstance(value, str):
        return False
    own = [text for text in (*(turn.content for turn in record.prompt.messages), *record.completions) if text.strip()]
    return any(value.strip() in text for text in own) or (len(own) > 1 and all(text in value for text in own))
