"""The `openai` client, and what its replies mean for a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardlab.errors import ConfigError, InputError, MissingExtraError, Problem, RunError
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.requests import ChatRequest
from rewardlab.llm.wire import error_code, error_words, loads, shown

CHAT_PATH = "/chat/completions"
SHARING = 8
"""Requests under way at once through one client."""
_CONNECT_SECONDS = 10.0
_NO_KEY = "none"
"""Sent where there is no key: the client insists on one, and servers that want none ignore it."""
_OPTIONS = {"headers": {"Content-Type": "application/json"}, "security": {"bearer_auth": True}}
_NOBODY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Reply:
    """What came of a call.

    Attributes:
        status: the HTTP status; None where there was no reply.
        body: its JSON values; None where it is no JSON.
        headers: its headers.
        words: what to say where the body says nothing.
    """

    status: int | None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    words: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def broke(self) -> bool:
        """Whether the account is out of money, which no waiting helps."""
        return self.status == 429 and error_code(self.body) == "insufficient_quota"

    @property
    def may_pass(self) -> bool:
        """Whether the failure may be gone at the next try: of the connection, of load, of the server."""
        return self.status is None or (self.status in (408, 409, 429) and not self.broke) or self.status >= 500

    @property
    def unreached(self) -> bool:
        """Whether the failure says more about the endpoint than about the request."""
        return self.status is None or self.status in _NOBODY

    def reason(self, key: str | None) -> str:
        """One line for a person, without the key."""
        said = shown(error_words(self.body) or self.words, key)
        return ": ".join(filter(None, ["" if self.status is None else f"HTTP {self.status}", said]))


def openai_module() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openai
    except ModuleNotFoundError as error:
        raise MissingExtraError("openai", "llm", "calling a chat model") from error
    return openai


def async_clients(endpoint: Endpoint, key: str | None) -> list[Any]:
    """One `openai.AsyncOpenAI` for every `SHARING` requests under way.

    A pool of connections looks at each of its connections for every request: at 128 in one pool, that takes longer
    than the requests (measured with httpcore2 2.16).
    """
    import httpx2

    openai, options = openai_module(), _options(endpoint, key)
    limits = httpx2.Limits(max_connections=SHARING, max_keepalive_connections=SHARING)
    context = httpx2.create_ssl_context()
    return [
        openai.AsyncOpenAI(
            **options,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=options["timeout"], verify=context),
        )
        for _ in range(-(-endpoint.concurrency // SHARING))
    ]


def sync_client(endpoint: Endpoint, key: str | None) -> Any:
    """An `openai.OpenAI`."""
    return openai_module().OpenAI(**_options(endpoint, key))


def _options(endpoint: Endpoint, key: str | None) -> dict[str, Any]:
    timeout = openai_module().Timeout(endpoint.timeout, connect=min(_CONNECT_SECONDS, endpoint.timeout))
    # Retries are ours.
    return {"base_url": endpoint.url, "api_key": key or _NO_KEY, "max_retries": 0, "timeout": timeout}


async def post(client: Any, request: ChatRequest) -> Reply:
    """Send one request; whatever comes of it is a reply.

    The body is written and read here: the client's own models of it would take most of the time of a call, and a lone
    surrogate in a text, which JSON can hold as an escape, would stop them.
    """
    import httpx2

    content = json.dumps(request.body()).encode("ascii")
    try:
        response = await client.post(CHAT_PATH, cast_to=httpx2.Response, content=content, options=_OPTIONS)
    except openai_module().APIError as error:
        return reply_of(error)
    body = loads(response.content)
    return Reply(response.status_code, body, response.headers, "" if body is not None else response.text)


def reply_of(error: Any) -> Reply:
    """The reply in an `openai.APIError`."""
    openai = openai_module()
    if isinstance(error, openai.APIStatusError):
        response = error.response
        return Reply(error.status_code, loads(response.content), response.headers, response.text)
    cause = error.__cause__
    detail = type(cause).__name__ if cause is not None and not str(cause) else str(cause or "")
    return Reply(None, words=f"{error.message} {detail}".strip())


def refusal_of(reply: Reply, endpoint: Endpoint, key: str | None) -> InputError | None:
    """The error that ends a run at once, where every further request would meet it too; None for any other reply."""
    found = reply.reason(key)
    if reply.status == 401:
        known = f"the key in {endpoint.key_variable}" if key else f"no key: {endpoint.key_variable} is not set"
        remedy = f"Put a key that {endpoint.url} takes into the environment or into .env as {endpoint.key_variable}."
        problem = Problem("endpoint.key_variable", f"{known} ({found})", "a key that the endpoint takes", remedy)
    elif reply.status == 403:
        known = f"the key in {endpoint.key_variable}" if key else f"no key: {endpoint.key_variable} is not set"
        expected = f"a key that may use the model {endpoint.model} at {endpoint.url}"
        problem = Problem("endpoint.key_variable", f"{known} ({found})", expected)
    elif reply.status == 404:
        expected = f"an endpoint at {endpoint.url} with the model {endpoint.model}"
        problem = Problem("endpoint.url, endpoint.model", found, expected, "The URL mostly ends in /v1.")
    elif reply.broke:
        remedy = "Every answer so far is kept. Start again when the account has been topped up."
        return RunError("the account is out of credit", [Problem(endpoint.url, found, "credit", remedy)])
    else:
        return None
    return ConfigError("the endpoint refuses every request; what was answered is kept", [problem])


class OutageError(RunError):
    """The endpoint does not answer; what it has done with the last request is not known."""


def outage(endpoint: Endpoint, reason: str) -> OutageError:
    """The error of an endpoint that answers nothing."""
    remedy = "Every answer so far is kept. Start again when it is up."
    expected = f"an endpoint that answers within {endpoint.max_retries + 1} tries"
    return OutageError("the endpoint does not answer", [Problem(endpoint.url, reason, expected, remedy)])
