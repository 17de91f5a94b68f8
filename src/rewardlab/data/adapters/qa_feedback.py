"""QA-Feedback: four answers to a question with a human preference between any two (arXiv 2306.01693).

`preference` lists the six pairs (1,2), (1,3), (1,4), (2,3), (2,4), (3,4): 1 means the first is better, 2 the
second, 0 neither. An answer's reward is its wins minus its losses (Copeland's score), so that the order of the
rewards is the order of the answers wherever the human preferences are transitive.
"""

from __future__ import annotations

from itertools import combinations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, usable, user_prompt
from rewardlab.data.rows import Row
from rewardlab.records import Candidates

ANSWERS = ("prediction 1", "prediction 2", "prediction 3", "prediction 4")
LEAD = {"0": 0.0, "1": 1.0, "2": -1.0}
"""What an outcome adds to the reward of the first answer and takes from the second's."""
PAIRS = tuple(combinations(range(len(ANSWERS)), 2))


def parse(row: Row) -> Parsed:
    """Four candidates with their wins minus losses as rewards; passages go to `meta`."""
    prompt = user_prompt(row.text("question"))
    texts = tuple(row.text(name, empty=True) for name in ANSWERS)
    outcomes = row.items("preference")
    if len(outcomes) != len(PAIRS) or any(outcome not in LEAD for outcome in map(str, outcomes)):
        row.complain("preference", f"{len(PAIRS)} numbers among 0, 1 and 2")
    if row.problems:
        return broken(row)
    rewards = [0.0] * len(ANSWERS)
    for (first, second), outcome in zip(PAIRS, outcomes, strict=True):
        lead = LEAD[str(outcome)]
        rewards[first] += lead
        rewards[second] -= lead
    meta = {**row.rest(), "preference": outcomes}
    return usable(row, Candidates(prompt, texts, tuple(rewards), row.source, meta))


ADAPTER = Adapter(
    name="qa-feedback",
    title="QA-Feedback: {question, prediction 1-4, preference}, four answers with pairwise preferences",
    required=("question", *ANSWERS, "preference"),
    optional=(),
    parse=parse,
)
