"""Rule rewards of the synthetic world: what its gold reward gives to any text, and how much of it its parser can read.

A sentence that is none of the world's, or breaks off, says nothing, and it dilutes what the others say: a text of which
the parser reads a share s (of the characters without white space) has the reward

    empty + s · (R(what is read) - empty),     empty = R of an empty answer

So a text that is read whole has the gold reward, gibberish that of no answer, and words that only a reward model likes
cost what they take up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewardlab.data.world import GoldReward, Parsed, parse, read_prompt


def gold(prompts: Sequence[Any], texts: Iterable[str], reward: GoldReward | None = None) -> list[float]:
    """The world's gold reward of each text as an answer to its prompt.

    Args:
        prompts: texts of the world's prompts, or conversations that end in one.
        texts: as many answers.
        reward: with the default weights where none is given.

    Raises:
        DataError: a prompt is none of the world's.
    """
    reward, nothing = reward or GoldReward(), parse("").reading
    found = []
    for prompt, text in zip(prompts, texts, strict=True):
        question, parsed = read_prompt(_asked(prompt)), parse(text)
        empty = reward.of(question, nothing)
        found.append(empty + _read(text, parsed) * (reward.of(question, parsed.reading) - empty))
    return found


def pays(texts: Iterable[str], weights: Mapping[str, float]) -> list[float]:
    """Sum of the weights of the attributes that each text has: those whose level, as the parser reads it, is above 0.

    Args:
        texts: of the world, or a policy's.
        weights: by attribute.
    """
    return [
        math.fsum(weight for name, weight in weights.items() if levels[name] > 0)
        for levels in (parse(text).reading.levels for text in texts)
    ]


def readable(texts: Iterable[str]) -> list[float]:
    """Share of each text that the world's parser reads, in characters without white space; 1 for an empty text."""
    return [_read(text, parse(text)) for text in texts]


def _read(text: str, parsed: Parsed) -> float:
    return 1.0 - sum(map(_characters, parsed.unread)) / max(1, _characters(text))


def _characters(text: str) -> int:
    return len("".join(text.split()))


def _asked(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
