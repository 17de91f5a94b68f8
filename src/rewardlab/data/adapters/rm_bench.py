"""RM-Bench rows (arXiv 2410.16184): three right and three wrong answers to a prompt, in three styles each.

A row stays one record: candidates with reward 1 for the right answers and 0 for the wrong ones, right ones first, each
from the plainest style to the most elaborate. `meta.styles` names the style of every answer, `meta.subset` the domain.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.rows import Row
from rewardlab.records import Candidates

STYLES = ("concise", "detailed", "markdown")
"""Short; detailed in plain text; detailed in Markdown."""


def parse(row: Row) -> Parsed:
    """The six answers as candidates."""
    prompt, right, wrong = user_prompt(row.conversation("prompt")), row.texts("chosen"), row.texts("rejected")
    domain = row.text("domain")
    for name, texts in (("chosen", right), ("rejected", wrong)):
        if texts and len(texts) != len(STYLES):
            row.complain(name, f"{len(STYLES)} answers, {', '.join(STYLES)}")
    if row.problems:
        return broken(row)
    if not right or not wrong:
        return set_aside(row, "empty", "no chosen or no rejected answers")
    rewards = (1.0,) * len(right) + (0.0,) * len(wrong)
    meta = {**row.rest(), "subset": domain, "styles": [*STYLES, *STYLES]}
    return usable(row, Candidates(prompt, right + wrong, rewards, row.source, meta), whole=True)


def fits(row: Row) -> bool:
    """Whether both sides are lists of texts."""
    sides = [row.raw(side) for side in ("chosen", "rejected")]
    return all(isinstance(side, list) and side and all(isinstance(text, str) for text in side) for side in sides)


ADAPTER = Adapter(
    name="rm-bench",
    title="RM-Bench {prompt, chosen, rejected, domain}, answers in three styles each",
    required=("prompt", "chosen", "rejected", "domain"),
    optional=(),
    parse=parse,
    fits=fits,
    hub_ids=("THU-KEG/RM-Bench",),
)
