"""`rewardlab evaluate winrate`: whose answers are preferred, by any judge, raw and at equal length.

Sets of answers are matched by what was asked and compared by a judge, or preferences that were recorded are read. The
numbers are made in `winrate_estimates`, the page is drawn in `report.winrate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import pyarrow as pa
from pydantic import Field, model_validator

from rewardlab.config import Config
from rewardlab.data.adapters.comparison import Comparison
from rewardlab.data.canonical import write_records
from rewardlab.data.comparisons import read_recorded
from rewardlab.data.load import load_all
from rewardlab.data.source import DataSource, Sources, with_limit
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.functional.winrate import By
from rewardlab.llm.agree import Agreement
from rewardlab.records import Candidates, Pair, Prompt, content_id
from rewardlab.score.comparing import (
    ComparingJudge,
    Duel,
    Rule,
    Verdict,
    agree_to,
    comparing_judge,
    drawn_judge,
    is_comparing,
    of_scores,
    verdicts,
)
from rewardlab.score.references import asked
from rewardlab.score.score import ScorerOptions, Scoring, score_file
from rewardlab.store.runs import Run
from rewardlab.store.table import write_parquet

ROWS = "comparisons.parquet"
BASELINE = "baseline"
JUDGE = "judge"
RECORDED = "recorded"
EMPTY = "empty answer"


class AnswerSet(DataSource):
    """The answers of one model, in any known format; a path alone stands for it."""

    pick: Literal["first", "longest"] = "first"
    """Of several answers to a prompt, which one: the first, or the one with the most characters."""


class WinJudge(ScorerOptions):
    """Whoever prefers: a chat model that compares (judge:win, judge:alpaca, judge:FILE.yaml, with an endpoint), or any
    scorer, whose higher score wins; its name alone stands for it."""

    text_field: ClassVar[str] = "model"

    rule: Rule = "word"
    """Of a chat model that compares, how both orders make a preference: word (both name the same answer, else a tie),
    or probability (the mean of the probabilities of the answer's letter)."""


class WinrateEvaluation(Config):
    """Configuration of `evaluate winrate`."""

    sets: dict[str, AnswerSet] = Field(default_factory=dict)
    """By name of the model, its answers: canonical candidates or rated records, `sample` runs, AlpacaEval outputs."""

    recorded: dict[str, DataSource] = Field(default_factory=dict)
    """By name of the model, preferences that were recorded, in place of sets and a judge: AlpacaEval annotations, where
    output_1 is the baseline's and a preference goes from 1 (the baseline) to 2 (the model)."""

    labelled: Sources = Field(default_factory=list)
    """Pairs that people have decided (LLMBar): how often the judge agrees with them is reported."""

    judge: WinJudge | None = None
    """Who compares the answers."""

    pool: dict[str, WinJudge] = Field(default_factory=dict)
    """Several judges by name in place of one: each prompt goes to one of them, drawn by a seeded hash."""

    baseline: str | None = None
    """The set that the others are compared with. Default: the first one; of recorded preferences what it is called."""

    pairs: Literal["all", "baseline"] = "all"
    """Which sets meet: all of them, for a ranking, or each the baseline alone."""

    difficulty: By = "joint"
    """How the difficulty of an instruction is found for the win rate at equal length: joint (over all models, as
    published), others (for each model over the others), or none."""

    draws: int = Field(500, ge=100)
    """Resamples of prompts behind an interval."""

    strata: int = Field(5, ge=2, le=20)
    """Parts of equal size by difference in length."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    title: str = "Win rates"
    """Heading of the page."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the resamples, the folds and the judges drawn from a pool."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        judges = (self.judge is not None) + bool(self.pool)
        if self.recorded and (self.sets or judges):
            raise ValueError("expected recorded preferences, or sets with a judge, not both")
        if not self.recorded and not self.sets and not self.labelled:
            raise ValueError("expected sets of answers, recorded preferences, or labelled pairs")
        if len(self.sets) == 1:
            raise ValueError("expected two sets at least")
        if (self.sets or self.labelled) and judges != 1:
            raise ValueError("expected a judge, or a pool of them")
        if self.sets and self.baseline is not None and self.baseline not in self.sets:
            raise ValueError(f"expected a baseline among the sets: {', '.join(self.sets)}")
        if self.recorded and self.baseline in self.recorded:
            raise ValueError("expected a baseline that is called otherwise than the models")
        given = [name for name, one in self.judges.items() if one.references is not None]
        if given:
            raise ValueError(f"expected no references of {', '.join(given)}: answers are compared with each other")
        return self

    @property
    def judges(self) -> dict[str, WinJudge]:
        """The judges by name; none where preferences were recorded."""
        return {JUDGE: self.judge} if self.judge is not None else dict(self.pool)

    @property
    def base(self) -> str:
        """What the baseline is called."""
        return self.baseline or next(iter(self.sets), BASELINE)


class Compared(NamedTuple):
    """One comparison.

    Attributes:
        model, baseline: whose answers.
        prompt: what was asked.
        occurrence: how often the same was asked before, in the same files.
        characters, baseline_characters: lengths of the answers.
        judge: who compared them.
        verdict: what came of it, for the model.
        answer_id, baseline_answer_id: which answers were compared, by `answer_id`; empty where it was several.
    """

    model: str
    baseline: str
    prompt: Prompt
    occurrence: int
    characters: int
    baseline_characters: int
    judge: str
    verdict: Verdict
    answer_id: str = ""
    baseline_answer_id: str = ""


class Labelled(NamedTuple):
    """A pair that people have decided: `verdict` is of the answer that they prefer."""

    file: str
    prompt: Prompt
    judge: str
    verdict: Verdict


@dataclass(frozen=True)
class Matches:
    """Everything that was compared.

    Attributes:
        compared: comparisons of models.
        labelled: pairs with people's labels.
        judges: name of each judge, with what it is.
        counts: rows set aside, without a preference or without a partner, by what they are.
    """

    compared: Sequence[Compared]
    labelled: Sequence[Labelled] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def said(self) -> list[tuple[str, str, Verdict]]:
        """Judge, id of what was asked, and verdict of everything that was judged."""
        models = [(one.judge, asked(one.prompt), one.verdict) for one in self.compared]
        return [*models, *((one.judge, asked(one.prompt), one.verdict) for one in self.labelled)]


def compare(config: WinrateEvaluation, run: Run) -> Matches:
    """Read the answers and have them compared, or read preferences; writes `comparisons.parquet`.

    Raises:
        DataError: files that cannot be used, or sets without a common prompt.
        ConfigError: a judge without an endpoint.
        RunError: what a judge costs is declined or over its budget; every answer is kept.
    """
    found = _recorded(config) if config.recorded else _judged(config, run)
    write_parquet(run.path(ROWS), comparison_table(found.compared))
    return found


# --- recorded ------------------------------------------------------------------------------------------------------


def _recorded(config: WinrateEvaluation) -> Matches:
    """The preferences of all files.

    Raises:
        DataError: files that cannot be read, or that have different outputs of the baseline to one prompt.
    """
    rows: list[Compared] = []
    counts: dict[str, int] = {}
    baseline: dict[_Key, Comparison] = {}
    problems = []
    for name, source in config.recorded.items():
        read = read_recorded(with_limit(source, config.limit))
        counts[f"rows of {name} without a preference"] = read.missing
        seen: dict[str, int] = {}
        others = []
        for one in read.comparisons:
            key = asked(one.prompt)
            occurrence = seen.get(key, 0)
            seen[key] = occurrence + 1
            before = baseline.setdefault((key, occurrence), one)
            if answer_id(before.first) != answer_id(one.first):
                others.append((one, before))
            if one.preference is None:
                continue
            verdict, lengths = Verdict(one.preference - 1.0), (len(one.second), len(one.first))
            ids = answer_id(one.second), answer_id(one.first)
            rows.append(Compared(name, config.base, one.prompt, occurrence, *lengths, RECORDED, verdict, *ids))
        if others:
            problems.append(_another_baseline(name, others))
    if problems:
        raise DataError("The recorded preferences are not over one baseline", problems)
    return Matches(rows, judges={RECORDED: "preferences in the files"}, counts=counts)


def _another_baseline(name: str, others: Sequence[tuple[Comparison, Comparison]]) -> Problem:
    one, before = others[0]
    found = f"{len(others):,} rows with another output_1 than {before.source.file} has for the prompt, this the first"
    remedy = "Compare files over different baselines in runs of their own."
    return Problem(f"recorded.{name}, {one.source}", found, "one output_1 (the baseline's) to each prompt", remedy)


# --- judged --------------------------------------------------------------------------------------------------------


class _Task(NamedTuple):
    """A duel to be judged, and whose it is; of labelled pairs the file."""

    model: str
    baseline: str
    duel: Duel
    occurrence: int
    judge: str


_Key = tuple[str, int]
_Answers = dict[_Key, tuple[Prompt, str]]


def _judged(config: WinrateEvaluation, run: Run) -> Matches:
    counts: dict[str, int] = {}
    tasks = _tasks(config, _answers(config, counts), counts)
    labelled = _labelled(config, counts)
    found = _verdicts(config, run, [*tasks, *labelled])
    compared = [
        Compared(
            one.model,
            one.baseline,
            one.duel.prompt,
            one.occurrence,
            len(one.duel.first),
            len(one.duel.second),
            one.judge,
            verdict,
            answer_id(one.duel.first),
            answer_id(one.duel.second),
        )
        for one, verdict in zip(tasks, found, strict=False)
    ]
    decided = [
        Labelled(one.model, one.duel.prompt, one.judge, verdict)
        for one, verdict in zip(labelled, found[len(tasks) :], strict=True)
    ]
    judges = {name: _judge_words(one) for name, one in config.judges.items()}
    return Matches(compared, decided, judges, counts)


def _judge_words(judge: WinJudge) -> str:
    named = judge.model or judge.template or ("an ensemble" if judge.ensemble else "an implicit reward")
    return f"{named} by {judge.endpoint.model}" if judge.endpoint else named


def _answers(config: WinrateEvaluation, counts: dict[str, int]) -> dict[str, _Answers]:
    """By set, the answer to each prompt."""
    sources = [with_limit(one, config.limit) for one in config.sets.values()]
    found: dict[str, _Answers] = {}
    for (name, source), loaded in zip(config.sets.items(), load_all(sources, usable=True), strict=True):
        seen: dict[str, int] = {}
        own: _Answers = {}
        for record in loaded.records:
            if not record.completions:
                continue
            key = asked(record.prompt)
            occurrence = seen.get(key, 0)
            seen[key] = occurrence + 1
            pick = max(record.completions, key=len) if source.pick == "longest" else record.completions[0]
            own[key, occurrence] = (record.prompt, pick)
        found[name] = own
        if loaded.set_aside:
            counts[f"rows of {name} set aside"] = len(loaded.set_aside)
        if loaded.dropped:
            counts[f"empty completions of {name} dropped"] = loaded.dropped
    return found


def meetings(names: Sequence[str], baseline: str, pairs: Literal["all", "baseline"] = "all") -> list[tuple[str, str]]:
    """Who meets whom: each the baseline, then, of `all`, each of the others each other one."""
    others = [name for name in names if name != baseline]
    return [*((name, baseline) for name in others), *(combinations(others, 2) if pairs == "all" else ())]


def _tasks(config: WinrateEvaluation, answers: Mapping[str, _Answers], counts: dict[str, int]) -> list[_Task]:
    """Who meets whom over which prompt.

    Raises:
        DataError: two sets that are to meet have no prompt in common.
    """
    tasks, problems = [], []
    for model, other in meetings(list(config.sets), config.base, config.pairs):
        common = [key for key in answers[model] if key in answers[other]]
        alone = len(answers[model]) + len(answers[other]) - 2 * len(common)
        if alone:
            counts[f"answers of {model} or {other} without a partner"] = alone
        if not common:
            found = f"no prompt that {other} ({config.sets[other].path}) has too"
            problems.append(Problem(config.sets[model].path, found, "answers to the same prompts"))
        for key in common:
            prompt, first = answers[model][key]
            judge = drawn_judge(list(config.judges), key[0], config.seed)
            tasks.append(_Task(model, other, Duel(prompt, first, answers[other][key][1]), key[1], judge))
    if problems:
        raise DataError("The sets cannot be compared", problems)
    return tasks


def _labelled(config: WinrateEvaluation, counts: dict[str, int]) -> list[_Task]:
    """The pairs that people have decided, theirs first.

    Raises:
        DataError: a source without pairs.
    """
    found, problems = [], []
    sources = [with_limit(one, config.limit) for one in config.labelled]
    for source, loaded in zip(sources, load_all(sources, usable=True), strict=True):
        pairs = [record for record in loaded.records if isinstance(record, Pair)]
        if not pairs:
            problems.append(Problem(source.path, "no pairs", "pairs of which one answer is the better one"))
        found += [(pair.source.file if pair.source else source.path, pair) for pair in pairs]
        if loaded.set_aside:
            counts[f"rows of {source.path} set aside"] = len(loaded.set_aside)
    if problems:
        raise DataError("There are no labels to agree with", problems)
    names = told_apart([file for file, _ in found])
    return [
        _Task(
            names[file],
            "",
            Duel(pair.prompt, pair.chosen, pair.rejected),
            0,
            drawn_judge(list(config.judges), asked(pair.prompt), config.seed),
        )
        for file, pair in found
    ]


def told_apart(files: Sequence[str]) -> dict[str, str]:
    """By file, the shortest end of its path that no other file has: the name where names differ."""
    paths = {file: Path(file).parts for file in files}
    found = {}
    for file, own in paths.items():
        rest = [parts for other, parts in paths.items() if other != file]
        sizes = range(1, len(own))
        size = next((size for size in sizes if all(parts[-size:] != own[-size:] for parts in rest)), len(own))
        found[file] = Path(*own[-size:]).as_posix()
    return found


def _verdicts(config: WinrateEvaluation, run: Run, tasks: Sequence[_Task]) -> list[Verdict]:
    """What the judges say of every task, in order.

    Raises:
        RewardlabError: as `compare`.
    """
    by_judge = {name: [at for at, one in enumerate(tasks) if one.judge == name] for name in config.judges}
    chat: dict[str, ComparingJudge] = {
        name: comparing_judge(name, str(one.model), one.endpoint, one.rule)
        for name, one in config.judges.items()
        if is_comparing(one.model)
    }
    agreement = Agreement(all(config.judges[name].yes for name in chat))
    work = [(judge, [tasks[at].duel for at in by_judge[name]]) for name, judge in chat.items()]
    agree_to(work, agreement, _buys(tasks))
    found: dict[int, Verdict] = {}
    for number, (name, places) in enumerate(by_judge.items()):
        duels = [tasks[at].duel for at in places]
        if not duels:
            continue
        said = (
            verdicts(chat[name], duels, agreement)
            if name in chat
            else _scored(run, f"judges/{number}", config.judges[name], duels)
        )
        found |= dict(zip(places, said, strict=True))
    return [found[at] for at in range(len(tasks))]


def _buys(tasks: Sequence[_Task]) -> str:
    """How far the comparisons go: the widest half of a 95 % interval, where every second one is won. Comparisons of one
    prompt may all come out alike, so prompts are counted."""
    prompts: dict[tuple[str, str], set[str]] = {}
    for one in tasks:
        prompts.setdefault((one.model, one.baseline), set()).add(asked(one.duel.prompt))
    fewest = min((len(own) for own in prompts.values()), default=1)
    many = "prompt tells" if fewest == 1 else "prompts tell"
    return f"{fewest:,} {many} a win rate to ± {98.0 / fewest**0.5:.1f} points at most (95 % interval)."


def _scored(run: Run, folder: str, options: WinJudge, duels: Sequence[Duel]) -> list[Verdict]:
    """The preferences of a scorer, from a score run of every answer, which goes on where it was.

    Raises:
        RewardlabError: as `score`.
    """
    by_prompt: dict[str, tuple[Prompt, dict[str, int]]] = {}
    for duel in duels:
        _, texts = by_prompt.setdefault(duel.prompt.id, (duel.prompt, {}))
        for text in (duel.first, duel.second):
            if text.strip():
                texts.setdefault(text, len(texts))
    records = [Candidates(prompt, tuple(texts)) for prompt, texts in by_prompt.values() if texts]
    part = run.part(folder)
    answers = part.path("answers.jsonl")
    write_records(answers, records)
    values = options.model_dump(mode="json", exclude={"rule"})
    values |= {"data": [{"path": str(answers), "adapter": "canonical"}]}
    table = score_file(Scoring.build(values), part).table
    scores = iter(table["score"].to_pylist())
    found = {(record.prompt.id, text): next(scores) for record in records for text in record.completions}

    def verdict(duel: Duel) -> Verdict:
        if not (duel.first.strip() and duel.second.strip()):
            return Verdict(None, reason=EMPTY)
        own = [found[duel.prompt.id, text] for text in (duel.first, duel.second)]
        return of_scores(*(float("nan") if one is None else one for one in own))

    return [verdict(duel) for duel in duels]


def answer_id(text: str) -> str:
    """What an answer is known by beside its prompt: its content, without white space at the ends."""
    return content_id(text.strip())


def comparison_table(rows: Sequence[Compared]) -> pa.Table:
    """A row per comparison."""
    texts = ("model", "baseline", "judge")
    columns = {name: pa.array([getattr(one, name) for one in rows], pa.string()) for name in texts}
    columns["prompt_id"] = pa.array([one.prompt.id for one in rows], pa.string())
    for name in ("occurrence", "characters", "baseline_characters"):
        columns[name] = pa.array([getattr(one, name) for one in rows], pa.int32())
    for name in ("preference", "leading", "trailing"):
        columns[name] = pa.array([getattr(one.verdict, name) for one in rows], pa.float64())
    columns["reason"] = pa.array([one.verdict.reason for one in rows], pa.string())
    for name in ("answer_id", "baseline_answer_id"):
        columns[name] = pa.array([getattr(one, name) or None for one in rows], pa.string())
    return pa.table(columns)


def refuse_empty(found: Matches) -> None:
    """Stop where there is nothing to report on.

    Raises:
        ModelError: no comparison at all has a preference.
    """
    if any(verdict.preference is not None for _, _, verdict in found.said):
        return
    reasons = sorted({verdict.reason for _, _, verdict in found.said})
    problem = Problem("judge", f"no preference for anything ({', '.join(reasons)})", "answers that name one of two")
    raise ModelError("The judge gave no answer that is one", [problem])
