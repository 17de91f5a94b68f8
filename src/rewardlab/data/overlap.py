"""N-gram overlap of the data with evaluation sets: has the test been seen in training?

Words are runs of letters and digits in lower case; a text shares an n-gram with an evaluation set when n
consecutive words are the same. n = 13 is the length of Brown et al. 2020 (arXiv 2005.14165, appendix C).
Texts of fewer than n words have no n-gram and are never counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rewardlab.data.checks import Check, Examined, Severity, example
from rewardlab.records import Record

N = 13
WORD = re.compile(r"\w+")


def ngrams(text: str, n: int = N) -> Iterator[str]:
    """The n-grams of a text, words joined by spaces."""
    words = WORD.findall(text.lower())
    return (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))


def texts_of(record: Record) -> Iterator[str]:
    """The turns of a record's prompt and its completions."""
    yield from (turn.content for turn in record.prompt.messages)
    yield from record.completions


def index(records: Iterable[Record]) -> frozenset[str]:
    """All n-grams of an evaluation set."""
    return frozenset(gram for record in records for text in texts_of(record) for gram in ngrams(text))


def overlap(examined: Examined, evaluation: Mapping[str, Sequence[Record]]) -> Check:
    """Records that share an n-gram with a named evaluation set."""
    title = f"Records that share {N} consecutive words with an evaluation set"
    if not evaluation:
        return Check(
            "overlap", title, None, None, "skipped", "Name evaluation sets (`evaluation_sets`) to compare with."
        )
    indices = {name: index(records) for name, records in evaluation.items()}
    by_set = dict.fromkeys(indices, 0)
    found = []
    for member in examined.members:
        grams = {gram for text in texts_of(member.record) for gram in ngrams(text)}
        shared = {name: grams & known for name, known in indices.items() if not grams.isdisjoint(known)}
        for name in shared:
            by_set[name] += 1
        if shared:
            found.append((member.record, shared))
    examples = tuple(
        example(record, "; ".join(f"{name}: {min(grams)!r}" for name, grams in shared.items()))
        for record, shared in found[: examined.shown]
    )
    reading = "Shared passages may be quotations, or the evaluation set may have been trained on: look at the examples."
    severity: Severity = "warning" if found else "ok"
    numbers = {"by_evaluation_set": by_set, "words": N}
    return Check("overlap", title, len(found), len(examined.members), severity, reading, examples, numbers)
