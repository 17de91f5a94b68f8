"""Rewards of few values are bars, whose heights are counted; pictures are not squeezed by one interval."""

from __future__ import annotations

import numpy as np
import pytest
import vl_convert

from rewardlab.report.audit_figures import STAGE_COLORS
from rewardlab.report.audit_words import reward_words
from rewardlab.report.discrete_rewards import bar_rows, better_as_bars, score_bars
from rewardlab.report.forest import forest
from rewardlab.report.vega import domain, readable_domain
from tests.report.test_report_figures import marks

STAGES = ("original", "rewrite", "rewrite of rewrite")
TREATED = np.arange(300) % 2 == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("normal", False),
        ("words", False),
        ("laplace", False),
        ("grades", True),
        ("yes and no", True),
        ("mostly 0", True),
    ],
)
def test_curves_are_for_rewards_that_vary_smoothly(name: str, expected: bool) -> None:
    rng = np.random.default_rng(0)
    rewards = {
        "normal": rng.normal(size=(300, 3)),
        "words": rng.poisson(60, size=(300, 3)).astype(float),
        "laplace": rng.laplace(size=(300, 3)),
        "grades": rng.integers(1, 6, size=(300, 3)).astype(float),
        "yes and no": rng.integers(0, 2, size=(300, 3)).astype(float),
        "mostly 0": rng.normal(size=(300, 3)) * (rng.random((300, 3)) < 0.2),
    }[name]
    assert better_as_bars(rewards, TREATED) is expected


def test_one_side_alone_and_one_value_alone() -> None:
    assert better_as_bars(np.arange(300.0).reshape(100, 3) % 2, np.ones(100, bool))
    assert not better_as_bars(np.ones((300, 3)), TREATED)


def test_a_bar_is_as_high_as_its_share_and_stands_at_its_value() -> None:
    rewards = np.array([[0.0, 1.0, 3.0]] * 30 + [[1.0, 1.0, 3.0]] * 10)
    found, (low, high) = bar_rows(rewards, np.ones(40, bool), STAGES, 20)
    assert found[False] == []
    shares = {(row["stage"], row["reward"]): row["share"] for row in found[True]}
    assert shares == {
        ("original", 0.0): 0.75, ("original", 1.0): 0.25, ("rewrite", 1.0): 1.0, ("rewrite of rewrite", 3.0): 1.0
    }  # fmt: skip
    assert low < 0.0
    assert high > 3.0
    # The bars of a value stand side by side around it.
    rewrite = next(row for row in found[True] if row["stage"] == "rewrite")
    original = next(row for row in found[True] if (row["stage"], row["reward"]) == ("original", 1.0))
    assert (rewrite["low"] + rewrite["high"]) / 2 == pytest.approx(1.0)
    assert original["high"] == pytest.approx(rewrite["low"])
    assert bar_rows(rewards[:19], np.ones(19, bool), STAGES, 20)[0][True] == []
    spec = score_bars(found[True], (low, high), 1.0, STAGE_COLORS)
    assert marks(vl_convert.vegalite_to_svg(spec), "mark-rect") == 4


def lanes(*intervals: tuple[float, float]) -> list[dict[str, object]]:
    words = {"group": "", "label": "", "text": "", "short": "", "hint": "", "color": "#000000"}
    return [{**words, "value": sum(ends) / 2, "low": ends[0], "high": ends[1]} for ends in intervals]


def test_one_wide_interval_ends_outside_where_the_others_would_be_dots() -> None:
    rows = lanes((-5.8, 8.1), (0.1, 0.2), (0.0, 0.1), (0.1, 0.3))
    assert readable_domain(rows, 0.0) == pytest.approx([-0.069, 1.219])  # up to its value, 1.15, and 6 % beyond
    drawn = forest(rows, axis_title="effect")
    assert (drawn["data"]["values"][0]["low"], drawn["data"]["values"][0]["high"]) == pytest.approx((-0.069, 1.219))
    (arrows,) = [layer["data"]["values"] for layer in drawn["layer"] if "shape" in layer["encoding"]]
    assert [row["shape"] for row in arrows] == ["triangle-left", "triangle-right"]
    assert marks(vl_convert.vegalite_to_svg(drawn), "mark-symbol") == 6


@pytest.mark.parametrize(
    "intervals", [((-5.8, 8.1), (0.1, 0.2)), ((-0.3, 0.5), (0.1, 0.2), (0.0, 0.1)), ((-5.0, 8.0),) * 2 + ((0.1, 0.2),)]
)
def test_few_intervals_and_alike_ones_are_drawn_whole(intervals: tuple[tuple[float, float], ...]) -> None:
    rows = lanes(*intervals)
    assert readable_domain(rows, 0.0) == domain(rows, 0.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (-2.44e-09, "0"),
        (2.4e-05, "0.000024"),
        (-0.0233, "\u22120.0233"),
        (0.5, "0.5"),
        (1234.0, "1.23e+03"),
    ],
)
def test_small_rewards_are_written_as_people_do(value: float, words: str) -> None:
    assert reward_words(value) == words
