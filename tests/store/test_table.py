"""The sharded table: the same bytes at the end, whatever happened on the way."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.errors import RunError
from rewardlab.store.table import Plan, ShardedTable, write_parquet

SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string()), ("score", pa.float64())])
SHARDS = ((7, 0, 3), (1,), (5, 2, 6), (4,))
PLAN = Plan("key", SHARDS)


def row(number: int) -> dict[str, Any]:
    return {"row": number, "text": f"text {number}", "score": number / 3}


def fill(table: ShardedTable, numbers: list[int]) -> None:
    for number in numbers:
        table.write(number, [row(position) for position in table.plan.shards[number]])


def test_rows_come_back_in_their_original_order(tmp_path: Path) -> None:
    table = ShardedTable(tmp_path, SCHEMA, PLAN)
    assert table.missing() == [0, 1, 2, 3]
    fill(table, [2, 0, 3, 1])
    assert table.missing() == []
    returned = table.finish(tmp_path / "table.parquet")
    assert returned.to_pylist() == [row(number) for number in range(8)]
    assert pq.read_table(tmp_path / "table.parquet").equals(returned)


def test_order_and_interruptions_do_not_change_a_byte(tmp_path: Path) -> None:
    random_order = random.Random(0)
    contents = set()
    for attempt in range(4):
        order = random_order.sample(range(4), 4)
        folder = tmp_path / str(attempt)
        fill(ShardedTable(folder, SCHEMA, PLAN), order[:2])
        later = ShardedTable(folder, SCHEMA, PLAN)
        assert sorted(later.missing()) == sorted(order[2:])
        fill(later, later.missing())
        later.finish(folder / "table.parquet")
        contents.add((folder / "table.parquet").read_bytes())
    assert len(contents) == 1


def test_a_damaged_or_foreign_shard_is_computed_again(tmp_path: Path) -> None:
    table = ShardedTable(tmp_path, SCHEMA, PLAN)
    fill(table, [0, 1, 2, 3])
    shard = tmp_path / "shards" / "00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    write_parquet(tmp_path / "shards" / "00001.parquet", pa.table({"row": [1]}))
    (tmp_path / "shards" / ".unfinished-1234-00003.parquet").write_bytes(b"PAR1")
    assert table.missing() == [1, 2]
    with pytest.raises(RunError, match="2 shards missing"):
        table.finish(tmp_path / "table.parquet")
    assert not (tmp_path / "table.parquet").exists()


@pytest.mark.parametrize("other", [Plan("other", SHARDS), Plan("key", SHARDS[::-1])])
def test_a_different_plan_is_refused(tmp_path: Path, other: Plan) -> None:
    ShardedTable(tmp_path, SCHEMA, PLAN)
    with pytest.raises(RunError, match="parts of a different table"):
        ShardedTable(tmp_path, SCHEMA, other)


@pytest.mark.parametrize("shards", [((0, 1), (1,)), ((0,), (2,)), ((-1, 0),)])
def test_a_plan_holds_every_row_once(shards: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="exactly once"):
        Plan("key", shards)


def test_rows_that_do_not_fit_the_plan_are_refused(tmp_path: Path) -> None:
    table = ShardedTable(tmp_path, SCHEMA, PLAN)
    with pytest.raises(ValueError, match="shard 1 has 2 rows"):
        table.write(1, [row(1), row(2)])
    with pytest.raises(ValueError, match=r"\['row'\], not 1 rows of"):
        table.write(1, pa.table({"row": [1]}))
    assert table.missing() == [0, 1, 2, 3]


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    table = ShardedTable(tmp_path, SCHEMA, Plan("key", ()))
    assert table.finish(tmp_path / "table.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "table.parquet").schema.names == SCHEMA.names


def test_a_full_disk_leaves_the_shard_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ShardedTable(tmp_path, SCHEMA, PLAN)

    def full(source: Any, target: Path, **options: Any) -> NoReturn:
        Path(target).write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        with pytest.raises(RunError, match="No space left on device"):
            fill(table, [0])
    assert table.missing() == [0, 1, 2, 3]
    assert list((tmp_path / "shards").iterdir()) == []


WRITER = """
import os, sys, random
from pathlib import Path
import pyarrow as pa
from rewardlab.store import files
from rewardlab.store.table import Plan, ShardedTable
folder, shards, moment = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
count = 0
def counted(function):
    def call(*arguments, **named):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), 9)
        return function(*arguments, **named)
    return call
# Every write passes these two moments: content on its way to disk, name about to change.
os.fsync, os.replace = counted(os.fsync), counted(os.replace)
schema = pa.schema([("row", pa.int64()), ("score", pa.float64())])
rows = random.Random(0).sample(range(3 * shards), 3 * shards)
plan = Plan("key", tuple(tuple(rows[i : i + 3]) for i in range(0, 3 * shards, 3)))
table = ShardedTable(folder, schema, plan)
for number in table.missing():
    table.write(number, [{"row": position, "score": position / 7} for position in plan.shards[number]])
table.finish(folder / "table.parquet")
"""


def write_killed_at(folder: Path, shards: int, moment: int) -> int:
    command = [sys.executable, "-c", WRITER, str(folder), str(shards), str(moment)]
    return subprocess.run(command, check=False).returncode


def check_kills(tmp_path: Path, shards: int, moments: list[int]) -> None:
    assert write_killed_at(tmp_path / "whole", shards, 0) == 0
    expected = (tmp_path / "whole" / "table.parquet").read_bytes()
    assert pq.read_table(tmp_path / "whole" / "table.parquet")["row"].to_pylist() == list(range(3 * shards))
    folder = tmp_path / "killed"
    for moment in moments:
        assert write_killed_at(folder, shards, moment) == -signal.SIGKILL
        assert not (folder / "table.parquet").exists()
    assert write_killed_at(folder, shards, 0) == 0
    assert (folder / "table.parquet").read_bytes() == expected


def test_killed_and_resumed_the_bytes_are_the_same(tmp_path: Path) -> None:
    check_kills(tmp_path, shards=4, moments=[2, 5])


@pytest.mark.slow
def test_killed_twenty_times_the_bytes_are_the_same(tmp_path: Path) -> None:
    moments = random.Random(1).choices(range(1, 10), k=20)
    check_kills(tmp_path, shards=100, moments=moments)
