"""What policies write, how it scores, and how likely it is: the completions of a frontier, in stages that are kept.

    samples/<run>-<seed>/<step>/   a folder of `sample` for each checkpoint, and ratios.json or divergences.json
    scores/<reward>/               a folder of `score` of all completions

Runs are numbered in the order of the configuration; the reference comes first, as samples/reference. Log-probabilities
are computed anew from the tokens, by one code for policy and reference: so equal policies have a log-ratio of exactly
0, and rounding of the sampling's own log-probabilities is in neither. They are kept as those of references are.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rewardlab.data.canonical import read_records
from rewardlab.data.files import COMPLETIONS
from rewardlab.data.layout import Group, share_prompt
from rewardlab.data.pairs import CUT_OFF
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import ModelError, Problem
from rewardlab.evaluate.frontier_runs import Checkpoint
from rewardlab.models.divergences import divergences
from rewardlab.models.policies import load_policy
from rewardlab.models.policy import PolicyModel
from rewardlab.models.quantisation import Quantisation
from rewardlab.models.references import cached_references
from rewardlab.models.source import Precision, torch_device
from rewardlab.records import Candidates, content_id
from rewardlab.sample.verb import Sampling, sample
from rewardlab.score.base import AnyScorer
from rewardlab.score.score import ScorerOptions, Scoring, score_file
from rewardlab.store.files import read_json, write_json
from rewardlab.store.keys import code_key, path_digest, source_digests
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run

DONE, RATIOS, DIVERGENCES = "done.json", "ratios.json", "divergences.json"


@dataclass(frozen=True)
class Written:
    """The completions of one policy, one after the other, prompt by prompt.

    Attributes:
        checkpoint: whose they are.
        prompt_id: of each.
        number: of each among those of its prompt, from 0.
        tokens: of each, its end included.
        finished: whether the policy ended it.
        token_ids: of each.
        log_ratio: log pi - log pi_ref of each, in nats.
        rounding: the largest difference of a log-probability from the one that it was drawn with.
        rewards: of each, by the name of the reward; NaN where there is none.
    """

    checkpoint: Checkpoint
    prompt_id: np.ndarray
    number: np.ndarray
    tokens: np.ndarray
    finished: np.ndarray
    token_ids: list[list[int]]
    log_ratio: np.ndarray
    rounding: float
    rewards: Mapping[str, np.ndarray]

    def table(self) -> pa.Table:
        """A row per completion."""
        count = len(self.number)
        one = self.checkpoint
        columns = {
            "run": pa.array([one.run] * count, pa.string()),
            "seed": pa.array([one.seed] * count, pa.int32()),
            "step": pa.array([one.step] * count, pa.int32()),
            "prompt_id": pa.array(self.prompt_id.tolist(), pa.string()),
            "number": pa.array(self.number, pa.int32()),
            **{name: pa.array(values, pa.float64(), from_pandas=True) for name, values in self.rewards.items()},
            "log_ratio": pa.array(self.log_ratio, pa.float64()),
            "tokens": pa.array(self.tokens, pa.int32()),
            "finished": pa.array(self.finished, pa.bool_()),
        }
        return pa.table(columns)


def folder_of(checkpoint: Checkpoint, order: Sequence[str]) -> str:
    """Where a checkpoint's samples go, in the run's directory; names of runs are free, so they are numbered."""
    if checkpoint.run not in order:
        return "samples/reference"
    return f"samples/{order.index(checkpoint.run)}-{checkpoint.seed}/step-{checkpoint.step:06d}"


def sampled(run: Run, folder: str, config: Sampling) -> list[Candidates]:
    """The completions of a policy; those of an earlier session as they stand.

    Raises:
        RewardlabError: as `sample`.
    """
    key = content_id([config.model_dump(mode="json", exclude={"device"}), *source_digests([str(config.model)])])
    part = run.part(folder)

    def draw() -> dict[str, Any]:
        run.log.info("sampling from %s", config.model)
        return sample(config, part).summary

    _kept(part.path(DONE), key, draw)
    return [record for record in read_records(part.path(COMPLETIONS)) if isinstance(record, Candidates)]


def scored(
    run: Run,
    folder: str,
    options: ScorerOptions,
    files: Sequence[Path],
    load: Callable[[Scoring], AnyScorer] | None = None,
) -> tuple[str, np.ndarray]:
    """Name of the scorer, and its reward of every completion of the files in order; NaN where it has none.

    Args:
        run: in whose folder the table is kept.
        folder: there.
        options: of the scorer.
        files: canonical records.
        load: the scorer, where it is another one than the options name.

    Raises:
        RewardlabError: as `score`.
    """
    values = options.model_dump(mode="json") | {"data": [{"path": str(file), "adapter": "canonical"} for file in files]}
    found = score_file(Scoring.build(values), run.part(folder), load)
    rewards = np.asarray(found.table["score"].to_numpy(), dtype=np.float64)
    return str(found.summary["scorer"]), rewards


class LogRatios:
    """Log-ratios of completions: log pi - log pi_ref of their tokens, at the temperature of the sampling; or the
    divergences of their next tokens.

    Args:
        run: where they are kept.
        reference: folder of the reference, which is loaded when it is first needed.
        encoding: from prompts to ids, of all policies.
        temperature: divides the logits.
        most: tokens of a completion.
        device: torch device name.
        precision: dtype of the weights.
        trust_remote_code: run Python code that comes with a checkpoint.
        quantisation: weights of policies and reference in fewer bits.
    """

    def __init__(
        self,
        run: Run,
        reference: Path,
        encoding: PolicyEncoding,
        *,
        temperature: float,
        most: int,
        device: str,
        precision: Precision,
        trust_remote_code: bool,
        quantisation: Quantisation | None = None,
    ) -> None:
        self._run = run
        self._reference_path = reference
        self._reference: PolicyModel | None = None
        self._encoding = encoding.model_copy(update={"max_completion_tokens": most})
        self._temperature = temperature
        self._device = device
        self._precision: Precision = precision
        self._trust_remote_code = trust_remote_code
        self._quantisation = quantisation

    def of(self, policy: Path, folder: str, records: Sequence[Candidates]) -> tuple[np.ndarray, float]:
        """The log-ratios of all completions in order, in nats, and how far the policy's log-probabilities are at most
        from those that they were drawn with.

        Raises:
            ModelError: unusable policy or reference, or two that read different tokens.
        """

        def compute() -> dict[str, Any]:
            own, reference = self._log_probabilities(policy, records)
            return {"policy": own.tolist(), "reference": reference.tolist()}

        found = _kept(self._run.path(folder) / RATIOS, self._key(policy, folder), compute)
        own, reference = np.array(found["policy"], np.float64), np.array(found["reference"], np.float64)
        drawn = np.array([value for record in records for value in record.meta["logprobs"]], np.float64)
        return own - reference, float(np.abs(own - drawn).max())

    def divergences(self, policy: Path, folder: str, records: Sequence[Candidates]) -> np.ndarray:
        """KL of the next token from the reference, summed over the tokens of every completion, in order, in nats.

        Its mean is that of the log-ratios, with less variance.

        Raises:
            ModelError: as `of`.
        """

        def compute() -> list[float]:
            own, reference = self._both(policy)
            found: list[float] = divergences(own, reference, _groups(own, records)).tolist()
            return found

        key = self._key(policy, folder, code_key("rewardlab.models.divergences"))
        return np.array(_kept(self._run.path(folder) / DIVERGENCES, key, compute), np.float64)

    def _key(self, policy: Path, folder: str, *about: str) -> str:
        rules = [self._encoding.model_dump(mode="json"), self._temperature, self._precision, self._quantisation, *about]
        weights = [path_digest(policy), path_digest(self._reference_path)]
        return content_id([rules, weights, path_digest(self._run.path(folder) / COMPLETIONS)])

    def _log_probabilities(self, path: Path, records: Sequence[Candidates]) -> tuple[np.ndarray, np.ndarray]:
        policy, reference = self._both(path)
        groups = _groups(policy, records)
        own = _sums(policy, groups)
        del policy
        gc.collect()
        return own, _sums(reference, groups)

    def _both(self, path: Path) -> tuple[PolicyModel, PolicyModel]:
        """The policy and the reference, which read the same tokens."""
        policy = self._loaded(path)
        if self._reference is None:
            self._reference = self._loaded(self._reference_path)
        reference = self._reference
        if policy.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
            problem = Problem(
                str(path), "another tokenizer than the reference's", "the same", "Its ids mean other tokens."
            )
            raise ModelError("Policy and reference read different tokens", [problem])
        return policy, reference

    def _loaded(self, path: Path) -> PolicyModel:
        return load_policy(
            path,
            device=torch_device(self._device),
            precision=self._precision,
            encoding=self._encoding,
            temperature=self._temperature,
            # Policy and reference have both answered these prompts, with as many tokens.
            check_length=False,
            trust_remote_code=self._trust_remote_code,
            quantisation=self._quantisation,
        )


def written(
    checkpoint: Checkpoint,
    records: Sequence[Candidates],
    ratios: tuple[np.ndarray, float],
    rewards: Mapping[str, np.ndarray],
) -> Written:
    """The completions of a checkpoint, put together."""
    counts = [len(record.completions) for record in records]
    metas = [record.meta for record in records]
    return Written(
        checkpoint,
        np.repeat([record.prompt.id for record in records], counts),
        np.concatenate([np.arange(count) for count in counts]),
        np.array([count for meta in metas for count in meta["tokens"]]),
        np.array([reason != CUT_OFF for meta in metas for reason in meta["finish_reasons"]]),
        [list(ids) for meta in metas for ids in meta["token_ids"]],
        *ratios,
        rewards,
    )


def _groups(policy: PolicyModel, records: Sequence[Candidates]) -> list[Group]:
    """The completions by the ids that the policy drew, each behind its prompt as the policy reads it."""
    prompts = policy.encoder.prompts([record.prompt for record in records])
    return [share_prompt(prompt.ids, record.meta["token_ids"]) for prompt, record in zip(prompts, records, strict=True)]


def _sums(model: PolicyModel, groups: Sequence[Group]) -> np.ndarray:
    references = cached_references(model, groups, precision="float32")
    return np.array([value for group in groups for value in references.of(group)], np.float64)


def _kept(path: Path, key: str, compute: Callable[[], Any]) -> Any:
    """What is in a file under the same key, else what `compute` gives, which is written there."""
    if path.is_file():
        found = read_json(path)
        if found["key"] == key:
            return found["value"]
    value = compute()
    processes().first(lambda: write_json(path, {"key": key, "value": value}))
    return value
