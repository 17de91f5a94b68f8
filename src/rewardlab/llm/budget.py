"""What requests will cost, before they are sent, and the budget that they are held to.

Rule of the estimate: a token is four characters (OpenAI's rule of thumb for English), and an answer is as long as its
prompt, since a rewrite is about as long as its text; never longer than the longest answer asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from rewardlab.errors import Problem, RunError
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.requests import Answer, ChatRequest

log = logging.getLogger("rewardlab")

CHARACTERS_PER_TOKEN = 4
_LONGEST = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Expected:
    """What requests are expected to take.

    Attributes:
        requests: how many are to be sent: each once, without those that the ledger has an answer to or a batch under
            way for.
        prompt_tokens, completion_tokens: theirs together.
        cost: at the endpoint's prices; None without prices.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __add__(self, other: Expected) -> Expected:
        """Both together; at no known cost where one has none."""
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        prompt, completion = self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens
        return Expected(self.requests + other.requests, prompt, completion, cost)

    def times(self, count: int) -> Expected:
        """So often as much."""
        cost = None if self.cost is None else self.cost * count
        return Expected(self.requests * count, self.prompt_tokens * count, self.completion_tokens * count, cost)


def expected_tokens(request: ChatRequest) -> tuple[int, int]:
    """Tokens of the prompt, each message rounded up, and of the answer, as expected of one request."""
    prompt = sum(-(-len(message.content) // CHARACTERS_PER_TOKEN) for message in request.messages)
    limits = [request.parameters.get(name) for name in _LONGEST]
    return prompt, min([prompt, *(limit for limit in limits if isinstance(limit, int))])


def estimate(
    requests: Sequence[ChatRequest],
    endpoint: Endpoint,
    ledger: Ledger | None = None,
    *,
    batch: bool = False,
) -> Expected:
    """What is still to be paid for requests.

    Args:
        requests: all that are wanted.
        endpoint: its prices.
        ledger: of what is paid; None for nothing.
        batch: whether they go in batches, at the price of batches.
    """
    unpaid = list({one.key: one for one in requests}.values()) if ledger is None else ledger.missing(requests)
    tokens = [expected_tokens(request) for request in unpaid]
    prompt, completion = sum(one for one, _ in tokens), sum(other for _, other in tokens)
    cost = endpoint.cost(prompt, completion, batch=batch) if endpoint.prices else None
    return Expected(len(unpaid), prompt, completion, cost)


class Purse:
    """What one run has spent of its budget, and what it has promised to requests under way.

    The cost of an answer is known when it is there, so a run may pass its budget by as much as the answers under way
    turn out dearer than expected.

    Attributes:
        requests: how many were sent, not counting retries.
        cost: of the answers to them.
        answers, prompt_tokens, completion_tokens, paid: of all that has come, sent by this run or an earlier one, as
            the endpoint counts tokens.
    """

    def __init__(self, endpoint: Endpoint, *, batch: bool = False) -> None:
        self._endpoint, self._batch = endpoint, batch
        self.cost = 0.0
        self.answers, self.prompt_tokens, self.completion_tokens, self.paid = 0, 0, 0, 0.0
        self._sent: set[str] = set()
        self._promised: dict[str, float] = {}
        self._promises = 0.0

    @property
    def requests(self) -> int:
        """How many were sent."""
        return len(self._sent)

    def take(self, request: ChatRequest) -> bool:
        """Promise a request what it is expected to cost, if that is there."""
        budget = self._endpoint.budget
        expected = self._endpoint.cost(*expected_tokens(request), batch=self._batch)
        if budget.requests is not None and request.key not in self._sent and self.requests >= budget.requests:
            return False
        if budget.cost is not None and self.cost + self._promises + expected > budget.cost:
            return False
        self._sent.add(request.key)
        self._promised[request.key] = expected
        self._promises += expected
        return True

    def settle(self, request: ChatRequest, answer: Answer | None) -> None:
        """Replace a promise by what the answer cost, as expected where the endpoint counts no tokens; None for none."""
        if answer is not None:
            self.answers += 1
            self.prompt_tokens += answer.prompt_tokens
            self.completion_tokens += answer.completion_tokens
            self.paid += answer.cost
        if request.key not in self._promised:
            return
        expected = self._promised.pop(request.key)
        self._promises -= expected
        if answer is not None:
            self.cost += answer.cost if answer.prompt_tokens or answer.completion_tokens else expected

    def report(self) -> None:
        """Say what has come, and what it cost."""
        cost = f" for {self.paid:,.2f}" if self._endpoint.prices else ""
        log.info(
            "%d new answers of %s: %d prompt and %d completion tokens%s",
            self.answers,
            self._endpoint.model,
            self.prompt_tokens,
            self.completion_tokens,
            cost,
        )

    def spent(self) -> RunError:
        """The error of a budget that does not reach."""
        budget = self._endpoint.budget
        limits = [f"{budget.requests} requests"] if budget.requests is not None else []
        limits += [f"a cost of {budget.cost:g}"] if budget.cost is not None else []
        found = f"{self.requests} requests sent at a cost of {self.cost:.4g}, and more to send"
        remedy = "Every answer is kept. Start again to spend as much once more, or raise the budget."
        return RunError(
            "the budget is spent", [Problem("endpoint.budget", found, f"at most {' and '.join(limits)}", remedy)]
        )
