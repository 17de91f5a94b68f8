"""`rewardlab train dpo` and `rewardlab train exo`: preferences or rewards of completions → a policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from rewardlab.config import mismatch
from rewardlab.functional.objectives import OBJECTIVES, PolicyObjective
from rewardlab.models.policy import PolicyModel
from rewardlab.models.references import References, cached_references, load_reference
from rewardlab.models.source import ModelSource, product_precision
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.train.completions import (
    Choice,
    DrawnPlan,
    Grouping,
    check_preferences,
    policy_examples,
    preference_examples,
    with_references,
)
from rewardlab.train.examples import Examples
from rewardlab.train.policy import PolicyTraining, Prepared, TrainedPolicy, policy_data, start_policy
from rewardlab.train.policy_objectives import Alignment
from rewardlab.train.policy_run import run_policy_training
from rewardlab.train.sets import sampling_words
from rewardlab.train.trackers import check_trackers
from rewardlab.train.trainer import StepPlan

OPTIONS = ("beta", "reward_beta", "label_smoothing", "gamma")


class PreferenceTraining(PolicyTraining):
    """What the configurations of `train dpo` and `train exo` share."""

    of_rewards: ClassVar[str]
    """The objective of more than two completions."""

    objective: str
    """What is minimised."""

    beta: float = Field(0.1, gt=0)
    """Weight of the divergence from the reference: the policy's beta."""

    reward_beta: float | None = Field(None, gt=0)
    """Of exo-rw and dpo-rw: rewards are divided by it before their softmax. Default: as beta."""

    label_smoothing: float | None = Field(None, ge=0, lt=0.5)
    """Believed share of flipped preferences (epsilon); default: that of the objective."""

    gamma: float | None = None
    """Of simpo: the margin that the winner is to win by."""

    per_token: bool = False
    """Divide every log-ratio by the number of tokens of the completion."""

    candidates: int | None = Field(None, ge=2)
    """Completions of a prompt that stand in one example (K). Default: all, of objectives on pairs two."""

    choice: Choice = "consecutive"
    """Of more than K completions: consecutive groups of K, or K drawn in every epoch."""

    reference: ModelSource | None = None
    """The policy that the divergence is measured from; default: the policy before its first step."""

    temperature: float = Field(1.0, gt=0)
    """Logits of policy and reference are divided by it: that of the sampling that the completions come from."""

    batch_size: int = Field(128, ge=1)
    """Groups of completions per optimiser step: a prompt, or of one with more than K completions each K of them."""

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate."""

    def unmet(self) -> Iterator[str]:
        """What does not fit together."""
        yield from super().unmet()
        chosen = OBJECTIVES[self.objective]
        for name in ("reward_beta", "label_smoothing", "gamma"):
            if getattr(self, name) is not None and name not in chosen.options:
                yield f"expected no {name} beside {self.objective}, which does not have it"
        if "gamma" in chosen.options and self.gamma is None:
            yield f"expected gamma beside objective {self.objective}, e.g. 1"
        if self.objective == "exo-pref" and self.label_smoothing == 0:
            yield "expected label_smoothing above 0 beside objective exo-pref: its loss is infinite at 0"
        if self.per_token and chosen.lengths:
            yield f"expected no per_token beside objective {self.objective}, which divides by lengths itself"
        if self.candidates is not None and chosen.largest is not None and self.candidates > chosen.largest:
            more = f"{self.of_rewards} takes more"
            yield f"expected candidates {chosen.largest} beside objective {self.objective}: {more}"
        if self.reference is not None and not chosen.reference:
            yield f"expected no reference beside objective {self.objective}, which has none"
        if self.reference is not None and self.reference.path is None:
            yield "expected reference to have a path: random weights are no policy"
        if self.reference is not None and (self.reference.quantisation or self.reference.tokenizer):
            yield "expected no quantisation and no tokenizer of reference: it is whole, and reads as the policy"
        if self.choice == "drawn" and not self.grouping().is_drawn:
            yield f"expected candidates beside choice drawn: {self.objective} takes all that there are"
        if self.lora is not None and self.lora.dropout:
            yield "expected lora.dropout 0: policy and reference would differ before the first step"

    def options(self) -> dict[str, float]:
        """What the objective's loss is called with."""
        values = {name: getattr(self, name) for name in OPTIONS if name in OBJECTIVES[self.objective].options}
        if "reward_beta" in values and values["reward_beta"] is None:
            values["reward_beta"] = self.beta
        return {name: value for name, value in values.items() if value is not None}

    def grouping(self) -> Grouping:
        """Which completions stand in one example."""
        return Grouping(OBJECTIVES[self.objective].largest == 2, self.candidates, self.choice)


def _of_verb(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """An objective; one that is that of the other verb is told."""
    try:
        return handler(value)
    except ValidationError as error:
        if value not in OBJECTIVES:
            raise
        other, expected = "exo" if str(value).startswith("exo") else "dpo", error.errors()[0]["ctx"]["expected"]
        words = f"{expected}; {value} is an objective of `rewardlab train {other}`"
        raise mismatch(repr(value), words) from error


class DPOTraining(PreferenceTraining):
    """Configuration of `train dpo`."""

    of_rewards: ClassVar[str] = "dpo-rw"

    objective: Annotated[
        Literal["dpo-pref", "dpo-rw", "ipo", "ipo-sum", "hinge", "robust", "simpo"], WrapValidator(_of_verb)
    ] = "dpo-pref"
    """What is minimised; dpo-rw learns from rewards of two completions and more, the others from winner and loser."""


class EXOTraining(PreferenceTraining):
    """Configuration of `train exo`."""

    of_rewards: ClassVar[str] = "exo-rw"

    objective: Annotated[Literal["exo-pref", "exo-rw", "exo-pref-published"], WrapValidator(_of_verb)] = "exo-pref"
    """What is minimised; exo-rw learns from rewards of two completions and more, the others from winner and loser."""

    beta: float = Field(0.5, gt=0)
    """Weight of the divergence from the reference: the policy's beta."""


def train_preference(config: PreferenceTraining, run: Run) -> TrainedPolicy:
    """Train a policy on preferences between completions, or on their rewards.

    Args:
        config: everything.
        run: its directory; an unfinished one goes on from the newest complete checkpoint.

    Raises:
        ConfigError: a tracker that is not installed.
        DataError: unusable data.
        ModelError: unusable model, reference or device, or a saved policy that is not the one that was trained.
        RunError: resumed with other training data, or the disk is full.
        RewardlabError: training diverged, or does not fit into memory.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    check_trackers(config.report_to)
    objective, grouping = OBJECTIVES[config.objective], config.grouping()
    data = policy_data(config)
    check_preferences(data.as_given(config), grouping)
    model = start_policy(config, temperature=config.temperature)
    examples = {
        name: preference_examples(records, model, name, grouping)
        for name, records in {"train": data.train, **data.evaluation}.items()
    }
    warned = list(sampling_words(data.train, config.temperature))
    for words in warned if processes().is_first else ():
        run.log.warning(words)
    found: dict[str, Any] = {"objective": config.objective, "options": config.options(), "warnings": warned}
    if objective.reference:
        references = _references(config, model, examples)
        examples = {name: with_references(own, references) for name, own in examples.items()}
        found["reference"] = {
            "key": references.store.folder.name,
            "sequences": references.sequences,
            "computed": references.computed,
        }
    training = examples["train"].items
    plan: StepPlan
    if grouping.is_drawn:
        plan = DrawnPlan(training, config.batch_size, config.epochs, config.seed, grouping=grouping)
        examples = {
            name: own if name == "train" else _drawn_once(own, grouping, config.seed) for name, own in examples.items()
        }
    else:
        plan = StepPlan(training, config.batch_size, config.epochs, config.seed)
    found["left_out"] = _left_out(examples, objective)
    prepared = Prepared(
        model,
        plan,
        examples,
        Alignment(objective, config.options(), config.per_token),
        card={"objective": config.objective, **config.options(), "temperature": config.temperature},
        summary=found,
    )
    return run_policy_training(config, run, prepared, data)


def _references(config: PreferenceTraining, model: PolicyModel, examples: dict[str, Examples]) -> References:
    """Log-probabilities of all completions under the reference.

    Raises:
        ModelError: a reference with another tokenizer.
    """
    reference = model
    if config.reference is not None:
        reference = load_reference(
            str(config.reference.path),
            model,
            revision=config.reference.revision,
            layout=config.layout,
            trust_remote_code=config.reference.trust_remote_code,
        )
    precision = product_precision(config.precision, model.device.type)
    groups = [example.group for own in examples.values() for example in own.items]
    # Of several processes the first one computes what is missing, and the others find it.
    return processes().in_turn(
        lambda: cached_references(reference, groups, precision=precision, budget=config.token_budget)
    )


def _drawn_once(examples: Examples, grouping: Grouping, seed: int) -> Examples:
    """An evaluation set draws once, so that its measures can be compared from step to step."""
    own = policy_examples(examples.items)
    drawn = [grouping.draw(example, seed=seed, epoch=0, place=place) for place, example in enumerate(own)]
    return replace(examples, items=list(drawn))


def _left_out(examples: dict[str, Examples], objective: PolicyObjective) -> list[str]:
    counts = examples["train"].counts
    told = {
        "ties": f"ties were left out of the training data: {objective.name} needs a winner",
        "identical_completions": "groups of one and the same text were left out of the training data",
        "identical_pairs": "pairs of the same text with different rewards are never drawn",
    }
    return [f"{counts[name]} {words}." for name, words in told.items() if counts[name]]
