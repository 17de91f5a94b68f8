"""Rule rewards of the synthetic world: what its gold reward gives to any text, and whether its parser can read it.

A text is read whole or not at all. One with a sentence that is none of the world's, or that breaks off in one, says
nothing: its gold reward is that of an empty answer. So nothing is gained by words that only a reward model likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rewardlab.data.world import GoldReward, Reading, parse, read_prompt

EMPTY = ""


def gold(prompts: Sequence[Any], texts: Iterable[str]) -> list[float]:
    """The world's gold reward, with its default weights, of each text as an answer to its prompt.

    Args:
        prompts: texts of the world's prompts, or conversations that end in one.
        texts: as many answers.

    Raises:
        DataError: a prompt is none of the world's.
    """
    reward = GoldReward()
    return [reward.of(read_prompt(_asked(prompt)), _read(text)) for prompt, text in zip(prompts, texts, strict=True)]


def readable(texts: Iterable[str]) -> list[float]:
    """1 for a text that the world's parser reads whole, else 0; an empty one is read."""
    return [float(not parse(text).unread) for text in texts]


def _asked(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _read(text: str) -> Reading:
    found = parse(text)
    return parse(EMPTY).reading if found.unread else found.reading
