"""`data doctor`: what is wrong or telling in preference data, before anything is trained on them.

doctor.json       the findings: {"sets", "set_aside", "evaluation_sets", "tokenizer", "checks"}
set_aside.jsonl   rows that cannot be used, with reasons
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from rewardlab.config import Config, Paths
from rewardlab.data.canonical import read_set_aside, write_set_aside
from rewardlab.data.checks import (
    ALREADY,
    Check,
    Examined,
    Member,
    conflicting_duplicates,
    duplicates,
    empty_turns,
    leakage,
    unread_texts,
    unusable,
)
from rewardlab.data.cues import (
    cut_off,
    doubled_bos,
    lengths,
    longer_chosen,
    measured_lengths,
    missing_eos,
    odd_characters,
    special_tokens,
    touching_prompts,
    truncated,
    whitespace_cues,
)
from rewardlab.data.load import Loaded, dropped_words, in_words, load_all
from rewardlab.data.overlap import overlap
from rewardlab.data.prepare import DROPPED, source_summary
from rewardlab.data.source import DataSource, with_limit
from rewardlab.data.tokenize import Encoded, Encoder, Encoding, read_tokenizer
from rewardlab.errors import counted
from rewardlab.protocols import Folder
from rewardlab.records import Record, SetAside
from rewardlab.store.files import write_json

WIDTH = 110
"""Columns of the terminal table."""

ENCODED_AT_ONCE = 1000
"""Records that are tokenised in one call."""

SIGNS = {"ok": "ok", "note": "note", "warning": "WARNING", "problem": "PROBLEM", "skipped": "-"}


class DataDoctor(Config):
    """What to examine, and what to compare it with."""

    sources: dict[str, DataSource] = Field(min_length=1)
    """The sets by names of your own, training data first: `--sources.train.path train.jsonl`."""
    set_aside: Paths = ()
    """Files of the rows that `data prepare` set aside, where the sets are what it left: they count in their checks."""
    evaluation_sets: dict[str, DataSource] = Field(default_factory=dict)
    """Sets by name whose 13-grams the data should not hold."""
    tokenizer: str | None = None
    """Folder or hub id of a tokenizer: lengths and truncation in its tokens; without one, in words."""
    encoding: Encoding = Field(default_factory=Encoding.build)
    """How sequences are made and cut."""
    examples: int = Field(default=3, ge=0)
    """Example rows per check."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        sets: name → format, counts and files of each set.
        set_aside: reason → number of rows that preparing the data had set aside before.
        evaluation_sets: name → number of records.
        tokenizer: the tokenizer that lengths are counted with, None for words.
        checks: the findings, in the order a person reads them.
    """

    sets: Mapping[str, Mapping[str, Any]]
    set_aside: Mapping[str, int]
    evaluation_sets: Mapping[str, int]
    tokenizer: str | None
    checks: tuple[Check, ...]

    def __getitem__(self, name: str) -> Check:
        """The check of that machine name; KeyError where there is none."""
        return {check.name: check for check in self.checks}[name]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `doctor.json`."""
        return {
            "sets": {name: dict(found) for name, found in self.sets.items()},
            "set_aside": dict(self.set_aside),
            "evaluation_sets": dict(self.evaluation_sets),
            "tokenizer": self.tokenizer,
            "checks": [check.as_dict() for check in self.checks],
        }

    def lines(self) -> list[str]:
        """The findings as a table, then what deserves a look, worst first."""
        return format_doctor(self.as_dict()).splitlines()


def doctor(config: DataDoctor, run: Folder) -> Diagnosis:
    """Examine the sources and write what was found.

    Raises:
        DataError: problems of any source or file of rows set aside.
        ModelError: the tokenizer cannot be read.
    """
    tokenizer = None if config.tokenizer is None else read_tokenizer(config.tokenizer)
    named = {**config.sources, **{f"evaluation: {name}": source for name, source in config.evaluation_sets.items()}}
    loaded = dict(zip(named, load_all(with_limit(source, config.limit) for source in named.values()), strict=True))
    sets = {name: loaded[name] for name in config.sources}
    evaluation = {name: loaded[f"evaluation: {name}"].records for name in config.evaluation_sets}
    earlier = [item for path in config.set_aside for item in read_set_aside(path)]
    encoder = None if tokenizer is None else Encoder(tokenizer, config.encoding)
    checks = examine(sets, evaluation, earlier, encoder=encoder, encoding=config.encoding, shown=config.examples)
    diagnosis = Diagnosis(
        {name: source_summary(part) for name, part in sets.items()},
        dict(sorted(Counter(item.reason for item in earlier).items())),
        {name: len(records) for name, records in evaluation.items()},
        config.tokenizer,
        tuple(checks),
    )
    own = (item for part in sets.values() for item in part.set_aside)
    write_set_aside(run.path("set_aside.jsonl"), [*own, *earlier])
    write_json(run.path("doctor.json"), diagnosis.as_dict())
    return diagnosis


def examine(
    sets: Mapping[str, Loaded],
    evaluation: Mapping[str, Sequence[Record]] | None = None,
    set_aside: Sequence[SetAside] = (),
    *,
    encoder: Encoder | None = None,
    encoding: Encoding | None = None,
    shown: int = 3,
) -> list[Check]:
    """All checks, in the order a person reads them.

    Args:
        sets: loaded sources by name, training data first.
        evaluation: records of evaluation sets by name.
        set_aside: rows that were left out before the sets came to be.
        encoder: tokenizer and rules; without one, words stand in for tokens.
        encoding: the rules alone, where there is no encoder.
        shown: examples per check.
    """
    members = tuple(Member(name, record) for name, part in sets.items() for record in part.records)
    aside = [(name, item) for name, part in sets.items() for item in part.set_aside]
    aside += [(ALREADY, item) for item in set_aside]
    encoded = None if encoder is None else _encoded(members, encoder)
    examined = Examined(members, tuple(aside), tuple(sets), shown, encoded)
    rules = encoder.encoding if encoder is not None else encoding or Encoding.build()
    marks, bos, eos = ((), None, None) if encoder is None else _own_marks(encoder.tokenizer)
    measured = measured_lengths(examined)
    return [
        *unusable(examined),
        *truncated(examined, rules)[::-1],
        empty_turns(examined),
        unread_texts(examined),
        duplicates(examined),
        conflicting_duplicates(examined),
        *leakage(examined),
        whitespace_cues(examined),
        touching_prompts(examined, rules.template),
        special_tokens(examined, marks),
        doubled_bos(examined, bos),
        missing_eos(examined, eos),
        cut_off(examined),
        odd_characters(examined),
        lengths(examined, measured),
        longer_chosen(examined, measured),
        overlap(examined, evaluation or {}),
    ]


def format_doctor(result: Mapping[str, Any]) -> str:
    """The content of `doctor.json` as a table for the terminal, then what deserves a look, worst first."""
    lines = []
    for name, source in result["sets"].items():
        aside = in_words(source["set_aside"]) or "none"
        told = f"; {dropped_words(source[DROPPED])}" if DROPPED in source else ""
        lines.append(f"{name}: {counted(source['records'], 'record')} ({source['adapter']}), set aside: {aside}{told}")
    unread = next(check for check in result["checks"] if check["name"] == "unread_texts")
    lines += [
        f"{name}: text not read: {', '.join(map(repr, names))}" for name, names in unread["numbers"]["columns"].items()
    ]
    if result["set_aside"]:
        lines.append(f"{ALREADY}: {in_words(result['set_aside'])}")
    lines += ["", f"{'':9}{'count':>8} {'of':>8} {'share':>7}  check", "-" * WIDTH]
    lines += [_table_row(check) for check in result["checks"]]
    length = next(check for check in result["checks"] if check["name"] == "longer_chosen")
    for unit, numbers in length["numbers"].items():
        lines.append(f"{'':9}the longer answer is chosen, by {unit} (ties 1/2): {_shown(numbers['longer_is_better'])}")
    order = ("problem", "warning")
    telling = sorted((c for c in result["checks"] if c["severity"] in order), key=lambda c: order.index(c["severity"]))
    for check in telling:
        head = f"{SIGNS[check['severity']]} {check['title']}: {check['reading']}"
        lines += ["", *textwrap.wrap(head, WIDTH, subsequent_indent="    ")]
        lines += [f"    {_example_line(item)}" for item in check["examples"]]
    return "\n".join(lines)


def _table_row(check: Mapping[str, Any]) -> str:
    count, total = check["count"], check["total"]
    sign = f"{SIGNS[check['severity']]:9}"
    if count is None or total is None:
        return f"{sign}{'-':>8} {'-':>8} {'-':>7}  {check['title']}"
    part = f"{count / total:7.2%}" if total else f"{'-':>7}"
    return f"{sign}{count:8,} {total:8,} {part}  {check['title']}"


def _shown(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return f"not known ({estimate['reason']})"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f} ({estimate['reason']})"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _example_line(item: Mapping[str, Any]) -> str:
    # Text of the data may hold anything: terminal control sequences must not reach the terminal. `repr` escapes what
    # cannot be printed, invisible marks that change the direction of writing included, and nothing else.
    text = item.get("chosen") or item.get("row") or item.get("completions") or ""
    line = f"{item['source']} {item['note']}".rstrip() + f": {text!r}"
    return line if len(line) <= WIDTH - 4 else f"{line[: WIDTH - 7]}..."


def _encoded(members: Sequence[Member], encoder: Encoder) -> tuple[tuple[Encoded, ...], ...]:
    sequences: list[tuple[Encoded, ...]] = []
    # What the tokenizer knows of a text beside its ids takes several times their memory: let go of it part by part.
    for start in range(0, len(members), ENCODED_AT_ONCE):
        part = members[start : start + ENCODED_AT_ONCE]
        encoded = encoder.encode([member.prompt for member in part], [member.completions for member in part])
        sequences += map(tuple, encoded)
    return tuple(sequences)


def _own_marks(tokenizer: Any) -> tuple[tuple[str, ...], int | None, int | None]:
    """The tokenizer's marks of beginnings and ends, as text; the ids of its BOS and EOS, None where it has none."""
    marks = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.cls_token, tokenizer.sep_token)
    return tuple(mark for mark in marks if mark), tokenizer.bos_token_id, tokenizer.eos_token_id
