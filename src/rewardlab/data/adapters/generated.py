"""Answers in the published form of the length project: {question, response}, one response or a list of them.

`generated_*.jsonl` (arXiv 2310.03716). Its scored files have the scores in a column named after the reward model:
`columns: {rewards: that name}` reads them.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.adapters.hh_rlhf import transcript_prompt
from rewardlab.data.rows import Row, as_number
from rewardlab.records import Candidates


def parse(row: Row) -> Parsed:
    """The responses as candidates; a question that is a transcript becomes that conversation."""
    question, raw = row.text("question"), row.raw("response")
    responses = (raw,) if isinstance(raw, str) else row.texts("response")
    alone = as_number(row.raw("rewards"))
    rewards = row.numbers("rewards") if alone is None else (alone,)
    if rewards is not None and len(rewards) != len(responses):
        row.complain("rewards", f"{len(responses)} numbers, one a response")
    if row.problems:
        return broken(row)
    if not responses:
        return set_aside(row, "empty", "no responses")
    prompt = transcript_prompt(question) or user_prompt(question)
    return usable(row, Candidates(prompt, responses, rewards, row.source, row.rest()))


ADAPTER = Adapter(
    name="generated",
    title="generated answers of published code: {question, response}, a text or a list, with rewards?",
    required=("question", "response"),
    optional=("rewards",),
    parse=parse,
)
