"""`rewardlab evaluate gain`: how much of a gain in reward is there at equal length.

Score tables of several models' answers to the same prompts, from one scorer, or the answers of a frontier's policies.
The page is drawn in `report.gain`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from rewardlab.config import Config
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.frontier import RESULT, ROWS
from rewardlab.evaluate.frontier_estimates import HELD_OUT, REWARD
from rewardlab.evaluate.frontier_runs import REFERENCE
from rewardlab.functional import gain
from rewardlab.functional.intervals import ONE_CLUSTER, Interval, Statistic, interval, mean, numbered, proportion
from rewardlab.records import Estimate
from rewardlab.score.comparing import of_scores
from rewardlab.score.tables import ScoreTable, read_scores
from rewardlab.store.files import read_json

Values = dict[str, Any]

NO_GAIN = "the interval of the gain holds 0, so a share of it means nothing"
FEW_PROMPTS = "without one of the prompts there is no such number"
TOTAL = "Mean reward of the model minus that of the baseline."
NON_LENGTH = "Mean gain within bins of length (NRG): what is left where lengths are alike."
RATIO = "NRG over the whole gain: 100 % where length has no part in it."
ONE_SIDED = "Share of answers in bins of length that hold answers of one of the two alone; they add nothing to NRG."
SHARED = "NRG over the other answers alone, those in bins that hold answers of both."
LEVEL = "What the model adds at the same length, by a regression on a spline of the length."
THROUGH = "The rest of the gain: what its other lengths add, by the same regression."
STRATUM = "Mean reward of the answers whose length is in this range."
WINS = "How often the model's answer has the higher reward, where the difference in length is in this range."
LONGEST = "longest of "


class GainEvaluation(Config):
    """Configuration of `evaluate gain`."""

    sets: dict[str, Path] = Field(default_factory=dict)
    """By name of the model, the folder of `rewardlab score` (or its Parquet table) of its answers: all to the same
    prompts, by the same scorer."""

    frontier: Path | None = None
    """In place of sets, a folder of `evaluate frontier`: its reference, and the last policy of every training. Lengths
    are those of the policies, in their own tokens."""

    reward: str = REWARD
    """Of a frontier, which reward: `reward` is the one trained on, any other name that of a held-out one."""

    baseline: str | None = None
    """The set that gains are over. Default: the first one; of a frontier its reference."""

    longest_of: str | None = None
    """A set with several answers to a prompt: the longest one of each prompt becomes a set of its own, the gain that
    length alone can make."""

    bin_tokens: int = Field(gain.BIN_TOKENS, ge=1)
    """Width of the bins of length, in tokens."""

    strata: int = Field(4, ge=2, le=20)
    """Parts of equal size by length, and by difference in length."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    title: str = "Gain in reward at equal length"
    """Heading of the page."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.sets) == (self.frontier is not None):
            raise ValueError("expected sets or a frontier, and not both")
        if self.sets and self.reward != REWARD:
            raise ValueError("expected no reward beside sets: it names one of a frontier's")
        if self.frontier is not None:
            return self
        for name in (self.baseline, self.longest_of):
            if name is not None and name not in self.sets:
                raise ValueError(f"expected one of the sets, {', '.join(self.sets)}, not {name}")
        if len(self.sets) + (self.longest_of is not None) < 2:
            raise ValueError("expected two sets at least, or longest_of")
        return self

    @property
    def base(self) -> str:
        """The set that gains are over."""
        return self.baseline or next(iter(self.sets), REFERENCE)


class GainSettings(Protocol):
    """What gains are made with; fields as of `GainEvaluation`."""

    @property
    def base(self) -> str:
        """The set that gains are over."""
        ...

    @property
    def bin_tokens(self) -> int:
        """Width of the bins of length."""
        ...

    @property
    def strata(self) -> int:
        """Parts of equal size by length."""
        ...

    @property
    def level(self) -> float:
        """Coverage of the intervals."""
        ...


class Answers(NamedTuple):
    """The scored answers of one model, prompt by prompt.

    Attributes:
        prompt: id of each answer's prompt; answers of a prompt stand together.
        reward: of each.
        tokens: length of each, in tokens of the scorer.
    """

    prompt: np.ndarray
    reward: np.ndarray
    tokens: np.ndarray

    def only(self, kept: np.ndarray) -> Answers:
        """Those answers."""
        return Answers(self.prompt[kept], self.reward[kept], self.tokens[kept])


@dataclass(frozen=True)
class ReadSets:
    """What is compared: answers by set, what scored them, prompts that not all sets have, and what lengths are in."""

    answers: Mapping[str, Answers]
    scorer: str
    left_out: int
    unit: str = "tokens"


def read_sets(config: GainEvaluation) -> ReadSets:
    """The sets, cut to the prompts that all of them have.

    Raises:
        DataError: tables that cannot be used, of several scorers, without lengths, or without a common prompt; or no
            frontier with that reward and these sets.
    """
    found, scorer = _of_tables(config.sets) if config.frontier is None else _of_frontier(config, config.frontier)
    everywhere = set.intersection(*(set(one.prompt.tolist()) for one in found.values()))
    anywhere = set.union(*(set(one.prompt.tolist()) for one in found.values()))
    if not everywhere:
        remedy = "Sample all of them from the same prompts."
        problem = Problem("sets", "no prompt that all of them have", "answers to the same prompts", remedy)
        raise DataError("The scores cannot be compared", [problem])
    common = np.array(sorted(everywhere))
    found = {name: one.only(np.isin(one.prompt, common)) for name, one in found.items()}
    if config.longest_of is not None:
        found[f"{LONGEST}{config.longest_of}"] = longest(found[config.longest_of])
    return ReadSets(found, scorer, len(anywhere) - len(everywhere))


def _of_tables(sets: Mapping[str, Path]) -> tuple[dict[str, Answers], str]:
    """The answers of every set, and what scored them.

    Raises:
        DataError: tables that cannot be used, of several scorers, or without lengths.
    """
    tables = dict(zip(sets, read_scores(list(sets.values())), strict=True))
    problems = []
    scorers = list(dict.fromkeys(table.scorer for table in tables.values()))
    if len(scorers) > 1:
        problems.append(Problem("sets", f"scores by {', '.join(scorers)}", "one scorer", "Score all of them with one."))
    for table in tables.values():
        if table.tokens is None:
            remedy = "A rule reads no tokens: score with a model, or with an ensemble of one."
            problems.append(Problem(str(table.path), "no lengths in tokens", "a scorer with a tokenizer", remedy))
    if problems:
        raise DataError("The scores cannot be compared", problems)
    return {name: _answers(table) for name, table in tables.items()}, scorers[0]


def _of_frontier(config: GainEvaluation, folder: Path) -> tuple[dict[str, Answers], str]:
    """The answers of a frontier's reference and of the last policy of every training, and what scored them; a
    training among several seeds of its run has its number behind the name.

    Raises:
        DataError: no frontier, or none with that reward and these sets.
    """
    if not all((folder / name).is_file() for name in (RESULT, ROWS)):
        problem = Problem(f"frontier: {folder}", f"no {RESULT} and {ROWS}", "a folder of evaluate frontier")
        raise DataError("There is no frontier", [problem])
    scorers: dict[str, str] = read_json(folder / RESULT)["scorers"]
    reward = REWARD if config.reward == REWARD else f"{HELD_OUT}{config.reward}"
    if reward not in scorers:
        known = ", ".join(name.removeprefix(HELD_OUT) for name in scorers)
        raise DataError("The frontier has no such reward", [Problem("reward", config.reward, f"one of {known}")])
    found = _last_policies(pq.read_table(folder / ROWS), reward)
    problems = [
        Problem(field, name, f"one of {', '.join(found)}")
        for field, name in (("baseline", config.baseline), ("longest_of", config.longest_of))
        if name is not None and name not in found
    ]
    if problems:
        raise DataError("The frontier has no such policies", problems)
    return found, scorers[reward]


def _last_policies(rows: pa.Table, reward: str) -> dict[str, Answers]:
    """The answers of the last policy of every training, by its run, with its seed where the run has several; of
    completions without a reward nothing."""
    names = ("run", "seed", "step", "prompt_id", "tokens", reward)
    run, seed, step, prompt, tokens, rewards = (rows[name].to_numpy(zero_copy_only=False) for name in names)
    last: dict[tuple[str, int], int] = {}
    for one, number, at in zip(run.tolist(), seed.tolist(), step.tolist(), strict=True):
        last[one, number] = max(at, last.get((one, number), at))
    seeds = Counter(one for one, _ in last)
    found = {}
    for (one, number), at in last.items():
        own = (run == one) & (seed == number) & (step == at) & np.isfinite(rewards)
        name = one if seeds[one] == 1 else f"{one}, seed {number}"
        found[name] = Answers(prompt[own].astype(str), rewards[own], tokens[own])
    return found


def _answers(table: ScoreTable) -> Answers:
    """The rows of a table, prompt by prompt, in the order of the rows."""
    prompts = np.empty(len(table.score), dtype=object)
    for (prompt, _, _), row in table.rows.items():
        prompts[row] = prompt
    order = np.argsort(prompts.astype(str), kind="stable")
    tokens = table.tokens if table.tokens is not None else np.zeros(len(order), dtype=np.int64)
    return Answers(prompts[order].astype(str), table.score[order], tokens[order])


def longest(answers: Answers) -> Answers:
    """Of every prompt the answer with the most tokens, of equals the first: the best that length alone chooses.

    Source: Singhal et al. 2023, A long way to go, arXiv 2310.03716, section 4 (longest of N).
    """
    order = np.lexsort((np.arange(len(answers.tokens)), -answers.tokens, answers.prompt))
    first = np.r_[True, answers.prompt[order][1:] != answers.prompt[order][:-1]]
    return answers.only(order[first])


def gain_values(found: ReadSets, config: GainSettings) -> Values:
    """Everything that gain.json holds, without the findings."""
    settings = Settings(config.level, "prompt")
    base = found.answers[config.base]
    others = {name: one for name, one in found.answers.items() if name != config.base}
    means = [one for name, answers in found.answers.items() for one in _means(name, answers, settings)]
    gains, bins = [], {}
    for name, own in others.items():
        estimates, rows = _gain(name, base, own, config, settings)
        gains += estimates
        bins[name] = rows
    groups = {
        "sets": means,
        "gain": gains,
        "strata": _strata(found.answers, config.strata, settings),
        "wins": [one for name, own in others.items() for one in _wins(name, base, own, config.strata, settings)],
    }
    options = {"level": config.level, "bin_tokens": config.bin_tokens}
    prompts = len(np.unique(base.prompt))
    return {
        "scorer": found.scorer,
        "unit": found.unit,
        "baseline": config.base,
        "sets": list(found.answers),
        "options": options,
        "counts": {"prompts": prompts, "left_out": found.left_out},
        "estimates": {name: [one.as_dict() for one in group] for name, group in groups.items()},
        "bins": bins,
    }


def _means(name: str, answers: Answers, settings: Settings) -> list[Estimate]:
    return [
        settings.estimate(f"reward.{name}", mean(answers.reward, answers.prompt, settings.level), "", unit="answers"),
        settings.estimate(
            f"tokens.{name}", mean(answers.tokens.astype(float), answers.prompt, settings.level), "", unit="answers"
        ),
    ]


def _gain(
    name: str, base: Answers, own: Answers, config: GainSettings, settings: Settings
) -> tuple[list[Estimate], list[Values]]:
    """The gain of a set over the baseline, by bins and by regression, and the bins themselves."""
    prompt = np.concatenate([base.prompt, own.prompt])
    tokens = np.concatenate([base.tokens, own.tokens])
    reward = np.concatenate([base.reward, own.reward])
    second = np.arange(len(prompt)) >= len(base.prompt)
    found = gain.jackknifed_gain(tokens, reward, second, prompt, config.bin_tokens)
    point = found.point
    taken = gain.decomposed_gain(tokens, reward, second)
    total = interval(taken.total, prompt, settings.level)
    ratio = _jackknifed(point.ratio, found.ratio, total, settings.level)
    if total.low is None or total.high is None or total.low <= 0.0 <= total.high:
        ratio = Interval(point.ratio, n=total.n, clusters=total.clusters, reason=NO_GAIN)
    parts = [
        ("total", total, TOTAL),
        ("non_length", _jackknifed(point.non_length, found.non_length, total, settings.level), NON_LENGTH),
        ("ratio", ratio, RATIO),
        ("one_sided", Interval(point.one_sided, n=total.n, clusters=total.clusters), ONE_SIDED),
        ("shared", _jackknifed(point.shared, found.shared, total, settings.level), SHARED),
        ("at_equal_length", interval(taken.at_equal_length, prompt, settings.level), LEVEL),
        ("through_length", interval(taken.through_length, prompt, settings.level), THROUGH),
    ]
    estimates = [settings.estimate(f"{part}.{name}", one, said, unit="answers") for part, one, said in parts]
    return estimates, [one._asdict() for one in point.bins]


def _jackknifed(value: float | None, found: Statistic | None, of: Interval, level: float) -> Interval:
    """The interval of a statistic of whole prompts, on the observations that `of` has."""
    if found is None:
        reason = ONE_CLUSTER if of.clusters < 2 else FEW_PROMPTS
        return Interval(value, n=of.n, clusters=of.clusters, reason=reason)
    return interval(found, None, level)._replace(n=of.n, method="jackknife t")


def _strata(answers: Mapping[str, Answers], count: int, settings: Settings) -> list[Estimate]:
    """Mean reward of every set within parts of equal size by the length of all answers."""
    place, edges = gain.strata(np.concatenate([one.tokens for one in answers.values()]).astype(float), count)
    parts = np.split(place, np.cumsum([len(one.tokens) for one in answers.values()])[:-1])
    found = []
    for (name, one), own in zip(answers.items(), parts, strict=True):
        for number, ends in enumerate(_ends(edges)):
            inside = own == number
            value = mean(one.reward[inside], one.prompt[inside], settings.level)
            found.append(settings.estimate(f"stratum.{name}.{ends}", value, STRATUM, unit="answers"))
    return found


def _wins(name: str, base: Answers, own: Answers, count: int, settings: Settings) -> list[Estimate]:
    """How often a set's answer has the higher reward, by difference in length; of several answers to a prompt the
    first meets the first, and so on."""
    left, right = _paired(own, base)
    won = np.array([of_scores(a, b).preference for a, b in zip(own.reward[left], base.reward[right], strict=True)])
    difference = (own.tokens[left] - base.tokens[right]).astype(float)
    prompt = own.prompt[left]
    found = [settings.estimate(f"wins.{name}", proportion(won.astype(float), prompt, settings.level), WINS)]
    place, edges = gain.strata(difference, count)
    for number, ends in enumerate(_ends(edges)):
        inside = place == number
        value = proportion(won[inside].astype(float), prompt[inside], settings.level)
        found.append(settings.estimate(f"wins.{name}.{ends}", value, WINS))
    return found


def _paired(first: Answers, second: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Places of answers that meet, prompt by prompt: the k-th answers of both to it."""
    prompt, prompts = numbered(np.concatenate([first.prompt, second.prompt]))
    parts = np.split(prompt, [len(first.prompt)])
    left, right = (own * len(prompt) + _turns(own, prompts) for own in parts)
    _, one, other = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    return one, other


def _turns(prompt: np.ndarray, prompts: int) -> np.ndarray:
    """Which answer to its prompt each one is, from 0."""
    order = np.argsort(prompt, kind="stable")
    count = np.bincount(prompt, minlength=prompts)
    turn = np.empty(len(prompt), dtype=np.int64)
    turn[order] = np.arange(len(prompt)) - np.repeat(np.cumsum(count) - count, count)
    return turn


def _ends(edges: Sequence[float] | np.ndarray) -> list[str]:
    """What the strata are called; lengths are whole numbers, and so are their edges."""
    return [f"{low:.0f} to {high:.0f}" if high > low else f"{low:.0f}" for low, high in pairwise(edges)]
