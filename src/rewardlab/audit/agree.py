"""Before money is spent: what it will be, what it will buy, and whether to go on."""

from __future__ import annotations

import math
import sys

from rewardlab.errors import Problem, RunError
from rewardlab.llm.budget import Expected
from rewardlab.llm.endpoint import Endpoint

_NORMAL_95 = 1.96


def agree(endpoint: Endpoint, first: Expected, steps: int, clusters: int, *, yes: bool) -> None:
    """Say what is about to be sent, and ask.

    Args:
        endpoint: whom it is sent to.
        first: what the first rewrites take; those that follow are about as long.
        steps: rewrites to a chain.
        clusters: independent prompts or responses.
        yes: it is agreed to already.

    Raises:
        RunError: declined, or nobody there to be asked.
    """
    if first.requests == 0:
        return
    tokens = (first.prompt_tokens + first.completion_tokens) * steps
    money = "at a price unknown (--endpoint.prices.prompt and --endpoint.prices.completion tell it)"
    if first.cost is not None:
        money = f"for about {first.cost * steps:,.2f}"
    sys.stderr.write(
        f"At most {first.requests * steps:,} requests to {endpoint.model}, about {tokens:,} tokens, {money}.\n"
        f"{clusters:,} independent texts: where rewriting changes rewards by one standard deviation from text to text, "
        f"the effect will be known to within {half_width(clusters):.2f} standard deviations.\n"
    )
    if yes:
        return
    remedy = "Nothing was sent. Add --yes to send without being asked."
    if not sys.stdin.isatty():
        raise RunError("not agreed to", [Problem("yes", "nobody to ask", "--yes", remedy)])
    sys.stderr.write("Send them? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RunError("not agreed to", [Problem("yes", "no", "yes", remedy)])


def half_width(clusters: int) -> float:
    """Half of a 95 % interval of a mean, in units of the spread of what is averaged: 1.96 / sqrt(G)."""
    return _NORMAL_95 / math.sqrt(max(clusters, 1))
