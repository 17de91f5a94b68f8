"""Rewrites by a causal language model in this process: a chat client that needs no endpoint.

Every answer goes into the ledger, at no cost: a run that was killed, or is repeated, generates only what is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field

from rewardlab.config import Config
from rewardlab.errors import ModelError, Problem
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.requests import Answer, ChatRequest, Failure, Follow, Result, no_follow
from rewardlab.models.decoding import Decoding
from rewardlab.models.generate import Asked, Generated, generate
from rewardlab.models.language import LanguageModel, load_language_model
from rewardlab.models.loading import context_length
from rewardlab.models.memory import is_out_of_memory, keep_freed_memory
from rewardlab.models.source import ModelSource, Precision, torch_device
from rewardlab.records import Message, content_id
from rewardlab.store.keys import source_digests

log = logging.getLogger("rewardlab")

CPU_BUDGET, ACCELERATOR_BUDGET = 8192, 65536
_STEP = 32
"""Prompts near the end of the context share the room of the next multiple, so that they can share a batch."""


class LocalModel(Config):
    """A causal language model, best one that was trained to follow instructions; its path alone stands for it."""

    text_field: ClassVar[str] = "path"

    path: str
    """Folder or hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Only for sources you trust."""

    temperature: float = Field(0.7, ge=0)
    """Temperature of sampling; 0 takes the likeliest token everywhere."""

    max_tokens: int = Field(1024, ge=1)
    """Longest answer, in tokens; one that reaches it is cut off and not used."""

    template_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further arguments of the chat template: enable_thinking, where a model would think aloud."""

    precision: Precision = "auto"
    """dtype of the weights; auto keeps the checkpoint's."""

    device: str = "auto"
    """cpu, cuda, mps or auto."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens per batch, prompts and longest answers together. Default: 8,192 on a CPU, 65,536 elsewhere."""


class _Waiting(NamedTuple):
    """A request that has no answer yet.

    Attributes:
        request: it.
        ids: tokens of its prompt.
        most: tokens of its answer, at most; hangs on the prompt alone, never on the batch.
    """

    request: ChatRequest
    ids: tuple[int, ...]
    most: int


class LocalClient:
    """A `ChatClient` whose model computes in this process, and the `ChatModel` of its requests.

    Args:
        config: which model, and how it answers.
        ledger: what has been answered.
        seed: of sampling; an answer hangs on it, on the model, the messages and the draw.

    Raises:
        ModelError: the model cannot be loaded, or the device is not there.
    """

    def __init__(self, config: LocalModel, ledger: Ledger, seed: int = 0) -> None:
        keep_freed_memory()
        source = ModelSource(path=config.path, revision=config.revision, trust_remote_code=config.trust_remote_code)
        device = torch_device(config.device)
        self._config, self._ledger, self._seed = config, ledger, seed
        self._language = load_language_model(source, device=device, precision=config.precision)
        self._context = context_length(self._language.network)
        self._budget = config.token_budget or (CPU_BUDGET if device == "cpu" else ACCELERATOR_BUDGET)
        self.model = _identity(config.path, self._language)

    def request(self, messages: Sequence[Message], draw: int = 0) -> ChatRequest:
        """The request that asks this model."""
        sampling: dict[str, Any] = {"temperature": self._config.temperature, "max_tokens": self._config.max_tokens}
        if self._config.temperature > 0.0:
            sampling["seed"] = self._seed
        if self._config.template_options:
            sampling["template_options"] = self._config.template_options
        return ChatRequest(self.model, tuple(messages), sampling, draw)

    def run(self, requests: Sequence[ChatRequest], follow: Follow = no_follow) -> Iterator[tuple[ChatRequest, Result]]:
        """See `ChatClient.run`. Long prompts come first: where memory does not suffice, that shows at the beginning."""
        waiting: list[_Waiting] = []
        seen: set[str] = set()
        yield from self._take_in(requests, follow, waiting, seen)
        while waiting:
            batch = self._next_batch(waiting)
            answers = self._answers(batch)
            for one, answer in zip(batch, answers, strict=True):
                self._ledger.answer(one.request, answer)
            following: list[ChatRequest] = []
            for one, answer in zip(batch, answers, strict=True):
                following += follow(one.request, answer)
                yield one.request, answer
            yield from self._take_in(following, follow, waiting, seen)

    def _take_in(
        self, requests: Sequence[ChatRequest], follow: Follow, waiting: list[_Waiting], seen: set[str]
    ) -> Iterator[tuple[ChatRequest, Result]]:
        """Those that are answered already, or never can be, and what follows on them; the others wait."""
        wave = list(requests)
        while new := {one.key: one for one in wave if one.key not in seen}:
            seen |= new.keys()
            answers = self._ledger.answers(new.values())
            wave = []
            for key, request in new.items():
                if key in answers:
                    wave += follow(request, answers[key])
                    yield request, answers[key]
                    continue
                ids = self._ids(request)
                most = self._most(len(ids))
                if most >= 1:
                    waiting.append(_Waiting(request, ids, most))
                else:
                    failure = Failure(f"a prompt of {len(ids)} tokens; the model has room for {self._context} in all")
                    self._ledger.fail(request, failure.reason)
                    yield request, failure

    def _next_batch(self, waiting: list[_Waiting]) -> list[_Waiting]:
        """Take a batch out of what waits: prompts of like length, with equally much room for the answer."""
        waiting.sort(key=lambda one: (one.most, -len(one.ids), one.request.key))
        first = waiting[0]
        size = max(1, self._budget // (len(first.ids) + first.most))
        batch = [one for one in waiting[:size] if one.most == first.most]
        del waiting[: len(batch)]
        return batch

    def _answers(self, batch: Sequence[_Waiting]) -> list[Answer]:
        """Answers of a batch; where memory runs out, of one half at a time.

        Raises:
            ModelError: one prompt alone does not fit into memory.
        """
        # An answer's chance is that of its request's key, whatever the batch.
        rows = [Asked(one.ids, one.most, int(one.request.key, 16)) for one in batch]
        language, decoding = self._language, Decoding(self._config.temperature)
        pad = language.tokenizer.pad_token_id or 0
        try:
            found = generate(language.network, rows, decoding, ends=language.ends, pad=pad)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                said = f"out of memory with a prompt of {len(rows[0].ids)} tokens and {batch[0].most} to come"
                remedy = "Use precision bfloat16, a smaller max_tokens or another device."
                problem = Problem(self.model, said, "memory for one answer", remedy)
                raise ModelError("The model does not fit into memory", [problem]) from error
        else:
            return [self._answer(one, made) for one, made in zip(batch, found, strict=True)]
        # Out here the error and the activations that its frames hold are gone.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: repeated in halves of %d prompts; token_budget sets it for all", len(batch) // 2)
        half = len(batch) // 2
        return self._answers(batch[:half]) + self._answers(batch[half:])

    def _answer(self, asked: _Waiting, made: Generated) -> Answer:
        text = self._language.tokenizer.decode(made.ids, skip_special_tokens=True)
        reason = "stop" if made.ended else "length"
        return Answer(text, reason, prompt_tokens=len(asked.ids), completion_tokens=len(made.tokens))

    def _ids(self, request: ChatRequest) -> tuple[int, ...]:
        """The prompt as the chat template has it; without one, its text and an empty line.

        Raises:
            ModelError: the chat template refuses it.
        """
        tokenizer = self._language.tokenizer
        if not tokenizer.chat_template:
            text = "\n\n".join(message.content for message in request.messages)
            return tuple(tokenizer(f"{text}\n\n").input_ids)
        messages = [message.as_dict() for message in request.messages]
        try:
            options = self._config.template_options
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        except Exception as error:  # a template is a program of its own: it can raise anything
            found = f"{type(error).__name__}: {str(error)[:200]}"
            problem = Problem(self._config.path, found, "a chat template that takes the message of a user")
            raise ModelError("The chat template of the tokenizer refuses a request", [problem]) from error
        return tuple(tokenizer(text, add_special_tokens=False).input_ids)

    def _most(self, prompt: int) -> int:
        """Tokens of the answer to a prompt of so many tokens, at most."""
        if self._context is None:
            return self._config.max_tokens
        return min(self._config.max_tokens, self._context - -(-prompt // _STEP) * _STEP)


def _identity(path: str, language: LanguageModel) -> str:
    """Name of the folder or hub id, and a hash of everything but the request that an answer depends on."""
    content = source_digests(language.sources)
    name = Path(path).resolve().name if Path(path).is_dir() else path
    return f"{name}@{content_id([*content, str(language.network.dtype)])[:12]}"
