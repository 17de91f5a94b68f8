"""Files, encodings, rows and columns that cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import ROWS, Fault, each, packed, refused, row, rows, text

READ = "data prepare --sources.mine pairs.jsonl"
LINES = "".join(json.dumps(values) + "\n" for values in ROWS).encode()


def read(name: str, options: str = "") -> str:
    return f"data prepare --sources.mine.path {name} {options}"


def parquet(folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


def half_a_parquet(folder: Path) -> None:
    content = parquet(folder)
    (folder / "pairs.parquet").write_bytes(content[: len(content) // 2])


def saved_dataset(folder: Path) -> None:
    text("saved/state.json", "{")(folder)


def splits(folder: Path) -> None:
    for name in ("data/train.jsonl", "data/test.jsonl"):
        rows(name, *ROWS)(folder)


FILES = [
    Fault("missing file", read("pairs.json"), ("pairs.json: found no such file", 'Did you mean "pairs.jsonl"?')),
    Fault(
        "two files as one",
        read("pairs.jsonl,pairs.jsonl"),
        ("found no such file", "Several files are written [pairs.jsonl, pairs.jsonl]."),
    ),
    Fault("missing folder", read("data/pairs.jsonl"), ("data/pairs.jsonl", "There is no folder data.")),
    Fault(
        "folder without data",
        read("notes"),
        ("notes: found a folder without data files", ".jsonl"),
        text("notes/a.txt", "x"),
    ),
    Fault("empty file", READ, ("pairs.jsonl: found an empty file",), text("pairs.jsonl", "")),
    Fault("blank lines only", READ, ("pairs.jsonl: found an empty file",), text("pairs.jsonl", "\n \n\n")),
    Fault(
        "truncated gzip",
        read("pairs.jsonl.gz"),
        ("pairs.jsonl.gz: found a truncated gzip file", "Fetch or write it again."),
        text("pairs.jsonl.gz", packed(LINES)[:-20]),
    ),
    Fault(
        "damaged gzip",
        read("pairs.jsonl.gz"),
        ("pairs.jsonl.gz: found a damaged gzip file",),
        text("pairs.jsonl.gz", packed(LINES)[:-8] + bytes(8)),
    ),
    Fault(
        "bytes that are not UTF-8",
        READ,
        ("pairs.jsonl:13: found byte 0xe9 that is not UTF-8", "Save the file as UTF-8."),
        text("pairs.jsonl", LINES + '{"prompt": "café", "chosen": "a", "rejected": "b"}\n'.encode("latin-1")),
    ),
    Fault("UTF-16", READ, ("pairs.jsonl: found UTF-16 text",), text("pairs.jsonl", LINES.decode().encode("utf-16"))),
    Fault(
        "two lines that are no JSON",
        READ,
        ("2 problems", "pairs.jsonl:13: found no valid JSON", "pairs.jsonl:15: found no valid JSON"),
        text("pairs.jsonl", LINES + b'{"prompt": "a",\n' + LINES[:70].partition(b"\n")[0] + b"\nnonsense\n"),
    ),
    Fault(
        "a line that is a list",
        READ,
        ("pairs.jsonl:13: found JSON that is a list of 2",),
        text("pairs.jsonl", LINES + b"[1, 2]\n"),
    ),
    Fault(
        "truncated JSON document",
        read("pairs.json"),
        ("pairs.json: found no valid JSON: Expecting value at character 801",),
        text("pairs.json", json.dumps(ROWS)[:-10]),
    ),
    Fault("list of numbers", read("n.json"), ("n.json:1: found an element that is 1",), text("n.json", "[1]")),
    Fault("endless nesting", read("n.json"), ("n.json: found JSON nested too deeply",), text("n.json", "[" * 100_000)),
    Fault(
        "a picture", read("cat.png"), ("cat.png: found a file that starts with",), text("cat.png", b"\x89PNG\r\n\x1a\n")
    ),
    Fault(
        "ragged CSV",
        read("pairs.csv"),
        ("pairs.csv:2: found 2 cells; expected 3, as in the header",),
        text("pairs.csv", "prompt,chosen,rejected\na,b,c\na,b\n"),
    ),
    Fault(
        "CSV with an open quote",
        read("pairs.csv"),
        ("pairs.csv:3: found no valid CSV",),
        text("pairs.csv", 'prompt,chosen,rejected\na,b,c\na,"b,c\n'),
    ),
    Fault(
        "CSV that is not UTF-8",
        read("pairs.csv"),
        ("pairs.csv:2: found byte 0xe9", "Save the file as UTF-8."),
        text("pairs.csv", "prompt,chosen,rejected\né,b,c\n".encode("latin-1")),
    ),
    Fault(
        "CSV with a header alone",
        read("pairs.csv"),
        ("pairs.csv: found no rows; expected at least one row",),
        text("pairs.csv", "prompt,chosen,rejected\n"),
    ),
    Fault(
        "CSV with a column twice",
        read("pairs.csv"),
        ("pairs.csv, header: found a column name that comes twice",),
        text("pairs.csv", "prompt,chosen,chosen\na,b,c\n"),
    ),
    Fault(
        "garbage called Parquet",
        read("pairs.parquet"),
        ("pairs.parquet: found no valid Parquet or Arrow file",),
        text("pairs.parquet", b"PAR1 rubbish PAR1"),
    ),
    Fault("half a Parquet file", read("pairs.parquet"), ("pairs.parquet: found no valid Parquet",), half_a_parquet),
    Fault("garbage called Arrow", read("p.arrow"), ("p.arrow: found no valid",), text("p.arrow", b"ARROW1 rubbish")),
    Fault("a saved dataset without its state", read("saved"), ("saved/state.json: found",), saved_dataset),
    Fault(
        "a folder with several splits",
        read("data"),
        ("data: found no split asked for; expected one of its splits: test, train", "Set `split`"),
        splits,
    ),
    Fault(
        "a split that is not there",
        read("data", "--sources.mine.split dev"),
        ("data: found split 'dev'; expected one of its splits: test, train",),
        splits,
    ),
    Fault(
        "a subset that is not there",
        read("data", "--sources.mine.subsets helpful"),
        ("data: found no files of a subset 'helpful'",),
        splits,
    ),
    Fault("a split of a single file", f"{READ} --sources.mine.split test", ("pairs.jsonl", "Drop `split`.")),
]


@each(FILES)
def test_files(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    refused(fault, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("secret.jsonl").write_bytes(LINES)
    Path("secret.jsonl").chmod(0)
    assert "secret.jsonl: found Permission denied" in refused(Fault("", read("secret.jsonl"), ()), capsys)


ROWS_AND_COLUMNS = [
    Fault(
        "unknown columns",
        READ,
        ("pairs.jsonl: found columns 'question', 'a'", "`rewardlab data formats` lists them.", "or map columns"),
        rows("pairs.jsonl", {"question": "q", "a": "b"}),
    ),
    Fault(
        "a column missing",
        f"{READ} --sources.mine.adapter preference",
        ('pairs.jsonl, column "rejected": found columns', 'Did you mean "reject"?', "Map it with `columns: {rejected:"),
        rows("pairs.jsonl", {"prompt": "q", "chosen": "a", "reject": "b"}),
    ),
    Fault(
        "a column missing in one row",
        READ,
        ('pairs.jsonl:33, column "rejected": found no such column',),
        rows("pairs.jsonl", *ROWS, *ROWS[:1] * 20, {"prompt": "q", "chosen": "a"}),
    ),
    Fault(
        "a map to a column that is not there",
        f"{READ} --sources.mine.adapter preference --sources.mine.columns.chosen better",
        ('column "better": found', "chosen"),
    ),
    Fault(
        "maps to columns that are not there, and a format that would do without",
        f"{read('pairs.csv')} --sources.mine.columns.prompt question --sources.mine.columns.chosen good",
        ("pairs.csv, column \"good\": found columns 'question', 'good answer'", 'Did you mean "good answer"?'),
        text("pairs.csv", "question,good answer\na,b\n"),
    ),
    Fault(
        "a map of a column that we do not have",
        f"{READ} --sources.mine.columns.choosen chosen",
        ("columns: found 'choosen'", 'Did you mean "chosen"?', "The map reads our name: their name."),
    ),
    Fault(
        "unknown format",
        f"{READ} --sources.mine.adapter preferences",
        ("adapter: found 'preferences'", 'Did you mean "preference"?'),
    ),
    Fault(
        "a number as an answer",
        READ,
        ('pairs.jsonl:13, column "chosen": found 5; expected a string',),
        row(chosen=5),
    ),
    Fault("an object as a prompt", READ, ('pairs.jsonl:13, column "prompt": found an object',), row(prompt={"a": 1})),
    Fault(
        "a margin in words", READ, ("column \"margin\": found 'large'; expected a finite number",), row(margin="large")
    ),
    Fault(
        "a role that there is not",
        READ,
        ("pairs.jsonl:13, column \"prompt\": found 'robot' at turn 0; expected a role among",),
        row(prompt=[{"role": "robot", "content": "a"}]),
    ),
    Fault(
        "fewer rewards than completions",
        READ,
        ("pairs.jsonl:1", "rewards"),
        rows("pairs.jsonl", {"prompt": "q", "completions": ["a", "b"], "rewards": [1.0]}),
    ),
    Fault(
        "a reward that is no number",
        READ,
        ('pairs.jsonl:1, column "rewards"', "expected a list of finite numbers"),
        rows("pairs.jsonl", {"prompt": "q", "completions": ["a", "b"], "rewards": [1.0, None]}),
    ),
    Fault(
        "a label between true and false",
        READ,
        ("pairs.jsonl:1, column \"label\": found 'maybe'; expected true or false",),
        rows("pairs.jsonl", {"prompt": "q", "completion": "a", "label": "maybe"}),
    ),
    Fault(
        "a score that is not finite",
        READ,
        ('pairs.jsonl:1, column "score"', "a finite number"),
        text("pairs.jsonl", '{"prompt": "q", "completion": "a", "score": NaN}\n'),
    ),
    Fault(
        "a preference beyond both",
        READ,
        ('pairs.jsonl:1, column "preference": found 3',),
        rows("pairs.jsonl", {"prompt": "q", "output_1": "a", "output_2": "b", "preference": 3}),
    ),
    Fault(
        "an unknown kind of record",
        f"{READ} --sources.mine.adapter canonical",
        ("pairs.jsonl:1, column \"kind\": found 'triple'; expected one of pair, candidates, rated",),
        rows("pairs.jsonl", {"kind": "triple", "prompt": [{"role": "user", "content": "a"}]}),
    ),
    Fault(
        "a text edited under its old id",
        READ,
        ('pairs.jsonl:1, column "id"', "delete the id fields of this row"),
        rows(
            "pairs.jsonl",
            {
                "kind": "pair",
                "id": "0" * 32,
                "prompt": [{"role": "user", "content": "a"}],
                "chosen": "b",
                "rejected": "c",
            },
        ),
    ),
    Fault(
        "nothing left after setting aside",
        READ,
        ("pairs.jsonl: found 12 rows, all of them set aside (12 identical)", "`rewardlab data doctor` shows"),
        rows("pairs.jsonl", *({**values, "rejected": values["chosen"]} for values in ROWS)),
    ),
    Fault(
        "one conversation for three sides",
        READ,
        ("val.jsonl, test.jsonl: found none of the 1 usable records of 1 conversations", "Give more data"),
        rows("pairs.jsonl", ROWS[0]),
    ),
    Fault(
        "more folds than conversations",
        f"{READ} --folds 40",
        (" more: found none of the 12 usable records", "fewer folds"),
    ),
    Fault(
        "more than twenty problems",
        READ,
        ("30 problems", "... and 10 more (30 in all)"),
        rows("pairs.jsonl", *ROWS, *({**ROWS[0], "chosen": i} for i in range(30))),
    ),
    Fault(
        "problems in two sources",
        "data doctor --sources.train a.jsonl --sources.test b.jsonl",
        ("2 problems", "a.jsonl: found no such file", "b.jsonl: found no such file"),
    ),
]


@each(ROWS_AND_COLUMNS)
def test_rows_and_columns(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    refused(fault, capsys)
