"""Laws that every metric of scored pairs obeys, over one table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from rewardlab.functional import accuracy, agreement, calibration, intervals, length

RNG = np.random.default_rng


class Pairs(NamedTuple):
    """Scored pairs: rewards, lengths and clusters."""

    chosen: np.ndarray
    rejected: np.ndarray
    chosen_length: np.ndarray
    rejected_length: np.ndarray
    cluster: np.ndarray

    @property
    def delta(self) -> np.ndarray:
        return np.asarray(self.chosen - self.rejected)

    @property
    def difference(self) -> np.ndarray:
        return np.asarray(self.chosen_length - self.rejected_length)


def _value(statistic: intervals.Statistic | None) -> float:
    assert statistic is not None
    return statistic.value


METRICS: dict[str, Callable[[Pairs], float]] = {
    "accuracy": lambda p: float(accuracy.credit(p.chosen, p.rejected).mean()),
    "ties": lambda p: float((p.chosen == p.rejected).mean()),
    "calibration error": lambda p: calibration.calibration_error(
        calibration.confidence(p.delta), accuracy.credit(p.chosen, p.rejected)
    ),
    "confidence": lambda p: float(calibration.confidence(p.delta).mean()),
    "calibration slope": lambda p: _value(calibration.slope_statistic(p.delta)),
    "margin": lambda p: float(p.delta.mean()),
    "margin spread": lambda p: _value(intervals.standard_deviation_statistic(p.delta)),
    "heuristic": lambda p: float(accuracy.credit(p.chosen_length, p.rejected_length).mean()),
    "longer scores higher": lambda p: float(length.longer_scores_higher(p.difference, p.delta).mean()),
    "delta pearson": lambda p: _value(agreement.pearson_statistic(p.difference, p.delta)),
    "delta spearman": lambda p: _value(agreement.spearman_statistic(p.difference, p.delta)),
    "delta kendall": lambda p: float(np.nan_to_num(agreement.kendall_along(p.difference, p.delta))),
}

# What happens to a metric f when the two sides of every pair are swapped.
SWAP: dict[str, Callable[[float], float]] = {
    "accuracy": lambda f: 1 - f,
    "ties": lambda f: f,
    "confidence": lambda f: f,
    "calibration slope": lambda f: -f,
    "margin": lambda f: -f,
    "margin spread": lambda f: f,
    "heuristic": lambda f: 1 - f,
    "longer scores higher": lambda f: f,
    "delta pearson": lambda f: f,
    "delta spearman": lambda f: f,
    "delta kendall": lambda f: f,
}
IN_UNITS_OF_REWARD = {"margin": 1.0, "margin spread": 1.0, "calibration slope": -1.0}
ORDINAL = ["accuracy", "ties", "heuristic", "longer scores higher", "delta spearman", "delta kendall"]


def sample(seed: int, n: int = 60) -> Pairs:
    """Pairs with ties in reward and in length, and clusters of different sizes."""
    rng = RNG(seed)
    chosen, rejected = rng.normal([[0.4], [0.0]], 1.0, size=(2, n))
    lengths = rng.integers(1, 12, size=(2, n)).astype(float)
    rejected[::9] = chosen[::9]
    return Pairs(chosen, rejected, lengths[0], lengths[1], rng.integers(0, n // 3, size=n))


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_pairs_does_not_matter(name: str) -> None:
    pairs = sample(1)
    order = RNG(2).permutation(60)
    assert METRICS[name](Pairs(*(column[order] for column in pairs))) == pytest.approx(METRICS[name](pairs), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_constant_added_to_all_rewards_does_not_matter(name: str) -> None:
    pairs = sample(3)
    # A power of two keeps ties exact.
    moved = pairs._replace(chosen=pairs.chosen + 64.0, rejected=pairs.rejected + 64.0)
    assert METRICS[name](moved) == pytest.approx(METRICS[name](pairs), abs=1e-9)


@pytest.mark.parametrize("name", SWAP)
def test_swapping_the_sides(name: str) -> None:
    pairs = sample(4)
    swapped = Pairs(pairs.rejected, pairs.chosen, pairs.rejected_length, pairs.chosen_length, pairs.cluster)
    assert METRICS[name](swapped) == pytest.approx(SWAP[name](METRICS[name](pairs)), abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_every_pair_twice_is_the_same_sample(name: str) -> None:
    pairs = sample(5)
    doubled = Pairs(*(np.concatenate([column, column]) for column in pairs))
    # The sample standard deviation is the one that uses n - 1.
    tolerance = 1e-2 if name == "margin spread" else 1e-9
    assert METRICS[name](doubled) == pytest.approx(METRICS[name](pairs), rel=tolerance, abs=1e-9)


@pytest.mark.parametrize("name", [*ORDINAL, "delta pearson", *IN_UNITS_OF_REWARD])
def test_rewards_in_other_units(name: str) -> None:
    pairs = sample(6)
    scaled = pairs._replace(chosen=4.0 * pairs.chosen, rejected=4.0 * pairs.rejected)
    power = IN_UNITS_OF_REWARD.get(name, 0.0)
    assert METRICS[name](scaled) == pytest.approx(METRICS[name](pairs) * 4.0**power, rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_single_precision_is_good_to_its_digits(name: str) -> None:
    pairs = sample(7)
    single = Pairs(*(column.astype(np.float32) for column in pairs[:4]), pairs.cluster)
    rounded = Pairs(*(column.astype(np.float64) for column in single[:4]), pairs.cluster)
    assert METRICS[name](single) == pytest.approx(METRICS[name](rounded), rel=1e-4, abs=1e-5)


STATISTICS: dict[str, Callable[[Pairs], intervals.Statistic | None]] = {
    "mean": lambda p: intervals.mean_statistic(accuracy.credit(p.chosen, p.rejected)),
    "standard deviation": lambda p: intervals.standard_deviation_statistic(p.delta),
    "ratio": lambda p: intervals.ratio_statistic(
        accuracy.credit(p.chosen, p.rejected) * (p.difference > 0), (p.difference > 0).astype(float)
    ),
    "pearson": lambda p: agreement.pearson_statistic(p.difference, p.delta),
    "spearman": lambda p: agreement.spearman_statistic(p.difference, p.delta),
    "slope": lambda p: calibration.slope_statistic(p.delta),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_influence_values_cancel(name: str) -> None:
    statistic = STATISTICS[name](sample(8))
    assert statistic is not None
    assert statistic.influence.sum() == pytest.approx(0.0, abs=1e-9 * len(statistic.influence))


@pytest.mark.parametrize("name", STATISTICS)
def test_influence_predicts_what_leaving_a_pair_out_does(name: str) -> None:
    """The jackknife: (n - 1) (theta - theta without i) is psi_i up to terms of order 1 / n."""
    pairs = sample(9, n=600)
    statistic = STATISTICS[name](pairs)
    assert statistic is not None
    left_out = []
    for row in range(0, 600, 20):
        without = STATISTICS[name](Pairs(*(np.delete(column, row) for column in pairs)))
        assert without is not None
        left_out.append(599 * (statistic.value - without.value))
    spread = statistic.influence.std()
    assert left_out == pytest.approx(statistic.influence[::20], abs=0.05 * spread, rel=0.05)


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, "plain") for name in STATISTICS), ("pearson", "fisher"), ("spearman", "fisher")]
)
def test_an_interval_holds_its_value_and_grows_with_its_level(name: str, scale: str) -> None:
    pairs = sample(10)
    statistic = STATISTICS[name](pairs)
    assert statistic is not None
    ends = [intervals.interval(statistic, pairs.cluster, level, scale) for level in (0.8, 0.95, 0.99)]
    lows, highs = [one.low for one in ends], [one.high for one in ends]
    assert lows == sorted(lows, reverse=True)
    assert highs == sorted(highs)
    assert lows[0] < statistic.value < highs[0]


@pytest.mark.parametrize("name", STATISTICS)
def test_the_names_of_clusters_do_not_matter(name: str) -> None:
    pairs = sample(11)
    statistic = STATISTICS[name](pairs)
    assert statistic is not None
    words = np.array([f"cluster {-label}" for label in pairs.cluster])
    by_word, by_number = (intervals.interval(statistic, labels) for labels in (words, pairs.cluster))
    assert by_word.low == pytest.approx(by_number.low)
    assert by_word.high == pytest.approx(by_number.high)
    assert by_word.clusters == by_number.clusters
