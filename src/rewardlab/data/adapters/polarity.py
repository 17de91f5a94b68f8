"""Texts that are positive or negative: {text, label, fold}, label pos or neg; also the zips of NLTK's corpora.

`movie_reviews.zip` holds a text a file, in folders `pos` and `neg`; `sentence_polarity.zip` a text a line, in files
named `*.pos` and `*.neg` (Pang and Lee 2004 and 2005). Folds 0 to 9 go round through the texts of each side; the split
`test` is fold 9, `train` the others. Sides alternate, so that a limit keeps as many of either.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile

from rewardlab.data.adapters.base import Adapter, Parsed, broken, usable, user_prompt
from rewardlab.data.adapters.counterfactual import QUESTION
from rewardlab.data.files import ALL_SPLITS, ALWAYS_INFLATED_BYTES, FileRows
from rewardlab.data.rows import Row
from rewardlab.data.source import DataSource, read_source
from rewardlab.errors import Problem
from rewardlab.records import Rated, Source

SIDES = {"pos": True, "neg": False}
FOLDS, TEST_FOLD = 10, 9
_DAMAGED = (BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError, UnicodeDecodeError)
"""What damaged, encrypted or foreign archives and texts raise."""


def parse(row: Row) -> Parsed:
    """A text with its label."""
    text, label = row.text("text"), SIDES.get(str(row.raw("label")))
    if label is None:
        row.complain("label", "pos or neg")
    if row.problems:
        return broken(row)
    return usable(row, Rated(user_prompt(QUESTION), text, label, None, row.source, row.rest()))


def load(source: DataSource, problems: list[Problem]) -> list[FileRows]:
    """Rows of a zip; of anything else as they stand."""
    path = Path(source.path)
    if path.suffix.lower() != ".zip":
        return read_source(source, problems)
    if source.split not in (None, ALL_SPLITS, "train", "test"):
        problems.append(Problem("split", repr(source.split), f"train, test or {ALL_SPLITS}"))
        return []
    if not path.is_file():
        problems.append(Problem(source.path, "no such file", "an existing file"))
        return []
    try:
        raw = path.read_bytes()
        with ZipFile(io.BytesIO(raw)) as archive:
            texts = _texts(archive)
    except _DAMAGED as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        problems.append(Problem(source.path, found, "a whole zip of UTF-8 texts, of no more than 1 GiB unpacked"))
        return []
    rows = [(Source(source.path, number), values) for number, values in enumerate(_rows(texts), start=1)]
    if not rows:
        problems.append(Problem(source.path, "no texts", "files in folders pos and neg, or named *.pos and *.neg"))
    if source.split in ("train", "test"):
        rows = [row for row in rows if (row[1]["fold"] == TEST_FOLD) == (source.split == "test")]
    return [FileRows(source.path, hashlib.sha256(raw).hexdigest(), tuple(rows))]


def _texts(archive: ZipFile) -> dict[str, list[tuple[str, str]]]:
    """(Member, text) of either side, in the order of the names; sizes are looked at before anything is unpacked."""
    members = sorted((one for one in archive.infolist() if not one.is_dir()), key=lambda one: one.filename)
    if sum(member.file_size for member in members) > ALWAYS_INFLATED_BYTES:
        raise BadZipFile(f"more than {ALWAYS_INFLATED_BYTES:,} bytes unpacked")
    texts: dict[str, list[tuple[str, str]]] = {side: [] for side in SIDES}
    for member in members:
        name = PurePosixPath(member.filename)
        ending = name.suffix.removeprefix(".")
        if ending in SIDES:
            lines = archive.read(member).decode("utf-8").split("\n")
            texts[ending] += [(member.filename, line.strip()) for line in lines if line.strip()]
        elif name.parent.name in SIDES and ending == "txt":
            texts[name.parent.name].append((member.filename, archive.read(member).decode("utf-8").strip()))
    return texts


def _rows(texts: dict[str, list[tuple[str, str]]]) -> list[dict[str, Any]]:
    sides = [
        [{"text": text, "label": side, "fold": at % FOLDS, "file": file} for at, (file, text) in enumerate(found)]
        for side, found in texts.items()
    ]
    return [row for row in chain.from_iterable(zip_longest(*sides)) if row is not None]


def fits(row: Row) -> bool:
    """Whether the label is one of ours."""
    return str(row.raw("label")) in SIDES


ADAPTER = Adapter(
    name="polarity",
    title="texts that are positive or negative: {text, label pos or neg, fold}, or a zip of them as NLTK has it",
    required=("text", "label", "fold"),
    optional=(),
    parse=parse,
    fits=fits,
    load=load,
)
