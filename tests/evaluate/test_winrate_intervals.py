"""Intervals of win rates as the verb reports them: how often they hold a known truth, and prompts that repeat."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.special import expit

from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.winrate import Compared, Matches, WinrateEvaluation
from rewardlab.evaluate.winrate_estimates import equal_length_matrix, winrate_values
from rewardlab.functional import winrate
from rewardlab.functional.intervals import proportion
from rewardlab.records import Message, Prompt
from rewardlab.score.comparing import Verdict

PROMPTS = [Prompt((Message("user", f"Why {number}?"),)) for number in range(800)]
NODES, SHARES = np.polynomial.hermite_e.hermegauss(60)


class World(NamedTuple):
    """Simulated models.

    Attributes:
        quality: log-odds of winning at equal length.
        taste: of the judge for length, the same for all.
        longer: by how many standard deviations answers are longer on average.
        difficulty: standard deviation of that of an instruction, which all models share.
    """

    quality: tuple[float, ...]
    taste: float
    longer: tuple[float, ...]
    difficulty: float = 0.0

    def draw(self, count: int, generator: np.random.Generator) -> Matches:
        hard = generator.normal(0.0, self.difficulty, count)
        rows = []
        for name, (quality, longer) in enumerate(zip(self.quality, self.longer, strict=True)):
            difference = np.rint(generator.normal(300.0 * longer, 300.0, count))
            won = generator.random(count) < expit(quality + self.taste * winrate.length_feature(difference) + hard)
            for prompt, own, win in zip(PROMPTS, difference.astype(int).tolist(), won.tolist(), strict=False):
                rows.append(Compared(f"m{name}", "base", prompt, 0, 2000 + own, 2000, "judge", Verdict(float(win))))
        return Matches(rows)

    def truth(self) -> list[float]:
        """The mean of sigma(quality + difficulty), by Gauss-Hermite quadrature."""
        weights = SHARES / SHARES.sum()
        return [float(weights @ expit(one + self.difficulty * NODES)) for one in self.quality]


WORLDS = {
    "as long": World((0.5,), 0.5, (0.0,)),
    "1 sd longer": World((0.5,), 1.0, (1.0,)),
    "strong taste": World((0.5,), 3.0, (0.5,)),
}
THREE = World((-0.5, 0.0, 0.5), 0.5, (-1 / 3, 1 / 6, 2 / 3), 1.0)


def settings(**more: Any) -> WinrateEvaluation:
    return WinrateEvaluation.build({"recorded": {"m0": "none.jsonl"}, "baseline": "base", **more})


def held(world: World, count: int, runs: int, seed: int, **more: Any) -> tuple[float, float]:
    """Share of the intervals that hold the truth, over samples and models, and how far off rates are on average."""
    inside, off = [], []
    for run in range(runs):
        values = winrate_values(world.draw(count, np.random.default_rng([seed, count, run])), settings(**more), {})
        found = {one["name"]: one for one in values["estimates"]["win_rate"]}
        for number, truth in enumerate(world.truth()):
            rate = found[f"lc.m{number}"]
            if rate["value"] is not None:
                inside.append(rate["low"] <= truth <= rate["high"])
                off.append(rate["value"] - truth)
    return float(np.mean(inside)), float(np.mean(off))


@pytest.mark.parametrize("name", WORLDS)
def test_the_rate_at_equal_length_holds_the_truth_in_a_short_simulation(name: str) -> None:
    """40 samples of 60 prompts: at 95 % fewer than 34 have a chance of 1 in 70, at 85 % one of 2 in 5."""
    share, off = held(WORLDS[name], 60, 40, 3, draws=100)
    assert share >= 34 / 40
    # The standard error of the mean of 40 rates is .016 or less.
    assert abs(off) < 0.05


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [60, 200, 800])
@pytest.mark.parametrize("name", WORLDS)
def test_the_rate_at_equal_length_holds_the_truth_in_95_of_100_samples(name: str, count: int) -> None:
    """With the defaults, as the table of docs/winrate.md: the share held has a standard error of 1.5 points, or 2.2."""
    share, off = held(WORLDS[name], count, 100 if count == 800 else 200, 4)
    print(f"{name}, {count} prompts: {100 * share:.1f} % held, off by {100 * off:+.2f} points")
    assert 0.90 <= share <= 0.99


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("by", ["joint", "others", "none"])
def test_with_three_models_the_rate_holds_the_truth(by: str) -> None:
    """50 samples of three models with the defaults: the standard error is 1.8 points, were all 150 independent."""
    share, off = held(THREE, 300, 50, 5, difficulty=by)
    print(f"three models, {by}, 300 prompts: {100 * share:.1f} % held, off by {100 * off:+.2f} points")
    assert 0.90 <= share <= 0.995


# --- repeated prompts ----------------------------------------------------------------------------------------------


def asked_again(times: int) -> Matches:
    """Three models over 40 prompts, half of the answers 100 characters longer; every row so many times."""
    generator = np.random.default_rng(0)
    rows = []
    for model, other in (("a", "base"), ("b", "base"), ("a", "b")):
        for prompt in PROMPTS[:40]:
            longer = int(100 * (-1) ** PROMPTS.index(prompt))
            won = float(generator.random() < expit(longer / 100))
            rows += [Compared(model, other, prompt, at, 300 + longer, 300, "j", Verdict(won)) for at in range(times)]
    return Matches(rows)


def test_rows_that_repeat_tell_nothing_more() -> None:
    """Before, intervals of prompts asked 9 times were a third as wide."""
    own = settings(difficulty="none", strata=2, draws=200)
    once, often = (winrate_values(asked_again(times), own, {}) for times in (1, 9))
    for group in ("win_rate", "strata", "ranking"):
        for one, many in zip(once["estimates"][group], often["estimates"][group], strict=True):
            # The sample standard deviation of the lengths, n - 1, moves the fits a little.
            close = pytest.approx([one[end] for end in ("value", "low", "high")], abs=0.005)
            assert [many[end] for end in ("value", "low", "high")] == close, one["name"]
            assert (many["n"], many["clusters"]) == (9 * one["n"], one["clusters"])
    for one, many in zip(once["matrix"], often["matrix"], strict=True):
        assert [many[end] for end in ("low", "high")] == pytest.approx([one[end] for end in ("low", "high")])
    evens = [equal_length_matrix(asked_again(times).compared, ["a", "b", "base"], Settings()) for times in (1, 9)]
    for one, many in zip(*evens, strict=True):
        assert many["high"] - many["low"] == pytest.approx(one["high"] - one["low"], rel=0.02)


def test_difficulties_of_prompts_that_repeat_leave_the_interval_as_wide() -> None:
    once, often = (
        winrate_values(asked_again(times), settings(draws=100), {})["estimates"]["win_rate"] for times in (1, 4)
    )
    for one, many in zip(once, often, strict=True):
        assert many["high"] - many["low"] == pytest.approx(one["high"] - one["low"], rel=0.25)


def test_the_raw_interval_is_the_resampled_one() -> None:
    """The standard error over resamples is that of a mean, to within its own error of 1 / sqrt(2 draws)."""
    found = THREE.draw(200, np.random.default_rng(1))
    values = winrate_values(found, settings(difficulty="none", draws=800), {})
    raw = next(one for one in values["estimates"]["win_rate"] if one["name"] == "raw.m0")
    assert "bootstrap" in raw["method"]
    won = np.array([one.verdict.preference for one in found.compared if one.model == "m0"], dtype=np.float64)
    share, error = won.mean(), won.std(ddof=1) / np.sqrt(200)
    assert values["fits"]["m0"]["raw_error"] == pytest.approx(error)
    low, high = winrate.logit_ends(float(share), float(error), 199.0)
    assert raw["value"] == pytest.approx(share)
    assert [raw["low"], raw["high"]] == pytest.approx([low, high], abs=0.1 * (high - low))


def one_model(differences: list[int], wins: list[float]) -> Matches:
    rows = zip(PROMPTS, differences, wins, strict=False)
    return Matches([Compared("m", "base", prompt, 0, 500 + d, 500, "j", Verdict(won)) for prompt, d, won in rows])


def test_where_all_verdicts_are_alike_the_bound_is_the_binomial_one() -> None:
    values = winrate_values(one_model(list(range(20)), [1.0] * 20), settings(draws=100), {})
    raw = values["estimates"]["win_rate"][0]
    expected = proportion(np.ones(20))
    assert (raw["low"], raw["high"], raw["method"]) == (expected.low, 1.0, "exact binomial, clustered by prompt")


@pytest.mark.parametrize(
    ("differences", "told"),
    [
        ([0, 0, 0, 30, 50], ""),
        ([0, 0, 0, -30, -50], ""),
        ([10, 20, 30, 40, 50], "at most as long as the other one in 0.0 %"),
        ([-10, -20, -30, -40, -50], "at least as long as the other one in 0.0 %"),
        ([-10, -20, 30, 40, 50], ""),
    ],
)
def test_equal_lengths_are_no_extrapolation(differences: list[int], told: str) -> None:
    values = winrate_values(one_model(differences * 8, [0.0, 1.0] * 20), settings(draws=100), {})
    warned = [line for line in values["warnings"] if "extrapolation" in line]
    assert [told in line for line in warned] == [True] * bool(told)


def test_strata_have_names_of_their_own_and_hold_what_they_say() -> None:
    """Quantiles of few whole numbers lie between them: rounded, 0.4 to 0.6 was "0 to 1" as 0.6 to 1 was "1 to 1"."""
    differences = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 1, 2, 2, 3]
    values = winrate_values(one_model(differences, [0.0, 1.0] * 9), settings(draws=100, strata=20), {})
    found = {one["name"].removeprefix("stratum.m."): one["n"] for one in values["estimates"]["strata"]}
    assert len(found) == len(values["estimates"]["strata"])
    counted = 0
    for number, (label, n) in enumerate(found.items()):
        low, high = (int(end) for end in label.split(" to "))
        last = number == len(found) - 1
        assert n == sum(low <= one <= high if last else low <= one < high for one in differences), label
        counted += n
    assert counted == len(differences)
