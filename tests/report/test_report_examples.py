"""Which pairs the page carries along."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rewardlab.report import examples
from rewardlab.report.html import json_island
from tests.report.finished import made_up_pairs


class Rows(list[dict[str, Any]]):
    """Pairs in memory."""

    @property
    def margins(self) -> list[float | None]:
        return [row["margin"] for row in self]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [self[index] for index in indices]


@pytest.fixture(scope="module")
def pairs() -> Rows:
    return Rows(made_up_pairs(np.random.default_rng(1), 300))


def test_few_pairs_are_all_there_in_their_order(pairs: Rows) -> None:
    selection = examples.select(pairs, examples.Limits(300), seed=0)
    assert [row["id"] for row in selection.rows] == [pair["pair_id"] for pair in pairs]
    assert selection.words == "All 300 pairs are here."


def test_many_pairs_leave_the_extremes_and_a_random_rest(pairs: Rows) -> None:
    selection = examples.select(pairs, examples.Limits(60), seed=0)
    kept = {row["index"] for row in selection.rows}
    by_margin = sorted(range(300), key=lambda index: pairs[index]["margin"])
    assert len(kept) == len(selection.rows) == 60
    assert set(by_margin[:20]) | set(by_margin[-20:]) <= kept
    assert "60 of 300" in selection.words
    assert "240 are left out" in selection.words
    again = {row["index"] for row in examples.select(pairs, examples.Limits(60), seed=0).rows}
    other = {row["index"] for row in examples.select(pairs, examples.Limits(60), seed=1).rows}
    assert kept == again != other


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_small_limits_are_kept(most: int, pairs: Rows) -> None:
    assert len(examples.select(pairs, examples.Limits(most), seed=0).rows) == most


def test_the_page_stays_small_with_ten_thousand_long_pairs(pairs: Rows) -> None:
    long = {**pairs[0], "prompt": "ä" * 9_000, "chosen": "<" * 9_000, "rejected": "c" * 9_000}
    many = Rows([{**long, "pair_id": f"{index:016x}", "margin": float(index)} for index in range(10_000)])
    selection = examples.select(many, examples.Limits(5_000), seed=0)
    size = len(json_island("x", selection.rows).encode())
    assert 0.9 * examples.LARGEST_EXAMPLES_BYTES < size < 1.1 * examples.LARGEST_EXAMPLES_BYTES
    assert f"{10_000 - len(selection.rows):,} are left out" in selection.words
    assert {row["index"] for row in selection.rows} >= {0, 9_999}
    row = selection.rows[0]
    assert row["chosen"]["text"].startswith("<" * examples.LONGEST_TEXT_CHARACTERS + " [")
    assert "5,000 more characters" in row["chosen"]["text"]


def test_scores_that_are_not_numbers_are_said_to_be_unknown(pairs: Rows) -> None:
    broken = Rows(
        [{**pairs[0], "margin": margin, "chosen_score": math.nan} for margin in (math.nan, None, 0.0, -1.0, 2.0)]
    )
    rows = examples.select(broken, examples.Limits(9), seed=0).rows
    assert [row["ranked"] for row in rows] == ["unknown", "unknown", "tie", "wrong", "right"]
    assert rows[0]["chosen"]["score"] is None
    json.dumps(rows, allow_nan=False)
    assert [point["ranked"] for point in examples.points(broken, seed=0)] == ["tie", "wrong", "right"]


def test_points_are_all_pairs_or_a_sample(pairs: Rows) -> None:
    assert len(examples.points(pairs, seed=0)) == 300
    sample = examples.points(pairs, seed=0, most=40)
    assert len(sample) == 40
    assert sample == examples.points(pairs, seed=0, most=40) != examples.points(pairs, seed=1, most=40)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("\n\nHuman: first\n\nAssistant: yes\n\nHuman: and then?\n\nAssistant:", "Human: and then?"),
        ("one line", "one line"),
        ("Assistant:", "Assistant:"),
        ("", ""),
        ("x" * 500, "x" * 140 + "…"),
    ],
)
def test_excerpt_is_the_last_thing_said(prompt: str, expected: str) -> None:
    assert examples.excerpt(prompt) == expected


@pytest.mark.parametrize(
    ("most", "wanted", "pairs"),
    [
        (600, [900, 900, 900], [200, 200, 200]),
        # The report of 150 evaluated pairs and a map of 400: both have room.
        (600, [150, 400], [150, 400]),
        (600, [10, 5_000, 290, 0], [10, 300, 290, 0]),
        (0, [5, 5], [0, 0]),
        (7, [], []),
    ],
)
def test_browsers_share_the_room_and_what_others_leave(most: int, wanted: list[int], pairs: list[int]) -> None:
    found = examples.Limits(most, 1_000).shared(wanted)
    assert [one.pairs for one in found] == pairs
    assert sum(one.bytes for one in found) <= 1_000
    assert all(one.bytes == 1_000 * one.pairs // (sum(pairs) or 1) for one in found)
