"""N-gram overlap of the data with evaluation sets: has the test been seen in training?

Words are runs of letters and digits in lower case; a text shares an n-gram with an evaluation set when n
consecutive words are the same. n = 13 is the length of Brown et al. 2020 (arXiv 2005.14165, appendix C).
Texts of fewer than n words have no n-gram and are never counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

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


def hashed(grams: Iterable[str]) -> np.ndarray:
    """A 64-bit hash of every n-gram. Between two sets of 10^8 n-grams .0005 false matches are to be expected."""
    digests = (hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest() for gram in grams)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def index(records: Iterable[Record]) -> np.ndarray:
    """The hashes of all n-grams of an evaluation set, sorted: 8 bytes each, the words would take well over 100."""
    parts = [hashed(gram for text in texts_of(record) for gram in ngrams(text)) for record in records]
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *parts]))


def _shared(grams: Sequence[str], hashes: np.ndarray, known: np.ndarray) -> str | None:
    """The first of the n-grams whose hash is among the `known`; None where none is."""
    places = np.searchsorted(known, hashes)
    inside = places < len(known)
    inside[inside] = known[places[inside]] == hashes[inside]
    return next((grams[place] for place in np.flatnonzero(inside).tolist()), None)


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
        grams = [gram for text in texts_of(member.record) for gram in ngrams(text)]
        hashes = hashed(grams)
        first = {name: _shared(grams, hashes, known) for name, known in indices.items()}
        shared = {name: gram for name, gram in first.items() if gram is not None}
        for name in shared:
            by_set[name] += 1
        if shared:
            found.append((member.record, shared))
    examples = tuple(
        example(record, "; ".join(f"{name}: {gram!r}" for name, gram in shared.items()))
        for record, shared in found[: examined.shown]
    )
    reading = "Shared passages may be quotations, or the evaluation set may have been trained on: look at the examples."
    severity: Severity = "warning" if found else "ok"
    numbers = {"by_evaluation_set": by_set, "words": N}
    return Check("overlap", title, len(found), len(examined.members), severity, reading, examples, numbers)
