"""What `rewardlab train ppo` is configured by, without its rewards: those are any `protocols.RewardTerms`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from rewardlab.data.source import DataSource, Sources
from rewardlab.data.turns import PolicyEncoding
from rewardlab.functional.ppo import Estimator
from rewardlab.models.source import ModelSource
from rewardlab.train.configuration import AnyTraining, Beta

PENALTY_TOKENS = 100.0
"""Length at which a penalty on length is 0, where nothing says."""

HEAD_RATE = 10
"""Times the policy's learning rate with which a head on its states learns."""


class PPOTraining(AnyTraining):
    """Configuration of a training by proximal policy optimisation, its rewards aside."""

    model: ModelSource
    """Where the policy comes from: a decoder-only language model. As it begins it is the reference, too."""

    train: Sources = Field(min_length=1)
    """Where prompts come from, one source or several, in any known format; a prompt in several rows is one."""

    validation: list[DataSource] = Field(default_factory=list)
    """Held-out prompts: the policy with the best reward on them is kept in best/."""

    best_by: str | None = None
    """The term of the reward whose mean on the held-out prompts is highest in best/. One of weight 0 is only logged, so
    that no policy was trained to please it. Default: the reward itself."""

    encoding: PolicyEncoding | None = None
    """How text becomes ids. Default: as the model's folder says, where a training of ours has left it."""

    steps: int = Field(1000, ge=1)
    """Batches of responses that are sampled and learned from."""

    batch_size: int = Field(32, ge=1)
    """Responses to a step."""

    samples: int = Field(1, ge=1)
    """Responses to every prompt; with baseline rloo two or more. batch_size is a multiple of it."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Tokens of a response, at most, its end included. Default: encoding.max_completion_tokens."""

    temperature: float = Field(1.0, gt=0)
    """Temperature of sampling, at which all log-probabilities are taken; nothing else changes the distribution."""

    baseline: Literal["critic", "rloo"] = "critic"
    """What rewards are measured against: values of a critic for every token, or the other responses to the prompt."""

    critic: ModelSource | None = None
    """A critic with a backbone of its own: a reward model with the policy's tokenizer, or a language model. Default: a
    linear head on the policy's own states."""

    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of later rewards."""

    gae_lambda: float = Field(1.0, ge=0, le=1)
    """Lambda of the generalised advantages: 1 trusts rewards alone, 0 values. Below 1 a token learns from a reward at
    the end only as far as the critic foresees it."""

    whiten: bool = True
    """Advantages of a batch get mean 0 and variance 1."""

    clip: float = Field(0.2, gt=0)
    """How far a token's probability ratio may go before it has no gradient."""

    value_clip: float = Field(0.2, gt=0)
    """The same of values, in units of the reward."""

    vf_coef: float = Field(0.1, ge=0)
    """Weight of the value loss."""

    ent_coef: float = Field(0.0, ge=0)
    """Weight of the entropy, which is made larger."""

    inner_epochs: int = Field(4, ge=1)
    """Passes over a batch."""

    mini_batches: int = Field(1, ge=1)
    """Optimiser steps to a pass; each takes a part of the batch."""

    inner_kl: float = Field(0.1, gt=0)
    """Passes over a batch end when the policy is further than 1.5 times this from the one that sampled it, in nats per
    token."""

    kl_estimator: Estimator = "k1"
    """Of the divergence from the reference: k1, the log-ratio, or k3, which is never negative."""

    beta: float = Field(0.2, ge=0)
    """What a nat of divergence costs, in reward; with target_kl the first value. 0 costs nothing, and stays."""

    target_kl: float | None = Field(6.0, gt=0)
    """beta is adapted so that the divergence of a response becomes this, in nats; null leaves beta as it is."""

    horizon: int = Field(10_000, ge=1)
    """Responses over which beta is adapted. Much fewer make beta, and the returns with it, run ahead of the policy."""

    missing_eos_penalty: float = Field(0.0, ge=0)
    """Taken off the reward of a response that did not end within max_new_tokens."""

    omit_long: bool = False
    """A response that did not end is replaced by a finished one of the batch, prompt and reward included."""

    reward_baseline: float = 0.0
    """Taken off every reward."""

    len_penalty: float | None = Field(None, gt=0)
    """This times the running standard deviation of the rewards, times 1 - length / len_penalty_tokens, is added."""

    len_penalty_tokens: float | None = Field(None, gt=0)
    """Length in tokens at which len_penalty is 0. Default: 100."""

    scale_reward: bool = False
    """Rewards are taken in running standard deviations from their running mean."""

    scale_clip: float | None = Field(0.3, gt=0)
    """Beyond which scaled rewards are cut; null cuts none."""

    optimiser: Literal["adamw", "adafactor"] = "adamw"
    """Adafactor keeps a row and a column of second moments in place of two numbers a weight."""

    learning_rate: float = Field(1.4e-5, gt=0)
    """Of the policy; the peak where it falls."""

    critic_learning_rate: float | None = Field(None, gt=0)
    """Of the critic. Default: the same; of a head on the policy, which begins with nothing, ten times that."""

    schedule: Literal["constant", "linear"] = "constant"
    """Learning rate over the steps; linear falls to 0."""

    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW betas."""

    save_every: int = Field(25, ge=1)
    """Steps between two states to resume from."""

    evaluate_every: int = Field(25, ge=1)
    """Steps between two evaluations on the held-out prompts."""

    samples_every: int = Field(10, ge=1)
    """Steps between two entries of samples.jsonl."""

    checkpoints: int = Field(10, ge=0)
    """How many policies are kept in policies/, evenly spaced, the last one that of the end."""

    @property
    def rate_of_critic(self) -> float:
        """Learning rate of the critic."""
        return self.critic_learning_rate or self.learning_rate * (HEAD_RATE if self.critic is None else 1)

    def unmet(self) -> Iterator[str]:
        """What does not fit together."""
        yield from super().unmet()
        if self.model.quantisation is not None and self.lora is None:
            yield "expected lora beside model.quantisation: weights of few bits are not trained"
        if self.critic is not None and self.critic.quantisation is not None:
            yield "expected no critic.quantisation: a critic of its own is trained in whole weights"
        if self.lora is not None and self.lora.dropout:
            yield "expected lora.dropout 0: a token's ratio would not be 1 before the first step"
        if self.batch_size % self.samples:
            yield f"expected batch_size to be a multiple of samples, {self.samples}"
        if self.mini_batches > self.batch_size:
            yield "expected mini_batches to be at most batch_size"
        if self.len_penalty_tokens is not None and self.len_penalty is None:
            yield "expected len_penalty beside len_penalty_tokens: without it no length is penalised"
        if self.best_by is not None and not self.validation:
            yield "expected validation beside best_by: without held-out prompts no policy is the best one"
        if self.baseline == "rloo":
            yield from self._unmet_without_critic()

    def _unmet_without_critic(self) -> Iterator[str]:
        if self.samples < 2:
            yield "expected samples 2 or more beside baseline rloo: each is measured by the others"
        if self.critic is not None or self.critic_learning_rate is not None:
            yield "expected no critic beside baseline rloo"
        if self.omit_long:
            yield "expected no omit_long beside baseline rloo: it takes responses from other prompts"
