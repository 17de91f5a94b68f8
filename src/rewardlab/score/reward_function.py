"""The reward manager as the reward function of other trainers: TRL's GRPO and RLOO, OpenRLHF, verl.

    rewards = rewardlab.load_rewards("rewards.yaml")
    GRPOTrainer(..., reward_funcs=rewards)                      TRL
    reward_func = rewards.reward_func                           a file for OpenRLHF's --remote_rm_url
    compute_score = rewards.compute_score                       a file for verl's custom_reward_function.path

Each of them tells its reward function something else about a response; what a term needs and is not told is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rewardlab.config import Config
from rewardlab.data.tokenize import read_tokenizer
from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
from rewardlab.errors import ConfigError, DataError, Problem
from rewardlab.models.language import answer_ends, generation_beside
from rewardlab.records import Prompt, Response
from rewardlab.score.base import CompletionLike, PromptLike, check_lists, read_completion, read_prompt
from rewardlab.score.manager import RewardManager, TermsByName, load_manager

PROMPT_KEYS = ("prompt", "question")
"""Where the prompt may stand in what verl calls extra_info."""
_NEEDS_TOKENIZER = "the folder or hub id of the policy's tokenizer"


class Rewards(Config):
    """A file of rewards."""

    rewards: TermsByName = Field(min_length=1)
    """The terms by name."""

    tokenizer: str | None = None
    """Folder or hub id of the policy's tokenizer: which token ends a response, and how many tokens a text has."""


class RewardFunction:
    """A reward manager in the forms that trainers call.

    Args:
        manager: the terms.
        tokenizer: of the policy; None where no term asks for what it knows.
    """

    def __init__(self, manager: RewardManager, tokenizer: Any = None) -> None:
        self.manager = manager
        self.tokenizer = tokenizer
        # TRL names a reward after its function.
        self.__name__ = "rewards"
        # OpenRLHF calls from several threads; models are asked by one at a time.
        self._turn = threading.Lock()

    def __call__(
        self,
        prompts: Sequence[PromptLike],
        completions: Sequence[CompletionLike],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        """The reward of every completion, as TRL's GRPO and RLOO ask for it.

        Args:
            prompts: texts, or conversations as lists of {role, content}.
            completions: as many: texts, or one assistant message each.
            completion_ids: tokens of the completions, with the one that ends them; None for texts that are whole.
            log_metric: called with the name and the mean of every term.

        Raises:
            DataError: different numbers, entries of another form, or less than a term needs.
            ModelError, RunError: see `RewardManager.terms`.
        """
        check_lists(prompts, completions)
        lengths = {"completions": len(completions)}
        lengths |= {} if completion_ids is None else {"completion_ids": len(completion_ids)}
        wrong = [
            Problem(name, str(count), f"one per prompt ({len(prompts)})")
            for name, count in lengths.items()
            if count != len(prompts)
        ]
        if wrong:
            raise DataError("Prompts and completions do not match", wrong)
        texts = [read_completion(completion, row) for row, completion in enumerate(completions)]
        if completion_ids is None:
            facts = [(self._tokens(text) + 1, True) for text in texts]
        else:
            facts = [(len(ids), self._is_end(ids)) for ids in completion_ids]
        responses = [
            Response(read_prompt(prompt, row), text, *known)
            for row, (prompt, text, known) in enumerate(zip(prompts, texts, facts, strict=True))
        ]
        values, total = self._asked(responses)
        for name, own in values.items():
            if log_metric is not None and own:
                log_metric(name, sum(own) / len(own))
        return total

    def reward_func(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> Any:
        """Rewards as OpenRLHF asks a Python file for them: `--remote_rm_url FILE.py`.

        Args:
            queries: prompts with their responses, special tokens of the policy included.
            prompts: the prompts alone; each is how its query begins.
            labels: not looked at.

        Returns:
            rewards and scores, and every term in extra_logs: tensors of shape [queries], float32.

        Raises:
            ConfigError: no tokenizer is named.
            DataError: a query that does not begin with its prompt.
            ModelError, RunError: see `RewardManager.terms`.
        """
        del labels
        if self.tokenizer is None:
            raise self._no_tokenizer("OpenRLHF's queries, which have special tokens in them")
        wrong = [
            Problem(f"query {row}", repr(query)[:200], f"a text that begins with its prompt, {prompt!r}"[:200])
            for row, (query, prompt) in enumerate(zip(queries, prompts, strict=True))
            if not query.startswith(prompt)
        ]
        if wrong:
            raise DataError("Responses cannot be told from prompts", wrong)
        responses = [
            self._told_from(Prompt.of_text(prompt), query[len(prompt) :])
            for query, prompt in zip(queries, prompts, strict=True)
        ]
        values, total = self._asked(responses)
        rewards = _tensor(total)
        logs = {name: _tensor(own) for name, own in values.items()}
        return {"rewards": rewards, "scores": rewards, "extra_logs": logs}

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, float]:
        """The reward of one response, as verl asks a Python file for it: `custom_reward_function.path=FILE.py`.

        Args:
            data_source: not looked at.
            solution_str: the response, without special tokens; counted as one that has ended, with its end.
            ground_truth: not looked at.
            extra_info: the row's; its `prompt` (or `question`), a text or messages, is what the response answers.

        Returns:
            score, and the value of every term.

        Raises:
            ConfigError: a term asks whether the response has ended, which verl does not tell.
            DataError: a term reads the prompt, and there is none.
            ModelError, RunError: see `RewardManager.terms`.
        """
        del data_source, ground_truth
        if self.manager.needs_end:
            problem = Problem("missing_eos", "texts without special tokens", "to know whether a response has ended")
            raise ConfigError("verl does not tell a reward function whether a response has ended", [problem])
        given = next((extra_info[key] for key in PROMPT_KEYS if extra_info and key in extra_info), None)
        if given is None and self.manager.needs_prompt:
            expected = f"the prompt as one of {', '.join(PROMPT_KEYS)}, which a term of the reward reads"
            raise DataError("The prompt is missing", [Problem("extra_info", str(extra_info)[:200], expected)])
        prompt = Prompt.of_text("") if given is None else read_prompt(given, 0)
        values, (score,) = self._asked([Response(prompt, solution_str, self._tokens(solution_str) + 1, True)])
        return {"score": score} | {name: own for name, (own,) in values.items()}

    def _asked(self, responses: Sequence[Response]) -> tuple[dict[str, list[float]], list[float]]:
        with self._turn:
            values = self.manager.terms(responses)
        return values, self.manager.total(values)

    def _told_from(self, prompt: Prompt, written: str) -> Response:
        """The response in a text that has the policy's special tokens in it."""
        tokens = self._tokens(written)
        finished = not self.manager.needs_end or written.endswith(
            tuple(self.tokenizer.decode([end]) for end in self._ends)
        )
        for special in sorted(self.tokenizer.all_special_tokens, key=len, reverse=True):
            written = written.replace(special, "")
        return Response(prompt, written, tokens, finished)

    def _tokens(self, text: str) -> int:
        """Tokens of a text, special ones that stand in it included; 0 where no term counts them.

        Raises:
            ConfigError: a term counts them, and no tokenizer is named.
        """
        if not self.manager.needs_tokens:
            return 0
        if self.tokenizer is None:
            raise self._no_tokenizer("a term that counts tokens, where texts alone are given")
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _is_end(self, ids: Sequence[int]) -> bool:
        """Whether a response ended by itself; True where no term asks.

        Raises:
            ConfigError: a term asks, and no tokenizer is named.
        """
        if not self.manager.needs_end:
            return True
        if self.tokenizer is None:
            raise self._no_tokenizer("missing_eos: it says which token ends a response")
        return len(ids) > 0 and int(ids[-1]) in self._ends

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The tokens that end a response, as of `train ppo`: the EOS, those of the checkpoint, and the chat template's.

        Raises:
            ModelError, DataError: a chat template, and a tokenizer or a template that says no end.
        """
        ends = answer_ends(self.tokenizer, generation_beside(self.tokenizer))
        if not self.tokenizer.chat_template:
            return ends
        return ends.union(PolicyEncoder(self.tokenizer, PolicyEncoding(form="chat")).end(Prompt.of_text("")))

    @staticmethod
    def _no_tokenizer(purpose: str) -> ConfigError:
        problem = Problem("tokenizer", "nothing", f"{_NEEDS_TOKENIZER}, for {purpose}")
        return ConfigError("The policy's tokenizer is not named", [problem])


def load_rewards(file: str | Path, *, tokenizer: Any = None) -> RewardFunction:
    """The rewards of a YAML file as a reward function.

    Args:
        file: `rewards`, the terms by name, and where they need it `tokenizer`.
        tokenizer: of the policy, loaded; in place of the one that the file names.

    Raises:
        ConfigError: with all problems of the file, or of all terms that cannot be loaded.
        ModelError: no such tokenizer.
    """
    config = Rewards.build(files=[Path(file)])
    if tokenizer is None and config.tokenizer is not None:
        tokenizer = read_tokenizer(config.tokenizer)
    return RewardFunction(load_manager(config.rewards), tokenizer)


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
