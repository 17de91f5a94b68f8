"""`rewardlab train reward`: preference pairs (or labels, or scores) → a reward model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rewardlab.data.interventions.base import Lengths
from rewardlab.data.interventions.chain import Intervened, Interventions, in_words, intervene
from rewardlab.data.interventions.margin import Margin
from rewardlab.data.layout import Group
from rewardlab.data.load import Loaded, load_all
from rewardlab.data.source import DataSource, with_limit
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ConfigError, ModelError, Problem, counted
from rewardlab.functional.intervals import proportion
from rewardlab.models.card import model_card, usage
from rewardlab.models.checkpoint import quiet_transformers
from rewardlab.models.feature_key import FeatureDtype
from rewardlab.models.features import FeatureModel
from rewardlab.models.loading import load_reward_model, new_reward_model, save_reward_model
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.quantisation import plain_network
from rewardlab.models.reward import RewardModel, form_of
from rewardlab.models.source import LayoutChoice, RewardSource, product_precision
from rewardlab.records import Record
from rewardlab.store.files import atomic_path, read_jsonl, write_json
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.store.together import together
from rewardlab.train.configuration import Training
from rewardlab.train.examples import Examples, make_examples
from rewardlab.train.features import BUDGET, FeatureChoice, on_features, summary_of
from rewardlab.train.margins import MARGINS, write_margins
from rewardlab.train.objectives import Objective
from rewardlab.train.schedules import EpochDecay, gamma_of
from rewardlab.train.sets import set_aside_words, too_few_words, warnings_of
from rewardlab.train.setup import (
    checkpoint_activations,
    log_start,
    micro_batch_tokens,
    set_aside_of,
    trainer_arguments,
    training_device,
    training_records,
)
from rewardlab.train.trackers import check_trackers, tensor_board
from rewardlab.train.trainer import TRAINER_STATE, GroupTrainer, StepPlan, clear_when_out_of_memory, run_training

CHECKED_SEQUENCES = 8
SAME_SCORE = 1e-5
"""What a saved folder may differ by from the model that was saved, of max(1, |reward|)."""
OTHER_SCORE = 1e-3
"""From here on it is another model. Rounding was seen to reach 2e-5 at 24 layers; what is wrong differs by more."""


class RewardTraining(Training):
    """Configuration of `train reward`."""

    model: RewardSource
    """Where the backbone comes from, and how it is read."""

    validation: dict[str, DataSource] = Field(default_factory=dict)
    """Named evaluation sets; the first one chooses the best checkpoint. None: a part of the training data."""

    batch_size: int = Field(16, ge=1)
    """Records (pairs) per optimiser step."""

    schedule: Literal["linear", "cosine", "constant_with_warmup", "exponential"] = "linear"
    """Learning rate after the warm-up; exponential falls from epoch to epoch by one factor, to final_learning_rate."""

    final_learning_rate: float | None = Field(None, gt=0)
    """Exponential: the rate of the last epoch. Default: a fifth of learning_rate."""

    interventions: Interventions = Field(default_factory=list)
    """What is done to the training data, in this order, once the held-out part is set apart; never to evaluation sets.
    Names, or mappings of a name and its fields."""

    encoding: Encoding = Encoding()
    """How text becomes ids."""

    objective: Objective = Objective()
    """What is minimised."""

    freeze_backbone: bool = False
    """Train the head or readout alone."""

    features: FeatureChoice = "auto"
    """With freeze_backbone: auto computes the backbone's states once, keeps them on the disk and trains from there, if
    the readout reads one vector per layer; off runs the backbone in every step."""

    features_dtype: FeatureDtype = "float32"
    """Of the stored states. float32 loses nothing."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Every dropout of the backbone. Above 0 the layout is flat."""

    choose_by: Literal["auto", "accuracy", "loss"] = "auto"
    """The measure that says which checkpoint is best; auto is accuracy, and of scores the loss."""

    test: DataSource | None = None
    """Scored once at the end, with the best model: a set that has chosen nothing."""

    def unmet(self) -> Iterator[str]:
        """What does not fit together."""
        yield from super().unmet()
        if not self.objective.use_margin and any(isinstance(one, Margin) for one in self.interventions):
            yield "expected objective.use_margin with the intervention margin, which has no effect without"
        if self.freeze_backbone and self.lora is not None:
            yield "expected freeze_backbone or lora: adapters train the backbone"
        if self.freeze_backbone and self.dropout:
            yield "expected dropout 0 with freeze_backbone: what is read would change with every draw"
        if self.schedule == "exponential" and self.epochs < 2:
            yield "expected epochs of 2 or more beside schedule exponential, which falls between them"
        if self.schedule != "exponential" and self.final_learning_rate is not None:
            yield "expected final_learning_rate beside schedule exponential only"
        if self.model.quantisation is not None and self.lora is None:
            yield "expected lora beside model.quantisation: weights of few bits are not trained"
        if self.test is not None and "test" in self.validation:
            yield "expected another name than test for a set of validation beside test"

    def decay(self, per_epoch: int, warmup: int) -> EpochDecay | None:
        """The schedule that transformers has not, where it is asked for."""
        if self.schedule != "exponential":
            return None
        last = self.final_learning_rate or self.learning_rate / 5
        return EpochDecay(gamma_of(self.learning_rate, last, self.epochs), per_epoch, warmup)


@dataclass(frozen=True)
class TrainedReward:
    """What training gave.

    Attributes:
        model: folder of the best model.
        summary: what summary.json holds.
    """

    model: Path
    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        best = self.summary["best"]
        split, metrics = best["split"], best["metrics"]
        count = self.summary["counts"][split]["used"]
        head = f"Best at step {best['step']} of {self.summary['steps']}: {_measure_words(metrics, count)}"
        lines = [f"{head}, on {counted(count, 'held-out record')} ({split})."]
        lines += too_few_words(count)
        if "test" in self.summary:
            test = self.summary["test"]
            lines.append(f"On the test set: {_measure_words(test, test['n'])}, on {counted(test['n'], 'record')}.")
        return [*lines, f"Model: {self.model}"]


def _measure_words(measures: Mapping[str, Any], count: int) -> str:
    accuracy = f"accuracy {_accuracy_words(measures['accuracy'], count)}, " if "accuracy" in measures else ""
    return f"{accuracy}loss {measures['loss']:.3f}"


def _accuracy_words(accuracy: float, count: int) -> str:
    """`70 % (48 to 92)`: an accuracy over so many records with its 95 % interval.

    Records count as right or wrong, in whole: where ties and candidates count in part, the interval is too wide.
    """
    right = np.clip(accuracy * count - np.arange(count), 0.0, 1.0)
    found = proportion(right)
    ends = "" if found.low is None or found.high is None else f" ({100 * found.low:.0f} to {100 * found.high:.0f})"
    return f"{100 * accuracy:.0f} %{ends}"


def train_reward(config: RewardTraining, run: Run) -> TrainedReward:
    """Train a reward model and save its best checkpoint as a plain folder.

    Args:
        config: everything.
        run: its directory; an unfinished one goes on from the newest complete checkpoint.

    Raises:
        ConfigError: a tracker that is not installed.
        DataError: unusable data.
        ModelError: unusable model or device, or a saved model that does not give the scores it had.
        RunError: resumed with other training data, or the disk is full.
        RewardlabError: training diverged, or does not fit into memory.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    check_trackers(config.report_to)
    keep_freed_memory()
    prepared = together(lambda: _prepared(config, run.log))
    device, model, examples, evaluation, test, described, set_aside, changed, use = prepared
    config = config.model_copy(update={"precision": product_precision(config.precision, device)})
    plan = StepPlan(examples.items, config.batch_size, config.epochs, config.seed)
    sets = {"train": examples, **evaluation, **test}
    with clear_when_out_of_memory(), tensor_board(config.report_to, run, sets) as board:
        trained = _on_features(config, model, list(sets.values()), device, run.log)
        trainer = _trainer(config, run, trained, plan, examples, evaluation, device)
        if board is not None:
            trainer.add_callback(board)
            trainer.watchers.append(board.watch)
        log_start(run.log, trainer, sets)
        if not run_training(trainer, resume=run.resumed):
            raise KeyboardInterrupt
        best_step = trainer.load_best()
        # Every process scores its share of a test set; what follows is done once.
        tested = {name: trainer.measured(name, data) | {"n": len(data)} for name, data in test.items()}

        def finished() -> dict[str, Any]:
            summary = _summary(config, trainer, sets, best_step, run) | {"set_aside": set_aside} | tested
            for name, measures in tested.items():
                if board is not None:
                    board.write_last(name, measures, best_step)
            if changed is not None:
                summary["interventions"] = dict(changed.table)
            _finish(config, run, trainer, examples, summary, _card(config, summary, described, use))
            return summary

        return TrainedReward(run.path("model"), processes().first(finished))


class _Prepared(NamedTuple):
    """What a training begins with: `described` has a line per training file for the card, `use` how a model is used."""

    device: str
    model: RewardModel
    examples: Examples
    evaluation: dict[str, Examples]
    test: dict[str, Examples]
    described: Sequence[str]
    set_aside: Mapping[str, Mapping[str, int]]
    changed: Intervened | None
    use: str


def _prepared(config: RewardTraining, log: logging.Logger) -> _Prepared:
    """Data and model.

    Raises:
        DataError: unusable data.
        ModelError: unusable model or device.
    """
    device = training_device(config.device)
    data = training_records(config)
    training, validation = data.train, data.evaluation
    loaded_test = _loaded_test(config)
    tested = [record for one in loaded_test for record in one.records]
    set_aside = {**data.set_aside, **set_aside_of({"test": loaded_test})}
    warned = [*set_aside_words(set_aside), *warnings_of(training, validation, tested)] if processes().is_first else []
    model = new_reward_model(
        config.model,
        config.encoding,
        seed=config.seed,
        dropout=config.dropout,
        lora=config.lora,
        layout=config.layout,
        readout=config.model.readout,
        freeze_backbone=config.freeze_backbone,
    )
    changed = _intervened(config, training, model, log)
    training = training if changed is None else changed.records
    model.prompt_form = form_of(record.prompt for record in training)
    if config.gradient_checkpointing:
        checkpoint_activations(model)
    examples = make_examples(training, model, "train", ties=config.objective.ties > 0)
    evaluation = {name: make_examples(records, model, name) for name, records in validation.items()}
    test = {"test": make_examples(tested, model, "test")} if config.test else {}
    for words in warned:
        log.warning(words)
    use = usage(model.encoder, is_text=training[0].prompt.is_text, is_plain=model.readout is None)
    return _Prepared(device, model, examples, evaluation, test, data.described, set_aside, changed, use)


def _loaded_test(config: RewardTraining) -> list[Loaded]:
    sources = [] if config.test is None else [with_limit(config.test, config.limit)]
    return load_all(sources, usable=True)


def _intervened(
    config: RewardTraining, training: Sequence[Record], model: RewardModel, log: logging.Logger
) -> Intervened | None:
    """The training records after the interventions; None without any."""
    if not config.interventions:
        return None
    changed = intervene(training, config.interventions, Lengths(model.encoder.lengths, "tokens"))
    for line in changed.lines():
        log.info("interventions: %s", line)
    return changed


def _on_features(
    config: RewardTraining, model: RewardModel, sets: Sequence[Examples], device: str, log: logging.Logger
) -> RewardModel | FeatureModel:
    """The model, or where its backbone need not run in every step, its head or readout on cached states."""
    if config.features == "off" or not config.freeze_backbone:
        return model
    if not model.has_fixed_states:
        log.info("features: none are kept, since the reward is read from more than one vector per layer")
        return model
    if model.device.type != device:
        model.to(device)
    return on_features(model, sets, dtype=config.features_dtype, precision=config.precision, budget=config.token_budget)


def _trainer(
    config: RewardTraining,
    run: Run,
    model: RewardModel | FeatureModel,
    plan: StepPlan,
    examples: Examples,
    evaluation: dict[str, Examples],
    device: str,
) -> GroupTrainer:
    name, chooser = next(iter(evaluation.items()))
    measure = _chosen_by(config, name, chooser)
    warmup = int(config.warmup_share * len(plan))
    decay = config.decay(plan.per_epoch, warmup)
    arguments = trainer_arguments(
        config,
        run.path("checkpoints"),
        plan,
        device,
        best=f"{name}_{measure}",
        lr_scheduler_type="constant" if decay else config.schedule,
    )
    return GroupTrainer(
        model,
        arguments,
        plan,
        evaluation=evaluation,
        objective=config.objective,
        target=examples.target,
        precision=config.precision,
        budget=BUDGET if isinstance(model, FeatureModel) else micro_batch_tokens(config, device),
        patience=config.early_stopping,
        history=run.path("history.jsonl"),
        log=run.log,
        decay=decay,
    )


def _chosen_by(config: RewardTraining, name: str, chooser: Examples) -> str:
    """The measure that says which checkpoint is best.

    Raises:
        ConfigError: accuracy, of scores, which have no right or wrong.
    """
    is_score = chooser.target == "score"
    if config.choose_by == "accuracy" and is_score:
        problem = Problem("choose_by", f"accuracy, and {name} has scores", "loss: scores have no right or wrong")
        raise ConfigError("There is no accuracy to choose by", [problem])
    return ("loss" if is_score else "accuracy") if config.choose_by == "auto" else config.choose_by


def _finish(
    config: RewardTraining, run: Run, trainer: GroupTrainer, examples: Examples, summary: dict[str, Any], card: str
) -> None:
    """Save the best model, reload it, compare its scores, and write the summary."""
    folder = run.path("model")
    model = trainer.whole.eval()
    sequences = [sequence for example in examples.items[:CHECKED_SEQUENCES] for sequence in example.group.sequences()]
    sequences = sequences[:CHECKED_SEQUENCES]
    if model.quantisation is not None:
        summary["dequantised"] = _make_plain(model, sequences, run.log)
    save_reward_model(model, folder, card=card)
    trainer.state.best_model_checkpoint = None  # a path of this machine
    # How long it took is in the history; the same training leaves the same folder, by whose content scorers are named.
    trainer.state.log_history = [line for line in trainer.state.log_history if "train_runtime" not in line]
    with atomic_path(folder / TRAINER_STATE) as temporary:
        trainer.state.save_to_json(str(temporary))
    trainer.free_optimiser()
    _compare_reloaded(config, model, folder, sequences, run.log)
    write_margins(trainer.margins, trainer.plan, trainer.state.global_step, run.path(MARGINS), run.log)
    write_json(run.path("summary.json"), summary)


def _summary(
    config: RewardTraining, trainer: GroupTrainer, sets: Mapping[str, Examples], best_step: int, run: Run
) -> dict[str, Any]:
    history = list(read_jsonl(run.path("history.jsonl")))
    chooser = next(iter(trainer.evaluation))
    best = next(line for line in reversed(history) if line["split"] == chooser and line["step"] <= best_step)
    rates = sorted(line["pairs_per_second"] for line in history if "pairs_per_second" in line)
    model, on = trainer.whole, trainer.model
    return {
        "target": sets["train"].target,
        "steps": trainer.state.global_step,
        "best": {
            "step": best_step,
            "split": chooser,
            "metrics": {key: best[key] for key in ("accuracy", "loss") if key in best},
        },
        "counts": {name: dict(data.counts) | {"used": len(data)} for name, data in sets.items()},
        "pairs_per_second": rates[len(rates) // 2] if rates else None,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "readout": config.model.readout.name,
        "layout": model.layout,
        "fallback": model.fallback,
        "token_budget": trainer.budget,
        "features": summary_of(on.features) if isinstance(on, FeatureModel) else None,
        "seed": config.seed,
    }


def _card(config: RewardTraining, summary: dict[str, Any], described: Sequence[str], use: str) -> str:
    best = summary["best"]
    rows = summary["counts"][best["split"]]["used"]
    measures = {
        f"{key} on {best['split']}": f"{value:.4f} ({rows} held-out records, which chose the checkpoint)"
        for key, value in best["metrics"].items()
    }
    test = summary.get("test", {})
    measures |= {
        f"{key} on test": f"{test[key]:.4f} ({test['n']} records)" for key in ("accuracy", "loss") if key in test
    }
    settings = config.model_dump(
        mode="json",
        include={
            "objective",
            "epochs",
            "batch_size",
            "learning_rate",
            "schedule",
            "final_learning_rate",
            "weight_decay",
            "dropout",
            "precision",
            "choose_by",
            "seed",
            "lora",
            "freeze_backbone",
            "features_dtype",
        },
    )
    settings["quantisation"] = config.model.quantisation
    if config.interventions:
        settings["interventions"] = in_words(config.interventions)
    settings["readout"] = config.model.readout.name
    encoding = config.encoding
    notes = [
        f"Sequences longer than {encoding.max_tokens} tokens are cut on the {encoding.truncation_side}.",
        f"EOS is {'' if encoding.append_eos else 'not '}appended to every sequence.",
        "Measures on the records that chose the checkpoint flatter. "
        + ("Those on test are of a set that has chosen nothing." if test else "Evaluate on a test set."),
    ]
    path = config.model.path
    base = str(config.model.shape) if path is None else Path(path).name if Path(path).is_dir() else path
    return model_card(base=base, data=described, settings=settings, measures=measures, notes=notes, use=use)


Sequences = Sequence[tuple[int, ...]]


def _make_plain(model: RewardModel, sequences: Sequences, log: logging.Logger) -> float:
    """Put plain weights in the place of quantised ones; how far that moves a reward, of max(1, |reward|)."""
    before = _rewards(model, sequences)
    with quiet_transformers():
        model.network = plain_network(model.network)
    difference = _difference(_rewards(model, sequences), before)
    log.info("in plain weights rewards differ by %.1e from those of the quantised model that was trained", difference)
    return difference


def _compare_reloaded(
    config: RewardTraining, model: RewardModel, folder: Path, sequences: Sequences, log: logging.Logger
) -> None:
    """The saved folder must give the same scores: loaded by us, and by plain transformers, or where these know no such
    readout, by us with nothing shared.

    One copy at a time and one sequence at a time: less memory than training took.

    Raises:
        ModelError: it gives other scores; the folder is deleted.
    """
    device, trusted = str(model.device), config.model.trust_remote_code
    expected = _rewards(model, sequences)
    flat = partial(_scores_by_us, layout="flat")
    plainly = ("transformers", _scores_by_transformers) if model.readout is None else ("flat layout", flat)
    for name, scores_of in (("rewardlab", _scores_by_us), plainly):
        try:
            with clear_when_out_of_memory():
                found = scores_of(folder, device, trusted, sequences)
        except Exception as error:
            error.add_note(f"The model was saved in {folder}, but its scores could not be compared with {name}.")
            raise
        difference = _difference(found, expected)
        if not difference < OTHER_SCORE:
            shutil.rmtree(folder)
            problem = Problem(str(folder), f"scores that differ by {difference:.1e} when loaded with {name}", "none")
            raise ModelError("The saved model does not give the scores it had", [problem])
        if difference > SAME_SCORE:
            log.warning(
                "the saved model gives scores that differ by %.1e when loaded with %s, more than %.0e",
                difference,
                name,
                SAME_SCORE,
            )


def _scores_by_us(
    folder: Path, device: str, trusted: bool, sequences: Sequences, layout: LayoutChoice = "auto"
) -> Tensor:
    model = load_reward_model(folder, device=device, precision="float32", layout=layout, trust_remote_code=trusted)
    return _rewards(model, sequences)


def _scores_by_transformers(folder: Path, device: str, trusted: bool, sequences: Sequences) -> Tensor:
    with quiet_transformers():
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=trusted
        )
    network.to(device).eval()
    return _one_by_one(lambda ids: network(input_ids=torch.tensor([ids], device=device)).logits[0], sequences)


def _rewards(model: RewardModel, sequences: Sequences) -> Tensor:
    return _one_by_one(lambda ids: model([Group((), (ids,))]), sequences)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest one, of max(1, |expected|)."""
    return ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()


@torch.no_grad()
def _one_by_one(score: Callable[[tuple[int, ...]], Tensor], sequences: Sequences) -> Tensor:
    return torch.cat([score(sequence).cpu() for sequence in sequences])
