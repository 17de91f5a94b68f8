"""Rows with their positions from JSONL, JSON, CSV, Parquet, `datasets` folders and the hub.

What a file is, its content decides; the name only breaks ties. Every file may be gzipped. A row's number is
what a person would look for: the line in JSONL, the element in JSON, the row below the header in CSV and
Parquet; all from 1. Files are read whole: the records are kept in memory anyway.

Problems (encoding, truncated gzip, a line that is no JSON, an empty or missing file, ...) are collected over
all files, never raised one by one.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from rewardlab.data.rows import is_messages, json_safe, shown
from rewardlab.errors import DataError, MissingExtraError, Problem
from rewardlab.records import Source
from rewardlab.store.files import ENDLESS, is_endless
from rewardlab.store.keys import RECORD
from rewardlab.store.settings import found_at_home

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Endings of data files, each also with `.gz` behind it."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
}
"""Words in file names that name a split, and the split they name."""

ALL_SPLITS = "all"
"""The split that stands for every split."""

RECORD_FILES = frozenset(
    {"run.json", "plan.json", "summary.json", "doctor.json", "set_aside.jsonl", "latents.parquet", "dataset_infos.json"}
)
"""Files that lie beside data and speak of them: those of our own runs, and the hub's. A folder is read without them."""

COMPLETIONS = "completions.jsonl"
"""What `rewardlab sample` leaves: of a folder that it wrote this is read, and not its plan or shards."""

ROW_LISTS = frozenset({"tools"})
"""Columns of one row that hold a list of objects, as a table does."""

LARGEST_INFLATION = 100
"""How many times its size a gzipped file may inflate to, beyond `ALWAYS_INFLATED_BYTES`. Text does 3 to 20 times."""

ALWAYS_INFLATED_BYTES = 1 << 30
"""What any gzipped file may inflate to."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SEPARATORS = (";", "\t", "|", ",")
"""What stands between the columns of a table as text; which one is decided by the name of the file."""
NEAR_NAME = 0.8
"""How like a missing file's name another must be to be suggested: their endings alone make names alike."""
CUT = "It is where the file ends: was it cut off? Fetch or write it again."
WRITTEN = "Mend it there, or write the rows with a JSON library."
READABLE = f"one of {', '.join(SUFFIXES)}, each also gzipped (.gz)"

Values = Mapping[str, Any]


@dataclass(frozen=True)
class FileRows:
    """The rows of one file.

    Attributes:
        name: the file as the user would call it, or hub id and split.
        sha256: of the file's bytes; None for rows from the hub.
        rows: position and values of each.
        commit: what was read of a hub id; None for files, and where the hub was out of reach.
    """

    name: str
    sha256: str | None
    rows: tuple[tuple[Source, Values], ...]
    commit: str | None = None


def unreadable(problems: Sequence[Problem]) -> DataError:
    """The one error for data that cannot be used, with all its problems."""
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    return DataError(f"the data cannot be used: {count}", problems)


def is_hub_id(path: str) -> bool:
    """Whether a name means a dataset on the hub: `owner/name`, no such path here, no ending of a data file."""
    if Path(path).exists() or not HUB_ID.fullmatch(path) or path.startswith("."):
        return False
    return not has_data_suffix(path) and not Path(path).parent.exists()


def has_data_suffix(name: str) -> bool:
    """Whether a name ends like a data file."""
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_path(
    path: str, problems: list[Problem], *, split: str | None = None, subsets: Sequence[str] = ()
) -> list[FileRows]:
    """Rows of a file, a folder of data files or a `datasets` folder (`save_to_disk`).

    Args:
        path: a file or folder.
        problems: what is wrong is added here.
        split: which files of a folder: those with this word in their names; `all` for every split. A folder
            that holds several splits must be asked for one of them. Where any file names a split, those that name
            none are left out.
        subsets: which files of a folder: those with one of these as a folder or as a part of the file name
            between dots (`harmless-base/test.jsonl`, `harmless-base.test.jsonl`).
    """
    place = Path(path)
    try:
        if place.is_dir():
            return _read_folder(place, path.rstrip("/") or path, problems, split, subsets)
    except OSError as error:
        problems.append(Problem(path, _words(error), "a readable folder"))
        return []
    for option, value in (("split", None if split == ALL_SPLITS else split), ("subsets", subsets)):
        if value and place.exists():
            problems.append(
                Problem(path, "a single file", f"a folder or hub id, as {option} is set", f"Drop `{option}`.")
            )
    return [read_file(place, path, problems)]


def read_file(path: Path, name: str, problems: list[Problem]) -> FileRows:
    """Rows of one file; `name` is what positions and problems call it."""
    before = len(problems)
    content, digest = _content(path, name, problems)
    rows: list[tuple[Source, Values]] = []
    if content is not None:
        rows = list(_rows(content, path.name, name, problems))
        if not rows and len(problems) == before:
            problems.append(Problem(name, "no rows", "at least one row"))
    return FileRows(name, digest, tuple(rows))


def read_hub(
    hub_id: str,
    problems: list[Problem],
    *,
    split: str | None,
    revision: str | None,
    subset: str | None = None,
    folder: str | None = None,
) -> list[FileRows]:
    """Rows of a dataset on the hub, through the `datasets` library: those of the commit that the revision stands for.

    Where the hub is out of reach, the version is read that the library had from it last.

    Args:
        hub_id: `owner/name`.
        problems: what is wrong is added here.
        split: its name there; may be left out where there is only one, `all` reads every one.
        revision: commit, tag or branch.
        subset: name of the configuration.
        folder: folder of the repository to read, where subsets are folders.

    Raises:
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hub", "reading a dataset from the hub") from error
    from rewardlab.store.hub import UNKNOWN, commit_of

    expected = "a local path (there is none of this name) or a dataset on the hub that can be fetched"
    commit: str | None = None
    silence: Exception | None = None
    try:
        commit = commit_of(hub_id, revision, "dataset")
    except UNKNOWN as error:
        problems.append(Problem(hub_id, _in_a_line(error), expected))
        return []
    except Exception as error:  # noqa: BLE001  no network, in the words of whichever HTTP library is below
        silence = error
    try:
        with nullcontext() if silence is None else _offline(datasets.config):
            loaded = datasets.load_dataset(hub_id, name=subset, data_dir=folder, revision=commit or revision)
    except Exception as error:  # noqa: BLE001  the library raises dozens of types, most of them not its own
        found = _in_a_line(error) if silence is None else f"the hub is out of reach ({_in_a_line(silence)})"
        problems.append(Problem(hub_id, found, expected))
        return []
    name = "/".join(part for part in (hub_id, subset, folder) if part)
    chosen = _choose_split(name, list(loaded), split, problems)
    return [_hub_rows(f"{name}:{part}", loaded[part], commit) for part in chosen]


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    """The `datasets` library reads its cache only: it would ask the hub again, and again, for half a minute."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def split_in_name(name: str) -> str | None:
    """The split that a file name speaks of (`pairs.test.jsonl.gz` → test), None where it names none."""
    words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS]
    return words[-1] if words else None


def subsets_in_name(name: str) -> set[str]:
    """What a relative file name may be chosen by: its folders and the parts of its name between dots."""
    return set(re.split(r"[/.]", name))


def _hub_rows(name: str, rows: Any, commit: str | None) -> FileRows:
    return FileRows(name, None, tuple((Source(name, i), json_safe(row)) for i, row in enumerate(rows, 1)), commit)


# --- folders ---------------------------------------------------------------------------------------------------


def _read_folder(
    folder: Path, name: str, problems: list[Problem], split: str | None, subsets: Sequence[str]
) -> list[FileRows]:
    if (folder / "dataset_dict.json").is_file():
        parts = sorted(part.name for part in folder.iterdir() if (part / "state.json").is_file())
        chosen = _choose_split(name, parts, split, problems)
        return [rows for part in chosen for rows in _read_saved(folder / part, f"{name}/{part}", problems)]
    if (folder / "state.json").is_file():
        return _read_saved(folder, name, problems)
    files = data_files(folder)
    if not files and _is_sampled(folder):
        remedy = "Go on with it (--resume), and read it then."
        problems.append(Problem(name, f"a run of `sample` without {COMPLETIONS}", "one that is done", remedy))
        return []
    if not files:
        problems.append(Problem(name, "a folder without data files", f"a folder with files that end in {READABLE}"))
        return []
    there = set().union(*map(subsets_in_name, files))
    problems += [
        Problem(name, f"no files of a subset {subset!r}", f"a subset among its files: {', '.join(files[:8])}")
        for subset in subsets
        if subset not in there
    ]
    if subsets:
        files = [file for file in files if subsets_in_name(file) & set(subsets)]
    return [
        read_file(folder / file, f"{name}/{file}", problems) for file in _files_of_split(files, name, split, problems)
    ]


def _files_of_split(files: list[str], name: str, split: str | None, problems: list[Problem]) -> list[str]:
    spoken = {file: split_in_name(file) for file in files}
    known = sorted({word for word in spoken.values() if word is not None})
    if not files or (not known and split in (None, ALL_SPLITS)):
        return files
    wanted = None if split is None else SPLIT_WORDS.get(split, split)
    chosen = _choose_split(name, known, wanted, problems, asked=split)
    return [file for file in files if spoken[file] in chosen]


def data_files(folder: Path) -> list[str]:
    """Data files in a folder and below, as sorted paths relative to it, without hidden ones and `RECORD_FILES`; of a
    folder that `sample` wrote the completions alone."""
    if _is_sampled(folder):
        return [COMPLETIONS] if (folder / COMPLETIONS).is_file() else []
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and has_data_suffix(path.name))
    named = (path for path in found if path.name not in RECORD_FILES)
    return sorted(path.as_posix() for path in named if not any(part.startswith(".") for part in path.parts))


def _is_sampled(folder: Path) -> bool:
    """Whether `sample` wrote a folder: its record says so, or, of a part of another run, its shards lie there."""
    with suppress(OSError, ValueError):
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return isinstance(values, dict) and values.get("verb") == "sample"
    return (folder / COMPLETIONS).is_file() and (folder / "shards" / "plan.json").is_file()


def _read_saved(folder: Path, name: str, problems: list[Problem]) -> list[FileRows]:
    """A dataset as `datasets.Dataset.save_to_disk` leaves it: `state.json` lists Arrow stream files."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(Problem(f"{name}/state.json", _words(error), "the state of a saved dataset"))
        return []
    return [read_file(folder / file, f"{name}/{file}", problems) for file in files]


def _choose_split(
    name: str, known: Sequence[str], split: str | None, problems: list[Problem], asked: str | None = None
) -> list[str]:
    """The splits meant by `split`, among the known ones; `asked` is the user's word for it."""
    if split == ALL_SPLITS:
        return list(known)
    if split is not None and split in known:
        return [split]
    if split is None and len(known) == 1:
        return list(known)
    found = "no split asked for" if split is None else f"split {asked or split!r}"
    remedy = f"Set `split`, or `split: {ALL_SPLITS}` for all of them."
    problems.append(Problem(name, found, f"one of its splits: {', '.join(known) or 'none'}", remedy))
    return []


# --- one file --------------------------------------------------------------------------------------------------


def _content(path: Path, name: str, problems: list[Problem]) -> tuple[bytes | None, str | None]:
    """Bytes after gunzipping, and the sha256 of the file as it is."""
    if is_endless(path):
        problems.append(Problem(name, ENDLESS, "a regular file", "Write its content to a file first."))
        return None, None
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        problems.append(Problem(name, "no such file", "an existing file, folder or hub id", _near(path)))
        return None, None
    except OSError as error:
        problems.append(Problem(name, _words(error), "a readable file"))
        return None, None
    digest = hashlib.sha256(raw).hexdigest()
    if not raw.startswith(b"\x1f\x8b"):
        return raw, digest
    largest = max(ALWAYS_INFLATED_BYTES, LARGEST_INFLATION * len(raw))
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(largest + 1)
        if len(content) <= largest:
            return content, digest
        found, remedy = f"gzip that inflates to more than {largest:,} bytes", "If it is meant to, unpack it first."
        problems.append(Problem(name, found, f"at most {LARGEST_INFLATION} times its {len(raw):,} bytes", remedy))
        return None, digest
    except (EOFError, zlib.error, OSError) as error:
        found = "a truncated gzip file" if isinstance(error, EOFError) else f"a damaged gzip file ({error})"
        problems.append(Problem(name, found, "a whole gzip file", "Fetch or write it again."))
        return None, digest


def _rows(content: bytes, file_name: str, name: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    kind = file_name.lower().removesuffix(".gz").rpartition(".")[2]
    start = content[:4]
    if start == b"PAR1" or start == b"ARRO" or start == b"\xff\xff\xff\xff" or kind in ("parquet", "arrow"):
        yield from _arrow_rows(content, name, problems)
    elif start.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.append(Problem(name, "UTF-16 text", "UTF-8 text", "Save the file as UTF-8."))
    elif kind == "txt" and not content.lstrip().startswith((b"{", b"[")):
        yield from _text_rows(content, name, problems)
    elif kind in ("csv", "tsv"):
        yield from _csv_rows(content, name, "\t" if kind == "tsv" else ",", problems)
    else:
        yield from _json_or_lines(content.removeprefix(b"\xef\xbb\xbf"), name, kind, problems)


def _text_rows(content: bytes, name: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    """A plain text file: every line that is not blank is a text."""
    text = _decoded(content, name, problems)
    for number, line in enumerate([] if text is None else text.split("\n"), start=1):
        if line.strip():
            yield Source(name, number), {"text": line.removesuffix("\r")}


def _json_or_lines(content: bytes, name: str, kind: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    body = content.strip()
    if not body:
        problems.append(Problem(name, "an empty file", "rows of data"))
    elif body.startswith(b"[") or (body.startswith(b"{") and not _is_lines(body, kind)):
        yield from _document_rows(content, name, problems)
    elif body.startswith(b"{") or kind in ("jsonl", "ndjson"):
        yield from _line_rows(content, name, problems)
    else:
        problems.append(
            Problem(name, f"a file that starts with {body[:20].decode('latin-1')!a}", f"{READABLE}; or .txt")
        )


def _is_lines(body: bytes, kind: str) -> bool:
    """Whether text that starts with `{` is an object a line, rather than one object over the whole file."""
    if kind in ("jsonl", "ndjson"):
        return True
    first, _, more = body.partition(b"\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(more.strip())


def _line_rows(content: bytes, name: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    # Only "\n" ends a line: U+2028 and friends may stand unescaped inside JSON strings.
    lines = content.rstrip().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        value = _parsed(line, where, problems, is_end=number == len(lines))
        if isinstance(value, dict):
            yield Source(name, number), value
        elif value is not _NOTHING:
            problems.append(Problem(where, f"JSON that is {shown(value)}", "a JSON object with a row's columns"))


def _document_rows(content: bytes, name: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    document = _parsed(content, name, problems, is_end=True)
    if document is _NOTHING:
        return
    for number, value in enumerate(_elements(document), 1):
        if isinstance(value, dict):
            yield Source(name, number), value
        else:
            found = f"an element that is {shown(value)}"
            problems.append(Problem(f"{name}:{number}", found, "an object with a row's columns"))


def _elements(document: list[Any] | dict[str, Any]) -> list[Any]:
    """Rows of a JSON document: a list; an object that holds one list of rows, or rows by their ids; one row."""
    if isinstance(document, list):
        return document
    tables: list[list[Any]] = [value for name, value in document.items() if name not in ROW_LISTS and _is_table(value)]
    if len(tables) == 1:
        return tables[0]
    if len(document) > 0 and all(isinstance(value, dict) for value in document.values()):
        return [{"id": key, **value} for key, value in document.items()]
    return [document]


def _is_table(value: Any) -> bool:
    if not isinstance(value, list) or not value or is_messages(value):
        return False
    return all(isinstance(element, dict) for element in value) and not _is_ranking(value)


def _is_ranking(value: Sequence[Mapping[str, Any]]) -> bool:
    return all({"rank", "completion"} <= set(element) for element in value)


_NOTHING = object()


def _parsed(data: bytes, where: str, problems: list[Problem], *, is_end: bool) -> Any:
    """The JSON value of a line or a document; with `is_end`, nothing follows it in the file."""
    text = ""
    try:
        text = data.decode("utf-8")
        return json.loads(text)
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} that is not UTF-8, at byte {error.start + 1}"
        remedy = CUT if is_end and error.reason == "unexpected end of data" else "Save the file as UTF-8."
        problems.append(Problem(where, found, "UTF-8 text", remedy))
    except RecursionError:
        problems.append(Problem(where, "JSON nested too deeply", "JSON with a row's columns"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        remedy = CUT if is_end and _ran_out(text, error) else WRITTEN
        problems.append(Problem(where, f"no valid JSON: {error.msg} at {place}", "valid JSON", remedy))
    except ValueError as error:
        problems.append(Problem(where, f"no valid JSON: {error}", "valid JSON"))
    return _NOTHING


def _ran_out(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the text ended where JSON would have gone on: within a string, an escape or a word, or between two."""
    rest = text[error.pos :].rstrip()
    in_escape = "escape" in error.msg and '"' not in rest
    in_word = any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    return error.msg.startswith("Unterminated string") or in_escape or in_word


def _decoded(content: bytes, name: str, problems: list[Problem]) -> str | None:
    """The text of a file in UTF-8; None where it is in something else, which is a problem then."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} that is not UTF-8"
        problems.append(Problem(f"{name}:{line}", found, "UTF-8 text", "Save the file as UTF-8."))
        return None


def _csv_rows(content: bytes, name: str, delimiter: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    text = _decoded(content, name, problems)
    if text is None:
        return
    with _fields_of_any_length():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            records = [record for record in reader if record]
        except csv.Error as error:
            # The end came within quotes.
            remedy = f"{CUT} Or a quote is missing." if "unexpected end of data" in str(error) else ""
            problems.append(Problem(f"{name}:{reader.line_num}", f"no valid CSV: {error}", "valid CSV", remedy))
            return
    if not records:
        problems.append(Problem(name, "an empty file", "a header and rows"))
        return
    header = records[0]
    other = next((mark for mark in SEPARATORS if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        found = f"one column, {shown(header[0])}: the header looks separated by {other!r}"
        remedy = "Save it again with commas as .csv, or with tabs as .tsv."
        problems.append(Problem(f"{name}, header", found, f"columns separated by {delimiter!r}", remedy))
        return
    if len(set(header)) < len(header):
        problems.append(Problem(f"{name}, header", "a column name that comes twice", "every name once"))
    for number, record in enumerate(records[1:], 1):
        if len(record) == len(header):
            yield Source(name, number), dict(zip(header, record, strict=True))
        else:
            remedy = CUT if number == len(records) - 1 and len(record) < len(header) else ""
            expected = f"{len(header)}, as in the header"
            problems.append(Problem(f"{name}:{number}", f"{len(record)} cells", expected, remedy))


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    # The csv module refuses cells over 131,072 characters unless this process-wide limit is raised.
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _arrow_rows(content: bytes, name: str, problems: list[Problem]) -> Iterator[tuple[Source, Values]]:
    buffer = pa.BufferReader(content)
    try:
        if content[:4] == b"PAR1":
            table = pa.parquet.read_table(buffer)
        elif content[:6] == b"ARROW1":
            table = pa.ipc.open_file(buffer).read_all()
        else:
            table = pa.ipc.open_stream(buffer).read_all()
        values = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        problems.append(Problem(name, f"no valid Parquet or Arrow file: {words}", "a whole Parquet or Arrow file"))
        return
    for number, value in enumerate(values, 1):
        yield Source(name, number), json_safe(value)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _words(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"


def _near(path: Path) -> str:
    """What may have been meant by a file that is not there."""
    if (at_home := found_at_home(path)) is not None:
        return f"Did you mean {at_home}?"
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"There is no folder {path.parent}."
    several = re.split(r"[,;\s]+", str(path))
    if len(several) > 1 and all(Path(one).exists() for one in several):
        return f"Several files are written [{', '.join(several)}]."
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=NEAR_NAME)
    return f'Did you mean "{path.with_name(close[0])}"?' if close else ""
