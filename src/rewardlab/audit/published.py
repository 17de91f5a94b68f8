"""Files as the published code of RATE has them: effects as a flat object, and texts with their scores as JSONL.

Effects: `naive_effect`, `{ATE,ATT,ATU}_{single_rewrite,rewritten_rewrite}`, each with `_stderr`, in units of the
reward; `reward_std`, the unit of standardised effects; `Y1_count`, `Y0_count`; and `reward_key`, the reward model.

Scores: the entries of a published set of rewrites without their ids, one a line, and in each
`{<reward model>: {original, rewrite, "rewritten rewrite"}}`. Reward models are merged by id before they are written,
never by the order of lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from rewardlab.audit.chains import AuditedText, published_entry, read_chains
from rewardlab.audit.scored import ScoredChains, cluster_labels
from rewardlab.data.adapters.rewrites import STEPS
from rewardlab.errors import DataError, Problem
from rewardlab.functional import effects
from rewardlab.functional.effects import Estimator, Rewards
from rewardlab.store.files import write_jsonl

Errors = Literal["ours", "published"]
"""Whose standard errors: paired, by strata and clusters, or as the published code takes them."""

PublishedTarget = Literal["ATE", "ATT", "ATU"]
TARGETS: tuple[PublishedTarget, ...] = get_args(PublishedTarget)
ESTIMATORS: Mapping[str, Estimator] = {"single_rewrite": "single", "rewritten_rewrite": "double"}
NAIVE, STD, TREATED, UNTREATED, SCORER = "naive_effect", "reward_std", "Y1_count", "Y0_count", "reward_key"
EFFECTS = (NAIVE, *(f"{target}_{name}" for name in ESTIMATORS for target in TARGETS))

Flat = dict[str, float | int | str | None]


class _Error(NamedTuple):
    """A value and its standard error; None where there is none."""

    value: float | None
    error: float | None


def published_effects(rewards: Rewards, scorer: str = "", errors: Errors = "ours") -> Flat:
    """The effects of one reward model in the published form; what an empty group leaves open is None.

    Args:
        rewards: of the complete chains.
        scorer: name of the reward model.
        errors: `published` gives the naive effect Welch's, single-rewrite effects the paired one without strata, and
            RATE the one that ignores the pairing, all without clusters: for parity with published files.
    """
    if errors == "published":
        rewards = rewards._replace(clusters=None)
    naive = effects.naive_effect(rewards)
    found = {NAIVE: _Error(naive.value, naive.error)}
    for name, estimator in ESTIMATORS.items():
        for target in TARGETS:
            one = effects.effect(rewards, estimator, target)
            error = one.error if errors == "ours" else _published_error(rewards, estimator, target)
            found[f"{target}_{name}"] = _Error(one.value, None if one.value is None else error)
    flat: Flat = {}
    for key, both in found.items():
        flat |= {key: both.value, f"{key}_stderr": both.error}
    treated = int(rewards.treated.sum())
    counts: Flat = {TREATED: treated, UNTREATED: len(rewards.treated) - treated, SCORER: scorer}
    return {**flat, STD: effects.pooled_sd(rewards.original, rewards.treated), **counts}


def _published_error(rewards: Rewards, estimator: Estimator, target: PublishedTarget) -> float | None:
    if estimator == "double":
        return effects.unpaired_error(rewards, target)
    if target == "ATE":
        return effects.population_effect(rewards, estimator).error
    return effects.effect(rewards, estimator, target).error


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def write_published_scores(path: Path, scored: Sequence[ScoredChains], whole: np.ndarray) -> int:
    """Write chains with the scores of every reward model; gives their number.

    Args:
        path: of the JSONL file.
        scored: the same chains through every reward model.
        whole: which of them all reward models have scored whole, (n,).
    """
    return write_jsonl(
        path,
        (
            {
                **published_entry(scored[0].chains[number]),
                **{one.scorer: dict(zip(STEPS, one.rewards[number].tolist(), strict=False)) for one in scored},
            }
            for number in np.flatnonzero(whole).tolist()
        ),
    )


def read_published_scores(path: Path, *, roots: bool = False) -> list[ScoredChains]:
    """Rewrites with the scores that stand beside them, a ScoredChains per reward model; clusters are questions, or
    with `roots` their beginnings.

    Raises:
        DataError: unreadable, no scores, or a score that is missing or no finite number: every problem.
    """
    chains = read_chains(path)
    names = [name for name in dict.fromkeys(key for chain in chains for key in chain.row) if _scores_in(chains, name)]
    if not names:
        expected = f"a reward model with {', '.join(STEPS)} in every entry"
        raise DataError("there are no scores", [Problem(str(path), "texts alone", expected)])
    problems: list[Problem] = []
    labels = cluster_labels(chains, roots=roots)
    found = [_scored(chains, name, labels, problems) for name in names]
    if problems:
        raise DataError("scores are missing", problems)
    return found


def _scores_in(chains: Sequence[AuditedText], name: str) -> bool:
    return any(isinstance(chain.row.get(name), Mapping) and set(STEPS) & set(chain.row[name]) for chain in chains)


def _scored(chains: list[AuditedText], name: str, labels: np.ndarray, problems: list[Problem]) -> ScoredChains:
    rewards = np.full((len(chains), len(STEPS) + 1), np.nan)
    for number, chain in enumerate(chains):
        scores = chain.row.get(name)
        for stage, step in enumerate(STEPS):
            value = scores.get(step) if isinstance(scores, Mapping) else None
            if value is None or not _is_number(value):
                place = f"{chain.source or f'entry {number + 1}'}, {name}, {step}"
                problems.append(Problem(place, repr(value)[:80], "a finite number"))
            else:
                rewards[number, stage] = value
    nothing = np.full(len(chains), np.nan)
    truncated = np.zeros(rewards.shape, dtype=bool)
    return ScoredChains(tuple(chains), name, rewards, truncated, labels, nothing)
