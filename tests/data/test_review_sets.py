"""Human counterfactuals and polarity corpora: rows of their true form, broken ones, and the real files."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest

from rewardlab.data.load import DataSource, load
from rewardlab.errors import DataError
from rewardlab.records import Message, Pair, Prompt, Rated

ASKED = Prompt((Message("user", "Write a movie review: "),))


def write_tsv(path: Path, *rows: tuple[str, str, str]) -> str:
    """As the published files are: tabs, quotation marks doubled within quoted texts."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("Sentiment", "Text", "batch_id"), *rows])
    return str(path)


def test_two_rows_make_a_pair_and_the_first_is_the_original(tmp_path: Path) -> None:
    path = write_tsv(
        tmp_path / "test_paired.tsv",
        ("Negative", 'A "bad" film,\ttoo long.', "13"),
        ("Positive", 'A "good" film,\tso long.', "13"),
        ("Positive", "I loved it.", "46"),
        ("Negative", "I hated it.", "46"),
    )
    assert '"A ""bad"" film,\ttoo long."' in Path(path).read_text(encoding="utf-8")
    first, second = load(DataSource(path=path)).records
    assert isinstance(first, Pair)
    assert isinstance(second, Pair)
    assert (first.prompt, first.chosen, first.rejected) == (
        ASKED,
        'A "good" film,\tso long.',
        'A "bad" film,\ttoo long.',
    )
    assert first.meta == {"pair": "13", "original": "rejected"}
    assert (second.chosen, second.rejected, second.meta["original"]) == ("I loved it.", "I hated it.", "chosen")
    assert [str(one.source) for one in (first, second)] == [f"{path}:1", f"{path}:3"]


def test_columns_of_other_names_and_rows_apart(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("label,review,key,by\nnegative,bad,b,x\npositive,great,a,y\nPositive,good,b,z\nNegative,poor,a,w\n")
    columns = {"Sentiment": "label", "Text": "review", "batch_id": "key"}
    found = load(DataSource(path=str(path), adapter="counterfactual", columns=columns)).records
    sides = [(one.chosen, one.rejected, dict(one.meta)) for one in found if isinstance(one, Pair)]
    assert sides == [
        ("good", "bad", {"by": "x", "pair": "b", "original": "rejected"}),
        ("great", "poor", {"by": "y", "pair": "a", "original": "chosen"}),
    ]


def test_what_is_no_pair_is_set_aside_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    path = write_tsv(
        tmp_path / "a.tsv",
        ("Negative", "alone", "1"),
        *[("Negative", f"three {number}", "2") for number in range(3)],
        ("Negative", "poor", "3"),
        ("Negative", "bad", "3"),
        ("Negative", "same", "4"),
        ("Positive", "same ", "4"),
        ("Negative", "bad", "5"),
        ("Positive", "good", "5"),
    )
    loaded = load(DataSource(path=path))
    assert [one.reason for one in loaded.set_aside] == ["no_pair", "no_pair", "same_sentiment", "identical"]
    assert len(loaded.records) == 1
    assert "3 rows with the batch_id 2" in loaded.set_aside[1].detail
    wrong = write_tsv(tmp_path / "b.tsv", ("Negative", "bad", "1"), ("Neutral", "so so", "1"))
    with pytest.raises(DataError) as caught:
        load(DataSource(path=wrong))
    assert ['"Sentiment"' in str(one) and "'Neutral'" in str(one) for one in caught.value.problems] == [True]


def write_zip(path: Path, members: dict[str, str]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return str(path)


def test_polarity_corpora_as_files_and_as_lines(tmp_path: Path) -> None:
    texts = {f"m/{side}/cv{number:03}.txt": f"{side} {number}\n" for side in ("pos", "neg") for number in range(20)}
    files = write_zip(tmp_path / "files.zip", {**texts, "m/README": "no review", "m/other/x.txt": "nor this"})
    lines = {f"p/rt.{side}": "".join(f" {side} {number} \n\n" for number in range(20)) for side in ("neg", "pos")}
    for path in (files, write_zip(tmp_path / "lines.zip", {**lines, "p/README.txt": "no text"})):
        test = load(DataSource(path=path, adapter="polarity", split="test")).records
        assert [(one.completions[0], one.label) for one in test if isinstance(one, Rated)] == [
            ("pos 9", True),
            ("neg 9", False),
            ("pos 19", True),
            ("neg 19", False),
        ]
        assert {one.prompt for one in test} == {ASKED}
        train = load(DataSource(path=path, adapter="polarity", split="train")).records
        assert len(train) == 36
        assert not {one.id for one in train} & {one.id for one in test}
        assert len(load(DataSource(path=path, adapter="polarity")).records) == 40
        some = load(DataSource(path=path, adapter="polarity", split="train", limit=6)).records
        assert [one.label for one in some if isinstance(one, Rated)] == [True, False] * 3


@pytest.mark.parametrize(
    ("content", "split", "expected"),
    [
        (b"PK\x03\x04 cut off", None, "BadZipFile"),
        (None, None, "no such file"),
        (b"", "val", "train, test or all"),
    ],
)
def test_a_broken_corpus_is_named(tmp_path: Path, content: bytes | None, split: str | None, expected: str) -> None:
    path = tmp_path / "a.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        load(DataSource(path=str(path), adapter="polarity", split=split))


def test_a_corpus_of_foreign_texts_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("pos/a.txt", b"caf\xe9")
    with pytest.raises(DataError, match="UnicodeDecodeError"):
        load(DataSource(path=str(tmp_path / "a.zip"), adapter="polarity"))
    empty = write_zip(tmp_path / "b.zip", {"README": "nothing"})
    with pytest.raises(DataError, match=r"files in folders pos and neg, or named \*\.pos"):
        load(DataSource(path=empty, adapter="polarity"))


def test_the_published_pairs(shared: Path) -> None:
    """488 test pairs, of which one was not rewritten; every pair's first row is taken for the original."""
    loaded = load(DataSource(path=str(shared / "data/counterfactual-imdb"), split="test"))
    pairs = [one for one in loaded.records if isinstance(one, Pair)]
    assert (loaded.adapter, len(pairs), [one.reason for one in loaded.set_aside]) == (
        "counterfactual",
        487,
        ["identical"],
    )
    assert sum(one.meta["original"] == "chosen" for one in pairs) == 245
    quoted = next(one for one in pairs if one.meta["pair"] == "301")
    assert quoted.rejected.startswith('If this is the first of the "Nemesis" films')


def test_the_corpora_of_movie_reviews(shared: Path) -> None:
    for name, count in (("movie_reviews", 2000), ("sentence_polarity", 10662)):
        found = load(DataSource(path=str(shared / f"data/sentiment/{name}.zip"), adapter="polarity")).records
        assert len(found) == count
        assert sum(one.label is True for one in found if isinstance(one, Rated)) == count // 2
