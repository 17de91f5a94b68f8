"""Records → training examples: token groups with a target per sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from rewardlab.data.layout import Group
from rewardlab.data.tokenize import TokenSequence
from rewardlab.data.unread import unread_words
from rewardlab.errors import DataError, Problem, counted
from rewardlab.models.reward import RewardModel, grouped
from rewardlab.records import Candidates, Pair, Rated, Record

Target = Literal["preference", "label", "score", "completion"]
CHUNK_RECORDS = 2048
KINDS: Mapping[Target | None, str] = MappingProxyType(
    {
        "preference": "pairs or candidates with rewards",
        "label": "completions with labels",
        "score": "completions with scores",
        None: "candidates without rewards",
    }
)
"""What records of a kind of target are called in messages; None cannot train."""


@dataclass(frozen=True)
class Example:
    """What the trainer sees of a record.

    Attributes:
        group: its sequences.
        targets: one per sequence: ranks of a preference (higher is better), a label (0 or 1), or a score.
        margin: by how much the better side should win, in reward units (pairs only).
        id: the record's.
        occurrence: how many records with that id came before it in the data set.
    """

    group: Group
    targets: tuple[float, ...]
    margin: float = 0.0
    id: str = ""
    occurrence: int = 0


@dataclass
class Examples:
    """The examples of one data set.

    Attributes:
        items: in the order of the records.
        target: what kind of target all of them have.
        counts: `records`, `truncated` (sequences), `ties` that are learned, and a count per reason for records that
            were left out.
    """

    items: list[Example]
    target: Target
    counts: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.items)


def make_examples(records: Sequence[Record], model: RewardModel, name: str, *, ties: bool = False) -> Examples:
    """Tokenise records and say what they are good for.

    Left out and counted: records with a sequence over the limit where the encoding says `drop`; sides that are
    identical after tokenisation and truncation; candidates without two different rewards, unless ties are learned.

    Args:
        records: all of one kind of target.
        model: its tokenizer and encoding.
        name: of the data set, for messages.
        ties: whether candidates with equal rewards are kept, and counted as ties.

    Raises:
        DataError: no record, records of several kinds, or none left to learn from.
    """
    target = _target(records, name)
    counts: Counter[str] = Counter(records=len(records))
    seen: Counter[str] = Counter()
    items = []
    for record, sequences in _encoded(records, model):
        occurrence = seen[record.id]
        seen[record.id] += 1
        truncated = sum(sequence.truncated for sequence in sequences)
        if truncated and model.encoding.overlong == "drop":
            counts["too_long"] += 1
            continue
        counts["truncated"] += truncated
        targets, margin = _targets(record)
        tie = len(targets) > 1 and len(set(targets)) == 1
        if target == "preference" and len(set(targets)) < 2 and not (tie and ties):
            counts["no_preference"] += 1
        elif target == "preference" and len({sequence.ids for sequence in sequences}) < 2:
            counts["identical_sequences"] += 1
        else:
            if target == "preference" and tie:
                counts["ties"] += 1
            items.append(Example(grouped(sequences), targets, margin, record.id, occurrence))
    return some(Examples(items, target, counts), name)


def some(examples: Examples, name: str) -> Examples:
    """The examples of the data set of that name.

    Raises:
        DataError: there is none.
    """
    if examples.items:
        return examples
    reasons = {reason: count for reason, count in examples.counts.items() if count and reason != "records"}
    why = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items())
    found = f"nothing to learn from in {counted(examples.counts['records'], 'record')}{f' ({why})' if why else ''}"
    remedy = "`rewardlab data doctor` shows what is wrong."
    if name not in ("train", "test"):
        remedy = (
            "Name another evaluation set with --validation.NAME FILE; one that is held out of the training data grows "
            f"with --validation_share. {remedy}"
        )
    raise DataError("No example is left", [Problem(name, found, "at least one usable record", remedy)])


def _encoded(records: Sequence[Record], model: RewardModel) -> Iterator[tuple[Record, list[TokenSequence]]]:
    """Each record with its sequences, a chunk at a time."""
    # A tokenizer makes a number of its own for every token; sharing them takes a quarter of the memory.
    known: dict[int, int] = {}
    for start in range(0, len(records), CHUNK_RECORDS):
        chunk = records[start : start + CHUNK_RECORDS]
        prompts, completions = [record.prompt for record in chunk], [record.completions for record in chunk]
        encoded = model.encoder.sequences(prompts, completions)
        for record, sequences in zip(chunk, encoded, strict=True):
            yield (
                record,
                [one._replace(ids=tuple(known.setdefault(token, token) for token in one.ids)) for one in sequences],
            )


def _target(records: Sequence[Record], name: str) -> Target:
    kinds = {_kind(record) for record in records}
    if len(kinds) == 1 and (kind := next(iter(kinds))) is not None:
        return kind
    found = ", ".join(sorted(KINDS[kind] for kind in kinds)) or "no records"
    expected = f"one kind of: {', '.join(KINDS[kind] for kind in KINDS if kind is not None)}"
    raise DataError("The data cannot train a reward model", [Problem(name, found, expected, unread_words(records))])


def _kind(record: Record) -> Target | None:
    if isinstance(record, Rated):
        return "label" if record.label is not None else "score"
    if isinstance(record, Candidates) and record.rewards is None:
        return None
    return "preference"


def _targets(record: Record) -> tuple[tuple[float, ...], float]:
    if isinstance(record, Pair):
        return (1.0, 0.0), record.margin or 0.0
    if isinstance(record, Candidates):
        return record.rewards or (), 0.0
    value = record.score if record.label is None else record.label
    return (float(value or 0),), 0.0
