"""Ignorant models of preference: what counts of words, or length alone, would get right.

A reward model earns its name only by what it adds to these. Both are linear Bradley-Terry models of the
completions, blind to the prompt and to the order of words, fitted on the training pairs.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from rewardlab.functional.linear import fit_bradley_terry
from rewardlab.records import Pair

RIDGE = 1e-2
"""Penalty of the bag of words, per pair. On HH the accuracy stays within a point over a factor of 10 either way."""
RAREST = 3
"""Completions that a word must occur in to count."""

_WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]|\n+")


def words(text: str) -> list[str]:
    """Lower-case words, punctuation marks and runs of line breaks of a text."""
    return [word.lower() for word in _WORD.findall(text)]


@dataclass(frozen=True)
class BagOfWords:
    """A linear Bradley-Terry model of word counts.

    Attributes:
        vocabulary: column of every word that counts.
        weights: what one more occurrence of each word adds to the reward.
    """

    vocabulary: Mapping[str, int]
    weights: np.ndarray

    @classmethod
    def fit(cls, pairs: Sequence[Pair], rarest: int = RAREST, ridge: float = RIDGE) -> BagOfWords | None:
        """Fit to training pairs; None where no word occurs in `rarest` completions.

        Args:
            pairs: training pairs.
            rarest: completions that a word must occur in.
            ridge: penalty on the squared weights, beside the mean loss of a pair.
        """
        found: Counter[str] = Counter()
        for pair in pairs:
            found.update(set(words(pair.chosen)))
            found.update(set(words(pair.rejected)))
        vocabulary = {word: column for column, word in enumerate(sorted(w for w, n in found.items() if n >= rarest))}
        if not vocabulary:
            return None
        return cls(vocabulary, fit_bradley_terry(_count_differences(pairs, vocabulary), ridge))

    def margins(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Chosen minus rejected reward of every pair."""
        return np.asarray(_count_differences(pairs, self.vocabulary) @ self.weights, dtype=np.float64)


def length_weight(pairs: Sequence[Pair]) -> float:
    """Weight of the length difference, in units of its root mean square, as the only feature; 0 without lengths.

    Its sign is what the training pairs say about length: positive where longer answers are chosen more often.
    """
    differences = character_differences(pairs)
    spread = float(np.sqrt(np.square(differences).mean())) if len(pairs) else 0.0
    if spread == 0.0:
        return 0.0
    return float(fit_bradley_terry(csr_array((differences / spread)[:, None]), penalty=1e-6)[0])


def character_differences(pairs: Sequence[Pair]) -> np.ndarray:
    """Characters of the chosen minus characters of the rejected completion."""
    return np.array([len(pair.chosen) - len(pair.rejected) for pair in pairs], dtype=np.float64)


def _count_differences(pairs: Sequence[Pair], vocabulary: Mapping[str, int]) -> csr_array:
    """Counts in the chosen minus counts in the rejected completion, pairs by words."""
    # Typed arrays: a list of Python numbers would take several times the memory on large data.
    columns, values, starts = array("i"), array("d"), array("q", [0])
    for pair in pairs:
        counts = Counter(_columns(pair.chosen, vocabulary))
        counts.subtract(_columns(pair.rejected, vocabulary))
        differing = {column: count for column, count in sorted(counts.items()) if count}
        columns.extend(differing.keys())
        values.extend(differing.values())
        starts.append(len(columns))
    parts = (np.asarray(values), np.asarray(columns), np.asarray(starts))
    return csr_array(parts, shape=(len(pairs), len(vocabulary)))


def _columns(text: str, vocabulary: Mapping[str, int]) -> Iterable[int]:
    return (vocabulary[word] for word in words(text) if word in vocabulary)
