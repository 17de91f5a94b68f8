"""Work side by side: in the order of its needs, together where it can be, ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rewardlab.errors import LostProcessError, MissingExtraError, RewardlabError
from rewardlab.studies.side_by_side import side_by_side

LONG = 60.0
"""Seconds that nothing here takes."""


def noted(folder: Path, name: str) -> str:
    (folder / name).touch()
    return name.upper()


def meet(folder: Path, name: str, other: str) -> str:
    """Both have to be at work for either to end."""
    noted(folder, name)
    wait_for(folder / other)
    return name


def wait_for(file: Path) -> None:
    end = time.monotonic() + LONG
    while not file.exists():
        assert time.monotonic() < end, f"no {file.name}"
        time.sleep(0.02)


def failing(kind: str) -> None:
    if kind == "extra":
        raise MissingExtraError("inseq", "attribution", "This")
    if kind == "lost":
        raise LostProcessError
    os.kill(os.getpid(), signal.SIGKILL)


def after(folder: Path, *others: str) -> None:
    assert all((folder / name).exists() for name in others)


def test_work_begins_when_what_it_needs_has_ended(tmp_path: Path) -> None:
    needs = {"c": frozenset("ab"), "a": frozenset(), "b": frozenset("a")}
    begun = []

    def work(name: str) -> Callable[[], str]:
        begun.append(name)
        return partial(noted, tmp_path, name)

    assert list(side_by_side(needs, work, 2)) == [("a", "A"), ("b", "B"), ("c", "C")]
    assert begun == ["a", "b", "c"]


def test_work_that_needs_nothing_is_done_together(tmp_path: Path) -> None:
    work = {"a": partial(meet, tmp_path, "a", "b"), "b": partial(meet, tmp_path, "b", "a")}
    found = dict(side_by_side(dict.fromkeys(work, frozenset[str]()), work.__getitem__, 2))
    assert found == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("kind", "expected", "says"),
    [
        ("extra", MissingExtraError, r"This needs the package inseq: pip install .rewardlab\[attribution\]"),
        ("lost", LostProcessError, "Another process of this run has ended"),
        ("killed", RewardlabError, "One of the processes was killed"),
    ],
)
def test_what_goes_wrong_is_told_and_begins_nothing_else(
    tmp_path: Path, kind: str, expected: type[RewardlabError], says: str
) -> None:
    work: dict[str, Callable[[], object]] = {"a": partial(failing, kind), "b": partial(noted, tmp_path, "b")}
    with pytest.raises(expected, match=says):
        list(side_by_side({"a": frozenset(), "b": frozenset("a")}, work.__getitem__, 2))
    assert not (tmp_path / "b").exists()


PROGRAM = """
    import signal, sys
    from functools import partial
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_side_by_side import keep_on
    from rewardlab.studies.side_by_side import side_by_side
    if __name__ == "__main__":
        # Whoever began the tests in the background has had it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work = {name: partial(keep_on, Path(sys.argv[1]), name) for name in "ab"}
        list(side_by_side(dict.fromkeys(work, frozenset()), work.__getitem__, 2))
"""


def keep_on(folder: Path, name: str) -> None:
    noted(folder, f"{name}.begun")
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        time.sleep(LONG)
    except KeyboardInterrupt:
        noted(folder, f"{name}.saved")
        raise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_all_are_stopped_with_the_process_that_gives_the_work(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    command = [sys.executable, str(program), str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for name in "ab":
            wait_for(tmp_path / f"{name}.begun")
        process.send_signal(number)
        assert process.wait(LONG) != 0
        for name in "ab":
            wait_for(tmp_path / f"{name}.saved")
