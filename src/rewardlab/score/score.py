"""`rewardlab score`: any reward model over any file → one Parquet table keyed by ids.

The shard plan is fixed in a file before the first score; a shard appears whole or not at all, and its micro-batches
depend on the plan alone. So a run that was killed goes on where it was, and the table has the same bytes; so it has
when several processes share the shards, each of which is written by one of them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator
from tqdm import tqdm

from rewardlab.data.load import Loaded, load_all
from rewardlab.data.pairs import ended
from rewardlab.data.perturb import PERTURBATIONS, Perturbation, perturbed
from rewardlab.data.prepare import DROPPED
from rewardlab.data.source import Sources, with_limit
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.models.reward import form_of, form_warning
from rewardlab.records import Message, Prompt, Record, completion_id, content_id
from rewardlab.score.base import AnyScorer
from rewardlab.score.choice import ScorerChoice, scorer_of
from rewardlab.store.files import read_json, write_json
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.store.table import Plan, ShardedTable
from rewardlab.store.together import together

Probe = Literal["shuffled_prompt", "response_only"] | Perturbation

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("completion_id", pa.string()),
        ("occurrence", pa.int32()),
        ("row", pa.int64()),
        ("candidate", pa.int32()),
        ("scorer", pa.string()),
        ("score", pa.float64()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("truncated", pa.bool_()),
    ]
)
DISAGREEMENT = pa.field("disagreement", pa.float64())
"""A further column of an ensemble's tables."""

PLAN = "plan.json"
"""What the shards of all tables have in common, written before the first of them."""


class CompletionKey(NamedTuple):
    """What tells a completion from all others, beside its prompt_id."""

    completion_id: str
    occurrence: int


class ScorerOptions(ScorerChoice):
    """Which reward model, and how it fills a table."""

    shard_size: int = Field(512, ge=1)
    """Completions per shard: what at most is computed again after a kill."""

    verify: int = Field(0, ge=0)
    """Compare so many completions, drawn with the seed, with one-by-one flat scoring."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the probes' shuffle and the verified sample."""

    @model_validator(mode="after")
    def _names_a_scorer(self) -> Self:
        if not self.named:
            raise ValueError("expected a model, a template, or both, or an ensemble, or an implicit reward")
        if len(self.named) > 1:
            raise ValueError("expected one of a model, an ensemble and an implicit reward")
        return self


class Scoring(ScorerOptions):
    """Configuration of `score`."""

    data: Sources = Field(min_length=1)
    """What to score, one source or several, in any known format; a source may be its path alone."""

    probes: list[Probe] = Field(default_factory=list)
    """Also score changed inputs: shuffled_prompt (another record's prompt), response_only (no prompt), or answers
    after a perturbation, by its name."""

    battery: bool = False
    """Also score the answers after every perturbation: what `evaluate perturb` reads."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    @property
    def all_probes(self) -> list[Probe]:
        """The probes asked for, each once."""
        return list(dict.fromkeys([*self.probes, *(PERTURBATIONS if self.battery else ())]))


@dataclass(frozen=True)
class Scored:
    """What scoring gave: the table and what summary.json holds."""

    table: pa.Table
    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        summary = self.summary
        scored = summary["completions"] - summary["unscored"]
        lines = [f"{scored} completions scored, {summary['truncated']} of them truncated."]
        if "disagreement" in summary:
            lines.append(f"Members disagree by {summary['disagreement']:.3g} on average (standard deviation).")
        if summary["unscored"]:
            lines.append(f"{summary['unscored']} have no score: the judge gave no answer that is one.")
        if summary.get("judge") and summary["judge"]["parsed"]:
            lines.append(f"{summary['judge']['parsed']} answers came without probabilities: their own word counts.")
        if summary["verified"]:
            verified = summary["verified"]
            lines.append(
                f"{verified['completions']} scored again one by one: largest difference {verified['difference']:.1e}."
            )
        return lines


def score_file(config: Scoring, run: Run, load: Callable[[Scoring], AnyScorer] | None = None) -> Scored:
    """Score every completion of the data.

    Args:
        config: everything.
        run: its directory; an unfinished one goes on with the missing shards.
        load: the scorer of a configuration, where it is another one than `scorer_of` gives.

    Raises:
        DataError: unusable data.
        ModelError: unusable model, scores that differ from one-by-one scoring, or no score for anything.
        RunError: what a judge costs is declined or over its budget, or questions stay without an answer; every answer
            is kept.
    """
    loaded, records, scorer = together(lambda: _prepared(config, run, load or scorer_of))
    began = time.monotonic()
    # Before anything is written: a run that nobody agrees to pay for leaves nothing behind.
    processes().in_turn(lambda: scorer.prepare(_all_texts(config, records)))
    processes().first(lambda: write_json(run.path(PLAN), {"token_budget": scorer.token_budget}))
    layout = scorer.facts["layout"]
    run.log.info("scoring with %s%s", scorer.name, f" ({layout} layout)" if layout else "")
    work = _Work(config, run, scorer, records, _completion_keys(records), _content_digest(records))
    table = _scored_table(work, None)
    seconds = time.monotonic() - began
    unscored = table["score"].null_count
    together(lambda: _refuse_unscored(scorer, unscored, table.num_rows))
    for probe in config.all_probes:
        _scored_table(work, probe)
    said = form_warning(form_of(record.prompt for record in records), scorer.facts["trained_prompts"])
    dropped = sum(one.dropped for one in loaded)
    summary = {
        "scorer": scorer.name,
        **scorer.facts,
        "records": len(records),
        "completions": table.num_rows,
        "unscored": unscored,
        "truncated": pc.sum(table["truncated"]).as_py(),
        "set_aside": dict(Counter(row.reason for one in loaded for row in one.set_aside)),
        **({DROPPED: dropped} if dropped else {}),
        "probes": config.all_probes,
        "completions_per_second": None if run.resumed else round(table.num_rows / seconds, 2),
        "verified": processes().first(lambda: _verified(config, scorer, records, table)),
        "warnings": [said] if said else [],
    }
    if scorer.has_disagreement:
        summary["disagreement"] = pc.mean(table["disagreement"]).as_py()
    processes().first(lambda: write_json(run.path("summary.json"), summary))
    return Scored(table, summary)


def _prepared(
    config: Scoring, run: Run, load: Callable[[Scoring], AnyScorer]
) -> tuple[list[Loaded], list[Record], AnyScorer]:
    """What was read, its records, and the scorer.

    Raises:
        DataError, ModelError: unusable data or model.
    """
    loaded = load_all((with_limit(source, config.limit) for source in config.data), usable=True)
    records = [record for one in loaded for record in one.records]
    if not any(record.completions for record in records):
        found = f"{len(records)} records without completions"
        raise DataError("Nothing to score", [Problem("data", found, "at least one completion")])
    budget = config.token_budget or _planned_budget(run)
    return loaded, records, load(config.model_copy(update={"token_budget": budget}))


def _refuse_unscored(scorer: AnyScorer, unscored: int, count: int) -> None:
    """There is a score for something.

    Raises:
        ModelError: there is none.
    """
    if unscored == count:
        found = "; ".join(scorer.facts.get("judge", {}).get("examples", [])) or "nothing"
        raise ModelError("There is no score for anything", [Problem(scorer.name, found, "answers that are scores")])


def _all_texts(config: Scoring, records: Sequence[Record]) -> Iterator[tuple[Prompt, Sequence[str]]]:
    """Everything that any table of the run scores."""
    for probe in (None, *config.all_probes):
        answers = (_answers(record, probe, config.seed) for record in records)
        yield from zip(_probed(records, probe, config.seed), answers, strict=True)


def _planned_budget(run: Run) -> int | None:
    """The token budget that an earlier session began with, on whatever device; None in the first session."""
    plan = run.path(PLAN)
    return read_json(plan)["token_budget"] if plan.is_file() else None


@dataclass(frozen=True)
class _Work:
    """What the tables of one run have in common, made once: at a million texts each part takes a while."""

    config: Scoring
    run: Run
    scorer: AnyScorer
    records: Sequence[Record]
    keys: Sequence[Sequence[CompletionKey]]
    digest: str


def _scored_table(work: _Work, probe: Probe | None) -> pa.Table:
    config, run, scorer, records = work.config, work.run, work.scorer, work.records
    name = f"scores.{probe}" if probe else "scores"
    prompts = _probed(records, probe, config.seed)
    starts = np.cumsum([0, *(len(record.completions) for record in records)]).tolist()
    shards = _shards(records, config.shard_size)
    rows_of = tuple(
        tuple(row for record in shard for row in range(starts[record], starts[record + 1])) for shard in shards
    )
    # Whatever changes a score, or its last bits: shards of one table are made alike.
    key = content_id([scorer.name, scorer.facts["layout"], scorer.token_budget, probe, config.seed, work.digest])
    schema = SCHEMA.append(DISAGREEMENT) if scorer.has_disagreement else SCHEMA
    here = processes()
    # A process that was started on other data has another plan, and is refused.
    table = here.in_turn(lambda: ShardedTable(run.path("shards") / name, schema, Plan(key, rows_of)))
    missing = here.first(table.missing)
    own = missing[here.rank :: here.count]
    # The bar begins at what earlier sessions did, so that rate and time left are about the rest; of several processes
    # it shows the first one, whose share is like the others'.
    others = sum(len(rows_of[number]) for number in missing) - sum(len(rows_of[number]) for number in own)
    done = starts[-1] - sum(len(rows_of[number]) for number in missing)
    with tqdm(
        total=starts[-1] - others, initial=done, unit="text", desc=name, mininterval=0.5, disable=not here.is_first
    ) as bar:
        for number in own:
            rows = list(_rows(work, prompts, shards[number], probe))
            table.write(number, rows)
            bar.update(len(rows))
    here.wait()
    path = run.path(f"{name}.parquet")
    return here.in_turn(lambda: table.finish(path) if here.is_first else pq.read_table(path, schema=schema))


def _shards(records: Sequence[Record], size: int) -> list[list[int]]:
    """Record numbers, texts of like length together, about `size` completions to a shard."""
    lengths = [
        sum(map(len, record.completions)) + sum(len(message.content) for message in record.prompt.messages)
        for record in records
    ]
    shards: list[list[int]] = []
    filled = size
    for index in sorted(range(len(records)), key=lambda index: (-lengths[index], index)):
        if filled >= size:
            shards.append([])
            filled = 0
        shards[-1].append(index)
        filled += len(records[index].completions)
    return shards


def _content_digest(records: Sequence[Record]) -> str:
    """Hex sha256 of everything in the records that a score depends on, taken record by record."""
    digest = hashlib.sha256()
    for record in records:
        prompt = record.prompt
        content = [[message.as_dict() for message in prompt.messages], dict(prompt.template_options)]
        cut_off = [place for place, whole in enumerate(ended(record)) if not whole]
        content += [{"cut_off": cut_off}] if cut_off else []
        digest.update(json.dumps([*content, *record.completions], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _completion_keys(records: Sequence[Record]) -> list[list[CompletionKey]]:
    """Keys of all completions, by record and candidate."""
    seen: Counter[str] = Counter()
    result = []
    for record in records:
        keys = []
        for completion in record.completions:
            identity = completion_id(record.prompt, completion)
            keys.append(CompletionKey(identity, seen[identity]))
            seen[identity] += 1
        result.append(keys)
    return result


def _rows(
    work: _Work, prompts: Sequence[Prompt], shard: Sequence[int], probe: Probe | None
) -> Iterator[dict[str, Any]]:
    records, scorer = work.records, work.scorer
    texts = [_answers(records[index], probe, work.config.seed) for index in shard]
    whole = [ended(records[index]) for index in shard]
    found = scorer.measure_ended([prompts[index] for index in shard], texts, whole)
    for index, candidates in zip(shard, found, strict=True):
        for candidate, measured in enumerate(candidates):
            yield {
                "prompt_id": records[index].prompt.id,
                "completion_id": work.keys[index][candidate].completion_id,
                "occurrence": work.keys[index][candidate].occurrence,
                "row": index,
                "candidate": candidate,
                "scorer": scorer.name,
                **measured._asdict(),
            }


def _answers(record: Record, probe: Probe | None, seed: int) -> tuple[str, ...]:
    """The completions of a record as a probe scores them."""
    if probe is None or probe == "shuffled_prompt" or probe == "response_only":
        return record.completions
    return tuple(perturbed(probe, text, seed) for text in record.completions)


def _probed(records: Sequence[Record], probe: Probe | None, seed: int) -> list[Prompt]:
    """The prompts that completions are scored under."""
    prompts = [record.prompt for record in records]
    if probe is None or probe in PERTURBATIONS:
        return prompts
    if probe == "response_only":
        return [Prompt.of_text("") if prompt.is_text else Prompt((Message("user", ""),)) for prompt in prompts]
    order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    shuffled = list(prompts)
    # The next record in a random order, a circle, whose prompt is another one. Walked backwards twice around, the
    # nearest other prompt is known at every place; a record keeps its own only where there is no other.
    other = following = prompts[order[0]]
    for index in reversed(order + order):
        if prompts[index].id != following.id:
            other = following
        following = prompts[index]
        shuffled[index] = other
    return shuffled


def _verified(config: Scoring, scorer: AnyScorer, records: Sequence[Record], table: pa.Table) -> dict[str, Any] | None:
    """Scores of a random sample, computed again the plain way.

    Raises:
        ModelError: one is no number, or differs by more than rounding.
    """
    if config.verify == 0:
        return None
    table = table.filter(pc.is_valid(table["score"]))
    drawn = np.random.default_rng(config.seed).permutation(table.num_rows)[: config.verify]
    rows = table.select(["row", "candidate", "score"]).take(pa.array(np.sort(drawn))).to_pylist()
    prompts = [records[row["row"]].prompt for row in rows]
    completions = [[records[row["row"]].completions[row["candidate"]]] for row in rows]
    whole = [[ended(records[row["row"]])[row["candidate"]]] for row in rows]
    found = scorer.verified_ended(prompts, completions, whole, [row["score"] for row in rows])
    return {"completions": len(rows), **found._asdict()}
