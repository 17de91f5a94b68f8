"""Before money is spent: what it will be, and whether to go on."""

from __future__ import annotations

import sys

from rewardlab.errors import Problem, RunError
from rewardlab.llm.budget import Expected
from rewardlab.llm.endpoint import Endpoint


def agree(endpoint: Endpoint, expected: Expected, *, yes: bool, times: int = 1, buys: str = "") -> None:
    """Say what is about to be sent, and ask.

    Args:
        endpoint: whom it is sent to.
        expected: what the requests that are known take.
        yes: it is agreed to already.
        times: how often as much: requests that follow from answers are about as long as the first.
        buys: a sentence on what it is good for.

    Raises:
        RunError: declined, or nobody there to be asked.
    """
    if expected.requests == 0:
        return
    tokens = (expected.prompt_tokens + expected.completion_tokens) * times
    money = "at a price unknown (the endpoint's prices.prompt and prices.completion tell it)"
    if expected.cost is not None:
        money = f"for about {expected.cost * times:,.2f}"
    sys.stderr.write(
        f"At most {expected.requests * times:,} requests to {endpoint.model}, about {tokens:,} tokens, {money}.\n"
    )
    if buys:
        sys.stderr.write(f"{buys}\n")
    if yes:
        return
    remedy = "Nothing was sent. Add --yes to send without being asked."
    if not sys.stdin.isatty():
        raise RunError("not agreed to", [Problem("yes", "nobody to ask", "--yes", remedy)])
    sys.stderr.write("Send them? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RunError("not agreed to", [Problem("yes", "no", "yes", remedy)])
