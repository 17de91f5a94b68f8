"""A reward model as a scorer: length-sorted micro-batches, rewards in the caller's order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rewardlab.data.layout import Group, cost, micro_batches, parts
from rewardlab.data.tokenize import Encoded, Encoding
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.models.loading import LayoutChoice, Precision, load_reward_model, torch_device
from rewardlab.models.memory import is_out_of_memory, keep_freed_memory
from rewardlab.models.reward import RewardModel, grouped
from rewardlab.records import Message, Prompt, canonical_json, content_id
from rewardlab.store.keys import path_digest

log = logging.getLogger("rewardlab")

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
        rewards = iter(self._rewards(groups, self.budget))
        return [next(rewards) if sequences else [] for sequences in encoded]

    def __call__(self, prompts: Sequence[PromptLike], completions: Sequence[CompletionLike], **_: Any) -> list[float]:
        """One reward per (prompt, completion); equal prompts share their prefix.

        Args:
            prompts: texts, or conversations as lists of {role, content}.
            completions: as many: texts, or one assistant message each.

        Raises:
            DataError: different numbers, or entries of another form.
        """
        _check_lists(prompts, completions)
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
        with self._flat():
            return [self._batch([group])[0][0] for group in _alone(sequences)]

    def flat(self, sequences: Sequence[Encoded]) -> list[float]:
        """Rewards with nothing shared, in batches: they differ from those of `one_by_one` by rounding alone."""
        with self._flat():
            return [reward for (reward,) in self._rewards(_alone(sequences), self.budget)]

    @contextlib.contextmanager
    def _flat(self) -> Iterator[None]:
        layout, self.model.layout = self.model.layout, "flat"
        try:
            yield
        finally:
            self.model.layout = layout

    def _rewards(self, groups: Sequence[Group], budget: int) -> list[list[float]]:
        """Rewards by group, then branch; a group larger than the budget goes in parts."""
        shared = self.model.layout == "shared"
        cut = [(index, part) for index, group in enumerate(groups) for part in parts(group, budget, shared=shared)]
        values: list[list[float]] = [[] for _ in cut]
        for members in micro_batches([part for _, part in cut], budget, shared=shared):
            for member, rewards in zip(members, self._batch([cut[member][1] for member in members]), strict=True):
                values[member] = rewards
        result: list[list[float]] = [[] for _ in groups]
        for (index, _), rewards in zip(cut, values, strict=True):
            result[index] += rewards
        return result

    def _batch(self, groups: Sequence[Group]) -> list[list[float]]:
        """Rewards of a micro-batch by group, then branch; where memory runs out, of one half of its tokens at a time.

        The next micro-batch begins with the whole budget again: a table's last bits depend on its plan, and not on
        what else the device was asked for before.

        Raises:
            ModelError: one sequence alone does not fit into memory, or rewards are no numbers.
        """
        try:
            with torch.inference_mode():
                rewards = self._checked(self.model(groups).cpu())
            return [own.tolist() for own in rewards.split([len(group.branches) for group in groups])]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if sum(len(group.branches) for group in groups) == 1:
                found = f"out of memory with one sequence of {groups[0].longest} tokens"
                remedy = "Use --precision bfloat16, a smaller --encoding.max_tokens or another --device."
                problem = Problem(self.name, found, "memory for one sequence", remedy)
                raise ModelError("The model does not fit into memory", [problem]) from error
        # Out here the error and the activations that its frames hold are gone.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = cost(groups, shared=self.model.layout == "shared") // 2
        log.warning("out of memory: repeated with %d tokens a micro-batch; --token_budget sets it for all", half)
        return self._rewards(groups, half)

    def _checked(self, rewards: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(rewards).all():
            dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
            problem = Problem(self.name, f"{rewards[~torch.isfinite(rewards)][0].item()} in {dtype}", "finite rewards")
            raise ModelError("The model gives rewards that are no numbers", [problem])
        return rewards


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
        path: a folder, or a hub id; a PEFT adapter with its head too.
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
    return LocalScorer(model, _identity(path, model), token_budget)


def _identity(path: str | Path, model: RewardModel) -> str:
    """Name of the folder or hub id, and a hash of everything that the scores depend on, an adapter's base included."""
    weights = [path_digest(source) if Path(source).is_dir() else source for source in model.sources]
    rules = model.encoding.model_dump(mode="json")
    key = content_id([weights[0] if len(weights) == 1 else weights, rules, str(next(model.parameters()).dtype)])
    folder = Path(path)
    name = folder.resolve().name if folder.is_dir() else str(path)
    if name == "model" and folder.is_dir():
        name = f"{folder.resolve().parent.name}/{name}"  # our runs call every result "model"
    return f"{name}@{key[:12]}"


def _alone(sequences: Sequence[Encoded]) -> list[Group]:
    return [Group((), (sequence.ids,)) for sequence in sequences]


def _check_lists(prompts: Any, completions: Any) -> None:
    """A text is a sequence too, of its characters: it would be scored letter by letter.

    Raises:
        DataError: one text in place of a list.
    """
    problems = [
        Problem(
            name, repr(values)[:200], "a list with one entry per answer", f"Write {name}=[{name.removesuffix('s')}]."
        )
        for name, values in (("prompts", prompts), ("completions", completions))
        if isinstance(values, str | bytes | Mapping | Prompt)
    ]
    if problems:
        raise DataError("One text cannot be scored as a list", problems)


def _prompt(prompt: PromptLike, row: int) -> Prompt:
    if isinstance(prompt, Prompt):
        return prompt
    if isinstance(prompt, str):
        return Prompt.of_text(prompt)
    if not _is_list(prompt):
        problem = Problem(f"prompt {row}", repr(prompt)[:200], "a text, or a list of messages {role, content}")
        raise DataError("A prompt cannot be read", [problem])
    return Prompt(tuple(_message(message, f"prompt {row}") for message in prompt))


def _completion(completion: CompletionLike, row: int) -> str:
    if isinstance(completion, str):
        return completion
    if not _is_list(completion):
        problem = Problem(f"completion {row}", repr(completion)[:200], "a text, or a list of one assistant message")
        raise DataError("A completion cannot be scored", [problem])
    messages = [_message(message, f"completion {row}") for message in completion]
    if len(messages) == 1:
        return messages[0].content
    problem = Problem(f"completion {row}", f"{len(messages)} messages", "a text, or one assistant message")
    raise DataError("A completion cannot be scored", [problem])


def _is_list(value: Any) -> bool:
    # Whatever holds messages one after the other: a list, a tuple, an array of a data frame.
    return isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)


def _message(message: Any, where: str) -> Message:
    if isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str):
        return Message(message["role"], message["content"])
    problem = Problem(where, repr(message)[:200], 'a message {"role": text, "content": text}')
    raise DataError("A message cannot be read", [problem])
