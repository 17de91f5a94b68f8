"""A sample in which W goes along with something else to a known degree: what misleads a naive comparison.

Rewrites and scores hang on no mix, so one audit of all responses serves any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from rewardlab.audit.chains import AuditedText
from rewardlab.audit.intake import answers, tools_for
from rewardlab.audit.measures import measure_named
from rewardlab.audit.reading import Found
from rewardlab.audit.template import Treatment
from rewardlab.config import Config
from rewardlab.data.rows import Row
from rewardlab.errors import DataError, Problem
from rewardlab.records import Source, content_id


class Mix(Config):
    """How many of which responses: half of them have a second attribute V, and W goes along with it."""

    by: Treatment
    """V: decided like W, by a measure of the response or a column of its row."""

    share: float = Field(ge=0.0, le=1.0)
    """Share with W = 1 among the responses that have V; 1 - share among those that do not. At 0.5 W and V are
    independent."""

    size: int | None = Field(None, ge=4, multiple_of=2)
    """Responses; default: twice those of the rarest kind, which every share can be drawn from."""


def mixed(chains: Sequence[AuditedText], usable: np.ndarray, mix: Mix, seed: int) -> np.ndarray:
    """Which chains are in the sample, (n,).

    They are drawn by a hash of their content, so samples of neighbouring shares have most responses in common.

    Args:
        chains: to draw from.
        usable: which of them may be drawn, (n,).
        mix: what to draw.
        seed: of the draw.

    Raises:
        ConfigError: V is decided by a measure that cannot be taken.
        DataError: too few responses of a kind: every kind.
    """
    other = _other(chains, mix.by)
    kinds: dict[tuple[bool, bool], list[int]] = {(w, v): [] for w in (True, False) for v in (True, False)}
    for at, (chain, has) in enumerate(zip(chains, other, strict=True)):
        if usable[at] and has is not None:
            kinds[chain.treated, has].append(at)
    half = min(map(len, kinds.values())) if mix.size is None else mix.size // 2
    alike = round(mix.share * half)
    kept = np.zeros(len(chains), dtype=bool)
    problems = []
    for (treated, has), own in kinds.items():
        count = alike if treated == has else half - alike
        if len(own) < max(count, half == 0):
            kind = f"W = {int(treated)} and V = {int(has)}"
            remedy = "Lower `size`, or rewrite more responses."
            found = f"{len(own):,} responses with {kind}"
            problems.append(Problem("mix", found, f"at least {max(count, 1):,}", remedy))
        own.sort(key=lambda at: (content_id([seed, chains[at].id]), at))
        kept[own[:count]] = True
    if problems:
        raise DataError("there are too few responses for this mix", problems)
    return kept


def _other(chains: Sequence[AuditedText], rule: Treatment) -> list[bool | None]:
    """V of every chain; None where it has none."""
    measure = None if rule.measure is None else measure_named(rule.measure, tools_for(rule))
    return answers(rule, [_found(chain, rule) for chain in chains], measure)[1]


def _found(chain: AuditedText, rule: Treatment) -> Found:
    source = chain.source or Source("rewrites", 0)
    column = None if rule.column is None else Row(source, chain.row).raw(rule.column)
    side = chain.row.get("side")
    return Found(chain.prompt, chain.texts[0], source, side, column, chain.texts[0])
