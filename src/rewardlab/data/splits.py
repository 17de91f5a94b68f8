"""Splits by conversation root: stable for ever, and no conversation on two sides.

A root's place is a hash of its id and the seed, a number in [0, 1) that depends on nothing else: adding,
dropping or reordering data moves no record. The unit interval is cut into test, val and train from the left,
so a larger `test` only ever takes over roots, and all records of a root share its side.

Sizes are therefore binomial rather than exact: of n roots, about n * test +- sqrt(n * test * (1 - test)).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from rewardlab.config import Config
from rewardlab.records import Record

Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")


class Fractions(Config):
    """Shares of conversation roots; train is what remains."""

    val: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share that chooses (checkpoints, settings). With folds, the share of each fold's training side."""
    test: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share that is read once. With folds it is 1 / folds and this is not used."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Fractions:
        if self.val + self.test >= 1.0:
            raise ValueError("val and test that leave something to train on: their sum below 1")
        return self


def place(root_id: str, seed: int, purpose: str = "split") -> float:
    """A number in [0, 1), uniform over roots and independent between seeds and purposes."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{root_id}".encode()).digest()
    # 53 bits are what a float holds exactly: the quotient never rounds up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def drawn_between(ends: tuple[int, int], text_id: str, seed: int, purpose: str) -> int:
    """A whole number between two ends, both of them possible, that hangs on the id, the seed and the purpose alone."""
    least, most = ends
    return least + int(place(text_id, seed, purpose) * (most - least + 1))


def side_of(root_id: str, fractions: Fractions, seed: int) -> Side:
    """The side of a root."""
    at = place(root_id, seed)
    if at < fractions.test:
        return "test"
    return "val" if at < fractions.test + fractions.val else "train"


def fold_of(root_id: str, folds: int, seed: int) -> int:
    """The fold, 0 to folds - 1, in which a root is tested."""
    return int(place(root_id, seed) * folds)


def side_in_fold(root_id: str, fold: int, folds: int, val: float, seed: int) -> Side:
    """The side of a root in one fold of a cross-fit; a root that is val is so in every fold but its own."""
    if fold_of(root_id, folds, seed) == fold:
        return "test"
    return "val" if place(root_id, seed, "val") < val else "train"


def split(records: Iterable[Record], fractions: Fractions, seed: int) -> dict[Side, list[Record]]:
    """Records by side, each in the given order."""
    sides: dict[Side, list[Record]] = {side: [] for side in SIDES}
    for record in records:
        sides[side_of(record.prompt.root_id, fractions, seed)].append(record)
    return sides


def cross_fit(records: Iterable[Record], folds: int, val: float, seed: int) -> list[dict[Side, list[Record]]]:
    """For every fold the records by side: each record is in the test of exactly one fold."""
    kept = list(records)
    parts: list[dict[Side, list[Record]]] = [{side: [] for side in SIDES} for _ in range(folds)]
    for record in kept:
        for fold, sides in enumerate(parts):
            sides[side_in_fold(record.prompt.root_id, fold, folds, val, seed)].append(record)
    return parts
