"""A reward model behind HTTP, in the form that OpenRLHF asks its remote reward models in.

    POST {"query": [prompt and response as one text, ...], "prompts": [prompt, ...], "labels": ["", ...]}
    200  {"rewards": [number, ...]}

The server sees text alone: plain prompts as they stand, conversations as plain transcripts (`data.render`).
Source: openrlhf/utils/agent.py (`SingleTurnAgentExecutor`) and openrlhf/cli/serve_rm.py of OpenRLHF/OpenRLHF on GitHub.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import random
import time
from collections.abc import Sequence
from numbers import Real
from urllib.parse import SplitResult, urlsplit

from rewardlab.data.render import plain_text, render
from rewardlab.errors import Problem, RunError
from rewardlab.llm.connection import Reply
from rewardlab.llm.pace import backoff, retry_after
from rewardlab.llm.wire import loads, shown
from rewardlab.records import Response

log = logging.getLogger("rewardlab")

EXPECTED_FORM = "an http:// or https:// address, such as http://localhost:5000/get_reward"


def address(url: str) -> SplitResult | None:
    """The parts of a URL that a reward can be asked from; None of any other text."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    is_plain = parts.username is None and parts.password is None and not parts.fragment
    return parts if parts.scheme in ("http", "https") and parts.hostname and is_plain else None


class RemoteReward:
    """Rewards from a server.

    Args:
        url: where requests go.
        timeout: seconds to wait for an answer.
        tries: of a request, the first one included, where a failure may pass (no connection, load, errors there).
        batch_size: responses to a request, at most.
    """

    def __init__(self, url: str, *, timeout: float, tries: int, batch_size: int) -> None:
        self.url = url
        self.timeout = timeout
        self.tries = tries
        self.batch_size = batch_size
        # When to try again changes no reward.
        self._generator = random.Random(0)

    def rewards(self, responses: Sequence[Response]) -> list[float]:
        """One reward per response, in the order given.

        Raises:
            RunError: the server does not answer, refuses, or answers something else than a number per response.
        """
        starts = range(0, len(responses), self.batch_size)
        return [reward for start in starts for reward in self._batch(responses[start : start + self.batch_size])]

    def _batch(self, responses: Sequence[Response]) -> list[float]:
        asked = [plain_text(response.prompt) for response in responses]
        whole = [render(response.prompt, response.text).text for response in responses]
        content = json.dumps({"query": whole, "prompts": asked, "labels": [""] * len(responses)}).encode("ascii")
        reply = self._answer(content)
        given = reply.body.get("rewards") if isinstance(reply.body, dict) else None
        expected = f'{{"rewards": [...]}} with a finite number for each of {len(responses)} queries'
        if not isinstance(given, list) or len(given) != len(responses):
            found = f"{len(given)} rewards" if isinstance(given, list) else shown(reply.words) or "nothing"
            raise RunError("The reward server's answer cannot be used", [Problem(self.url, found, expected)])
        wrong = [
            Problem(f"{self.url}, reward {number}", repr(value)[:100], "a finite number")
            for number, value in enumerate(given)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(float(value))
        ]
        if wrong:
            raise RunError("The reward server gives rewards that are no numbers", wrong)
        return [float(value) for value in given]

    def _answer(self, content: bytes) -> Reply:
        """The first reply that is no failure.

        Raises:
            RunError: there is none in all tries, or one that no further try would mend.
        """
        for attempt in range(1, self.tries + 1):
            reply = self._post(content)
            if reply.ok:
                return reply
            if not reply.may_pass or attempt == self.tries:
                break
            seconds = retry_after(reply.headers)
            seconds = backoff(attempt, self._generator) if seconds is None else min(seconds, self.timeout)
            log.warning("%s: %s; asked again in %.1f s", self.url, reply.reason(None), seconds)
            time.sleep(seconds)
        tried = f" after {attempt} tries" if attempt > 1 else ""
        problem = Problem(
            self.url,
            f"{reply.reason(None)}{tried}",
            "a server of rewards",
            "Is it up, and is its path right (mostly /get_reward)?",
        )
        raise RunError("The reward server does not answer", [problem])

    def _post(self, content: bytes) -> Reply:
        """Send one request; whatever comes of it is a reply."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            return Reply(None, words=f"{type(error).__name__}: {error}")
        finally:
            connection.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, loads(body), headers, body[:1000].decode("utf-8", "replace"))
