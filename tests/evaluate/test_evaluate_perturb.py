"""`evaluate perturb`: flips and shifts of scorers whose response to a change is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scored_data import Score, Workshop, conversation, score_rows

from rewardlab.data.perturb import PERTURBATIONS, Perturbation, perturbed
from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluate.perturb import PerturbEvaluation, PerturbResult, evaluate_perturb
from rewardlab.records import Candidates, Pair, Prompt, Record

SEED = 3


def pairs(lengths: list[tuple[int, int]]) -> list[Record]:
    """Answers of so many words, each of three letters."""
    return [
        Pair(conversation(f"question {n}"), " ".join(["abc"] * chosen), " ".join(["abc"] * rejected))
        for n, (chosen, rejected) in enumerate(lengths)
    ]


def score_words(prompt: Prompt, text: str) -> float:
    return float(len(text.split()))


def evaluated(
    workshop: Workshop,
    records: list[Record],
    names: list[Perturbation],
    score: Score = score_words,
    **options: object,
) -> PerturbResult:
    """Scored with the number of words, or as given; the tables keep the ids of the unchanged texts."""
    data, folder = workshop.records("data.jsonl", records), workshop.scores("scores", records, score)
    for name in names:
        rows = score_rows(records, lambda prompt, text, name=name: score(prompt, perturbed(name, text, SEED)))
        workshop.table("scores", rows, f"scores.{name}.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": SEED}))
    return evaluate_perturb(PerturbEvaluation.model_validate({"data": [data], "scores": [folder], **options}), workshop)


def value(result: PerturbResult, name: str) -> float:
    found = result[f"battery.{name}"].value
    assert found is not None
    return found


def test_repetition_doubles_words_by_hand(workshop: Workshop) -> None:
    """Chosen 5, 3, 2 words against 2, 4, 2. Twice as many on both sides: no order moves. Chosen alone, 10, 6, 4 against
    2, 4, 2: the second turns around, the tie goes. Rejected alone, 5, 3, 2 against 4, 8, 4: the tie goes."""
    result = evaluated(workshop, pairs([(5, 2), (3, 4), (2, 2)]), ["repeated"])
    assert value(result, "repeated.changed") == 1.0
    assert value(result, "repeated.flips") == 0.0
    assert value(result, "repeated.flips_chosen") == pytest.approx((0 + 1 + 0.5) / 3)
    assert value(result, "repeated.flips_rejected") == pytest.approx((0 + 0 + 0.5) / 3)
    assert value(result, "repeated.accuracy_lost") == 0.0
    scores = np.array([5, 2, 3, 4, 2, 2.0])
    unit = scores.std(ddof=1)
    assert value(result, "repeated.shift") == pytest.approx(scores.mean() / unit)
    assert value(result, "repeated.shift_chosen") == pytest.approx((5 + 3 + 2) / 3 / unit)
    assert value(result, "repeated.shift_rejected") == pytest.approx((2 + 4 + 2) / 3 / unit)
    assert result["battery.typos.flips"].value is None
    assert "scores.typos.parquet" in result["battery.typos.flips"].reason


def test_what_a_scorer_does_not_see_changes_nothing(workshop: Workshop) -> None:
    result = evaluated(workshop, pairs([(5, 2), (3, 4), (8, 2), (9, 3)]), ["casing", "whitespace", "typos"])
    for name in ("whitespace", "typos"):
        assert value(result, f"{name}.flips") == 0.0
        assert value(result, f"{name}.shift_size") == 0.0
    assert result["battery.casing.changed"].value == 0.0, "these texts are in lower case"
    assert result["battery.casing.flips"].reason == "the perturbation changes none of the answers"
    assert result["battery.casing.shift"].reason == "the perturbation changes none of the answers"


def test_padding_favours_the_side_that_gets_it(workshop: Workshop) -> None:
    """Padding adds more than two words: where the sides differ by one, whoever gets it wins."""
    result = evaluated(workshop, pairs([(3, 4)] * 10), ["padding"])
    assert value(result, "padding.flips_chosen") == 1.0
    assert value(result, "padding.flips_rejected") == 0.0


def test_only_answers_that_change_count(workshop: Workshop) -> None:
    """A single word has no gap and no other order; of the second pair only the chosen side has two sentences."""
    records: list[Record] = [
        Pair(conversation("a"), "Yes.", "No."),
        Pair(conversation("b"), "One. Two.", "No."),
    ]
    result = evaluated(workshop, records, ["sentence_order"])
    assert value(result, "sentence_order.changed") == 0.25
    found = {
        leaf: result[f"battery.sentence_order.{leaf}"] for leaf in ("flips", "flips_chosen", "flips_rejected", "shift")
    }
    assert [found[leaf].n for leaf in ("flips", "flips_chosen", "flips_rejected", "shift")] == [1, 1, 0, 1]


def test_candidates_make_all_their_pairs(workshop: Workshop) -> None:
    texts = tuple(" ".join(["abc"] * words) for words in (5, 4, 2))
    record = Candidates(conversation("q"), texts, (1.0, 1.0, 0.0))
    result = evaluated(workshop, [record, *pairs([(3, 2)])], ["repeated"])
    assert result.raw["counts"] == {"pairs": 3, "answers": 5, "prompts": 2, "clusters": 2}


def test_folds_have_a_scale_of_their_own(workshop: Workshop) -> None:
    """The constant of a reward model is free: 1,000 more in one table moves no standard deviation."""
    first, second = pairs([(5, 2), (3, 4)]), pairs([(6, 2), (2, 9)])
    folders: list[Path] = []
    for number, records in enumerate((first, second)):
        shift = 1000.0 * number
        folder = workshop.scores(f"fold{number}", records, lambda p, t, by=shift: score_words(p, t) + by)
        rows = score_rows(records, lambda p, t, by=shift: 2 * score_words(p, t) + by)
        workshop.table(f"fold{number}", rows, "scores.repeated.parquet")
        folders.append(folder)
    data = [workshop.records("first.jsonl", first), workshop.records("second.jsonl", second)]
    config = PerturbEvaluation(data=tuple(data), scores=tuple(folders), scoring_seed=SEED)
    result = evaluate_perturb(config, workshop)
    centred = np.concatenate([np.array([5, 2, 3, 4]) - 3.5, np.array([6, 2, 2, 9]) - 4.75])
    assert value(result, "repeated.shift") == pytest.approx((14 + 19) / 8 / centred.std(ddof=1))


def test_findings_name_what_is_rewarded_for_nothing(workshop: Workshop) -> None:
    rng = np.random.default_rng(0)
    result = evaluated(workshop, pairs([tuple(rng.integers(5, 30, 2)) for _ in range(60)]), list(PERTURBATIONS))
    words = "\n".join(result.lines())
    assert "It rewards what says nothing new: saying it twice +" in words
    assert "Anybody can have that reward with any answer." in words
    assert json.loads(workshop.path("perturb.json").read_text()) == json.loads(json.dumps(result.raw))
    assert result.lines()[0] in workshop.path("perturb.txt").read_text()


def first_word(prompt: Prompt, text: str) -> float:
    """The number that the text begins with; 0 for a loud text in lower case."""
    return 0.0 if text == "8 loud" else float(text.split()[0])


def two_sentences(count: int) -> list[Record]:
    """Pairs that turn around when the two sentences of the chosen answer change places."""
    return [Pair(conversation(f"two {n}"), "9 words here. 0 words there.", "5 words.") for n in range(count)]


@pytest.mark.parametrize("turned", [4, 30])
def test_the_headline_counts_the_pairs_that_a_change_alters(workshop: Workshop, turned: int) -> None:
    """Of 100 pairs another sentence order alters 4 or 30, and turns all of those around; lower case alters 60 others,
    of which it turns 15 around. Four are too few for the most of anything."""
    records = [*two_sentences(turned)]
    records += [Pair(conversation(f"loud {n}"), "8 LOUD" if n < 15 else "6 LOUD", "5 x") for n in range(60)]
    records += [Pair(conversation(f"plain {n}"), "7 x", "5 x") for n in range(100 - len(records))]
    (line, *_) = evaluated(workshop, records, ["sentence_order", "casing"], first_word).lines()
    lower = "Under lower case in both answers the order of 25.0 % (95 % interval 13.7 to 36.3) of the 60 pairs that it "
    order = "Under another sentence order in both answers the order of 100.0 % (95 % interval 88.4 to 100.0) of the 30 "
    fewest = "the most of 2 changes that keep the meaning; the fewest under lower case, 25.0 % (13.7 to 36.3) of 60."
    expected = {
        4: f"{lower}changes turns around.",
        30: f"{order}pairs that it changes turns around, {fewest}",
    }
    assert line == expected[turned]


def test_a_change_of_few_pairs_is_not_the_worst(workshop: Workshop) -> None:
    lines = evaluated(workshop, two_sentences(5), ["sentence_order"], first_word).lines()
    assert lines[0] == "No change alters 30 pairs or more: too few to say which turns the most of them around."
    assert not any("ccuracy" in line for line in lines)


def test_turned_pairs_are_kept_to_read(workshop: Workshop) -> None:
    """Both get the same padding drawn apart: what turns around is shown with both texts, the furthest first."""
    result = evaluated(workshop, pairs([(n, n - 1) for n in range(4, 40)]), ["padding"], max_examples=2)
    examples = result.raw["examples"]["padding"]
    assert len(examples) == 2
    assert all(one["margin"] > 0 > one["margin_after"] for one in examples)
    moves = [one["margin"] - one["margin_after"] for one in examples]
    assert moves == sorted(moves, reverse=True)


def test_texts_are_changed_as_they_were_for_their_scores(workshop: Workshop) -> None:
    """Two score runs with seeds of their own, whose pairs all turn around; those of the second are longer."""
    seeds, data, folders = (SEED, 8), [], []
    for number, seed in enumerate(seeds):
        records = pairs([(n, n - 1) for n in range(4 + 20 * number, 14 + 20 * number)])
        folder = workshop.scores(f"of-{seed}", records, score_words)
        turned = score_rows(records, lambda prompt, text: -score_words(prompt, text))
        workshop.table(f"of-{seed}", turned, "scores.padding.parquet")
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
        data.append(workshop.records(f"{seed}.jsonl", records))
        folders.append(folder)
    config = PerturbEvaluation(data=tuple(data), scores=tuple(folders), max_examples=20)
    examples = evaluate_perturb(config, workshop).raw["examples"]["padding"]
    assert len(examples) == 20
    for one in examples:
        seed = seeds[len(one["chosen"].split()) > 20]
        for side in ("chosen", "rejected"):
            assert one[f"{side}_after"] == perturbed("padding", one[side], seed)


def test_without_the_battery_there_is_nothing_to_compare(workshop: Workshop) -> None:
    with pytest.raises(DataError, match="Score with --battery"):
        evaluated(workshop, pairs([(1, 2)]), [])


def test_a_table_alone_does_not_say_its_seed(workshop: Workshop) -> None:
    records = pairs([(1, 2)])
    data, folder = workshop.records("data.jsonl", records), workshop.scores("scores", records, score_words)
    with pytest.raises(ConfigError, match="--scoring_seed"):
        evaluate_perturb(PerturbEvaluation(data=(data,), scores=(folder,)), workshop)
