"""Rewrites of rewrites: {id: {w_original, completions: {original, rewrite, "rewritten rewrite"}, reward_question}}.

The interchange form of RATE (arXiv 2410.11348). The three texts become candidates in that order; the attribute
and their names go to `meta`.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, usable, user_prompt
from rewardlab.data.rows import Row
from rewardlab.records import Candidates

STEPS = ("original", "rewrite", "rewritten rewrite")


def parse(row: Row) -> Parsed:
    """A text with its rewrite and the rewrite of the rewrite."""
    prompt, texts, attribute = user_prompt(row.conversation("reward_question")), row.mapping("completions"), None
    if row.has("w_original"):
        attribute = row.truth("w_original")
    else:
        row.complain("w_original", "true or false")
    missing = [step for step in STEPS if not isinstance(texts.get(step), str)]
    if missing:
        row.complain("completions", f"an object with the texts {', '.join(STEPS)}")
    if row.problems:
        return broken(row)
    meta = {**row.rest(), "w_original": attribute, "steps": list(STEPS)}
    return usable(row, Candidates(prompt, tuple(texts[step] for step in STEPS), None, row.source, meta), whole=True)


ADAPTER = Adapter(
    name="rewrites",
    title="RATE rewrites: {id: {w_original, completions: {original, rewrite, rewritten rewrite}, reward_question}}",
    required=("w_original", "completions", "reward_question"),
    optional=(),
    parse=parse,
)
