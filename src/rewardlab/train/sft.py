"""`rewardlab train sft`: completions to imitate → a policy."""

from __future__ import annotations

from pydantic import Field

from rewardlab.errors import ConfigError, Problem
from rewardlab.store.runs import Run
from rewardlab.train.completions import imitation_examples
from rewardlab.train.policy import PolicyTraining, Prepared, TrainedPolicy, policy_data, start_policy
from rewardlab.train.policy_objectives import Imitation
from rewardlab.train.policy_run import run_policy_training
from rewardlab.train.trackers import check_trackers
from rewardlab.train.trainer import StepPlan


class SFTTraining(PolicyTraining):
    """Configuration of `train sft`."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Every dropout of the model. Above 0 the layout is flat."""
    on_prompts: bool = False
    """Learn the tokens of prompts too, but the first, which nothing stands before; of decoder-only models."""


def train_sft(config: SFTTraining, run: Run) -> TrainedPolicy:
    """Train a policy to write the completions of the data; the loss of a step is the mean over their tokens, and with
    `on_prompts` over those of their prompts.

    Of a pair it is the chosen one, of candidates that of the highest reward (all, where there are none), of labelled
    completions those that are not labelled bad.

    Args:
        config: everything.
        run: its directory; an unfinished one goes on from the newest complete checkpoint.

    Raises:
        ConfigError: a tracker that is not installed, or `on_prompts` with an encoder-decoder.
        DataError: unusable data.
        ModelError: unusable model or device, or a saved policy that is not the one that was trained.
        RunError: resumed with other training data, or the disk is full.
        RewardlabError: training diverged, or does not fit into memory.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    check_trackers(config.report_to)
    data = policy_data(config)
    model = start_policy(config, dropout=config.dropout)
    if config.on_prompts and model.is_encoder_decoder:
        expected = "false: an encoder reads the prompt, and nothing predicts it"
        raise ConfigError("Prompts cannot be learned", [Problem("on_prompts", "true, of an encoder-decoder", expected)])
    examples = {
        name: imitation_examples(records, model, name, on_prompts=config.on_prompts)
        for name, records in {"train": data.train, **data.evaluation}.items()
    }
    plan = StepPlan(examples["train"].items, config.batch_size, config.epochs, config.seed)
    prepared = Prepared(model, plan, examples, Imitation(), card={"objective": "sft", "on_prompts": config.on_prompts})
    return run_policy_training(config, run, prepared, data)
