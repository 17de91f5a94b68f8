"""Mined substitutions: counts made by hand, and what they do to real reviews."""

from __future__ import annotations

from pathlib import Path

from rewardlab.audit.measures import measure_named
from rewardlab.audit.mined import HumanPair, Mined, Substitution, differences, mined
from rewardlab.audit.rules import RuleRewriter
from rewardlab.audit.units import Task, Unit
from rewardlab.records import Prompt


def sub(old: str, new: str, count: int = 1) -> Substitution:
    return Substitution(tuple(old.split()), tuple(new.split()), count, 0, 1.0)


def rewritten(text: str, towards: bool, *found: Substitution, most: int | None = None) -> str:
    return Mined({towards: list(found), not towards: []}, most).applied(text, towards)[0]


def test_differences_are_short_replacements_and_removals() -> None:
    found = differences("It isn't a BAD film, not at all boring.", "It is a good film, really thrilling.")
    assert list(found) == [(("isn't",), ("is",)), (("bad",), ("good",))]
    assert list(differences("a b c d e", "a d e")) == [(("b", "c"), ())]
    assert list(differences("a e", "a b e")) == []


def test_mining_counts_by_direction() -> None:
    pairs = [
        *[HumanPair(f"a bad film {i}", f"a good film {i}", True) for i in range(4)],
        HumanPair("one bad film", "one fine film", True),
        HumanPair("a bad day", "the bad day", True),
        *[HumanPair(f"some good film {i}", f"some bad film {i}", False) for i in range(3)],
        # Seen in both directions alike: about nothing.
        *[HumanPair(f"the cat {i}", f"that cat {i}", way) for i in range(5) for way in (True, False)],
    ]
    found = mined(pairs, least=3)
    # "bad" stands in 6 originals on the way to positive, and was replaced in 5 of them.
    assert found[True] == [Substitution(("bad",), ("good",), 4, 0, 5 / 6)]
    assert found[False] == [Substitution(("good",), ("bad",), 3, 0, 1.0)]
    assert mined(pairs, least=3, share=0.9)[True] == []
    assert [one.new for one in mined(pairs, least=1, share=0.3)[True]] == [("good",), ("fine",)]
    assert mined([]) == {True: [], False: []}


def test_the_most_frequent_that_applies_wins_and_none_overlaps() -> None:
    assert rewritten("Bad, BAD film. A badge.", True, sub("bad", "good")) == "Good, GOOD film. A badge."
    assert rewritten("a bad film", True, sub("bad", "good", 5), sub("bad", "great", 9)) == "a great film"
    assert rewritten("not bad", True, sub("not bad", "superb", 2), sub("bad", "good", 3)) == "not good"
    assert rewritten("not bad", True, sub("not bad", "superb", 3), sub("bad", "good", 2)) == "superb"
    assert rewritten("I don't like it", True, sub("don't", "")) == "I like it"
    assert rewritten("Never again, never.", True, sub("never", "")) == "again,."
    assert rewritten("a dull film", True, sub("a dull", "an exciting ,")) == "an exciting, film"
    assert (
        rewritten("bad bad bad ugly", True, sub("bad", "good", 1), sub("ugly", "fair", 2), most=2)
        == "good bad bad fair"
    )
    assert rewritten("a bad film", False, sub("good", "bad")) == "a bad film"


def test_the_rule_goes_both_ways_and_takes_hostile_text() -> None:
    rule = Mined({True: [sub("bad", "good")], False: [sub("good", "bad")]})
    rewriter = RuleRewriter(rule)
    (chain,) = rewriter.chains([Task(Unit(Prompt(()), "A bad film.", False))], 3)
    assert [rewrite.text for rewrite in chain.rewrites] == ["A good film.", "A bad film.", "A good film."]
    (same,) = rewriter.chains([Task(Unit(Prompt(()), "A film.", False))], 2)
    assert [rewrite.outcome for rewrite in same.rewrites] == ["identical", "identical"]
    hostile = ["", "\ud800", "\x00 bad", "'" * 9999, "bad " * 9999]
    assert len(list(rewriter.chains([Task(Unit(Prompt(()), text, False)) for text in hostile], 2))) == 5
    assert RuleRewriter(Mined(rule.substitutions, 3)).name != rewriter.name


def human_pairs(shared: Path, part: str) -> list[HumanPair]:
    lines = (shared / f"data/counterfactual-imdb/{part}_paired.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [HumanPair(a[1], b[1], b[0] == "Positive") for a, b in zip(rows[::2], rows[1::2], strict=True)]


def test_substitutions_of_human_rewrites(shared: Path) -> None:
    """Mined from 1,707 training pairs: opposites are found, and nearly all of the 488 unseen reviews change."""
    found = mined(human_pairs(shared, "train"))
    assert {True: len(found[True]), False: len(found[False])} == {True: 191, False: 159}
    best = {way: {(one.old, one.new) for one in found[way][:12]} for way in (True, False)}
    assert {(("bad",), ("good",)), (("worst",), ("best",))} <= best[True]
    assert {(("good",), ("bad",)), (("best",), ("worst",)), (("love",), ("hate",))} <= best[False]
    rule, test = Mined(found), human_pairs(shared, "test")
    changed = [rule.applied(pair.original, pair.positive)[0] for pair in test]
    assert sum(new != pair.original for new, pair in zip(changed, test, strict=True)) == 481
    # VADER knows nothing of the mining: the rule moves it nearly as far as people did, and the same way.
    sentiment = measure_named("sentiment")
    signs = [1 if pair.positive else -1 for pair in test]
    before, human, rule_made = (
        sentiment.values(texts)
        for texts in ([pair.original for pair in test], [pair.rewrite for pair in test], changed)
    )
    by_human = sum(sign * (new - old) for sign, new, old in zip(signs, human, before, strict=True)) / len(test)
    by_rule = sum(sign * (new - old) for sign, new, old in zip(signs, rule_made, before, strict=True)) / len(test)
    assert by_human > 0.9
    assert 0.7 * by_human < by_rule < 1.1 * by_human
