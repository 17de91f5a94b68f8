"""Questions with short answers: a judge's endpoint, and all its answers at once, each paid once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

from pydantic import Field
from tqdm import tqdm

from rewardlab.llm.agree import Agreement, Plan
from rewardlab.llm.budget import estimate
from rewardlab.llm.client import LiveClient
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.origins import Origins
from rewardlab.llm.requests import Answer, ChatRequest, Outcome, Result
from rewardlab.llm.shared import shared_ledger
from rewardlab.llm.unanswered import Unanswered, stop_unfinished
from rewardlab.records import Message


class JudgeEndpoint(Endpoint):
    """A chat model that judges, and how it is called; its URL alone stands for an endpoint with that URL."""

    # Where a verdict is cut off its word is mostly there, and a longer one is another request.
    useless: ClassVar[frozenset[Outcome]] = frozenset({"empty", "refused"})

    temperature: float | None = Field(default=0.0, ge=0)
    """Temperature of sampling; null leaves it to the endpoint."""
    max_tokens: int | None = Field(default=16, ge=1)
    """Longest answer, in tokens: more for a model that thinks aloud first. null leaves it to the endpoint."""
    top_logprobs: int = Field(default=20, ge=0, le=20)
    """Ask for the probabilities of so many tokens; 0 for an endpoint that refuses such requests: then the answer's own
    word counts."""

    def question(self, text: str) -> ChatRequest:
        """The request that asks this, with the probabilities of the answer's tokens."""
        request = self.request([Message("user", text)])
        if self.top_logprobs == 0:
            return request
        asked = {**request.parameters, "logprobs": True, "top_logprobs": self.top_logprobs}
        return replace(request, parameters=asked)


class Asked(NamedTuple):
    """A request, and what it is about in a few words, for messages."""

    request: ChatRequest
    about: str


def plan_of(endpoint: Endpoint, questions: Iterable[Asked], ledger: Ledger) -> Plan:
    """What is to be sent for these questions: equal requests once, and nothing that the ledger has an answer to."""
    requests = {one.request.key: one.request for one in questions}
    known = ledger.answers(requests.values())
    missing = [request for key, request in requests.items() if key not in known]
    return Plan(endpoint, estimate(missing, endpoint, ledger), 1, len(ledger.stale(missing)))


def ask_all(
    endpoint: Endpoint,
    questions: Sequence[Asked],
    agreement: Agreement,
    *,
    title: str,
    times: int = 1,
    beside: Sequence[Plan] = (),
    buys: str = "",
    seed: int = 0,
) -> dict[str, Result]:
    """The answers by key of the request, from the ledger where it has them; a failure where the endpoint refuses what
    a request says, or has not answered and nobody minds.

    Args:
        endpoint: whom to ask.
        questions: what; equal requests are sent once.
        agreement: to the cost, asked for where anything is to be sent.
        title: of the bar.
        times: questions like these to come, these included, that the agreement is to cover.
        beside: what else it is to cover.
        buys: a sentence on what all of it is good for.
        seed: of the jitter between tries.

    Raises:
        RunError: declined; the budget is spent; the endpoint is down. What was answered is kept.
        UnfinishedError: another try may bring answers that are missing, and the endpoint is not to go on without.
        ConfigError: the endpoint refuses the key, the model or the URL.
    """
    unique = {one.request.key: one for one in questions}
    unanswered: list[Unanswered] = []
    results: dict[str, Result] = {}
    with shared_ledger() as ledger:
        answers: dict[str, Answer] = ledger.answers(one.request for one in unique.values())
        Origins(endpoint).check(answers.values())
        results |= answers
        missing = [one.request for key, one in unique.items() if key not in answers]
        if missing:
            again = len(ledger.stale(missing))
            agreement.to([Plan(endpoint, estimate(missing, endpoint, ledger), times, again), *beside], buys)
            client = LiveClient(endpoint, ledger, seed)
            for request, result in tqdm(
                client.run(missing), total=len(missing), unit="answer", desc=title, mininterval=0.5
            ):
                results[request.key] = result
                if not isinstance(result, Answer):
                    unanswered.append(Unanswered(result, unique[request.key].about))
    stop_unfinished(endpoint, unanswered)
    return results
