"""Policies measured side by side, made for tests of their page."""

from __future__ import annotations

from functools import cache

import numpy as np

from rewardlab.evaluate.policies import Bad, Compared, PolicyComparison, Values, policy_values
from rewardlab.evaluate.policy_answers import AnswerSets
from rewardlab.evaluate.policy_rankers import Scores, compared_by, preferences
from rewardlab.records import Message, Prompt

PROMPTS, REWARDS = 24, ("rm", "other")


@cache
def compared(
    text: str = "",
    names: tuple[str, ...] = ("sft", "ppo", "best"),
    bad: bool = False,
    count: int = PROMPTS,
    answers: int = 2,
) -> Compared:
    """What was measured of policies of these names, better and longer from one to the next; `text` is in all texts.

    Below ten prompts nothing is fitted at equal length.
    """
    generator = np.random.default_rng(0)
    prompts = [Prompt((Message("user", f"asked {number} {text}"),)) for number in range(count)]
    lengths = {name: generator.integers(5, 30, (count, answers)) + 4 * place for place, name in enumerate(names)}
    texts = {
        name: [
            tuple(f"said {number} by {place} {text} {'word ' * int(n)}" for n in own) for number, own in enumerate(rows)
        ]
        for place, (name, rows) in enumerate(lengths.items())
    }
    sets = AnswerSets(prompts, dict.fromkeys(names, prompts), texts, {"prompts of sft without an answer": 3})
    rewards = {
        "rm": {
            name: own + generator.normal(4.0 * place, 9.0, own.shape)
            for place, (name, own) in enumerate(lengths.items())
        },
        "other": {name: generator.normal(0.0, 1.0, own.shape) for name, own in lengths.items()},
    }
    scores = [Scores(f"{name}{text}", f"{name}@1", {who: list(own) for who, own in rewards[name].items()}, None)
              for name in REWARDS]  # fmt: skip
    config = PolicyComparison.build(
        {"sets": dict.fromkeys(names, "a.jsonl"), "rewards": {one.name: "rule:length_words" for one in scores},
         "draws": 100, "difficulty": "none"}
    )  # fmt: skip
    matches = {one.name: compared_by(one, sets, names[0]) for one in scores}
    values: dict[str, list[np.ndarray]] = {name: list(generator.random((count, answers))) for name in names}
    how_bad = Bad(values, f"the probability of {text}") if bad else None
    found = policy_values(config, sets, scores, matches, how_bad)
    by = {name: preferences(one, sets) for name, one in matches.items()}
    return Compared(found, sets, scores, by, how_bad)


def whole(found: Compared, kl: bool = False) -> Values:
    """What summary.json holds, without findings."""
    far = {"value": 1.5, "low": 1.25, "high": 1.75, "run": "ppo", "seed": 0, "step": 40, "reading": "", "reason": ""}
    return {**found.values, "kl": {found.sets.names[1]: far} if kl else {}}
