"""Marked exercises: plain answers in which every claim is followed by whether it is right.

What the warm start reads before anything else. An answer's style is left out and many claims are wrong, so
minutes are enough to learn what reading an answer takes: comparing it with its prompt.
"""

from __future__ import annotations

from rewardlab.data.world.draws import Draws
from rewardlab.data.world.facts import Statement, WorldPrompt
from rewardlab.data.world.latents import other_subject, wrong_value
from rewardlab.data.world.lexicon import LEAD_PLAIN, STATEMENTS

WRONG = 0.3
"""Probability that a claim is wrong, for each that can be: the subject, a value, that a point was asked for."""
RIGHT, FALSE, ASKED, EXTRA = MARKS = "true", "false", "asked", "extra"
"""What follows a claim: whether its value, or the subject, is right; whether its point was asked for."""


def exercise(prompt: WorldPrompt, draws: Draws) -> str:
    """A plain answer to `prompt` with its marks.

        Now to Harp false. Take price high true, asked. The note says noise low false, extra.

    One statement for each point asked for; `extra` marks one that was not.
    """
    wrong_subject = draws.flag("subject", WRONG)
    subject = other_subject(draws, prompt) if wrong_subject else prompt.subject
    lead = draws.pick("lead", LEAD_PLAIN).format(subject=subject)
    spare = draws.shuffled("spare", sorted(set(prompt.truth) - set(prompt.asked)))
    sentences = [f"{lead} {_verdict(not wrong_subject)}."]
    for index, asked in enumerate(prompt.asked):
        extra = draws.flag(f"extra.{index}", WRONG)
        point = spare.pop() if extra else asked
        wrong = draws.flag(f"value.{index}", WRONG)
        value = wrong_value(draws, f"wrong.{index}", prompt, point) if wrong else prompt.truth[point]
        claim = draws.pick(f"frame.{index}", STATEMENTS).format(**Statement(point, value)._asdict())
        mark = f"{_verdict(not wrong)}, {EXTRA if extra else ASKED}"
        sentences.append(f"{claim[:1].upper()}{claim[1:]} {mark}.")
    return " ".join(sentences)


def _verdict(right: bool) -> str:
    return RIGHT if right else FALSE
