"""Correlations against scipy, their influence values against the derivative by the weight of a row."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from rewardlab.functional import agreement
from rewardlab.functional.intervals import Statistic

RNG = np.random.default_rng
SCALARS = {
    "pearson": (agreement.pearson, lambda x, y: stats.pearsonr(x, y).statistic),
    "spearman": (agreement.spearman, lambda x, y: stats.spearmanr(x, y).statistic),
    "kendall": (
        lambda x, y: float(agreement.kendall_along(x, y)),
        lambda x, y: stats.kendalltau(x, y, variant="b").statistic,
    ),
}


def sample(seed: int, n: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    x, noise = RNG(seed).normal(size=(2, n))
    y = 0.5 * x + noise
    return (np.round(x), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", SCALARS)
def test_a_correlation_is_scipys(name: str, ties: bool) -> None:
    ours, theirs = SCALARS[name]
    x, y = sample(1, 40, ties)
    assert ours(x, y) == pytest.approx(theirs(x, y), abs=1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(("x", "y"), [([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]), ([], [])])
def test_a_constant_has_no_correlation(name: str, x: list[float], y: list[float]) -> None:
    assert SCALARS[name][0](np.array(x, dtype=float), np.array(y, dtype=float)) is None


def test_tau_b_by_hand() -> None:
    # Pairs of (1, 2, 2) and (1, 2, 3): two concordant, one tied in x: 2 / sqrt(2 * 3).
    rows = np.array([[1.0, 2.0, 2.0], [0.1, 0.1, 0.1]])
    found = agreement.kendall_along(rows, np.tile([1.0, 2.0, 3.0], (2, 1)))
    assert found.tolist() == pytest.approx([2 / math.sqrt(6), math.nan], nan_ok=True)


@pytest.mark.parametrize("along", [agreement.pearson_along, agreement.spearman_along, agreement.kendall_along])
def test_groups_are_taken_one_by_one(along: agreement.Correlation) -> None:
    rng = RNG(2)
    groups = rng.integers(0, 30, size=150)
    x, y = np.round(rng.normal(size=150), 1), rng.normal(size=150)
    found = agreement.within_groups(x, y, groups, along)
    sizes = {label: int((groups == label).sum()) for label in np.unique(groups)}
    assert found.too_small == sum(size < 3 for size in sizes.values())
    assert found.constant == 0
    assert found.groups.tolist() == [label for label, size in sizes.items() if size >= 3]
    for label, value in zip(found.groups, found.values, strict=True):
        inside = groups == label
        assert value == pytest.approx(float(along(x[inside], y[inside])), abs=1e-12)


def test_small_and_constant_groups_are_left_out_and_counted() -> None:
    groups = np.array(["a", "a", "a", "b", "b", "c", "c", "c", "d", "d", "d"])
    x = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 4.0, 4.0, 4.0, 1.0, 2.0, 3.0])
    y = np.array([3.0, 2.0, 1.0, 1.0, 2.0, 1.0, 2.0, 3.0, 7.0, 7.0, 7.0])
    found = agreement.within_groups(x, y, groups, agreement.pearson_along)
    assert found.groups.tolist() == ["a"]
    assert found.values.tolist() == pytest.approx([-1.0])
    assert (found.too_small, found.constant) == (1, 2)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_influence_is_the_derivative_by_the_weight_of_a_row(name: str, ties: bool) -> None:
    statistic: Callable[[np.ndarray, np.ndarray], Statistic | None] = (
        agreement.pearson_statistic if name == "pearson" else agreement.spearman_statistic
    )
    x, y = sample(3, 15, ties)
    found = statistic(x, y)
    assert found is not None
    assert found.value == pytest.approx(SCALARS[name][1](x, y))
    assert float(found.influence.sum()) == pytest.approx(0.0, abs=1e-9)
    copies = 1500
    for i in range(15):
        moved = SCALARS[name][1](np.append(np.tile(x, copies), x[i]), np.append(np.tile(y, copies), y[i]))
        assert (moved - found.value) * (15 * copies + 1) == pytest.approx(found.influence[i], abs=5e-3)


@pytest.mark.parametrize("statistic", [agreement.pearson_statistic, agreement.spearman_statistic])
def test_a_constant_has_no_statistic(statistic: Callable[[np.ndarray, np.ndarray], Statistic | None]) -> None:
    assert statistic(np.ones(5), np.arange(5.0)) is None


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_kendall_is_the_same_by_pairs_and_by_sorting(monkeypatch: pytest.MonkeyPatch, rows: int, ties: bool) -> None:
    """Groups of every size around the one from which it is sorted; one row of them does not vary."""
    x, y = np.stack([sample(seed, 300, ties) for seed in range(rows)], axis=1)
    x[-1] = 1.0
    by_sorting = agreement.kendall_along(x, y)
    monkeypatch.setattr(agreement, "_MOST_BY_PAIRS", 300)
    by_pairs = agreement.kendall_along(x, y)
    assert np.isnan(by_sorting[-1])
    np.testing.assert_allclose(by_sorting, by_pairs, rtol=0, atol=1e-12)


def test_kendall_in_chunks_is_that_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG(4).normal(size=(2, 23, 9))
    whole = agreement.kendall_along(x, y)
    monkeypatch.setattr(agreement, "_PAIRS_AT_ONCE", 5 * 81)
    assert agreement.kendall_along(x, y).tolist() == whole.tolist()
    assert whole.tolist() == pytest.approx([stats.kendalltau(*row).statistic for row in zip(x, y, strict=True)])


@pytest.mark.parametrize(("groups", "members"), [(1, 4000), (3000, 60)])
def test_kendall_needs_little_memory_however_large_and_many_the_groups_are(groups: int, members: int) -> None:
    """All pairs at once would take 128 MB and 86 MB an array, and several of them."""
    x, y = RNG(5).normal(size=(2, groups * members))
    tracemalloc.start()
    try:
        agreement.within_groups(x, y, np.repeat(np.arange(groups), members), agreement.kendall_along)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
