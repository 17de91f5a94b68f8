"""A training of a policy from its first step to its folder: the trainer, policies along the way, what is left.

model/                the policy, a plain folder; adapters are merged into its weights, or of quantised ones an adapter
                      folder
policies/step-000123/ evenly spaced checkpoints: plain folders, or with lora adapter folders
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from rewardlab.data.layout import Group
from rewardlab.errors import ModelError, Problem
from rewardlab.models.card import policy_card
from rewardlab.models.policies import load_policy, save_policy
from rewardlab.models.policy import PolicyModel
from rewardlab.models.source import ModelSource, product_precision
from rewardlab.store.files import clear_when_disk_is_full, read_jsonl, write_json
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.train.policy import MODEL, POLICIES, PolicyTraining, Prepared, TrainedPolicy
from rewardlab.train.setup import TrainingData, log_start, micro_batch_tokens, trainer_arguments
from rewardlab.train.trackers import tensor_board
from rewardlab.train.trainer import GroupTrainer, clear_when_out_of_memory, run_training

CHECKED_GROUPS = 4
SAME, OTHER = 1e-4, 1e-2
"""What log-probabilities of a saved folder may differ by from those of the policy that was saved, of max(1, |sum|), and
from where on it is another policy."""


def run_policy_training(config: PolicyTraining, run: Run, prepared: Prepared, data: TrainingData) -> TrainedPolicy:
    """Train, and leave the policy, those along the way, the history and the summary.

    Raises:
        ModelError: a saved policy that is not the one that was trained.
        RunError: resumed with other training data, or the disk is full.
        RewardlabError: training diverged, or does not fit into memory.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    config = config.model_copy(update={"precision": product_precision(config.precision, prepared.model.device.type)})
    with clear_when_out_of_memory(), tensor_board(config.report_to, run, prepared.examples) as board:
        trainer = _trainer(config, run, prepared)
        if board is not None:
            trainer.add_callback(board)
        steps = kept_steps(len(prepared.plan), config.checkpoints)
        policies = KeptPolicies(prepared.model, run.path(POLICIES), steps, merge=config.lora is None)
        trainer.add_callback(policies)
        log_start(run.log, trainer, prepared.examples)
        if not run_training(trainer, resume=run.resumed):
            raise KeyboardInterrupt
        policies.keep_end(trainer.state.global_step)
        kept = trainer.load_best() if config.keep_best else trainer.state.global_step
        return TrainedPolicy(
            run.path(MODEL), processes().first(lambda: _finish(config, run, trainer, prepared, data, kept))
        )


def kept_steps(steps: int, count: int) -> list[int]:
    """The steps whose policies are kept: `count` evenly spaced ones, with the last; all where there are fewer."""
    return sorted({math.ceil(steps * number / count) for number in range(1, count + 1)})


class KeptPolicies(TrainerCallback):
    """Saves policies along the way, before the checkpoint of the same step: after a kill no step is passed over.

    Args:
        model: the policy.
        folder: one folder per step goes here.
        steps: whose policies are kept.
        merge: whole weights; otherwise adapters alone.
    """

    def __init__(self, model: PolicyModel, folder: Path, steps: Sequence[int], *, merge: bool) -> None:
        self.model = model
        self.folder = folder
        self.steps = set(steps)
        self.merge = merge

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save, where this is one of the steps."""
        if state.global_step in self.steps:
            self._save(state.global_step)

    def keep_end(self, step: int) -> None:
        """Save the policy of the last step, which is none of the steps where training stopped early.

        Where none were asked for, none is kept.
        """
        if self.steps and step not in self.steps:
            self._save(step)

    def _save(self, step: int) -> None:
        folder = self.folder / f"step-{step:06d}"
        if processes().is_first:
            with clear_when_disk_is_full(folder):
                save_policy(self.model, folder, merge=self.merge)


def _trainer(config: PolicyTraining, run: Run, prepared: Prepared) -> GroupTrainer:
    training, *held_out = prepared.examples
    evaluation = {name: prepared.examples[name] for name in held_out}
    plan, device = prepared.plan, prepared.model.device.type
    arguments = trainer_arguments(config, run.path("checkpoints"), plan, device, best=f"{held_out[0]}_loss")
    return GroupTrainer(
        prepared.model,
        arguments,
        plan,
        evaluation=evaluation,
        objective=prepared.objective,
        target=prepared.examples[training].target,
        precision=config.precision,
        budget=micro_batch_tokens(config, device),
        patience=config.early_stopping,
        history=run.path("history.jsonl"),
        log=run.log,
    )


def _finish(
    config: PolicyTraining, run: Run, trainer: GroupTrainer, prepared: Prepared, data: TrainingData, kept: int
) -> dict[str, Any]:
    """Save the policy, which is that of the step `kept`, load it again, compare, and write the summary."""
    folder, model = run.path(MODEL), prepared.model.eval()
    summary = _summary(run, trainer, prepared) | prepared.summary
    summary |= {"set_aside": data.set_aside, "kept": kept, "seed": config.seed}
    with clear_when_disk_is_full(folder):
        save_policy(model, folder, card=_card(config, prepared, summary, data.described))
    trainer.free_optimiser()
    groups = [example.group for example in prepared.plan.examples[:CHECKED_GROUPS]]
    compare_reloaded(model, folder, groups, run.log, config.model)
    write_json(run.path("summary.json"), summary)
    return summary


def _summary(run: Run, trainer: GroupTrainer, prepared: Prepared) -> dict[str, Any]:
    history = list(read_jsonl(run.path("history.jsonl")))
    split = next(iter(trainer.evaluation))
    held_out = [line for line in history if line["split"] == split]
    best = next(line for line in held_out if line["step"] == trainer.state.best_global_step)
    rates = sorted(line["pairs_per_second"] for line in history if "pairs_per_second" in line)
    model = prepared.model
    return {
        "steps": trainer.state.global_step,
        "split": split,
        "best": {key: value for key, value in best.items() if key not in ("split", "epoch")},
        "last": {key: value for key, value in held_out[-1].items() if key not in ("split", "epoch")},
        "counts": {name: dict(data.counts) | {"used": len(data)} for name, data in prepared.examples.items()},
        "left_out": [],
        "policies": sorted(path.name for path in run.path(POLICIES).glob("step-*")),
        "prompts_per_second": rates[len(rates) // 2] if rates else None,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "layout": model.layout,
        "fallback": model.fallback,
        "token_budget": trainer.budget,
    }


def _card(config: PolicyTraining, prepared: Prepared, summary: Mapping[str, Any], described: Sequence[str]) -> str:
    split, rows = summary["split"], summary["counts"][summary["split"]]["used"]
    found = summary["best" if config.keep_best else "last"]
    choice = ", which chose the step" if config.keep_best else ""
    measures = {
        f"{key} on {split}": f"{found[key]:.4f} ({rows} held-out records{choice})"
        for key in ("loss", "accuracy")
        if key in found
    }
    fields = {"epochs", "batch_size", "learning_rate", "schedule", "betas", "weight_decay", "precision", "seed", "lora"}
    settings = prepared.card | config.model_dump(mode="json", include=fields)
    settings["quantisation"] = config.model.quantisation
    path = config.model.path
    base = str(config.model.shape) if path is None else Path(path).name if Path(path).is_dir() else path
    encoding = prepared.model.encoding
    notes = [
        f"Of prompts longer than {encoding.max_prompt_tokens} tokens the end is read.",
        f"Of completions the first {encoding.max_completion_tokens} tokens were trained on.",
    ]
    return policy_card(base=base, data=described, settings=settings, measures=measures, notes=notes)


@torch.no_grad()
def compare_reloaded(
    model: PolicyModel, folder: Path, groups: Sequence[Group], log: logging.Logger, source: ModelSource
) -> None:
    """The saved folder must give the same log-probabilities; one completion at a time, which takes less memory than
    training did.

    Raises:
        ModelError: it gives others; the folder is deleted.
    """
    with clear_when_out_of_memory():
        saved = load_policy(
            folder,
            device=str(model.device),
            precision="float32",
            temperature=model.temperature,
            trust_remote_code=source.trust_remote_code,
            quantisation=source.quantisation,
        )
        expected, found = _one_by_one(model, groups), _one_by_one(saved, groups)
    difference = ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()
    if not difference < OTHER:
        shutil.rmtree(folder)
        problem = Problem(str(folder), f"log-probabilities that differ by {difference:.1e} when loaded", "none")
        raise ModelError("The saved policy is not the one that was trained", [problem])
    if difference > SAME:
        log.warning("the saved policy gives log-probabilities that differ by %.1e when loaded", difference)


def _one_by_one(model: PolicyModel, groups: Sequence[Group]) -> Tensor:
    return torch.cat([model([group.part([place])]) for group in groups for place in range(len(group.branches))]).cpu()
