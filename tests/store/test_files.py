"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rewardlab.errors import DataError, RunError
from rewardlab.store import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(context: AbstractContextManager[Path], name: str, error: Exception) -> None:
    """Write something half-way, then fail as a writer would."""
    with context as temporary:
        (temporary / name if name else temporary).write_text("half")
        raise error


def full_disk(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_there_only_after_the_block(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "name.txt"
    with files.atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert names(target.parent) == ["name.txt"]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "name.txt"
    target.write_text("old")
    with pytest.raises(KeyError):
        write_and_fail(files.atomic_path(target), "", KeyError())
    assert target.read_text() == "old"
    assert names(tmp_path) == ["name.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("first", "second"):
        with files.atomic_folder(target) as temporary:
            (temporary / content).write_text(content)
    assert names(target) == ["second"]
    with pytest.raises(KeyError):
        write_and_fail(files.atomic_folder(target), "half", KeyError())
    assert names(target) == ["second"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, os.strerror(errno.EIO))])
def test_stopped_between_the_two_renames_the_old_folder_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "model"
    with files.atomic_folder(target) as temporary:
        (temporary / "old").touch()
    rename = os.rename

    def stopped_after_the_first(source: Path, place: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        rename(source, place)
        raise error

    monkeypatch.setattr(os, "rename", stopped_after_the_first)
    with pytest.raises(type(error)), files.atomic_folder(target) as temporary:
        (temporary / "new").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("kill_at", ["os.fsync", "os.replace"])
def test_killed_inside_a_write_the_old_file_stands(tmp_path: Path, kill_at: str) -> None:
    target = tmp_path / "value.json"
    files.write_json(target, {"value": "old"})
    program = (
        "import os, sys\n"
        "from rewardlab.store import files\n"
        f"{kill_at} = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "files.write_json(sys.argv[1], {'value': 'new'})\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert files.read_json(target) == {"value": "old"}
    assert len(names(tmp_path)) == 2
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["value.json"]


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    monkeypatch.setattr(os, at, full_disk)
    target = tmp_path / "rows.jsonl"
    with pytest.raises(RunError, match=r"rows\.jsonl: found No space left on device"):
        files.write_jsonl(target, [{"a": 1}])
    native = RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RunError, match="No space left on device"):
        write_and_fail(files.atomic_folder(tmp_path / "model"), "weights", native)
    assert names(tmp_path) == []


def test_another_error_keeps_its_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "a"):
        (tmp_path / "absent").read_text()


def test_a_parent_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        files.write_json(tmp_path / "file" / "value.json", 1)


def test_text_stays_readable_and_surrogates_survive(tmp_path: Path) -> None:
    value = {"text": "häuser 😀 \ud800 \\ud800 \u2028", "number": 0.1}
    files.write_json(tmp_path / "value.json", value)
    assert files.read_json(tmp_path / "value.json") == value
    assert "häuser 😀" in (tmp_path / "value.json").read_text(encoding="utf-8")
    files.write_jsonl(tmp_path / "rows.jsonl", [value, value])
    assert list(files.read_jsonl(tmp_path / "rows.jsonl")) == [value, value]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "value.json", float("nan"))
    assert names(tmp_path) == []


def test_compressed_rows_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    rows = [{"i": i} for i in range(5)]
    assert files.write_jsonl(tmp_path / "a.jsonl.gz", rows) == 5
    files.write_jsonl(tmp_path / "b.jsonl.gz", iter(rows))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    with gzip.open(tmp_path / "a.jsonl.gz", "rt") as stream:
        assert [json.loads(line) for line in stream] == rows
    assert list(files.read_jsonl(tmp_path / "a.jsonl.gz")) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', r"rows\.jsonl:2: found no valid JSON \(Expecting value"),
        (b'{"a": "\xff"}\n', r"rows\.jsonl:1: found .*can't decode byte 0xff"),
        (None, r"rows\.jsonl: found No such file"),
    ],
)
def test_unreadable_rows_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(files.read_jsonl(path))
    with pytest.raises(DataError):
        files.read_json(path)


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    files.write_jsonl(path, [{"i": i} for i in range(1000)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: found Compressed file ended"):
        list(files.read_jsonl(path))


def test_appended_lines_survive_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    files.append_line(path, {"step": 1})
    with path.open("ab") as stream:
        stream.write(b'{"step": 2, "lo')
    assert list(files.read_jsonl(path, torn_tail=True)) == [{"step": 1}]
    with pytest.raises(DataError, match=r"history\.jsonl:2"):
        list(files.read_jsonl(path))
    files.append_line(path, {"step": 3})
    assert list(files.read_jsonl(path)) == [{"step": 1}, {"step": 3}]


def test_a_torn_first_line_longer_than_a_chunk_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK_BYTES", 8)
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"step": "a long line that was torn')
    files.append_line(path, {"step": "another line, longer than a chunk"})
    files.append_line(path, 2)
    assert list(files.read_jsonl(path)) == [{"step": "another line, longer than a chunk"}, 2]


def test_a_full_disk_keeps_the_former_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    files.append_line(path, {"step": 1})
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(RunError, match="No space left"):
            files.append_line(path, {"step": 2})
    assert path.read_bytes() == before


def test_hash_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert files.sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match="No such file"):
        files.sha256_file(tmp_path / "absent")


def test_adding_to_a_long_file_of_lines_reads_its_end_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            read.append(len(found))
            return found

    lines = b"".join(b'{"step": %d}\n' % step for step in range(100_000))
    assert files._end_of_last_line(Counted(lines)) == len(lines)
    assert sum(read) <= 4096
    torn = lines + b"x" * 3_000_000
    assert files._end_of_last_line(Counted(torn)) == len(lines)
    assert files._end_of_last_line(Counted(b"x" * 5_000)) == 0
