"""Chance in the world: every draw is a hash of (seed, key, slot), so no draw can move another.

A generator's stream would tie the draws together: one draw more for a longer text and every later word changes.
A hash per slot makes counterfactuals exact: what an intervention does not set stays, letter for letter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Draws:
    """The random draws of one thing in the world (a prompt, a response, a rewrite).

    Attributes:
        seed: seed of the whole world.
        key: what the draws belong to, e.g. `train/17/a`.
    """

    seed: int
    key: str

    def uniform(self, slot: str) -> float:
        """A number in the open interval (0, 1), the same for ever for this seed, key and slot."""
        digest = hashlib.blake2b(f"{self.seed}\x1f{self.key}\x1f{slot}".encode(), digest_size=8).digest()
        return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2.0**52

    def normal(self, slot: str) -> float:
        """A standard normal draw."""
        return _NORMAL.inv_cdf(self.uniform(slot))

    def flag(self, slot: str, probability: float) -> bool:
        """True with `probability`."""
        return self.uniform(slot) < probability

    def pick(self, slot: str, options: Sequence[T]) -> T:
        """One of `options`, all equally likely."""
        return options[int(self.uniform(slot) * len(options))]

    def shuffled(self, slot: str, items: Sequence[T]) -> list[T]:
        """`items` in random order; each item's place hangs on its own draw."""
        ranks = [self.uniform(f"{slot}.{index}") for index in range(len(items))]
        return [items[index] for index in sorted(range(len(items)), key=ranks.__getitem__)]

    def rounded(self, slot: str, value: float) -> int:
        """`value` rounded up or down at random such that the mean is `value` exactly."""
        below = int(value // 1)
        return below + self.flag(slot, value - below)
