"""Files that appear whole or not at all.

Every writer here works on a temporary neighbour, forces it to disk and renames it: after a kill, a power cut
or a full disk the old content stands, or nothing. What a kill leaves behind carries `LEFTOVER_PREFIX` in its
name, is never read, and goes with `remove_leftovers`.

JSON is UTF-8 with readable text. A lone surrogate, legal in JSON but not in UTF-8, is written as its escape
(`\\ud800`), so it survives and the file stays valid UTF-8.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rewardlab.errors import DataError, Problem, RunError

LEFTOVER_PREFIX = ".unfinished-"
"""What the name of a temporary file or folder begins with."""

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK_FULL_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "os error 28",
    # The writer of torch.save, whose errors name no reason.
    "inline_container.cc",
)
_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 1 << 12
"""Read first from the end of a file of lines: the last line is whole unless something was killed."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends without an error.

    The temporary name ends like the final one, so writers that go by the suffix do the right thing. Missing
    parent folders are made. An existing file is replaced in one step.

    Raises:
        RunError: the folder cannot be written to, or the disk is full; nothing is left behind.
    """
    target = Path(path)
    temporary = _temporary_beside(target)
    try:
        with clear_when_disk_is_full(target):
            yield temporary
            sync_file(temporary)
            os.replace(temporary, target)
            _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path` when the block ends without an error.

    An existing folder is moved aside first and deleted afterwards: a kill between the two renames leaves
    nothing under the name, never a mixture of old and new. After an error there, or Ctrl-C, the old one is back in
    its place.

    Raises:
        RunError: the parent cannot be written to, or the disk is full; nothing is left behind.
    """
    target = Path(path)
    temporary = _temporary_beside(target)
    aside = temporary.with_name(f"{temporary.name}-old")
    try:
        with clear_when_disk_is_full(target):
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            if target.is_dir() and not target.is_symlink():
                os.rename(target, aside)
            os.rename(temporary, target)
            _sync_folder(target.parent)
    except BaseException:
        if aside.exists() and not target.exists():
            os.rename(aside, target)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            # Otherwise it is all there is.
            shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left unfinished anywhere under `folder`. Call it under the run's lock."""
    for leftover in sorted(folder.rglob(f"{LEFTOVER_PREFIX}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """`text` as UTF-8, atomically; lone surrogates become their backslash escape."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """`value` as indented JSON, atomically.

    Raises:
        ValueError: `value` holds NaN or infinity, which are not JSON.
    """
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: no such file, not UTF-8 or not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("cannot read a JSON file", [_unreadable(path, error, "a JSON file")]) from error


def json_line(value: Any) -> bytes:
    """`value` as one line of JSON in UTF-8, newline included."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # Surrogates only stand inside strings, where the backslash escape is the JSON escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """A JSON value a line, atomically; compressed when the name ends in `.gz` (same rows, same bytes).

    Returns:
        The number of rows written.
    """
    count = 0
    with atomic_path(path) as temporary, _writer(temporary) as stream:
        for row in rows:
            stream.write(json_line(row))
            count += 1
    return count


def read_jsonl(path: str | Path, *, torn_tail: bool = False) -> Iterator[Any]:
    """The values of a JSON Lines file (`.jsonl` or `.jsonl.gz`), one at a time; empty lines are skipped.

    Args:
        path: the file.
        torn_tail: leave out a last line that is incomplete, as a kill during `append_line` leaves it.

    Raises:
        DataError: no such file, or a line that is not UTF-8 JSON (with its number).
    """
    number = 0
    try:
        with _reader(Path(path)) as stream:
            for line in stream:
                number += 1
                if torn_tail and not line.endswith(b"\n"):
                    return
                if line.strip():
                    yield json.loads(line.decode("utf-8"))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        place = f"{path}:{number}" if isinstance(error, ValueError) else str(path)
        raise DataError("cannot read a JSON Lines file", [_unreadable(place, error, "a JSON value a line")]) from error


def append_line(path: str | Path, value: Any, *, force: bool = True) -> None:
    """Add one JSON line. For one writer at a time.

    A torn last line, left by a kill in an earlier append, is cut off first. When the disk is full the file
    keeps its former lines and no part of the new one.

    Args:
        path: the file; made where there is none.
        value: JSON values.
        force: force it to disk, which takes milliseconds. Without, a kill loses nothing, but a power cut may.

    Raises:
        RunError: the file cannot be written, or the disk is full.
    """
    target = Path(path)
    line = json_line(value)
    with clear_when_disk_is_full(target), _appender(target) as stream:
        size = _end_of_last_line(stream)
        try:
            stream.truncate(size)
            stream.seek(size)
            stream.write(line)
            stream.flush()
            if force:
                os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                stream.truncate(size)
            raise


ENDLESS = "a pipe, socket or device"


def is_endless(path: Path) -> bool:
    """Whether something other than a file or folder stands there: a pipe without a writer, a device without an end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        DataError: the file cannot be read, or is a pipe or device: reading it might never end.
    """
    if is_endless(Path(path)):
        problem = Problem(str(path), ENDLESS, "a regular file", "Write its content to a file first.")
        raise DataError("cannot read a file", [problem])
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError("cannot read a file", [_unreadable(path, error, "a readable file")]) from error
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Force a written file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# A folder is a file too, and its entry for a renamed file must reach the disk as well.
_sync_folder = sync_file


def _sync_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            sync_file(path)


def _temporary_beside(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(target, error) from error
    if not os.access(target.parent, os.W_OK):
        raise _cannot_write(target, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return target.with_name(f"{LEFTOVER_PREFIX}{secrets.token_hex(4)}-{target.name}")


@contextmanager
def clear_when_disk_is_full(target: Path) -> Iterator[None]:
    """Errors of writing `target` for want of room as one clear error, whatever the library that writes calls them.

    Raises:
        RunError: the disk is full.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        # Libraries that write through native code raise types of their own, with the system's words in them.
        native = any(words in str(error) for words in _DISK_FULL_WORDS)
        if native or (isinstance(error, OSError) and error.errno in DISK_FULL):
            raise _cannot_write(target, error) from error
        raise


def _cannot_write(target: Path, error: Exception) -> RunError:
    found = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    problem = Problem(
        str(target),
        found,
        "room and permission to write",
        "Free some space there, or choose another place (REWARDLAB_HOME).",
    )
    return RunError("a file could not be written; nothing of it was left behind", [problem])


def _unreadable(where: str | Path, error: Exception, expected: str) -> Problem:
    found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Problem(
        str(where), f"no valid JSON ({found})" if isinstance(error, json.JSONDecodeError) else found, expected
    )


@contextmanager
def _writer(path: Path) -> Iterator[io.BufferedIOBase]:
    with path.open("wb") as plain:
        if path.suffix != ".gz":
            yield plain
            return
        # Without name and time in the header the same rows give the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as packed:
            yield packed


def _reader(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


@contextmanager
def _appender(path: Path) -> Iterator[io.BufferedIOBase]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    except OSError as error:
        raise _cannot_write(path, error) from error
    with stream:
        yield stream


def _end_of_last_line(stream: io.BufferedIOBase) -> int:
    """Offset just after the last newline."""
    position, chunk = stream.seek(0, os.SEEK_END), _TAIL_BYTES
    while position > 0:
        start, chunk = max(0, position - chunk), _CHUNK_BYTES
        stream.seek(start)
        found = stream.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
