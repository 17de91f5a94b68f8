"""`data convert`: the files of the contract, or nothing; labels from tables of scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.data.canonical import read_records, write_records
from rewardlab.errors import ConfigError, DataError
from rewardlab.records import Candidates, Pair, Prompt, Record, completion_id
from rewardlab.score.convert import DataConversion, convert_files
from rewardlab.score.score import SCHEMA, Scoring, score_file
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.runs import Run

Q, P, R = Prompt.of_text("q"), Prompt.of_text("p"), Prompt.of_text("r")


class Folder:
    def __init__(self, home: Path) -> None:
        self.home = home

    def path(self, name: str | Path = "") -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def convert(out: Path, **values: Any) -> list[str]:
    return convert_files(DataConversion.build(values), Folder(out)).lines()  # type: ignore[arg-type]


def source(path: Path) -> dict[str, dict[str, str]]:
    return {"mine": {"path": str(path)}}


def table(path: Path, rows: list[tuple[Prompt, str, int, float | None]]) -> Path:
    """A table of scores as `rewardlab score` writes them: prompt, completion, occurrence, score."""
    columns: dict[str, list[Any]] = {
        "prompt_id": [prompt.id for prompt, *_ in rows],
        "completion_id": [completion_id(prompt, text) for prompt, text, *_ in rows],
        "occurrence": [occurrence for _, _, occurrence, _ in rows],
        "row": list(range(len(rows))),
        "candidate": [0] * len(rows),
        "scorer": ["s"] * len(rows),
        "score": [score for *_, score in rows],
        "prompt_tokens": [1] * len(rows),
        "completion_tokens": [1] * len(rows),
        "truncated": [False] * len(rows),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    meta = {"finish_reasons": ["stop", "length"], "tokens": [1, 5]}
    records: list[Record] = [
        Candidates(Q, ("a", "b"), None, None, meta),
        Candidates(P, ("a", "a"), (9.0, 9.0)),
        Candidates(R, ("a", "b")),
    ]
    write_records(tmp_path / "completions.jsonl", records)
    return tmp_path / "completions.jsonl"


WHOLE: list[tuple[Prompt, str, int, float | None]] = [
    (R, "b", 0, 0.0),
    (Q, "b", 0, 2.0),
    (Q, "a", 0, 1.0),
    (P, "a", 1, 4.0),
    (P, "a", 0, 3.0),
    (R, "a", 0, 0.5),
]


def test_labels_go_by_ids_and_not_by_places(samples: Path, tmp_path: Path) -> None:
    scores = table(tmp_path / "scores.parquet", WHOLE)
    lines = convert(tmp_path / "out", sources=source(samples), to="labelled", scores=str(scores))
    assert lines == ["labelled: 3 → 3 records", "Written: mine.jsonl (3)"]
    records = read_records(tmp_path / "out/mine.jsonl")
    assert [one.rewards for one in records if isinstance(one, Candidates)] == [(1.0, 2.0), (3.0, 4.0), (0.5, 0.0)]
    assert records[0].meta == {"finish_reasons": ["stop", "length"], "tokens": [1, 5], "scorer": "s"}
    assert [one.id for one in records] == [one.id for one in read_records(samples)]


def test_rewards_in_standard_deviations_within_prompts(samples: Path, tmp_path: Path) -> None:
    """Variances 1/2 (1 and 2), 1/2 (3 and 4) and 1/8 (0 and 1/2): their mean is 3/8."""
    scores = table(tmp_path / "scores.parquet", WHOLE)
    values = {"sources": source(samples), "to": "labelled", "scores": str(scores), "unit_sd": True}
    assert "Rewards were divided by 0.6124, their standard deviation within records." in convert(
        tmp_path / "out", **values
    )
    found = read_records(tmp_path / "out" / "mine.jsonl")
    sd = (3 / 8) ** 0.5
    expected = [(1.0, 2.0), (3.0, 4.0), (0.5, 0.0)]
    for record, rewards in zip(found, expected, strict=True):
        assert record.rewards == pytest.approx([reward / sd for reward in rewards])
        assert record.meta["reward_sd"] == pytest.approx(sd)


def test_rewards_that_never_differ_have_no_standard_deviation(samples: Path, tmp_path: Path) -> None:
    scores = table(tmp_path / "scores.parquet", [(*row[:3], 2.0) for row in WHOLE])
    with pytest.raises(DataError, match="never differ within a record"):
        convert(tmp_path / "out", sources=source(samples), to="labelled", scores=str(scores), unit_sd=True)
    assert not (tmp_path / "out").exists()


def test_prompts_with_missing_or_failed_scores_are_left_out_and_told(samples: Path, tmp_path: Path) -> None:
    rows = [*WHOLE[1:5], (R, "a", 0, None), (R, "b", 0, 0.0)]
    scores = table(tmp_path / "scores.parquet", [row for row in rows if row[:2] != (Q, "b")] + [(Q, "other", 0, 1.0)])
    lines = convert(tmp_path / "out", sources=source(samples), to="labelled", scores=str(scores))
    assert lines[0] == (
        "labelled: 3 → 1 record; 1 record left out, completions not in the table; "
        "1 record left out, completions without a score; 1 row of the table that no completion asked for"
    )
    (record,) = read_records(tmp_path / "out/mine.jsonl")
    assert record.prompt == P
    aside = list(read_jsonl(tmp_path / "out/set_aside.jsonl"))
    assert [(one["reason"], one["detail"]) for one in aside] == [
        ("no_score", "1 of 2 completions not in the table"),
        ("no_score", "1 of 2 completions without a score"),
    ]
    assert aside[0]["row"]["completions"] == ["a", "b"]


def test_the_table_of_other_data_is_an_error(samples: Path, tmp_path: Path) -> None:
    scores = table(tmp_path / "scores.parquet", [(Prompt.of_text("x"), "a", 0, 1.0)])
    with pytest.raises(DataError, match="found none of the 6 completions in this table"):
        convert(tmp_path / "out", sources=source(samples), to="labelled", scores=str(scores))
    assert not (tmp_path / "out").exists()


def test_a_chain_over_what_score_wrote(samples: Path, tmp_path: Path) -> None:
    """The rule counts words: of (one, three, two) words the second is best, the first worst."""
    texts = ("one", "one two three", "one two")
    write_records(samples, [Candidates(Prompt.of_text(f"q{n}"), texts) for n in range(4)])
    scoring = Scoring.build({"model": "rule:length_words", "data": str(samples)})
    with Run.create(scoring, verb="score", name="scored", root=tmp_path / "runs") as run:
        score_file(scoring, run)
        scores = run.path()
    convert(tmp_path / "out", sources=source(samples), to=["labelled", "pairs"], scores=str(scores))
    pairs = read_records(tmp_path / "out/mine.jsonl")
    assert [(one.chosen, one.rejected) for one in pairs if isinstance(one, Pair)] == [("one two three", "one")] * 4
    assert pairs[0].meta["rewards"] == [3.0, 1.0]
    convert(tmp_path / "best", sources=source(samples), to=["labelled", "best", "exo"], scores=str(scores), of=[1, 2])
    assert read_json(tmp_path / "best/mine.best-1.json")[0] == {"prompt": "q0", "chosen": "one"}
    assert read_json(tmp_path / "best/mine.best-2.json")[0] == {"prompt": "q0", "chosen": "one two three"}


def test_a_sample_that_says_nothing_is_a_sample(samples: Path, tmp_path: Path) -> None:
    write_records(samples, [Candidates(Q, ("one", "")), Candidates(P, ("", ""))])
    scoring = Scoring.build({"model": "rule:length_words", "data": str(samples)})
    with Run.create(scoring, verb="score", name="scored", root=tmp_path / "runs") as run:
        score_file(scoring, run)
        scores = run.path()
    convert(tmp_path / "out", sources=source(samples), to="labelled", scores=str(scores))
    records = read_records(tmp_path / "out/mine.jsonl")
    assert [one.rewards for one in records if isinstance(one, Candidates)] == [(1.0, 0.0), (0.0, 0.0)]


def test_that_an_evaluation_does_not_say_what_was_cut_off_is_told(samples: Path, tmp_path: Path) -> None:
    meta = {"finish_reasons": ["length", "stop"]}
    write_records(
        samples, [Candidates(Q, ("one", "two"), (1.0, 0.0), meta=meta), Candidates(P, ("a", "b"), (0.0, 1.0))]
    )
    for form in ("exo-scores", "generated"):
        lines = convert(tmp_path / form, sources=source(samples), to=form)
        assert any(
            "1 record with completions that were cut off, which nothing in their rows says" in one for one in lines
        )
    assert not any("cut off" in one for one in convert(tmp_path / "exo", sources=source(samples), to="exo"))


def test_sources_keep_their_names_and_files_are_whole_lists(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_records(tmp_path / f"{name}.jsonl", [Pair(Prompt.of_text(name), "a", "b")])
    both = {name: {"path": str(tmp_path / f"{name}.jsonl")} for name in ("train", "test")}
    convert(tmp_path / "out", sources=both, to=["candidates", "exo"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "train.json",
        "test.json",
        "set_aside.jsonl",
        "summary.json",
    }
    rows = json.loads((tmp_path / "out/test.json").read_text())
    assert rows == [{"prompt": "test", "completions": ["a", "b"], "rewards": [1.0, 0.0]}]
    # What was written is a source again, with its splits.
    convert(tmp_path / "back", sources={"train": {"path": str(tmp_path / "out"), "split": "train"}}, to="pairs")
    assert [one.id for one in read_records(tmp_path / "back/train.jsonl")] == [
        Pair(Prompt.of_text("train"), "a", "b").id
    ]
    convert(tmp_path / "more", sources=both, to=["candidates", "generated"])
    assert list(read_jsonl(tmp_path / "more/generated_test.jsonl")) == [
        {"question": "test", "response": ["a", "b"], "rewards": [1.0, 0.0]}
    ]


def test_the_longest_by_the_tokens_that_the_sampler_counted(samples: Path, tmp_path: Path) -> None:
    write_records(samples, [Candidates(Q, ("a b c", "d"), None, None, {"tokens": [3, 9]})])
    lines = convert(tmp_path / "out", sources=source(samples), to="best", by="length")
    assert lines[-1] == "The longest are those of most tokens as sampled."
    assert read_records(tmp_path / "out/mine.jsonl") == [Candidates(Q, ("d",))]
    write_records(samples, [Candidates(Q, ("a b c", "d"))])
    convert(tmp_path / "words", sources=source(samples), to="best", by="length")
    assert read_records(tmp_path / "words/mine.jsonl")[0].completions == ("a b c",)


def test_prefixes_of_reviews(shared: Path, tmp_path: Path) -> None:
    reviews = {"path": str(shared / "data/sentiment/sentence_polarity.zip"), "adapter": "polarity", "limit": 200}
    tokenizer = str(shared / "models/gpt2-tokenizer")
    convert(tmp_path / "out", sources={"reviews": reviews}, to="prefixes", tokenizer=tokenizer, tokens="2..8")
    records = read_records(tmp_path / "out/reviews.jsonl")
    assert len(records) > 190
    assert {record.meta["label"] for record in records} == {True, False}
    assert {record.meta["prefix_tokens"] for record in records} == set(range(2, 9))


def test_sampled_stories_that_were_cut_off_become_whole_ones(samples: Path, tmp_path: Path) -> None:
    story = "She sang. He danced. They were hap"
    write_records(samples, [Candidates(Q, (story, "She"), None, None, {"finish_reasons": ["length", "length"]})])
    lines = convert(tmp_path / "out", sources=source(samples), to="sentences", sentences="1..2", seed=3)
    (found,) = read_records(tmp_path / "out/mine.jsonl")
    assert found.completions[0] in ("She sang.", "She sang. He danced.")
    assert "finish_reasons" not in found.meta
    assert "1 completion dropped, without a whole sentence" in lines[0]


def test_a_conversion_that_leaves_nothing_is_an_error(samples: Path, tmp_path: Path) -> None:
    write_records(samples, [Candidates(Q, ("a", "b"), (1.0, 1.0))])
    with pytest.raises(DataError, match="mine: found no record left after pairs: 1 dropped, equal rewards"):
        convert(tmp_path / "out", sources=source(samples), to="pairs")
    write_records(samples, [Candidates(Q, ("a", "b"))])
    with pytest.raises(DataError, match="mine, record 1: found candidates without rewards"):
        convert(tmp_path / "out", sources=source(samples), to="pairs")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"to": "labelled"}, "expected scores beside labelled"),
        ({"to": "prefixes"}, "expected tokens beside prefixes"),
        ({"to": ["exo", "pairs"]}, "only as the last"),
        ({"to": ["pairs", "pairs"]}, "expected each conversion once"),
        ({"to": "pairs", "of": [2]}, "expected `to` with best beside of, which is of no use without"),
        ({"to": "best", "of": [2, 0]}, "expected different numbers from 1"),
        ({"to": "prefixes", "tokenizer": "t", "tokens": "8..2"}, "expected a number from 1"),
        ({"to": "prefixes", "tokenizer": "t", "tokens": "some"}, "expected a number from 1"),
        ({"to": "sentences"}, "expected sentences beside sentences"),
        ({"to": "sentences", "sentences": "6..1"}, "expected a number from 1"),
        ({"to": "pairs", "seed": 1}, "expected `to` with sentences or prefixes beside seed"),
        ({"to": "pears"}, "pears"),
        ({"to": "pairs", "sources": {"../x": {"path": "p"}}}, "expected names of files"),
        ({"to": "exo", "sources": {"summary": {"path": "p"}}}, "none of run, set_aside, summary"),
    ],
)
def test_wrong_options_are_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        DataConversion.build({"sources": {"mine": {"path": "p"}}, **values})
    assert told in str(error.value)


def test_a_written_configuration_reads_back() -> None:
    config = DataConversion.build(
        {"sources": {"mine": {"path": "p"}}, "to": ["pairs", "exo"], "margin": 0.5}, flags=[("pairs", "all")]
    )
    assert (config.to, config.pairs, config.token_range if config.tokens else None) == (["pairs", "exo"], "all", None)
    flags = [("sources.a.path", "p"), ("to", "labelled"), ("to", "best"), ("of", "1"), ("of", "4"), ("scores", "s")]
    built = DataConversion.build({}, flags=flags)
    assert (built.to, built.of) == (["labelled", "best"], [1, 4])
    drawn = {"sources": {"a": {"path": "p"}}, "to": "prefixes", "tokenizer": "t"}
    assert DataConversion.build({**drawn, "tokens": 8}).token_range == (8, 8)
    assert DataConversion.build({**drawn, "tokens": "2..8"}).token_range == (2, 8)
