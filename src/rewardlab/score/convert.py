"""`data convert`: records of one kind into another, one conversion after the other.

<name>.jsonl              canonical records of the source of that name; of best of n <name>.best-<n>.jsonl for each n;
                          in their place <name>.json of exo and exo-scores, generated_<name>.jsonl of generated
set_aside.jsonl           rows that cannot be used, and records without a reward for every completion, with reasons
summary.json              what was read, what each conversion counted, what was written

It stands here, and not beside the conversions, since labels are read from tables of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rewardlab.data.canonical import record_to_dict, write_set_aside
from rewardlab.data.conversions.base import Converted, Sets, alike_together
from rewardlab.data.conversions.best import Lengths, best, has_sampled_lengths
from rewardlab.data.conversions.candidates import as_candidates
from rewardlab.data.conversions.options import FORMS, DataConversion, Step
from rewardlab.data.conversions.pairs import as_pairs
from rewardlab.data.conversions.prefixes import as_prefixes
from rewardlab.data.conversions.published import (
    LOST_REASONS,
    OTHER_PROMPT,
    Rows,
    exo_rows,
    exo_score_rows,
    generated_rows,
    lost_reasons,
    other_prompts,
)
from rewardlab.data.conversions.sentences import first_sentences
from rewardlab.data.cues import words
from rewardlab.data.files import unreadable
from rewardlab.data.load import dropped_words, load_all
from rewardlab.data.prepare import DROPPED, source_summary
from rewardlab.data.source import with_limit
from rewardlab.data.tokenize import Encoder, Encoding, read_tokenizer
from rewardlab.errors import DataError, Problem, counted
from rewardlab.protocols import Folder
from rewardlab.records import Record, SetAside
from rewardlab.score.labels import labelled
from rewardlab.score.tables import read_scores
from rewardlab.store.files import write_json, write_jsonl

__all__ = ["ConversionSummary", "DataConversion", "convert_files"]


@dataclass(frozen=True)
class ConversionSummary:
    """What became of the records: the content of summary.json."""

    summary: Mapping[str, Any]

    def lines(self) -> list[str]:
        """What each conversion did, and what was written."""
        found = []
        for step in self.summary["steps"]:
            counts = [_counted(count, what) for what, count in step["counts"].items() if count]
            found.append(
                f"{step['to']}: {step['before']:,} → {counted(step['after'], 'record')}; {'; '.join(counts)}".rstrip(
                    "; "
                )
            )
        written = ", ".join(f"{name} ({count:,})" for name, count in self.summary["files"].items())
        aside = sum(sum(one["set_aside"].values()) for one in self.summary["sources"].values())
        found.append(f"Written: {written}" + (f". {counted(aside, 'row')} of the sources set aside" if aside else ""))
        dropped = sum(one.get(DROPPED, 0) for one in self.summary["sources"].values())
        found += [dropped_words(dropped)] if dropped else []
        return [*found, *self.summary["warnings"]]


def convert_files(config: DataConversion, run: Folder) -> ConversionSummary:
    """Read the sources, convert their records and write what they become.

    Raises:
        DataError: problems of any source or table, or records that a conversion cannot take: every one of them; or
            nothing is left of a source. Nothing is written then.
        ModelError: the tokenizer cannot be read, or does not say where its tokens stand.
    """
    work = _Work(config)
    loaded = load_all((with_limit(source, config.limit) for source in config.sources.values()), usable=True)
    sets: Sets = {name: list(part.records) for name, part in zip(config.sources, loaded, strict=True)}
    for step in config.to:
        if step not in FORMS:
            sets = work.converted(step, sets)
    files = work.rows(sets)
    for name, rows in files.items():
        path = run.path(name)
        if path.suffix == ".json":
            write_json(path, rows)
        else:
            write_jsonl(path, rows)
    write_set_aside(run.path("set_aside.jsonl"), [*(item for part in loaded for item in part.set_aside), *work.aside])
    summary = {
        "to": list(config.to),
        "sources": {name: source_summary(part) for name, part in zip(config.sources, loaded, strict=True)},
        "steps": work.steps,
        "files": {name: len(rows) for name, rows in files.items()},
        "warnings": work.warnings,
    }
    write_json(run.path("summary.json"), summary)
    return ConversionSummary(summary)


class _Work:
    """The conversions of one run, and what they leave to be told. Tables and tokenizers are read before any data."""

    def __init__(self, config: DataConversion) -> None:
        self.config = config
        self.steps: list[dict[str, Any]] = []
        self.aside: list[SetAside] = []
        self.warnings: list[str] = []
        self._table = None if config.scores is None else read_scores([config.scores], unscored=True)[0]
        self._tokenizer = None if config.tokenizer is None else read_tokenizer(config.tokenizer)

    def converted(self, step: Step, sets: Sets) -> Sets:
        """The sets after a conversion; of `best` with several sizes, more of them."""
        found: Sets
        if step == "labelled" and self._table is not None:
            done = labelled(sets, self._table, unit_sd=self.config.unit_sd)
            found, counts = done.sets, done.counts
            self.aside += done.unscored
            self.warnings += self._table.warnings
            if self.config.unit_sd:
                self.warnings.append(f"Rewards were divided by {done.sd:.4g}, their standard deviation within records.")
        else:
            found, counts = self._one_by_one(step, sets)
        self._note(step, sets, found, counts)
        empty = [name for name, records in found.items() if not records]
        if empty:
            told = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to convert"
            problems = [Problem(name, f"no record left after {step}: {told}", "at least one") for name in empty]
            raise DataError("a conversion leaves nothing", problems)
        return found

    def rows(self, sets: Sets) -> dict[str, Rows]:
        """What goes to each file."""
        form, problems = self.config.to[-1], list[Problem]()
        if form not in FORMS:
            return {f"{name}.jsonl": list(map(record_to_dict, records)) for name, records in sets.items()}
        make = {"exo": exo_rows, "exo-scores": exo_score_rows, "generated": generated_rows}[form]
        files = {
            f"generated_{name}.jsonl" if form == "generated" else f"{name}.json": make(name, records, problems)
            for name, records in sets.items()
        }
        if problems:
            raise unreadable(alike_together(problems))
        others = {} if form == "generated" else {OTHER_PROMPT: sum(map(other_prompts, sets.values()))}
        lost = {} if form == "exo" else {LOST_REASONS: sum(map(lost_reasons, sets.values()))}
        self._note(form, sets, files, others | lost)
        return files

    def _one_by_one(self, step: Step, sets: Sets) -> tuple[Sets, dict[str, int]]:
        config, problems = self.config, list[Problem]()
        found: Sets = {}
        counts: dict[str, int] = {}
        lengths = self._lengths(sets) if step == "best" and config.by == "length" else None
        for name, records in sets.items():
            made: dict[str, Converted]
            if step == "candidates":
                made = {name: as_candidates(name, records, config.merge, problems)}
            elif step == "pairs":
                made = {name: as_pairs(name, records, config.pairs, config.margin, problems)}
            elif step == "sentences":
                made = {name: first_sentences(records, config.sentence_range, config.seed)}
            elif step == "prefixes":
                made = {name: as_prefixes(records, self._tokenizer, config.token_range, config.seed)}
            else:
                of = partial(best, name, records, lengths=lengths, problems=problems)
                made = {f"{name}.best-{size}": of(size) for size in config.of} or {name: of(None)}
            for part, converted in made.items():
                found[part] = converted.records
                for what, count in converted.counts.items():
                    counts[what] = counts.get(what, 0) + count
        if problems:
            raise unreadable(alike_together(problems))
        return found, counts

    def _lengths(self, sets: Sets) -> Lengths:
        records = [record for members in sets.values() for record in members]
        if self._tokenizer is not None:
            encoder = Encoder(self._tokenizer, Encoding.build())
            unit, lengths = "tokens", lambda record: encoder.lengths(record.completions)
        elif all(map(has_sampled_lengths, records)):
            unit, lengths = "tokens as sampled", lambda record: record.meta["tokens"]
        else:
            unit, lengths = "words", _words
        self.warnings.append(f"The longest are those of most {unit}.")
        return lengths

    def _note(
        self, step: str, before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]], counts: dict[str, int]
    ) -> None:
        sizes = {"before": sum(map(len, before.values())), "after": sum(map(len, after.values()))}
        self.steps.append({"to": step, **sizes, "counts": counts})


def _counted(count: int, what: str) -> str:
    """`1 record left out`, `2 records left out`: what was counted begins with its noun."""
    nouns, space, rest = what.partition(" ")
    return f"{counted(count, nouns.removesuffix('s'))}{space}{rest}" if nouns.endswith("s") else f"{count:,} {what}"


def _words(record: Record) -> list[int]:
    return [words(text) for text in record.completions]
