"""HTML that is safe by construction: text becomes HTML only through `element`, which escapes it.

`Html` marks what is markup already; every other string is data. Attribute names are the caller's literals,
attribute values are data. Raw content (`<script>`, `<style>`) has functions of its own, because HTML escapes
mean nothing inside them.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable
from typing import Any

VOID_TAGS = frozenset({"meta", "br", "hr", "input"})
_JSON_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")


class Html(str):
    """A string that is markup: made by the functions of this module only."""

    __slots__ = ()


Content = str | Iterable["Content"] | None
"""What an element may hold: text (escaped), `Html` (kept), nothing, or an iterable of these."""


def content(value: Content) -> Html:
    """`value` as markup: text escaped, `Html` kept, iterables joined, None left out."""
    if value is None:
        return Html()
    if isinstance(value, Html):
        return value
    if isinstance(value, str):
        return Html(html.escape(visible(value), quote=True))
    return Html("".join(content(item) for item in value))


def element(tag: str, *children: Content, **attributes: str | bool | None) -> Html:
    """`<tag attributes>children</tag>`.

    Args:
        tag: a literal tag name.
        children: see `Content`.
        attributes: `class_` and `for_` lose their underscore, other underscores become hyphens; True gives a
            bare attribute, False and None none at all.
    """
    opening = "".join([f"<{tag}", *(_attribute(name, value) for name, value in attributes.items()), ">"])
    if tag in VOID_TAGS:
        return Html(opening)
    return Html(f"{opening}{content(children)}</{tag}>")


def json_island(identifier: str, value: Any) -> Html:
    """`value` as `<script type="application/json">`, which browsers do not run.

    `<`, `>` and `&` are written as JSON escapes, so that no text in it can end the element; non-finite numbers
    are refused.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escaped = visible(text).translate(_JSON_ESCAPES)
    name = html.escape(identifier, quote=True)
    return Html(f'<script type="application/json" id="{name}">{escaped}</script>')


def script(code: str) -> Html:
    """Trusted JavaScript of ours, inline.

    Raises:
        ValueError: the code holds text that would end or confuse the element.
    """
    return _raw("script", code, ("</script", "<script", "<!--"))


def style(rules: str) -> Html:
    """Trusted CSS of ours, inline.

    Raises:
        ValueError: the rules hold text that would end the element.
    """
    return _raw("style", rules, ("</style",))


def policy_hash(code: str) -> str:
    """The source expression that allows exactly this inline script or style in a Content-Security-Policy."""
    digest = hashlib.sha256(code.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def visible(text: str) -> str:
    """`text` with what UTF-8 or HTML cannot hold (lone surrogates, NUL) replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _attribute(name: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {written}"
    return f' {written}="{html.escape(visible(value), quote=True)}"'


def _raw(tag: str, code: str, forbidden: tuple[str, ...]) -> Html:
    lowered = code.lower()
    found = [text for text in forbidden if text in lowered]
    # A carriage return would be rewritten by the HTML parser, and the hash of the policy no longer match.
    if found or "\r" in code:
        raise ValueError(f"this cannot stand inline in <{tag}>: {found or ['carriage return']}")
    return Html(f"<{tag}>{code}</{tag}>")
