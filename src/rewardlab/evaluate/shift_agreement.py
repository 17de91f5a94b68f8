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

FEWEST = 3
"""Reward models that an interval over them needs."""
FEWEST_DEALT = 4
"""Reward models that a permutation of forecasts needs: of three there are but six."""
PERMUTATIONS = 2000
COMPARED = ("error", "rank")
"""Measures of which two forecasts are compared."""


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
        return {"measures": [], "differences": [], "permutations": [], "ceiling": ceiling(rows), "unpaid": []}
    units = sorted({row["unit"] for row in known})
    chosen = settings.generator("reward models").integers(0, len(units), (draws, len(units)))
    found: Values = {"measures": [], "differences": [], "permutations": []}
    for divergence in dict.fromkeys(row["divergence"] for row in known):
        at = [row for row in known if row["divergence"] == divergence]
        tables = {by: _Table(at, units, by, least) for by in ways}
        present = {by: one for by, one in tables.items() if np.isfinite(one.predicted).any()}
        for by, one in present.items():
            met = one.meetings(chosen)
            about = {"by": by, "divergence": divergence, "n": one.points, "units": one.units}
            found["measures"] += [
                {**about, "measure": name, **_ends(met[:, place], settings.level, one.units)}
                for place, name in enumerate(maths.MEASURES)
            ]
            found["permutations"].append({"by": by, "divergence": divergence, **_permuted(one, settings)})
        if ways[0] in present:
            found["differences"] += [
                row
                for by, one in present.items()
                if by != ways[0]
                for row in _differences(present[ways[0]], one, (ways[0], by), divergence, chosen, settings.level)
            ]
    return {**found, "ceiling": ceiling(known), "unpaid": _unpaid(known, least)}


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
        self.names = [[row["attribute"] for row in of_unit] for of_unit in own]
        for unit, of_unit in enumerate(own):
            for point, row in enumerate(of_unit):
                predicted = row["predicted"].get(by)
                if predicted is not None and row["value"] is not None:
                    self.predicted[unit, point], self.realised[unit, point] = predicted["value"], row["value"]
                    self.halves[unit, point] = _half(predicted)
                    self.other_halves[unit, point] = _half(row)
                    self.least[unit, point] = max(least, 2.0 * (row["error"] or 0.0))

    @property
    def known(self) -> np.ndarray:
        """Where there is both, [units, points]."""
        found: np.ndarray = np.isfinite(self.predicted)
        return found

    @property
    def points(self) -> int:
        """How many shifts are compared."""
        return int(self.known.sum())

    @property
    def units(self) -> int:
        """Reward models with a shift to compare."""
        return int(self.known.any(axis=1).sum())

    def meetings(self, chosen: np.ndarray, only: np.ndarray | None = None) -> np.ndarray:
        """The measures of the sample, then of every resample, [1 + draws, measures].

        Args:
            chosen: units of the resamples.
            only: of which shifts, [units, points]; None is all.
        """
        predicted = self.predicted if only is None else np.where(only, self.predicted, np.nan)
        signs = maths.right_signs(predicted, self.realised, self.least)
        covered = maths.covers(predicted, self.realised, self.halves, self.other_halves)
        everything = np.arange(len(predicted))[None, :]
        # Of too few reward models nothing is resampled.
        drawn = [everything, chosen] if self.units >= FEWEST else [everything]
        return np.concatenate([maths.meetings(predicted, self.realised, signs, covered, one) for one in drawn])


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
    first: _Table, second: _Table, names: tuple[str, str], divergence: float, chosen: np.ndarray, level: float
) -> list[Values]:
    """First minus second forecast, on the shifts that both speak of, in the same resamples."""
    both = first.known & second.known
    units = int(both.any(axis=1).sum())
    apart = first.meetings(chosen, both) - second.meetings(chosen, both)
    about = {"first": names[0], "second": names[1], "divergence": divergence, "n": int(both.sum()), "units": units}
    return [
        {**about, "measure": name, **_ends(apart[:, maths.MEASURES.index(name)], level, units)} for name in COMPARED
    ]


def _permuted(table: _Table, settings: Settings) -> Values:
    """How often forecasts of other reward models do as well."""
    reason = ""
    if table.units < FEWEST_DEALT:
        reason = f"{table.units} reward models; to deal out their forecasts anew takes {FEWEST_DEALT}"
    elif not table.known.all() or len(set(map(tuple, table.names))) > 1:
        reason = "not all reward models have the same shifts"
    if reason:
        return {"error_p": None, "rank_p": None, "reason": reason}
    generator = settings.generator("permutations")
    error, rank = maths.permutation_p(table.predicted, table.realised, generator, PERMUTATIONS)
    return {"error_p": error, "rank_p": rank, "reason": ""}


def ceiling(rows: Sequence[Values]) -> list[Values]:
    """How well one half of the seeds forecasts the other, at each distance: what noise leaves for a forecast to reach.

    Args:
        rows: as in `agreements`.
    """
    found = []
    for divergence in dict.fromkeys(row["divergence"] for row in rows):
        seeds = [[one for one in row["seeds"] if one is not None] for row in rows if row["divergence"] == divergence]
        halves = np.array([[np.mean(one[::2]), np.mean(one[1::2])] for one in seeds if len(one) > 1])
        if len(halves):
            nothing = np.full(len(halves), np.nan)
            error, rank, *_ = maths.meeting(halves[:, 0], halves[:, 1], nothing, nothing).tolist()
            rank = None if np.isnan(rank) else rank
            found.append({"divergence": divergence, "error": error, "rank": rank, "n": len(halves)})
    return found


def _unpaid(rows: Sequence[Values], least: float) -> list[Values]:
    """Attributes whose effect is not told from 0 and that have moved all the same."""
    return [
        {name: row[name] for name in ("run", "attribute", "divergence", "value", "effect")}
        for row in rows
        if row["effect"] is not None and abs(row["effect"]) <= 2.0 * row["effect_error"]
        if row["value"] is not None and abs(row["value"]) > max(least, 2.0 * (row["error"] or 0.0))
    ]
