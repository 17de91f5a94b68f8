"""What holds for every intervention, and for several in a row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_pairs import drawn_pairs, pair, pairs_with, word_lengths

from rewardlab.config import Config
from rewardlab.data.canonical import record_to_dict
from rewardlab.data.interventions.base import keys
from rewardlab.data.interventions.chain import Intervention, Interventions, in_words, intervene
from rewardlab.data.interventions.lengths import BINS, histogram
from rewardlab.errors import ConfigError, DataError
from rewardlab.functional.intervals import proportion
from rewardlab.records import Candidates, Prompt, Rated, Record, Source, canonical_json


class Holder(Config):
    interventions: Interventions
    """What is done."""


def chain(*values: Any) -> list[Intervention]:
    return Holder.build({"interventions": list(values)}).interventions


SEEDED: dict[str, Callable[[int], Any]] = {
    "balance-length": lambda seed: {"name": "balance-length", "seed": seed},
    "random-pairs": lambda seed: {"name": "random-pairs", "ratio": 0.3, "seed": seed},
    "plant-length": lambda seed: {"name": "plant-length", "share": 0.9, "seed": seed},
    "label-noise": lambda seed: {"name": "label-noise", "probability": 0.3, "seed": seed},
}
PLAIN = {
    "margin constant": {"name": "margin", "to": "constant", "value": 1.0},
    "margin difference": {"name": "margin", "to": "difference", "scale": 2.0},
    "margin none": {"name": "margin", "to": "none"},
    "cut": {"name": "cut", "by": "uid", "ids": "uids.txt"},
}
EVERY = {**{name: made(0) for name, made in SEEDED.items()}, **PLAIN}


@pytest.fixture(autouse=True)
def _list_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("uids.txt").write_text("".join(f"{number}\n" for number in range(0, 120, 3)))


def texts(records: list[Record]) -> list[str]:
    """Everything that the records are."""
    return [canonical_json(record_to_dict(record)) for record in records]


def after(value: Any, records: list[Record]) -> list[str]:
    return texts(intervene(records, chain(value), word_lengths()).records)


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_the_records_has_no_say(name: str) -> None:
    """Permuted input: the same records, in the permuted order; where all is shuffled, in the very same order."""
    records: list[Record] = list(drawn_pairs(120))
    permuted = random.Random(1).sample(records, len(records))
    found = intervene(records, chain(EVERY[name]), word_lengths()).records
    again = intervene(permuted, chain(EVERY[name]), word_lengths()).records
    if name == "random-pairs":
        assert texts(found) == texts(again)
    else:
        by_source = {record.source: text for record, text in zip(found, texts(found), strict=True)}
        assert texts(again) == [by_source[record.source] for record in permuted if record.source in by_source]
        assert len(again) == len(by_source)


@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_decides(name: str) -> None:
    records: list[Record] = list(drawn_pairs(120))
    first, again, other = (after(SEEDED[name](seed), records) for seed in (0, 0, 1))
    assert first == again
    assert Counter(first) != Counter(other)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_given_is_not_changed(name: str) -> None:
    records: list[Record] = list(drawn_pairs(120))
    before = texts(records)
    after(EVERY[name], records)
    assert texts(records) == before


@pytest.mark.parametrize(
    "name", ["balance-length", "plant-length", "margin constant", "margin difference", "margin none", "cut"]
)
def test_once_more_changes_nothing(name: str) -> None:
    records: list[Record] = list(drawn_pairs(120))
    once = intervene(records, chain(EVERY[name]), word_lengths()).records
    assert after(EVERY[name], once) == texts(once)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "cut"])
def test_records_that_are_no_pairs_are_refused(name: str) -> None:
    prompt = Prompt.of_text("q")
    records = [pair("a", 3, 2), Candidates(prompt, ("a", "b")), Rated(prompt, "a", label=True)]
    with pytest.raises(DataError, match=r"3 records \(1 pair, 1 candidates, 1 rated\); expected pairs only"):
        after(EVERY[name], records)


def test_one_after_the_other() -> None:
    """Balancing first or last is not the same: copies have lengths too."""
    records: list[Record] = list(drawn_pairs(200))
    copies, balance = EVERY["random-pairs"], EVERY["balance-length"]
    last = intervene(records, chain(copies, balance), word_lengths())
    rows = last.table["rows"]
    assert [row["name"] for row in rows] == ["before", "random-pairs", "balance-length"]
    assert [row["records"] for row in rows] == [250, 325, len(last.records)]
    assert rows[2]["longer_is_chosen"]["value"] == 0.5
    first = intervene(records, chain(balance, copies), word_lengths())
    assert first.table["rows"][1]["longer_is_chosen"]["value"] == 0.5
    assert first.table["rows"][2]["longer_is_chosen"]["value"] != 0.5
    assert rows[1]["settings"] == {"ratio": 0.3, "seed": 0}


def test_the_table_by_hand() -> None:
    """d: 15, 10, -3, 0, 250; the first two are of one prompt, which is one cluster of the interval."""
    a, b = pair("q", 16, 1), pair("q", 11, 1)
    records: list[Record] = [a, b, *pairs_with([-3, 0, 250])]
    done = intervene(records, chain({"name": "margin", "to": "none"}), word_lengths())
    (row, same) = done.table["rows"]
    assert (row["records"], row["pairs"], row["prompts"], row["equal_length"]) == (5, 5, 4, 1)
    assert row["mean_difference"] == pytest.approx((15 + 10 - 3 + 0 + 250) / 5)
    share = row["longer_is_chosen"]
    truth = proportion(np.array([1.0, 1.0, 0.0, 1.0]), np.array(["q", "q", "r", "s"]))
    assert (share["value"], share["n"], share["clusters"]) == (0.75, 4, 3)
    assert (share["low"], share["high"]) == (truth.low, truth.high)
    filled = {(one["low"], one["high"]): one["n"] for one in row["histogram"] if one["n"]}
    assert filled == {(11, 20): 1, (1, 10): 1, (-10, -1): 1, (0, 0): 1, (201, None): 1}
    assert row["histogram"] == same["histogram"]
    assert done.lines()[1].split() == [
        "before",
        "5",
        "0.750",
        f"[{truth.low:.3f},",
        f"{truth.high:.3f}]",
        "1",
        "+54.4",
        "words",
    ]
    assert done.lines()[-1].strip() == "0 changed"


def test_the_bins_hold_every_difference_once() -> None:
    """Their ends are those of length balancing: d falls into bin ceil(|d| / 10) of its sign."""
    differences = np.arange(-1000, 1001)
    rows = histogram(differences)
    assert sum(row["n"] or 0 for row in rows) == len(differences)
    assert len(rows) == len(BINS) == 43
    for d in (-201, -200, -191, -190, -11, -10, -1, 0, 1, 10, 11, 200, 201):
        (row,) = [row for row in histogram(np.array([d])) if row["n"]]
        number = -(-abs(d) // 10)
        ends = {0: (0, 0), 21: (201, None)}.get(number, (10 * number - 9, 10 * number))
        expected = ends if d >= 0 else (None if ends[1] is None else -ends[1], -ends[0])
        assert (row["low"], row["high"]) == expected, d


def test_each_text_is_measured_once() -> None:
    asked: list[str] = []

    def count(given: Any) -> list[int]:
        asked.extend(given)
        return [len(text.split()) for text in given]

    lengths = word_lengths()
    lengths.count = count
    intervene(drawn_pairs(50), chain("balance-length", "random-pairs", "balance-length"), lengths)
    assert len(asked) == len(set(asked))


def test_keys_tell_duplicates_apart_whatever_their_order() -> None:
    one, two = (pair("q", 3, 2, source=Source("f", number)) for number in (1, 2))
    assert keys([one, two]) == [f"{one.id}:0", f"{one.id}:1"]
    assert keys([two, one]) == [f"{one.id}:1", f"{one.id}:0"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"number 1 \(balance-length\): found no record"):
        after("balance-length", [pair("q", 9, 2)])


def test_names_alone_and_one_without_a_list() -> None:
    assert chain("balance-length", {"name": "random-pairs"}) == chain({"name": "balance-length"}, "random-pairs")
    flags = [("interventions", "balance-length"), ("interventions", "{name: random-pairs, ratio: 0.5}")]
    built = Holder.build(flags=flags).interventions
    assert [(one.name, one.seed) for one in built] == [("balance-length", 0), ("random-pairs", 0)]  # type: ignore[union-attr]
    assert Holder.build(flags=flags[:1]).interventions == built[:1]
    assert Holder.build({"interventions": "balance-length"}).interventions == built[:1]


def test_a_saved_configuration_builds_the_same(tmp_path: Path) -> None:
    built = Holder(interventions=chain(*EVERY.values()))
    (tmp_path / "config.yaml").write_text(built.to_yaml(), encoding="utf-8")
    assert Holder.build(files=[tmp_path / "config.yaml"]) == built


def test_everything_that_is_wrong_with_a_list_of_interventions_is_said() -> None:
    wrong = [
        "balance-lenght",
        {"name": "random-pairs", "ratoi": 1},
        {"ratio": 1},
        3,
        {"name": "label-noise", "probability": 2},
    ]
    with pytest.raises(ConfigError) as caught:
        Holder.build({"interventions": wrong})
    assert [(problem.where, problem.found, problem.remedy) for problem in caught.value.problems] == [
        ("interventions.0", "'balance-lenght'", 'Did you mean "balance-length"?'),
        ("interventions.1.ratoi", 'the unknown key "ratoi"', 'Did you mean "ratio"?'),
        ("interventions.2", "{'ratio': 1}", "`--help` lists them."),
        ("interventions.3", "3", "`--help` lists them."),
        ("interventions.4.probability", "2", ""),
    ]


def test_words_for_the_model_card_have_no_folders_of_this_machine(tmp_path: Path) -> None:
    values = [{"name": "cut", "ids": str(tmp_path / "ids.txt")}, EVERY["random-pairs"]]
    expected = "cut (ids ids.txt, column confidence, by id, unknown refuse), random-pairs (ratio 0.3, seed 0)"
    assert in_words(chain(*values)) == expected
