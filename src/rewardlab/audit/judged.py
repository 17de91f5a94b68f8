"""Of what use a rewrite is: the one judge for every rewriter.

    empty       nothing but white space
    identical   the input, but for white space at its ends
    chatter     words of the rewriter's own around the text: "Sure, here is ...", "Let me know if ...", quotation marks
    ok          anything else

Chatter is only what the input did not have: an answer that begins "Sure, here is a list" may well be rewritten so.
"""

from __future__ import annotations

import re

from rewardlab.audit.units import Rewrite

_TEXT = r"(?:text|review|response|answer|version|rewrite|revision|passage|message|movie review)"
_CHANGED = r"(?:adjusted|rewritten|revised|edited|modified|updated|changed|altered|improved|requested)"
_SURE = r"(?:sure(?: thing)?|certainly|of course|absolutely|no problem|okay|ok)"
_HERE = r"(?:here(?:'s|’s| is| are)|below is|this is)"
OPENINGS = {
    "an assurance": re.compile(rf"{_SURE}[!.,:]?(?:\s+(?:here|below)\b|[ \t]*\n)", re.I),
    "an announcement": re.compile(
        rf"{_HERE} (?:the|an?|your|my) "
        rf"(?:[^.!?:\n]{{0,60}}\b{_TEXT}\b[^.!?:\n]{{0,80}}:|(?:[\w-]+ ){{0,3}}{_CHANGED} {_TEXT}\b)",
        re.I,
    ),
    "a heading": re.compile(rf"(?:{_CHANGED}|new) {_TEXT}[*_]*:", re.I),
    "a remark on the task": re.compile(rf"I(?:['’]ve| have) {_CHANGED} (?:the|this|your) {_TEXT}\b", re.I),
}
"""What rewriters say before the text."""

_NEW_SENTENCE = r"[.!?\n][\"'”*_)]{0,3}\s*"
CLOSINGS = {
    "an offer": re.compile(rf"{_NEW_SENTENCE}(?:please )?(?:let me know if|feel free to (?:ask|reach out))\b", re.I),
    "a wish": re.compile(rf"{_NEW_SENTENCE}(?:I )?hope (?:this|that) (?:helps|works|meets)\b", re.I),
    "a note": re.compile(
        rf"\n\s*[(*_]{{0,3}}(?:note|explanation)\b[^\n]{{0,40}}:|\n\s*\(?I(?:['’]ve| have)? {_CHANGED}\b", re.I
    ),
}
"""What rewriters say behind it, within the last characters."""

LOOKED_AT = 240
"""Characters at the end of a text in which a closing is looked for."""

_QUOTES = (('"', '"'), ("“", "”"), ("«", "»"), ("```", "```"))


def judged(before: str, after: str) -> Rewrite:
    """The rewrite `after` of the text `before`, with its outcome."""
    new, old = after.strip(), before.strip()
    if not new:
        return Rewrite(None, "empty", "nothing but white space" if after else "")
    if new == old:
        return Rewrite(after, "identical")
    said = chatter(new) - chatter(old)
    return Rewrite(after, "chatter", ", ".join(sorted(said))) if said else Rewrite(after, "ok")


def chatter(text: str) -> set[str]:
    """What of a text is talk about it, by name."""
    start, end = text.lstrip("*_#\"'“ \n"), text[-LOOKED_AT:]
    found = {name for name, pattern in OPENINGS.items() if pattern.match(start)}
    found |= {name for name, pattern in CLOSINGS.items() if pattern.search(end)}
    quoted = any(
        len(text) > len(left + right)
        and text.startswith(left)
        and text.endswith(right)
        # Dialogue that begins and ends in speech has more than one pair of marks.
        and left not in text[len(left) : -len(right)]
        and right not in text[len(left) : -len(right)]
        for left, right in _QUOTES
    )
    return found | ({"quotation marks"} if quoted else set())
