"""Instruction sets in the form of Alpaca: {instruction, input?, output?}.

An input follows its instruction after a blank line. One without an output is a prompt alone.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, user_prompt
from rewardlab.data.adapters.comparison import instructed
from rewardlab.data.rows import Row
from rewardlab.records import Candidates


def parse(row: Row) -> Parsed:
    """What a user asks, with the output as the one completion where there is one."""
    asked = instructed(row)
    output = row.text("output", empty=True) if row.has("output") else ""
    if row.problems:
        return broken(row)
    completions = (output,) if output.strip() else ()
    return Candidates(user_prompt(asked), completions, None, row.source, row.rest())


ADAPTER = Adapter(
    name="instructions",
    title="Alpaca and its like: {instruction, input?, output?}, prompts with at most one answer",
    required=("instruction",),
    optional=("input", "output"),
    parse=parse,
    hub_ids=("tatsu-lab/alpaca",),
)
