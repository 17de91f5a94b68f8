"""Rows on disk: any dtype, found by digest, whole or absent whatever is killed."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from rewardlab.errors import RunError
from rewardlab.store import rows
from rewardlab.store.files import LEFTOVER_PREFIX
from rewardlab.store.lock import LOCK_NAME, is_locked
from rewardlab.store.rows import RowStore, digest_of, in_words

SHAPE = (3, 5)


def digests(*numbers: int) -> list[bytes]:
    return [digest_of(bytes([number])) for number in numbers]


def rows_of(*numbers: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows that say whose they are: small whole numbers are exact in every dtype."""
    return torch.stack([torch.arange(15).reshape(SHAPE) + number for number in numbers]).to(dtype)


def filled(folder: Path, *shards: tuple[int, ...], dtype: torch.dtype = torch.float32) -> RowStore:
    store = RowStore(folder, SHAPE, dtype)
    with store.writing():
        for numbers in shards:
            store.write(digests(*numbers), rows_of(*numbers, dtype=dtype))
    return store


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_rows_come_back_in_any_order_from_any_shard(tmp_path: Path, dtype: torch.dtype) -> None:
    written = filled(tmp_path, (7, 1, 4), (9,), (2, 8), dtype=dtype)
    for store in (written, RowStore(tmp_path, SHAPE, dtype)):
        assert len(store) == 6
        wanted = (8, 7, 9, 7, 2, 4)
        assert torch.equal(store.read(digests(*wanted)), rows_of(*wanted, dtype=dtype))
        assert store.read(digests(1)).dtype == dtype
        assert digests(3)[0] not in store
        with pytest.raises(KeyError):
            store.read(digests(3))


def test_a_row_is_read_from_the_map_and_the_file_stays(tmp_path: Path) -> None:
    """What a caller does to the rows that it got reaches neither the file nor the next reader."""
    store = filled(tmp_path, (1, 2))
    (path,) = tmp_path.glob("*.safetensors")
    before = path.read_bytes()
    store.read(digests(1, 2)).zero_()
    assert path.read_bytes() == before
    assert torch.equal(store.read(digests(1)), rows_of(1))


def test_shards_of_another_shape_or_dtype_are_not_used(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2))
    assert len(RowStore(tmp_path, (5, 3), torch.float32)) == 0
    assert len(RowStore(tmp_path, SHAPE, torch.float16)) == 0


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
def test_a_damaged_shard_is_passed_over_and_made_again(tmp_path: Path, cut: int) -> None:
    filled(tmp_path, (1, 2), (3, 4))
    path = next(path for path in tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:cut])
    store = RowStore(tmp_path, SHAPE, torch.float32)
    assert len(store) == 2
    with store.writing():
        assert not path.exists()


def test_a_shard_that_cannot_be_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk or a missing right says nothing about what is in a file."""
    store = filled(tmp_path, (1, 2))
    (path,) = tmp_path.glob("*.safetensors")
    content, opened = path.read_bytes(), rows.safe_open

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(rows, "safe_open", fail)
    with pytest.raises(RunError, match=rf"{path}: found OSError: Input/output error.*May you read it"):
        RowStore(tmp_path, SHAPE, torch.float32)
    store._opened.clear()  # as of a process that came before the file did
    with pytest.raises(RunError, match="Input/output error"), store.writing():
        raise AssertionError
    assert path.read_bytes() == content
    assert not is_locked(tmp_path)
    monkeypatch.setattr(rows, "safe_open", opened)
    assert torch.equal(RowStore(tmp_path, SHAPE, torch.float32).read(digests(2)), rows_of(2))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_shard_of_somebody_else_is_kept(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2))
    (path,) = tmp_path.glob("*.safetensors")
    path.chmod(0)
    with pytest.raises(RunError, match="PermissionError"):
        RowStore(tmp_path, SHAPE, torch.float32)
    assert path.exists()


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(ValueError, match="rows of shape"):
        store.write(digests(1), rows_of(1, 2))
    assert list(tmp_path.glob("*.safetensors")) == []


def test_the_need_is_that_of_the_files(tmp_path: Path) -> None:
    """2,000 rows of 4 x 64 half-precision numbers: 512 bytes and a digest of 16 each."""
    store = RowStore(tmp_path, (4, 64), torch.float16)
    names = [digest_of(str(number).encode()) for number in range(2000)]
    with store.writing():
        store.write(names, torch.zeros(2000, 4, 64))
    (path,) = tmp_path.glob("*.safetensors")
    assert store.bytes_for(2000) == 2000 * 528
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert 0 <= path.stat().st_size - store.bytes_for(2000) < 1000


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 76_000))
    store = RowStore(tmp_path / "rows", SHAPE, torch.float32)  # 60 bytes and a digest of 16
    store.check_room(1000, "")
    with pytest.raises(RunError) as told:
        store.check_room(1001, "Use less.")
    (problem,) = told.value.problems
    assert problem.found == "76.0 kB free, for 1001 rows that take 76.1 kB"
    assert problem.remedy == "Use less."
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_560_000, "2.6 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert in_words(count) == words


WRITER = """
import sys
import torch
from pathlib import Path
from rewardlab.store.rows import RowStore, digest_of

folder, shards, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = RowStore(folder, (8, 512), torch.float32)
with store.writing():
    print("writing", flush=True)
    for shard in range(shards):
        numbers = range(shard * rows, (shard + 1) * rows)
        names = [digest_of(str(number).encode()) for number in numbers]
        if names[0] not in store:
            store.write(names, torch.stack([torch.full((8, 512), float(number)) for number in numbers]))
"""
SHARDS, ROWS = 400, 64


def writer(folder: Path) -> subprocess.Popen[str]:
    """A process that writes shard after shard, once it says so."""
    command = [sys.executable, "-c", WRITER, str(folder), str(SHARDS), str(ROWS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        stream.readline()
    return process


def check_whole_shards(folder: Path) -> int:
    """Number of rows there are: whole shards of the right numbers."""
    store = RowStore(folder, (8, 512), torch.float32)
    known = [number for number in range(SHARDS * ROWS) if digest_of(str(number).encode()) in store]
    assert len(known) % ROWS == 0
    assert len(known) == len(store)
    for number in known[:: ROWS // 2]:
        assert (store.read([digest_of(str(number).encode())]) == number).all()
    return len(known)


@pytest.mark.slow  # tests/train/test_features.py kills in the quick suite
def test_killed_while_writing_only_whole_shards_are_there(tmp_path: Path) -> None:
    """kill -9 as soon as the first shard is there, while the next ones are being written."""
    process = writer(tmp_path)
    while not list(tmp_path.glob("[0-9a-f]*.safetensors")):
        time.sleep(0.001)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert 0 < check_whole_shards(tmp_path) < SHARDS * ROWS
    with RowStore(tmp_path, (8, 512), torch.float32).writing():
        left = [path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors"]
    assert left == [LOCK_NAME]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again_until_it_is_done(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    counts = [0]
    for attempt in range(6):
        process = writer(tmp_path)
        if attempt < 5:
            time.sleep(generator.uniform(0, 0.05))
            process.kill()
        process.wait(60)
        counts.append(check_whole_shards(tmp_path))
    assert counts == sorted(counts)
    assert counts[-1] == SHARDS * ROWS


def test_a_second_writer_waits_and_goes_on_from_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rewardlab")
    program = (
        "import sys, torch\nfrom pathlib import Path\nfrom rewardlab.store.rows import RowStore, digest_of\n"
        "store = RowStore(Path(sys.argv[1]), (3, 5), torch.float32)\n"
        "with store.writing():\n"
        "    print('holds', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    store.write([digest_of(bytes([6]))], torch.full((1, 3, 5), 6.0))\n"
    )
    store = RowStore(tmp_path, SHAPE, torch.float32)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        tell = store._tell

        def told(holder: str) -> None:
            tell(holder)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

        store._tell = told  # type: ignore[method-assign]
        with store.writing():
            assert process.wait(30) == 0
            assert torch.equal(store.read(digests(6)), torch.full((1, *SHAPE), 6.0))
    assert f"written to by process {process.pid} on" in caplog.text
    assert not is_locked(tmp_path)


def test_leftovers_are_not_read(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2))
    (path,) = tmp_path.glob("*.safetensors")
    leftover = tmp_path / f"{LEFTOVER_PREFIX}12ab34cd-{path.name}"
    path.rename(leftover)
    store = RowStore(tmp_path, SHAPE, torch.float32)
    assert len(store) == 0
    with store.writing():
        assert not leftover.exists()


def test_many_shards_give_the_rows_of_one(tmp_path: Path) -> None:
    """Every row of every shard once, against plain indexing."""
    shards = [tuple(range(start, start + size)) for start, size in zip((0, 5, 6, 20), (5, 1, 14, 30), strict=True)]
    store = filled(tmp_path, *shards)
    order = list(itertools.chain.from_iterable(shards))
    random.Random(1).shuffle(order)
    assert torch.equal(store.read(digests(*order)), rows_of(*order))
