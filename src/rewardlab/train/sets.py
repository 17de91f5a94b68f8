"""What is to be said of the sets of a training before it begins: records they share, and prompts of another form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rewardlab.data.load import dropped_words, in_words
from rewardlab.data.prepare import DROPPED
from rewardlab.errors import counted
from rewardlab.models.reward import form_of, form_warning
from rewardlab.records import Record

FEW_RECORDS = 30
"""Below so many held-out records the interval of an accuracy is wide, and too narrow all the same."""


def too_few_words(count: int) -> list[str]:
    """What is to be said of a held-out set of so many records; nothing of one that is large enough."""
    few = f"{count} are too few to choose a checkpoint by: name a larger set with --validation."
    return [few] if count < FEW_RECORDS else []


def set_aside_words(counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """How many rows of which set cannot be used, and why: set → reason → number."""
    for name, found in counts.items():
        reasons = {reason: count for reason, count in found.items() if reason != DROPPED}
        if DROPPED in found:
            yield f"{name}: {dropped_words(found[DROPPED])}"
        total = sum(reasons.values())
        if total:
            yield f"{name}: {counted(total, 'row')} set aside ({in_words(reasons)}); `rewardlab data doctor` shows them"


def sampling_words(records: Sequence[Record], temperature: float) -> Iterator[str]:
    """Where records say that their completions were drawn from another distribution than the one that is trained.

    Args:
        records: as `rewardlab sample` wrote them, or made of such ones; others say nothing.
        temperature: at which log-probabilities are taken.
    """
    told = [record.meta.get("temperature") for record in records]
    temperatures = Counter(float(value) for value in told if isinstance(value, int | float))
    for drawn_at, count in temperatures.items():
        if drawn_at != temperature:
            remedy = f": --temperature {drawn_at:g} takes them there too" if drawn_at > 0 else ""
            yield (
                f"of {len(records):,} training records {count:,} were sampled at temperature {drawn_at:g}, but their "
                f"log-probabilities are taken at {temperature:g}{remedy}"
            )
    warped = sum(record.meta.get("warped") is True for record in records)
    if warped:
        yield (
            f"of {len(records):,} training records {warped:,} were sampled with tokens left out or penalised (top_k, "
            "top_p, repetition_penalty): the policy has other log-probabilities than they were drawn with"
        )


def warnings_of(
    training: Sequence[Record], validation: Mapping[str, Sequence[Record]], test: Sequence[Record]
) -> Iterator[str]:
    """Warnings in words, none where there is nothing to say.

    Args:
        training: the training records as they were read, before interventions.
        validation: evaluation sets by name, the first one chooses the best checkpoint.
        test: the set that has chosen nothing; empty where there is none.
    """
    trained = form_of(record.prompt for record in training)
    sources = {f"validation.{name}": records for name, records in validation.items()} | ({"test": test} if test else {})
    for source, records in sources.items():
        form = form_of(record.prompt for record in records)
        yield from filter(None, [form_warning(form, trained, f"the prompts of {source}", source)])
        yield from _shared(source, records, "train", training, "what is measured on them has been seen in training")
    chooser = next(iter(sources))
    if test and chooser != "test":
        yield from _shared("test", test, chooser, sources[chooser], "they have chosen the best checkpoint")


def _shared(name: str, records: Sequence[Record], other: str, others: Sequence[Record], so: str) -> Iterator[str]:
    """What of a set another one has too: the same records, and others of the same conversations."""
    ids, roots = {record.id for record in others}, {record.prompt.root_id for record in others}
    same = sum(record.id in ids for record in records)
    related = sum(record.prompt.root_id in roots for record in records)
    if related:
        yield (
            f"{name} is not apart from {other}: of its {len(records):,} records {same:,} are in {other} too, and "
            f"{related:,} are of conversations that {other} has: {so}"
        )
