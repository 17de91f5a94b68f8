"""Whether a text has the attribute, as code sees it, and what else code sees in a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from rewardlab.audit.intake import tools_for
from rewardlab.audit.measures import measure_named
from rewardlab.audit.template import Treatment

OFF_TARGET = ("characters", "words", "readability", "list_lines", "sentiment")
"""What a balance table shows; sentiment where its package is installed."""

Numbers = Callable[[Sequence[str]], np.ndarray]


def judge_of(values: Mapping[str, Any]) -> Numbers:
    """Texts → whether each has the attribute: the rule that decided W of the originals.

    Args:
        values: `measure`, `above` and, for some measures, `model` and `against`, as audit.json has them.
    """
    rule = Treatment(**values)
    measure = measure_named(str(rule.measure), tools_for(rule))
    above = float(values["above"])
    return lambda texts: np.array(measure.values(texts), dtype=np.float64) > above


def off_target_measures() -> dict[str, Numbers]:
    """Name → measure, of everything that can be measured here without a model."""
    there = [name for name in OFF_TARGET if name != "sentiment" or find_spec("vaderSentiment") is not None]
    return {name: _numbers(name) for name in there}


def _numbers(name: str) -> Numbers:
    measure = measure_named(name)
    return lambda texts: np.array(measure.values(texts), dtype=np.float64)
