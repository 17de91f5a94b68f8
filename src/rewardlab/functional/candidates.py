"""From the N candidates of a prompt to the K that a step learns from.

Conventions
    N, K       candidates that a prompt has, and that a step takes
    indices    of candidates within their prompt, from 0

References
    [1] Ji et al. 2024, Towards efficient exact optimization of language model alignment (EXO), arXiv 2402.00856; code:
        github.com/haozheji/exact-optimization.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def consecutive_groups(candidates: int, size: int) -> Int[np.ndarray, "groups size"]:
    """The candidates of a prompt in their order, `size` to a group, none left over.

    Args:
        candidates: N, at least 1.
        size: K.

    Raises:
        ValueError: K below 2, or N no multiple of K.

    Source: [1], code, `exact_loss`, which splits a batch into groups of K.
    """
    _check_size(size)
    if candidates % size:
        raise ValueError(
            f"found {candidates} candidates to a prompt, which do not go into groups of {size}; expected a multiple of "
            f"{size}. {size} of them can be drawn in each epoch"
        )
    return np.arange(candidates).reshape(-1, size)


def drawn_candidates(candidates: int, size: int, *, seed: int, epoch: int, prompt: int) -> Int[np.ndarray, " drawn"]:
    """K of the N candidates of a prompt, each set of K as likely, in the order that they have.

    A pure function of its arguments: the draws of a prompt hang on no other, and resuming needs no state.

    Args:
        candidates: N, at least 1; where there are fewer than K, all are taken.
        size: K.
        seed: of the run, not negative.
        epoch: from 0.
        prompt: its index in the data.

    Raises:
        ValueError: K below 2.

    Source: drawing without replacement.
    """
    _check_size(size)
    # Zeros at the end of a seed change nothing: the 1 keeps these draws apart from those of (seed, epoch) alone.
    order = np.random.default_rng([seed, epoch, prompt, 1]).permutation(candidates)
    return np.sort(order[:size])


def _check_size(size: int) -> None:
    if size < 2:
        raise ValueError(f"found groups of {size}; expected 2 candidates or more")
