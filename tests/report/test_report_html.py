"""Markup is safe by construction; the standard library's parser is the independent reader."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser

import pytest

from rewardlab.report.html import content, element, json_island, policy_hash, script, style, visible

PAYLOADS = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "\"><img src=x onerror='window.pwned=1'>",
    "' onmouseover='window.pwned=1",
    "</style><style>*{display:none}",
    "<!--<script>",
    "]]>&lt;b&gt;&#60;",
    "{{7*7}} ${7*7} {% raw %} #{7}",
    "\u2028\u2029\u202e\u0000\ud800 \ufeff",
    "javascript:window.pwned=1",
]


class Reader(HTMLParser):
    """Tags, attributes and text as a parser sees them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_and_attributes_come_out_as_they_went_in(payload: str) -> None:
    reader = read(element("p", payload, title=payload, data_label=payload))
    assert reader.tags == [("p", {"title": visible(payload), "data-label": visible(payload)})]
    assert reader.text == visible(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_json_island_is_one_element_that_reads_back(payload: str) -> None:
    reader = read(f"{json_island('here', {'a': [payload], payload: 1})}<p>after</p>")
    assert [tag for tag, _ in reader.tags] == ["script", "p"]
    body = reader.text.removesuffix("after")
    assert not set("<>&\u2028\u2029") & set(body)
    # JSON can say NUL, which HTML cannot; it reaches the page as a text node.
    shown = payload.replace("\ud800", "\ufffd")
    assert json.loads(body) == {"a": [shown], shown: 1}


def test_markup_is_kept_and_nothing_is_left_out() -> None:
    inner = element("b", "x & y")
    assert content([inner, None, "<i>", [inner]]) == "<b>x &amp; y</b>&lt;i&gt;<b>x &amp; y</b>"
    assert element("input", disabled=True, hidden=False, value=None, for_="a") == '<input disabled for="a">'


@pytest.mark.parametrize("code", ["x='</script>'", "x='<SCRIPT>'", "<!-- x", "a\r\nb"])
def test_code_that_would_break_its_element_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="cannot stand inline"):
        script(code)


def test_style_that_would_break_its_element_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot stand inline"):
        style("a{} </STYLE>")


def test_policy_hash_is_the_base64_of_the_sha256() -> None:
    # The example of the Content Security Policy specification, section 6.7.2.4 (alert('Hello, world.');).
    assert policy_hash("alert('Hello, world.');") == "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    umlaut = base64.b64encode(hashlib.sha256("ä".encode()).digest()).decode()
    assert policy_hash("ä") == f"'sha256-{umlaut}'"


def test_numbers_that_are_not_json_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        json_island("here", float("nan"))
