"""What the meter reads: prompts, the continuations of every model, and what a classifier says of either.

prompts.jsonl               the prompts that are continued, as canonical records
samples/<number>/           a folder of `sample` for each model, in the order of the configuration
texts/prompts.jsonl         the prompts' own texts, and
texts/responses-<number>.jsonl   the continuations, each a text alone: nothing before it reaches the classifier
scores/                     a folder of `score` of all of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rewardlab.data.adapters import texts as plain_texts
from rewardlab.data.adapters.real_toxicity import ALL, selected
from rewardlab.data.canonical import write_records
from rewardlab.data.load import load, load_all
from rewardlab.data.pairs import CUT_OFF
from rewardlab.data.render import question
from rewardlab.data.source import DataSource, with_limit
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.evaluate.frontier_samples import scored
from rewardlab.records import Candidates, Pair, Prompt, Record, Source
from rewardlab.score.base import AnyScorer
from rewardlab.score.score import ScorerOptions
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.store.together import together

PROMPTS, SAMPLES, TEXTS, SCORES = "prompts.jsonl", "samples", "texts", "scores"
ASKED_FIRST = 8
"""Prompts that the classifier is asked about before models sample."""
NO_PROMPT = Prompt.of_text("")


@dataclass(frozen=True)
class Answers:
    """The continuations of one model, prompt by prompt.

    Attributes:
        name: of the model.
        prompts: each once.
        texts: of every prompt.
        cut_off: of every text, whether its model did not end it; None where that is not known.
        tokens: of every text; None where they were not counted.
    """

    name: str
    prompts: list[Prompt]
    texts: list[tuple[str, ...]]
    cut_off: list[tuple[bool | None, ...]]
    tokens: list[tuple[int | None, ...]]

    @property
    def counts(self) -> list[int]:
        """How many there are of every prompt."""
        return [len(own) for own in self.texts]


def chosen_prompts(
    sources: Sequence[DataSource], select: str, bottom: int, top: int | None, limit: int | None
) -> dict[Prompt, Source | None]:
    """The prompts of the data, each once, in order, and where each came first.

    A source of texts alone, as a plain text file is, has its texts as prompts.

    Args:
        sources: of the data.
        select: rule for RealToxicityPrompts; see `data.adapters.real_toxicity.selected`.
        bottom: number of the first prompt of a slice.
        top: number behind the last one.
        limit: rows to read of every source.

    Raises:
        DataError: unusable data, or no prompts are left.
    """
    loaded = load_all((with_limit(source, limit) for source in sources), usable=True)
    found: dict[str, tuple[Prompt, Source | None]] = {}
    for one in loaded:
        is_text = one.adapter == plain_texts.ADAPTER.name
        for record in one.records:
            if selected(record, select):
                prompt = Prompt.of_text(record.completions[0]) if is_text else record.prompt
                found.setdefault(prompt.id, (prompt, record.source))
    kept = dict(list(found.values())[bottom:top])
    if not kept:
        where = "data" if found or select == ALL else "select"
        asked = f"{len(found)} prompts, none from number {bottom} on" if found else f"no prompts with select: {select}"
        remedy = "Only RealToxicityPrompts rows are challenging or have a toxicity." if where == "select" else ""
        raise DataError("There are no prompts to continue", [Problem(where, asked, "at least one prompt", remedy)])
    return kept


def ready_answers(name: str, path: Path) -> Answers:
    """Continuations from a file of any known format, or a folder of `sample`; rows of one prompt go together.

    Raises:
        DataError: unusable data, pairs, or no completions.
    """
    records = load(DataSource(path=str(path))).records
    if any(isinstance(record, Pair) for record in records):
        expected = "completions: {prompt, completion}, several to a prompt, or what `rewardlab sample` wrote"
        raise DataError("Pairs are no continuations", [Problem(str(path), "chosen and rejected answers", expected)])
    if not any(record.completions for record in records):
        raise DataError("There are no continuations", [Problem(str(path), "prompts alone", "completions of prompts")])
    return answers_of(name, records)


def answers_of(name: str, records: Sequence[Record]) -> Answers:
    """The completions of records by prompt, in the order in which prompts come first."""
    rows: dict[str, list[tuple[str, bool | None, int | None]]] = {}
    prompts: dict[str, Prompt] = {}
    for record in records:
        if record.completions:
            prompts.setdefault(record.prompt.id, record.prompt)
            rows.setdefault(record.prompt.id, []).extend(_with_facts(record))
    columns = [list(zip(*own, strict=True)) for own in rows.values()]
    texts, cut_off, tokens = ([one[place] for one in columns] for place in range(3))
    return Answers(name, list(prompts.values()), texts, cut_off, tokens)


def _with_facts(record: Record) -> Iterator[tuple[str, bool | None, int | None]]:
    """The completions of a record with what `sample` says of each."""
    count = len(record.completions)
    reasons, tokens = (_listed(record.meta.get(name), count) for name in ("finish_reasons", "tokens"))
    for text, reason, length in zip(record.completions, reasons, tokens, strict=True):
        yield text, None if reason is None else reason == CUT_OFF, length if isinstance(length, int) else None


def _listed(value: Any, count: int) -> list[Any]:
    return value if isinstance(value, list) and len(value) == count else [None] * count


def only(answers: Answers, prompts: Sequence[Prompt]) -> Answers:
    """The answers to some prompts, in the order of these."""
    places = {prompt.id: place for place, prompt in enumerate(answers.prompts)}
    kept = [places[prompt.id] for prompt in prompts if prompt.id in places]

    def at(values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in kept]

    return Answers(answers.name, at(answers.prompts), at(answers.texts), at(answers.cut_off), at(answers.tokens))


@dataclass(frozen=True)
class Judged:
    """What a classifier says.

    Attributes:
        classifier: its name.
        prompts: P(bad) of every prompt, by its id.
        responses: of every model's continuations, an array for each prompt.
    """

    classifier: str
    prompts: dict[str, float]
    responses: list[list[np.ndarray]]


def check_classifier(
    options: ScorerOptions, load_classifier: Callable[[ScorerOptions], AnyScorer], prompts: Iterable[Prompt]
) -> None:
    """Ask the classifier about the first prompts, so that one that cannot be used is refused before models sample.

    Raises:
        ModelError: as `judged`.
    """
    scorer = load_classifier(options)
    texts = [(question(prompt),) for prompt in islice(prompts, ASKED_FIRST)]
    values = scorer.score([NO_PROMPT] * len(texts), texts)
    _check_probabilities(scorer.name, np.array(values).ravel())


def judged(
    run: Run, options: ScorerOptions, load_classifier: Callable[[ScorerOptions], AnyScorer], answers: Sequence[Answers]
) -> Judged:
    """P(bad) of prompts and continuations, each read alone; those of an earlier session as they stand.

    Raises:
        ModelError: unusable classifier, or values outside 0 to 1.
        RewardlabError: as `score`.
    """
    prompts = {prompt.id: prompt for one in answers for prompt in one.prompts}
    files = [_written(run, "prompts", [(question(prompt),) for prompt in prompts.values()])]
    files += [_written(run, f"responses-{number}", one.texts) for number, one in enumerate(answers)]
    name, values = scored(run, SCORES, options, files, load_classifier)
    samples = run.folder / SAMPLES
    kept = f"What was sampled is kept: models.NAME.completions: {samples}/NUMBER reads it." if samples.is_dir() else ""
    together(lambda: _check_probabilities(name, values, kept))
    parts = np.split(values, np.cumsum([len(prompts), *(sum(one.counts) for one in answers)])[:-1])
    own, *responses = parts
    by_prompt = [np.split(part, np.cumsum(one.counts)[:-1]) for part, one in zip(responses, answers, strict=True)]
    return Judged(name, dict(zip(prompts, own.tolist(), strict=True)), by_prompt)


def _written(run: Run, name: str, texts: Sequence[tuple[str, ...]]) -> Path:
    """The file of texts that are read alone, a record for each prompt."""
    path = run.path(f"{TEXTS}/{name}.jsonl")
    records = [Candidates(NO_PROMPT, own) for own in texts]
    processes().first(lambda: write_records(path, records))
    return path


def _check_probabilities(name: str, values: np.ndarray, kept: str = "") -> None:
    wrong = values[~((values >= 0.0) & (values <= 1.0))]
    if len(wrong):
        found = f"{len(wrong)} of {len(values)} values outside, such as {wrong[0]:.4g}"
        remedy = "A rule has to give the probability, or the degree from 0 to 1, that a text is bad."
        problem = Problem(name, found, "values from 0 to 1", f"{remedy} {kept}".rstrip())
        raise ModelError("What the classifier gives are no probabilities", [problem])
