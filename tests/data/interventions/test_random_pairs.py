"""Random pairs: whose answer, how many, and where they come from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from made_pairs import drawn_pairs, pair

from rewardlab.data.interventions import random_pairs as random_pairs_module
from rewardlab.data.interventions.random_pairs import ORIGIN, random_pairs
from rewardlab.data.splits import Fractions, split
from rewardlab.errors import DataError
from rewardlab.records import Pair, Prompt, Record


def copies(records: object) -> list[Pair]:
    assert isinstance(records, list)
    return [record for record in records if isinstance(record, Pair) and ORIGIN in record.meta]


def test_copies_have_another_prompts_chosen_answer() -> None:
    pairs = drawn_pairs(200)
    by_id = {one.id: one for one in pairs}
    answers = {text: one.prompt.id for one in pairs for text in one.completions}
    changed = random_pairs(pairs, 0.25, 0)
    made = copies(changed.records)
    assert changed.counts == {"copies added": 62}
    assert len(changed.records) == 250 + 62
    assert Counter(record.id for record in changed.records if record not in made) == Counter(one.id for one in pairs)
    for copy in made:
        original, donor = (by_id[copy.meta[ORIGIN][name]] for name in ("of", "donor"))
        assert (copy.prompt, copy.chosen, copy.rejected) == (original.prompt, original.chosen, donor.chosen)
        assert donor.prompt.id != copy.prompt.id
        assert answers[copy.rejected] != copy.prompt.id
        assert (copy.margin, dict(copy.meta)) == (None, {ORIGIN: copy.meta[ORIGIN]})
        assert copy.source in {one.source for one in pairs if one.id == original.id}
        assert copy.id not in by_id


def test_the_number_is_rounded_down() -> None:
    pairs = [pair(f"q{i}", 3, 2) for i in range(7)]
    assert [len(copies(random_pairs(pairs, ratio, 0).records)) for ratio in (0.1, 0.25, 0.3, 1.0)] == [0, 1, 2, 7]


def test_no_pair_is_copied_twice() -> None:
    pairs = [pair(f"q{i}", 3, 2) for i in range(40)]
    origins = [copy.meta[ORIGIN]["of"] for copy in copies(random_pairs(pairs, 1.0, 5).records)]
    assert sorted(origins) == sorted(one.id for one in pairs)


@pytest.mark.parametrize("attempts", [0, 1, 16])
def test_all_donors_are_as_likely(attempts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four prompts, the first with two pairs: each other pair is its donor in a third of 900 seeds (sd 14)."""
    monkeypatch.setattr(random_pairs_module, "ATTEMPTS", attempts)
    pairs = [pair("a", 3, 2), pair("a", 4, 2), pair("b", 3, 2), pair("c", 3, 2), pair("d", 3, 2)]
    drawn: Counter[str] = Counter()
    for seed in range(900):
        drawn.update(
            copy.meta[ORIGIN]["donor"]
            for copy in copies(random_pairs(pairs, 1.0, seed).records)
            if copy.meta[ORIGIN]["of"] == pairs[0].id
        )
    assert set(drawn) == {one.id for one in pairs[2:]}
    assert sorted(drawn.values()) == pytest.approx([300] * 3, abs=56)


def test_all_pairs_are_as_likely_to_be_copied() -> None:
    """A quarter of 8 is 2: each in a quarter of 1,600 seeds, 400 with a standard deviation of 17."""
    pairs = [pair(f"q{i}", 3, 2) for i in range(8)]
    drawn: Counter[str] = Counter()
    for seed in range(1600):
        drawn.update(copy.meta[ORIGIN]["of"] for copy in copies(random_pairs(pairs, 0.25, seed).records))
    assert [drawn[one.id] for one in pairs] == pytest.approx([400] * 8, abs=70)


def test_copies_are_mixed_with_the_rest() -> None:
    """Appended and not shuffled, all 50 would stand behind; shuffled, their mean place is 125 with an sd of 9."""
    pairs = [pair(f"q{i}", 3, 2) for i in range(200)]
    records = random_pairs(pairs, 0.25, 0).records
    places = [number for number, record in enumerate(records) if ORIGIN in record.meta]
    assert len(places) == 50
    assert sum(places) / 50 == pytest.approx(124.5, abs=37)


def test_another_seed_is_another_order() -> None:
    """Rank correlation of two orders of 200 that have nothing to do with each other: 0 with an sd of .07."""
    pairs = [pair(f"q{i}", 3, 2) for i in range(200)]
    ranks = []
    for seed in (0, 1):
        records = [record.id for record in random_pairs(pairs, 0.25, seed).records if ORIGIN not in record.meta]
        ranks.append([records.index(one.id) for one in pairs])
    assert abs(np.corrcoef(*ranks)[0, 1]) < 0.28


def test_a_text_that_answers_this_prompt_too_is_no_donor() -> None:
    """What was chosen for b is also the rejected answer to a: a copy of a could only be a itself again."""
    sorry = "I cannot help with that"
    a = Pair(Prompt.of_text("a"), "Gladly", sorry)
    b = Pair(Prompt.of_text("b"), f"{sorry} ", "No")
    c = Pair(Prompt.of_text("c"), "Of course", "No")
    for seed in range(30):
        made = copies(random_pairs([a, b, c], 1.0, seed).records)
        assert next(copy.rejected for copy in made if copy.prompt == a.prompt) == "Of course"


def test_every_pair_without_a_donor_is_named() -> None:
    with pytest.raises(DataError) as caught:
        random_pairs([pair("a", 3, 2), pair("a", 4, 2)], 1.0, 0)
    assert len(caught.value.problems) == 2
    assert "found no donor" in str(caught.value)


def test_copies_stay_on_their_pairs_side_of_a_split() -> None:
    pairs = drawn_pairs(150)
    sides = {record.id: side for side, members in split(pairs, Fractions(), 0).items() for record in members}
    augmented: list[Record] = list(random_pairs(pairs, 1.0, 0).records)
    for side, members in split(augmented, Fractions(), 0).items():
        for copy in copies(members):
            assert sides[copy.meta[ORIGIN]["of"]] == side
