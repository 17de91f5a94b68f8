"""Texts of others inside a question: set off by tags, which they cannot close."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")
_FIELD = re.compile(r"\{(\w+)\}")
_OTHER_BRACKET = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"


def filled(template: str, texts: Mapping[str, str]) -> str:
    """The template with every `{name}` replaced by its text, braces inside of texts included as they stand.

    A tag of the template's own that stands in a text begins with ‹ there, so that no text can end where it does not.
    That does not keep a model from obeying what a text says.
    """
    tags = "|".join(sorted(map(re.escape, set(_TAG.findall(template)))))
    tag = re.compile(rf"<(?=\s*/?\s*(?:{tags})\b)", re.IGNORECASE) if tags else None
    safe = {name: tag.sub(_OTHER_BRACKET, text) if tag else text for name, text in texts.items()}
    return _FIELD.sub(lambda field: safe.get(field[1], field[0]), template)


def fields(template: str) -> set[str]:
    """Names in braces."""
    return set(_FIELD.findall(template))
