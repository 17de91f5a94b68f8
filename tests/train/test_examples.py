"""Records → examples: what is used, what is left out and counted, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import candidates, pairs, rated, toy_model

from rewardlab.data.tokenize import Encoding
from rewardlab.errors import DataError
from rewardlab.models.reward import RewardModel
from rewardlab.records import Candidates, Pair, Prompt, Record
from rewardlab.train import examples as module
from rewardlab.train.examples import make_examples
from rewardlab.train.trainer import StepPlan

PROMPT = Prompt.of_text("river stone: ")


@pytest.fixture(scope="module")
def model(tokenizer: Path) -> RewardModel:
    return toy_model(tokenizer)


def test_every_kind_of_record_has_its_target(model: RewardModel) -> None:
    made = [
        make_examples(records, model, "set")
        for records in (pairs(2), candidates(2, 3), rated(2, labels=True), rated(2, labels=False))
    ]
    assert [one.target for one in made] == ["preference", "preference", "label", "score"]
    assert made[0].items[0].targets == (1.0, 0.0)
    assert made[1].items[0].targets == (0.0, 1.0, 2.0)
    assert {one.targets for one in made[2].items} <= {(0.0,), (1.0,)}
    assert {one.targets for one in made[3].items} <= {(1.5,), (-0.5,)}


def test_pairs_and_candidates_train_together(model: RewardModel) -> None:
    assert make_examples([*pairs(2), *candidates(2, 3)], model, "set").target == "preference"


def test_ties_are_left_out_unless_they_are_learned(model: RewardModel) -> None:
    tie = Candidates(PROMPT, ("a b", "c d"), (0.5, 0.5))
    lone = Candidates(PROMPT, ("a b",), (0.5,))
    alike = Candidates(PROMPT, ("a b", "a b"), (0.5, 0.5))
    records = [*pairs(2), tie, lone, alike]
    without, learned = (make_examples(records, model, "set", ties=ties) for ties in (False, True))
    assert (len(without), without.counts["no_preference"], "ties" in without.counts) == (2, 3, False)
    assert (len(learned), learned.counts["no_preference"], learned.counts["ties"]) == (3, 1, 1)
    assert learned.counts["identical_sequences"] == 1
    assert learned.items[-1].targets == (0.5, 0.5)


def test_sequences_are_those_of_the_tokenizer(model: RewardModel) -> None:
    record = pairs(1)[0]
    (encoded,) = model.encode([record.prompt], [record.completions])
    (example,) = make_examples([record], model, "set").items
    assert example.group.sequences() == [sequence.ids for sequence in encoded]
    assert example.group.prefix


def test_chunks_change_nothing(model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    records = pairs(7)
    whole = make_examples(records, model, "set")
    monkeypatch.setattr(module, "CHUNK_RECORDS", 3)
    assert make_examples(records, model, "set") == whole


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([], "no records"),
        ([*pairs(1), *rated(1, labels=True)], "completions with labels, pairs or candidates with rewards"),
        ([*rated(1, labels=True), *rated(1, labels=False)], "completions with labels, completions with scores"),
        ([Candidates(PROMPT, ("a", "b"))], "candidates without rewards"),
    ],
    ids=["none", "pairs and labels", "labels and scores", "no rewards"],
)
def test_other_mixes_are_refused(model: RewardModel, records: list[Record], found: str) -> None:
    with pytest.raises(DataError) as caught:
        make_examples(records, model, "held-out")
    (problem,) = caught.value.problems
    assert problem.where == "held-out"
    assert problem.found == found


def test_what_cannot_teach_is_left_out_and_counted(model: RewardModel) -> None:
    records = [
        *pairs(2),
        Pair(PROMPT, "same", "same"),
        Candidates(PROMPT, ("cloud", "paper"), (1.0, 1.0)),
        Candidates(PROMPT, ("cloud",), (1.0,)),
    ]
    made = make_examples(records, model, "set")
    assert len(made) == 2
    assert made.counts == {"records": 5, "identical_sequences": 1, "no_preference": 2, "truncated": 0}


def test_identical_after_truncation(tokenizer: Path) -> None:
    model = toy_model(tokenizer, encoding=Encoding(max_tokens=8, truncation_side="right"))
    long = Prompt.of_text("river stone lamp cloud seven paper green quiet metal ")
    made = make_examples([Pair(long, "yes", "no"), Pair(PROMPT, "yes", "no")], model, "set")
    assert made.counts == {"records": 2, "identical_sequences": 1, "truncated": 3}


def test_overlong_records_are_dropped_where_asked(tokenizer: Path) -> None:
    model = toy_model(tokenizer, encoding=Encoding(max_tokens=12, overlong="drop"))
    made = make_examples([Pair(PROMPT, "yes", "no"), *pairs(2, length=10)], model, "set")
    assert made.counts["too_long"] == 2
    assert len(made) == 1


def test_nothing_left_is_an_error(model: RewardModel) -> None:
    with pytest.raises(DataError, match=r"nothing to learn from in .* identical sequences"):
        make_examples([Pair(PROMPT, "same", "same")], model, "train")


def test_a_plan_visits_every_example_once_an_epoch_and_depends_on_the_seed(model: RewardModel) -> None:
    items = make_examples(pairs(10), model, "set").items
    plan = StepPlan(items, 4, 3, seed=1)
    steps = [plan[index] for index in range(len(plan))]
    assert [len(step) for step in steps] == [4, 4, 2] * 3
    for epoch in range(3):
        seen = [example for step in steps[3 * epoch : 3 * epoch + 3] for example in step]
        assert sorted(map(id, seen)) == sorted(map(id, items))
    # In any order of asking, as after a resume.
    assert [plan[index] for index in (7, 2, 0)] == [steps[index] for index in (7, 2, 0)]
    assert [StepPlan(items, 4, 3, seed=2)[index] for index in range(9)] != steps
    assert steps[:3] != steps[3:6]
