"""Splits by conversation root: stable, disjoint, of the size asked for."""

from __future__ import annotations

import hashlib
import math

import pytest

from rewardlab.data.splits import SIDES, Fractions, cross_fit, fold_of, place, side_of, split
from rewardlab.errors import ConfigError
from rewardlab.records import Message, Pair, Prompt


def pair(root: int, turn: int = 0) -> Pair:
    turns = (Message("user", f"root {root}"), Message("assistant", f"{turn}"), Message("user", "and?"))
    return Pair(Prompt(turns), f"a{turn}", f"b{turn}")


PAIRS = [pair(root, turn) for root in range(4_000) for turn in range(1 + root % 3)]


def test_the_place_of_a_root_is_fixed_for_ever() -> None:
    """Written out, so that a change of the hash shows: published splits must not move."""
    digest = hashlib.sha256(b"split:7:0123456789abcdef").hexdigest()
    expected = int(digest[:16], 16) / 2**64
    assert place("0123456789abcdef", 7) == pytest.approx(expected, abs=1e-15)
    sides = [side_of(f"{number:016x}", Fractions(val=0.3, test=0.3), 0) for number in range(10)]
    assert sides == ["test", "test", "train", "val", "test", "test", "test", "test", "test", "train"]


def test_sides_share_no_root_and_lose_no_record() -> None:
    sides = split(PAIRS, Fractions(val=0.2, test=0.3), seed=0)
    roots = [{record.prompt.root_id for record in sides[side]} for side in SIDES]
    assert sum(map(len, roots)) == len(set().union(*roots))
    assert sorted(record.id for side in SIDES for record in sides[side]) == sorted(record.id for record in PAIRS)


def test_a_record_keeps_its_side_whatever_else_is_read() -> None:
    everything = split(PAIRS, Fractions(), seed=3)
    part = split(PAIRS[::-7], Fractions(), seed=3)
    for side in SIDES:
        assert {record.id for record in part[side]} <= {record.id for record in everything[side]}


def test_a_larger_test_only_takes_over() -> None:
    small = split(PAIRS, Fractions(val=0.1, test=0.1), seed=0)["test"]
    large = split(PAIRS, Fractions(val=0.1, test=0.2), seed=0)["test"]
    assert {record.id for record in small} < {record.id for record in large}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sizes_are_binomial_around_what_was_asked(seed: int) -> None:
    sides = split([pair(root) for root in range(4_000)], Fractions(val=0.1, test=0.25), seed)
    for side, share in (("test", 0.25), ("val", 0.1), ("train", 0.65)):
        spread = math.sqrt(4_000 * share * (1 - share))
        assert abs(len(sides[side]) - 4_000 * share) < 4 * spread


def test_seeds_and_purposes_draw_independently() -> None:
    ids = [f"{number:016x}" for number in range(4_000)]
    for other in ([place(i, 1) for i in ids], [place(i, 0, "val") for i in ids]):
        both = sum(place(i, 0) < 0.5 and place_there < 0.5 for i, place_there in zip(ids, other, strict=True))
        assert abs(both - 1_000) < 4 * math.sqrt(4_000 * 0.25 * 0.75)


def test_every_record_is_tested_in_exactly_one_fold() -> None:
    folds = cross_fit(PAIRS, 5, 0.1, seed=0)
    assert sorted(record.id for sides in folds for record in sides["test"]) == sorted(record.id for record in PAIRS)
    for number, sides in enumerate(folds):
        assert sum(map(len, sides.values())) == len(PAIRS)
        assert all(fold_of(record.prompt.root_id, 5, 0) == number for record in sides["test"])
        roots = [{record.prompt.root_id for record in sides[side]} for side in SIDES]
        assert sum(map(len, roots)) == len(set().union(*roots))
        share = len(roots[1]) / (len(roots[0]) + len(roots[1]))
        assert abs(share - 0.1) < 4 * math.sqrt(0.09 / 3_200)


def test_fractions_leave_something_to_train_on() -> None:
    with pytest.raises(ConfigError, match="their sum below 1"):
        Fractions.build({"val": 0.5, "test": 0.5})
    with pytest.raises(ConfigError, match="test"):
        Fractions.build({"test": -0.1})
