"""Rows from every file format, with positions; every broken file gives its own clear problem."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from fake_hub import COMMIT, FakeHub
from huggingface_hub.errors import HFValidationError

from rewardlab.data import files as data_files
from rewardlab.data.files import ALL_SPLITS, is_hub_id, read_file, read_hub, read_path, split_in_name
from rewardlab.errors import DataError, MissingExtraError, Problem
from rewardlab.store.keys import path_digest

Rows = Sequence[Mapping[str, Any]]

TEXTS = [
    "plain",
    "nul \x00 inside",
    "windows\r\nline\rends\n",
    "line\u2028separator\x85",
    ' quotes " and , commas\t',
    "﻿bom inside",
    "x" * 200_000,
]
ROWS = [{"prompt": f"q{number}", "chosen": text, "rejected": "b"} for number, text in enumerate(TEXTS)]


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: Rows) -> bytes:
    return json.dumps(rows, indent=1).encode()


def as_csv(rows: Rows, delimiter: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), stream)
    return stream.getvalue()


def as_arrow(rows: Rows) -> bytes:
    stream = io.BytesIO()
    table = pa.Table.from_pylist([dict(row) for row in rows])
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "rows.jsonl": as_jsonl,
    "rows.json": as_json,
    "rows.csv": as_csv,
    "rows.tsv": lambda rows: as_csv(rows, "\t"),
    "rows.parquet": as_parquet,
    "rows.arrow": as_arrow,
}


def read(path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[Problem]]:
    problems: list[Problem] = []
    files = read_path(str(path), problems, **options)
    return [dict(values) for file in files for _, values in file.rows], problems


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_rows_back(name: str, packed: bool, tmp_path: Path) -> None:
    data = FORMATS[name](ROWS)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    rows, problems = read(path)
    assert problems == []
    assert rows == ROWS


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.arrow"])
def test_content_decides_over_a_wrong_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(FORMATS[name](ROWS))
    assert read(path) == (ROWS, [])
    unnamed = tmp_path / "rows.data"
    unnamed.write_bytes(FORMATS[name](ROWS))
    assert read(unnamed) == (ROWS, [])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_byte_order_mark_at_the_beginning_is_no_part_of_the_data(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + FORMATS[name](ROWS))
    assert read(path) == (ROWS, [])


def test_lone_surrogates_survive_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "\\ud800"}\r\n', encoding="utf-8")
    assert read(path) == ([{"a": "\ud800"}], [])


def test_positions_are_what_a_person_would_look_for(tmp_path: Path) -> None:
    problems: list[Problem] = []
    lines = tmp_path / "a.jsonl"
    lines.write_text('\n{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    document = tmp_path / "a.json"
    document.write_text('[{"a": 1},\n {"a": 2}]', encoding="utf-8")
    table = tmp_path / "a.csv"
    table.write_text('a\n"two\nlines"\nx\n', encoding="utf-8")
    rows = [[position.row for position, _ in read_file(path, "f", problems).rows] for path in (lines, document, table)]
    assert rows == [[2, 4], [1, 2], [1, 2]]
    assert problems == []


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n', mtime=0))
    import hashlib

    assert read_file(path, "f", []).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"version": 1, "data": [{"a": 1}, {"a": 2}]}, [{"a": 1}, {"a": 2}]),
        ({"x1": {"a": 1}, "x2": {"a": 2}}, [{"id": "x1", "a": 1}, {"id": "x2", "a": 2}]),
        ({"messages": [{"role": "user", "content": "q"}]}, [{"messages": [{"role": "user", "content": "q"}]}]),
        (
            {"context": "c", "completions": [{"rank": 1, "completion": "a"}]},
            [{"context": "c", "completions": [{"rank": 1, "completion": "a"}]}],
        ),
        ({"prompt": "q", "chosen": "a"}, [{"prompt": "q", "chosen": "a"}]),
        (
            {"prompt": "q", "chosen": "a", "tools": [{"name": "f"}]},
            [{"prompt": "q", "chosen": "a", "tools": [{"name": "f"}]}],
        ),
    ],
    ids=["object with a list", "object by ids", "messages", "ranking", "one row", "one row with tools"],
)
def test_json_objects(document: Any, expected: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    assert read(path) == (expected, [])


def test_one_line_of_jsonl_is_a_row_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"data": [{"a": 1}]}\n', encoding="utf-8")
    assert read(path) == ([{"data": [{"a": 1}]}], [])


def test_a_saved_dataset_and_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "a", "n": n} for n in range(5)]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(str(tmp_path / "one"), num_shards=2)
    assert read(tmp_path / "one") == (rows, [])
    both = datasets.DatasetDict({"train": data, "test": data.select([4, 1])})
    both.save_to_disk(str(tmp_path / "both"))
    assert read(tmp_path / "both", split="test") == ([rows[4], rows[1]], [])
    assert len(read(tmp_path / "both", split=ALL_SPLITS)[0]) == 7
    nothing, problems = read(tmp_path / "both")
    assert nothing == []
    assert problems[0].expected == "one of its splits: test, train"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "data"
    for name in ("red.train.jsonl", "red.test.jsonl.gz", "blue/train.jsonl", "blue/test.json", ".cache/x.jsonl"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = as_jsonl([{"name": name}])
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (home / "README.md").write_text("no data")
    return home


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": "test"}, ["blue/test.json", "red.test.jsonl.gz"]),
        ({"split": "train", "subsets": ["red"]}, ["red.train.jsonl"]),
        ({"split": "all", "subsets": ["blue"]}, ["blue/test.json", "blue/train.jsonl"]),
        ({"split": "all"}, ["blue/test.json", "blue/train.jsonl", "red.test.jsonl.gz", "red.train.jsonl"]),
    ],
)
def test_folders_by_split_and_subset(folder: Path, options: Any, expected: list[str]) -> None:
    rows, problems = read(folder, **options)
    assert problems == []
    assert [row["name"] for row in rows] == expected


@pytest.mark.parametrize(
    ("names", "read_as"),
    [
        (["train.jsonl", "notes.jsonl"], ["train.jsonl"]),
        (["train.jsonl", "test.jsonl", "notes.jsonl"], ["test.jsonl", "train.jsonl"]),
        (["a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["a.jsonl", "dataset_infos.json", "run.json", "deep/set_aside.jsonl"], ["a.jsonl"]),
    ],
)
def test_what_lies_beside_the_data_is_not_read_with_them(names: list[str], read_as: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(as_jsonl([{"name": name}]))
    for split in ([None] if "test.jsonl" not in names else []) + [ALL_SPLITS]:
        rows, problems = read(tmp_path, split=split)
        assert problems == []
        assert [row["name"] for row in rows] == read_as


def test_positions_name_files_as_the_user_would(folder: Path) -> None:
    files = read_path(f"{folder}/", [], split="test")
    assert [file.name for file in files] == [f"{folder}/blue/test.json", f"{folder}/red.test.jsonl.gz"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "no split asked for"),
        ({"split": "val"}, "split 'val'"),
        ({"split": "test", "subsets": ["green"]}, "no files of a subset 'green'"),
    ],
)
def test_folders_asked_for_what_they_do_not_hold(folder: Path, options: Any, found: str) -> None:
    rows, problems = read(folder, **options)
    assert [problem.found for problem in problems][:1] == [found]
    assert rows == []


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("x/validation-00000-of-00001.parquet", "val"),
        ("pairs.test.jsonl.gz", "test"),
        ("dev_paired.tsv", "val"),
        ("test-bench/train.jsonl", "train"),
        ("latest.jsonl", None),
        ("testing.jsonl", None),
    ],
)
def test_splits_in_names(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


WHOLE = gzip.compress(as_jsonl(ROWS))
BROKEN: dict[str, tuple[str, bytes, str, str]] = {
    "empty": ("a.jsonl", b"", "", "an empty file"),
    "only white space": ("a.json", b" \n\n", "", "an empty file"),
    "no rows": ("a.json", b"[]", "", "no rows"),
    "header only": ("a.csv", b"a,b\n", "", "no rows"),
    "empty CSV": ("a.csv", b"", "", "an empty file"),
    "latin-1": ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', ":2", "byte 0xe9 that is not UTF-8, at byte 11"),
    "latin-1 CSV": ("a.csv", b"a\nx\ncaf\xe9\n", ":3", "byte 0xe9 that is not UTF-8"),
    "latin-1 JSON": ("a.json", b'[{"a": "caf\xe9"}]', "", "byte 0xe9 that is not UTF-8, at byte 12"),
    "UTF-16": ("a.jsonl", '{"a": 1}'.encode("utf-16"), "", "UTF-16 text"),
    "truncated gzip": ("a.jsonl.gz", WHOLE[: len(WHOLE) // 2], "", "a truncated gzip file"),
    "damaged gzip": ("a.jsonl.gz", WHOLE[:20] + b"\xff" * 20 + WHOLE[40:], "", "a damaged gzip file"),
    "torn line": ("a.jsonl", b'{"a": 1}\n{"a": "b', ":2", "no valid JSON: Unterminated string"),
    "single quotes": ("a.jsonl", b"{'a': 1}\n", ":1", "no valid JSON: Expecting property name"),
    "torn document": ("a.json", b'[{"a": 1},\n{"a"', "", "no valid JSON"),
    "a line that is a list": ("a.jsonl", b'{"a": 1}\n[1, 2]\n', ":2", "JSON that is a list of 2"),
    "a line that is a string": ("a.jsonl", b'{"a": 1}\n"x"\n', ":2", "JSON that is 'x'"),
    "an element that is null": ("a.json", b'[{"a": 1}, null]', ":2", "an element that is null"),
    "too deep": ("a.jsonl", b'{"a":' + b"[" * 200_000 + b"\n", ":1", "JSON nested too deeply"),
    "a huge number": ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", ":1", "no valid JSON: Exceeds the limit"),
    "CSV with cells missing": ("a.csv", b"a,b\n1,2\n3\n", ":2", "1 cells"),
    "CSV with an open quote": ("a.csv", b'a,b\n"1,2\n', ":2", "no valid CSV: unexpected end of data"),
    "CSV with a name twice": ("a.csv", b"a,a\n1,2\n", ", header", "a column name that comes twice"),
    "half a Parquet file": ("a.parquet", as_parquet(ROWS)[:200], "", "no valid Parquet or Arrow file"),
    "text named Parquet": ("a.parquet", b"hello", "", "no valid Parquet or Arrow file"),
    "half an Arrow file": ("a.arrow", as_arrow(ROWS)[:100], "", "no valid Parquet or Arrow file"),
    "text in another encoding": ("a.txt", b"one\ncaf\xe9\n", ":2", "byte 0xe9 that is not UTF-8"),
    "something else": ("a.md", b"Once upon a time", "", "a file that starts with 'Once upon a time'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_broken_file_has_one_clear_problem(case: str, tmp_path: Path) -> None:
    name, data, place, found = BROKEN[case]
    path = tmp_path / name
    path.write_bytes(data)
    _, problems = read(path)
    assert len(problems) == 1, problems
    assert problems[0].where == f"{path}{place}"
    assert problems[0].found.startswith(found)
    assert problems[0].expected


CUT = "was it cut off?"
LINES = b'{"a": "caf\xc3\xa9 \\u00e9", "b": true, "c": [1]}'


@pytest.mark.parametrize("end", range(1, len(LINES)))
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_file_that_ends_too_soon_is_said_to_be_cut(name: str, end: int, tmp_path: Path) -> None:
    """Cut anywhere: in a character, an escape, a word or between."""
    path = tmp_path / name
    path.write_bytes(LINES + b"\n" + LINES[:end] if name == "a.jsonl" else b"[" + LINES[:end])
    _, (problem,) = read(path)
    assert CUT in problem.remedy, problem


@pytest.mark.parametrize("line", [b'{"a": b}', b'{"a": 1,}', b"{'a': 1}", b'{"a": "\\x"}', b'{"a" 1}', b'{"a": 1}}'])
def test_what_is_wrong_before_the_end_is_no_cut(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line)
    _, (problem,) = read(path)
    assert CUT not in problem.remedy
    assert "JSON library" in problem.remedy
    path.write_bytes(b'{"a": "b\n{"a": 1}\n')
    _, (problem,) = read(path)
    assert CUT not in problem.remedy, "a torn line in the middle"


def test_a_table_that_ends_too_soon_is_said_to_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for torn in (b"a,b\n1,2\n3", b'a,b\n1,2\n3,"x y'):
        path.write_bytes(torn)
        _, (problem,) = read(path)
        assert CUT in problem.remedy
    path.write_bytes(b"a,b\n1,2\n3\n4,5\n")
    _, (problem,) = read(path)
    assert CUT not in problem.remedy


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", ",")])
def test_a_table_with_other_separators_is_one_problem(name: str, mark: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(f"a{mark}b\nx, y{mark}2\nz{mark}3\n")
    rows, (problem,) = read(path)
    assert rows == []
    assert f"the header looks separated by {mark!r}" in problem.found
    assert "Save it again with commas" in problem.remedy


def test_a_name_is_only_suggested_where_it_is_near(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    _, (problem,) = read(tmp_path / "nope.jsonl")
    assert problem.remedy == ""
    _, (problem,) = read(tmp_path / "empyt.jsonl")
    assert "empty.jsonl" in problem.remedy


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    """Each would be waited for, or read, for ever."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", Path("/dev/zero")):
        _, problems = read(path)
        assert [problem.found for problem in problems] == ["a pipe, socket or device"]
        with pytest.raises(DataError, match="a pipe, socket or device; expected a regular file"):
            path_digest(path)


def test_gzip_that_inflates_beyond_reason_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = tmp_path / "a.jsonl.gz", b'{"a": "' + b"x" * 1_000_000 + b'"}\n'
    path.write_bytes(gzip.compress(data))
    assert len(read(path)[0]) == 1, "a large share of a small file is no bomb"
    monkeypatch.setattr(data_files, "ALWAYS_INFLATED_BYTES", len(data))
    assert len(read(path)[0]) == 1
    monkeypatch.setattr(data_files, "ALWAYS_INFLATED_BYTES", len(data) - 1)
    _, (problem,) = read(path)
    assert problem.found == f"gzip that inflates to more than {len(data) - 1:,} bytes"
    monkeypatch.setattr(data_files, "LARGEST_INFLATION", len(data) // path.stat().st_size + 1)
    assert len(read(path)[0]) == 1, "and neither is what inflates as text does"


def test_all_broken_lines_of_all_files_are_told(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b'{"a": 1}\nx\n{"a": 2}\n\xff\n{}\n[]\n')
    _, problems = read(tmp_path)
    assert [problem.where.rpartition("/")[2] for problem in problems] == [
        f"{name}:{line}" for name in ("a.jsonl", "b.jsonl") for line in (2, 4, 6)
    ]


def test_missing_and_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"a": 1}\n')
    _, problems = read(tmp_path / "pears.jsonl")
    assert problems[0].found == "no such file"
    assert problems[0].remedy == f'Did you mean "{tmp_path / "pairs.jsonl"}"?'
    _, problems = read(tmp_path / "nowhere" / "pairs.jsonl")
    assert "There is no folder" in problems[0].remedy
    monkeypatch.setenv("REWARDLAB_HOME", str(tmp_path))
    _, problems = read(Path("pairs.jsonl"))
    assert problems[0].remedy == f"Did you mean {tmp_path / 'pairs.jsonl'}?"
    (tmp_path / "empty").mkdir()
    _, problems = read(tmp_path / "empty")
    assert problems[0].found == "a folder without data files"
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    assert len(read(tmp_path / "loop.jsonl")[1]) == 1
    _, problems = read(tmp_path / "pairs.jsonl", split="test")
    assert problems[0].remedy == "Drop `split`."
    broken = tmp_path / "saved"
    broken.mkdir()
    (broken / "state.json").write_text("{}")
    assert read(broken)[1][0].where == f"{broken}/state.json"


def test_the_limit_on_csv_cells_is_left_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_bytes(as_csv(ROWS))
    read(tmp_path / "a.csv")
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Anthropic/hh-rlhf", True),
        ("owner/name.v2", True),
        ("folder/pairs.jsonl", False),
        ("folder/pairs.csv.gz", False),
        ("just-a-name", False),
        ("./owner/name", False),
        ("../owner", False),
        ("/absolute/path", False),
    ],
)
def test_what_looks_like_a_hub_id(path: str, expected: bool) -> None:
    assert is_hub_id(path) is expected


def test_a_path_into_an_existing_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("data/paris")
    (tmp_path / "data").mkdir()
    assert not is_hub_id("data/paris")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub of one dataset with two splits; gives the list of calls."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("rewardlab.store.hub.HfApi", FakeHub())

    def load_dataset(hub_id: str, **options: Any) -> datasets.DatasetDict:
        calls.append({"hub_id": hub_id, **options})
        if hub_id != "owner/pairs":
            raise ConnectionError(f"Couldn't reach '{hub_id}'\non the hub")
        data = datasets.Dataset.from_list([{"chosen": "a", "score": float("nan")}, {"chosen": "b", "score": 1.0}])
        return datasets.DatasetDict({"train": data, "test": data.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_a_hub_id_is_read_with_split_revision_and_subset(hub: list[dict[str, Any]]) -> None:
    problems: list[Problem] = []
    (file,) = read_hub("owner/pairs", problems, split="train", revision="v1", subset="small")
    assert problems == []
    assert hub == [{"hub_id": "owner/pairs", "name": "small", "data_dir": None, "revision": COMMIT}]
    assert (file.name, file.commit) == ("owner/pairs/small:train", COMMIT)
    assert [(position.row, values) for position, values in file.rows] == [
        (1, {"chosen": "a", "score": None}),
        (2, {"chosen": "b", "score": 1.0}),
    ]


def test_a_hub_id_without_its_split_or_out_of_reach(hub: list[dict[str, Any]]) -> None:
    problems: list[Problem] = []
    assert read_hub("owner/pairs", problems, split=None, revision=None) == []
    assert read_hub("owner/gone", problems, split=None, revision=None) == []
    assert problems[0].expected == "one of its splits: train, test"
    assert problems[1].found == "ConnectionError: Couldn't reach 'owner/gone' on the hub"


def test_an_unreachable_hub_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real libraries without a network: their retries sleep in between, and nothing here may."""

    def refuse(*_: Any) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(time, "sleep", refuse)
    problems: list[Problem] = []
    assert read_hub("owner/pairs", problems, split="train", revision=None) == []
    (problem,) = problems
    assert problem.found.startswith("the hub is out of reach (")
    assert not datasets.config.HF_HUB_OFFLINE


def test_an_unreachable_hub_leaves_what_was_read_before(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardlab.store.hub.HfApi", FakeHub(ConnectionError("no route to host")))
    load_dataset, offline = datasets.load_dataset, []

    def watched(*words: Any, **options: Any) -> Any:
        offline.append(datasets.config.HF_HUB_OFFLINE)
        return load_dataset(*words, **options)

    monkeypatch.setattr(datasets, "load_dataset", watched)
    (file,) = read_hub("owner/pairs", [], split="test", revision="v1")
    assert (len(file.rows), file.commit) == (1, None)
    assert hub[-1]["revision"] == "v1"
    assert (offline, datasets.config.HF_HUB_OFFLINE) == ([True], False)


def test_a_name_that_the_hub_does_not_know_is_not_looked_for_again(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardlab.store.hub.HfApi", FakeHub(HFValidationError("no such name")))
    problems: list[Problem] = []
    assert read_hub("owner/gone", problems, split=None, revision=None) == []
    assert problems[0].found == "HFValidationError: no such name"
    assert hub == []


def test_the_library_understands_how_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `datasets` library on a repository laid out as Anthropic/hh-rlhf; it takes folders for hub ids."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("rewardlab.store.hub.HfApi", FakeHub())
    for folder in ("helpful-base", "harmless-base"):
        for split in ("train", "test"):
            path = tmp_path / f"repository/{folder}/{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(as_jsonl([{"chosen": folder, "rejected": split}])))
    problems: list[Problem] = []
    home = str(tmp_path / "repository")
    (file,) = read_hub(home, problems, split="test", revision=None, folder="helpful-base")
    assert problems == []
    assert [values for _, values in file.rows] == [{"chosen": "helpful-base", "rejected": "test"}]


def test_without_the_library_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rewardlab\[hub\]'"):
        read_hub("owner/pairs", [], split=None, revision=None)


def test_a_text_file_has_a_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone two \r\n\n\t\nthree\x85\xe2\x80\xa8four".replace(b"\x85", b""))
    problems: list[Problem] = []
    (found,) = read_path(str(tmp_path / "a.txt"), problems)
    assert problems == []
    assert [(source.row, values) for source, values in found.rows] == [
        (1, {"text": "one two "}),
        (4, {"text": "three\u2028four"}),
    ]
