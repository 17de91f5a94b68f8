"""Numbers of comparisons: win rates raw and at equal length, strata of length, a ranking, and what the judge is worth.

Observations are comparisons, clusters are prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.summary import percent
from rewardlab.evaluate.winrate import Compared, Labelled, Matches
from rewardlab.functional import winrate
from rewardlab.functional.gain import strata
from rewardlab.functional.intervals import (
    ONE_CLUSTER,
    Interval,
    interval,
    numbered,
    percentile_ends,
    proportion,
    resample,
)
from rewardlab.records import Estimate
from rewardlab.score.comparing import Rule, Verdict, counted
from rewardlab.score.references import asked

Values = dict[str, Any]

APART = 1.0 / 3.0
"""Raw and length-controlled rates that differ by more than this share of the raw one are warned of."""
FEW_AT_EQUAL_LENGTH = 0.05
NO_COMPARISONS = "no comparison has a preference"
NO_ORDERS = "the judge was not asked in both orders"
NO_RANKING = "a ranking needs three players"
NO_FINITE_DRAW = "no resample of the prompts has finite strengths"
NO_DRAW = "no resample of the prompts has anything to fit"
RESAMPLED = "cluster bootstrap of the standard error, {draws} draws, on the logit scale"
REFITTED = RESAMPLED + ", every fit made anew"

RAW = "Share of comparisons won, ties counted half."
LC = "What the win rate would be at equal length: at the difference in length of 0, by the fitted model."
STRENGTH = "Bradley-Terry strength: differences are log-odds of winning; all of them sum to 0."
RANK = "Place in the ranking; the interval is over resamples of prompts."
PLACE = "How often the answer in the first place is preferred, over both orders; 50 % without a position bias."
CONSISTENT = "How often both orders name the same answer."
AGREED = "How often the judge prefers the answer that people prefer, ties counted half."
STRATUM = "Win rate where the difference in length (characters) is in this range."


class RateSettings(Protocol):
    """What rates are made with; fields as of `WinrateEvaluation`."""

    @property
    def base(self) -> str:
        """What the baseline is called."""
        ...

    @property
    def difficulty(self) -> winrate.By:
        """How the difficulty of an instruction is found."""
        ...

    @property
    def draws(self) -> int:
        """Resamples of prompts."""
        ...

    @property
    def strata(self) -> int:
        """Parts of equal size by difference in length."""
        ...

    @property
    def level(self) -> float:
        """Coverage of the intervals."""
        ...

    @property
    def seed(self) -> int:
        """Of the resamples and the folds."""
        ...


class Table(NamedTuple):
    """Comparisons with the baseline, models by instructions; NaN where there is none.

    Attributes:
        models: names of the rows.
        preference: of the model's answer.
        difference: its characters minus the baseline's.
        prompt: number of what was asked, per column: the same may be asked several times.
    """

    models: list[str]
    preference: np.ndarray
    difference: np.ndarray
    prompt: np.ndarray


def table_of(rows: Sequence[Compared], baseline: str) -> Table:
    """Comparisons with `baseline` that have a preference."""
    own = [one for one in rows if one.baseline == baseline and one.verdict.preference is not None]
    models = list(dict.fromkeys(one.model for one in own))
    keys = {key: at for at, key in enumerate(dict.fromkeys(_key(one) for one in own))}
    preference = np.full((len(models), len(keys)), np.nan)
    difference = np.full((len(models), len(keys)), np.nan)
    for one in own:
        place = models.index(one.model), keys[_key(one)]
        preference[place] = one.verdict.preference
        difference[place] = one.characters - one.baseline_characters
    prompts = {text: at for at, text in enumerate(dict.fromkeys(text for text, _ in keys))}
    return Table(models, preference, difference, np.array([prompts[text] for text, _ in keys], dtype=np.int64))


def winrate_values(found: Matches, config: RateSettings, rules: Mapping[str, Rule]) -> Values:
    """Everything that winrate.json holds, without the findings.

    Args:
        found: what was compared.
        config: how rates are made of it.
        rules: by judge, how both orders make a preference.
    """
    settings = Settings(config.level, "prompt", config.seed)
    table = table_of(found.compared, config.base)
    rates, fits = _rates(table, config, settings)
    players = list(dict.fromkeys([*(one.model for one in found.compared), *(one.baseline for one in found.compared)]))
    groups = {
        "win_rate": [one for pair in rates.values() for one in pair],
        "strata": _strata(table, config.strata, settings),
        "ranking": _ranking(found.compared, players, config.draws, settings),
        "judge": _judge(found, settings),
        "labelled": _labelled(found.labelled, settings),
    }
    values: Values = {
        "baseline": config.base,
        "models": table.models,
        "judges": dict(found.judges),
        "options": {
            "level": config.level,
            "draws": config.draws,
            "seed": config.seed,
            "difficulty": config.difficulty,
            "rules": dict(rules),
        },
        "counts": {name: count for name, count in found.counts.items() if count},
        "outcomes": _outcomes(found),
        "estimates": {name: [one.as_dict() for one in group] for name, group in groups.items()},
        "fits": fits,
        "matrix": _matrix(found.compared, players, settings),
    }
    return {**values, "warnings": _warnings(values, rates)}


def _key(one: Compared) -> tuple[str, int]:
    return asked(one.prompt), one.occurrence


# --- rates ---------------------------------------------------------------------------------------------------------


def _rates(
    table: Table, config: RateSettings, settings: Settings
) -> tuple[dict[str, tuple[Estimate, Estimate]], dict[str, Values]]:
    """Raw and length-controlled win rate of each model, and the fits behind the latter."""
    there = ~np.isnan(table.preference)
    reasons = [
        winrate.why_not_fitted(preference[known], difference[known], table.prompt[known])
        for preference, difference, known in zip(table.preference, table.difference, there, strict=True)
    ]
    fitted = [at for at, reason in enumerate(reasons) if not reason]
    feature = np.array([winrate.length_feature(own) for own in table.difference]).reshape(table.preference.shape)
    gammas = dict(
        zip(fitted, winrate.difficulties(table.preference[fitted], feature[fitted], config.difficulty), strict=True)
    )
    found: dict[int, winrate.LengthControlled] = {}
    penalties = np.full(len(table.models), np.nan)
    for at in fitted:
        known, gamma = there[at], gammas[at]
        own, prompt = table.preference[at, known], table.prompt[known]
        columns = winrate.design(feature[at, known], None if gamma is None else gamma[known])
        penalty = None
        if gamma is not None:
            folds = settings.generator(f"folds {table.models[at]}")
            penalty = winrate.chosen_penalty(columns, own, folds, prompt)
        penalties[at] = penalty or 0.0
        found[at] = winrate.length_controlled(own, columns, winrate.ridge_of(len(np.unique(prompt)), penalty))
    drawn = np.zeros((0, len(table.models), 2))
    if table.models:
        drawn = winrate.resampled_rates(
            table.preference,
            feature,
            penalties,
            settings.generator("resamples"),
            config.draws,
            config.difficulty,
            table.prompt,
        )
    rates, fits = {}, {}
    for at, name in enumerate(table.models):
        known = there[at]
        own, prompt = table.preference[at, known], table.prompt[known]
        raw = proportion(own, prompt, settings.level)
        # Of few prompts, and where all verdicts are alike, resamples tell less than Student's and the binomial.
        if raw.error is not None and raw.clusters >= winrate.FEWEST:
            by_draws = _resampled(float(own.mean()), drawn[:, at, 0], prompt, settings.level, RESAMPLED)
            raw = by_draws._replace(error=raw.error)
        controlled = Interval(None, reason=reasons[at])
        if at in found:
            controlled = _resampled(found[at].rate.value, drawn[:, at, 1], prompt, settings.level, REFITTED)
        rates[name] = (
            settings.estimate(f"raw.{name}", raw, RAW, unit="comparisons"),
            settings.estimate(f"lc.{name}", controlled, LC, unit="comparisons"),
        )
        penalty = None if at not in found or found[at].psi is None else float(penalties[at])
        fits[name] = _fit(table, at, found.get(at), penalty, reasons[at], raw, controlled, config)
    return rates, fits


def _resampled(value: float, drawn: np.ndarray, prompts: np.ndarray, level: float, method: str) -> Interval:
    """A rate with Student's interval on the logit scale, by the standard error over resamples of the prompts."""
    made = drawn[~np.isnan(drawn)]
    count = len(np.unique(prompts))
    found = Interval(value, n=len(prompts), clusters=count)
    if len(made) < 2:
        return found._replace(reason=NO_DRAW)
    # Resamples of G prompts divide by G, the standard error by G - 1.
    error = float(made.std(ddof=1)) * (count / (count - 1)) ** 0.5
    low, high = winrate.logit_ends(value, error, count - 1.0, level)
    return found._replace(low=low, high=high, method=method.format(draws=len(made)), error=error)


def _fit(
    table: Table,
    at: int,
    found: winrate.LengthControlled | None,
    penalty: float | None,
    reason: str,
    raw: Interval,
    controlled: Interval,
    config: RateSettings,
) -> Values:
    """What is behind the rates of a model: standard errors, coefficients, lengths."""
    difference = table.difference[at][~np.isnan(table.difference[at])]
    alone = winrate.ONE_MODEL if found is not None and found.psi is None and config.difficulty != "none" else ""
    return {
        "raw_error": raw.error,
        "lc_error": controlled.error,
        "theta": None if found is None else found.theta,
        "phi": None if found is None else found.phi,
        "psi": None if found is None else found.psi,
        "penalty": penalty,
        "reason": reason or alone,
        "mean_difference": float(difference.mean()),
        "sd_difference": float(difference.std(ddof=1)) if len(difference) > 1 else None,
        "as_long": float((difference >= 0).mean()),
        "as_short": float((difference <= 0).mean()),
    }


def _strata(table: Table, count: int, settings: Settings) -> list[Estimate]:
    """Win rates within parts of equal size by difference in length."""
    found = []
    for name, preference, difference in zip(table.models, table.preference, table.difference, strict=True):
        known = ~np.isnan(preference)
        own, longer, prompt = preference[known], difference[known], table.prompt[known]
        place, edges = strata(longer, count)
        for at, (low, high) in enumerate(pairwise(edges.tolist())):
            rate = proportion(own[place == at], prompt[place == at], settings.level)
            label = f"stratum.{name}.{low:.0f} to {high:.0f}"
            found.append(settings.estimate(label, rate, STRATUM, unit="comparisons"))
    return found


# --- ranking -------------------------------------------------------------------------------------------------------


def _wins(rows: Sequence[Compared], players: Sequence[str]) -> np.ndarray:
    """Wins of each player over each other, one matrix per prompt, ties half a win of either."""
    keys = {key: at for at, key in enumerate(dict.fromkeys(asked(one.prompt) for one in rows))}
    wins = np.zeros((len(keys), len(players), len(players)))
    for one in rows:
        if one.verdict.preference is not None:
            model, other = players.index(one.model), players.index(one.baseline)
            own = wins[keys[asked(one.prompt)]]
            own[model, other] += one.verdict.preference
            own[other, model] += 1.0 - one.verdict.preference
    return wins


def _ranking(rows: Sequence[Compared], players: Sequence[str], draws: int, settings: Settings) -> list[Estimate]:
    """Bradley-Terry strengths and places, resampled by prompt."""
    if len(players) < 3:
        return [settings.missing("strength", NO_RANKING, STRENGTH, unit="comparisons")]
    wins = _wins(rows, players)
    whole = wins.sum(axis=0)
    count, size = len(wins), len(players)
    found = winrate.standing(whole)
    if not found.met:
        return [settings.missing("strength", winrate.NOT_CONNECTED, STRENGTH, unit="comparisons")]
    finite = len(found.groups) == 1
    added = np.zeros_like(whole) if finite else winrate.one_tie_each(whole)
    reading = STRENGTH if finite else f"{STRENGTH} {_not_finite(found, players)}"

    def strengths_and_places(sums: np.ndarray) -> np.ndarray:
        strengths = winrate.bradley_terry(sums.reshape(-1, size, size) + added)
        places = 1.0 + (strengths[:, None, :] > strengths[:, :, None]).sum(axis=2)
        return np.concatenate([strengths, np.where(np.isnan(strengths), np.nan, places)], axis=1)

    whole_values = strengths_and_places(whole.reshape(1, -1))[0].tolist()
    ends: list[tuple[float | None, float | None]] = [(None, None)] * (2 * size)
    method, reason = "", ONE_CLUSTER
    if count > 1:
        drawn = resample(wins.reshape(count, -1), strengths_and_places, settings.generator("ranking"), None, draws)
        ends = _ends(percentile_ends(drawn, settings.level))
        lost = int(np.isnan(drawn.draws[:, 0]).sum())
        method = f"cluster bootstrap, {draws} draws" + (f", {lost} without finite strengths left out" if lost else "")
        reason = NO_FINITE_DRAW if lost == draws else ""
    estimates = []
    for at, player in enumerate(players):
        games = int((wins[:, at] + wins[:, :, at]).sum())
        for name, place, words in (("strength", at, reading), ("rank", size + at, RANK)):
            value = Interval(whole_values[place], *ends[place], games, count, method, reason)
            estimates.append(settings.estimate(f"{name}.{player}", value, words, unit="comparisons"))
    return estimates


def _ends(found: np.ndarray) -> list[tuple[float | None, float | None]]:
    """Ends of intervals, None where there are none."""
    return [(None, None) if np.isnan(low) else (float(low), float(high)) for low, high in found.T]


def _not_finite(found: winrate.Standing, players: Sequence[str]) -> str:
    """Who has no finite strength, and what was done."""
    told = {"never lost": found.unbeaten, "never won": found.winless}
    parts = [f"{' and '.join(players[at] for at in who)} {what}" for what, who in told.items() if who]
    parts = parts or ["some never won against some of the others"]
    return f"As {' and '.join(parts)}, no finite strengths fit: a tie is added between every two that met."


def _matrix(rows: Sequence[Compared], players: Sequence[str], settings: Settings) -> list[Values]:
    """Win rate of each player over each other that it met."""
    found = []
    for model in players:
        for other in players:
            own = [
                (asked(one.prompt), one.verdict.preference if one.model == model else 1.0 - one.verdict.preference)
                for one in rows
                if one.verdict.preference is not None and {one.model, one.baseline} == {model, other}
            ]
            if own and model != other:
                prompts, values = zip(*own, strict=True)
                rate = proportion(np.array(values), np.array(prompts), settings.level)
                ends = {"value": rate.value, "low": rate.low, "high": rate.high, "n": len(own)}
                found.append({"model": model, "other": other, **ends})
    return found


def equal_length_matrix(rows: Sequence[Compared], players: Sequence[str], settings: Settings) -> list[Values]:
    """Win rate at equal length of each player over each other that it met, or why there is none.

    Each pair is fitted once, without the difficulty of the instructions, so that both directions add up to 1; the
    interval is by the sandwich.
    """
    found: dict[tuple[int, int], Values] = {}
    for at, model in enumerate(players):
        for past, other in enumerate(players[at + 1 :], start=at + 1):
            own = [turned(one, other) for one in rows if {one.model, one.baseline} == {model, other}]
            own = [one for one in own if one.verdict.preference is not None]
            if own:
                found[at, past] = _at_equal_length(own, settings)
                found[past, at] = _from_the_other_side(found[at, past])
    return [{"model": players[at], "other": players[past], **found[at, past]} for at, past in sorted(found)]


def _at_equal_length(own: Sequence[Compared], settings: Settings) -> Values:
    preference = np.array([one.verdict.preference for one in own], dtype=np.float64)
    difference = np.array([one.characters - one.baseline_characters for one in own], dtype=np.float64)
    prompts, count = numbered(np.array([asked(one.prompt) for one in own]))
    reason = winrate.why_not_fitted(preference, difference, prompts)
    if reason:
        return {"value": None, "low": None, "high": None, "n": len(own), "reason": reason}
    columns = winrate.design(winrate.length_feature(difference), None)
    rate = winrate.length_controlled(preference, columns, winrate.ridge_of(count)).rate
    error = interval(rate, prompts, settings.level).error
    low, high = (None, None) if error is None else winrate.logit_ends(rate.value, error, count - 1.0, settings.level)
    return {"value": rate.value, "low": low, "high": high, "n": len(own), "reason": ""}


def _from_the_other_side(one: Values) -> Values:
    low, value, high = (None if one[name] is None else 1.0 - one[name] for name in ("high", "value", "low"))
    return {**one, "value": value, "low": low, "high": high}


def turned(one: Compared, baseline: str) -> Compared:
    """The comparison seen from the model that is not `baseline`."""
    if one.baseline == baseline:
        return one
    said = one.verdict
    return one._replace(
        model=one.baseline,
        baseline=one.model,
        characters=one.baseline_characters,
        baseline_characters=one.characters,
        # What stood first for one of the two stood second for the other.
        verdict=Verdict(_rest(said.preference), _rest(said.trailing), _rest(said.leading), said.reason),
        answer_id=one.baseline_answer_id,
        baseline_answer_id=one.answer_id,
    )


def _rest(share: float | None) -> float | None:
    return None if share is None else 1.0 - share


# --- the judge -----------------------------------------------------------------------------------------------------


def _judge(found: Matches, settings: Settings) -> list[Estimate]:
    """Position bias and agreement of both orders, of every judge that was asked in both."""
    said = found.said
    estimates = []
    for judge in dict.fromkeys(name for name, _, _ in said):
        own = [(prompt, verdict) for name, prompt, verdict in said if name == judge and verdict.leading is not None]
        if not own:
            estimates.append(settings.missing(f"first_place.{judge}", NO_ORDERS, PLACE, unit="comparisons"))
            continue
        clusters = np.array([prompt for prompt, _ in own])
        places = np.array([_first_place(verdict) for _, verdict in own])
        same = np.array([_same(verdict) for _, verdict in own])
        for name, values, reading in (("first_place", places, PLACE), ("consistency", same, CONSISTENT)):
            rate = proportion(values, clusters, settings.level)
            estimates.append(settings.estimate(f"{name}.{judge}", rate, reading, unit="comparisons"))
    return estimates


def _first_place(verdict: Verdict) -> float:
    leading, trailing = _named(verdict)
    return (leading + 1.0 - trailing) / 2.0


def _same(verdict: Verdict) -> float:
    leading, trailing = _named(verdict)
    return float(leading == trailing)


def _named(verdict: Verdict) -> tuple[float, float]:
    """Whether the first answer was named, where it stood first and where it stood second; 1/2 where neither was."""
    shares = [0.5 if share is None else share for share in (verdict.leading, verdict.trailing)]
    leading, trailing = (1.0 if share > 0.5 else 0.0 if share < 0.5 else 0.5 for share in shares)
    return leading, trailing


def _labelled(rows: Sequence[Labelled], settings: Settings) -> list[Estimate]:
    """Agreement with people, over all files and by file."""
    files = list(dict.fromkeys(one.file for one in rows))
    found = []
    for name in ["all", *files] if len(files) > 1 else files:
        own = [one for one in rows if name in ("all", one.file) and one.verdict.preference is not None]
        values = np.array([one.verdict.preference for one in own], dtype=np.float64)
        prompts = np.array([asked(one.prompt) for one in own])
        rate = proportion(values, prompts, settings.level) if own else Interval(None)
        estimate = settings.estimate(f"agreement.{name}", rate, AGREED, reason=NO_COMPARISONS)
        found.append(estimate)
    return found


def _outcomes(found: Matches) -> list[Values]:
    """How many won, lost, tied or came to nothing, by judge."""
    by_judge: dict[str, list[Verdict]] = {}
    for judge, _, verdict in found.said:
        by_judge.setdefault(judge, []).append(verdict)
    return [{"judge": name, "outcomes": dict(counted(own))} for name, own in by_judge.items()]


def _warnings(values: Values, rates: Mapping[str, tuple[Estimate, Estimate]]) -> list[str]:
    """What the rates have to be read with."""
    found = []
    for name, (raw, controlled) in rates.items():
        if raw.value is None or controlled.value is None:
            continue
        if abs(controlled.value - raw.value) > APART * raw.value:
            even, plain = percent(controlled.value), percent(raw.value)
            found.append(
                f"{name}: at equal length the win rate is {even} %, raw it is {plain} %: more than a third apart, so "
                "length has a large part in it."
            )
        for side, words in (("as_long", "at least"), ("as_short", "at most")):
            share = values["fits"][name][side]
            if share < FEW_AT_EQUAL_LENGTH:
                found.append(
                    f"{name}: its answer is {words} as long as the other one in {percent(share)} % of the comparisons, "
                    "so the win rate at equal length is an extrapolation."
                )
    unusable: Counter[str] = Counter()
    total = 0
    for one in values["outcomes"]:
        total += sum(one["outcomes"].values())
        unusable.update({key: n for key, n in one["outcomes"].items() if key not in ("wins", "losses", "ties")})
    if unusable.total() > 0.02 * total:
        words = ", ".join(f"{count} {reason}" for reason, count in unusable.most_common())
        found.append(f"{unusable.total():,} of {total:,} comparisons have no preference and are left out: {words}.")
    return found
