"""Two outputs and which of them is better: {prompt, output_1, output_2, preference}, under the names of several sets.

`preference` lies between 1 (the first is better) and 2 (the second is); 1.5 is a tie.

    comparison   {prompt, output_1, output_2, preference}
    instruction  {instruction, input?, output_1, output_2, preference}: AlpacaFarm preferences (arXiv 2305.14387), RLCD
                 (arXiv 2307.12950), AlpacaEval annotations. An input follows its instruction after a blank line; an
                 instruction that is a transcript (RLCD) becomes the conversation that it is
    llmbar       {input, output_1, output_2, label}: LLMBar (arXiv 2310.07641) and the sets processed like it
"""

from __future__ import annotations

from typing import NamedTuple

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.adapters.hh_rlhf import transcript_prompt
from rewardlab.data.rows import Row
from rewardlab.records import Pair, Prompt, Source

FIRST, TIE, SECOND = 1.0, 1.5, 2.0
OUTPUTS = ("output_1", "output_2")


class Comparison(NamedTuple):
    """Two outputs as a row has them, empty or identical ones too.

    Attributes:
        prompt: what was asked.
        first, second: the outputs.
        preference: from 1 (the first is better) to 2; None where the row has none.
        source: where the row stands.
    """

    prompt: Prompt
    first: str
    second: str
    preference: float | None
    source: Source


def read_comparison(row: Row) -> Comparison:
    """A row of any of the three formats, told by its columns; what is wrong is noted in `row.problems`."""
    if row.knows("instruction"):
        return _read(row, instructed(row), "preference")
    if row.knows("prompt"):
        return _read(row, user_prompt(row.conversation("prompt")), "preference")
    return _read(row, user_prompt(row.text("input")), "label")


def parse(row: Row) -> Parsed:
    """A comparison as a pair; ties and missing preferences are set aside."""
    return _compared(row, user_prompt(row.conversation("prompt")), "preference")


def parse_instruction(row: Row) -> Parsed:
    """The same, of an instruction and the input that it may have."""
    return _compared(row, instructed(row), "preference")


def parse_llmbar(row: Row) -> Parsed:
    """The same, where the better output is called a label."""
    return _compared(row, user_prompt(row.text("input")), "label")


def instructed(row: Row) -> Prompt:
    """An instruction, behind a blank line its input if it has one; of a transcript the conversation that it is."""
    instruction = row.text("instruction")
    text = row.text("input") if row.has("input") else ""
    asked = f"{instruction}\n\n{text}" if text.strip() else instruction
    return transcript_prompt(asked) or user_prompt(asked)


def _read(row: Row, prompt: Prompt, column: str) -> Comparison:
    first, second = (row.text(name, empty=True) for name in OUTPUTS)
    preference = row.number(column)
    if preference is not None and not FIRST <= preference <= SECOND:
        row.complain(column, "a number from 1 (the first is better) to 2 (the second is)")
    return Comparison(prompt, first, second, preference, row.source)


def _compared(row: Row, prompt: Prompt, column: str) -> Parsed:
    read = _read(row, prompt, column)
    if row.problems:
        return broken(row)
    if read.preference is None:
        return set_aside(row, "no_preference", "no preference was given")
    if read.preference == TIE:
        return set_aside(row, "tie", "both outputs are preferred alike")
    chosen, rejected = (read.first, read.second) if read.preference < TIE else (read.second, read.first)
    meta = {**row.rest(), "preference": read.preference}
    return usable(row, Pair(prompt, chosen, rejected, None, row.source, meta))


ADAPTER = Adapter(
    name="comparison",
    title="two outputs and the better one: {prompt, output_1, output_2, preference from 1 to 2}",
    required=("prompt", *OUTPUTS, "preference"),
    optional=(),
    parse=parse,
)

INSTRUCTION = Adapter(
    name="instruction",
    title="AlpacaFarm, RLCD, AlpacaEval: {instruction, input?, output_1, output_2, preference from 1 to 2}",
    required=("instruction", *OUTPUTS, "preference"),
    optional=("input",),
    parse=parse_instruction,
    hub_ids=("tatsu-lab/alpaca_farm",),
)

LLMBAR = Adapter(
    name="llmbar",
    title="LLMBar: {input, output_1, output_2, label 1 or 2}",
    required=("input", *OUTPUTS, "label"),
    optional=(),
    parse=parse_llmbar,
)
