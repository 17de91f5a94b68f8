"""Records as a policy learns from them: which completions, in which groups, what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from policy_toys import ENCODING, policy

from rewardlab.data.load import DataSource, load
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import DataError
from rewardlab.models.policy import PolicyModel
from rewardlab.records import Candidates, Pair, Prompt, Rated, Source
from rewardlab.train.completions import (
    Choice,
    DrawnPlan,
    Grouping,
    check_preferences,
    imitation_examples,
    policy_examples,
    preference_examples,
)
from rewardlab.train.examples import Examples

ASK = Prompt.of_text("river stone ")
PAIRS = Grouping(pairs=True, size=None, choice="consecutive")
ALL = Grouping(pairs=False, size=None, choice="consecutive")


@pytest.fixture(scope="module")
def model(tokenizer: Path) -> PolicyModel:
    return policy(tokenizer)


def candidates(*rewards: float, words: tuple[str, ...] = (), **meta: Any) -> Candidates:
    texts = words or tuple(f"lamp {'cloud ' * (place + 1)}".strip() for place in range(len(rewards)))
    return Candidates(ASK, texts, rewards or None, Source("file", 7), meta)


def texts(model: PolicyModel, examples: Examples) -> list[list[str]]:
    """What each example's completions say, ends shown."""
    return [
        [model.tokenizer.decode(ids[example.group.start :]) for ids in example.group.sequences()]
        for example in examples.items
    ]


def test_what_is_imitated(model: PolicyModel) -> None:
    end = model.tokenizer.eos_token
    records = [
        Pair(ASK, "lamp", "cloud"),
        candidates(0.0, 2.0, 1.0),
        Candidates(ASK, ("seven", "paper")),
        Rated(ASK, "green", label=True),
        Rated(ASK, "quiet", label=False),
        Rated(ASK, "metal", score=0.1),
        Candidates(ASK, ()),
    ]
    found = imitation_examples(records, model, "train")
    expected = ["lamp", "lamp cloud cloud", "seven", "paper", "green", "metal"]
    assert texts(model, found) == [[text + end] for text in expected]
    assert (found.counts["labelled_bad"], found.counts["prompts_alone"]) == (1, 1)
    prompt = model.encoder.prompts([ASK])[0].ids
    assert all(example.group.sequences()[0][: example.group.start] == prompt for example in found.items)


def test_what_was_cut_off_has_no_end(model: PolicyModel, tokenizer: Path) -> None:
    end = model.tokenizer.eos_token
    record = Candidates(ASK, ("seven", "paper"), meta={"finish_reasons": ["length", "stop"]})
    assert texts(model, imitation_examples([record], model, "train")) == [["seven"], [f"paper{end}"]]
    short = policy(tokenizer, encoding=PolicyEncoding(max_prompt_tokens=8, max_completion_tokens=2))
    found = imitation_examples([Pair(ASK, "metal happy garden", "no")], short, "train")
    assert [example.lengths for example in policy_examples(found.items)] == [[2]]
    assert end not in texts(short, found)[0][0]
    assert found.counts["truncated_completions"] == 1


def test_sampled_tokens_are_trained_on_as_they_were_drawn(model: PolicyModel) -> None:
    """Letter by letter, as the tokenizer would not split it; ids of another text, of no token or of no list are not."""
    letters = model.tokenizer.convert_tokens_to_ids(list("lamp"))
    end = model.tokenizer.eos_token_id
    assert letters != model.tokenizer("lamp", add_special_tokens=False)["input_ids"]

    def ids(words: str, own: Any, reason: str = "stop") -> tuple[list[int], int]:
        meta = {"token_ids": [own], "finish_reasons": [reason]}
        examples = imitation_examples([Candidates(ASK, (words,), meta=meta)], model, "train")
        (group,) = (one.group for one in examples.items)
        return list(group.sequences()[0][group.start :]), examples.counts["as_sampled"]

    assert ids("lamp", [*letters, end]) == ([*letters, end], 1)
    assert ids("lamp", letters, "length") == (letters, 1)
    for own in ([*letters[:3], end], [10**6], "lamp", [], None):
        found, count = ids("lamp", own)
        assert (model.tokenizer.decode(found), len(found) < 5, count) == (f"lamp{model.tokenizer.eos_token}", True, 0)


def test_the_winner_is_first_and_ties_are_counted(model: PolicyModel) -> None:
    records = [
        Pair(ASK, "lamp", "cloud"),
        candidates(0.0, 2.0, 3.0, 1.0),  # two groups
        candidates(1.0, 1.0),
        candidates(1.0, 0.0, words=("paper", "paper")),
        Candidates(ASK, ("", "paper"), (1.0, 0.0), meta={"finish_reasons": ["length", "stop"]}),
    ]
    found = preference_examples(records, model, "train", PAIRS)
    end = model.tokenizer.eos_token
    cloudy = [f"lamp{' cloud' * count}{end}" for count in range(5)]
    assert texts(model, found) == [[f"lamp{end}", f"cloud{end}"], [cloudy[2], cloudy[1]], [cloudy[3], cloudy[4]]]
    assert [example.targets for example in found.items] == [(1.0, 0.0), (2.0, 0.0), (3.0, 1.0)]
    reasons = {name: found.counts[name] for name in ("ties", "identical_completions", "too_few_completions")}
    assert reasons == {"ties": 1, "identical_completions": 1, "too_few_completions": 1}
    assert found.counts["empty_completions"] == 1


def test_rewards_keep_all_candidates_ties_too(model: PolicyModel) -> None:
    found = preference_examples([candidates(0.0, 2.0, 2.0), Pair(ASK, "lamp", "cloud")], model, "train", ALL)
    assert [example.targets for example in found.items] == [(0.0, 2.0, 2.0), (1.0, 0.0)]
    four = Grouping(pairs=False, size=2, choice="consecutive")
    found = preference_examples([candidates(4.0, 3.0, 2.0, 2.0)], model, "train", four)
    assert [example.targets for example in found.items] == [(4.0, 3.0), (2.0, 2.0)]


def test_a_completion_stays_in_its_group_where_empty_ones_were_dropped(model: PolicyModel, tmp_path: Path) -> None:
    """Of groups (0, 1), (2, 3) and (4, 5) the second lost one side and the third both; the first is as it was."""
    row = {
        "prompt": "river stone ",
        "completions": ["lamp", "cloud", "", "paper", "", " "],
        "rewards": [0, 1, 2, 3, 4, 5],
    }
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    loaded = load(DataSource(path=str(path)))
    found = preference_examples(loaded.records, model, "train", PAIRS)
    end = model.tokenizer.eos_token
    assert texts(model, found) == [[f"cloud{end}", f"lamp{end}"]]
    assert found.counts["too_few_completions"] == 2
    (whole,) = preference_examples(loaded.records, model, "train", ALL).items
    assert whole.targets == (0.0, 1.0, 3.0)


def test_every_record_that_cannot_be_used_is_named(model: PolicyModel) -> None:
    records = [Candidates(ASK, ("a", "b"), source=Source("f", 1)), Rated(ASK, "a", score=1.0, source=Source("f", 2))]
    with pytest.raises(DataError) as caught:
        check_preferences({"train": [*records, candidates(1.0, 2.0, 3.0)]}, PAIRS)
    said = str(caught.value)
    assert all(place in said for place in ("f:1", "f:2", "file:7", "3 candidates to a prompt", "--choice drawn"))
    assert "--objective exo-rw (train exo) or dpo-rw (train dpo)" in said
    many = [Candidates(ASK, ("a", "b"), source=Source("f", row)) for row in range(1, 101)]
    told = r"train, 100 of 100 records \(f:1, f:2, f:3, \.\.\.\): found candidates without rewards"
    with pytest.raises(DataError, match=told):
        check_preferences({"train": many[::-1]}, PAIRS)
    with pytest.raises(DataError, match=r"nothing to learn from in 1 record \(1 ties\)"):
        preference_examples([candidates(1.0, 1.0)], model, "train", PAIRS)


def test_a_prompt_alone_is_told_all_the_steps_once() -> None:
    prompts = [Candidates(ASK, (), source=Source("f", row)) for row in range(1, 6)]
    with pytest.raises(DataError) as caught:
        check_preferences({"train": prompts[:4], "val": [prompts[4], Pair(ASK, "a", "b")]}, ALL)
    problem, other = caught.value.problems
    assert (problem.where, problem.found) == ("train, 4 of 4 records (f:1, f:2, f:3, ...)", "a prompt alone")
    assert other == replace(problem, where="val, 1 of 2 records (f:5)")
    assert "rewardlab sample, rewardlab score, then rewardlab data convert --to labelled" in problem.remedy


@pytest.mark.parametrize("choice", ["consecutive", "drawn"])
def test_more_candidates_than_there_are_cannot_be_had(model: PolicyModel, choice: Choice) -> None:
    """Two cannot be drawn either, so that is no advice; where others have enough, those that have fewer are counted."""
    four = Grouping(pairs=False, size=4, choice=choice)
    pair = Pair(ASK, "lamp", "cloud", source=Source("f", 3))
    with pytest.raises(
        DataError, match=r"found 2 candidates to a prompt.*expected 4 or more.*--candidates 2"
    ) as caught:
        check_preferences({"train": [pair]}, four)
    assert "drawn" not in str(caught.value)
    if choice == "drawn":
        records = [pair, candidates(1.0, 2.0, 3.0, 4.0)]
        check_preferences({"train": records}, four)
        found = preference_examples(records, model, "train", four)
        assert (len(found), found.counts["fewer_candidates"]) == (2, 1)


def test_an_evaluation_set_without_an_example_is_told_with_advice(model: PolicyModel) -> None:
    with pytest.raises(DataError) as caught:
        preference_examples([Pair(ASK, "lamp", "lamp")], model, "val", PAIRS)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == ("val", "nothing to learn from in 1 record (1 identical completions)")
    assert "--validation.NAME FILE" in problem.remedy
    assert "--validation_share" in problem.remedy


# --- drawn --------------------------------------------------------------------------------------------------------


def plan(model: PolicyModel, grouping: Grouping, *records: Candidates, epochs: int = 40) -> DrawnPlan:
    return DrawnPlan(preference_examples(records, model, "train", grouping).items, 1, epochs, seed=3, grouping=grouping)


def test_pairs_are_drawn_anew_in_every_epoch_and_are_no_ties(model: PolicyModel) -> None:
    drawn = plan(model, Grouping(pairs=True, size=None, choice="drawn"), candidates(1.0, 0.0, 1.0))
    found = [drawn[step][0] for step in range(len(drawn))]
    assert {example.targets for example in found} == {(1.0, 0.0)}
    longer = [len(example.group.branches[0]) > len(example.group.branches[1]) for example in found]
    assert 8 < sum(longer) < 32, "the winner is the first candidate or the third, each about as often"
    assert [drawn[step][0] for step in (7, 7, 3)] == [found[7], found[7], found[3]]


def test_pairs_of_the_same_text_are_never_drawn_and_counted(model: PolicyModel) -> None:
    """Rewards of one text can differ, by noise or by rounding; such a pair says nothing."""
    drawn = Grouping(pairs=True, size=None, choice="drawn")
    found = preference_examples([candidates(2.0, 1.0, 0.0, words=("lamp", "lamp", "cloud"))], model, "train", drawn)
    assert found.counts["identical_pairs"] == 1
    pairs = DrawnPlan(found.items, 1, 40, seed=3, grouping=drawn)
    assert {example.targets for step in range(len(pairs)) for example in pairs[step]} == {(2.0, 0.0), (1.0, 0.0)}


def test_candidates_are_drawn_with_their_own_rewards(model: PolicyModel) -> None:
    drawn = plan(model, Grouping(pairs=False, size=2, choice="drawn"), candidates(10.0, 20.0, 30.0))
    found = policy_examples([drawn[step][0] for step in range(len(drawn))])
    assert {example.targets for example in found} == {(10.0, 20.0), (10.0, 30.0), (20.0, 30.0)}
    lengths = {
        reward: length for example in found for reward, length in zip(example.targets, example.lengths, strict=True)
    }
    whole = policy_examples(drawn.examples)[0]
    assert lengths == dict(zip(whole.targets, whole.lengths, strict=True))


def test_the_window_is_as_asked_for(model: PolicyModel) -> None:
    long = Pair(Prompt.of_text("river " * 100), "lamp " * 100, "cloud")
    (example,) = policy_examples(imitation_examples([long], model, "train").items)
    assert example.group.start == ENCODING.max_prompt_tokens
    assert example.lengths == [ENCODING.max_completion_tokens]


def test_a_refusal_names_the_columns_that_were_not_read() -> None:
    answered = [Candidates(ASK, ("a",), meta={"refused": f"bad answer {row}"}) for row in range(3)]
    with pytest.raises(DataError, match=r"Text of the column 'refused' was not read; .*Or: Sample several"):
        check_preferences({"train": answered}, PAIRS)
    many = [candidates(1.0, 2.0, 3.0, note=f"some words {row}") for row in range(3)]
    with pytest.raises(DataError, match="a multiple of 2") as caught:
        check_preferences({"train": many}, PAIRS)
    assert "not read" not in str(caught.value)
