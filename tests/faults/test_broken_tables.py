"""Score tables, evaluations and folders of stages that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import ROWS, Fault, Setup, each, refused, rows, text

from rewardlab.cli.main import main
from rewardlab.data.canonical import write_records
from rewardlab.records import Message, Pair, Prompt, completion_id

EVALUATE = "evaluate accuracy --data test.jsonl --scores scores.parquet"
REPORT = "report"

Row = dict[str, Any]


def pairs(label: str, count: int = 12) -> list[Pair]:
    return [Pair(Prompt((Message("user", f"{label} {i}"),)), f"good {i}", f"bad {i}") for i in range(count)]


def table(records: list[Pair], change: Callable[[list[Row]], list[Row]] = lambda found: found) -> Setup:
    """Writes `test.jsonl`, which holds twelve pairs, and the scores of `records` in `scores.parquet`, changed."""
    found = [
        {
            "prompt_id": record.prompt.id,
            "completion_id": completion_id(record.prompt, completion),
            "occurrence": 0,
            "row": number,
            "candidate": candidate,
            "scorer": "small",
            "score": float(1 - candidate),
            "prompt_tokens": 2,
            "completion_tokens": 2,
            "truncated": False,
        }
        for number, record in enumerate(records)
        for candidate, completion in enumerate(record.completions)
    ]

    def write(folder: Path) -> None:
        write_records(folder / "test.jsonl", pairs("question"))
        rows = change(found)
        whole = pa.Table.from_pylist(rows or found)
        pq.write_table(whole if rows else whole.slice(0, 0), folder / "scores.parquet")

    return write


def column(name: str, value: Any) -> Setup:
    """A table whose third row holds another value in a column."""
    return table(
        pairs("question"), lambda found: [{**row, name: value} if i == 2 else row for i, row in enumerate(found)]
    )


def without(name: str) -> Setup:
    return table(pairs("question"), lambda found: [{key: row[key] for key in row if key != name} for row in found])


def both(*setups: Setup) -> Setup:
    return lambda folder: [setup(folder) for setup in setups]


GOOD = table(pairs("question"))

SCORES = [
    Fault(
        "no table", EVALUATE.replace("--scores ", "--scores no-"), ("no-scores.parquet: found", "rewardlab score"), GOOD
    ),
    Fault("no data", EVALUATE, ("test.jsonl: found no such file",)),
    Fault(
        "data that are not canonical",
        EVALUATE,
        (
            "test.jsonl: found columns 'prompt', 'chosen', 'rejected'; expected canonical",
            "`rewardlab data prepare --sources.mine.path test.jsonl`",
        ),
        both(GOOD, rows("test.jsonl", *ROWS)),
    ),
    Fault(
        "a source in place of a path",
        f"{EVALUATE} --train '[{{path: pairs.jsonl}}]'",
        ("--train, train.0: found {'path': 'pairs.jsonl'}; expected a path. Write the path alone",),
        GOOD,
    ),
    Fault(
        "a folder that nobody scored in",
        EVALUATE.replace("scores.parquet", "empty"),
        ("empty/scores.parquet: found",),
        both(GOOD, text("empty/notes.txt", "x")),
    ),
    Fault("garbage", EVALUATE, ("scores.parquet: found",), both(GOOD, text("scores.parquet", "x" * 200))),
    Fault("an empty table", EVALUATE, ("scores.parquet: found no rows",), table(pairs("question", 1), lambda rows: [])),
    Fault(
        "scores of other data",
        EVALUATE,
        ("none of the 24 completions in this table", "expected a score for every completion", "Score the file"),
        table(pairs("another")),
    ),
    Fault(
        "scores of half of the data",
        EVALUATE,
        ("completion 1: found no row", "without --limit"),
        table(pairs("question", 4)),
    ),
    Fault("a column missing", EVALUATE, ('scores.parquet, column "score": found only prompt_id',), without("score")),
    Fault(
        "scores that are no numbers",
        EVALUATE,
        ('scores.parquet:3, column "score": found nan; expected a finite number', "overflow"),
        column("score", float("nan")),
    ),
    Fault("scores that are infinite", EVALUATE, ("found inf; expected a finite",), column("score", float("inf"))),
    Fault("scores left out", EVALUATE, ('column "score": found 1 empty values',), column("score", None)),
    Fault(
        "a key twice",
        EVALUATE,
        ("scores.parquet:25: found prompt_id", "as in row 1; expected every key once", "Remove one"),
        table(pairs("question"), lambda found: [*found, found[0]]),
    ),
    Fault("two scorers", EVALUATE, ("found other, small; expected one scorer",), column("scorer", "other")),
    Fault(
        "two tables for three files",
        "evaluate accuracy --data [test.jsonl,test.jsonl,test.jsonl] --scores [scores.parquet,scores.parquet]",
        ("scores for 3 data files: one score table each, or one for all of them",),
        GOOD,
    ),
    Fault(
        "training data that hold the test",
        f"{EVALUATE} --train test.jsonl",
        ("also among the training pairs", "split by `rewardlab data prepare`"),
        GOOD,
    ),
    Fault("intervals of all", f"{EVALUATE} --level 1", ("--level: found 1; expected less than 1",), GOOD),
]


@each(SCORES)
def test_score_tables(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    refused(fault, capsys)


def history(folder: Path) -> None:
    text("train/history.jsonl", '{"step": 1, "split": "train"}\n{"split": "train"}\n')(folder)


REPORTS = [
    Fault(
        "nothing",
        "report",
        (
            "report: found no folders",
            "--doctor, --intervene, --train, --score, --evaluate, --bench, --perturb, --cartography",
            "--frontier, --audit or --simulate",
        ),
    ),
    Fault("no folder", "report --train nowhere", ("nowhere: found no folder", "that a finished stage wrote")),
    Fault(
        "a folder that is no stage", "report --evaluate notes", ("notes/accuracy.json: found",), text("notes/a", "x")
    ),
    Fault(
        "every folder wrong",
        "report --doctor notes --train notes --score notes --evaluate notes",
        ("notes/doctor.json: found", "notes/history.jsonl: found", "notes/summary.json: found", "notes/accuracy.json"),
        text("notes/a", "x"),
    ),
    Fault(
        "half a file",
        "report --score notes",
        ("notes/summary.json: found no valid JSON",),
        text("notes/summary.json", "{"),
    ),
    Fault("a list", "report --doctor notes", ("notes/doctor.json: found a list",), text("notes/doctor.json", "[]")),
    Fault(
        "checks of another version",
        "report --doctor notes",
        ("notes/doctor.json: checks: found nothing", "Was it written by this version of rewardlab?"),
        text("notes/doctor.json", "{}"),
    ),
    Fault("a line without its step", "report --train train", ("train/history.jsonl:2: step: found nothing",), history),
    Fault(
        "an audit that is none", "audit report --effects notes", ("notes/effects.json: found",), text("notes/a", "x")
    ),
    Fault(
        "audits that are none",
        "audit compare --effects notes --effects gone",
        ("notes/effects.json: found", "gone: found no folder"),
        text("notes/a", "x"),
    ),
    Fault("no audits", "audit compare", ("--effects",)),
    Fault("a negative number of examples", "report --max_examples -1 --train x", ("--max_examples: found -1",)),
]


@each(REPORTS)
def test_reports(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    refused(fault, capsys)


def evaluated(name: str, label: str) -> None:
    write_records(f"{name}.jsonl", pairs(label))
    table(pairs(label))(Path())
    assert main(["evaluate", "accuracy", "--data", f"{name}.jsonl", "--scores", "scores.parquet", "--run", name]) == 0


def test_evaluations_of_other_data_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    evaluated("first", "question")
    evaluated("second", "another")
    capsys.readouterr()
    command = "runs compare first second"
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert "runs/second: found no pair of runs/first; expected pairs in common. Compare evaluations of" in printed.err
    Path("runs/second").chmod(0o755)
    Path("runs/second/pairs.parquet").unlink()
    Path("runs/second/pairs.parquet").write_bytes(b"rubbish")
    assert main(command.split()) == 2
    assert "runs/second/pairs.parquet: found" in capsys.readouterr().err
