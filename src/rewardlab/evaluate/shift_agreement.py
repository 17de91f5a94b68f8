"""How forecasts of shifts meet what was learned: measures over reward models, with what chance and noise would give.

A unit is a reward model (a forecast): all runs that were trained on it stand and fall together. Measures are taken at
each distance by itself, since shifts at several distances of one training say much the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardlab.evaluate.estimates import Settings
from rewardlab.functional import shift as maths

Values = dict[str, Any]

FEWEST = 8
"""Reward models that an interval over them needs: of 8 percentiles hold 89 % in place of 95, of 3 they hold 74."""
FEWEST_DEALT = 4
"""Reward models that a permutation of forecasts needs: of three there are but six."""
PERMUTATIONS = 2000
COMPARED = ("rank", "error")
"""Measures of which two forecasts are compared, the one that no common factor of the shifts changes first."""
UP, DOWN = "those forecast to rise", "those forecast to fall"
"""Shifts by the sign of their forecast: in one direction alone, the order is more than the sign."""
SHARES = ("signs", "carried", "coverage")
"""Of all shifts: those whose sign was forecast, where the attribute has an effect of its own and where it has none told
from 0, and those that are within the intervals."""


def predicted_at(rows: Sequence[Mapping[str, Any]], divergence: float) -> Values | None:
    """A forecast at a distance, along straight lines in sqrt(KL) between the distances that it was made for.

    Args:
        rows: of forecast.json, of one attribute and way of forecasting.
        divergence: nats.

    Returns:
        `value`, `low` and `high`; None beyond the farthest row that has a value.
    """
    known = sorted((row for row in rows if row["value"] is not None), key=lambda row: float(row["divergence"]))
    if not known or divergence > known[-1]["divergence"] + 1e-9:
        return None
    roots = np.sqrt([0.0, *(row["divergence"] for row in known)])

    def at(name: str) -> float | None:
        values = [row[name] for row in known]
        return None if None in values else float(np.interp(np.sqrt(divergence), roots, [0.0, *values]))

    return {name: at(name) for name in ("value", "low", "high")}


def agreements(rows: Sequence[Values], ways: Sequence[str], least: float, draws: int, settings: Settings) -> Values:
    """Everything that shift.json says of how forecasts meet shifts.

    Args:
        rows: of `evaluate.shift.shift_values`, with `unit` (number of the reward model), `predicted` (way → value, low,
            high), and `effect` and `effect_error` of the attribute, None where it was not audited.
        ways: ways of forecasting; the first one is compared with the others.
        least: a shift below it does not matter.
        draws: resamples of reward models.
        settings: level of the intervals and seed.
    """
    known = [row for row in rows if row["unit"] is not None]
    if not known:
        empty: Values = {name: [] for name in ("measures", "parts", "differences", "permutations", "unpaid")}
        return {**empty, "ceiling": ceiling(rows)}
    units = sorted({row["unit"] for row in known})
    counts = _counts(settings.generator("reward models").integers(0, len(units), (draws, len(units))))
    found: Values = {"measures": [], "parts": [], "differences": [], "permutations": []}
    for divergence in dict.fromkeys(row["divergence"] for row in known):
        at = [row for row in known if row["divergence"] == divergence]
        tables = {by: _Table(at, units, by, least) for by in ways}
        present = {by: one for by, one in tables.items() if np.isfinite(one.predicted).any()}
        for by, one in present.items():
            found["measures"] += one.measured({"by": by, "divergence": divergence}, counts, settings.level)
            found["permutations"].append({"by": by, "divergence": divergence, **_permuted(one, settings)})
        if ways[0] in present:
            first = present[ways[0]]
            found["parts"] += [
                row
                for part, only in first.parts().items()
                for row in first.measured({"part": part, "divergence": divergence}, counts, settings.level, only)
            ]
            found["differences"] += [
                row
                for by, one in present.items()
                if by != ways[0]
                for row in _differences(first, one, (ways[0], by), divergence, counts, settings.level)
            ]
    return {**found, "ceiling": ceiling(known), "unpaid": _unpaid(known, least)}


def _counts(chosen: np.ndarray) -> np.ndarray:
    """How often every unit is in the sample itself, then in every resample, [1 + draws, units]."""
    draws, units = chosen.shape
    counts = np.zeros((1 + draws, units), dtype=np.int64)
    counts[0] = 1
    np.add.at(counts, (np.arange(1, draws + 1)[:, None], chosen), 1)
    return counts


class _Table:
    """Predicted and realised shifts at one distance by reward model, [units, points], NaN where there is none.

    Args:
        rows: of one distance.
        units: numbers of the reward models, a row each.
        by: way of forecasting.
        least: a shift below it does not matter.
    """

    def __init__(self, rows: Sequence[Values], units: Sequence[int], by: str, least: float) -> None:
        own = [[row for row in rows if row["unit"] == unit] for unit in units]
        shape = (len(units), max(map(len, own)))
        self.predicted, self.realised, self.halves, self.other_halves = (np.full(shape, np.nan) for _ in range(4))
        self.least = np.full(shape, least)
        self.unpaid = np.zeros(shape, dtype=bool)
        self.names = [[row["attribute"] for row in of_unit] for of_unit in own]
        for unit, of_unit in enumerate(own):
            for point, row in enumerate(of_unit):
                predicted = row["predicted"].get(by)
                if predicted is not None and row["value"] is not None:
                    self.predicted[unit, point], self.realised[unit, point] = predicted["value"], row["value"]
                    self.halves[unit, point] = _half(predicted)
                    self.other_halves[unit, point] = _half(row)
                    self.least[unit, point] = max(least, 2.0 * (row["error"] or 0.0))
                    self.unpaid[unit, point] = _is_unpaid(row)

    def parts(self) -> dict[str, np.ndarray]:
        """The shifts of every attribute, and those of either direction, [units, points] each."""
        found = {name: np.zeros_like(self.unpaid) for own in self.names for name in own}
        for unit, own in enumerate(self.names):
            for point, name in enumerate(own):
                found[name][unit, point] = True
        return {**found, UP: self.predicted > 0.0, DOWN: self.predicted < 0.0}

    @property
    def known(self) -> np.ndarray:
        """Where there is both, [units, points]."""
        found: np.ndarray = np.isfinite(self.predicted)
        return found

    def meetings(self, counts: np.ndarray, only: np.ndarray) -> np.ndarray:
        """`functional.shift.MEASURES` of the sample, then of every resample, [1 + draws, measures].

        Args:
            counts: how often every unit is in each.
            only: of which shifts, [units, points].
        """
        return maths.meetings(np.where(only, self.predicted, np.nan), self.realised, counts)

    def measured(self, about: Values, counts: np.ndarray, level: float, only: np.ndarray | None = None) -> list[Values]:
        """A row for each of `functional.shift.MEASURES` and `SHARES`, with an interval and how many shifts have a say.

        Args:
            about: what else stands in the rows.
            counts: how often every unit is in the sample and in each resample.
            level: of the intervals.
            only: of which shifts, [units, points]; None is all.
        """
        taken = self.known if only is None else self.known & only
        units = int(taken.any(axis=1).sum())
        drawn = counts if units >= FEWEST else counts[:1]
        found = [
            (name, int(taken.sum()), met)
            for name, met in zip(maths.MEASURES, self.meetings(drawn, taken).T, strict=True)
        ]
        for name in SHARES:
            flags = np.where(taken, self._flags(name), np.nan)
            found.append((name, int(np.isfinite(flags).sum()), maths.share_of_known(flags, drawn)))
        return [
            {**about, "measure": name, "n": n, "units": units, **_ends(met, level, units)} for name, n, met in found
        ]

    def _flags(self, name: str) -> np.ndarray:
        if name == "coverage":
            return maths.covers(self.predicted, self.realised, self.halves, self.other_halves)
        flags = maths.right_signs(self.predicted, self.realised, self.least)
        # Without an effect the effect alone forecasts 0, which has no sign: such shifts are counted apart.
        return np.where(self.unpaid if name == "carried" else ~self.unpaid, flags, np.nan)


def _half(row: Mapping[str, Any]) -> float:
    return np.nan if row["low"] is None else float(row["high"] - row["low"]) / 2.0


def _ends(met: np.ndarray, level: float, units: int) -> Values:
    """A measure with percentiles over resamples; `met` has the value of the sample first."""
    value = None if np.isnan(met[0]) else float(met[0])
    drawn = met[1:][~np.isnan(met[1:])]
    if value is None:
        return {"value": None, "low": None, "high": None, "reason": "it is not defined for these shifts"}
    if units < FEWEST:
        few = "one reward model" if units == 1 else f"{units} reward models"
        return {"value": value, "low": None, "high": None, "reason": f"{few}; an interval over them needs {FEWEST}"}
    if 2 * len(drawn) < len(met) - 1:
        return {"value": value, "low": None, "high": None, "reason": "it is not defined in most resamples"}
    low, high = np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0]).tolist()
    return {"value": value, "low": low, "high": high, "reason": ""}


def _differences(
    first: _Table, second: _Table, names: tuple[str, str], divergence: float, counts: np.ndarray, level: float
) -> list[Values]:
    """First minus second forecast, on the shifts that both speak of, in the same resamples."""
    both = first.known & second.known
    units = int(both.any(axis=1).sum())
    drawn = counts if units >= FEWEST else counts[:1]
    apart = first.meetings(drawn, both) - second.meetings(drawn, both)
    about = {"first": names[0], "second": names[1], "divergence": divergence, "n": int(both.sum()), "units": units}
    return [
        {**about, "measure": name, **_ends(apart[:, maths.MEASURES.index(name)], level, units)} for name in COMPARED
    ]


def _permuted(table: _Table, settings: Settings) -> Values:
    """How often forecasts of other reward models do as well, among those with all shifts."""
    whole = np.asarray(table.known.all(axis=1))
    units = int(whole.sum())
    reason = ""
    if units < FEWEST_DEALT:
        reason = f"{units} reward models with all shifts; to deal out their forecasts anew takes {FEWEST_DEALT}"
    elif len({tuple(names) for names, one in zip(table.names, whole, strict=True) if one}) > 1:
        reason = "not all reward models have the same attributes"
    if reason:
        return {"error_p": None, "rank_p": None, "units": units, "reason": reason}
    generator = settings.generator("permutations")
    error, rank = maths.permutation_p(table.predicted[whole], table.realised[whole], generator, PERMUTATIONS)
    return {"error_p": error, "rank_p": rank, "units": units, "reason": ""}


def ceiling(rows: Sequence[Values]) -> list[Values]:
    """What a perfect forecast would reach at each distance, for the noise of seeds: of the shifts with most of them.

    Args:
        rows: as in `agreements`.
    """
    found = []
    for divergence in dict.fromkeys(row["divergence"] for row in rows):
        seeds = [[one for one in row["seeds"] if one is not None] for row in rows if row["divergence"] == divergence]
        most = max(map(len, seeds))
        if most > 1:
            told = np.array([one for one in seeds if len(one) == most])
            error, rank = maths.ceiling_of(told)
            found.append({"divergence": divergence, "error": error, "rank": rank, "n": len(told), "seeds": most})
    return found


def _is_unpaid(row: Mapping[str, Any]) -> bool:
    """Whether the effect of the attribute is not told from 0."""
    return row["effect"] is not None and abs(row["effect"]) <= 2.0 * row["effect_error"]


def _unpaid(rows: Sequence[Values], least: float) -> list[Values]:
    """Attributes without an effect of their own that have moved all the same."""
    return [
        {name: row[name] for name in ("run", "attribute", "divergence", "value", "effect")}
        for row in rows
        if _is_unpaid(row)
        if row["value"] is not None and abs(row["value"]) > max(least, 2.0 * (row["error"] or 0.0))
    ]
