"""Every format: rows that a person wrote down become the records that a person expects."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.adapters import ADAPTERS, describe_formats, detect, for_hub_id
from rewardlab.data.adapters.hh_rlhf import dialogue
from rewardlab.data.adapters.preference import common_beginning
from rewardlab.data.canonical import record_to_dict
from rewardlab.data.doctor import examine
from rewardlab.data.load import Loaded
from rewardlab.data.pairs import KEPT, given_places
from rewardlab.data.rows import Row
from rewardlab.records import Candidates, Message, Pair, Prompt, Rated, SetAside, Source

HERE = Source("f.jsonl", 1)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def chat(*contents: str) -> Prompt:
    """A prompt of user and assistant turns in alternation."""
    return Prompt(tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)))


def parsed(name: str, values: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> Any:
    row = Row(HERE, values, columns or {})
    record = ADAPTERS[name].parse(row)
    assert row.problems == []
    return record


def problems(name: str, values: Mapping[str, Any]) -> list[str]:
    row = Row(HERE, values)
    ADAPTERS[name].parse(row)
    return [str(problem) for problem in row.problems]


Q = chat("q")
TEXT = Prompt.of_text("q")
REVIEW = chat("Write a movie review: ")
HH = "\n\nHuman: Hi \n\nAssistant: Hello!\n\nHuman: And?\n\nAssistant: "
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: And?\n\nAssistant:"
POST = {"subreddit": "dogs", "title": "A {post}", "post": "Line 1\n\nLine 2"}
POSTED = Prompt.of_text("SUBREDDIT: r/dogs\nTITLE: A {post}\nPOST: Line 1\n\nLine 2\nTL;DR:")
DIALOGUE_TURN = {"text": "u", "TARGET": "T", "dialogue_id": 3, "turn_id": 0, "type": "HS", "source": "s"}
SUMMARIES = {
    "summaries": [
        {"text": "better once", "policy": "ref", "note": "n"},
        {"text": " worse no more\n", "policy": "sup2", "note": ""},
    ]
}
RATE = {"original": "o", "rewrite": "r", "rewritten rewrite": "rr"}

CASES: list[tuple[str, dict[str, Any], Any]] = [
    # --- TRL preference
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, Pair(TEXT, "a", "b", None, HERE)),
    ("preference", {"prompt": "q", "chosen": " a ", "rejected": "b\n"}, Pair(TEXT, " a ", "b\n", None, HERE)),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 0.5}, Pair(TEXT, "a", "b", 0.5, HERE)),
    (
        "preference",
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        Pair(Q, "a", "b", None, HERE),
    ),
    ("preference", {"prompt": [user("q")], "chosen": "a", "rejected": "b"}, Pair(Q, "a", "b", None, HERE)),
    (
        "preference",
        {"prompt": "q", "chosen": [assistant("a")], "rejected": [assistant("b")]},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "preference",
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "preference",  # UltraFeedback: the prompt column repeats the first turn
        {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "preference",
        {"chosen": "Q: what?\nA: yes it is", "rejected": "Q: what?\nA: you wish"},
        Pair(Prompt.of_text("Q: what?\nA:"), " yes it is", " you wish", None, HERE),
    ),
    (
        "preference",  # names of models alone make no RewardBench
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")], "chosen_model": "m"},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "preference",
        {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2, "chosen_model": "m", "subset": "s"},
        Pair(TEXT, "a", "b", 2.0, HERE),
    ),
    (
        "preference",
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")], "num_correct": 1},
        Pair(Q, "a", "b", None, HERE),
    ),
    # --- RewardBench
    (
        "reward-bench",
        {
            "prompt": "q",
            "chosen": "a",
            "rejected": "b",
            "chosen_model": "m",
            "rejected_model": "n",
            "subset": "s",
            "id": 3,
        },
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "reward-bench",
        {"prompt": "q", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1, "num_incorrect": 3},
        Candidates(Q, ("a", "b", "c", "d"), (1.0, 0.0, 0.0, 0.0), HERE),
    ),
    (
        "reward-bench",
        {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c"], "num_correct": 2, "num_incorrect": 1},
        Candidates(Q, ("a", "b", "c"), (1.0, 1.0, 0.0), HERE),
    ),
    # --- RM-Bench
    (
        "rm-bench",
        {"id": 7, "prompt": "q", "chosen": ["a", "aa", "**a**"], "rejected": ["b", "bb", "- b"], "domain": "chat"},
        Candidates(Q, ("a", "aa", "**a**", "b", "bb", "- b"), (1.0, 1.0, 1.0, 0.0, 0.0, 0.0), HERE),
    ),
    # --- comparisons
    (
        "comparison",
        {"prompt": "q", "output_1": "a", "output_2": "b", "preference": 1},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "comparison",
        {"prompt": "q", "output_1": "a", "output_2": "b", "preference": "1.7"},
        Pair(Q, "b", "a", None, HERE),
    ),
    # --- K completions
    (
        "k-way",
        {"prompt": "q", "completions": ["a", "b"], "rewards": [1, -2.5]},
        Candidates(TEXT, ("a", "b"), (1.0, -2.5), HERE),
    ),
    ("k-way", {"prompt": "q", "completions": ["a"]}, Candidates(TEXT, ("a",), None, HERE)),
    (
        "k-way",
        {"prompt": [user("q")], "completions": [[assistant("a")], [assistant("b")]], "rewards": [0, 1]},
        Candidates(Q, ("a", "b"), (0.0, 1.0), HERE),
    ),
    (
        "k-way",  # a CSV file holds lists as text
        {"prompt": "q", "completions": '["a", "b"]', "rewards": "[1, 2]"},
        Candidates(TEXT, ("a", "b"), (1.0, 2.0), HERE),
    ),
    (
        "ranked",
        {"context": "q", "completions": [{"rank": 2, "completion": "b"}, {"rank": 1, "completion": "a"}]},
        Candidates(TEXT, ("b", "a"), (-2.0, -1.0), HERE),
    ),
    (
        "rewrites",
        {"id": "7", "w_original": True, "completions": RATE, "reward_question": "q"},
        Candidates(Q, ("o", "r", "rr"), None, HERE),
    ),
    (
        "qa-feedback",
        {"question": "q", "preference": [1, 2, 0, 2, 2, 1]} | {f"prediction {i}": f"{i}" for i in (1, 2, 3, 4)},
        # 1 beats 2, 3 beats 1, 1 ties 4, 3 beats 2, 4 beats 2, 3 beats 4
        Candidates(Q, ("1", "2", "3", "4"), (0.0, -3.0, 3.0, 0.0), HERE),
    ),
    # --- at most one completion
    ("labelled", {"prompt": "q", "completion": "a", "label": True}, Rated(TEXT, "a", True, None, HERE)),
    ("labelled", {"prompt": "q", "completion": "a", "label": "0"}, Rated(TEXT, "a", False, None, HERE)),
    ("labelled", {"prompt": "q", "completion": "a", "label": "Positive"}, Rated(TEXT, "a", True, None, HERE)),
    ("labelled", {"prompt": "q", "completion": "a", "label": "Negative"}, Rated(TEXT, "a", False, None, HERE)),
    (
        "labelled",
        {"prompt": [user("q")], "completion": [assistant("a")], "label": 1},
        Rated(Q, "a", True, None, HERE),
    ),
    ("scored", {"prompt": "q", "completion": "a", "score": 3}, Rated(TEXT, "a", None, 3.0, HERE)),
    ("completion", {"prompt": "q", "completion": "a"}, Candidates(TEXT, ("a",), None, HERE)),
    ("messages", {"messages": [user("q"), assistant("a")]}, Candidates(Q, ("a",), None, HERE)),
    ("messages", {"messages": [user("q")]}, Candidates(Q, (), None, HERE)),
    ("prompt", {"prompt": "q"}, Candidates(TEXT, (), None, HERE)),
    # --- Anthropic HH
    (
        "hh-rlhf",
        {"chosen": HH + "Sure.", "rejected": HH + " No.\n"},
        Pair(chat("Hi", "Hello!", "And?"), "Sure.", "No.", None, HERE),
    ),
    (
        "hh-rlhf",  # the first different answers; later turns are left out
        {"chosen": HH + "a\n\nHuman: x\n\nAssistant: y", "rejected": HH + "b"},
        Pair(chat("Hi", "Hello!", "And?"), "a", "b", None, HERE),
    ),
    ("canonical", record_to_dict(Pair(Q, "a", "b", 1.0, HERE)), Pair(Q, "a", "b", 1.0, HERE)),
    # --- reviews
    (
        "counterfactual",
        {
            "Sentiment": "Negative",
            "Text": "bad",
            "batch_id": "4",
            "rewrites": [{"Sentiment": "Positive", "Text": "good"}],
        },
        Pair(REVIEW, "good", "bad", None, HERE),
    ),
    ("polarity", {"text": "bad", "label": "neg", "fold": 3}, Rated(REVIEW, "bad", False, None, HERE)),
    ("labelled-text", {"text": "fine {x}", "label": 1}, Rated(Prompt(()), "fine {x}", True, None, HERE)),
    ("labelled-text", {"text": "bad", "label": "0"}, Rated(Prompt(()), "bad", False, None, HERE)),
    # --- sets by name, rows of their published schemas
    (
        "webgpt",
        {
            "question": {"dataset": "eli5", "id": "x1", "full_text": "q"},
            "quotes_0": {"title": ["t"], "extract": ["e"]},
            "answer_0": "worse",
            "tokens_0": {"prefix": [1, 2], "completion": [3]},
            "score_0": -0.5,
            "quotes_1": {"title": [], "extract": []},
            "answer_1": "better",
            "tokens_1": {"prefix": [1], "completion": [4]},
            "score_1": 0.5,
        },
        Pair(Q, "better", "worse", None, HERE),
    ),
    (
        "stack-exchange",
        {"qid": 7, "question": "q", "date": "2020/01/01", "metadata": ["a", "b"], "response_j": "a", "response_k": "b"},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "instruction",  # AlpacaFarm
        {"instruction": "Sum", "input": "1 2", "output_1": "a", "output_2": "b", "preference": 2},
        Pair(chat("Sum\n\n1 2"), "b", "a", None, HERE),
    ),
    (
        "instruction",
        {"instruction": "q", "input": "", "output_1": "a", "output_2": "b", "preference": 1},
        Pair(Q, "a", "b", None, HERE),
    ),
    (
        "instruction",  # RLCD: the instruction is a conversation
        {
            "instruction": "Human: Hi\n\nAssistant: Hello!\n\nHuman: And?\n\nAssistant:",
            "output_1": "a",
            "output_2": "b",
            "preference": 1,
        },
        Pair(chat("Hi", "Hello!", "And?"), "a", "b", None, HERE),
    ),
    ("llmbar", {"input": "q", "output_1": "a", "output_2": "b", "label": 2}, Pair(Q, "b", "a", None, HERE)),
    # --- AlpacaEval model outputs
    ("instructions", {"instruction": "q", "output": "a", "generator": "m"}, Candidates(Q, ("a",), None, HERE)),
    (
        "helpsteer",
        {
            "prompt": "q",
            "response": "a",
            "helpfulness": 3,
            "correctness": 4,
            "coherence": 4,
            "complexity": 2,
            "verbosity": 1,
        },
        Candidates(Q, ("a",), (3.0,), HERE),
    ),
    (
        "ultrafeedback",
        {
            "source": "evol_instruct",
            "instruction": "q",
            "models": ["m", "n"],
            "completions": [
                {"model": "m", "response": "a", "overall_score": 7.5, "fine-grained_score": 4.0, "critique": "c"},
                {"model": "n", "response": "b", "overall_score": 4.0, "fine-grained_score": 4.5, "critique": "c"},
            ],
            "correct_answers": ["None"],
        },
        Candidates(Q, ("a", "b"), (7.5, 4.0), HERE),
    ),
    # --- EXO and the length project
    ("exo", {"prompt": "q", "chosen": " a "}, Candidates(TEXT, (" a ",), None, HERE)),
    ("exo", {"prompt": TRANSCRIPT, "chosen": " a "}, Candidates(chat("Hi", "Hello!", "And?"), ("a",), None, HERE)),
    (
        "exo",
        {"prompt": "q", "scores_texts": [[0.5, "q a"], [-1, "q b"]]},
        Candidates(TEXT, (" a", " b"), (0.5, -1.0), HERE),
    ),
    ("generated", {"question": "q", "response": "a"}, Candidates(Q, ("a",), None, HERE)),
    ("generated", {"question": "q", "response": ["a", "b"]}, Candidates(Q, ("a", "b"), None, HERE)),
    (
        "generated",
        {"question": TRANSCRIPT, "response": "a"},
        Candidates(chat("Hi", "Hello!", "And?"), ("a",), None, HERE),
    ),
    # --- TL;DR
    (
        "tldr-comparison",
        {"info": POST | {"id": "t3_x", "site": None, "article": None}, **SUMMARIES, "choice": 1, "worker": "w"},
        Pair(POSTED, " worse no more", " better once", None, HERE),
    ),
    ("tldr-post", {"id": "t3_x", **POST, "summary": " s \n"}, Candidates(POSTED, (" s",), None, HERE)),
    ("tldr-post", {"id": "t3_x", **POST}, Candidates(POSTED, (), None, HERE)),
    # --- prompts of the toxicity meter
    (
        "real-toxicity",
        {
            "prompt": {"text": "q", "toxicity": 0.9},
            "continuation": {"text": " a", "toxicity": None},
            "challenging": True,
        },
        Candidates(TEXT, (" a",), None, HERE),
    ),
    ("real-toxicity", {"prompt": {"text": "q"}, "continuation": {"text": ""}}, Candidates(TEXT, (), None, HERE)),
    ("instructions", {"instruction": "q", "input": "", "output": "a"}, Candidates(Q, ("a",), None, HERE)),
    ("instructions", {"instruction": "q", "input": "x"}, Candidates(chat("q\n\nx"), (), None, HERE)),
    # --- DIALOCONAN, as `gather` leaves its rows
    (
        "dialoconan",
        DIALOGUE_TURN | {"asked": "User: u.\nAssistant:", "answer": "a\nb"},
        Candidates(Prompt.of_text("User: u.\nAssistant:"), (" a b",), None, HERE),
    ),
    (
        "dialoconan",
        DIALOGUE_TURN | {"asked": "User: u.\nAssistant:"},
        Candidates(Prompt.of_text("User: u.\nAssistant:"), (), None, HERE),
    ),
    ("text", {"text": " t "}, Candidates(Prompt(()), (" t ",), None, HERE)),
]


@pytest.mark.parametrize(("name", "values", "expected"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_rows_become_records(name: str, values: dict[str, Any], expected: Any) -> None:
    assert parsed(name, values) == expected


NAMED_BY_HAND = {"labelled-text": "text"}
"""Formats that are used where somebody names them, and what their columns are taken for."""


@pytest.mark.parametrize(("name", "values", "expected"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_the_columns_tell_the_format(name: str, values: dict[str, Any], expected: Any) -> None:
    found = detect([Row(HERE, values)])
    assert found is not None
    assert found.name == NAMED_BY_HAND.get(name, name)


def test_every_format_is_tried() -> None:
    assert {case[0] for case in CASES} == set(ADAPTERS)


SIDES = {"chosen": "a", "rejected": "b"}
WEBGPT = {"question": {"full_text": "q"}, "answer_0": "a", "answer_1": "b", "score_0": 1.0, "score_1": -1.0}
ASIDE: list[tuple[str, dict[str, Any], str]] = [
    ("preference", {"prompt": "q", "chosen": "a", "rejected": " a\n"}, "identical"),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": " "}, "empty"),
    ("preference", {"prompt": "q", "chosen": None, "rejected": "b"}, "empty"),
    ("preference", {"chosen": [user("q"), assistant("a")], "rejected": [user("p"), assistant("b")]}, "prefix_mismatch"),
    ("preference", {"chosen": [user("q"), assistant("a")], "rejected": [user("q")]}, "prefix_mismatch"),
    ("preference", {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("a")]}, "identical"),
    (
        "preference",
        {"prompt": "p", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        "prefix_mismatch",
    ),
    (
        "preference",
        {"prompt": [user("q")], "chosen": [assistant("a"), user("p"), assistant("c")], "rejected": [assistant("b")]},
        "several_turns",
    ),
    ("reward-bench", {"prompt": "q", "chosen": [], "rejected": ["b"], "num_correct": 0}, "empty"),
    ("rm-bench", {"prompt": "q", "chosen": [], "rejected": [], "domain": "chat"}, "empty"),
    ("rm-bench", {"prompt": "q", "chosen": ["a", "", "c"], "rejected": ["d", "e", "f"], "domain": "chat"}, "empty"),
    ("comparison", {"prompt": "q", "output_1": "a", "output_2": "b", "preference": 1.5}, "tie"),
    ("comparison", {"prompt": "q", "output_1": "a", "output_2": "b", "preference": None}, "no_preference"),
    ("comparison", {"prompt": "q", "output_1": "a", "output_2": None, "preference": 1}, "empty"),
    ("instruction", {"instruction": "q", "output_1": "", "output_2": "b", "preference": 2}, "empty"),
    ("llmbar", {"input": "q", "output_1": "a", "output_2": "a", "label": 2}, "identical"),
    ("webgpt", WEBGPT | {"score_0": 0.0, "score_1": 0.0}, "tie"),
    ("webgpt", WEBGPT | {"score_0": None}, "no_score"),
    ("stack-exchange", {"question": "q", "response_j": "a", "response_k": None}, "empty"),
    ("helpsteer", {"prompt": "q", "response": "a", "helpfulness": None}, "no_score"),
    ("ultrafeedback", {"instruction": "q", "completions": []}, "empty"),
    ("ultrafeedback", {"instruction": "q", "completions": [{"response": "a", "overall_score": "N/A"}]}, "no_score"),
    ("k-way", {"prompt": "q", "completions": []}, "empty"),
    ("k-way", {"prompt": "q", "completions": [" ", ""]}, "empty"),
    ("k-way", {"prompt": "q", "completions": [[assistant("a"), user("x"), assistant("b")]]}, "several_turns"),
    ("ranked", {"context": "q", "completions": []}, "empty"),
    ("rewrites", {"w_original": False, "completions": RATE | {"rewrite": ""}, "reward_question": "q"}, "empty"),
    ("labelled", {"prompt": "q", "completion": "", "label": True}, "empty"),
    ("scored", {"prompt": "q", "completion": "a", "score": None}, "no_score"),
    ("messages", {"messages": [user("q"), assistant("")]}, "empty"),
    ("completion", {"prompt": "q", "completion": [assistant("a"), assistant("b")]}, "several_turns"),
    ("hh-rlhf", {"chosen": HH + "a", "rejected": HH + "a "}, "identical"),
    ("hh-rlhf", {"chosen": HH + "a", "rejected": HH}, "empty"),
    ("hh-rlhf", {"chosen": HH + "a", "rejected": "\n\nHuman: Yo\n\nAssistant: b"}, "prefix_mismatch"),
    ("hh-rlhf", {"chosen": HH + "a", "rejected": HH + "a\n\nHuman: more?"}, "prefix_mismatch"),
    ("hh-rlhf", {"chosen": HH + "a", "rejected": "b"}, "no_dialogue"),
    ("canonical", record_to_dict(Pair(Q, "a", "a ")), "identical"),
    ("counterfactual", {"Sentiment": "Positive", "Text": "good", "batch_id": "4"}, "no_pair"),
    ("polarity", {"text": " ", "label": "pos", "fold": 0}, "empty"),
    ("exo", {"prompt": TRANSCRIPT, "chosen": " a", "rejected": "a"}, "identical"),
    ("exo", {"prompt": "q", "scores_texts": [[1, "q"]]}, "empty"),
    ("generated", {"question": "q", "response": []}, "empty"),
    ("generated", {"question": "q", "response": ["", "\n"]}, "empty"),
    (
        "tldr-comparison",
        {"info": {"id": "x", "article": "News", "site": "cnndm"}, **SUMMARIES, "choice": 0},
        "no_post",
    ),
    ("tldr-post", {**POST, "summary": " "}, "empty"),
    ("text", {"text": " "}, "empty"),
]


@pytest.mark.parametrize(("name", "values", "reason"), ASIDE)
def test_unusable_rows_are_set_aside_with_their_reason(name: str, values: dict[str, Any], reason: str) -> None:
    aside = parsed(name, values)
    assert isinstance(aside, SetAside)
    assert aside.reason == reason
    assert aside.detail
    assert dict(aside.row) == values


def test_empty_completions_are_dropped_one_by_one_with_what_is_known_of_them() -> None:
    """All but one of many good answers used to be lost with it."""
    sampled = {"finish_reasons": ["stop", "stop", "length"], "note": [1, 2, 3]}
    row = Row(HERE, {"prompt": "q", "completions": ["a", " \n", "c"], "rewards": [1, 2, 3], **sampled})
    expected = {"finish_reasons": ["stop", "length"], "note": [1, 2, 3], KEPT: {"of": 3, "places": [0, 2]}}
    found = ADAPTERS["k-way"].parse(row)
    assert (found, row.dropped) == (Candidates(TEXT, ("a", "c"), (1.0, 3.0), HERE), 1)
    assert isinstance(found, Candidates)
    assert found.meta == expected
    assert given_places(found) == ([0, 2], 3)
    answers = [{"response": text, "overall_score": 1, "model": text} for text in ("", "b")]
    assert parsed("ultrafeedback", {"instruction": "q", "completions": answers}).meta["models"] == ["b"]


FOUR = {f"prediction {number}": "a" for number in (1, 2, 3, 4)}
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "preference",
        {"prompt": 3, "chosen": ["a"], "rejected": "b"},
        [
            'column "prompt": found 3; expected a string or a list of messages with role and content',
            'column "chosen": found a list of 1; expected a string or a list of messages with role and content',
        ],
    ),
    ("preference", {"prompt": "q", "chosen": "a"}, ['column "rejected": found no such column']),
    (
        "preference",
        {"chosen": [user("q"), assistant("a")], "rejected": "b"},
        ["column \"rejected\": found 'b'; expected the same form as chosen, text or messages"],
    ),
    ("preference", {"prompt": "q", **SIDES, "margin": "wide"}, ["column \"margin\": found 'wide'; expected a finite"]),
    ("preference", {"prompt": "q", **SIDES, "margin": float("nan")}, ['column "margin": found nan']),
    ("preference", {"prompt": "q", **SIDES, "margin": True}, ['column "margin": found True']),
    ("preference", {"prompt": [user("q")], "chosen": [user("a")], "rejected": [assistant("b")]}, ["a turn of role"]),
    ("preference", {"prompt": "q", **SIDES, "tools": 3}, ['column "tools": found 3; expected a list']),
    (
        "preference",
        {"prompt": [{"role": "human", "content": "q"}], **SIDES},
        ["column \"prompt\": found 'human' at turn 0; expected a role among system, developer, user, assistant, tool"],
    ),
    ("preference", {"prompt": [{"role": "user", "content": 3}], **SIDES}, ["found 3 at turn 0; expected text"]),
    (
        "preference",
        {"prompt": "q", "chosen": 1, "rejected": 2},
        ['column "chosen": found 1', 'column "rejected": found 2'],
    ),
    (
        "comparison",
        {"prompt": "q", "output_1": "a", "output_2": "b", "preference": 3},
        ["from 1 (the first is better)"],
    ),
    (
        "webgpt",
        WEBGPT | {"question": {"text": "q"}},
        ["column \"question\": found an object with 'text'; expected an object with the question's text as full_text"],
    ),
    (
        "llmbar",
        {"input": "q", "output_1": "a", "output_2": "b", "label": 0},
        ['column "label": found 0; expected a number'],
    ),
    ("helpsteer", {"prompt": "q", "response": 1, "helpfulness": "high"}, ['column "response"', 'column "helpfulness"']),
    ("ultrafeedback", {"instruction": "q", "completions": ["a"]}, ["objects {response, overall_score}"]),
    (
        "ultrafeedback",
        {"instruction": "q", "completions": [{"response": "a", "overall_score": "good"}]},
        ["found 'good' at position 0; expected a number as overall_score"],
    ),
    ("k-way", {"prompt": "q", "completions": ["a", 2]}, ['column "completions[1]": found 2']),
    ("k-way", {"prompt": "q", "completions": "a"}, ["column \"completions\": found 'a'; expected a list"]),
    ("k-way", {"prompt": "q", "completions": ["a"], "rewards": [1, 2]}, ["expected 1 numbers, one a completion"]),
    ("k-way", {"prompt": "q", "completions": ["a"], "rewards": ["x"]}, ["expected a list of finite numbers"]),
    ("ranked", {"context": "q", "completions": [{"rank": "first", "completion": "a"}]}, ["objects {rank, completion}"]),
    (
        "rewrites",
        {"w_original": "maybe", "completions": {"original": "o"}, "reward_question": 1},
        ['column "reward_question"', 'column "w_original"', 'column "completions"'],
    ),
    (
        "qa-feedback",
        {f"prediction {i}": "a" for i in (1, 2, 3, 4)} | {"question": "q", "preference": [1]},
        ["6 numbers"],
    ),
    ("labelled", {"prompt": "q", "completion": "a", "label": "good"}, ["found 'good'; expected true or false"]),
    ("labelled", {"prompt": "q", "completion": "a", "label": None}, ['column "label": found null']),
    ("scored", {"prompt": "q", "completion": "a", "score": [1]}, ['column "score": found a list of 1']),
    ("messages", {"messages": "hello"}, ["column \"messages\": found 'hello'; expected a list of messages"]),
    ("messages", {"messages": []}, ['column "messages": found a list of 0']),
    ("reward-bench", {"prompt": "q", "chosen": [1], "rejected": ["b"], "num_correct": 1}, ["found 1 at position 0"]),
    (
        "rm-bench",
        {"prompt": "q", "chosen": ["a", "b"], "rejected": ["d", "e", "f"], "domain": 3},
        ['column "domain": found 3', 'column "chosen": found a list of 2; expected 3 answers'],
    ),
    ("hh-rlhf", {"chosen": 1, "rejected": None}, ['column "chosen": found 1', 'column "rejected": found null']),
    (
        "exo",
        {"prompt": "q", "scores_texts": [[0.5, "p"], ["high", "q"], [1]]},
        [
            "found 'p' at position 0; expected texts that begin with the prompt",
            "found a list of 2 at position 1; expected pairs [score, text]",
            "found a list of 1 at position 2; expected pairs [score, text]",
        ],
    ),
    ("exo", {"prompt": 3, "chosen": None}, ['column "prompt": found 3', 'column "chosen": found null']),
    ("generated", {"question": "q", "response": 3}, ['column "response": found 3; expected a list']),
    ("generated", {"question": "q", "response": "a", "rewards": [1, 2]}, ["expected 1 numbers, one a response"]),
    (
        "tldr-comparison",
        {"info": {"title": 3}, "summaries": [{"text": "a"}], "choice": 2},
        [
            "expected two objects {text, policy, ...}",
            'column "choice": found 2',
            "found 3; expected text as title",
            "info",
        ],
    ),
    ("tldr-post", POST | {"post": 3}, ['column "post": found 3']),
    ("text", {"text": None}, ['column "text": found null']),
]


@pytest.mark.parametrize(("name", "values", "expected"), WRONG)
def test_wrong_types_are_told_with_row_and_column(name: str, values: dict[str, Any], expected: list[str]) -> None:
    told = problems(name, values)
    assert len(told) == len(expected), told
    for text, part in zip(told, expected, strict=True):
        assert text.startswith("f.jsonl:1, column ")
        assert part in text


def anything(draw: random.Random, depth: int = 0) -> Any:
    """A random JSON value, often of a shape that an adapter half expects."""
    kinds: list[Any] = [None, True, 0, 3, -1.5, float("nan"), 10**400, "", " ", "text", "[1]", "{", "\ud800", "1.5"]
    if depth > 2 or draw.random() < 0.6:
        return draw.choice(kinds)
    if draw.random() < 0.5:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    keys = draw.sample(["role", "content", "rank", "completion", "original", "rewrite", "file", "type", "text"], 3)
    return {key: draw.choice(["user", "assistant", anything(draw, depth + 1)]) for key in keys}


@pytest.mark.parametrize("name", ADAPTERS)
def test_no_row_whatever_makes_an_adapter_raise(name: str) -> None:
    draw = random.Random(name)
    adapter = ADAPTERS[name]
    for _ in range(400):
        row = Row(HERE, {column: anything(draw) for column in adapter.columns if draw.random() < 0.9})
        record = adapter.parse(row)
        assert row.problems or isinstance(record, SetAside) or record_to_dict(record)
        detect([row])


def test_what_else_a_row_carries_goes_to_meta() -> None:
    pair = parsed("preference", {"prompt": "q", **SIDES, "source": "web", "n": {"x": float("inf")}})
    assert pair.meta == {"source": "web", "n": {"x": None}}


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("preference", {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}),
        ("preference", {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}),
        ("hh-rlhf", {"chosen": HH + "a", "rejected": HH + "b"}),
    ],
)
def test_what_a_dialogue_pair_uses_is_not_in_meta_as_well(name: str, sides: dict[str, Any]) -> None:
    tools = [{"type": "function"}]
    more = {"margin": 1, "tools": tools, "chat_template_kwargs": {"think": True}, "who": 3}
    pair = parsed(name, {**sides, **more})
    assert (pair.margin, pair.prompt.template_options) == (1.0, {"think": True, "tools": tools})
    assert pair.meta == {"who": 3}


def test_real_toxicity_prompts_carry_their_marks() -> None:
    sides = {"prompt": {"text": "q", "toxicity": 0.9}, "continuation": {"text": "a", "toxicity": float("nan")}}
    record = parsed("real-toxicity", {**sides, "challenging": False, "filename": "f", "begin": 3})
    marks = {"challenging": False, "prompt_toxicity": 0.9, "continuation_toxicity": None}
    assert record.meta == {"filename": "f", "begin": 3, **marks}


def test_dropped_turns_are_counted_in_meta() -> None:
    pair = parsed("hh-rlhf", {"chosen": HH + "a\n\nHuman: x\n\nAssistant: y", "rejected": HH + "b"})
    assert pair.meta == {"dropped_turns": 2}


def test_tools_and_template_arguments_become_options_of_the_template() -> None:
    tools = [{"type": "function"}]
    values = {"prompt": [user("q")], **SIDES, "tools": tools, "chat_template_kwargs": {"enable_thinking": False}}
    assert parsed("preference", values).prompt.template_options == {"enable_thinking": False, "tools": tools}


def test_options_that_json_cannot_hold_become_null() -> None:
    pair = parsed("preference", {"prompt": [user("q")], **SIDES, "chat_template_kwargs": {"heat": float("nan")}})
    assert pair.prompt.template_options == {"heat": None}
    assert pair.id


def test_a_column_map_renames_and_reaches_into_objects() -> None:
    values = {"question": {"full_text": "q"}, "answer_0": "a", "answer_1": "b"}
    columns = {"prompt": "question.full_text", "chosen": "answer_0", "rejected": "answer_1"}
    assert parsed("preference", values, columns) == Pair(TEXT, "a", "b", None, HERE)


def test_a_column_whose_own_name_has_a_dot() -> None:
    row = Row(HERE, {"a.b": "q", "chosen": "a", "rejected": "b"}, {"prompt": "a.b"})
    assert row.knows("prompt")
    assert ADAPTERS["preference"].parse(row) == Pair(TEXT, "a", "b", None, HERE)


def test_message_content_in_parts_and_messages_as_text() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    assert parsed("preference", {"prompt": parts, **SIDES}).prompt == Q
    assert parsed("preference", {"prompt": '[{"role": "user", "content": "q"}]', **SIDES}).prompt == Q
    assert parsed("preference", {"prompt": '["q"]', **SIDES}).prompt == Prompt.of_text('["q"]')


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ("Q: a\nA: yes", "Q: a\nA: no", "Q: a\nA:"),
        ("The cat is", "The cat its", "The cat"),
        ("one", "two", ""),
        ("a b", "a b c", "a"),
        ("", "x", ""),
        ("same words here", "same words here", "same words"),
    ],
)
def test_the_common_beginning_cuts_no_word(first: str, second: str, common: str) -> None:
    assert common_beginning(first, second) == common


def test_both_sides_of_a_dialogue_are_stripped_alike() -> None:
    assert dialogue("\n\nHuman:a \n\nAssistant:  b\n") == dialogue("\n\nHuman: a\n\nAssistant: b")
    assert dialogue("Human: a") is None
    assert dialogue("words\n\nHuman: a") is None
    assert dialogue("") is None


def test_subset_and_split_come_from_the_name_of_the_file() -> None:
    values = {"chosen": HH + "a", "rejected": HH + "b"}
    for file in ("x/helpful-base.test.jsonl.gz", "x/helpful-base/test.jsonl.gz", "Anthropic/hh-rlhf/helpful-base:test"):
        record = ADAPTERS["hh-rlhf"].parse(Row(Source(file, 1), values))
        assert isinstance(record, Pair)
        assert record.meta == {"subset": "helpful-base", "split": "test"}


def test_the_list_of_formats_names_all_of_them_with_their_columns() -> None:
    table = describe_formats()
    assert [line.split()[0] for line in table.splitlines()[::2]] == list(ADAPTERS)
    assert "columns: prompt, completions, rewards?, chat_template_kwargs?, tools?" in table


def test_the_documentation_names_every_format_and_check() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")
    names = [*ADAPTERS, *(check.name for check in examine({"none": Loaded((), (), "test", ())}))]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_a_hub_id_can_tell_the_format() -> None:
    found = for_hub_id("Anthropic/hh-rlhf")
    assert found is not None
    assert found.name == "hh-rlhf"
    assert for_hub_id("owner/unknown") is None
    assert detect([]) is None
    assert detect([Row(HERE, {"words": "x"})]) is None
