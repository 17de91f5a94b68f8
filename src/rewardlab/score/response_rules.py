"""Rewards of what a policy knows of its own responses: length in tokens, ending, repetition, format.

Every value is better the higher it is: a fault is -1 or less than 0, so that weights are positive as a rule.
"""

from __future__ import annotations

import abc
import re
from typing import ClassVar

import torch
from pydantic import Field, field_validator

from rewardlab.config import Config
from rewardlab.functional import shaping
from rewardlab.records import Response


class ResponseRule(Config, abc.ABC):
    """A reward of a response's own facts."""

    needs_tokens: ClassVar[bool] = False
    """Whether it counts tokens."""
    needs_end: ClassVar[bool] = False
    """Whether it asks if the response ended by itself."""

    @property
    @abc.abstractmethod
    def words(self) -> str:
        """The value in words."""

    @abc.abstractmethod
    def value(self, response: Response) -> float:
        """Of one response."""


class LengthRule(ResponseRule):
    """Length in tokens of the policy, its end included."""

    needs_tokens: ClassVar[bool] = True

    target: int | None = Field(None, ge=1)
    """Length that is best, in tokens. Default: none, and every token counts 1."""

    @property
    def words(self) -> str:
        """The value in words."""
        return "tokens" if self.target is None else f"1 - |tokens / {self.target} - 1|"

    def value(self, response: Response) -> float:
        """Tokens; with a target N 1 - |tokens / N - 1| (Singhal et al. 2023, arXiv 2310.03716, length-only PPO)."""
        if self.target is None:
            return float(response.tokens)
        return float(shaping.length_rewards(torch.tensor([response.tokens]), float(self.target)))


class MissingEndRule(ResponseRule):
    """A response that was cut off before it ended by itself."""

    needs_end: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """The value in words."""
        return "-1 where the response did not end by itself"

    def value(self, response: Response) -> float:
        """-1 where there is no end, else 0."""
        return 0.0 if response.finished else -1.0


class RepetitionRule(ResponseRule):
    """Share of n-grams of words that the response has had before."""

    n: int = Field(4, ge=1)
    """Words of an n-gram."""

    @property
    def words(self) -> str:
        """The value in words."""
        return f"-(share of repeated {self.n}-grams of words)"

    def value(self, response: Response) -> float:
        """-(1 - distinct / all n-grams), 0 where there are none: minus seq-rep-n (Welleck et al. 2020, 1908.04319)."""
        words = response.text.split()
        grams = [tuple(words[start : start + self.n]) for start in range(len(words) - self.n + 1)]
        return -(1.0 - len(set(grams)) / len(grams)) if grams else 0.0


class FormatRule(ResponseRule):
    """Whether the response has a form; the pattern alone stands for it."""

    text_field: ClassVar[str] = "pattern"

    pattern: str
    """A regular expression of Python, which may match anywhere: ^ and $ are the ends of the response, and with (?s) in
    front a dot matches line breaks."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from error
        return value

    @property
    def words(self) -> str:
        """The value in words."""
        return f"1 where the response matches {self.pattern!r}"

    def value(self, response: Response) -> float:
        """1 where the pattern matches, else 0."""
        return 1.0 if re.search(self.pattern, response.text) else 0.0
