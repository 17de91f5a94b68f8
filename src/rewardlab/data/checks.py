"""What the data doctor looks at, and its checks of structure: unusable rows, duplicates, leakage.

Conventions
    set        named records: a split, a file or a subset
    total      what the count is out of: rows, records, pairs or completions, as the title says
    severity   ok, note (worth knowing), warning (look at it before training), problem (results would mislead),
               skipped (not run, `reading` says why)
    intervals  95 %, observations clustered by conversation root
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np

from rewardlab.data.render import plain_text
from rewardlab.data.tokenize import Encoded
from rewardlab.data.unread import is_half_read, unread_columns, without_prompt
from rewardlab.functional.intervals import proportion
from rewardlab.records import Estimate, Pair, Prompt, Record, SetAside, content_id

Severity = Literal["ok", "note", "warning", "problem", "skipped"]
MANY = 0.01
"""Share from which on a nuisance is a warning."""
SHOWN_CHARACTERS = 240
"""How much of a text an example shows."""
ALREADY = "already set aside by data prepare"
"""In place of a set's name: the rows that are in none, because preparing the data left them out."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: stable machine name.
        title: what is counted, in plain words.
        count, total: how many of how many; None where nothing is counted.
        severity: see the conventions above.
        reading: how to read it and what to do.
        examples: a few rows: source, note and excerpts.
        numbers: further figures; estimates as dictionaries.
    """

    name: str
    title: str
    count: int | None
    total: int | None
    severity: Severity
    reading: str
    examples: tuple[Mapping[str, Any], ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The finding as `doctor.json` holds it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "examples": [dict(example) for example in self.examples], "numbers": dict(self.numbers)}


@dataclass(frozen=True)
class Member:
    """A record and the set it is in."""

    set: str
    record: Record

    @property
    def prompt(self) -> Prompt:
        """The record's prompt."""
        return self.record.prompt

    @property
    def completions(self) -> tuple[str, ...]:
        """The record's completions; of a pair the chosen one, then the rejected one."""
        return self.record.completions


@dataclass(frozen=True)
class Examined:
    """Everything the checks look at.

    Attributes:
        members: all records with their sets.
        set_aside: rows that could not be used, with their sets, or with `ALREADY` where they are in none.
        sets: names of the sets, in the order given.
        shown: examples per check.
        encoded: the sequences of each member's completions under a tokenizer; None without one.
    """

    members: tuple[Member, ...]
    set_aside: tuple[tuple[str, SetAside], ...]
    sets: tuple[str, ...]
    shown: int = 3
    encoded: tuple[tuple[Encoded, ...], ...] | None = None

    @cached_property
    def pairs(self) -> tuple[tuple[str, Pair], ...]:
        """The pairs, with their sets."""
        return tuple((member.set, member.record) for member in self.members if isinstance(member.record, Pair))

    @cached_property
    def roots(self) -> np.ndarray:
        """The conversation root of each pair, as clusters of intervals."""
        return np.array([pair.prompt.root_id for _, pair in self.pairs], dtype=np.str_)

    @property
    def rows(self) -> int:
        """Rows read: used and set aside."""
        return len(self.members) + len(self.set_aside)

    def share(self, name: str, values: Iterable[float], reading: str) -> dict[str, Any]:
        """A share over all pairs with its interval; `values` in [0, 1], one a pair."""
        return share(name, values, self.roots, reading)

    def by_set(self, names: Iterable[str]) -> dict[str, int]:
        """How often each set occurs, sets without any included, and `ALREADY` where it does."""
        return dict.fromkeys(self.sets, 0) | Counter(names)


def share(name: str, values: Iterable[float], clusters: np.ndarray, reading: str) -> dict[str, Any]:
    """The mean of values in [0, 1] as an estimate with its clustered interval."""
    found = proportion(np.fromiter(values, dtype=np.float64), clusters)
    return Estimate(
        name,
        found.value,
        found.low,
        found.high,
        n=found.n,
        clusters=found.clusters,
        method=found.method,
        reading=reading,
        reason=found.reason,
    ).as_dict()


def excludes(estimate: Mapping[str, Any], value: float) -> bool:
    """Whether an estimate's interval leaves a value out."""
    low, high = estimate["low"], estimate["high"]
    return low is not None and high is not None and not low <= value <= high


def graded(count: int, total: int, *, few: Severity = "note", many: Severity = "warning") -> Severity:
    """The severity of a nuisance by its share."""
    if count == 0:
        return "ok"
    return many if count >= MANY * total else few


def excerpt(text: str) -> str:
    """The beginning of a text, as examples show it."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def example(record: Record, note: str = "", /, **more: Any) -> dict[str, Any]:
    """A record as an example: where it is, what is to be seen, and excerpts."""
    shown: dict[str, Any] = {"source": str(record.source) if record.source else "", "id": record.id, "note": note}
    prompt = plain_text(record.prompt)
    shown["prompt"] = prompt if len(prompt) <= SHOWN_CHARACTERS else f"...{prompt[-SHOWN_CHARACTERS:]}"
    if isinstance(record, Pair):
        shown |= {"chosen": excerpt(record.chosen), "rejected": excerpt(record.rejected)}
    else:
        shown["completions"] = [excerpt(text) for text in record.completions[:4]]
    return shown | more


# --- unusable rows ---------------------------------------------------------------------------------------------

OWN_CHECK = {
    "identical": (
        "Rows whose two sides are the same text",
        "They teach nothing and cap every accuracy; they were set aside.",
    ),
    "empty": (
        "Rows with an empty answer",
        "An empty answer usually marks a failed generation; they were set aside.",
    ),
}
"""Reasons of set-aside rows that are a check of their own: title and reading."""


def unusable(examined: Examined) -> list[Check]:
    """Identical sides, empty answers, dialogues that part badly, and the other reasons to set a row aside."""
    checks = [
        _set_aside_check(examined, f"{reason}_{noun}", (reason,), *OWN_CHECK[reason])
        for reason, noun in (("identical", "sides"), ("empty", "answers"))
    ]
    others = tuple({item.reason for _, item in examined.set_aside} - {*OWN_CHECK, "prefix_mismatch"})
    title, reading = "Other rows that were set aside", "`set_aside.jsonl` has each row with its reason."
    return [*checks, _prefix_mismatch(examined), _set_aside_check(examined, "other_set_aside", others, title, reading)]


def _set_aside_check(examined: Examined, name: str, reasons: Sequence[str], title: str, reading: str) -> Check:
    found = [(set_name, item) for set_name, item in examined.set_aside if item.reason in reasons]
    numbers: dict[str, Any] = {"by_set": examined.by_set(set_name for set_name, _ in found)}
    if len(reasons) != 1:
        numbers["by_reason"] = dict(sorted(Counter(item.reason for _, item in found).items()))
    examples = tuple(_aside_example(item) for _, item in found[: examined.shown])
    severity = graded(len(found), examined.rows)
    return Check(name, title, len(found), examined.rows, severity, reading + _already(found), examples, numbers)


def _already(found: Sequence[tuple[str, SetAside]]) -> str:
    """A sentence on those rows that are in no set any more; empty where there are none."""
    count = sum(name == ALREADY for name, _ in found)
    return f" {count:,} of {len(found):,} were {ALREADY}." if count else ""


def _aside_example(item: SetAside) -> dict[str, Any]:
    row = {name: excerpt(value) if isinstance(value, str) else value for name, value in islice(item.row.items(), 6)}
    return {"source": str(item.source), "note": f"{item.reason}: {item.detail}", "row": row}


def _prefix_mismatch(examined: Examined) -> Check:
    """Dialogues whose sides differ before the last turn: part usable (their first different answers are), part not."""
    aside = [(name, item) for name, item in examined.set_aside if item.reason == "prefix_mismatch"]
    early = [(name, pair) for name, pair in examined.pairs if pair.meta.get("dropped_turns")]
    count = len(aside) + len(early)
    examples = [_aside_example(item) for _, item in aside]
    examples += [example(pair, f"{pair.meta['dropped_turns']} later turns left out") for _, pair in early]
    numbers = {
        "set_aside": len(aside),
        "used_up_to_first_difference": len(early),
        "by_set": examined.by_set(name for name, _ in [*aside, *early]),
    }
    reading = (
        "Two sides of a preference should differ in the last answer only. Where an earlier answer differs, that "
        "answer was taken and later turns left out; where no answer is the first difference, the row was set aside."
    )
    severity = graded(count, examined.rows)
    title = "Dialogues whose sides differ before the last turn"
    shown = tuple(examples[: examined.shown])
    return Check("prefix_mismatch", title, count, examined.rows, severity, reading + _already(aside), shown, numbers)


def empty_turns(examined: Examined) -> Check:
    """Prompts in which somebody says nothing."""
    found = [member for member in examined.members if any(not turn.content.strip() for turn in member.prompt.messages)]
    reading = "Somebody says nothing in the prompt; templates may render such a turn badly. The rows are used."
    return _members_check(examined, "empty_turns", "Records with an empty turn in the prompt", found, reading)


def unread_texts(examined: Examined) -> Check:
    """Columns of text that nothing has read, and the records for which that is wrong: prompts that are empty, and one
    side of a pair without the other."""
    found, columns = [], {}
    for name in examined.sets:
        records = [member.record for member in examined.members if member.set == name]
        if unread := unread_columns(records):
            columns[name] = unread
            wrong = {id(record) for record in without_prompt(records)}
            found += [Member(name, one) for one in records if id(one) in wrong or is_half_read(one)]
    told = " ".join(f"{name}: {', '.join(map(repr, names))}." for name, names in columns.items())
    reading = f"Not read: {told} `columns` maps what is meant (our name: their name)." if told else "All text was read."
    title = "Records without a prompt or a side, with columns of text that were not read"
    check = _members_check(examined, "unread_texts", title, found, reading)
    severity: Severity = "warning" if found else "note" if columns else "ok"
    return replace(check, severity=severity, numbers={**check.numbers, "columns": columns})


def _members_check(examined: Examined, name: str, title: str, found: Sequence[Member], reading: str) -> Check:
    total = len(examined.members)
    examples = tuple(example(member.record) for member in found[: examined.shown])
    numbers = {"by_set": examined.by_set(member.set for member in found)}
    return Check(name, title, len(found), total, graded(len(found), total), reading, examples, numbers)


# --- duplicates ------------------------------------------------------------------------------------------------


def duplicates(examined: Examined) -> Check:
    """Records that a set already has."""
    seen: set[tuple[str, str]] = set()
    repeated = []
    for member in examined.members:
        key = (member.set, member.record.id)
        if key in seen:
            repeated.append(member)
        seen.add(key)
    reading = "An exact duplicate counts twice in training and in every average; intervals by root allow for it."
    return _members_check(examined, "duplicates", "Records that occur again in the same set", repeated, reading)


def conflicting_duplicates(examined: Examined) -> Check:
    """Pairs that also occur the other way round, in any set."""
    ids = {pair.id for _, pair in examined.pairs}
    found = [
        (name, pair) for name, pair in examined.pairs if content_id([pair.prompt.id, pair.rejected, pair.chosen]) in ids
    ]
    total = len(examined.pairs)
    reading = "The same two answers are preferred both ways: no scorer can get both right."
    examples = tuple(example(pair) for _, pair in found[: examined.shown])
    numbers = {"by_set": examined.by_set(name for name, _ in found)}
    title = "Pairs that also occur the other way round"
    severity = graded(len(found), total)
    return Check("conflicting_duplicates", title, len(found), total, severity, reading, examples, numbers)


# --- leakage ---------------------------------------------------------------------------------------------------

RANDOM_TEST_SHARE = 0.1


def leakage(examined: Examined) -> list[Check]:
    """Records and conversation roots that an earlier set has too; and what a split by rows would leak."""
    return [
        _shared(examined, "leakage_ids", "Records that an earlier set has too", lambda record: record.id),
        _shared(
            examined,
            "leakage_roots",
            "Records whose conversation begins as one of an earlier set",
            lambda record: record.prompt.root_id,
        ),
        shared_roots(examined),
    ]


def _shared(examined: Examined, name: str, title: str, key: Callable[[Record], str]) -> Check:
    if len(examined.sets) < 2:
        return Check(name, title, None, None, "skipped", "Needs two sets or more, such as train and test.")
    keys: dict[str, set[str]] = defaultdict(set)
    for member in examined.members:
        keys[member.set].add(key(member.record))
    between: Counter[str] = Counter()
    found = []
    for member in examined.members:
        earlier = examined.sets[: examined.sets.index(member.set)]
        also_in = [other for other in earlier if key(member.record) in keys[other]]
        between.update(f"{other} / {member.set}" for other in also_in)
        if also_in:
            found.append((member, also_in))
    total = sum(member.set != examined.sets[0] for member in examined.members)
    examples = tuple(
        example(member.record, f"{member.set}, also in {', '.join(others)}")
        for member, others in found[: examined.shown]
    )
    reading = "Sets that are trained and tested on must share none; split by conversation root (`data prepare`)."
    severity: Severity = "problem" if found else "ok"
    return Check(name, title, len(found), total, severity, reading, examples, {"between": dict(between)})


def shared_roots(examined: Examined) -> Check:
    """Records that share their conversation root, and what a random split by rows would leak by them.

    A row with m rows of its root meets one of the other m - 1 in training unless all fell into the test share p:
    it leaks with probability 1 - p^(m-1) (rows drawn independently).
    """
    sizes = Counter(member.prompt.root_id for member in examined.members)
    found = [member for member in examined.members if sizes[member.prompt.root_id] > 1]
    leaked = [1.0 - RANDOM_TEST_SHARE ** (sizes[member.prompt.root_id] - 1) for member in examined.members]
    numbers = {
        "roots": len(sizes),
        "leak_of_random_split": float(np.mean(leaked)) if leaked else None,
        "random_split_test_share": RANDOM_TEST_SHARE,
        "largest_root": max(sizes.values(), default=0),
    }
    reading = (
        "Conversations that begin alike. `leak_of_random_split` is the share of test rows that a random split by "
        "rows would let meet their own conversation in training; splitting by root avoids it."
    )
    examples = tuple(example(member.record) for member in found[: examined.shown])
    severity: Severity = "note" if found else "ok"
    title = "Records that share their first user turn with another"
    return Check("shared_roots", title, len(found), len(examined.members), severity, reading, examples, numbers)
