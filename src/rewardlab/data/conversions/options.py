"""What `data convert` is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rewardlab.config import Config
from rewardlab.data.conversions.best import Rule
from rewardlab.data.conversions.pairs import Choice
from rewardlab.data.source import DataSource

Step = Literal["labelled", "candidates", "pairs", "best", "sentences", "prefixes", "exo", "exo-scores", "generated"]
Steps = Annotated[list[Step], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""Conversions in their order; one may stand without a list around it."""
FORMS = ("exo", "exo-scores", "generated")
"""The last step, where what is written is for other programs."""
BELONGS_TO = {
    "scores": ("labelled",),
    "unit_sd": ("labelled",),
    "merge": ("candidates",),
    "pairs": ("pairs",),
    "margin": ("pairs",),
    "of": ("best",),
    "by": ("best",),
    "sentences": ("sentences",),
    "tokens": ("prefixes",),
    "seed": ("sentences", "prefixes"),
}
"""Option → the conversions that read it."""
FILE_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
TAKEN = ("run", "set_aside", "summary")
RANGE = re.compile(r"(\d{1,6})(?:\.\.(\d{1,6}))?")


class DataConversion(Config):
    """Records and what becomes of them."""

    sources: dict[str, DataSource] = Field(min_length=1)
    """What to read, by names of your own, which are those of the files written: `--sources.train.path pairs.jsonl`."""
    to: Steps = Field(min_length=1)
    """Conversions in their order: labelled, candidates, pairs, best, sentences, prefixes; last
    exo, exo-scores or generated."""
    scores: Path | None = None
    """labelled: the folder of `rewardlab score` on the same sources in the same order, or its table."""
    unit_sd: bool = False
    """labelled: rewards divided by their standard deviation within records, so that a temperature or a margin means the
    same under every reward model."""
    merge: bool = False
    """candidates: all records of a prompt as one."""
    pairs: Choice = "best-worst"
    """pairs: the best against the worst completion of a prompt, or all pairs of them."""
    margin: float = Field(default=0.0, ge=0.0)
    """pairs: rewards of a pair differ by more than this."""
    of: list[int] = Field(default_factory=list)
    """best: the best of the first so many completions, a file for each number; of all where left out."""
    by: Rule = "reward"
    """best: the highest reward, or the largest length."""
    sentences: str | None = None
    """sentences: sentences that are kept of a completion, a number (3) or a range to draw from (1..6)."""
    tokenizer: str | None = None
    """prefixes, and best by length: folder or hub id of a tokenizer. Without one, prefixes are counted in words, and
    lengths are those that `rewardlab sample` counted, else in words."""
    tokens: str | None = None
    """prefixes: tokens of the prompt (words without a tokenizer), a number (8) or a range to draw from (2..8)."""
    seed: int = 0
    """sentences, prefixes: draws the numbers of sentences and tokens."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    @field_validator("sources")
    @classmethod
    def _names_of_files(cls, value: dict[str, DataSource]) -> dict[str, DataSource]:
        wrong = [name for name in value if not FILE_NAME.fullmatch(name) or name in TAKEN]
        if wrong:
            allowed = f"letters, digits, '.', '_' and '-', and none of {', '.join(TAKEN)}"
            raise ValueError(f"expected names of files ({allowed}), not {', '.join(map(repr, wrong))}")
        return value

    @field_validator("of")
    @classmethod
    def _sizes(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value) or any(size < 1 for size in value):
            raise ValueError("expected different numbers from 1")
        return value

    @field_validator("tokens", "sentences")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        found = RANGE.fullmatch(value) if value is not None else None
        if value is not None and (found is None or not 1 <= int(found[1]) <= int(found[2] or found[1])):
            raise ValueError("expected a number from 1 (8), or a range (2..8)")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.to)) < len(self.to) or any(step in FORMS for step in self.to[:-1]):
            raise ValueError(f"expected each conversion once in `to`, and {', '.join(FORMS)} only as the last")
        for name, steps in BELONGS_TO.items():
            if not set(steps) & set(self.to) and getattr(self, name) != type(self).model_fields[name].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"expected `to` with {' or '.join(steps)} beside {name}, which is of no use without")
        needed = {"labelled": ("scores",), "sentences": ("sentences",), "prefixes": ("tokens",)}
        for step in self.to:
            lacking = [name for name in needed.get(step, ()) if getattr(self, name) is None]
            if lacking:
                raise ValueError(f"expected {' and '.join(lacking)} beside {step}")
        return self

    @property
    def token_range(self) -> tuple[int, int]:
        """The least and the largest number of tokens of a prefix."""
        return _ends(self.tokens)

    @property
    def sentence_range(self) -> tuple[int, int]:
        """The least and the largest number of sentences that are kept."""
        return _ends(self.sentences)


def _ends(text: str | None) -> tuple[int, int]:
    least, _, most = str(text).partition("..")
    return int(least), int(most or least)
