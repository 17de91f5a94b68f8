"""A chat model behind an OpenAI-compatible endpoint: where it is, how it samples, how fast and how dear it may be."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rewardlab.config import Config, mismatch
from rewardlab.llm.requests import ChatRequest, Outcome
from rewardlab.records import Message

# Upper case only: what is pasted here by mistake is mostly the key itself, and keys are not of this form.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OURS = {
    "model": "a field of its own",
    "messages": "what is asked",
    "temperature": "a field of its own",
    "max_tokens": "a field of its own",
    "seed": "a field of its own",
    "n": "one answer a request: draws are requests of their own",
    "stream": "whole answers",
    "draw": "no parameter of an endpoint",
}
_PER = 1e6
OPENAI_KEY, _OPENAI_HOST = "OPENAI_API_KEY", "api.openai.com"


class Prices(Config):
    """What tokens cost, in any one currency."""

    prompt: float = Field(ge=0)
    """Price of a million prompt tokens."""
    completion: float = Field(ge=0)
    """Price of a million completion tokens."""
    batch_share: float = Field(default=0.5, ge=0, le=1)
    """The part of these prices that a request in a batch costs."""

    def cost(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """Of that many tokens."""
        live = (prompt_tokens * self.prompt + completion_tokens * self.completion) / _PER
        return live * self.batch_share if batch else live


class Budget(Config):
    """The most that one run may spend. What it has paid for is kept, and the next run goes on from there."""

    cost: float | None = Field(default=None, gt=0)
    """Cost of the answers, at the prices given."""
    requests: int | None = Field(default=None, ge=1)
    """Requests sent, not counting retries."""


class Endpoint(Config):
    """A chat model and how it is called; its URL alone stands for an endpoint with that URL."""

    text_field: ClassVar[str] = "url"
    useless: ClassVar[frozenset[Outcome]] = frozenset({"empty", "refused", "truncated"})
    """Outcomes that `ask_again` asks for again."""

    url: str
    """Base URL, mostly ending in /v1: of a local server, or https://api.openai.com/v1."""
    model: str = Field(default="gpt-4o-2024-08-06", min_length=1)
    """The model, as the endpoint calls it."""
    key_variable: str | None = None
    """Name of the variable, in the environment or in a .env file here, that holds the key; a server that wants no key
    needs none. Default: OPENAI_API_KEY where the URL is OpenAI's or of a private network; nobody else is sent it."""
    temperature: float | None = Field(default=0.7, ge=0)
    """Temperature of sampling; null leaves it to the endpoint."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens; null leaves it to the endpoint."""
    seed: int | None = None
    """Seed of sampling, for endpoints that take one."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of every request, as the endpoint calls them (top_p, max_completion_tokens, ...)."""
    concurrency: int = Field(default=32, ge=1, le=1000)
    """Most requests under way at once."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Rate limit; null for none."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Rate limit of prompt and completion tokens; null for none."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds to wait for an answer."""
    max_retries: int = Field(default=6, ge=0)
    """How often a request is sent again after a failure that may pass."""
    prices: Prices | None = None
    """What tokens cost; needed for estimates of the cost and for a budget of it."""
    budget: Budget = Budget()
    """The most that one run may spend."""
    ask_again: bool = False
    """Ask once more for answers that an earlier run has paid for and that are of no use: empty, refused or cut off.
    They stay paid, and the new ones are paid for too."""
    accept_failures: bool = False
    """Go on without what has no answer after all tries (rate limits, lost connections, errors of the server). Without
    it the run asks everything else, then stops unfinished, and --resume asks for the rest."""

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = [f"no {name} ({_OURS[name]})" for name in value if name in _OURS]
        if taken:
            raise ValueError(", ".join(taken))
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError("values that JSON can hold") from error
        return value

    # In words, since a message that shows the value may show a secret here.
    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = _split(self.url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise mismatch("another form", "url to be an http:// or https:// address, such as http://localhost:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            expected = "url without a user, password, ? or #: name the variable that holds the key instead"
            raise mismatch("more than an address", expected)
        if self.key_variable is not None and not _VARIABLE.fullmatch(self.key_variable):
            raise mismatch(
                "no such name", "key_variable to be the name of a variable (A-Z, 0-9, _), never the key itself"
            )
        if self.budget.cost is not None and self.prices is None:
            raise ValueError("prices where there is a budget of cost")
        return self

    @property
    def variable(self) -> str | None:
        """The variable of the key; None where no key is to be sent."""
        return self.key_variable or (OPENAI_KEY if _may_have_openai_key(self.url) else None)

    @property
    def needs_key(self) -> bool:
        """Whether nothing can come of a call without a key."""
        return self.key_variable is not None or _host(self.url) == _OPENAI_HOST

    def request(self, messages: Sequence[Message], draw: int = 0) -> ChatRequest:
        """The request that asks this model."""
        sampling = {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed}
        given = {name: value for name, value in sampling.items() if value is not None}
        again = self.useless if self.ask_again else frozenset()
        return ChatRequest(self.model, tuple(messages), {**given, **self.parameters}, draw, again)

    def cost(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """Of that many tokens; 0 without prices."""
        return self.prices.cost(prompt_tokens, completion_tokens, batch=batch) if self.prices else 0.0


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".")


def _may_have_openai_key(url: str) -> bool:
    host = _host(url)
    if host in (_OPENAI_HOST, "localhost") or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
