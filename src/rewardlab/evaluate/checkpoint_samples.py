"""What verbs share in which checkpoints of trainings write completions of the same prompts, from the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rewardlab.config import Config, Paths
from rewardlab.data.source import Sources
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import ConfigError, Problem
from rewardlab.evaluate.frontier_runs import RESERVED, Checkpoint, is_rule, reference_of
from rewardlab.evaluate.frontier_samples import LogRatios
from rewardlab.models.policies import saved_encoding
from rewardlab.models.quantisation import Quantisation
from rewardlab.models.source import Precision
from rewardlab.sample.verb import Sampling
from rewardlab.store.runs import Run

_PLAIN = "plain sampling: of warped samples there is no divergence"


def _in_words(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


class CheckpointSamples(Config):
    """Which policies write what."""

    not_fields: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(("top_p", "top_k", "repetition_penalty"), _PLAIN)
    )

    runs: dict[str, Paths] = Field(min_length=1)
    """By name of the curve: a folder of `train sft`, `train dpo` or `train exo`, or of a policy; of several seeds, a
    folder each. The first seed of one curve is paired with the first of the others; what has no partner is left out of
    their difference, and told."""

    reference: Path | None = None
    """Folder of the policy that the divergence is from. Default: the reference that the runs were trained with, or
    their start, where they agree."""

    data: Sources = Field(min_length=1)
    """Where prompts come from, one source or several, in any known format; held-out ones."""

    checkpoints: Annotated[str, BeforeValidator(_in_words)] = "all"
    """Which policies of a training: all, first 5, every 2 (counted back from the last one), or their steps: 20 40."""

    n: int = Field(4, ge=1)
    """Completions of every prompt by every checkpoint."""

    temperature: float = Field(1.0, gt=0)
    """Of sampling, and of all log-probabilities."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Tokens of a completion, at most, its end included. Default: what the policies were trained on, the most of them
    where they differ."""

    bottom: int = Field(0, ge=0)
    """Number of the first prompt of a slice, from 0."""

    top: int | None = Field(None, ge=1)
    """Number of the prompt behind the last one of the slice."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    encoding: PolicyEncoding | None = None
    """How prompts become ids; default: as the policies' folders say, which have to agree on prompts. How long
    completions become is said by max_new_tokens."""

    precision: Precision = "auto"
    """dtype of the weights of all policies; auto keeps the checkpoints'."""

    quantisation: Quantisation | None = None
    """Weights of all policies and of the reference in fewer bits: 8bit, 4bit, or fields of a quantisation configuration
    of transformers. Adapters run beside them, as where they were trained so."""

    device: str = "auto"
    """cpu, cuda, mps or auto."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens at once while sampling; as of `sample`."""

    shard_size: int = Field(256, ge=1)
    """Completions per shard of a sample: what at most is drawn again after a kill."""

    trust_remote_code: bool = False
    """Run Python code that comes with a checkpoint. Only for sources you trust."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the samples."""

    @field_validator("checkpoints")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if not is_rule(value):
            raise ValueError("expected all, first K, every K, or steps such as 20 40")
        return value

    @model_validator(mode="after")
    def _policies_and_prompts(self) -> Self:
        taken = [name for name in self.runs if name in RESERVED]
        if taken:
            raise ValueError(f"expected other names of runs than {', '.join(taken)}")
        if not all(self.runs.values()):
            raise ValueError("expected a folder for every run")
        if self.top is not None and self.top <= self.bottom:
            raise ValueError("expected top above bottom")
        return self

    @property
    def folders(self) -> list[Path]:
        """The folders of all runs."""
        return [folder for folders in self.runs.values() for folder in folders]

    def pinned(self, *, offline: bool = False) -> Self:
        """With the reference that the runs agree on, so that a run records it."""
        found = super().pinned(offline=offline)
        try:
            return found.model_copy(update={"reference": reference_of(found.folders, found.reference)})
        except ConfigError:
            return found

    def sampling(self, one: Checkpoint, encoding: PolicyEncoding, n: int) -> Sampling:
        """What a policy is asked for: `n` completions of every prompt."""
        same = {"temperature", "bottom", "top", "limit", "precision", "device", "token_budget", "shard_size", "seed"}
        values = self.model_dump(mode="json", include={*same, "data", "trust_remote_code", "quantisation"})
        return Sampling.build(
            {
                **values,
                "model": str(one.policy),
                "n": n,
                "max_new_tokens": self.most(encoding),
                "encoding": encoding.model_dump(mode="json"),
                "logprobs": True,
            }
        )

    def most(self, encoding: PolicyEncoding) -> int:
        """Tokens of a completion, at most."""
        return self.max_new_tokens or encoding.max_completion_tokens

    def ratios(self, run: Run, reference: Path, encoding: PolicyEncoding) -> LogRatios:
        """What compares the policies with the reference."""
        return LogRatios(
            run,
            reference,
            encoding,
            temperature=self.temperature,
            most=self.most(encoding),
            device=self.device,
            precision=self.precision,
            trust_remote_code=self.trust_remote_code,
            quantisation=self.quantisation,
        )

    def encoding_of(self, policies: Sequence[Checkpoint]) -> PolicyEncoding:
        """How the policies read prompts: they have to agree, or what they write answers different questions.

        Of their `max_completion_tokens`, which no prompt is read by, it has the largest.

        Raises:
            ConfigError: they do not agree.
            InputError: rules that cannot be read.
        """
        if self.encoding is not None:
            return self.encoding
        saved = [saved_encoding(str(one.policy)) or PolicyEncoding() for one in policies]
        by_rules = {
            rules.model_dump_json(exclude={"max_completion_tokens"}): one
            for rules, one in zip(saved, policies, strict=True)
        }
        if len(by_rules) > 1:
            problems = [
                Problem(str(one.policy), rules, "one encoding", "Give --encoding.") for rules, one in by_rules.items()
            ]
            raise ConfigError("The policies read prompts in different ways", problems)
        most = [rules.max_completion_tokens for rules in saved]
        return saved[0].model_copy(update={"max_completion_tokens": max(most)})
