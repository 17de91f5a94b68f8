"""`rewardlab sample` with a server: a draw is a request of its own, and paid once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback

from rewardlab.data.canonical import read_records
from rewardlab.errors import RunError, UnfinishedError
from rewardlab.llm.requests import ChatRequest
from rewardlab.models.decoding import Decoding
from rewardlab.records import Message, Prompt
from rewardlab.sample.drawn import seed_of
from rewardlab.sample.server import PolicyEndpoint
from rewardlab.sample.verb import Sampled, Sampling, sample
from rewardlab.store.runs import Run


def sampled(server: Loopback, prompts: list[Any], name: str = "run", endpoint: Any = None, **options: Any) -> Sampled:
    path = Path("prompts.jsonl")
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    at = {"url": server.url, "model": "some-model", "timeout": 20.0, "max_retries": 0, **(endpoint or {})}
    config = Sampling.build({"endpoint": at, "data": str(path), "n": 3, "yes": True, **options})
    with Run.create(config, verb="sample", name=name, root=Path("runs")) as run:
        return sample(config, run)


def made(name: str = "run") -> list[Any]:
    return read_records(Path("runs") / name / "completions.jsonl")


def test_every_draw_is_a_request_of_its_own_and_paid_once(server: Loopback) -> None:
    found = sampled(server, ["one", "<<length>> two", [{"role": "user", "content": "three"}]])
    assert server.seen()["answered"] == {"one": 3, "<<length>> two": 3, "three": 3}
    first, second, third = made()
    assert first.completions == ("re: one",) * 3
    # The server counts twice the characters; what was cut off is kept as what it is.
    assert first.meta["tokens"] == [6, 6, 6]
    assert first.meta["finish_reasons"] == ["stop"] * 3
    assert second.completions == ("<<l",) * 3
    assert second.meta["finish_reasons"] == ["length"] * 3
    assert third.completions == ("re: three",) * 3
    assert "token_ids" not in first.meta
    assert found.summary["unfinished"] == pytest.approx(1 / 3)
    # Again, two more of each: only those are asked for.
    sampled(server, ["one", "<<length>> two", [{"role": "user", "content": "three"}]], "again", n=5)
    assert server.seen()["answered"] == {"one": 5, "<<length>> two": 5, "three": 5}


def test_a_request_says_how_tokens_are_chosen() -> None:
    prompt = Prompt((Message("system", "Be brief."), Message("user", "Why?")))
    at = PolicyEndpoint.build({"url": "http://localhost:1/v1", "model": "m", "seed": 7, "parameters": {"stop": ["."]}})
    plain = at.draw(prompt, 2, 30, Decoding(0.8))
    assert {name: value for name, value in plain.parameters.items() if name != "seed"} == {
        "temperature": 0.8,
        "max_tokens": 30,
        "stop": ["."],
    }
    assert [one.role for one in plain.messages] == ["system", "user"]
    published = at.draw(prompt, 0, 256, Decoding(0.9, 0, 0.9, 1.2)).parameters
    assert (published["top_p"], published["repetition_penalty"], "top_k" in published) == (0.9, 1.2, False)
    newer = PolicyEndpoint.build({"url": "http://localhost:1/v1", "parameters": {"max_completion_tokens": 99}})
    asked = newer.draw(Prompt.of_text("Why?"), 1, 30, Decoding())
    assert dict(asked.parameters) == {"temperature": 1.0, "max_completion_tokens": 99}
    assert asked.messages == (Message("user", "Why?"),)
    assert asked.key != newer.draw(Prompt.of_text("Why?"), 0, 30, Decoding()).key


def test_every_completion_of_every_prompt_has_a_seed_of_its_own() -> None:
    """As here (`seed_of`): one seed for the first draw of all prompts would have them fall alike, token by token."""
    prompts = [Prompt.of_text(f"Why {number}?") for number in range(20)]

    def asked(seed: int) -> dict[tuple[int, int], ChatRequest]:
        at = PolicyEndpoint.build({"url": "http://localhost:1/v1", "model": "m", "seed": seed})
        return {(i, draw): at.draw(one, draw, 30, Decoding()) for i, one in enumerate(prompts) for draw in range(3)}

    found = asked(7)
    seeds = {place: request.parameters["seed"] for place, request in found.items()}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert not set(seeds.values()) & {request.parameters["seed"] for request in asked(8).values()}
    # Another session of the run asks the same, and finds its answers by these keys.
    assert {place: request.key for place, request in asked(7).items()} == {
        place: one.key for place, one in found.items()
    }
    # That of a completion that is drawn in this process.
    assert seeds[3, 2] == seed_of(prompts[3], 7, 2) % 2**31


def test_a_resumed_run_with_a_seed_pays_for_nothing_twice(server: Loopback) -> None:
    for name in ("first", "again"):
        sampled(server, ["one", "two"], name, {"seed": 3})
    assert server.seen()["answered"] == {"one": 3, "two": 3}


def test_what_has_no_answer_is_asked_again_or_counted(server: Loopback) -> None:
    prompts = ["fine", "<<status 500 99>> down", "<<refuse>> no"]
    with pytest.raises(UnfinishedError, match=r"HTTP 500 \(3 times\)"):
        sampled(server, prompts)
    assert not Path("runs/run/completions.jsonl").exists()
    found = sampled(server, prompts, "without", {"accept_failures": True})
    fine, down, refused = made("without")
    assert (len(fine.completions), len(down.completions)) == (3, 0)
    # Both runs have asked for it, and only once for the others.
    assert server.seen()["answered"]["fine"] == 3
    assert refused.completions == ("", "", "")
    assert refused.meta["finish_reasons"] == ["refusal"] * 3
    assert sum(found.summary["missing"].values()) == 3
    assert found.lines()[-1].startswith("3 completions are missing")


def test_nothing_is_sent_without_a_yes(server: Loopback) -> None:
    with pytest.raises(RunError, match="not agreed to"):
        sampled(server, ["one"], yes=False)
    assert server.seen()["answered"] == {}
