"""The published forms against numbers worked out by hand, and there and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from rewardlab.audit.effects import EffectsEstimation, estimate_effects
from rewardlab.audit.published import (
    Errors,
    published_effects,
    read_published_scores,
    write_published_scores,
)
from rewardlab.errors import DataError
from rewardlab.functional.effects import Rewards
from rewardlab.store.files import read_json, write_json
from tests.audit.test_audit_effects import Here

# Two responses with the attribute, two without, worked out by hand:
#   w  O  S  D    single (O-S or S-O)   double (D-S or S-D)
#   1  5  1  4    4                     3
#   1  3  2  5    1                     3
#   0  2  4  1    2                     3
#   0  0  1  2    1                     -1
REWARDS = Rewards(
    np.array([True, True, False, False]),
    np.array([5.0, 3.0, 2.0, 0.0]),
    np.array([1.0, 2.0, 4.0, 1.0]),
    np.array([4.0, 5.0, 1.0, 2.0]),
)
BY_HAND = {
    "naive_effect": 3.0,
    "ATT_single_rewrite": 2.5,
    "ATU_single_rewrite": 1.5,
    "ATE_single_rewrite": 2.0,
    "ATT_rewritten_rewrite": 3.0,
    "ATU_rewritten_rewrite": 1.0,
    "ATE_rewritten_rewrite": 2.0,
    # Both groups have sample variance 2.
    "reward_std": math.sqrt(2.0),
    "Y1_count": 2,
    "Y0_count": 2,
}
PUBLISHED_ERRORS = {
    # Welch: sqrt(2/2 + 2/2).
    "naive_effect": math.sqrt(2.0),
    # Paired: sd(4, 1)/sqrt 2, sd(2, 1)/sqrt 2, sd(4, 1, 2, 1)/sqrt 4 with variance 2.
    "ATT_single_rewrite": 1.5,
    "ATU_single_rewrite": 0.5,
    "ATE_single_rewrite": math.sqrt(2.0 / 4.0),
    # Unpaired: D = 4, 5 against S = 1, 2; S = 4, 1 against D = 1, 2; (4, 5, 4, 1) against (1, 2, 1, 2).
    "ATT_rewritten_rewrite": math.sqrt(0.5 / 2 + 0.5 / 2),
    "ATU_rewritten_rewrite": math.sqrt(4.5 / 2 + 0.5 / 2),
    "ATE_rewritten_rewrite": math.sqrt(3.0 / 4 + (1.0 / 3.0) / 4),
}
OUR_ERRORS = {
    # Strata: ATE has the halves of both groups; both d of ATT are 3.
    "ATE_single_rewrite": math.sqrt(0.25 * 1.5**2 + 0.25 * 0.5**2),
    "ATU_rewritten_rewrite": 2.0,
    "ATE_rewritten_rewrite": 1.0,
}


def test_values_and_published_errors_are_those_worked_out_by_hand() -> None:
    flat = published_effects(REWARDS, "rm", "published")
    assert {name: flat[name] for name in BY_HAND} == pytest.approx(BY_HAND)
    assert {name: flat[f"{name}_stderr"] for name in PUBLISHED_ERRORS} == pytest.approx(PUBLISHED_ERRORS)
    assert flat["reward_key"] == "rm"


def test_our_errors_keep_pairing_and_strata() -> None:
    flat = published_effects(REWARDS)
    assert {name: flat[f"{name}_stderr"] for name in OUR_ERRORS} == pytest.approx(OUR_ERRORS)


def test_an_empty_group_leaves_nulls_and_no_crash(tmp_path: Path) -> None:
    treated = REWARDS.only(REWARDS.treated)
    for errors in get_args(Errors):
        flat = published_effects(treated, "rm", errors)
        assert flat["ATT_rewritten_rewrite"] == 3.0
        for name in ("naive_effect", "ATE_rewritten_rewrite", "ATU_single_rewrite"):
            assert flat[name] is None
            assert flat[f"{name}_stderr"] is None
        write_json(tmp_path / "effects.rate.json", flat)
        assert read_json(tmp_path / "effects.rate.json") == flat


def published_lines() -> list[dict[str, object]]:
    """As the published code writes scored sets, two reward models beside each other."""
    return [
        {
            "w_original": bool(w),
            "completions": {"original": f"o{n}", "rewrite": f"s{n}", "rewritten rewrite": f"d{n}"},
            "reward_question": "Write a movie review: ",
            "org/first": {"original": o, "rewrite": s, "rewritten rewrite": d},
            "second": {"original": -o, "rewrite": -s, "rewritten rewrite": -d},
        }
        for n, (w, o, s, d) in enumerate([(1, 5.0, 1.0, 4.0), (1, 3.0, 2.0, 5.0), (0, 2.0, 4.0, 1.0), (0, 0.0, 1, 2)])
    ]


def test_published_scores_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    path, again = tmp_path / "scored.jsonl", tmp_path / "again.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in published_lines()))
    first, second = read_published_scores(path)
    assert (first.scorer, second.scorer) == ("org/first", "second")
    np.testing.assert_array_equal(first.rewards[:, :3], -second.rewards[:, :3])
    flat = published_effects(first.matched(first.complete), first.scorer, "published")
    assert flat["ATE_rewritten_rewrite"] == pytest.approx(2.0)
    assert write_published_scores(again, [first, second], first.complete) == 4
    assert [json.loads(line) for line in again.read_text().splitlines()] == published_lines()


def test_effects_come_from_a_published_file_of_scores_alone(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in published_lines()))
    result = estimate_effects(EffectsEstimation(rewrites=path), Here(tmp_path / "out"))
    assert [model.scorer for model in result.models] == ["org/first", "second"]
    ate = result.models[0]["double.ATE"]
    # A question that all responses share is no cluster.
    assert (ate.value, ate.error) == pytest.approx((2.0, 1.0))
    assert ate.clusters == 4
    flat = read_json(tmp_path / "out" / "effects.2.rate.json")
    assert flat["ATE_rewritten_rewrite"] == pytest.approx(-2.0)
    assert flat["reward_key"] == "second"
    written = (tmp_path / "out" / "scores.rate.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == published_lines()


def test_missing_scores_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    lines = published_lines()
    lines[1]["second"] = {"original": 1.0, "rewrite": float("nan"), "rewritten rewrite": 2.0}
    del lines[3]["org/first"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError) as caught:
        read_published_scores(path)
    assert len(caught.value.problems) == 4
    path.write_text("".join(json.dumps({**line, "second": 1, "org/first": 2}) + "\n" for line in lines))
    with pytest.raises(DataError, match="no scores"):
        read_published_scores(path)
