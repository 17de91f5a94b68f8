"""Which pairs the page carries along, and what it says of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from rewardlab.report.html import visible

Row = Mapping[str, Any]

LONGEST_TEXT_CHARACTERS = 4_000
LARGEST_EXAMPLES_BYTES = 6_000_000
MOST_POINTS = 1_500
EXCERPT_CHARACTERS = 140


class Pairs(Protocol):
    """Pairs of which the page shows a part, so that the texts of the others need not be in memory."""

    @property
    def margins(self) -> Sequence[float | None]:
        """Chosen minus rejected score of every pair."""
        ...

    def rows(self, indices: Sequence[int]) -> Sequence[Row]:
        """The pairs at `indices`, in that order, with the columns of pairs.parquet."""
        ...


@dataclass(frozen=True)
class Selection:
    """Pairs for the browser of examples.

    Attributes:
        rows: JSON objects with short keys, in the order of the input.
        total: pairs there are.
        words: how the rows were chosen, for the reader.
    """

    rows: list[dict[str, Any]]
    total: int
    words: str


@dataclass(frozen=True)
class Limits:
    """How many pairs the page carries along, and how many bytes they may take."""

    pairs: int
    bytes: int = LARGEST_EXAMPLES_BYTES

    def shared(self, wanted: Sequence[int]) -> list[Limits]:
        """A part for each of several browsers: an equal one, and of what others have no pairs for, a part too.

        Bytes go by pairs.

        Args:
            wanted: pairs that there are for each.
        """
        pairs, room = [0] * len(wanted), self.pairs
        fewest_first = sorted(range(len(wanted)), key=lambda place: wanted[place])
        for done, place in enumerate(fewest_first):
            pairs[place] = min(wanted[place], room // (len(wanted) - done))
            room -= pairs[place]
        total = max(sum(pairs), 1)
        return [Limits(count, self.bytes * count // total) for count in pairs]


def select(pairs: Pairs, limits: Limits, *, seed: int) -> Selection:
    """All pairs where they are few; else a third most wrong, a third most right and the rest at random.

    A text beyond 4,000 characters is cut, and when the rows would take more than their bytes, the
    less telling of each kind are left out.

    Args:
        pairs: the pairs evaluated.
        limits: of pairs and bytes.
        seed: of the random third.
    """
    total = len(pairs.margins)
    order = priority(pairs.margins, limits.pairs, seed)
    kept: list[tuple[int, dict[str, Any]]] = []
    room = limits.bytes
    for index, pair in zip(order, pairs.rows(order), strict=True):
        row = _embedded(pair, index)
        room -= bytes_in_page(row)
        if room < 0:
            break
        kept.append((index, row))
    rows = [row for _, row in sorted(kept, key=lambda item: item[0])]
    return Selection(rows, total, _selection_words(len(rows), total))


def points(pairs: Pairs, *, seed: int, most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Rows for the scatter of length against score: all pairs, or a random sample of `most`."""
    finite = [index for index, margin in enumerate(pairs.margins) if _finite(margin) is not None]
    if len(finite) > most:
        chosen = np.random.default_rng(seed).choice(len(finite), size=most, replace=False)
        finite = [finite[index] for index in sorted(chosen.tolist())]
    return [
        {
            "tokens": row["chosen_tokens"] - row["rejected_tokens"],
            "reward": round(row["margin"], 4),
            "ranked": ranked(row["margin"]),
            "prompt": excerpt(row["prompt"]),
        }
        for row in pairs.rows(finite)
    ]


def ranked(margin: float) -> str:
    """`right`, `wrong` or `tie`, by the sign of chosen minus rejected score."""
    return "right" if margin > 0 else "wrong" if margin < 0 else "tie"


def excerpt(text: str) -> str:
    """The last paragraph of a prompt that says something, on one line: what the answers answer stands last."""
    # "Assistant:" at the end of a prompt only says whose turn it is.
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if not re.fullmatch(r"\s*(\w+:)?\s*", part)]
    line = " ".join(visible(paragraphs[-1] if paragraphs else text).split())
    if len(line) <= EXCERPT_CHARACTERS:
        return line
    return f"{line[:EXCERPT_CHARACTERS]}\N{HORIZONTAL ELLIPSIS}"


def bytes_in_page(row: Mapping[str, Any]) -> int:
    """Bytes that a row takes as JSON in the page."""
    text = json.dumps(row, ensure_ascii=False)
    # Each of these characters becomes an escape of six.
    return len(text.encode("utf-8", "surrogatepass")) + 5 * sum(text.count(mark) for mark in "<>&")


def priority(given: Sequence[float | None], most: int, seed: int) -> list[int]:
    """Indices of the values to carry along: of the lowest, the highest and the rest in turn, the most telling first."""
    # Not a number sorts nowhere: such pairs count as ties here, and say so in the browser.
    margins = [_finite(margin) or 0.0 for margin in given]
    by_margin = sorted(range(len(margins)), key=lambda index: (margins[index], index))
    third = len(margins) if len(margins) <= most else most // 3
    lowest, highest = by_margin[:third], by_margin[::-1][:third]
    middle = by_margin[third : len(by_margin) - third]
    drawn = np.random.default_rng(seed).permutation(len(middle))[: max(0, most - 2 * third)]
    turns = zip_longest(lowest, highest, (middle[index] for index in drawn.tolist()))
    return list(dict.fromkeys(index for turn in turns for index in turn if index is not None))


def _embedded(row: Row, index: int) -> dict[str, Any]:
    margin = _finite(row["margin"])
    return {
        "index": index,
        "id": row["pair_id"],
        "source": row["source"],
        "subset": row["subset"],
        "fold": row["fold"],
        "excerpt": excerpt(row["prompt"]),
        "prompt": cut(row["prompt"]),
        "margin": margin,
        "given": _finite(row["given_margin"]),
        "gold": _finite(row.get("gold_margin")),
        "ranked": "unknown" if margin is None else ranked(margin),
        "delta": row["chosen_tokens"] - row["rejected_tokens"],
        "chosen": _side(row, "chosen"),
        "rejected": _side(row, "rejected"),
    }


def _side(row: Row, side: str) -> dict[str, Any]:
    return {
        "text": cut(row[side]),
        "score": _finite(row[f"{side}_score"]),
        "tokens": row[f"{side}_tokens"],
        "characters": row[f"{side}_characters"],
        "truncated": bool(row[f"{side}_truncated"]),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def cut(text: str, file: str = "pairs.parquet") -> str:
    """`text`, cut where it is long; `file` has the whole."""
    if len(text) <= LONGEST_TEXT_CHARACTERS:
        return text
    hidden = len(text) - LONGEST_TEXT_CHARACTERS
    return f"{text[:LONGEST_TEXT_CHARACTERS]} [\N{HORIZONTAL ELLIPSIS} {hidden:,} more characters in {file}]"


def _selection_words(kept: int, total: int) -> str:
    if kept == total:
        return f"All {total:,} pairs are here."
    return (
        f"{kept:,} of {total:,} pairs are here: those ranked most wrong, those ranked most right, and the rest "
        f"drawn at random. {total - kept:,} are left out to keep the page small; pairs.parquet has them all."
    )
