"""A classifier as a reward: which of its classes is good or bad, and on which scale that counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from rewardlab.errors import ModelError, Problem
from rewardlab.functional.classes import log_odds

ClassScale = Literal["probability", "logit"]
MULTI_LABEL, REGRESSION = "multi_label_classification", "regression"
"""What `problem_type` in a configuration of transformers may say."""


@dataclass(frozen=True)
class ClassReading:
    """How a class becomes a reward.

    Attributes:
        is_bad: the reward is that the text is not of the class; otherwise that it is.
        scale: probability: P(class), or 1 - P(class) of a bad one; logit: their log-odds.
    """

    is_bad: bool
    scale: ClassScale

    def rewards(self, logits: Tensor, label: int, *, exclusive: bool) -> Tensor:
        """Rewards in float32, shape [sequences], from logits of shape [sequences, classes]."""
        odds = log_odds(logits.float(), label, exclusive=exclusive)
        odds = -odds if self.is_bad else odds
        return odds if self.scale == "logit" else odds.sigmoid()

    def words(self, label: str) -> str:
        """The reward in words: `1 - P(hate)`."""
        probability = f"P({label})"
        if self.scale == "logit":
            return f"{'-' if self.is_bad else ''}logit {probability}"
        return f"1 - {probability}" if self.is_bad else probability


def is_exclusive(config: Any) -> bool:
    """Whether a text has exactly one class, by the configuration of a classifier of transformers."""
    return getattr(config, "problem_type", None) != MULTI_LABEL


def refuse_no_classes(path: str, config: Any, *, has_readout: bool, own_code: bool) -> None:
    """That a model has classes with probabilities.

    Raises:
        ModelError: it has none.
    """
    found = ""
    if has_readout:
        found = "a reward model of rewardlab with a readout: one number, and no classes"
    elif own_code:
        found = "code of its own, whose numbers need not be logits"
    elif getattr(config, "problem_type", None) == REGRESSION:
        found = "problem_type regression in its configuration: a number, and no class"
    if found:
        expected = "a sequence classifier of transformers"
        raise ModelError("The model is no classifier", [Problem(path, found, expected, "As a reward: model: ...")])
