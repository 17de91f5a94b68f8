"""How far attributes have moved: shares in what checkpoints write, against those in what their reference writes.

Every checkpoint writes completions of the same prompts, from the same seeds as the reference. Its distance is the KL of
every next token from the reference, summed along its own completions. Shifts are told at distances, between checkpoints
along straight lines in sqrt(KL), with intervals over prompts and seeds. The mathematics are in `functional.shift`, the
page in `report.shift`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rewardlab.data.pairs import CUT_OFF
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.checkpoint_samples import CheckpointSamples
from rewardlab.evaluate.frontier_estimates import ONE_SEED, as_values
from rewardlab.evaluate.frontier_runs import REFERENCE, Checkpoint, checkpoints_of, reference_of
from rewardlab.evaluate.frontier_samples import LogRatios, folder_of, sampled
from rewardlab.functional.frontier import over_seeds_and_prompts
from rewardlab.functional.intervals import Interval, Statistic, mean, mean_statistic, proportion
from rewardlab.functional.shift import log_odds_shift, shifts_at
from rewardlab.records import Candidates
from rewardlab.store.runs import Run

Values = dict[str, Any]
Seen = Callable[[Sequence[str]], np.ndarray]
"""From texts to whether each has an attribute, 1 or 0; NaN where that cannot be told."""

UNREACHED = "no checkpoint gets that far"
EDGE = "a share of 0 or 1 has no log-odds"


@dataclass(frozen=True)
class Wrote:
    """What a policy wrote, prompt by prompt.

    Attributes:
        checkpoint: whose it is.
        prompt_id: [prompts].
        divergence: of every completion from the reference, nats, [prompts, n].
        attributes: 0 or 1, [prompts, n, attributes].
        tokens: of every completion, its end included, [prompts, n].
        finished: whether the policy ended it, [prompts, n].
        untold: completions for which an attribute cannot be told, which counts as not having it, [attributes].
    """

    checkpoint: Checkpoint
    prompt_id: list[str]
    divergence: np.ndarray
    attributes: np.ndarray
    tokens: np.ndarray
    finished: np.ndarray
    untold: np.ndarray

    def table(self, names: Sequence[str]) -> pa.Table:
        """A row per completion; attributes are columns `attribute.<name>`."""
        prompts, n = self.divergence.shape
        one = self.checkpoint
        columns = {
            "run": pa.array([one.run] * prompts * n, pa.string()),
            "seed": pa.array([one.seed] * prompts * n, pa.int32()),
            "step": pa.array([one.step] * prompts * n, pa.int32()),
            "prompt_id": pa.array(np.repeat(self.prompt_id, n).tolist(), pa.string()),
            "number": pa.array(np.tile(np.arange(n), prompts), pa.int32()),
            "divergence": pa.array(self.divergence.ravel(), pa.float64()),
            "tokens": pa.array(self.tokens.ravel(), pa.int32()),
            "finished": pa.array(self.finished.ravel(), pa.bool_()),
        }
        for place, name in enumerate(names):
            columns[f"attribute.{name}"] = pa.array(self.attributes[:, :, place].ravel(), pa.int8())
        return pa.table(columns)


def all_wrote(config: CheckpointSamples, run: Run, seen: Mapping[str, Seen]) -> list[Wrote]:
    """What all policies wrote, the reference first; samples and divergences of an earlier session as they stand.

    Args:
        config: which policies, and what they are asked.
        run: in whose folder samples and divergences are kept.
        seen: attributes by name.

    Raises:
        ConfigError: no reference that the runs agree on, or encodings that differ.
        DataError: folders without the policies asked for, or unusable data.
        ModelError: unusable policies, or some that read other tokens than the reference.
        RunError: the disk is full.
    """
    policies = checkpoints_of(config.runs, config.checkpoints)
    reference = reference_of(config.folders, config.reference)
    encoding = config.encoding_of(policies)
    ratios = config.ratios(run, reference, encoding)
    found = []
    for one in (Checkpoint(REFERENCE, 0, 0, reference), *policies):
        run.log.info("%s: %s", one.words, one.policy)
        found.append(_wrote(config, run, one, encoding, ratios, seen))
    return found


def _wrote(
    config: CheckpointSamples,
    run: Run,
    one: Checkpoint,
    encoding: PolicyEncoding,
    ratios: LogRatios,
    seen: Mapping[str, Seen],
) -> Wrote:
    folder = folder_of(one, list(config.runs))
    records = sampled(run, folder, config.sampling(one, encoding, config.n))
    shape = (len(records), config.n)
    texts = [text for record in records for text in record.completions]
    told = np.stack([see(texts).reshape(shape) for see in seen.values()], axis=2)
    away = np.zeros(shape) if one.run == REFERENCE else ratios.divergences(one.policy, folder, records).reshape(shape)
    return Wrote(
        one,
        [record.prompt.id for record in records],
        away,
        np.nan_to_num(told, nan=0.0),
        _of_each(records, "tokens").reshape(shape),
        (_of_each(records, "finish_reasons") != CUT_OFF).reshape(shape),
        np.isnan(told).sum(axis=(0, 1)),
    )


def _of_each(records: Sequence[Candidates], name: str) -> np.ndarray:
    return np.array([value for record in records for value in record.meta[name]])


def check_rates(reference: Wrote, names: Sequence[str]) -> list[str]:
    """What to say of attributes that the reference nearly always, or hardly ever, has: they can move one way alone."""
    rates = reference.attributes.mean(axis=(0, 1))
    return [
        f"{name} is in {rate:.1%} of what the reference writes: so near to an end, first-order forecasts do not hold."
        for name, rate in zip(names, rates, strict=True)
        if not 0.1 <= rate <= 0.9
    ]


def checkpoint_values(wrote: Wrote, names: Sequence[str], level: float) -> Values:
    """The estimates of a policy, as JSON values."""
    one = wrote.checkpoint
    rates = [proportion(own, level=level) for own in wrote.attributes.mean(axis=1).T]
    away = mean(wrote.divergence.mean(axis=1), level=level)
    return {
        "run": one.run,
        "seed": one.seed,
        "step": one.step,
        "policy": str(one.policy),
        "kl": as_values(away if wrote.divergence.any() else away._replace(low=0.0, high=0.0, error=0.0, reason="")),
        "rates": {name: as_values(rate) for name, rate in zip(names, rates, strict=True)},
        "untold": {name: int(count) for name, count in zip(names, wrote.untold, strict=True)},
        "tokens": float(wrote.tokens.mean()),
        "unfinished": float((~wrote.finished).mean()),
    }


def shift_values(
    wrote: Sequence[Wrote], names: Sequence[str], divergences: Sequence[float], level: float
) -> list[Values]:
    """A row per run, attribute and distance: the shift of the share and of its log-odds, over seeds and prompts.

    Args:
        wrote: of all policies, the reference first.
        names: of the attributes.
        divergences: nats at which shifts are told.
        level: of the intervals.

    Raises:
        DataError: policies that answered other prompts than the reference.
    """
    reference, *rest = wrote
    _refuse_other_prompts(reference, rest)
    rows = []
    for run in dict.fromkeys(one.checkpoint.run for one in rest):
        own = [one for one in rest if one.checkpoint.run == run]
        seeds = sorted({one.checkpoint.seed for one in own})
        paths = [[reference, *(one for one in own if one.checkpoint.seed == seed)] for seed in seeds]
        for divergence in divergences:
            found = [_shifts(path, divergence) for path in paths]
            early = sum(_is_before_first(path, divergence) for path in paths)
            for place, name in enumerate(names):
                by_seed = [None if one is None else one[place] for one in found]
                about = {"run": run, "attribute": name, "divergence": divergence}
                rows.append(about | _row(reference.attributes[:, :, place], by_seed, level) | {"before_first": early})
    return rows


def _refuse_other_prompts(reference: Wrote, rest: Sequence[Wrote]) -> None:
    problems = [
        Problem(one.checkpoint.words, "other prompts than the reference answered", "the same, in the same order")
        for one in rest
        if one.prompt_id != reference.prompt_id
    ]
    if problems:
        raise DataError("shifts are told on the same prompts", problems)


def _shifts(path: Sequence[Wrote], divergence: float) -> list[Statistic] | None:
    away = np.stack([one.divergence.mean(axis=1) for one in path])
    return shifts_at(away, np.stack([one.attributes.mean(axis=1) for one in path]), divergence)


def _is_before_first(path: Sequence[Wrote], divergence: float) -> bool:
    """Whether a training's first checkpoint is beyond the distance."""
    return float(path[1].divergence.mean()) > divergence


def _row(reference: np.ndarray, by_seed: Sequence[Statistic | None], level: float) -> Values:
    """The shift over the seeds that get there.

    Args:
        reference: whether its completions have the attribute, [prompts, n].
        by_seed: the shift of every seed; None where it does not get there.
        level: of the intervals.
    """
    reached = [one for one in by_seed if one is not None]
    rate = mean_statistic(reference.mean(axis=1))
    odds = [log_odds_shift(rate, one) for one in reached]
    told = [one for one in odds if one is not None]
    return {
        **as_values(_over(reached, level, UNREACHED)),
        "seeds": [None if one is None else one.value for one in by_seed],
        "unreached": len(by_seed) - len(reached),
        "log_odds": as_values(
            _over(told, level, EDGE) if len(told) == len(odds) else Interval(None, n=len(odds), reason=EDGE)
        ),
    }


def _over(found: Sequence[Statistic], level: float, missing: str) -> Interval:
    if not found:
        return Interval(None, reason=missing)
    values = np.array([one.value for one in found])
    by_prompt = np.stack([one.value + one.influence for one in found], axis=1)
    over = over_seeds_and_prompts(values, by_prompt, level)
    return over._replace(reason=ONE_SEED) if len(found) == 1 and over.low is not None else over


def path_values(wrote: Sequence[Wrote], names: Sequence[str], level: float) -> list[Values]:
    """A row per checkpoint and attribute: where it is, and the shift of the share from the reference, over prompts."""
    reference, *rest = wrote
    rows = []
    for one in rest:
        moved = one.attributes.mean(axis=1) - reference.attributes.mean(axis=1)
        about = {name: getattr(one.checkpoint, name) for name in ("run", "seed", "step")}
        at = {**about, "kl": float(one.divergence.mean())}
        rows += [
            {**at, "attribute": name, **as_values(mean(column, level=level))}
            for name, column in zip(names, moved.T, strict=True)
        ]
    return rows
