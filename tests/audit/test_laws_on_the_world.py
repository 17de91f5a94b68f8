"""The estimators where the truth is known: bias as the laws of the specification state it, over seeds of the world.

The laws are worked by hand here. Tolerances are four standard errors over the seeds, and nothing else.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rewardlab.audit.simulate import Simulated, Simulation, simulate
from rewardlab.audit.simulated import Setting
from tests.report.audited import Here

TOLERANCE = 4.0
"""Standard errors."""
SHARE = 0.7
DRIFT = 0.5 * 0.4 + 0.5 * 0.4
"""What half a level of politeness and of structure is worth in reward."""
EFFECT = 2 * 2 * 0.4
"""Sentiment of 1, 2 or 3 levels, from below 0 to above it."""


def simulated(folder: Path, **options: Any) -> Simulated:
    return simulate(Simulation(**options), Here(folder))


def laws(asymmetry: float, law: str) -> dict[tuple[str, str], float]:
    """Bias in reward."""
    one, zero = (1 + asymmetry) * DRIFT, (1 - asymmetry) * DRIFT
    single = {
        # A single rewrite has all of the drift of its own direction, which is towards 0 where w = 1.
        ("single", "ATT"): -zero,
        ("single", "ATU"): one,
        ("single", "ATE"): (1 - SHARE) * one - SHARE * zero,
        ("single", "balanced"): (one - zero) / 2,
    }
    targets = ("ATE", "ATT", "ATU", "balanced")
    if law == "replacement":
        return single | {(estimator, target): one - zero for estimator in ("double", "corrected") for target in targets}
    # A text with three levels of politeness (or of structure), one in six, whose drift is rounded up in both directions
    # would have six levels after the third rewrite. Text can show five: T lacks a level's worth, of which half counts.
    both_up = (0.5 + 0.5 * asymmetry) * (0.5 - 0.5 * asymmetry)
    cut = 2 * 0.4 * both_up / 6 / 2
    return single | {
        ("double", "ATT"): one,
        ("double", "ATU"): -zero,
        ("double", "ATE"): SHARE * one - (1 - SHARE) * zero,
        ("double", "balanced"): (one - zero) / 2,
        ("corrected", "ATT"): (one - zero) / 2 + cut,
        ("corrected", "ATU"): (one - zero) / 2 - cut,
        ("corrected", "ATE"): (one - zero) / 2 + (2 * SHARE - 1) * cut,
        ("corrected", "balanced"): (one - zero) / 2,
    }


def check(found: Simulated, setting: Setting) -> None:
    for (estimator, target), expected in laws(setting.asymmetry, setting.law).items():
        row = found.row(setting, estimator, target)
        bias, error = row["bias"] * row["unit"], row["bias_error"] * row["unit"]
        assert abs(bias - expected) < TOLERANCE * error + 1e-9, (setting, estimator, target, bias, expected, error)
        # The law leaves out the bound, which only third rewrites meet.
        assert row["stated"] * row["unit"] == pytest.approx(expected, abs=1e-9 if estimator != "corrected" else 0.02)


def check_symmetric_replacement(found: Simulated) -> None:
    setting = Setting("replacement", 0.4, 0.0)
    assert abs(found.row(setting, "double")["bias"]) < 0.01
    assert found.row(setting, "naive")["bias"] > 0.3
    single = found.row(setting, "single")
    assert single["bias"] < -0.03
    assert single["bias"] < -TOLERANCE * single["bias_error"]


def test_biases_follow_the_stated_laws(tmp_path: Path) -> None:
    found = simulated(tmp_path, samples=20, texts=120, confounding=[0.4], asymmetry=[0.5])
    check_symmetric_replacement(found)
    for law in ("replacement", "cumulation"):
        for asymmetry in (0.0, 0.5):
            check(found, Setting(law, 0.4, asymmetry))
    # The truth itself, from the levels that sentiment can have: 1, 2 or 3, variance 2/3, all equally likely.
    row = found.row(Setting("replacement", 0.4, 0.0), "double")
    spread = 2 * 0.4 * math.sqrt(2 / 3) / math.sqrt(20 * 120)
    assert abs(row["truth"] * row["unit"] - EFFECT) < TOLERANCE * spread


@pytest.mark.slow
def test_laws_over_two_hundred_seeds(tmp_path: Path) -> None:
    """RATE's mean error is below .01 sd, naive is off by more than .3 sd, single is visibly biased; intervals hold."""
    found = simulated(tmp_path, samples=200, texts=200, confounding=[0.4], asymmetry=[0.0, 0.5, 1.0])
    check_symmetric_replacement(found)
    for law in ("replacement", "cumulation"):
        for asymmetry in (0.0, 0.5, 1.0):
            check(found, Setting(law, 0.4, asymmetry))
    # Four standard errors of a share of .95 over 200 seeds.
    row = found.row(Setting("replacement", 0.4, 0.0), "double")
    assert abs(row["coverage"] - 0.95) < TOLERANCE * math.sqrt(0.95 * 0.05 / 200)
