"""What a training by PPO goes on from: its newest complete checkpoint.

checkpoints/checkpoint-12/   weights that are trained, optimiser, and `state.json`; nothing in it is read with pickle
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rewardlab.errors import Problem, RewardlabError, RunError
from rewardlab.functional import shaping
from rewardlab.store.files import atomic_path, clear_when_disk_is_full, read_json, sync_file, write_json
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.train.checkpoints import cut_history, newest_complete, rotate, seal, step_of
from rewardlab.train.ppo_learner import Learner

CHECKPOINTS = "checkpoints"
HELD_OUT = "validation"
"""The split of lines of an evaluation."""
WEIGHTS, OPTIMISER, STATE = "trained.safetensors", "optimiser.pt", "state.json"
COUNTS = ("responses", "unfinished", "empty", "replaced", "skipped", "level", "negative_kl")


@dataclass
class State:
    """What training goes on from, beside weights and optimiser; chance needs nothing, as every draw has its own seed.

    Attributes:
        step: steps done.
        beta: what a nat of divergence costs in the next one.
        history: what the last rewards were like.
        best: what the policy in best/ was chosen by, its mean on the held-out prompts, and its step.
        evaluated: the last step after which the held-out prompts were answered; -1 before the first time.
        counts: over all steps: responses, those unfinished, empty and replaced, batches that were left out, steps
            whose rewards were all the same, and steps whose divergence was below 0 by more than chance.
    """

    beta: float
    step: int = 0
    history: tuple[shaping.Batch, ...] = ()
    best: tuple[float, int] | None = None
    evaluated: int = -1
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**self.__dict__, "history": [list(one) for one in self.history]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> State:
        """What `as_dict` gave."""
        history = tuple(shaping.Batch(*one) for one in values["history"])
        best = None if values["best"] is None else (values["best"][0], values["best"][1])
        return cls(values["beta"], values["step"], history, best, values["evaluated"], dict(values["counts"]))


def save(run: Run, state: State, learner: Learner, *, digest: str, logs: Sequence[str]) -> None:
    """A state to resume from, complete or not used.

    Args:
        run: where it is written.
        state: of the loop.
        learner: of the networks.
        digest: of the prompts.
        logs: files of the run with a line per step, which are on the disk before the state counts.

    Raises:
        RunError: the disk is full.
    """
    folder = run.path(CHECKPOINTS)
    checkpoint = folder / f"checkpoint-{state.step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    with clear_when_disk_is_full(checkpoint):
        save_file({name: one.detach().contiguous() for name, one in learner.trained().items()}, checkpoint / WEIGHTS)
        with atomic_path(checkpoint / OPTIMISER) as temporary:
            torch.save(learner.optimiser.state_dict(), temporary)
        facts = {"prompts": digest, "budget": learner.budget, "places": learner.places}
        write_json(checkpoint / STATE, state.as_dict() | facts)
        for name in logs:
            if run.path(name).exists():
                sync_file(run.path(name))
        seal(checkpoint)
    rotate(folder, {state.step})


def resumed(run: Run, learner: Learner, *, digest: str, logs: Sequence[str]) -> State | None:
    """The state of the newest complete checkpoint, whose weights the learner takes over; what came later is forgotten.

    Args:
        run: where it is written.
        learner: of the networks.
        digest: of the prompts.
        logs: files of the run with a line per step.

    Returns:
        None where there is nothing to resume.

    Raises:
        RunError: it was made with other prompts.
    """

    def newest() -> str | None:
        found = newest_complete(run.path(CHECKPOINTS)) if run.resumed else None
        # What stands at step 0 goes too, where nothing was saved. A state that was saved because rewards failed in the
        # evaluation after its step knows of none there: a line of it was written after another resume.
        step, evaluated = (-1, -1) if found is None else (step_of(found), read_json(found / STATE)["evaluated"])
        for name in logs:
            cut_history(run.path(name), step, **{HELD_OUT: evaluated})
        return None if found is None else str(found)

    path = processes().first(newest)
    if path is None:
        return None
    checkpoint = Path(path)
    values = read_json(checkpoint / STATE)
    if values["prompts"] != digest:
        remedy = "Put the prompts and the tokenizer back as they were, or start another run."
        problem = Problem(str(checkpoint), "a run that now has other prompts", "those it was trained on", remedy)
        raise RunError("a training is resumed with the data it began with", [problem])
    _take_over(checkpoint, learner)
    # A run may go on on a smaller device than it began on.
    learner.budget, learner.places = min(learner.budget, values["budget"]), values["places"]
    return State.from_dict(values)


def _take_over(checkpoint: Path, learner: Learner) -> None:
    """Weights and optimiser of a checkpoint.

    Raises:
        RewardlabError: they are of another model.
    """
    weights = load_file(checkpoint / WEIGHTS)
    if weights.keys() != learner.trained().keys():
        raise RewardlabError(f"{checkpoint} does not hold the weights that this run trains")
    learner.modules.load_state_dict(weights, strict=False)
    device = learner.policy.device
    learner.optimiser.load_state_dict(torch.load(checkpoint / OPTIMISER, map_location=device, weights_only=True))
