"""Two evaluations of the same pairs, pair by pair.

Differences are second minus first, over the pairs that both hold, matched by (pair_id, occurrence) and paired:
what both models share, such as hard pairs, drops out of the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.estimates import Settings
from rewardlab.functional.accuracy import credit
from rewardlab.functional.agreement import pearson_statistic
from rewardlab.functional.intervals import Statistic, difference, interval, mean_statistic
from rewardlab.functional.length import longer_scores_higher
from rewardlab.records import Estimate

COLUMNS = ("pair_id", "occurrence", "prompt_id", "root_id", "prompt", "chosen", "rejected")
_NUMBERS = ("chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens")


@dataclass(frozen=True)
class Flip:
    """A pair that one model orders rightly and the other wrongly.

    Attributes:
        pair_id, occurrence: the pair.
        prompt, chosen, rejected: its texts.
        first_margin, second_margin: chosen minus rejected score by either model.
    """

    pair_id: str
    occurrence: int
    prompt: str
    chosen: str
    rejected: str
    first_margin: float
    second_margin: float

    @property
    def gained(self) -> bool:
        """Whether the second model is the one that is right."""
        return self.second_margin > self.first_margin


@dataclass(frozen=True)
class Comparison:
    """What differs between two evaluations.

    Attributes:
        estimates: second minus first, per measure.
        flips: pairs that changed from right to wrong or back, largest change of margin first.
        common: pairs that both hold.
        only_first, only_second: pairs that only one of them holds.
    """

    estimates: list[Estimate]
    flips: list[Flip]
    common: int
    only_first: int
    only_second: int


@dataclass(frozen=True)
class _Side:
    """The common pairs as one model scores them."""

    margin: np.ndarray
    token_difference: np.ndarray


_Measure = Callable[[_Side, np.ndarray], Statistic | None]


def compare(first: Path, second: Path, settings: Settings) -> Comparison:
    """Compare two evaluations.

    Args:
        first, second: pairs.parquet of `rewardlab evaluate accuracy`, or the folder that holds it.
        settings: level and cluster of the intervals.

    Raises:
        DataError: tables that cannot be used, or no pair in common: every problem.
    """
    problems: list[Problem] = []
    tables = [_read(path, problems) for path in (first, second)]
    if problems:
        raise DataError("cannot compare", problems)
    places = [_places(table) for table in tables]
    keys = [key for key in places[0] if key in places[1]]
    if not keys:
        remedy = "Compare evaluations of the same data."
        raise DataError("cannot compare", [Problem(str(second), f"no pair of {first}", "pairs in common", remedy)])
    common = [table.take(pa.array([place[key] for key in keys])) for table, place in zip(tables, places, strict=True)]
    sides = [_side(table) for table in common]
    label = common[0]["prompt_id" if settings.cluster == "prompt" else "root_id"].to_pylist()
    clusters = np.unique(np.array(label), return_inverse=True)[1]
    return Comparison(
        estimates=[_difference(name, sides, clusters, settings) for name in MEASURES],
        flips=_flips(common[0], sides),
        common=len(keys),
        only_first=len(places[0]) - len(keys),
        only_second=len(places[1]) - len(keys),
    )


def _accuracy(side: _Side, inside: np.ndarray) -> Statistic:
    return mean_statistic(credit(side.margin, np.zeros(len(side.margin)))[inside])


def _log_loss(side: _Side, inside: np.ndarray) -> Statistic:
    return mean_statistic(np.logaddexp(0.0, -side.margin[inside]))


def _longer(side: _Side, inside: np.ndarray) -> Statistic:
    return mean_statistic(longer_scores_higher(side.token_difference[inside].astype(np.float64), side.margin[inside]))


def _length_correlation(side: _Side, inside: np.ndarray) -> Statistic | None:
    return pearson_statistic(side.token_difference[inside].astype(np.float64), side.margin[inside])


_Rows = Callable[[np.ndarray], np.ndarray]

MEASURES: dict[str, tuple[_Measure, _Rows, str]] = {
    "accuracy": (_accuracy, lambda d: np.ones(len(d), dtype=bool), "accuracy"),
    "calibration.log_loss": (_log_loss, lambda d: np.ones(len(d), dtype=bool), "log loss (negative is better)"),
    "length.tokens.accuracy_longer_chosen": (
        _accuracy,
        lambda d: d > 0,
        "accuracy on the pairs whose chosen side is longer",
    ),
    "length.tokens.accuracy_shorter_chosen": (
        _accuracy,
        lambda d: d < 0,
        "accuracy on the pairs whose chosen side is shorter",
    ),
    "length.tokens.longer_scores_higher": (
        _longer,
        lambda d: d != 0,
        "the share of pairs in which the longer side scores higher",
    ),
    "length.tokens.delta_pearson": (
        _length_correlation,
        lambda d: np.ones(len(d), dtype=bool),
        "the correlation of the difference in tokens with the difference in reward",
    ),
}
"""Name → statistic of one model, the pairs it is taken over (from the difference in tokens), and its words."""


def _difference(name: str, sides: list[_Side], clusters: np.ndarray, settings: Settings) -> Estimate:
    measure, rows, words = MEASURES[name]
    # Which side is longer is read from the first model's tokens, so that both are judged on the same pairs.
    inside = rows(sides[0].token_difference)
    reading = f"Second minus first in {words}; an interval that holds 0 shows no difference."
    if not inside.any():
        return settings.missing(f"compare.{name}", "no pair of that kind", reading)
    before, after = (measure(side, inside) for side in sides)
    if before is None or after is None:
        return settings.missing(f"compare.{name}", "length or reward does not vary", reading)
    found = interval(difference(after, before), clusters[inside], settings.level)
    return settings.estimate(f"compare.{name}", found, reading)


def _flips(table: pa.Table, sides: list[_Side]) -> list[Flip]:
    before, after = sides[0].margin, sides[1].margin
    # Ties are neither right nor wrong: a pair flips only across 0.
    flipped = np.flatnonzero(np.sign(before) * np.sign(after) < 0)
    order = flipped[np.argsort(-np.abs(after - before)[flipped], kind="stable")]
    texts = table.select(["pair_id", "occurrence", "prompt", "chosen", "rejected"]).take(pa.array(order)).to_pylist()
    return [
        Flip(**row, first_margin=float(before[place]), second_margin=float(after[place]))
        for row, place in zip(texts, order, strict=True)
    ]


def _side(table: pa.Table) -> _Side:
    chosen, rejected = (table[f"{side}_score"].to_numpy() for side in ("chosen", "rejected"))
    tokens = table["chosen_tokens"].to_numpy().astype(np.int64) - table["rejected_tokens"].to_numpy()
    return _Side(chosen - rejected, tokens)


def _read(path: Path, problems: list[Problem]) -> pa.Table:
    file = path / "pairs.parquet" if path.is_dir() else path
    expected = "the pairs.parquet of an evaluation"
    try:
        table = pq.ParquetFile(file).read()
    except (OSError, pa.ArrowException) as error:
        problems.append(Problem(str(file), str(error).splitlines()[0], expected))
        return pa.table({})
    missing = [name for name in (*COLUMNS, *_NUMBERS) if name not in table.column_names]
    if missing:
        problems.append(Problem(str(file), f"no column {', '.join(missing)}", expected))
    return table


def _places(table: pa.Table) -> dict[tuple[Any, Any], int]:
    """Row of every (pair_id, occurrence)."""
    keys = zip(table["pair_id"].to_pylist(), table["occurrence"].to_pylist(), strict=True)
    return {key: row for row, key in enumerate(keys)}
