"""Ignorant baselines learn what they can know and nothing else."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scored_data import Workshop, conversation

from rewardlab.errors import DataError
from rewardlab.evaluate.accuracy import AccuracyEvaluation, AccuracyResult, evaluate_accuracy
from rewardlab.evaluate.baselines import BagOfWords, length_weight, words
from rewardlab.evaluate.ignorance import fit_baselines
from rewardlab.evaluate.table import read_scored
from rewardlab.records import Candidates, Message, Pair, Prompt, Record
from rewardlab.report.page import Report

RNG = np.random.default_rng
FILLER = ["the", "a", "of", "and", "to", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are"]


def sentences(seed: int, n: int, giveaway: str = "", share: float = 1.0, prefix: str = "") -> list[Pair]:
    """Pairs of random words; a `share` of the chosen sides, and the other rejected ones, carry `giveaway`."""
    rng = RNG(seed)
    pairs = []
    for index in range(n):
        chosen, rejected = (" ".join(rng.choice(FILLER, size=rng.integers(5, 15))) for _ in range(2))
        if rng.random() < share:
            chosen = f"{chosen} {giveaway}"
        else:
            rejected = f"{rejected} {giveaway}"
        pairs.append(Pair(conversation(f"{prefix} {index}"), chosen.strip(), rejected.strip()))
    return pairs


def test_words_are_lower_case_words_marks_and_breaks() -> None:
    assert words("Don't stop, OK?\n\nYes: 3.5") == ["don't", "stop", ",", "ok", "?", "\n\n", "yes", ":", "3", ".", "5"]


def test_bag_of_words_learns_a_word_and_its_log_odds() -> None:
    train, test = sentences(1, 800, "indeed", 0.8), sentences(2, 400, "indeed", 0.8, "test")
    model = BagOfWords.fit(train)
    assert model is not None
    # Log-odds of 800 draws have a standard error of .09, and the ridge shrinks them a little.
    assert model.weights[model.vocabulary["indeed"]] == pytest.approx(math.log(0.8 / 0.2), abs=0.3)
    # Binomial(400, .8) has a standard deviation of .02.
    assert (model.margins(test) > 0).mean() == pytest.approx(0.8, abs=0.08)


def test_bag_of_words_counts_every_occurrence_and_ignores_unknown_words() -> None:
    model = BagOfWords({"good": 0, "bad": 1}, np.array([1.0, -2.0]))
    pair = Pair(conversation("p"), "Good good unheard", "good BAD unseen")
    assert model.margins([pair]).tolist() == [2.0 - (1.0 - 2.0)]
    assert model.margins([]).tolist() == []


def test_rare_words_do_not_count() -> None:
    pairs = [*sentences(3, 20), Pair(conversation("p"), "zebra zebra zebra", "yes")]
    model = BagOfWords.fit(pairs)
    assert model is not None
    assert "zebra" not in model.vocabulary
    assert BagOfWords.fit(pairs[-1:]) is None


@pytest.mark.parametrize(("longer_chosen", "sign"), [(0.7, 1), (0.3, -1)])
def test_length_weight_has_the_sign_that_training_pairs_show(longer_chosen: float, sign: int) -> None:
    rng = RNG(4)
    pairs = []
    for index in range(200):
        short, long = "x" * int(rng.integers(1, 20)), "y" * int(rng.integers(20, 60))
        sides = (long, short) if rng.random() < longer_chosen else (short, long)
        pairs.append(Pair(conversation(str(index)), *sides))
    assert np.sign(length_weight(pairs)) == sign


def test_no_length_to_learn_from() -> None:
    assert length_weight([Pair(conversation("p"), "ab", "cd")]) == 0.0
    assert length_weight([]) == 0.0


def evaluated(workshop: Workshop, train: list[list[Pair]], test: list[list[Pair]]) -> AccuracyResult:
    def paths(name: str, parts: list[list[Pair]]) -> tuple[object, ...]:
        return tuple(workshop.records(f"{name}{fold}.jsonl", part) for fold, part in enumerate(parts))

    scores = [workshop.scores(f"fold{fold}", part, lambda _, text: 0.0) for fold, part in enumerate(test)]
    config = AccuracyEvaluation.build({"data": paths("test", test), "scores": scores, "train": paths("train", train)})
    return evaluate_accuracy(config, workshop)


def test_baselines_stand_beside_the_model(workshop: Workshop) -> None:
    result = evaluated(workshop, [sentences(5, 300, "indeed")], [sentences(6, 100, "indeed", prefix="test")])
    assert result["baselines.bag_of_words.accuracy"].value == 1.0
    # The model scores everything alike: half right, so it adds minus a half.
    assert result["baselines.bag_of_words.gain"].value == -0.5
    assert result.counts["train_pairs"] == 300
    assert result["baselines.length_only.accuracy"].value is not None


def test_every_fold_has_its_own_baseline(workshop: Workshop) -> None:
    """The word means the opposite in the second fold: one model for both would fail on one of them."""
    flipped = [Pair(p.prompt, p.rejected, p.chosen) for p in sentences(7, 300, "indeed")]
    test = [Pair(p.prompt, p.rejected, p.chosen) for p in sentences(8, 100, "indeed", prefix="two")]
    result = evaluated(
        workshop, [sentences(9, 300, "indeed"), flipped], [sentences(10, 100, "indeed", prefix="one"), test]
    )
    assert result["baselines.bag_of_words.accuracy"].value == 1.0


def test_several_training_files_of_one_model_are_joined(workshop: Workshop) -> None:
    test = sentences(11, 50, "indeed", prefix="test")
    train = [sentences(12, 150, "indeed", prefix="x"), sentences(13, 150, "indeed", prefix="y")]
    data, scores = workshop.records("test.jsonl", test), workshop.scores("scored", test, lambda _, text: 0.0)
    paths = tuple(workshop.records(f"t{n}.jsonl", part) for n, part in enumerate(train))
    result = evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,), train=paths), workshop)
    assert result.counts["train_pairs"] == 300
    assert result["baselines.bag_of_words.accuracy"].value == 1.0


def test_without_training_data_the_reason_is_said(workshop: Workshop) -> None:
    test = sentences(14, 10)
    data, scores = workshop.records("test.jsonl", test), workshop.scores("scored", test, lambda _, text: 0.0)
    result = evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,)), workshop)
    assert "set train" in result["baselines.bag_of_words.gain"].reason
    assert result.counts["shared_roots"] is None
    assert result["baselines.longer_tokens.accuracy"].value is not None


def test_training_data_without_pairs_or_words_give_reasons(workshop: Workshop) -> None:
    test = sentences(15, 10, prefix="test")
    unrated = [Candidates(conversation("k"), ("a", "b"))]
    data, scores = workshop.records("test.jsonl", test), workshop.scores("scored", test, lambda _, text: 0.0)
    for records, reason in ((unrated, "hold no pairs"), (sentences(16, 1), "too few to count words")):
        train = workshop.records("train.jsonl", records)
        result = evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,), train=(train,)), workshop)
        assert reason in result["baselines.bag_of_words.accuracy"].reason


def test_candidates_with_rewards_train_the_baselines_too(workshop: Workshop) -> None:
    train = [
        Candidates(conversation(f"k{n}"), (p.rejected, p.chosen), (0.0, 1.0))
        for n, p in enumerate(sentences(17, 200, "indeed"))
    ]
    test = sentences(18, 50, "indeed", prefix="test")
    data, scores = workshop.records("test.jsonl", test), workshop.scores("scored", test, lambda _, text: 0.0)
    path = workshop.records("train.jsonl", train)
    result = evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,), train=(path,)), workshop)
    assert result["baselines.bag_of_words.accuracy"].value == 1.0


def test_pairs_seen_in_training_are_refused(workshop: Workshop) -> None:
    pairs = sentences(19, 20)
    with pytest.raises(DataError, match="overlap") as caught:
        evaluated(workshop, [pairs[:5]], [pairs[3:]])
    (problem,) = caught.value.problems
    assert problem.found.startswith("2 of the ")
    assert any(pair.id in problem.found for pair in pairs[3:5])


def test_conversations_that_were_trained_on_are_counted_and_told(workshop: Workshop) -> None:
    """Other pairs of the same conversations: no pair leaks, the conversation does."""
    train, test = sentences(22, 40, prefix="seen"), sentences(23, 30, prefix="new")
    turn = Message("assistant", "and then?")
    again = [Pair(Prompt((*p.prompt.messages, turn)), p.chosen, p.rejected) for p in (*train[:3], train[2])]
    result = evaluated(workshop, [train], [[*test, *again]])
    assert (result.counts["shared_roots"], result.counts["roots"]) == (3, 33)
    assert result.lines()[3].startswith("Of the 33 conversations evaluated, 3 begin like one of the training data")
    clean = evaluated(workshop, [train], [test])
    assert clean.counts["shared_roots"] == 0
    assert len(clean.lines()) == 3


def test_conversations_are_shared_within_a_fold_only(workshop: Workshop) -> None:
    parts = [sentences(24, 20, prefix="one"), sentences(25, 20, prefix="two")]
    assert evaluated(workshop, parts[::-1], parts).counts["shared_roots"] == 0


def test_one_fold_is_in_memory_at_a_time(workshop: Workshop) -> None:
    """The training records of a fold are gone before those of the next one are read."""
    parts = [sentences(seed, 20, "indeed", prefix=f"fold {seed}") for seed in (26, 27, 28)]
    data = [workshop.records(f"test{n}.jsonl", part) for n, part in enumerate(parts)]
    scores = [workshop.scores(f"fold{n}", part, lambda _, text: 0.0) for n, part in enumerate(parts)]
    alive: list[weakref.ref[Pair]] = []

    class Fold:
        def __iter__(self) -> Iterator[Record]:
            assert not [kept for kept in alive if kept() is not None]
            pairs = sentences(29 + len(alive), 20, "indeed", prefix="train")
            alive.extend(map(weakref.ref, pairs))
            yield from pairs

    ignorant = fit_baselines(read_scored(data, scores), [Fold(), Fold(), Fold()])
    assert ignorant.counts["train_pairs"] == len(alive) == 60


def test_a_fold_too_small_for_words_leaves_the_length_of_every_fold(workshop: Workshop) -> None:
    parts = [sentences(32, 20, "indeed", prefix="one"), sentences(33, 20, "indeed", prefix="two")]
    result = evaluated(workshop, [sentences(34, 1), sentences(35, 40, "indeed", prefix="three")], parts)
    assert "too few" in result["baselines.bag_of_words.gain"].reason
    assert result["baselines.length_only.accuracy"].value != 0.5


def test_a_single_path_needs_no_list() -> None:
    alone = AccuracyEvaluation.build({"data": "test.jsonl", "scores": "scored", "train": "train.jsonl"})
    assert (alone.data, alone.scores, alone.train) == ((Path("test.jsonl"),), (Path("scored"),), (Path("train.jsonl"),))
    assert Report.build({"doctor": "d", "train": ["t"]}, flags=[("score", "s"), ("evaluate", "[e, f]")]) == Report(
        doctor=(Path("d"),), train=(Path("t"),), score=(Path("s"),), evaluate=(Path("e"), Path("f"))
    )


def test_overlap_is_looked_for_within_a_fold(workshop: Workshop) -> None:
    """What one fold tests, the others train on; only what a fold's own model has seen is a leak."""
    parts = [sentences(20, 20, "indeed", prefix="one"), sentences(21, 20, "indeed", prefix="two")]
    result = evaluated(workshop, parts[::-1], parts)
    assert result.counts["train_pairs"] == 40
    with pytest.raises(DataError, match="overlap") as caught:
        evaluated(workshop, [parts[1], parts[1][:3]], parts)
    (problem,) = caught.value.problems
    assert problem.found.startswith("3 of the ")
