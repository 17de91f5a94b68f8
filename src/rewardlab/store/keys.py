"""Content keys: the same content has the same key, whatever its name, place and time.

A stage of a study is done when the key of its configuration, inputs and code is that of the finished one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rewardlab.errors import DataError, Problem
from rewardlab.records import content_id
from rewardlab.store.files import LEFTOVER_PREFIX, sha256_file
from rewardlab.store.lock import LOCK_NAME

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package's source."""

PATH_NAMES = frozenset({"path", "model", "classifier", "tokenizer"})
"""Keys whose text is a file or folder wherever one of that name exists."""


RECORD = "run.json"
"""Name of the record in a run directory."""

CODE = "python:"
"""What a text begins with that names a function to run, as `python:FILE.py:FUNCTION` or `python:MODULE.FUNCTION`."""

JUDGE = "judge:"
"""What a text begins with that names a judge, as `judge:NAME` or `judge:FILE.yaml`."""

CHECKPOINTS = "checkpoints"
"""Where a training run keeps its way to the result."""

_SETTLED_SECONDS = 2.0
_digests: dict[tuple[str, int, int, int], str] = {}


def path_digest(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, or of a folder's relative names and their hashes.

    The checkpoints of the runs in a folder do not count: no stage reads those of another through its folder, and
    with the state of the optimiser they are many times the size of all that is read. A checkpoint that is itself
    `path` counts.

    Raises:
        DataError: nothing there, or unreadable.
    """
    place = Path(path)
    if not place.is_dir():
        return _file_digest(place)
    files = files_under(place)
    ways = {file.parent / CHECKPOINTS for file in files if file.name == RECORD}
    digest = hashlib.sha256()
    for file in files:
        if ways.isdisjoint(file.parents):
            digest.update(f"{file.relative_to(place).as_posix()}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def source_digests(sources: Iterable[str]) -> list[str]:
    """What stands for the content of a model's sources: of a folder its digest, of a hub id the commit that it is."""
    return [path_digest(source) if Path(source).is_dir() else source for source in sources]


def _file_digest(path: Path) -> str:
    """Hex sha256 of a file's bytes; of one that this process has read before and that is unchanged, from memory."""
    try:
        state = path.stat()
    except OSError:
        return sha256_file(path)
    key = (str(path.resolve()), state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _digests:
        # A file may change twice within one tick of the clock that dates it: what was just written is read again.
        digest, is_settled = sha256_file(path), time.time() - state.st_mtime > _SETTLED_SECONDS
        if not is_settled:
            return digest
        _digests[key] = digest
    return _digests[key]


def files_under(folder: Path) -> list[Path]:
    """The regular files of a folder in a fixed order, without locks, unfinished ones and byte code."""

    def counts(file: Path) -> bool:
        parts = file.relative_to(folder).parts
        # Reading a lock file would let go of the lock: the kernel drops it when any handle closes.
        skipped = file.name == LOCK_NAME or "__pycache__" in parts
        return not skipped and not any(part.startswith(LEFTOVER_PREFIX) for part in parts)

    return sorted(file for file in folder.rglob("*") if file.is_file() and counts(file))


def paths_in(value: Any, name: str = "") -> Iterator[Path]:
    """Existing files and folders that a configuration's values name.

    A `Path` counts always; a string when it has a separator or a suffix or stands under one of `PATH_NAMES`, so that
    a split called `test` is not taken for a folder of that name. `python:FILE.py:FUNCTION` and
    `judge:FILE.yaml` name their file, `python:MODULE.FUNCTION` the module's source.

    Args:
        value: configuration values, nested.
        name: the key that `value` stands under.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from paths_in(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from paths_in(inner, name)
    elif isinstance(value, Path) or (isinstance(value, str) and (name in PATH_NAMES or _looks_like_a_path(value))):
        path = _named_file(value) if isinstance(value, str) else value
        if value and path is not None and is_there(path):
            yield path


def content_key(value: Any) -> str:
    """Key of a configuration in which every existing path (see `paths_in`) counts by its content, not its name.

    Raises:
        DataError: a path that exists cannot be read.
    """
    return content_id(_by_content(value))


@cache
def code_key(module: str) -> str:
    """Key of the source that `module` can run: its room and, transitively, every room that these import.

    Whole rooms, because registries within a room find their members by name, and all their files, because some
    read others (a page its style sheet). A module from outside the package counts as its one file.

    Raises:
        DataError: no such module.
    """
    reached: dict[str, list[Path]] = {}
    waiting = [_room_of(module)]
    while waiting:
        room = waiting.pop()
        if room and room not in reached:
            reached[room] = _room_files(room)
            sources = [file for file in reached[room] if file.suffix == ".py"]
            waiting += [other for file in sources for other in _rooms_imported(file)]
    files = {file.relative_to(PACKAGE).as_posix(): file for members in reached.values() for file in members}
    return content_id({name: sha256_file(file) for name, file in (files or _outside(module)).items()})


def _named_file(text: str) -> Path | None:
    """The file that a text names, of a module its source; None where there is none."""
    if text.startswith(JUDGE):
        rest = text.removeprefix(JUDGE)
        return Path(rest) if _looks_like_a_path(rest) else None
    if not text.startswith(CODE):
        return Path(text)
    place = text.removeprefix(CODE)
    file, is_file, _ = place.rpartition(":")
    return Path(file) if is_file else _source_of(place.rpartition(".")[0])


def _source_of(module: str) -> Path | None:
    """The source file of a module; None where it cannot be found, which whoever runs it says better."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return None if spec is None or spec.origin is None or not spec.has_location else Path(spec.origin)


def _looks_like_a_path(text: str) -> bool:
    return "\0" not in text and "\n" not in text and len(text) < 4096 and ("/" in text or bool(Path(text).suffix))


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; not where the system cannot say, or no path can have the name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _by_content(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {str(key): _by_content(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(inner, name) for inner in value]
    for path in paths_in(value, name):
        content = {"content": path_digest(path)}
        # Of one file several functions may be run.
        is_code = isinstance(value, str) and value.startswith(CODE)
        return content | {"function": value.rpartition(":")[2]} if is_code else content
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _room_of(module: str) -> str:
    """First part of the module's name within the package; empty outside."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == PACKAGE.name else ""


def _outside(module: str) -> dict[str, Path]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise DataError("no such module", [Problem(module, "nothing", "a Python module")])
    return {module: Path(spec.origin)}


def _room_files(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    if single.is_file():
        return [single]
    return files_under(PACKAGE / room) if (PACKAGE / room).is_dir() else []


def _rooms_imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from filter(None, map(_room_of, names))
