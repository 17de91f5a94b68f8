"""Endpoints: what they may be, where their key comes from, and what the endpoint's replies mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loopback import ask

from rewardlab.config import Config
from rewardlab.errors import ConfigError
from rewardlab.llm.connection import Reply, refusal_of
from rewardlab.llm.endpoint import Endpoint, Prices
from rewardlab.llm.keys import read_key
from rewardlab.llm.requests import Answer, Failure
from rewardlab.llm.wire import answer_of, error_words, loads, shown
from rewardlab.records import Message

URL = "http://localhost:8000/v1"


class Rewriter(Config):
    """What holds an endpoint."""

    endpoint: Endpoint | None = None
    """It."""


def test_a_url_alone_is_an_endpoint() -> None:
    built = Rewriter.build(flags=[("endpoint", URL), ("endpoint.model", "m"), ("endpoint.parameters.top_p", "0.9")])
    assert built.endpoint == Endpoint(url=URL, model="m", parameters={"top_p": 0.9})
    assert Rewriter.build({"endpoint": URL}).endpoint == Endpoint(url=URL)


def test_a_request_carries_the_sampling_parameters() -> None:
    request = Endpoint(url=URL, max_tokens=5, seed=1, parameters={"top_p": 0.9}).request([Message("user", "a")], draw=2)
    assert request.body() == {
        "model": "gpt-4o-2024-08-06",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.7,
        "max_tokens": 5,
        "seed": 1,
        "top_p": 0.9,
    }
    assert request.draw == 2
    bare = Endpoint(url=URL, temperature=None).request([Message("user", "a")])
    assert bare.body().keys() == {"model", "messages"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "localhost:8000"}, "url to be an http:// or https:// address"),
        ({"url": "http://"}, "url to be an http:// or https:// address"),
        ({"url": "http://[::1"}, "url to be an http:// or https:// address"),
        ({"url": "http://a:99999"}, "url to be an http:// or https:// address"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"timeout": 0}, "greater than 0"),
        ({"requests_per_minute": 0}, "greater than 0"),
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"budget": {"cost": 1.0}}, "prices where there is a budget of cost"),
        ({"parameters": {"stream": True}}, r"no stream \(whole answers\)"),
        ({"parameters": {"n": 2}}, r"no n \(one answer a request: draws are requests of their own\)"),
        ({"parameters": {"temperature": 1}}, r"no temperature \(a field of its own\)"),
        ({"parameters": {"stop": {1, 2}}}, "values that JSON can hold"),
        ({"parameters": {"top_p": float("nan")}}, "values that JSON can hold"),
        ({"prices": {"prompt": -1, "completion": 1}}, "greater than or equal to 0"),
        ({"modle": "m"}, 'Did you mean "model"'),
    ],
)
def test_what_an_endpoint_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Endpoint.build({"url": URL, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"url": "https://somebody:hush-hush@host/v1"},
        {"url": "https://host/v1?api-key=hush-hush"},
        {"key_variable": "sk-hush-hush"},
    ],
)
def test_secrets_in_wrong_places_are_not_repeated(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        Rewriter.build({"endpoint": {"url": URL, **values}})
    assert "hush" not in str(refused.value)


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A_KEY=from-the-file\n")
    monkeypatch.delenv("A_KEY", raising=False)
    assert read_key("A_KEY", tmp_path) == "from-the-file"
    monkeypatch.setenv("A_KEY", "from-the-environment")
    assert read_key("A_KEY", tmp_path) == "from-the-environment"
    assert read_key("ANOTHER_KEY", tmp_path) is None
    assert read_key("A_KEY", tmp_path / "nowhere") == "from-the-environment"

    assert read_key(None, tmp_path) is None
    (tmp_path / ".env").write_text("A_KEY=\n")
    monkeypatch.delenv("A_KEY")
    assert read_key("A_KEY", tmp_path) is None


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("http://localhost:8000/v1", "OPENAI_API_KEY"),
        ("http://vllm.localhost/v1", "OPENAI_API_KEY"),
        ("https://127.3.2.1/v1", "OPENAI_API_KEY"),
        ("http://[::1]:8000/v1", "OPENAI_API_KEY"),
        ("http://10.0.0.7/v1", "OPENAI_API_KEY"),
        ("http://192.168.1.2:8000/v1", "OPENAI_API_KEY"),
        ("http://[fd00::7]/v1", "OPENAI_API_KEY"),
        ("https://openrouter.ai/api/v1", None),
        ("https://api.openai.com.elsewhere.example/v1", None),
        ("https://api-openai.com/v1", None),
        ("http://8.8.8.8/v1", None),
        ("http://[2606:4700::1]/v1", None),
        ("http://localhost.example/v1", None),
        ("http://10.0.0.7.example/v1", None),
    ],
)
def test_openais_key_is_for_openai_and_ones_own_machines(url: str, variable: str | None) -> None:
    assert Endpoint(url=url).variable == variable
    assert Endpoint(url=url, key_variable="OTHER_KEY").variable == "OTHER_KEY"


def test_an_endpoint_that_wants_a_key_says_how_to_give_it() -> None:
    error = refusal_of(Reply(401), Endpoint(url="https://openrouter.ai/api/v1"), None)
    assert "found no key: no variable is named for https://openrouter.ai/api/v1 (HTTP 401)" in str(error)
    assert "name its variable: --endpoint.key_variable NAME" in str(error)


@pytest.mark.parametrize("content", [b"K='hush hush'", "K=hüsh".encode(), b"K=hush\xff", b"K=hush\x00"])
def test_keys_that_cannot_be_sent_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.delenv("K", raising=False)
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_key("K", tmp_path)
    assert "sh" not in str(refused.value).replace(str(tmp_path), "")


def test_prices_are_per_million_tokens() -> None:
    # gpt-4o of August 2024: 2.50 and 10.00 dollars; 1,000 prompt and 500 answer tokens.
    prices = Prices(prompt=2.5, completion=10.0)
    assert prices.cost(1000, 500) == pytest.approx(0.0075)
    assert prices.cost(1000, 500, batch=True) == pytest.approx(0.00375)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": {"0": 1}},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": {"content": "a", "refusal": 7}}]},
        {"choices": [{"message": {"content": "a"}, "finish_reason": ["stop"]}]},
    ],
)
def test_bodies_that_are_no_answers(body: Any) -> None:
    assert isinstance(answer_of(body, Endpoint(url=URL)), Failure)


@pytest.mark.parametrize(
    "usage", [None, 7, {}, {"prompt_tokens": "7"}, {"prompt_tokens": -1}, {"prompt_tokens": 10**30}]
)
def test_token_counts_that_make_no_sense_are_none(usage: Any) -> None:
    answer = answer_of({"choices": [{"message": {"content": "a"}}], "usage": usage}, Endpoint(url=URL))
    assert answer == Answer("a", "", url=URL)


def test_words_of_errors() -> None:
    assert error_words({"error": {"code": "bad", "message": "no"}}) == "bad: no"
    assert error_words({"object": "error", "message": "no", "code": 400}) == "no"
    assert error_words({"error": "no"}) == "no"
    assert error_words({"detail": [1]}) == error_words(None) == error_words([1]) == ""
    assert loads(b"[" * 100_000) is None
    assert shown("a\x1b[31m\nb\u202e  c the-key", "the-key") == "a\ufffd[31m b\ufffd c [the key]"
    assert len(shown("x" * 10_000)) == 300


def test_the_endpoint_is_not_part_of_a_key() -> None:
    assert Endpoint(url=URL, model="some-model", temperature=None).request(ask("a").messages).key == ask("a").key
