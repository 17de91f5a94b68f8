"""Estimates, against examples worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback import ask

from rewardlab.llm.budget import Expected, Purse, estimate, expected_tokens
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.requests import Answer

PRICED = Endpoint.build({"url": "http://localhost/v1", "prices": {"prompt": 2.0, "completion": 10.0}})


def test_a_token_is_four_characters_and_an_answer_as_long_as_its_prompt() -> None:
    assert expected_tokens(ask("x" * 400)) == (100, 100)
    assert expected_tokens(ask("x" * 401)) == (101, 101)
    assert expected_tokens(ask("x" * 400, max_tokens=30)) == (100, 30)
    assert expected_tokens(ask("x" * 400, max_completion_tokens=30)) == (100, 30)


def test_only_what_is_not_paid_counts(tmp_path: Path) -> None:
    wanted = [ask("x" * 400), ask("y" * 400), ask("z" * 400), ask("x" * 400), ask("w" * 40)]
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.answer(ask("y" * 400), Answer("done"))
        ledger.send([ask("z" * 400)], "batch-1")
        # Once x and once w: 110 tokens each way, at 2 and 10 a million.
        found = estimate(wanted, PRICED, ledger)
        assert found == Expected(2, 110, 110, pytest.approx(110 * 12e-6))
        assert estimate(wanted, PRICED, ledger, batch=True).cost == pytest.approx(110 * 6e-6)
    assert estimate(wanted, PRICED) == Expected(4, 310, 310, pytest.approx(310 * 12e-6))
    assert estimate(wanted, Endpoint(url="http://localhost/v1")).cost is None


def test_answers_without_counts_cost_what_was_expected() -> None:
    purse = Purse(PRICED)
    for text, answer in [("x" * 400, Answer("a", cost=0.5, prompt_tokens=1)), ("y" * 400, Answer("b")), ("z", None)]:
        assert purse.take(ask(text))
        purse.settle(ask(text), answer)
        purse.settle(ask(text), answer)
    assert purse.cost == pytest.approx(0.5 + 100 * 12e-6)


def test_what_is_promised_is_not_promised_again() -> None:
    # A hundred prompt and a hundred answer tokens at a price of one each: 200 a request.
    dear = {"url": "http://localhost/v1", "prices": {"prompt": 1e6, "completion": 1e6}, "budget": {"cost": 500}}
    purse = Purse(Endpoint.build(dear))
    asked = [ask(f"{n:0400}") for n in range(4)]
    assert [purse.take(one) for one in asked[:3]] == [True, True, False]
    # One turns out cheap: there is room again.
    purse.settle(asked[0], Answer("a", cost=10.0, prompt_tokens=1))
    assert purse.take(asked[2])
    assert not purse.take(asked[3])
