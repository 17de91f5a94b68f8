"""Two outputs and which of them is better: {prompt, output_1, output_2, preference}.

`preference` lies between 1 (the first is better) and 2 (the second is); 1.5 is a tie. AlpacaEval annotations,
LLMBar, RLCD and AlpacaFarm preferences have this form under other column names.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.rows import Row
from rewardlab.records import Pair

FIRST, TIE, SECOND = 1.0, 1.5, 2.0


def parse(row: Row) -> Parsed:
    """A comparison as a pair; ties and missing preferences are set aside."""
    prompt = user_prompt(row.conversation("prompt"))
    outputs = row.text("output_1", empty=True), row.text("output_2", empty=True)
    preference = row.number("preference")
    if preference is not None and not FIRST <= preference <= SECOND:
        row.complain("preference", "a number from 1 (the first is better) to 2 (the second is)")
    if row.problems:
        return broken(row)
    if preference is None:
        return set_aside(row, "no_preference", "no preference was given")
    if preference == TIE:
        return set_aside(row, "tie", "both outputs are preferred alike")
    chosen, rejected = outputs if preference < TIE else outputs[::-1]
    return usable(row, Pair(prompt, chosen, rejected, None, row.source, {**row.rest(), "preference": preference}))


ADAPTER = Adapter(
    name="comparison",
    title="two outputs and the better one: {prompt, output_1, output_2, preference from 1 to 2}",
    required=("prompt", "output_1", "output_2", "preference"),
    optional=(),
    parse=parse,
)
