"""A reward model as a scorer: length-sorted micro-batches, rewards in the caller's order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rewardlab.data.layout import Group, cost, micro_batches, split
from rewardlab.data.tokenize import Encoded, Encoding
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.models.loading import LayoutChoice, Precision, load_reward_model, torch_device
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.reward import RewardModel, grouped
from rewardlab.records import Message, Prompt, canonical_json, content_id
from rewardlab.store.keys import path_digest

CPU_BUDGET, ACCELERATOR_BUDGET = 2048, 65536

PromptLike = str | Sequence[dict[str, Any]] | Prompt
CompletionLike = str | Sequence[dict[str, Any]]


class LocalScorer:
    """Scores with a model in this process. A `Scorer`, and a reward function as TRL calls them.

    Args:
        model: the reward model, in evaluation mode.
        name: identity that score tables are keyed by.
        budget: tokens per micro-batch; changes no score beyond rounding.
    """

    def __init__(self, model: RewardModel, name: str, budget: int | None = None) -> None:
        self.model = model
        self._name = name
        self.budget = budget or (CPU_BUDGET if model.device.type == "cpu" else ACCELERATOR_BUDGET)
        # TRL names a reward after its function.
        self.__name__ = name

    @property
    def name(self) -> str:
        """Identity of the scorer."""
        return self._name

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float]]:
        """Rewards of `completions[i][k]` as an answer to `prompts[i]`, in the order given."""
        return self.score_encoded(self.model.encode(prompts, completions))

    def score_encoded(self, encoded: Sequence[Sequence[Encoded]]) -> list[list[float]]:
        """Rewards of token sequences, grouped by prompt, in the order given."""
        groups = [grouped(sequences) for sequences in encoded if sequences]
        rewards = iter(self._rewards(groups))
        return [next(rewards) if sequences else [] for sequences in encoded]

    def __call__(self, prompts: Sequence[PromptLike], completions: Sequence[CompletionLike], **_: Any) -> list[float]:
        """One reward per (prompt, completion); equal prompts share their prefix.

        Args:
            prompts: texts, or conversations as lists of {role, content}.
            completions: as many: texts, or one assistant message each.

        Raises:
            DataError: different numbers, or entries of another form.
        """
        if len(prompts) != len(completions):
            problem = Problem("completions", str(len(completions)), f"one per prompt ({len(prompts)})")
            raise DataError("Prompts and completions do not match", [problem])
        order: dict[tuple[Any, ...], list[int]] = {}
        parsed = [_prompt(prompt, row) for row, prompt in enumerate(prompts)]
        for row, prompt in enumerate(parsed):
            # The very text, not its id: ids are the same for texts that differ in Unicode normal form.
            order.setdefault((prompt.messages, canonical_json(prompt.template_options)), []).append(row)
        rows = list(order.values())
        texts = [[_completion(completions[row], row) for row in members] for members in rows]
        rewards = self.score([parsed[members[0]] for members in rows], texts)
        result = [0.0] * len(prompts)
        for members, values in zip(rows, rewards, strict=True):
            for row, value in zip(members, values, strict=True):
                result[row] = value
        return result

    def one_by_one(self, sequences: Sequence[Encoded]) -> list[float]:
        """Rewards with nothing shared, sorted or batched: what every faster path is compared with."""
        layout, self.model.layout = self.model.layout, "flat"
        try:
            with torch.inference_mode():
                return [self.model([Group((), (sequence.ids,))]).item() for sequence in sequences]
        finally:
            self.model.layout = layout

    def _rewards(self, groups: Sequence[Group]) -> list[list[float]]:
        """Rewards by group, then branch; a group larger than the budget goes in parts."""
        shared = self.model.layout == "shared"
        parts = [
            (index, part) for index, group in enumerate(groups) for part in _parts(group, self.budget, shared=shared)
        ]
        values: list[list[float]] = [[] for _ in parts]
        with torch.inference_mode():
            for members in micro_batches([part for _, part in parts], self.budget, shared=shared):
                batch = [parts[member][1] for member in members]
                rewards = self._checked(self.model(batch).cpu()).split([len(part.branches) for part in batch])
                for member, reward in zip(members, rewards, strict=True):
                    values[member] = reward.tolist()
        result: list[list[float]] = [[] for _ in groups]
        for (index, _), rewards_of_part in zip(parts, values, strict=True):
            result[index] += rewards_of_part
        return result

    def _checked(self, rewards: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(rewards).all():
            dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
            problem = Problem(self.name, f"{rewards[~torch.isfinite(rewards)][0].item()} in {dtype}", "finite rewards")
            raise ModelError("The model gives rewards that are no numbers", [problem])
        return rewards


def _parts(group: Group, budget: int, *, shared: bool) -> list[Group]:
    if cost([group], shared=shared) <= budget:
        return [group]
    return [group.part(branches) for branches in split(group, budget, shared=shared)]


def load_scorer(
    path: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    layout: LayoutChoice = "auto",
    encoding: Encoding | None = None,
    token_budget: int | None = None,
    trust_remote_code: bool = False,
) -> LocalScorer:
    """A trained reward model as a scorer: `load_scorer(path)(prompts, completions) -> rewards`.

    Args:
        path: a folder, or a hub id.
        revision: of a hub id.
        device: cpu, cuda, mps or auto.
        precision: dtype of the weights; auto keeps the checkpoint's.
        layout: auto shares prefixes where the backbone passes the self-test.
        encoding: overrides the folder's own rules.
        token_budget: tokens per micro-batch.
        trust_remote_code: run Python code that comes with the checkpoint.

    Raises:
        ModelError: unreadable folder, or a head that is missing, newly initialised or of several labels.
    """
    keep_freed_memory()
    model = load_reward_model(
        path,
        revision=revision,
        device=torch_device(device),
        precision=precision,
        layout=layout,
        encoding=encoding,
        trust_remote_code=trust_remote_code,
    )
    return LocalScorer(model, _identity(path, revision, model), token_budget)


def _identity(path: str | Path, revision: str | None, model: RewardModel) -> str:
    """Name of the folder or hub id, and a hash of everything that the scores depend on."""
    folder = Path(path)
    network: Any = model.plain_network
    weights = path_digest(folder) if folder.is_dir() else getattr(network.config, "_commit_hash", None) or revision
    rules = model.encoding.model_dump(mode="json")
    key = content_id([weights, rules, str(next(model.parameters()).dtype)])
    name = folder.resolve().name if folder.is_dir() else str(path)
    if name == "model" and folder.is_dir():
        name = f"{folder.resolve().parent.name}/{name}"  # our runs call every result "model"
    return f"{name}@{key[:12]}"


def _prompt(prompt: PromptLike, row: int) -> Prompt:
    if isinstance(prompt, Prompt):
        return prompt
    if isinstance(prompt, str):
        return Prompt.of_text(prompt)
    return Prompt(tuple(_message(message, f"prompt {row}") for message in prompt))


def _completion(completion: CompletionLike, row: int) -> str:
    if isinstance(completion, str):
        return completion
    messages = [_message(message, f"completion {row}") for message in completion]
    if len(messages) == 1:
        return messages[0].content
    problem = Problem(f"completion {row}", f"{len(messages)} messages", "a text, or one assistant message")
    raise DataError("A completion cannot be scored", [problem])


def _message(message: Any, where: str) -> Message:
    if isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str):
        return Message(message["role"], message["content"])
    problem = Problem(where, repr(message)[:200], 'a message {"role": text, "content": text}')
    raise DataError("A message cannot be read", [problem])
