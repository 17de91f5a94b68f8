"""`rewardlab evaluate policies`: any number of policies by any number of rewards and judges.

Sets of answers to the same prompts are scored and compared: rewards, win rates of everyone over everyone, a ranking,
length, gains at equal length, and on demand how often answers are bad. The page is drawn in `report.policies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from rewardlab.config import Config
from rewardlab.data.source import DataSource
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.accuracy import text_column
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.gain import Answers, ReadSets, gain_values
from rewardlab.evaluate.policy_answers import AnswerSets, ByPrompt, read_answers
from rewardlab.evaluate.policy_costs import agree_to_all, agreed, is_paid
from rewardlab.evaluate.policy_rankers import (
    PolicyJudge,
    PolicyReward,
    Scores,
    compared_by,
    judged_by,
    preferences,
    scores_of,
)
from rewardlab.evaluate.toxicity import ROWS as TOXICITY_ROWS
from rewardlab.evaluate.toxicity import Classifier, ToxicityEvaluation
from rewardlab.evaluate.toxicity import measure as measure_toxicity
from rewardlab.evaluate.winrate import Matches, comparison_table
from rewardlab.evaluate.winrate_estimates import equal_length_matrix, winrate_values
from rewardlab.functional import gain
from rewardlab.functional.intervals import mean, proportion
from rewardlab.functional.winrate import By, disagreement
from rewardlab.store.runs import Run
from rewardlab.store.table import write_parquet

ANSWERS, COMPARISONS = "answers.parquet", "comparisons.parquet"
Values = dict[str, Any]

LENGTH = "Mean length of the answers."
BAD = "Mean P(bad) of the answers."
OFTEN = "Share of answers with P(bad) above .5."
REWARDED, JUDGED = "reward", "judge"


class FrontierPlace(Config):
    """Where the distance of a policy from its reference stands: in a folder of `evaluate frontier`."""

    text_field: ClassVar[str] = "frontier"

    frontier: Path
    """The folder."""

    run: str | None = None
    """Name of the training there, or reference. Default: the name of the policy."""

    training_seed: int = 0
    """Number of the training's seed."""

    step: int | None = Field(None, ge=0)
    """Step of the checkpoint. Default: the last one."""


class PolicyComparison(Config):
    """Configuration of `evaluate policies`."""

    sets: dict[str, DataSource] = Field(min_length=2)
    """By name of the policy, its answers: a folder of `sample`, or any known format; all on the same prompts."""

    rewards: dict[str, PolicyReward] = Field(default_factory=dict)
    """By name, what scores all answers: a reward model, rule:NAME, any scorer, or a folder of `score`."""

    judges: dict[str, PolicyJudge] = Field(default_factory=dict)
    """By name, who compares the first answers: a judge as of `evaluate winrate`, or the folder of such a run."""

    baseline: str | None = None
    """The policy that the others are compared with. Default: the first one."""

    classifier: Classifier | None = None
    """What says with which probability an answer is bad: {model: ..., bad: LABEL}, or a rule."""

    toxicity: Path | None = None
    """In place of a classifier, a folder of `evaluate toxicity` whose models are called as the sets."""

    kl: dict[str, FrontierPlace] = Field(default_factory=dict)
    """By name of the policy, the folder of `evaluate frontier` that has its KL from the reference."""

    difficulty: By = "joint"
    """How the difficulty of a prompt is found for win rates over the baseline at equal length; as of `evaluate
    winrate`."""

    bin_tokens: int = Field(gain.BIN_TOKENS, ge=1)
    """Width of the bins of length behind the non-length gain, in tokens of the reward; in words where it reads none."""

    strata: int = Field(4, ge=2, le=20)
    """Parts of equal size by length, and by difference in length."""

    draws: int = Field(500, ge=100)
    """Resamples of prompts behind an interval."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every set (smoke run)."""

    max_examples: int = Field(300, ge=0, le=5000)
    """Most prompts that the browser of the page carries along, with all their answers."""

    title: str = "Policies side by side"
    """Heading of the page."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the resamples, the folds, and the examples drawn at random."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.rewards and not self.judges:
            raise ValueError("expected a reward or a judge")
        both = [name for name in self.rewards if name in self.judges]
        if both:
            raise ValueError(f"expected other names of judges than those of rewards: {', '.join(both)}")
        if self.baseline is not None and self.baseline not in self.sets:
            raise ValueError(f"expected a baseline among the sets: {', '.join(self.sets)}")
        if self.classifier is not None and self.toxicity is not None:
            raise ValueError("expected a classifier or a folder of `evaluate toxicity`, not both")
        strangers = [name for name in self.kl if name not in self.sets]
        if strangers:
            raise ValueError(f"expected kl of the sets, {', '.join(self.sets)}, not of {', '.join(strangers)}")
        for name, reward in self.rewards.items():
            if len(reward.scored) not in (0, 1, len(self.sets)):
                raise ValueError(f"expected one table of {name}, or one for each of the {len(self.sets)} sets")
        return self

    @property
    def base(self) -> str:
        """The policy that the others are compared with."""
        return self.baseline or next(iter(self.sets))


class Bad(NamedTuple):
    """How bad answers are.

    Attributes:
        values: P(bad) of every answer.
        measures: what that is.
    """

    values: ByPrompt
    measures: str


@dataclass(frozen=True)
class Compared:
    """What was measured.

    Attributes:
        values: what summary.json holds, without the findings.
        sets: the answers.
        scores: of every reward.
        preference: of every ranker, rewards before judges: prompts by pairs of policies, in the order of
            `combinations`; NaN where there is none.
        bad: how bad the answers are; None where it was not measured.
    """

    values: Values
    sets: AnswerSets
    scores: list[Scores]
    preference: Mapping[str, np.ndarray]
    bad: Bad | None

    def disagreements(self) -> list[float | None]:
        """By prompt, how much the rankers differ, from 0 to 1; None where fewer than two have ranked."""
        by_prompt = np.stack(list(self.preference.values()), axis=1)
        return [None if np.isnan(one) else one for one in map(disagreement, by_prompt)]


def measure(config: PolicyComparison, run: Run) -> Compared:
    """Read, judge, score and estimate; writes `answers.parquet` and `comparisons.parquet`.

    Raises:
        DataError: answers, scores or preferences that cannot be used.
        ConfigError: a judge without an endpoint.
        RewardlabError: as `score`, `evaluate winrate` and `evaluate toxicity`.
    """
    sets = read_answers(config.sets, config.limit)
    run.log.info("%d prompts that all %d policies have answered", len(sets.prompts), len(sets.names))
    files = sets.write(run)
    matches: dict[str, Matches] = {}
    # What is read may be refused, and what is paid for declined: both come first, in this order.
    numbered = list(enumerate(config.judges.items()))
    for paid in (False, True):
        if paid:
            agree_to_all(config.judges, config.rewards, sets, config.base)
        for number, (name, judge) in numbered:
            if is_paid(judge) == paid:
                part = run.part(f"judges/{number}")
                matches[name] = judged_by(name, agreed(judge), sets, files, config.base, part, config.seed)
    matches = {name: matches[name] for name in config.judges}
    scores = [
        scores_of(name, agreed(reward), sets, files, run.part(f"rewards/{number}"))
        for number, (name, reward) in enumerate(config.rewards.items())
    ]
    bad = _bad(config, run, sets, files)
    matches = {one.name: compared_by(one, sets, config.base) for one in scores} | matches
    write_parquet(run.path(ANSWERS), _answer_table(sets, scores, bad))
    rows = [one for found in matches.values() for one in found.compared]
    write_parquet(run.path(COMPARISONS), comparison_table(rows))
    run.log.info("win rates by %s", ", ".join(matches))
    values = policy_values(config, sets, scores, matches, bad)
    return Compared(values, sets, scores, {name: preferences(found, sets) for name, found in matches.items()}, bad)


def policy_values(
    config: PolicyComparison,
    sets: AnswerSets,
    scores: Sequence[Scores],
    matches: Mapping[str, Matches],
    bad: Bad | None = None,
) -> Values:
    """Everything that summary.json holds, but for the findings and distances.

    Args:
        config: how numbers are made.
        sets: the answers.
        scores: of every reward.
        matches: by reward or judge, who won.
        bad: how bad the answers are.
    """
    settings = Settings(config.level, "prompt", config.seed)
    unit, lengths = lengths_of(sets, scores)
    rankers = {}
    for name, found in matches.items():
        own = winrate_values(found, config, {one: judge.rule for one, judge in config.judges.items() if one == name})
        kind = JUDGED if name in config.judges else REWARDED
        even = equal_length_matrix(found.compared, sets.names, settings)
        rankers[name] = {"kind": kind, **own, "equal_length_matrix": even}
    return {
        "policies": sets.names,
        "baseline": config.base,
        "options": {name: getattr(config, name) for name in ("level", "draws", "seed", "bin_tokens", "difficulty")},
        "counts": {"prompts": len(sets.prompts), "answers": {name: sets.total(name) for name in sets.names}},
        "left_out": dict(sets.counts),
        "lengths": {
            "unit": unit,
            "estimates": [_mean(f"length.{name}", name, lengths, sets, settings, LENGTH) for name in sets.names],
            "quartiles": {
                name: np.quantile(np.concatenate(lengths[name]), [0.25, 0.5, 0.75]).tolist() for name in sets.names
            },
        },
        "rewards": {one.name: _gains(one, sets, config) for one in scores},
        "rankers": rankers,
        "bad": None
        if bad is None
        else {"measures": bad.measures, "estimates": _bad_estimates(bad.values, sets, settings)},
    }


def lengths_of(sets: AnswerSets, scores: Sequence[Scores]) -> tuple[str, ByPrompt]:
    """Unit and length of all answers: tokens of the first reward that reads any, else words."""
    reading = next((one for one in scores if one.tokens is not None), None)
    return ("words", sets.words) if reading is None else reading.lengths(sets)


def _mean(
    label: str, name: str, numbers: ByPrompt, sets: AnswerSets, settings: Settings, reading: str
) -> dict[str, Any]:
    found = mean(np.concatenate(numbers[name]).astype(np.float64), sets.prompt_ids(name), settings.level)
    return settings.estimate(label, found, reading, unit="answers").as_dict()


def _gains(scores: Scores, sets: AnswerSets, config: PolicyComparison) -> Values:
    """Mean rewards and gains over the baseline, as `evaluate gain` has them: of the prompts on which every policy has
    an answer with a score, the answers that have one."""
    unit, lengths = scores.lengths(sets)
    missing = {name: [np.isnan(one) for one in scores.values[name]] for name in sets.names}
    common = np.array([not any(own[number].all() for own in missing.values()) for number in range(len(sets.prompts))])
    if not common.any():
        found = "no prompt on which every policy has an answer with a score"
        problem = Problem(f"rewards.{scores.name}", found, "scores of the same prompts")
        raise DataError("The policies cannot be compared by this reward", [problem])
    answers = {}
    for name in sets.names:
        ids = sets.prompt_ids(name)
        reward = np.concatenate(scores.values[name])
        kept = ~np.isnan(reward) & np.repeat(common, [len(one) for one in sets.texts[name]])
        answers[name] = Answers(ids, reward, np.concatenate(lengths[name])).only(kept)
    unscored = sum(int(one.sum()) for own in missing.values() for one in own)
    found_sets = ReadSets(answers, scores.scorer, int((~common).sum()), unit)
    return {"unscored": unscored, **gain_values(found_sets, config)}


# --- how bad -------------------------------------------------------------------------------------------------------


def _bad(config: PolicyComparison, run: Run, sets: AnswerSets, files: Sequence[Path]) -> Bad | None:
    """P(bad) of every answer; None where nobody asked.

    Raises:
        DataError: a folder that cannot be read, or does not hold all answers.
        RewardlabError: as `evaluate toxicity`.
    """
    if config.toxicity is not None:
        path = config.toxicity / TOXICITY_ROWS
        try:
            table = pq.ParquetFile(path).read(columns=["model", "responses", "response_score"])
        except (OSError, pa.ArrowException) as error:
            problem = Problem(str(path), str(error).splitlines()[0], "what `evaluate toxicity` wrote")
            raise DataError("cannot read how bad the answers are", [problem]) from error
        return Bad(_found_bad(table, sets, path), f"P(bad) in {config.toxicity}")
    if config.classifier is None:
        return None
    models = {name: {"completions": str(file)} for name, file in zip(sets.names, files, strict=True)}
    own = config.classifier.model_dump(mode="json")
    values = {"models": models, "classifier": own, "level": config.level, "seed": config.seed}
    found = measure_toxicity(ToxicityEvaluation.build(values), run.part("toxicity"))
    return Bad(_found_bad(found.table, sets, run.path("toxicity")), str(found.values["measures"]))


def _found_bad(table: pa.Table, sets: AnswerSets, where: Path) -> ByPrompt:
    """P(bad) of every answer: the classifier reads answers alone, so equal texts have one value.

    Raises:
        DataError: answers that the table does not hold.
    """
    texts = text_column([text for own in sets.texts.values() for answers in own for text in answers]).to_pylist()
    known = dict(zip(table["responses"].to_pylist(), table["response_score"].to_pylist(), strict=True))
    missing = sum(text not in known for text in texts)
    if missing:
        problem = Problem(str(where), f"nothing on {missing:,} of {len(texts):,} answers", "P(bad) of every answer")
        raise DataError("It is not known how bad all answers are", [problem])
    scores = iter([known[text] for text in texts])
    return {
        name: [np.array([next(scores) for _ in answers], dtype=np.float64) for answers in own]
        for name, own in sets.texts.items()
    }


def _bad_estimates(bad: ByPrompt, sets: AnswerSets, settings: Settings) -> list[dict[str, Any]]:
    found = []
    for name in sets.names:
        own, clusters = np.concatenate(bad[name]), sets.prompt_ids(name)
        often = proportion((own > 0.5).astype(float), clusters, settings.level)
        found += [
            settings.estimate(f"mean.{name}", proportion(own, clusters, settings.level), BAD, unit="answers"),
            settings.estimate(f"share.{name}", often, OFTEN, unit="answers"),
        ]
    return [one.as_dict() for one in found]


# --- the table -----------------------------------------------------------------------------------------------------


def _answer_table(sets: AnswerSets, scores: Sequence[Scores], bad: Bad | None) -> pa.Table:
    """A row per answer."""

    def flat(numbers: ByPrompt, kind: pa.DataType) -> pa.Array:
        joined = np.concatenate([one for name in sets.names for one in numbers[name]])
        return pa.array(joined, kind, from_pandas=True)

    counts = [len(own) for name in sets.names for own in sets.texts[name]]
    columns = {
        "policy": text_column([name for name in sets.names for _ in range(sets.total(name))]),
        "prompt_id": pa.array(np.concatenate([sets.prompt_ids(name) for name in sets.names]).tolist(), pa.string()),
        "number": pa.array([at for count in counts for at in range(count)], pa.int32()),
        "answer": text_column([text for name in sets.names for own in sets.texts[name] for text in own]),
        "words": flat(sets.words, pa.int32()),
        "characters": flat(sets.characters, pa.int32()),
    }
    for one in scores:
        columns[f"reward.{one.name}"] = flat(one.values, pa.float64())
        if one.tokens is not None:
            columns[f"tokens.{one.name}"] = flat(one.tokens, pa.int32())
    if bad is not None:
        columns["bad"] = flat(bad.values, pa.float64())
    return pa.table(columns)
