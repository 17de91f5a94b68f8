"""The calls of the Batch API, each tried again where that may help and cannot pay twice."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from rewardlab.errors import ConfigError, Problem, RunError
from rewardlab.llm.batch_files import CHAT_ENDPOINT, request_line
from rewardlab.llm.connection import Reply, openai_module, outage, refusal_of, reply_of, sync_client
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.pace import backoff
from rewardlab.llm.requests import ChatRequest
from rewardlab.llm.wire import error_code, shown

log = logging.getLogger("rewardlab")

_MARK = "rewardlab"
"""The name of our token in a batch's metadata."""
_CLOCKS_APART_SECONDS = 24 * 3600.0
"""By which the endpoint's clock may differ from ours."""
_PAGE = 100
_QUEUE_FULL = "token_limit_exceeded"
KNOWN_STATUSES = frozenset(
    {"validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"}
)
"""By the documentation of the Batch API."""

T = TypeVar("T")


class BatchApi:
    """An endpoint's batches.

    Args:
        endpoint: where they are.
        key: the key, if there is one.
        generator: of the jitter between tries.
    """

    def __init__(self, endpoint: Endpoint, key: str | None, generator: random.Random) -> None:
        self._endpoint, self._key, self._generator = endpoint, key, generator
        self._client = sync_client(endpoint, key)
        self._missed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def upload(self, requests: Sequence[ChatRequest], token: str) -> str:
        """Hand over the file of requests; its id. Nothing is paid for a file."""
        content = b"".join(map(request_line, requests))
        file = (f"{token}.jsonl", content)
        return str(self._call(lambda: self._client.files.create(file=file, purpose="batch")).id)

    def create(self, file_id: str, token: str) -> str | None:
        """Make a batch of a file; its id, None where nobody knows whether it was made."""

        def make() -> Any:
            return self._client.batches.create(
                completion_window="24h", endpoint=CHAT_ENDPOINT, input_file_id=file_id, metadata={_MARK: token}
            )

        try:
            # Too many requests: this one was not looked at. Of any other failure we cannot know.
            return str(self._call(make, again=lambda reply: reply.status == 429).id)
        except _UnknownError as error:
            log.warning("Whether a batch was made is not known (%s); it will be looked for", error.reason)
            return None

    def find(self, token: str, since: float) -> str | None:
        """The id of the batch that was made with a token, not earlier than a time in seconds since 1970."""

        def search() -> str | None:
            # Newest first.
            for batch in self._client.batches.list(limit=_PAGE):
                if (batch.metadata or {}).get(_MARK) == token:
                    return str(batch.id)
                if batch.created_at < since - _CLOCKS_APART_SECONDS:
                    break
            return None

        return self._call(search)

    def look(self, name: str) -> Any:
        """The batch as it is now, None where the endpoint cannot be reached: it may be, the next time."""
        try:
            batch = self._call(lambda: self._client.batches.retrieve(name), again=lambda _: False, missing=name)
        except _UnknownError as error:
            self._missed += 1
            if self._missed > self._endpoint.max_retries:
                raise outage(self._endpoint, error.reason) from None
            log.warning("No news of batch %s: %s", name, error.reason)
            return None
        self._missed = 0
        return batch

    def lines(self, file_id: str) -> list[bytes]:
        """The lines of a file of results. Only a line feed ends one: texts may hold U+2028 and its like."""
        content = self._call(lambda: self._client.files.content(file_id), missing=file_id).content
        return [line for line in content.split(b"\n") if line.strip()]

    def _call(self, call: Callable[[], T], *, again: Callable[[Reply], bool] | None = None, missing: str = "") -> T:
        """Call, and try again.

        Args:
            again: whether a failure that may pass is worth, and safe for, another try; None for always.
            missing: what is not there, if a thing is not there.

        Raises:
            ConfigError: the endpoint refuses the key, or has no Batch API.
            RunError: it refuses this call, or does not answer.
            _UnknownError: a failure that may pass, where there is no other try.
        """
        for attempt in itertools.count(1):
            try:
                return call()
            except openai_module().APIError as error:
                reply = reply_of(error)
            # Out here, errors of ours do not carry the client's, which holds the headers and so the key.
            reason = reply.reason(self._key)
            if not reply.may_pass:
                raise self._refusal(reply, missing)
            if again is not None and not again(reply):
                raise _UnknownError(reason)
            if attempt > self._endpoint.max_retries:
                raise outage(self._endpoint, f"{reason}, after {attempt} tries")
            time.sleep((reply.asked(self._endpoint, self._key) or 0.0) + backoff(attempt, self._generator))
        raise AssertionError  # The tries never run out by themselves.

    def _refusal(self, reply: Reply, missing: str) -> Exception:
        reason = reply.reason(self._key)
        if reply.status == 404 and missing:
            remedy = (
                "Use the URL and the key that the batch was made with. If it is gone for good, "
                "Ledger(path).release(batch, reason) sets its requests free to be paid again."
            )
            return RunError("a batch cannot be read", [Problem(missing, reason, "what was made there", remedy)])
        if reply.status == 404:
            expected, remedy = "an endpoint with the Batch API (/files and /batches)", "Send the requests one by one."
            return ConfigError("the endpoint takes no batches", [Problem("endpoint.url", reason, expected, remedy)])
        if error_code(reply.body) == _QUEUE_FULL:
            return _queue_full(self._endpoint.url, reason)
        if reply.final or reply.status == 403:
            return refusal_of(reply, self._endpoint, self._key)
        problem = Problem(self._endpoint.url, reason, "a batch that the endpoint takes", "Every answer so far is kept.")
        return RunError("the endpoint refuses a batch", [problem])


class QueueFullError(RunError):
    """The account's batches under way hold as many tokens as they may: this one may be taken when others have ended."""


def _queue_full(where: str, reason: str) -> QueueFullError:
    remedy = "Start again when other batches of the account have ended, or send fewer requests at once."
    return QueueFullError("the endpoint takes no more batches now", [Problem(where, reason, "room for one", remedy)])


class _UnknownError(Exception):
    """A call of which nobody knows whether it was carried out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def validation_error(batch: Any, key: str | None) -> RunError:
    """The error of a batch that failed as a whole; no message shows the key."""
    found = (batch.errors.data if batch.errors else None) or []
    where = f"batch {batch.id}"
    problems = [
        Problem(
            where + (f", line {one.line}" if one.line else ""),
            shown(": ".join(filter(None, [one.code, one.message])), key),
            "a batch that passes the endpoint's validation",
        )
        for one in found
    ]
    if any(one.code == _QUEUE_FULL for one in found):
        return _queue_full(where, problems[0].found)
    nothing = [Problem(where, "no reason given", "a batch that passes the endpoint's validation")]
    summary = "the endpoint has refused a batch; what it has answered is kept, and other batches go on"
    return RunError(summary, problems or nothing)
