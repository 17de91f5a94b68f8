"""Completions by a chat model behind an OpenAI-compatible endpoint, each paid once: a draw is a request of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from rewardlab.llm.agree import Agreement
from rewardlab.llm.asking import Asked, ask_all
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.requests import Answer, ChatRequest, Outcome, Result
from rewardlab.models.decoding import Decoding
from rewardlab.records import TEXT_ROLE, Message, Prompt
from rewardlab.sample.drawn import Drawn, seed_of

_LONGEST = "max_completion_tokens"
_SEEDS = 2**31
"""Seeds that every server takes: some keep them in 32 bits, with a sign."""
_WARPING = ("top_p", "top_k", "repetition_penalty")


class PolicyEndpoint(Endpoint):
    """A chat model that is sampled from, and how it is called; its URL alone stands for an endpoint with that URL."""

    # What was cut off is a sample like any other.
    useless: ClassVar[frozenset[Outcome]] = frozenset({"empty", "refused"})

    temperature: float | None = None
    """Not here: the stage's own holds."""
    max_tokens: int | None = None
    """Not here: the stage's `max_new_tokens` holds."""
    seed: int | None = Field(default=None, ge=0)
    """Of all chance, for endpoints that take a seed: every completion is asked for with one of its own, made from this
    number, the prompt and the completion's number."""

    @model_validator(mode="after")
    def _leaves_sampling_to_the_stage(self) -> Self:
        own = [name for name in ("temperature", "max_tokens") if getattr(self, name) is not None]
        own += [f"parameters.{name}" for name in _WARPING if name in self.parameters]
        if own:
            raise ValueError(f"expected no {' or '.join(own)} here: how tokens are chosen is said beside the endpoint")
        return self

    def draw(self, prompt: Prompt, draw: int, most: int, decoding: Decoding) -> ChatRequest:
        """The request for one completion; a plain text is a user's turn."""
        messages = [Message("user" if one.role == TEXT_ROLE else one.role, one.content) for one in prompt.messages]
        plain = Decoding()
        given: dict[str, Any] = {"temperature": decoding.temperature}
        given |= {} if _LONGEST in self.parameters else {"max_tokens": most}
        # Servers of open models know the last two by these names; OpenAI's does not have them.
        for name in _WARPING:
            if getattr(decoding, name) != getattr(plain, name):
                given[name] = getattr(decoding, name)
        if self.seed is not None:
            given["seed"] = seed_of(prompt, self.seed, draw) % _SEEDS
        request = self.request(messages, draw)
        return replace(request, parameters={**request.parameters, **given})


def draw_from(
    endpoint: PolicyEndpoint, prompts: Sequence[Prompt], count: int, most: int, decoding: Decoding, *, yes: bool
) -> tuple[list[Drawn], dict[str, int]]:
    """Completions of all prompts in their order, and why others are missing: reason → how many.

    Args:
        endpoint: whom to ask.
        prompts: of what.
        count: completions of each.
        most: tokens of one, at most.
        decoding: how tokens are chosen.
        yes: the cost is agreed to already.

    Raises:
        RunError, UnfinishedError, ConfigError: see `ask_all`; what was answered is kept.
    """
    requests = [[endpoint.draw(prompt, draw, most, decoding) for draw in range(count)] for prompt in prompts]
    questions = [
        Asked(request, f"prompt {prompt.id}, completion {draw}")
        for prompt, own in zip(prompts, requests, strict=True)
        for draw, request in enumerate(own)
    ]
    results = ask_all(endpoint, questions, Agreement(yes), title="sample", buys="They are completions of the prompts.")
    found = [[results[request.key] for request in own] for own in requests]
    missing = Counter(one.reason for own in found for one in own if not isinstance(one, Answer))
    return [_drawn(own) for own in found], dict(missing.most_common())


def _drawn(results: Sequence[Result]) -> Drawn:
    answers = [one for one in results if isinstance(one, Answer)]
    return Drawn(
        tuple(one.text or "" for one in answers),
        tuple("refusal" if one.refusal else one.finish_reason for one in answers),
        tuple(one.completion_tokens or None for one in answers),
    )
