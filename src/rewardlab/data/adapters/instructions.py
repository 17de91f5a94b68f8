"""Instruction sets as Alpaca has them, and answers of one model as AlpacaEval takes them.

{instruction, input?, output?}: an input follows its instruction after a blank line; one without an output is a prompt
alone.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken
from rewardlab.data.adapters.comparison import instructed
from rewardlab.data.rows import Row
from rewardlab.records import Candidates


def parse(row: Row) -> Parsed:
    """What a user asks, with the output as the one completion where there is one."""
    prompt = instructed(row)
    output = row.text("output", empty=True) if row.has("output") else ""
    if row.problems:
        return broken(row)
    completions = (output,) if output.strip() else ()
    return Candidates(prompt, completions, None, row.source, row.rest())


ADAPTER = Adapter(
    name="instructions",
    title="Alpaca, AlpacaEval model outputs: {instruction, input?, output?}, prompts with at most one answer",
    required=("instruction",),
    optional=("input", "output"),
    parse=parse,
    hub_ids=("tatsu-lab/alpaca",),
)
