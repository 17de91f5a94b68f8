"""Weights drawn from a seed, with every generator of the caller left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is drawn inside on the CPU, as all new weights are, comes from `seed`.

    `torch.manual_seed` would seed the generators of accelerators too, and nothing here could put those back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
