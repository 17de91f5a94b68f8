"""Reference answers: what a judge compares answers with, found by what was asked."""

from __future__ import annotations

from rewardlab.data.load import load_all
from rewardlab.data.source import DataSource
from rewardlab.records import Message, Prompt


def asked(prompt: Prompt) -> str:
    """Id of what was asked: a plain text and the one turn of a user that says the same are one question."""
    return Prompt((Message("user", prompt.messages[0].content),)).id if prompt.is_text else prompt.id


def read_references(source: DataSource) -> dict[str, str]:
    """By `asked`, the first completion that the source has for a prompt: of pairs the chosen one.

    Raises:
        DataError: data that cannot be read, or without a completion: every problem.
    """
    (loaded,) = load_all([source], usable=True)
    found: dict[str, str] = {}
    for record in loaded.records:
        for completion in record.completions[:1]:
            found.setdefault(asked(record.prompt), completion)
    return found
