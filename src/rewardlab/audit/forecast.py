"""What a policy will learn from a reward before it is trained, from audits of the reward and the policy's own samples.

Per attribute and distance: the forecast from effects (how attributes go together in the samples, times what each causes
in the reward), and where the samples have rewards, what these say by themselves: associations to first order, the tilt
of the samples, and best of n. The mathematics are in `functional.forecast`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from rewardlab.audit.effects_file import RATE, EffectValue, effects_path, judged_by_measure, read_effects
from rewardlab.audit.judge import judge_of, rule_words, same_rule
from rewardlab.config import Config, Distances, Paths, nearest
from rewardlab.data.load import load_all
from rewardlab.data.source import Sources, with_limit
from rewardlab.errors import DataError, Problem
from rewardlab.functional import forecast as maths
from rewardlab.functional.frontier import best_of_kl, best_of_weights
from rewardlab.functional.intervals import NO_SPREAD, Interval, interval, mean
from rewardlab.score.tables import Matcher, ScoreTable, read_scores

EFFECTS, ASSOCIATIONS, TILT, BEST_OF = "effects", "associations", "tilt", "best of n"
"""By what a shift is forecast."""
NAIVE, SINGLE, DOUBLE, OWN = "naive", "single rewrite", "own effect", "own effect on samples"
"""By what one effect alone says, the company that an attribute keeps left out: readings of an audit to compare with."""
LEAST_SIZE = 2.0
"""Completions of a prompt that a tilt has to rest on, on average, to be told."""
_READINGS = {NAIVE: "naive.ATE", SINGLE: "single.ATE", DOUBLE: RATE}

Values = dict[str, Any]


class Forecasting(Config):
    """Configuration of `audit forecast`."""

    samples: Sources = Field(min_length=1)
    """Completions that the policy wrote before its training, several to a prompt: what `sample` wrote, one source or
    several; a source may be its path alone."""

    scores: Path
    """Folder of `score` (or its table) on these completions, by the reward that the policy would be trained on."""

    effects: Paths = Field(min_length=1)
    """Folders of `audit effects` or `audit run` of that reward, one for every attribute. Their responses may be
    anybody's."""

    sample_effects: Paths = ()
    """Folders of `audit effects` or `audit run` of the same reward and attributes, by the same measures, on responses
    that this policy wrote, for comparison: what such an effect alone would forecast."""

    divergences: Distances = Field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Distances of the trained policy from where it starts, in nats, for which shifts are told."""

    least_explained: float = Field(0.5, ge=0.0, le=1.0)
    """The share of the reward's variance within prompts that the effects have to explain; below it they are not asked
    for a forecast."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    title: str = "What a policy will learn from this reward"
    """Heading of the page."""


class Audited(NamedTuple):
    """An attribute with its effect on the reward.

    Attributes:
        folder: of the audit.
        name: of the attribute.
        high: what a text with it is, in words.
        judge: how code sees it, as in audit.json.
        effect: RATE over all responses of the audit, units of the reward.
        error: its standard error.
        readings: way of forecasting -> an effect of the audit with its standard error.
    """

    folder: Path
    name: str
    high: str
    judge: Values
    effect: float
    error: float
    readings: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Samples:
    """What a policy wrote.

    Attributes:
        rewards: [prompts, N].
        attributes: 0 or 1, [prompts, N, attributes].
        left_out: completions beyond the N that every prompt has.
    """

    rewards: np.ndarray
    attributes: np.ndarray
    left_out: int


def forecast(config: Forecasting) -> Values:
    """The forecasts, as forecast.json has them.

    Raises:
        DataError: files that cannot be read, scores that are missing, effects of another reward or of attributes that
            no code can see, fewer than two completions to a prompt: every problem.
    """
    (table,) = read_scores([config.scores])
    audited = _with_own(_audits(config.effects, table), config.sample_effects, table)
    samples = _samples(config, table, audited)
    moments = maths.within_moments(samples.attributes, samples.rewards)
    if not moments[:, -1, -1].mean() > 0:
        found = "rewards that never differ between the completions of a prompt"
        problem = Problem(str(table.path), found, "some that differ", "From such a reward nothing is learnt.")
        raise DataError("there is nothing to forecast", [problem])
    effects = np.array([one.effect for one in audited])
    errors = np.array([one.error for one in audited])
    explained = interval(maths.explained_share(moments, effects), level=config.level)
    spoken = (explained.value or 0.0) >= config.least_explained
    grid = [*config.divergences, *_grid(max(config.divergences))]
    rows: list[Values] = []
    for place, divergence in enumerate(grid):
        asked = {"divergence": divergence, "asked": place < len(config.divergences)}
        shifts = maths.forecast(moments, effects, errors, divergence, config.level) if spoken else []
        for own, shift in zip(audited, shifts, strict=False):
            parts = {"direct": shift.direct, "carried": shift.carried}
            rows.append({"attribute": own.name, "by": EFFECTS, **asked, **_ends(shift.total), **parts})
        # A straight line in the root of the distance: the distances that were asked for are enough.
        # They need no explained share: what the refusal of a forecast was worth can be seen by them.
        rows += _alone(audited, moments, divergence, config.level) if asked["asked"] else []
        rows += _from_samples(audited, samples, moments, divergence, asked, config.level)
    rows += _best_of(audited, samples, max(config.divergences), config.level)
    sigma = moments.mean(axis=0)
    spread = np.sqrt(np.diag(sigma))
    return {
        "level": config.level,
        "scorer": table.scorer,
        "prompts": len(samples.rewards),
        "completions": samples.rewards.shape[1],
        "left_out": samples.left_out,
        "sd": float(spread[-1]),
        "explained": _ends(explained),
        "least_explained": config.least_explained,
        "spoken": spoken,
        "attributes": [
            {
                "name": one.name,
                "high": one.high,
                "judge": one.judge,
                "audit": str(one.folder),
                "effect": one.effect,
                "error": one.error,
                "rate": float(samples.attributes[:, :, place].mean()),
            }
            for place, one in enumerate(audited)
        ],
        "correlations": _correlations(sigma, spread),
        "farthest": _farthest(samples.rewards),
        "forecasts": rows,
    }


def _alone(audited: Sequence[Audited], moments: np.ndarray, divergence: float, level: float) -> list[Values]:
    """What every reading of the audits says by itself, at a distance that was asked for."""
    rows: list[Values] = []
    for by in (*_READINGS, OWN):
        places = [place for place, one in enumerate(audited) if by in one.readings]
        if not places:
            continue
        effects, errors = np.array([audited[place].readings[by] for place in places]).T
        chosen = moments[:, [*places, -1]][:, :, [*places, -1]]
        rows += [
            {"attribute": audited[place].name, "by": by, "divergence": divergence, "asked": True, **_ends(shift)}
            for place, shift in zip(
                places, maths.lone_forecast(chosen, effects, errors, divergence, level), strict=True
            )
        ]
    return rows


def _from_samples(
    audited: Sequence[Audited],
    samples: Samples,
    moments: np.ndarray,
    divergence: float,
    asked: Values,
    level: float,
) -> list[Values]:
    """What the rewards of the samples say by themselves, at a distance."""
    rows = [
        {"attribute": own.name, "by": ASSOCIATIONS, **asked, **_ends(interval(one, level=level))}
        for own, one in zip(audited, maths.associated_shift(moments, divergence), strict=True)
    ]
    eta = maths.tilt_at(samples.rewards, divergence)
    size = 0.0 if eta is None else float(maths.effective_size(maths.tilt_weights(samples.rewards, eta)).mean())
    if eta is None or size < LEAST_SIZE:
        reason = "the samples do not reach that far"
        return rows + [
            {"attribute": own.name, "by": TILT, **asked, **_ends(Interval(None, reason=reason))} for own in audited
        ]
    tilted = maths.tilted_shift(samples.attributes, samples.rewards, eta)
    return rows + [
        {"attribute": own.name, "by": TILT, **asked, **_ends(interval(one, level=level)), "size": size}
        for own, one in zip(audited, tilted, strict=True)
    ]


def _best_of(audited: Sequence[Audited], samples: Samples, most: float, level: float) -> list[Values]:
    """Shifts under best of n at its own distances, n doubled while there are samples and it is within reach."""
    rows, n, count = [], 2, samples.rewards.shape[1]
    while n <= count and best_of_kl(n) <= most:
        weights = best_of_weights(samples.rewards, n)[:, :, None]
        shifts = (weights * samples.attributes).sum(axis=1) - samples.attributes.mean(axis=1)
        asked = {"divergence": best_of_kl(n), "asked": False, "n": n}
        rows += [
            {"attribute": own.name, "by": BEST_OF, **asked, **_ends(mean(shift, level=level))}
            for own, shift in zip(audited, shifts.T, strict=True)
        ]
        n *= 2
    return rows


def _audits(folders: Sequence[Path], table: ScoreTable) -> list[Audited]:
    """The audits' attributes with their effects on the reward of the table.

    Raises:
        DataError: every problem of every folder.
    """
    found: list[Audited] = []
    problems: list[Problem] = []
    for folder in folders:
        try:
            one = _audit(folder, table)
        except DataError as error:
            problems += error.problems
            continue
        same = next((known for known in found if known.name == one.name), None)
        if same is not None:
            problems.append(
                Problem(str(folder), f"{one.name}, as in {same.folder}", "another attribute in every audit")
            )
        found.append(one)
    if problems:
        raise DataError("effects that cannot be used", problems)
    return found


def _with_own(audited: Sequence[Audited], folders: Sequence[Path], table: ScoreTable) -> list[Audited]:
    """The audits, with the effects that audits of the policy's own samples found.

    Raises:
        DataError: as `_audits`, or an attribute that no other audit is of, by its name or by its measure.
    """
    own = {one.name: one for one in _audits(folders, table)}
    known = {one.name: one for one in audited}
    problems = [
        Problem(str(one.folder), one.name, f"an attribute of `effects`: {', '.join(known)}")
        for one in own.values()
        if one.name not in known
    ]
    problems += [
        Problem(
            str(one.folder),
            f"{one.name}, where that is {rule_words(one.judge)}",
            f"{one.name} as in {known[one.name].folder}: {rule_words(known[one.name].judge)}",
            "Audit both by one measure and number.",
        )
        for one in own.values()
        if one.name in known and not same_rule(one.judge, known[one.name].judge)
    ]
    if problems:
        raise DataError("effects on samples that cannot be used", problems)
    return [
        one._replace(readings={**one.readings, OWN: own[one.name].readings[DOUBLE]}) if one.name in own else one
        for one in audited
    ]


def _audit(folder: Path, table: ScoreTable) -> Audited:
    path = effects_path(folder)
    file = read_effects(path)
    about = file.attribute
    judge: Values = {}
    problems: list[Problem] = []
    try:
        judge = judged_by_measure(file, path)
    except DataError as error:
        problems += error.problems
    models = {model.scorer: model for model in file.models}
    if table.scorer not in models:
        remedy = f"{nearest(table.scorer, list(models))} Audit the reward that the samples were scored by."
        problems.append(Problem(str(path), f"effects on {', '.join(models)}", f"effects on {table.scorer}", remedy))
        raise DataError("effects that cannot be used", problems)
    estimates = {by: models[table.scorer][name] for by, name in _READINGS.items()}
    told = {by: _reading(one) for by, one in estimates.items() if one is not None}
    readings = {by: one for by, one in told.items() if one is not None}
    if DOUBLE not in readings:
        own = estimates[DOUBLE]
        reason = "no estimate" if own is None else own.reason or "no standard error"
        problems.append(Problem(str(path), f"{RATE}: {reason}", "RATE over all responses, with its error"))
    if problems:
        raise DataError("effects that cannot be used", problems)
    return Audited(folder, about.name, about.high, judge, *readings[DOUBLE], readings)


def _reading(estimate: EffectValue) -> tuple[float, float] | None:
    """An effect with its standard error: 0 where all responses agree exactly, as under a rule that pays for it."""
    error = 0.0 if estimate.reason == NO_SPREAD else estimate.error
    return None if estimate.value is None or error is None else (estimate.value, error)


def _samples(config: Forecasting, table: ScoreTable, audited: Sequence[Audited]) -> Samples:
    """Rewards and attributes of as many completions of every prompt as each has.

    Raises:
        DataError: as `forecast`.
    """
    loaded = load_all((with_limit(source, config.limit) for source in config.samples), usable=True)
    records = [record for one in loaded for record in one.records]
    matcher = Matcher(table)
    rows = [matcher.rows(record, str(record.source)) for record in records]
    if matcher.problems:
        raise DataError("scores are missing", matcher.problems)
    few = [
        Problem(str(record.source), f"{len(own)} completion", "2 or more to a prompt", "Sample with --n 8, say.")
        for record, own in zip(records, rows, strict=True)
        if len(own) < 2
    ]
    if few:
        raise DataError("shifts are told from what differs between completions of a prompt", few)
    count = min(len(own) for own in rows)
    rewards = np.stack([table.score[own[:count]] for own in rows])
    texts = [text for record in records for text in record.completions[:count]]
    columns = [judge_of(one.judge, one.folder)(texts).reshape(rewards.shape) for one in audited]
    return Samples(rewards, np.stack(columns, axis=2), sum(len(own) - count for own in rows))


def _grid(most: float) -> list[float]:
    """Places along the curves, evenly in the root of the distance, where first-order shifts are straight."""
    return [float(one) for one in np.square(np.linspace(0.0, np.sqrt(most), 13))[1:]]


def _ends(found: Interval) -> Values:
    return {"value": found.value, "low": found.low, "high": found.high, "reason": found.reason}


def _correlations(sigma: np.ndarray, spread: np.ndarray) -> list[list[float | None]]:
    """Of the attributes and, last, the reward, within prompts; None where an attribute never differs."""
    return [
        [None if not a * b > 0 else float(value / (a * b)) for value, b in zip(row, spread, strict=True)]
        for row, a in zip(sigma, spread, strict=True)
    ]


def _farthest(rewards: np.ndarray) -> float:
    """The distance beyond which a tilt of the samples rests on fewer than `LEAST_SIZE` of them."""
    low, high = 0.0, float(np.log(rewards.shape[1]))

    def size(divergence: float) -> float:
        eta = maths.tilt_at(rewards, divergence)
        return 0.0 if eta is None else float(maths.effective_size(maths.tilt_weights(rewards, eta)).mean())

    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if size(middle) >= LEAST_SIZE else (low, middle)
    return low
