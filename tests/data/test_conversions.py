"""From one kind of records to another: hand-made records, round trips, and cuts of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.conversions.base import alike_together
from rewardlab.data.conversions.best import best
from rewardlab.data.conversions.candidates import as_candidates
from rewardlab.data.conversions.pairs import FEW, NEAR, SAME, TIES, as_pairs
from rewardlab.data.conversions.prefixes import REPEATED, SHORT, as_prefixes
from rewardlab.data.conversions.sentences import FEWER, NONE, first_sentences
from rewardlab.data.load import DataSource, load
from rewardlab.data.pairs import KEPT
from rewardlab.data.tokenize import read_tokenizer
from rewardlab.errors import ModelError, Problem
from rewardlab.records import Candidates, Pair, Prompt, Rated, Record, Source

Q, P = Prompt.of_text("q"), Prompt.of_text("p")
SAMPLED = {"finish_reasons": ["stop", "length", "stop"], "tokens": [3, 9, 5], "token_ids": [[1], [2], [3]], "k": 1}


def sides(records: list[Record]) -> list[tuple[str, str]]:
    return [(record.chosen, record.rejected) for record in records if isinstance(record, Pair)]


def test_a_pair_is_two_candidates_and_a_pair_again() -> None:
    pairs: list[Record] = [Pair(Q, "a", "b", 0.5, Source("f", 1), {"k": 1}), Pair(P, "a", "b"), Pair(Q, "b", "c")]
    candidates = as_candidates("x", pairs, False, []).records
    assert candidates == [
        Candidates(Q, ("a", "b"), (1.0, 0.0), Source("f", 1)),
        Candidates(P, ("a", "b"), (1.0, 0.0)),
        Candidates(Q, ("b", "c"), (1.0, 0.0)),
    ]
    for choice in ("best-worst", "all"):
        again = as_pairs("x", candidates, choice, 0.0, []).records  # type: ignore[arg-type]
        assert again == pairs
        assert again[0].meta == {"k": 1, "candidates": [0, 1], "rewards": [1.0, 0.0]}


def test_a_margin_does_not_outlive_other_rewards() -> None:
    (candidates,) = as_candidates("x", [Pair(Q, "a", "b", 0.5)], False, []).records
    assert isinstance(candidates, Candidates)
    relabelled = Candidates(Q, candidates.completions, (0.0, 2.0), None, candidates.meta)
    (pair,) = as_pairs("x", [relabelled], "all", 0.0, []).records
    assert isinstance(pair, Pair)
    assert (pair.chosen, pair.margin) == ("b", None)


def test_real_pairs_come_back(shared: Path) -> None:
    pairs = list(load(DataSource(path=str(shared / "data/hh-rlhf"), subsets=("helpful-base",))).records)
    again = as_pairs("x", as_candidates("x", pairs, False, []).records, "best-worst", 0.0, []).records
    assert len(pairs) == 2348
    assert [record.id for record in again] == [record.id for record in pairs]


def test_pairs_of_a_prompt_merge_into_shares_of_wins() -> None:
    """a beats b and c, b beats c once and loses once: a 2 of 2, b 1 of 3, c 1 of 3."""
    pairs: list[Record] = [
        Pair(Q, "a", "b"),
        Pair(P, "x", "y"),
        Pair(Q, "a", "c"),
        Pair(Q, "b", "c"),
        Pair(Q, "c", "b"),
    ]
    merged = as_candidates("x", pairs, True, [])
    assert merged.records == [
        Candidates(Q, ("a", "b", "c"), (1.0, 1 / 3, 1 / 3)),
        Candidates(P, ("x", "y"), (1.0, 0.0)),
    ]
    assert merged.counts == {"records merged into another of their prompt": 3}
    assert sides(as_pairs("x", merged.records, "best-worst", 0.0, []).records) == [("a", "b"), ("x", "y")]


def test_samples_merge_in_their_order_with_what_is_known_of_each() -> None:
    first = Candidates(Q, ("a", "b"), (1.0, 2.0), None, {"tokens": [1, 2], "finish_reasons": ["stop", "stop"]})
    second = Candidates(Q, ("a",), (3.0,), None, {"tokens": [4]})
    (merged,) = as_candidates("x", [first, second, Rated(Q, "c", None, -1.0)][:2], True, []).records
    assert merged == Candidates(Q, ("a", "b", "a"), (1.0, 2.0, 3.0))
    assert merged.meta == {"tokens": [1, 2, 4], "merged": 2}
    rated = as_candidates("x", [Rated(Q, "a", True), Rated(Q, "b", False), Rated(P, "c", None, 4.0)], True, []).records
    assert rated == [Candidates(Q, ("a", "b"), (1.0, 0.0)), Candidates(P, ("c",), (4.0,))]


def test_what_is_on_no_common_scale_is_not_merged() -> None:
    problems: list[Problem] = []
    mixed: list[Record] = [Pair(Q, "a", "b"), Candidates(Q, ("c",), (9.0,)), Candidates(P, ("c",)), Rated(P, "d", True)]
    as_candidates("x", mixed, True, problems)
    assert [str(one) for one in problems] == [
        (
            "x, record 1: found 1 pairs and 1 other records of one prompt; expected records of one kind to merge. "
            "Wins and rewards are not on one scale: convert them apart."
        ),
        "x, record 3: found 1 of 2 records of one prompt with rewards; expected rewards in all of them, or in none",
    ]


def test_best_against_worst_and_all_pairs_with_a_margin() -> None:
    candidates = Candidates(Q, ("a", "b", "c", "d", "d "), (1.0, 3.0, 1.0, 0.5, 0.0))
    one, two, alone = Candidates(P, ("e", "f"), (2.0, 2.0)), Candidates(P, ("g", "h"), (0.0, 0.25)), Pair(P, "i", "j")
    records: list[Record] = [candidates, one, two, alone, Candidates(Q, ("k",), (1.0,))]
    found = as_pairs("x", records, "best-worst", 0.25, [])
    assert sides(found.records) == [("b", "d "), ("i", "j")]
    assert found.counts == {TIES: 1, NEAR: 1, SAME: 0, FEW: 1}
    every = as_pairs("x", records, "all", 0.0, [])
    # In the order of the completions: (a, b), (a, d), (a, "d "), (b, c), ...
    assert sides(every.records) == [
        *[("b", "a"), ("a", "d"), ("a", "d "), ("b", "c"), ("b", "d"), ("b", "d "), ("c", "d"), ("c", "d ")],
        *[("h", "g"), ("i", "j")],
    ]
    # a and c are equal, as are e and f; d and "d " are one text with two rewards.
    assert every.counts == {TIES: 2, NEAR: 0, SAME: 1, FEW: 1}
    # .5 apart are a and d, c and d, and (one text) d and "d "; .25 are g and h.
    wide = as_pairs("x", records, "all", 0.5, [])
    assert sorted(sides(wide.records)) == [
        ("a", "d "),
        ("b", "a"),
        ("b", "c"),
        ("b", "d"),
        ("b", "d "),
        ("c", "d "),
        ("i", "j"),
    ]
    assert wide.counts == {TIES: 2, NEAR: 4, SAME: 0, FEW: 1}


def test_what_is_known_of_a_completion_goes_with_it() -> None:
    candidates = Candidates(Q, ("a", "b", "c"), (1.0, 0.0, 2.0), None, SAMPLED)
    (pair,) = as_pairs("x", [candidates], "best-worst", 0.0, []).records
    assert pair.meta == {
        "finish_reasons": ["stop", "length"],
        "tokens": [5, 9],
        "token_ids": [[3], [2]],
        "k": 1,
        "candidates": [2, 1],
        "rewards": [2.0, 0.0],
    }
    (rated,) = best("x", [candidates], 2, None, []).records
    assert rated == Rated(Q, "a", None, 1.0)
    assert rated.meta == {
        "finish_reasons": ["stop"],
        "tokens": [3],
        "token_ids": [[1]],
        "k": 1,
        "best_of": {"n": 2, "candidate": 0},
    }
    (third,) = best("x", [candidates], None, None, []).records
    assert third.meta == {**rated.meta, "tokens": [5], "token_ids": [[3]], "best_of": {"n": 3, "candidate": 2}}


def test_best_of_the_first_n_and_the_longest_of_them() -> None:
    records: list[Record] = [
        Candidates(Q, ("a", "b", "c"), (1.0, 0.0, 2.0), None, SAMPLED),
        Candidates(P, ("d", "e", "f"), (0.0, 3.0, 3.0), None, {"tokens": [7, 7, 8]}),
    ]

    def chosen(size: int | None, longest: bool = False) -> list[tuple[str, float | None]]:
        lengths = (lambda record: record.meta["tokens"]) if longest else None
        found = best("x", records, size, lengths, []).records
        return [(record.completion, record.score) for record in found if isinstance(record, Rated)]

    assert chosen(1) == [("a", 1.0), ("d", 0.0)]
    assert chosen(2) == [("a", 1.0), ("e", 3.0)]
    assert chosen(3) == chosen(None) == [("c", 2.0), ("e", 3.0)]
    assert chosen(3, longest=True) == [("b", 0.0), ("f", 3.0)]
    assert chosen(2, longest=True) == [("b", 0.0), ("d", 0.0)]


def test_dropped_empty_completions_are_among_the_first_n() -> None:
    """Of four draws the first and the last were empty: the best of one is nothing, of two and of four the second."""
    record = Candidates(Q, ("b", "c"), (2.0, 1.0), meta={KEPT: {"of": 4, "places": [1, 2]}})
    problems: list[Problem] = []
    found = {size: best("x", [record], size, None, problems) for size in (1, 2, 4, 5)}
    told = [(one.completions, one.meta["best_of"]) for size in (2, 4) for one in found[size].records]
    assert told == [(("b",), {"n": 2, "candidate": 0}), (("b",), {"n": 4, "candidate": 0})]
    assert (found[1].records, list(found[1].counts.values())) == ([], [1])
    assert [one.found for one in problems] == ["4 completions"]


def test_the_longest_needs_no_rewards() -> None:
    bare = Candidates(Q, ("one", "two words"))
    found = best("x", [bare], None, lambda record: [len(text.split()) for text in record.completions], []).records
    assert found == [Candidates(Q, ("two words",))]


def test_every_record_that_cannot_be_converted_is_told() -> None:
    problems: list[Problem] = []
    records: list[Record] = [
        Candidates(Q, ("a", "b")),
        Rated(Q, "a", True),
        Candidates(Q, ("a",), (1.0,)),
        Pair(Q, "a", "b"),
    ]
    assert best("x", records, 2, None, problems).records == []
    assert [(one.where, one.found) for one in problems] == [
        ("x, record 1", "candidates without rewards"),
        ("x, record 2", "a rated"),
        ("x, record 3", "1 completions"),
        ("x, record 4", "a pair"),
    ]
    told = alike_together([Problem(f"row {n}", "f", "e") for n in range(10)] + [Problem("row 3", "g", "e")])
    assert [one.where for one in told] == ["row 0; row 1; row 2; and 7 more", "row 3"]


@pytest.fixture(scope="module")
def gpt2(shared: Path) -> Any:
    return read_tokenizer(str(shared / "models/gpt2-tokenizer"))


REVIEWS: list[Record] = [
    Rated(Prompt(()), "This movie is a real treat, naïve but café-bright 🎬 all through.", True),
    Candidates(Prompt(()), ("  Dull. Dull. Dull.\nAnd then it ends.", "Fine")),
    Rated(Prompt(()), "This movie is a bore from start to end.", None, -1.5),
]


def test_prefixes_are_the_first_tokens_and_lose_nothing(gpt2: Any) -> None:
    """Against the tokenizer's own ids, decoded."""
    made = as_prefixes(REVIEWS, gpt2, (3, 3), 0)
    texts = [text for record in REVIEWS for text in record.completions if text != "Fine"]
    assert made.counts == {SHORT: 1, REPEATED: 1}
    for record, text in zip(made.records, texts, strict=True):
        prefix = record.prompt.messages[0].content
        assert record.prompt.is_text
        assert prefix == gpt2.decode(gpt2(text)["input_ids"][:3])
        assert prefix + record.completions[0] == text
    assert [record.meta for record in made.records] == [
        {"label": True, "prefix_tokens": 3},
        {"prefix_tokens": 3},
        {"score": -1.5, "prefix_tokens": 3},
    ]


def test_numbers_of_tokens_are_drawn_by_text_and_seed(gpt2: Any) -> None:
    texts: list[Record] = [
        Rated(Prompt(()), f"{n} one two three four five six seven eight nine ten", True) for n in range(300)
    ]

    def drawn(records: list[Record], seed: int) -> list[int]:
        return [record.meta["prefix_tokens"] for record in as_prefixes(records, gpt2, (2, 8), seed).records]

    counts = {n: drawn(texts, 0).count(n) for n in range(2, 9)}
    # 300 draws of seven numbers: 43 expected of each, sd 6; the seed is fixed.
    assert set(drawn(texts, 0)) == set(range(2, 9))
    assert all(20 <= count <= 66 for count in counts.values())
    assert drawn(texts[::-1], 0) == drawn(texts, 0)[::-1]
    assert drawn(texts, 1) != drawn(texts, 0)


@pytest.mark.parametrize("tokens", range(1, 25))
def test_a_character_is_never_cut(gpt2: Any, tokens: int) -> None:
    text = "naïve 🎬🎬 ﷽ 日本語のレビュー and more \ud800 of it all, on and on"
    for record in as_prefixes([Rated(Prompt(()), text, True)], gpt2, (tokens, tokens), 0).records:
        prefix = record.prompt.messages[0].content
        assert prefix + record.completions[0] == text
        assert "\ufffd" not in prefix


def test_a_tokenizer_without_places_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"found Slow; expected a tokenizer that knows the places of its tokens"):
        as_prefixes(REVIEWS, Slow(), (2, 8), 0)


def test_prefixes_are_counted_in_words_without_a_tokenizer() -> None:
    made = as_prefixes(REVIEWS, None, (3, 3), 0)
    assert [(record.prompt.messages[0].content, record.completions) for record in made.records] == [
        ("This movie is", (" a real treat, naïve but café-bright 🎬 all through.",)),
        ("  Dull. Dull. Dull.", ("\nAnd then it ends.",)),
        ("This movie is", (" a bore from start to end.",)),
    ]
    assert made.counts == {SHORT: 1, REPEATED: 1}


def test_a_prefix_knows_of_its_own_text_alone() -> None:
    """Whether a text was cut off holds for its rest; its tokens do not, nor anything of the other texts."""
    meta = {"finish_reasons": ["length", "stop"], "tokens": [4, 3], "token_ids": [[1], [2]], "temperature": 1.0}
    records: list[Record] = [Candidates(Prompt(()), ("a b c d", "e f g"), None, None, meta)]
    made = as_prefixes(records, None, (1, 1), 0).records
    assert [one.meta for one in made] == [
        {"finish_reasons": ["length"], "temperature": 1.0, "prefix_tokens": 1},
        {"finish_reasons": ["stop"], "temperature": 1.0, "prefix_tokens": 1},
    ]


def test_completions_are_cut_behind_whole_sentences() -> None:
    texts = ('It rained. "Oh no!" said Tim. He was sa', "No end", "One.\nTwo! Three? Four")
    meta = {"finish_reasons": ["length"] * 3, "tokens": [9, 2, 7], "token_ids": [[1]] * 3, "temperature": 1.0}
    records: list[Record] = [Candidates(Prompt(()), texts, (1.0, 2.0, 3.0), None, meta)]
    (found,) = first_sentences(records, (2, 2), 0).records
    assert found.completions == ('It rained. "Oh no!"', "One.\nTwo!")
    # What is left is whole, so nothing may say that it was cut off, or what it was worth before.
    assert (getattr(found, "rewards", None), found.meta) == (None, {"temperature": 1.0})
    made = first_sentences(records, (4, 4), 0)
    assert made.records[0].completions == ('It rained. "Oh no!" said Tim.', "One.\nTwo! Three?")
    assert made.counts == {NONE: 1, FEWER: 2}
    assert first_sentences([Rated(Prompt(()), "none", True)], (1, 1), 0).records == []


def test_numbers_of_sentences_are_drawn_by_text_and_seed() -> None:
    texts: list[Record] = [Rated(Prompt(()), f"{n}" + ". Yes" * 9 + ".", True) for n in range(300)]

    def drawn(records: list[Record], seed: int) -> list[int]:
        return [record.completions[0].count(".") for record in first_sentences(records, (1, 6), seed).records]

    counts = {n: drawn(texts, 0).count(n) for n in range(1, 7)}
    # 300 draws of six numbers: 50 expected of each, sd 6.5; the seed is fixed.
    assert sum(counts.values()) == 300
    assert all(24 <= count <= 76 for count in counts.values())
    assert drawn(texts[::-1], 0) == drawn(texts, 0)[::-1]
    assert drawn(texts, 1) != drawn(texts, 0)
