"""What every broken input has to come to: one message, exit code 2, and a folder as it was."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rewardlab.cli.main import main

ROWS = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)]
"""Pairs that nothing is wrong with, each of a conversation of its own."""

Setup = Callable[[Path], object]


@dataclass(frozen=True)
class Fault:
    """A broken input.

    Attributes:
        name: what is wrong.
        command: words behind `rewardlab`.
        says: what the message has to contain: the thing, and what to do about it.
        setup: breaks something in the working folder, which holds `pairs.jsonl` with `ROWS`.
    """

    name: str
    command: str
    says: tuple[str, ...]
    setup: Setup = lambda folder: None


def each(faults: Iterable[Fault]) -> pytest.MarkDecorator:
    """A test for each of them."""
    return pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name.replace(" ", "-")) for fault in faults])


def refused(fault: Fault, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command of a fault in the working folder; the message, after checking all that is promised of it."""
    fault.setup(Path())
    before = snapshot(Path())
    capsys.readouterr()
    code = main(shlex.split(fault.command))
    printed = capsys.readouterr()
    message = check_message(printed.err)
    assert code == 2, message
    assert printed.out == ""
    for words in fault.says:
        assert words in message
    assert snapshot(Path()) == before, "the folder is not as it was"
    return message


def check_message(errors: str) -> str:
    """The one message on standard error, behind progress and the log; its problems are whole sentences."""
    assert "Traceback" not in errors
    shown = [line.rpartition("\r")[2] for line in errors.split("\n")]
    lines = [line for line in shown if line and not line.startswith(("started ", "failed after ", "refused; "))]
    assert [number for number, line in enumerate(lines) if line.startswith("rewardlab: ")] == [0], errors
    problems = [line for line in lines[1:] if line.startswith("  ")]
    assert problems, errors
    for problem in problems:
        assert re.match(r"  .+: found .+; expected .+|  \.\.\. and \d+ more", problem), problem
    return "\n".join(lines)


def snapshot(folder: Path) -> dict[str, str]:
    """Everything under a folder by name, with the digest of what it holds; the empty folder of runs does not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != "runs":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def text(name: str, content: str | bytes) -> Setup:
    """Writes a file."""

    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def rows(name: str, *values: Any) -> Setup:
    """Writes a JSON Lines file."""
    return text(name, "".join(json.dumps(value) + "\n" for value in values))


def row(**changes: Any) -> Setup:
    """Writes `pairs.jsonl` with one more row, the thirteenth, which differs from a good one in some columns."""
    return rows("pairs.jsonl", *ROWS, {**ROWS[0], **changes})


def packed(content: bytes) -> bytes:
    """The bytes gzipped."""
    return gzip.compress(content, mtime=0)
