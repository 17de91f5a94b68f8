"""`rewardlab evaluate frontier`: reward against distance from the reference, along trainings of policies.

Every checkpoint writes completions of the same prompts, from the same seeds. They are scored by the reward that was
trained on and by held-out ones, and their log-ratios to the reference are taken token by token. The page is drawn in
`report.frontier`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from rewardlab.data.files import COMPLETIONS
from rewardlab.data.turns import PolicyEncoding
from rewardlab.evaluate import frontier_estimates as estimates
from rewardlab.evaluate.checkpoint_samples import CheckpointSamples
from rewardlab.evaluate.frontier_estimates import HELD_OUT, REWARD, Values
from rewardlab.evaluate.frontier_runs import BEST_OF, REFERENCE, Checkpoint, checkpoints_of, reference_of, started_from
from rewardlab.evaluate.frontier_samples import Written, folder_of, sampled, scored, written
from rewardlab.records import Candidates
from rewardlab.score.choice import check_scorers
from rewardlab.score.score import ScorerOptions
from rewardlab.store.runs import Run
from rewardlab.store.table import write_parquet

RESULT, ROWS = "frontier.json", "frontier.parquet"
LEVEL = 0.95
NO_HELD_OUT = "The checkpoints are chosen by the reward that was trained on, which flatters them: give a held-out one."


class Rewarder(ScorerOptions):
    """A reward; its name alone stands for it."""

    text_field: ClassVar[str] = "model"


class FrontierEvaluation(CheckpointSamples):
    """Configuration of `evaluate frontier`."""

    reward: Rewarder
    """What the policies were trained on: a folder or hub id of a reward model, or rule:NAME."""

    held_out: dict[str, Rewarder] = Field(default_factory=dict)
    """Further rewards by name. The first one chooses the checkpoint."""

    best_of: list[int] = Field(default_factory=lambda: [1, 2, 4, 8, 16])
    """The n of best-of-n from the reference by the reward; of the reference as many completions are drawn as the
    largest one needs. Empty for no such curve."""

    area_from: float = Field(0.5, ge=0)
    """Where the area under a frontier begins, in nats."""

    area_to: float = Field(5.0, gt=0)
    """Where it ends, in nats."""

    title: str = "Reward against distance from the reference"
    """Heading of the page."""

    @field_validator("best_of")
    @classmethod
    def _sizes(cls, value: list[int]) -> list[int]:
        if any(one < 1 for one in value):
            raise ValueError("expected numbers from 1 on")
        return sorted(set(value))

    @model_validator(mode="after")
    def _area_between(self) -> Self:
        if self.area_from >= self.area_to:
            raise ValueError("expected area_from below area_to")
        return self


def measure(config: FrontierEvaluation, run: Run) -> Values:
    """Sample, score, and estimate; write `frontier.parquet`. Gives what frontier.json holds, but for the findings.

    Raises:
        ConfigError: no reference that the runs agree on, or encodings that differ.
        DataError: folders without the policies asked for, or unusable data.
        ModelError: unusable policies or rewards, or policies that read other tokens than the reference.
        RunError: the disk is full.
    """
    found = checkpoints_of(config.runs, config.checkpoints)
    reference = reference_of(config.folders, config.reference)
    encoding = config.encoding_of(found)
    start = Checkpoint(REFERENCE, 0, 0, reference)
    check_scorers({"reward": config.reward, **{f"held_out.{name}": one for name, one in config.held_out.items()}})
    samples = _written(config, run, [start, *found], encoding)
    of_reference, *rest = samples.written
    write_parquet(run.path(ROWS), pa.concat_tables([one.table() for one in samples.written]))
    checkpoints = [estimates.checkpoint_values(one, config.n, LEVEL) for one in rest]
    first = estimates.checkpoint_values(of_reference, config.n, LEVEL)
    best_of = estimates.best_of_values(of_reference, config.best_of, LEVEL)
    held_out = [f"{HELD_OUT}{name}" for name in config.held_out]
    ends = (config.area_from, config.area_to)
    areas, differences = estimates.areas(rest, of_reference, config.best_of, ends, LEVEL)
    choice = estimates.chosen(checkpoints, held_out[0] if held_out else REWARD)
    place = reference.resolve()
    from_it = [name for name, folders in config.runs.items() if all(started_from(one) == place for one in folders)]
    return {
        "level": LEVEL,
        "temperature": config.temperature,
        "n": config.n,
        "max_new_tokens": config.most(encoding),
        "area_from": config.area_from,
        "area_to": config.area_to,
        "scorers": samples.scorers,
        "from_reference": from_it,
        "reference": first,
        "sd": {name: estimates.spread(own) for name, own in of_reference.rewards.items()},
        "checkpoints": checkpoints,
        "best_of": best_of,
        "chosen": choice,
        "changes": _changes(choice, rest),
        "areas": areas,
        "differences": differences,
        "warnings": [*([] if held_out else [NO_HELD_OUT]), *_warnings(areas, ends, _still(checkpoints))],
    }


@dataclass(frozen=True)
class _Samples:
    """The completions of all policies, the reference first, and the names of the scorers by reward."""

    written: list[Written]
    scorers: dict[str, str]


def _written(
    config: FrontierEvaluation, run: Run, policies: Sequence[Checkpoint], encoding: PolicyEncoding
) -> _Samples:
    order = list(config.runs)
    folders = [folder_of(one, order) for one in policies]
    records: list[list[Candidates]] = []
    for one, folder in zip(policies, folders, strict=True):
        run.log.info("%s: %s", one.words, one.policy)
        # Of the reference as many completions as best-of-n needs.
        most = max(config.best_of, default=0) if one.run == REFERENCE else 0
        records.append(sampled(run, folder, config.sampling(one, encoding, max(config.n, most))))
    ratios = config.ratios(run, policies[0].policy, encoding)
    found = [ratios.of(one.policy, folder, own) for one, folder, own in zip(policies, folders, records, strict=True)]
    files = [run.path(folder) / COMPLETIONS for folder in folders]
    scorers: dict[str, str] = {}
    rewards: dict[str, np.ndarray] = {}
    asked = {REWARD: config.reward, **{f"{HELD_OUT}{name}": one for name, one in config.held_out.items()}}
    for number, (name, options) in enumerate(asked.items()):
        place = f"scores/{REWARD}" if number == 0 else f"scores/held-out-{number}"
        scorers[name], rewards[name] = scored(run, place, options, files)
    ends = np.cumsum([sum(len(record.completions) for record in own) for own in records])[:-1]
    split = {name: np.split(values, ends) for name, values in rewards.items()}
    made = [
        written(one, own, ratio, {name: parts[number] for name, parts in split.items()})
        for number, (one, own, ratio) in enumerate(zip(policies, records, found, strict=True))
    ]
    return _Samples(made, scorers)


def _still(checkpoints: Sequence[Values]) -> set[str]:
    """The runs all of whose policies are the reference."""
    moved = {one["run"] for one in checkpoints if not estimates.is_reference(one)}
    return {one["run"] for one in checkpoints} - moved


def _warnings(areas: Sequence[Values], ends: tuple[float, float], still: Collection[str]) -> list[str]:
    """What areas have to be read with: a frontier that has no points there, or ends before; not of runs that went
    nowhere, of which more checkpoints would say no more."""
    found = []
    for one in areas:
        if one["by"] != REWARD or one["run"] == BEST_OF or one["run"] in still:
            continue
        if one["reach"] < ends[0]:
            where = f"{one['run']}: a seed ends at {one['reach']:.2f} nats, before {ends[0]:g}"
            found.append(f"{where}, so its frontier there is level: train further, or lower --area_from.")
        elif one["inside"] == 0:
            where = f"{one['run']}: a seed has no checkpoint between {ends[0]:g} and {ends[1]:g} nats"
            found.append(f"{where}, so its frontier there is a straight line: keep more checkpoints.")
        elif one["reach"] < ends[1]:
            found.append(f"{one['run']}: a seed ends at {one['reach']:.2f} nats and counts as level beyond.")
    return [*found, *_unpaired(areas)]


def _unpaired(areas: Sequence[Values]) -> list[str]:
    """Runs with seeds that others have no partner for: which seeds their differences leave out."""
    seeds = {one["run"]: len(one["seeds"]) for one in areas if one["by"] == REWARD and one["run"] != BEST_OF}
    return [
        f"{more}, of {seeds[more]} seeds, and {fewer}, of {seeds[fewer]}, are compared seed by seed over the first "
        f"{seeds[fewer]}; the others of {more} have no partner."
        for one, other in combinations(seeds, 2)
        for fewer, more in [sorted((one, other), key=seeds.__getitem__)]
        if seeds[fewer] < seeds[more]
    ]


def _changes(choice: Sequence[Values], all_of: Sequence[Written]) -> list[Values]:
    """From the chosen checkpoint to the last one of its training, how each reward changes."""
    found = []
    for one in choice:
        own = [each for each in all_of if (each.checkpoint.run, each.checkpoint.seed) == (one["run"], one["seed"])]
        best = next(each for each in own if each.checkpoint.step == one["step"])
        if own[-1] is not best:
            rewards = {name: estimates.as_values(estimates.fallen(own[-1], best, name, LEVEL)) for name in best.rewards}
            last = own[-1].checkpoint.step
            found.append({"run": one["run"], "seed": one["seed"], "from": one["step"], "to": last, "rewards": rewards})
    return found
