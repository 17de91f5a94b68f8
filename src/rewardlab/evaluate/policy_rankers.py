"""Who ranks policies: rewards, by the scores of all answers, and judges, by preferences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from rewardlab.config import Paths
from rewardlab.data.source import DataSource
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate import winrate
from rewardlab.evaluate.policy_answers import AnswerSets, ByPrompt
from rewardlab.evaluate.winrate import Compared, Matches, WinJudge, WinrateEvaluation, meetings
from rewardlab.evaluate.winrate_estimates import turned
from rewardlab.functional.winrate import preference_of_scores
from rewardlab.records import Candidates, Prompt
from rewardlab.score.comparing import Verdict
from rewardlab.score.score import ScorerOptions, Scoring, score_file
from rewardlab.score.tables import SCORES, Matcher, ScoreTable, read_scores
from rewardlab.store.runs import Run

WORDS, TOKENS = "words", "tokens"
NO_SCORE = "no score"
OTHERS = "comparisons of other policies or prompts"
REPLACED = "comparisons of other answers than those given"
_WHO = ("model", "baseline", "prompt_id", "occurrence", "characters", "baseline_characters")
_IDS = ("answer_id", "baseline_answer_id")
_COLUMNS = (*_WHO, "preference", "leading", "trailing", "reason", *_IDS)


class PolicyReward(ScorerOptions):
    """A reward: any scorer, or the scores that it has given already; its name alone, or a folder of `score`, stands for
    it."""

    text_field: ClassVar[str] = "model"

    tables: Paths = ()
    """In place of a scorer, folders of `score` (or their tables): one per set in their order, or one with the answers
    of all sets."""

    @model_validator(mode="after")
    def _names_a_scorer(self) -> Self:
        if self.tables and self.named:
            raise ValueError("expected tables or a scorer, not both")
        if not self.tables and len(self.named) != 1:
            raise ValueError("expected one of a model (or template), an ensemble, an implicit reward, and tables")
        return self

    @property
    def scored(self) -> tuple[Path, ...]:
        """Where the scores are; empty for a scorer."""
        if self.tables or self.model is None:
            return self.tables
        path = Path(self.model)
        return (path,) if path.suffix == ".parquet" or (path / SCORES).is_file() else ()

    def options(self) -> dict[str, Any]:
        """As options of `score`."""
        return self.model_dump(mode="json", exclude={"tables"})


class PolicyJudge(WinJudge):
    """Whoever prefers: as of `evaluate winrate`, or what such a run or people's files have recorded; a name alone, or
    a folder of `evaluate winrate`, stands for it."""

    recorded: dict[str, DataSource] = Field(default_factory=dict)
    """In place of a judge: by name of the set, preferences that were recorded, as of `evaluate winrate`."""

    over: str | None = None
    """The set that recorded preferences are over: whose answer output_1 is. Default: the baseline."""

    @model_validator(mode="after")
    def _names_a_scorer(self) -> Self:
        if bool(self.recorded) + len(self.named) != 1:
            raise ValueError("expected one of a judge, a folder of `evaluate winrate`, and recorded preferences")
        if self.over is not None and not self.recorded:
            raise ValueError("expected recorded preferences beside over")
        if self.references is not None:
            raise ValueError("expected no references: answers are compared with each other")
        return self

    @property
    def folder(self) -> Path | None:
        """The folder of `evaluate winrate` that holds the preferences, where it is one."""
        path = None if self.model is None else Path(self.model)
        return path if path is not None and (path / winrate.ROWS).is_file() else None


@dataclass(frozen=True)
class Scores:
    """What a reward gives.

    Attributes:
        name: of the reward.
        scorer: what computes it.
        values: the reward of every answer; NaN where there is none.
        tokens: length of every answer in the scorer's tokens; None where it reads none.
    """

    name: str
    scorer: str
    values: ByPrompt
    tokens: ByPrompt | None

    def lengths(self, sets: AnswerSets) -> tuple[str, ByPrompt]:
        """Unit and length of every answer: the scorer's tokens, else words."""
        return (WORDS, sets.words) if self.tokens is None else (TOKENS, self.tokens)


# --- rewards -------------------------------------------------------------------------------------------------------


def scores_of(name: str, reward: PolicyReward, sets: AnswerSets, files: Sequence[Path], part: Run) -> Scores:
    """The rewards of all answers: read, or computed in a folder of `score`, which goes on where it was.

    Args:
        name: of the reward.
        reward: how it is made.
        sets: what is scored.
        files: the same in canonical files.
        part: where the scorer works.

    Raises:
        DataError: tables that cannot be used, or lack answers.
        RewardlabError: as `score`.
    """
    tables = reward.scored
    if not tables:
        data = [{"path": str(file), "adapter": "canonical"} for file in files]
        score_file(Scoring.build(reward.options() | {"data": data}), part)
        tables = (part.path(SCORES),)
    found = read_scores(tables, unscored=True)
    scorers = list(dict.fromkeys(table.scorer for table in found))
    if len(scorers) > 1:
        problem = Problem(f"rewards.{name}", f"scores by {', '.join(scorers)}", "one scorer", "Give each a name.")
        raise DataError("The scores cannot be compared", [problem])
    rows = _matched(found, sets, sets.own if reward.scored else dict.fromkeys(sets.names, sets.prompts))
    values = {policy: [found[at].score[row] for row in own] for policy, (at, own) in rows.items()}
    unscored = [policy for policy, own in values.items() if all(np.isnan(one).all() for one in own)]
    if unscored:
        problems = [Problem(f"rewards.{name}", f"no score for any answer of {policy}", "scores") for policy in unscored]
        raise DataError("Policies without a score cannot be compared", problems)
    lengths = [table.tokens for table in found]
    tokens = None
    if all(one is not None for one in lengths):
        kept = [one for one in lengths if one is not None]
        tokens = {policy: [kept[at][row] for row in own] for policy, (at, own) in rows.items()}
    return Scores(name, scorers[0], values, tokens)


def _matched(
    tables: Sequence[ScoreTable], sets: AnswerSets, prompts: Mapping[str, Sequence[Prompt]]
) -> dict[str, tuple[int, list[np.ndarray]]]:
    """By policy, the number of its table and the rows of its answers there, prompt by prompt."""
    matchers = [Matcher(table) for table in tables]
    found = {}
    for number, (policy, texts) in enumerate(sets.texts.items()):
        at = number if len(tables) > 1 else 0
        records = [Candidates(*both) for both in zip(prompts[policy], texts, strict=True)]
        found[policy] = at, [matchers[at].rows(one, f"{policy}, prompt {one.prompt.id}") for one in records]
    problems = [problem for matcher in matchers for problem in matcher.problems]
    if problems:
        raise DataError("scores are missing", problems)
    return found


def compared_by(scores: Scores, sets: AnswerSets, baseline: str) -> Matches:
    """Every policy against every other one, prompt by prompt: how often its answers have the higher reward.

    Where there are several answers to a prompt, all pairs of them count, and lengths are means.
    """
    mean_lengths = {name: [own.mean() for own in values] for name, values in sets.characters.items()}
    rows = []
    for model, other in meetings(sets.names, baseline):
        for number, prompt in enumerate(sets.prompts):
            won = preference_of_scores(scores.values[model][number], scores.values[other][number])
            verdict = Verdict(None, reason=NO_SCORE) if np.isnan(won) else Verdict(won)
            own, others = (round(float(mean_lengths[who][number])) for who in (model, other))
            rows.append(Compared(model, other, prompt, 0, own, others, scores.name, verdict))
    return Matches(rows, judges={scores.name: scores.scorer})


# --- judges --------------------------------------------------------------------------------------------------------


def judged_by(
    name: str, judge: PolicyJudge, sets: AnswerSets, files: Sequence[Path], baseline: str, part: Run, seed: int
) -> Matches:
    """The comparisons of a judge: asked for now, or read; of the policies and prompts that are compared.

    A judge reads the first answer to each prompt. Preferences that were recorded count where the answers given are
    those that were compared.

    Args:
        name: of the judge.
        judge: who it is.
        sets: what is compared.
        files: the same in canonical files.
        baseline: the first of the two wherever it takes part.
        part: where its answers are kept.
        seed: of the judge.

    Raises:
        DataError: preferences that cannot be used, or none of these policies and prompts.
        RewardlabError: as `evaluate winrate`.
    """
    if judge.folder is not None:
        rows, what = list(_kept(judge.folder, sets)), str(judge.folder)
    elif judge.recorded:
        over = judge.over or baseline
        recorded = {policy: source.model_dump(mode="json") for policy, source in judge.recorded.items()}
        values: dict[str, Any] = {"recorded": recorded, "baseline": over}
        found = winrate.compare(WinrateEvaluation.build(values), part)
        rows, what = list(found.compared), "preferences in the files"
    else:
        own = judge.model_dump(mode="json", exclude={"recorded", "over"})
        answers = {
            policy: {"path": str(file), "adapter": "canonical"} for policy, file in zip(sets.names, files, strict=True)
        }
        values = {"sets": answers, "judge": own, "baseline": baseline, "seed": seed}
        found = winrate.compare(WinrateEvaluation.build(values), part)
        rows, what = list(found.compared), next(iter(found.judges.values()))
    between = [
        turned(one._replace(judge=name, prompt=sets.prompts[place]), baseline if baseline in pair else one.baseline)
        for one in rows
        if (place := sets.places.get(one.prompt.id)) is not None
        and (pair := {one.model, one.baseline}) <= set(sets.names)
    ]
    given = _given(sets)
    kept = [
        one
        for one in between
        if (one.model, one.prompt.id, one.answer_id) in given
        and (one.baseline, one.prompt.id, one.baseline_answer_id) in given
    ]
    if between and not kept:
        others = f"{len(between)} comparisons between the sets on their prompts, all of other answers"
        remedy = (
            "Where answers were replaced since, have them compared anew; what a judge has answered is not paid again."
        )
        problem = Problem(f"judges.{name}", others, "comparisons of the answers that are given", remedy)
        raise DataError("The preferences are about other answers", [problem])
    if not any(one.verdict.preference is not None for one in kept):
        listed = ", ".join(sorted({who for one in rows for who in (one.model, one.baseline)})) or "nobody"
        seen = f"{len(rows)} comparisons of {listed}, none with a preference between two of the sets on their prompts"
        remedy = "Names of sets have to be those of the comparisons; the baseline's answers are a set too."
        problem = Problem(f"judges.{name}", seen, f"comparisons of {', '.join(sets.names)}", remedy)
        raise DataError("There are no preferences between the policies", [problem])
    counts = {OTHERS: len(rows) - len(between), REPLACED: len(between) - len(kept)}
    return Matches(kept, judges={name: what}, counts={what: count for what, count in counts.items() if count})


def _given(sets: AnswerSets) -> set[tuple[str, str, str]]:
    """Policy, prompt_id and answer_id of every answer."""
    return {
        (name, prompt.id, winrate.answer_id(text))
        for name, answers in sets.texts.items()
        for prompt, own in zip(sets.prompts, answers, strict=True)
        for text in own
    }


def _kept(folder: Path, sets: AnswerSets) -> Iterator[Compared]:
    """The comparisons that `evaluate winrate` wrote, of the prompts that are compared and of others.

    Raises:
        DataError: the table cannot be read.
    """
    path = folder / winrate.ROWS
    try:
        table = pq.ParquetFile(path).read(columns=list(_COLUMNS))
        rows = table.to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        problem = Problem(str(path), str(error).splitlines()[0], "what `evaluate winrate` wrote")
        raise DataError("cannot read the comparisons", [problem]) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        remedy = ""
        if set(missing) == set(_IDS):
            remedy = "It is of an earlier version: run it anew. What a judge has answered is not paid again."
        problem = Problem(str(path), f"no column {', '.join(missing)}", "what `evaluate winrate` wrote", remedy)
        raise DataError("cannot read the comparisons", [problem])
    elsewhere = Prompt(())
    for row in rows:
        place = sets.places.get(row["prompt_id"])
        prompt = elsewhere if place is None else sets.prompts[place]
        verdict = Verdict(row["preference"], row["leading"], row["trailing"], row["reason"] or "")
        lengths = row["characters"], row["baseline_characters"]
        ids = (row[name] or "" for name in _IDS)
        yield Compared(row["model"], row["baseline"], prompt, row["occurrence"], *lengths, "", verdict, *ids)


def preferences(found: Matches, sets: AnswerSets) -> np.ndarray:
    """Preference of the first of every two policies over the second, prompts by pairs, in the order of `combinations`;
    NaN where there is none, the mean where a prompt was compared several times."""
    pairs = {pair: number for number, pair in enumerate(combinations(sets.names, 2))}
    sums = np.zeros((2, len(sets.prompts), len(pairs)))
    for one in found.compared:
        if one.verdict.preference is None:
            continue
        forward = (one.model, one.baseline) in pairs
        pair = pairs[(one.model, one.baseline) if forward else (one.baseline, one.model)]
        own = one.verdict.preference if forward else 1.0 - one.verdict.preference
        sums[:, sets.places[one.prompt.id], pair] += own, 1.0
    return np.asarray(np.divide(sums[0], sums[1], out=np.full_like(sums[0], np.nan), where=sums[1] > 0.0))
