"""Rewards from a server: what is sent, what is tried again, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from reward_server import RewardServer, reward_server

from rewardlab.errors import RunError
from rewardlab.records import Message, Prompt, Response
from rewardlab.score.remote import RemoteReward, address


@pytest.fixture
def remote() -> Iterator[RewardServer]:
    with reward_server() as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


def client(server: RewardServer, **options: Any) -> RemoteReward:
    return RemoteReward(server.url, **({"timeout": 10.0, "tries": 3, "batch_size": 64} | options))


def responses(*texts: str) -> list[Response]:
    return [Response(Prompt.of_text("Q: "), text, 1, True) for text in texts]


def test_a_request_has_openrlhfs_form(remote: RewardServer) -> None:
    conversation = Prompt((Message("user", "Hi"),))
    asked = [*responses("schön \ud83d"), Response(conversation, "Hello", 1, True)]
    rewards = client(remote).rewards(asked)
    (seen,) = remote.seen
    assert remote.paths == ["/get_reward"]
    assert seen == {
        "query": ["Q: schön \ud83d", "\n\nHuman: Hi\n\nAssistant: Hello"],
        "prompts": ["Q: ", "\n\nHuman: Hi\n\nAssistant:"],
        "labels": ["", ""],
    }
    assert rewards == [float(len(text)) for text in seen["query"]]


def test_batches_keep_the_order(remote: RewardServer) -> None:
    texts = ["a" * number for number in range(7)]
    assert client(remote, batch_size=3).rewards(responses(*texts)) == [3.0 + number for number in range(7)]
    assert [len(one["query"]) for one in remote.seen] == [3, 3, 1]
    assert client(remote).rewards([]) == []


def test_failures_that_pass_are_tried_again(remote: RewardServer, waits: list[float]) -> None:
    remote.plan = [(503, {"Retry-After": "7"}, b"loading"), (500, {}, b"")]
    assert client(remote).rewards(responses("ab")) == [5.0]
    assert len(remote.seen) == 3
    assert waits[0] == 7.0


def test_a_server_that_stays_down_is_named_with_its_reason(waits: list[float]) -> None:
    with reward_server() as gone:
        pass
    with pytest.raises(RunError, match=r"Refused.*after 3 tries") as caught:
        client(gone).rewards(responses("a"))
    assert gone.url in str(caught.value)
    assert len(waits) == 2


def test_a_refusal_is_not_tried_again(remote: RewardServer) -> None:
    remote.plan = [(404, {}, b'{"error": {"message": "no such path"}}')]
    with pytest.raises(RunError, match="HTTP 404: no such path"):
        client(remote).rewards(responses("a"))
    assert len(remote.seen) == 1


def test_a_server_that_is_slow_is_left(remote: RewardServer) -> None:
    remote.delay = 0.3
    with pytest.raises(RunError, match="TimeoutError"):
        client(remote, timeout=0.05, tries=1).rewards(responses("a"))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"<html>hello</html>", "<html>hello</html>"),
        (b'{"scores": [1.0, 2.0]}', "scores"),
        (b'{"rewards": [1.0]}', "1 rewards"),
        (b'{"rewards": 1.0}', "rewards"),
        (b'{"rewards": [1.0, null]}', "reward 1: found None"),
        (b'{"rewards": [NaN, 1.0]}', "reward 0: found nan"),
        (b'{"rewards": [true, 1.0]}', "reward 0: found True"),
        (b'{"rewards": [1.0, "2"]}', "reward 1: found '2'"),
        (b"", "nothing"),
    ],
)
def test_answers_that_are_no_rewards(remote: RewardServer, body: bytes, found: str) -> None:
    remote.plan = [(200, {}, body)]
    with pytest.raises(RunError) as caught:
        client(remote).rewards(responses("a", "b"))
    assert found in str(caught.value)
    assert "finite number" in str(caught.value)


def test_what_a_server_says_is_printable(remote: RewardServer) -> None:
    remote.plan = [(400, {}, json.dumps("\x1b[31mred\nline").encode())]
    with pytest.raises(RunError) as caught:
        client(remote).rewards(responses("a"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("http://localhost:5000/get_reward", True),
        ("https://example.org/r?x=1", True),
        ("localhost:5000/get_reward", False),
        ("http://user:secret@localhost/", False),
        ("http://localhost:port/", False),
        ("file:///etc/passwd", False),
    ],
)
def test_addresses(url: str, usable: bool) -> None:
    assert (address(url) is not None) == usable
