"""`rewardlab sample`: several completions of every prompt → completions.jsonl, canonical candidates.

Prompts come from any data source, each once, in order. Every prompt is answered. What an answer says hangs on its
prompt, the seed and its number alone, up to the rounding of batches; in half precision that can change words.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from rewardlab.config import Config
from rewardlab.data.canonical import write_records
from rewardlab.data.files import COMPLETIONS
from rewardlab.data.load import load_all
from rewardlab.data.source import Sources, with_limit
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import DataError, Problem
from rewardlab.models.decoding import Decoding
from rewardlab.models.quantisation import Quantisation
from rewardlab.models.source import ModelSource, Precision
from rewardlab.records import Candidates, Prompt
from rewardlab.sample.drawn import Drawn, different_prompts
from rewardlab.sample.local import LocalSampler, Wanted
from rewardlab.sample.policy import load_policy
from rewardlab.sample.server import PolicyEndpoint, draw_from
from rewardlab.store.files import read_json, write_json
from rewardlab.store.processes import alone, processes
from rewardlab.store.runs import Run

log = logging.getLogger("rewardlab")

PLAN = "plan.json"
"""What all sessions of a run keep, on whatever device."""
CPU_PLAN = {"token_budget": 16384, "shard_size": 256}
ACCELERATOR_PLAN = {"token_budget": 131072, "shard_size": 2048}
SERVED_TOKENS = 256


class Sampling(Config):
    """Configuration of `sample`."""

    data: Sources = Field(default_factory=list)
    """Where prompts come from, one source or several, in any known format; a source may be its path alone. A prompt
    that stands in several rows is one."""

    prompts: list[str] = Field(default_factory=list)
    """Prompts as plain text, before those of the data or in their place; an empty one is the beginning of a text."""

    model: str | None = None
    """Folder or hub id of a causal or encoder-decoder language model."""

    endpoint: PolicyEndpoint | None = None
    """In place of a model, an OpenAI-compatible chat model (vLLM, SGLang, transformers serve, ...); its URL alone will
    do."""

    n: int = Field(4, ge=1)
    """Completions of every prompt."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Tokens of a completion, at most, its end included. Default: what the policy was trained on, else 256."""

    temperature: float = Field(1.0, ge=0)
    """Temperature of sampling; 0 takes the likeliest token everywhere."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that have this probability together."""

    top_k: int = Field(0, ge=0)
    """Only so many likeliest tokens; 0 for all."""

    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that stand in the prompt or in what is written already become less likely."""

    logprobs: bool = False
    """Also the log-probability of every completion under the distribution that it was drawn from."""

    bottom: int = Field(0, ge=0)
    """Number of the first prompt of a slice, from 0."""

    top: int | None = Field(None, ge=1)
    """Number of the prompt behind the last one of the slice."""

    limit: int | None = Field(None, ge=1)
    """Read only the first so many rows of every source (smoke run)."""

    encoding: PolicyEncoding | None = None
    """How prompts become ids; default: as the policy's folder says, else the chat template or the plain text."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    precision: Precision = "auto"
    """dtype of the weights; auto keeps the checkpoint's."""

    quantisation: Quantisation | None = None
    """Weights of the model in fewer bits: 8bit, 4bit, or fields of a quantisation configuration of transformers."""

    device: str = "auto"
    """cpu, cuda, mps or auto."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens at once, prompts and longest answers together. Default: 16,384 on a CPU, 131,072 elsewhere; a resumed run
    keeps what it began with."""

    shard_size: int | None = Field(None, ge=1)
    """Completions per shard: what at most is drawn again after a kill. Default: 256 on a CPU, 2,048 elsewhere."""

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Only for sources you trust."""

    yes: bool = False
    """Ask an endpoint without being asked about the cost first."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of all chance in this process."""

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if not self.data and not self.prompts:
            raise ValueError("expected data or prompts")
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("expected a model or an endpoint, and not both")
        if self.endpoint is not None and self.encoding is not None:
            raise ValueError("expected no encoding beside an endpoint: its server has its own template")
        if self.endpoint is not None and self.quantisation is not None:
            raise ValueError("expected no quantisation beside an endpoint: its server has the weights")
        if self.endpoint is not None and self.logprobs:
            raise ValueError("expected a model beside logprobs: servers do not say at which temperature theirs are")
        if self.logprobs and self.temperature == 0.0:
            raise ValueError("expected a temperature above 0 beside logprobs: at 0 nothing is drawn")
        if self.top is not None and self.top <= self.bottom:
            raise ValueError("expected top above bottom")
        return self

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen."""
        return Decoding(self.temperature, self.top_k, self.top_p, self.repetition_penalty)


@dataclass(frozen=True)
class Sampled:
    """What sampling gave: what summary.json holds."""

    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        summary = self.summary
        mean = "" if summary["mean_tokens"] is None else f", {summary['mean_tokens']:.1f} tokens each on average"
        lines = [f"{summary['completions']} completions of {summary['prompts']} prompts{mean}."]
        endless = " A policy that does not end is to be fine-tuned on whole answers." * (summary["unfinished"] > 0.5)
        lines.append(f"{summary['unfinished']:.1%} were cut off at {summary['max_new_tokens']} tokens.{endless}")
        if summary["tokens_per_second"] is not None:
            lines.append(f"{summary['tokens_per_second']:,.0f} tokens a second.")
        if summary["truncated_prompts"]:
            lines.append(f"{summary['truncated_prompts']} prompts were cut on the left.")
        if summary["missing"]:
            reason, count = next(iter(summary["missing"].items()))
            lines.append(f"{sum(summary['missing'].values())} completions are missing ({count}: {reason}).")
        return lines


def sample(config: Sampling, run: Run) -> Sampled:
    """Complete every prompt of the data `n` times.

    Args:
        config: everything.
        run: its directory; an unfinished one goes on with the missing shards.

    Raises:
        DataError: unusable data, or a slice without prompts.
        ConfigError: prompts and completions do not fit into the model's context.
        ModelError: unusable model.
        RunError: what an endpoint costs is declined or over its budget, or questions stay without an answer; every
            answer is kept.
    """
    loaded = load_all((with_limit(source, config.limit) for source in config.data), usable=True)
    given = [Candidates(Prompt.of_text(text), (), None) for text in config.prompts]
    records = [*given, *(record for one in loaded for record in one.records)]
    found = different_prompts(records, config.bottom, config.top)
    if not found:
        count = len(different_prompts(records, 0, None))
        problem = Problem("bottom", f"{config.bottom}", f"less than {count}, the number of different prompts")
        raise DataError("There are no prompts in the slice", [problem])
    prompts = list(found)
    drawn, facts = (
        _local(config, prompts, run) if config.endpoint is None else _served(config, config.endpoint, prompts)
    )
    meta = {"temperature": config.temperature, "warped": config.decoding.warped}
    sampled = [one.record(prompt, found[prompt], meta) for prompt, one in zip(prompts, drawn, strict=True)]
    processes().first(lambda: write_records(run.path(COMPLETIONS), sampled))
    summary = {
        **_counted(drawn),
        **facts,
        "n": config.n,
        **config.decoding._asdict(),
        "warped": config.decoding.warped,
        "logprobs": config.logprobs,
        "seed": config.seed,
        "set_aside": dict(Counter(row.reason for one in loaded for row in one.set_aside)),
    }
    processes().first(lambda: write_json(run.path("summary.json"), summary))
    return Sampled(summary)


def _counted(drawn: Sequence[Drawn]) -> dict[str, Any]:
    tokens = [count for one in drawn for count in one.tokens if count is not None]
    completions = sum(len(one.completions) for one in drawn)
    return {
        "prompts": len(drawn),
        "completions": completions,
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
        "unfinished": sum(one.cut_off for one in drawn) / completions if completions else 0.0,
        "finish_reasons": dict(Counter(reason for one in drawn for reason in one.finish_reasons).most_common()),
    }


def _local(config: Sampling, prompts: Sequence[Prompt], run: Run) -> tuple[list[Drawn], dict[str, Any]]:
    source = ModelSource(
        path=config.model,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        quantisation=config.quantisation,
    )
    policy = load_policy(source, config.encoding, device=config.device, precision=config.precision)
    encoding, network = policy.encoder.encoding, policy.network
    most = config.max_new_tokens or encoding.max_completion_tokens
    plan = _plan(config, run, on_cpu=network.device.type == "cpu")
    wanted = Wanted(config.n, most, config.decoding, config.seed, config.logprobs, **plan)
    sampler = LocalSampler(policy, prompts, wanted)
    processes().first(lambda: write_json(run.path(PLAN), plan))
    log.info("sampling from %s in %s, up to %d tokens at once", config.model, network.dtype, plan["token_budget"])
    began = time.monotonic()
    drawn = sampler.draw(run.path("shards"))
    seconds, tokens = time.monotonic() - began, sum(processes().gather(sampler.tokens))
    facts = {
        "model": config.model,
        "max_new_tokens": most,
        "tokens_per_second": round(tokens / seconds, 1) if tokens else None,
        "truncated_prompts": sum(one.truncated for one in sampler.encoded),
        "missing": {},
        "encoding": encoding.model_dump(mode="json"),
        "precision": str(network.dtype).removeprefix("torch."),
        "quantisation": config.quantisation,
        "token_budget": plan["token_budget"],
    }
    return drawn, facts


def _plan(config: Sampling, run: Run, *, on_cpu: bool) -> dict[str, int]:
    """What an earlier session began with; in the first one what is configured, else what fits the device."""
    path = run.path(PLAN)
    if path.is_file():
        found: dict[str, int] = read_json(path)
        return found
    default = CPU_PLAN if on_cpu else ACCELERATOR_PLAN
    return {name: getattr(config, name) or value for name, value in default.items()}


def _served(
    config: Sampling, endpoint: PolicyEndpoint, prompts: Sequence[Prompt]
) -> tuple[list[Drawn], dict[str, Any]]:
    alone("endpoint")
    most = config.max_new_tokens or SERVED_TOKENS
    drawn, missing = draw_from(endpoint, prompts, config.n, most, config.decoding, yes=config.yes)
    facts = {
        "model": endpoint.model,
        "max_new_tokens": most,
        "tokens_per_second": None,
        "truncated_prompts": None,
        "missing": missing,
        "encoding": None,
        "precision": None,
        "quantisation": None,
        "token_budget": None,
    }
    return drawn, facts
