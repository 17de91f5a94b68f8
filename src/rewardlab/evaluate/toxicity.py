"""`rewardlab evaluate toxicity`: how often what models write is bad, by a classifier.

Every model continues the same prompts k times; a classifier reads prompts and continuations, each alone, and says with
which probability they are bad. The page is drawn in `report.toxicity`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from rewardlab.config import Config
from rewardlab.data.adapters.real_toxicity import ALL, is_selection
from rewardlab.data.canonical import write_records
from rewardlab.data.prompt_templates import NamedTemplate, template_text
from rewardlab.data.render import question
from rewardlab.data.source import Sources
from rewardlab.data.tokenize import Encoding
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.accuracy import text_column
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.frontier_samples import sampled
from rewardlab.evaluate.toxicity_estimates import (
    THRESHOLD,
    Measured,
    Values,
    comparison,
    curve,
    model_estimates,
)
from rewardlab.evaluate.toxicity_texts import (
    PROMPTS,
    SAMPLES,
    Answers,
    Judged,
    answers_of,
    check_classifier,
    chosen_prompts,
    judged,
    only,
    ready_answers,
)
from rewardlab.functional.toxicity import HIGH, LOW
from rewardlab.models.located import check_located
from rewardlab.models.policies import saved_encoding
from rewardlab.models.quantisation import Quantisation
from rewardlab.models.source import Precision
from rewardlab.records import Candidates, Prompt, Source
from rewardlab.sample.verb import Sampling
from rewardlab.score.base import AnyScorer
from rewardlab.score.choice import classifier_of, scorer_of
from rewardlab.score.rules import RULE
from rewardlab.score.score import ScorerOptions
from rewardlab.store.files import write_text
from rewardlab.store.keys import CODE
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.store.table import write_parquet
from rewardlab.store.together import together

ROWS = "toxicity.parquet"


class Classifier(Config):
    """What says with which probability a text is bad."""

    text_field: ClassVar[str] = "model"

    model: str
    """Folder or hub id of a sequence classifier; or rule:NAME, python:FILE.py:FUNCTION or python:MODULE.FUNCTION, whose
    values, from 0 to 1, stand for the probability."""

    bad: str | None = None
    """Of a classifier, the label that is bad: a name or an index of its configuration."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    encoding: Encoding | None = None
    """Overrides the classifier's own rules for turning text into ids, as a whole; its form is answer."""

    precision: Precision = "auto"
    """dtype of the weights; auto keeps the checkpoint's."""

    quantisation: Quantisation | None = None
    """Weights of the backbone in fewer bits: 8bit, 4bit, or fields of a quantisation configuration of transformers."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens per micro-batch; as of `score`."""

    shard_size: int = Field(512, ge=1)
    """Texts per shard: what at most is computed again after a kill."""

    verify: int = Field(0, ge=0)
    """Compare so many texts, drawn with the seed, with one-by-one scoring."""

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Only for sources you trust."""

    @model_validator(mode="after")
    def _says_what_is_bad(self) -> Self:
        if self.is_rule and self.bad is not None:
            raise ValueError("expected no bad beside a rule: its own value says how bad a text is")
        if not self.is_rule and self.bad is None:
            raise ValueError("expected bad beside a classifier: the label, by name or index, that is bad")
        return self

    @property
    def is_rule(self) -> bool:
        """Whether a function says it."""
        return self.model.startswith((RULE, CODE))

    def options(self, device: str, seed: int) -> ScorerOptions:
        """As options of `score`."""
        own = self.model_dump(mode="json", exclude={"bad"})
        return ScorerOptions.build({**own, "device": device, "seed": seed})

    def load(self, config: ScorerOptions) -> AnyScorer:
        """The scorer whose score is P(bad)."""
        if self.is_rule:
            return scorer_of(config)
        # The score is the probability of the class itself, not a reward: what is bad counts up.
        return classifier_of(self.model, config, good=self.bad)


class Generator(Config):
    """A language model to be measured, or what one has written already."""

    text_field: ClassVar[str] = "path"

    path: str | None = None
    """Folder or hub id of a causal or encoder-decoder language model."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    quantisation: Quantisation | None = None
    """Weights of the model in fewer bits: 8bit, 4bit, or fields of a quantisation configuration of transformers."""

    template: NamedTemplate | None = None
    """How it is given prompts, where that is another way than that of all."""

    completions: Path | None = None
    """In place of a model: a file of completions in any known format, or a folder of `sample`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.path is None) == (self.completions is None):
            raise ValueError("expected either a path or completions, and not both")
        if self.completions is not None and self.template is not None:
            raise ValueError("expected no template beside completions: they are written")
        if self.completions is not None and self.quantisation is not None:
            raise ValueError("expected no quantisation beside completions: they are written")
        return self


class ToxicityEvaluation(Config):
    """Configuration of `evaluate toxicity`."""

    models: dict[str, Generator] = Field(min_length=1)
    """By name: the folder or hub id of a language model, or {completions: FILE} for what is written already."""

    classifier: Classifier
    """What is measured with: {model: ..., bad: LABEL}, or a rule."""

    data: Sources = Field(default_factory=list)
    """Where prompts come from, one source or several: RealToxicityPrompts, any known format, or a .txt file with a
    prompt a line. Default: the prompts of the completions."""

    select: str = ALL
    """Of RealToxicityPrompts: all, challenging, or both above T (prompt and continuation more toxic than T)."""

    template: NamedTemplate | None = None
    """How prompts are given to models: user-assistant, human-bot, question-answer, or a text with {prompt}. Default: as
    the model's folder says, else the chat template or the plain text."""

    encoding: PolicyEncoding | None = None
    """Further rules for turning prompts into ids, of all models."""

    n: int = Field(25, ge=1)
    """Continuations of every prompt: k."""

    max_new_tokens: int = Field(20, ge=1)
    """Tokens of a continuation, at most, its end included."""

    temperature: float = Field(1.0, ge=0)
    """Temperature of sampling; 0 takes the likeliest token everywhere."""

    top_p: float = Field(0.9, gt=0, le=1)
    """Only the likeliest tokens that have this probability together."""

    top_k: int = Field(0, ge=0)
    """Only so many likeliest tokens; 0 for all."""

    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that stand in the prompt or in what is written already become less likely."""

    baseline: str | None = None
    """Name of the model that the others are compared with. Default: the first one."""

    bottom: int = Field(0, ge=0)
    """Number of the first prompt of a slice, from 0."""

    top: int | None = Field(None, ge=1)
    """Number of the prompt behind the last one of the slice."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    csv: bool = False
    """Also a CSV file per model, with the columns of the table."""

    max_examples: int = Field(400, ge=0, le=5000)
    """Most continuations that the browser of the page carries along."""

    precision: Precision = "auto"
    """dtype of the weights of all language models; auto keeps the checkpoints'."""

    device: str = "auto"
    """cpu, cuda, mps or auto."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens at once while sampling; as of `sample`."""

    shard_size: int | None = Field(None, ge=1)
    """Continuations per shard; as of `sample`."""

    trust_remote_code: bool = False
    """Run Python code that comes with a language model's checkpoint. Only for sources you trust."""

    title: str = "Toxicity of continuations"
    """Heading of the page."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the samples, and of the examples drawn at random."""

    @field_validator("select")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if not is_selection(value):
            raise ValueError("expected all, challenging, or both above T, such as both above 0.5")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.data and any(one.path is not None for one in self.models.values()):
            raise ValueError("expected data: prompts that the models continue")
        if self.select != ALL and not self.data:
            raise ValueError("expected data beside select: rows of RealToxicityPrompts")
        if self.baseline is not None and self.baseline not in self.models:
            raise ValueError("expected baseline to be the name of one of the models")
        if self.top is not None and self.top <= self.bottom:
            raise ValueError("expected top above bottom")
        return self


@dataclass(frozen=True)
class Toxicity:
    """What was measured.

    Attributes:
        values: what toxicity.json holds.
        table: a row per continuation, as in toxicity.parquet.
    """

    values: Values
    table: pa.Table


def measure(config: ToxicityEvaluation, run: Run) -> Toxicity:
    """Continue, classify, and estimate; write `toxicity.parquet`, and CSV files where asked for.

    Raises:
        DataError: unusable data or completions, or none of the prompts asked for.
        ConfigError: prompts and continuations do not fit into a model's context.
        ModelError: unusable models or classifier, or values that are no probabilities.
        RunError: the disk is full.
    """
    run.log.info("what is measured is %s; higher is worse", _meaning(config.classifier))
    options = config.classifier.options(config.device, config.seed)
    given = together(lambda: _given(config))
    together(lambda: _check_models(config, options, given))
    answers = _answers(config, run, given)
    found = judged(run, options, config.classifier.load, answers)
    table = pa.concat_tables([_rows(one, found, number) for number, one in enumerate(answers)])
    processes().first(lambda: _write(config, run, table, answers))
    settings = Settings(config.level, "prompt", config.seed)
    measured = [
        Measured(one.name, [prompt.id for prompt in one.prompts], _prompt_scores(one, found), responses)
        for one, responses in zip(answers, found.responses, strict=True)
    ]
    baseline = next(one for one in measured if one.name == (config.baseline or measured[0].name))
    values: Values = {
        "level": config.level,
        "classifier": {"name": found.classifier, "model": config.classifier.model, "bad": config.classifier.bad},
        "measures": _meaning(config.classifier),
        "select": config.select,
        "threshold": THRESHOLD,
        "bands": {"low": [0.0, LOW], "mid": [LOW, HIGH], "high": [HIGH, 1.0]},
        "sampling": {
            name: getattr(config, name)
            for name in ("n", "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
        },
        "models": [_of_model(config, one, numbers, settings) for one, numbers in zip(answers, measured, strict=True)],
        "comparisons": [comparison(baseline, one, settings) for one in measured if one is not baseline],
    }
    return Toxicity({**values, "warnings": _warnings(values)}, table)


@dataclass(frozen=True)
class _Given:
    """Prompts of the data, None where there are none, and what is written already by the name of the model."""

    prompts: dict[Prompt, Source | None] | None
    ready: dict[str, Answers]


def _given(config: ToxicityEvaluation) -> _Given:
    """Everything that is read before a model is loaded.

    Raises:
        DataError: as `measure`.
    """
    prompts = None
    if config.data:
        prompts = chosen_prompts(config.data, config.select, config.bottom, config.top, config.limit)
    ready = {
        name: ready_answers(name, one.completions) for name, one in config.models.items() if one.completions is not None
    }
    if prompts is not None:
        ready = {name: only(one, list(prompts)) for name, one in ready.items()}
        problems = [
            Problem(str(config.models[name].completions), "no completions of them", "the prompts of the data")
            for name, one in ready.items()
            if not one.prompts
        ]
        if problems:
            raise DataError("Completions are of other prompts than the data", problems)
    return _Given(prompts, ready)


def _check_models(config: ToxicityEvaluation, options: ScorerOptions, given: _Given) -> None:
    """Find all models, and try the classifier, before the first of them samples, which may take hours.

    Raises:
        ModelError: models that are not there, or a classifier that cannot be used.
    """
    classifier = config.classifier
    asked = {f"models.{name}": (one.path, one.revision) for name, one in config.models.items() if one.path is not None}
    own = {} if classifier.is_rule else {"classifier": (classifier.model, classifier.revision)}
    check_located(asked | own)
    if asked and given.prompts is not None:
        check_classifier(options, classifier.load, given.prompts)


def _answers(config: ToxicityEvaluation, run: Run, given: _Given) -> list[Answers]:
    """The continuations of all models, those that are written already and those that are drawn now."""
    path = run.path(PROMPTS)
    if given.prompts is not None:
        records = [Candidates(prompt, (), None, source) for prompt, source in given.prompts.items()]
        processes().first(lambda: write_records(path, records))
    found = []
    for number, (name, one) in enumerate(config.models.items()):
        if name in given.ready:
            found.append(given.ready[name])
        else:
            found.append(answers_of(name, sampled(run, f"{SAMPLES}/{number}", _sampling(config, one, path))))
    return found


def _sampling(config: ToxicityEvaluation, one: Generator, prompts: Path) -> Sampling:
    same = {"n", "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "precision", "device"}
    same |= {"token_budget", "shard_size", "trust_remote_code", "seed"}
    encoding = _encoding(config, one)
    return Sampling.build(
        {
            **config.model_dump(mode="json", include=same),
            "model": one.path,
            "revision": one.revision,
            "quantisation": one.quantisation,
            "data": [{"path": str(prompts), "adapter": "canonical"}],
            "encoding": None if encoding is None else encoding.model_dump(mode="json"),
        }
    )


def _encoding(config: ToxicityEvaluation, one: Generator) -> PolicyEncoding | None:
    """How a model is given prompts; None where that is left to its folder."""
    template = one.template or config.template
    if template is None:
        return config.encoding
    rules = config.encoding or saved_encoding(str(one.path), one.revision) or PolicyEncoding()
    return rules.model_copy(update={"template": template_text(template), "form": "auto"})


def _prompt_scores(one: Answers, found: Judged) -> np.ndarray:
    return np.array([found.prompts[prompt.id] for prompt in one.prompts])


def _rows(one: Answers, found: Judged, number: int) -> pa.Table:
    """A row per continuation of a model."""
    counts = one.counts

    def repeated(values: Sequence[Any]) -> list[Any]:
        return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]

    def flat(values: Sequence[Sequence[Any]]) -> list[Any]:
        return [value for own in values for value in own]

    columns = {
        "model": text_column([one.name] * sum(counts)),
        "prompt_id": pa.array(repeated([prompt.id for prompt in one.prompts]), pa.string()),
        "sample": pa.array([place for count in counts for place in range(count)], pa.int32()),
        "prompts": text_column(repeated([question(prompt) for prompt in one.prompts])),
        "responses": text_column(flat(one.texts)),
        "prompt_score": pa.array(repeated(_prompt_scores(one, found).tolist()), pa.float64()),
        "response_score": pa.array(np.concatenate(found.responses[number]), pa.float64()),
        "truncated": pa.array(flat(one.cut_off), pa.bool_()),
        "n_tokens": pa.array(flat(one.tokens), pa.int32()),
    }
    return pa.table(columns)


def _write(config: ToxicityEvaluation, run: Run, table: pa.Table, answers: Sequence[Answers]) -> None:
    write_parquet(run.path(ROWS), table)
    if config.csv:
        start = 0
        for number, one in enumerate(answers):
            own = table.slice(start, sum(one.counts)).drop_columns(["model"])
            start += own.num_rows
            write_text(run.path(f"csv/{number}.csv"), _csv(own))


def _csv(table: pa.Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return out.getvalue()


def _of_model(config: ToxicityEvaluation, one: Answers, numbers: Measured, settings: Settings) -> Values:
    known = [flag for own in one.cut_off for flag in own if flag is not None]
    texts = [text for own in one.texts for text in own]
    source = config.models[one.name]
    return {
        "name": one.name,
        "path": source.path,
        "quantisation": source.quantisation,
        "completions": None if source.completions is None else str(source.completions),
        "prompts": len(one.prompts),
        "responses": len(texts),
        "k": numbers.k,
        "empty": sum(not text.strip() for text in texts),
        "truncated": sum(known) / len(known) if known else None,
        "estimates": [estimate.as_dict() for estimate in model_estimates(numbers, settings)],
        "curve": curve(numbers, settings),
    }


def _meaning(classifier: Classifier) -> str:
    """What the numbers are, with the sign: said in the log, the JSON and on the page."""
    if classifier.is_rule:
        return f"the value of {classifier.model}, from 0 (not bad) to 1 (bad)"
    return f"the probability of the label {classifier.bad} (bad) by {classifier.model}"


def _warnings(values: Values) -> list[str]:
    found = []
    ks = {one["name"]: one["k"] for one in values["models"]}
    if len(set(ks.values())) > 1:
        listed = ", ".join(f"{name} {k}" for name, k in ks.items())
        found.append(
            f"The models have different numbers of responses to a prompt ({listed}): expected maxima and toxicity "
            "probabilities of one are over more responses than those of another; the comparisons use equally many."
        )
    found += [
        f"{one['name']}: {one['empty']} of {one['responses']} responses are empty; they count as the classifier has it."
        for one in values["models"]
        if one["empty"]
    ]
    for one in values["comparisons"]:
        most = max(model["prompts"] for model in values["models"] if model["name"] in (one["first"], one["second"]))
        if one["prompts"] < most:
            found.append(f"{one['second']} and {one['first']} share {one['prompts']} prompts: only these are compared.")
    return found
