"""One reward from several terms of it.

Conventions
    v_m          value of term m for one response
    w_m          its weight; 0 for a term that is only logged
    dtypes       Python floats (64 bits)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def weighted_sums(terms: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> list[float]:
    """The reward of every response: sum over m of w_m v_m, rounded once, so that the order of terms does not matter.

    Args:
        terms: by name the values of all responses, equally many each.
        weights: by name, one for every term.

    Returns:
        As many as there are responses; inf or nan where the sum is beyond all numbers, or of such values.

    Raises:
        KeyError: a term without a weight.
        ValueError: terms of different numbers of responses.

    Source: none, a definition.
    """
    products = [[weights[name] * value for value in own] for name, own in terms.items()]
    return [_sum(row) for row in zip(*products, strict=True)]


def _sum(values: Sequence[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        # Beyond the largest number, or inf - inf: fsum raises where a plain sum is inf or nan.
        return sum(values)
