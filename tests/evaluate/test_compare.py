"""Two evaluations of the same pairs: paired differences against scipy, flips by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from rewardlab.errors import DataError
from rewardlab.evaluate.compare import Comparison, compare
from rewardlab.evaluate.estimates import Settings

RNG = np.random.default_rng
DEFAULT = Settings()


def pairs_file(folder: Path, name: str, margins: np.ndarray, lengths: np.ndarray, ids: list[str] | None = None) -> Path:
    n = len(margins)
    names = ids or [f"id{row}" for row in range(n)]
    columns = {
        "pair_id": names,
        "occurrence": [0] * n,
        "prompt_id": [f"prompt{row // 2}" for row in range(n)],
        "root_id": [f"root{row // 4}" for row in range(n)],
        "prompt": [f"question {one}" for one in names],
        "chosen": ["yes"] * n,
        "rejected": ["no"] * n,
        "chosen_score": margins + 1.0,
        "rejected_score": np.ones(n),
        "chosen_tokens": lengths + 50,
        "rejected_tokens": [50] * n,
    }
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def compared(
    tmp_path: Path, first: np.ndarray, second: np.ndarray, lengths: np.ndarray, settings: Settings = DEFAULT
) -> Comparison:
    files = (pairs_file(tmp_path, name, margins, lengths) for name, margins in (("first", first), ("second", second)))
    return compare(*files, settings)


def test_accuracy_difference_by_hand(tmp_path: Path) -> None:
    first, second = np.array([1.0, -1.0, 2.0, -2.0]), np.array([1.5, 1.0, -0.5, 0.0])
    found = compared(tmp_path, first, second, np.array([3, -3, 5, 0]))
    by_name = {one.name: one for one in found.estimates}
    assert by_name["compare.accuracy"].value == pytest.approx((3 - 2 + 0.5 - 1) / 4 + 0.0)
    assert by_name["compare.length.tokens.accuracy_longer_chosen"].value == pytest.approx(0.5 - 1.0)
    assert by_name["compare.length.tokens.accuracy_shorter_chosen"].value == 1.0
    assert by_name["compare.length.tokens.longer_scores_higher"].value == pytest.approx((1 + 0 + 0 - 3) / 3)
    # A tie is no flip; the larger change of margin comes first.
    assert [(flip.pair_id, flip.gained) for flip in found.flips] == [("id2", False), ("id1", True)]
    assert (found.flips[1].first_margin, found.flips[1].second_margin) == (-1.0, 1.0)
    assert found.flips[0].prompt == "question id2"


def test_differences_are_paired_and_clustered(tmp_path: Path) -> None:
    rng = RNG(1)
    first = rng.normal(0.5, 1.0, size=80)
    second = first + rng.normal(0.2, 0.3, size=80)
    found = compared(tmp_path, first, second, rng.integers(-40, 40, size=80))
    by_name = {one.name: one for one in found.estimates}
    change = (np.logaddexp(0, -second) - np.logaddexp(0, -first)).reshape(40, 2).mean(axis=1)
    # Two pairs a prompt: the clustered interval is Student's over the prompts' means.
    expected = stats.t.interval(0.95, 39, loc=change.mean(), scale=stats.sem(change))
    loss = by_name["compare.calibration.log_loss"]
    assert (loss.low, loss.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert loss.clusters == 40
    by_root = compared(tmp_path, first, second, rng.integers(-40, 40, size=80), Settings(cluster="root"))
    assert by_root.estimates[0].clusters == 20


def test_correlation_difference_is_the_difference(tmp_path: Path) -> None:
    rng = RNG(2)
    first, second, lengths = rng.normal(size=60), rng.normal(size=60), rng.integers(-40, 40, size=60)
    found = {one.name: one for one in compared(tmp_path, first, second + 0.02 * lengths, lengths).estimates}
    expected = stats.pearsonr(lengths, second + 0.02 * lengths).statistic - stats.pearsonr(lengths, first).statistic
    assert found["compare.length.tokens.delta_pearson"].value == pytest.approx(expected)


def test_only_common_pairs_count_in_any_order(tmp_path: Path) -> None:
    margins, lengths = np.array([1.0, -1.0, 2.0]), np.array([1, 1, 1])
    first = pairs_file(tmp_path, "first", margins, lengths, ["a", "b", "c"])
    second = pairs_file(tmp_path, "second", np.array([3.0, 1.0, -1.0]), lengths, ["x", "c", "a"])
    found = compare(first, second, DEFAULT)
    assert (found.common, found.only_first, found.only_second) == (2, 1, 1)
    assert found.estimates[0].value == -0.5
    assert [flip.pair_id for flip in found.flips] == ["a"]


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    margins = RNG(3).normal(size=20)
    found = compared(tmp_path, margins, margins, np.zeros(20, dtype=int))
    assert found.flips == []
    by_name = {one.name: one for one in found.estimates}
    assert by_name["compare.accuracy"].value == 0.0
    assert by_name["compare.length.tokens.accuracy_longer_chosen"].reason == "no pair of that kind"
    assert by_name["compare.length.tokens.delta_pearson"].reason == "length or reward does not vary"


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    good = pairs_file(tmp_path, "good", np.ones(2), np.ones(2, dtype=int))
    other = pairs_file(tmp_path, "other", np.ones(2), np.ones(2, dtype=int), ["x", "y"])
    with pytest.raises(DataError, match="pairs in common"):
        compare(good, other, DEFAULT)
    narrow = tmp_path / "narrow.parquet"
    pq.write_table(pa.table({"pair_id": ["a"]}), narrow)
    with pytest.raises(DataError) as caught:
        compare(narrow, tmp_path / "nowhere", DEFAULT)
    assert len(caught.value.problems) == 2
    assert "no column occurrence" in str(caught.value)


def test_a_folder_is_its_pairs_file(tmp_path: Path) -> None:
    pairs_file(tmp_path, "pairs", np.array([1.0, -1.0]), np.array([1, 2]))
    assert compare(tmp_path, tmp_path / "pairs.parquet", DEFAULT).common == 2
