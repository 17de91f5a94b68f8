"""Ways to put a prompt to a language model that has no chat template, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator

from rewardlab.config import nearest

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "user-assistant": 'User: "{prompt}".\nAssistant: ',
        "human-bot": "<human>: {prompt}\n<bot>:",
        "question-answer": "### Question: {prompt}\n### Answer:",
    }
)
"""Name → text with {prompt}: dialogues as published code writes them, RedPajama's, and questions."""


def template_text(named: str) -> str:
    """The text of a preset, or a text of the user's own as it stands."""
    return PRESETS.get(named, named)


def _usable(value: str) -> str:
    if template_text(value).count("{prompt}") != 1:
        known = ", ".join(PRESETS)
        raise ValueError(f"expected one of {known}, or a text with {{prompt}} once. {nearest(value, list(PRESETS))}")
    return value


NamedTemplate = Annotated[str, AfterValidator(_usable)]
"""The name of a preset, or a text with {prompt} once."""
