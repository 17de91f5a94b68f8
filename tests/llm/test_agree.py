"""The question about cost: its numbers, who is asked, and what an answer covers."""

from __future__ import annotations

import io
import sys

import pytest

from rewardlab.audit.choice import precision
from rewardlab.errors import RunError
from rewardlab.llm.agree import Agreement, Plan
from rewardlab.llm.budget import Expected
from rewardlab.llm.endpoint import Endpoint

ENDPOINT = Endpoint(url="http://localhost/v1", model="some-model")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plan(requests: int = 1000, times: int = 2) -> Plan:
    return Plan(ENDPOINT, Expected(requests, 20 * requests, 30 * requests, 0.001 * requests), times)


def test_the_numbers_of_a_plan_are_those_of_all_its_requests() -> None:
    assert plan().words() == "At most 2,000 requests to some-model, about 100,000 tokens, for about 2.00."
    assert "at a price unknown" in Plan(ENDPOINT, Expected(1, 1, 1, None)).words()


def test_expectations_add_up_and_an_unknown_price_stays_unknown() -> None:
    first, second = Expected(1, 10, 20, 0.5), Expected(2, 1, 2, 0.25)
    assert first + second == Expected(3, 11, 22, 0.75)
    assert second.times(3) == Expected(6, 3, 6, 0.75)
    assert (first + Expected(1, 1, 1, None)).cost is None
    assert Expected(1, 1, 1, None).times(2).cost is None


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_person_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, agreed: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    agreement = Agreement(False)
    if not agreed:
        with pytest.raises(RunError, match="not agreed to"):
            agreement.to([plan()])
        return
    agreement.to([plan(), plan(0)], "It tells much.")
    said = capsys.readouterr().err
    assert said.count("At most") == 1
    assert "It tells much.\nSend them? [y/N]" in said
    # What comes after is covered.
    agreement.to([plan()])
    assert capsys.readouterr().err == ""


def test_nobody_to_ask_and_nothing_to_ask_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(RunError, match="nobody to ask"):
        Agreement(False).to([plan()])
    Agreement(True).to([plan()])
    assert capsys.readouterr().err.count("At most") == 2
    Agreement(False).to([plan(0)])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("clusters", "half"), [(1, "1.96"), (100, "0.20"), (384, "0.10"), (0, "1.96")])
def test_the_precision_is_that_of_a_mean_of_independent_texts(clusters: int, half: str) -> None:
    assert precision(clusters).endswith(f"to within {half} standard deviations.")
