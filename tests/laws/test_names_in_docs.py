"""What the architecture page calls by a name is there: functions, classes, files and flags that it speaks of exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
NAME = re.compile(r"_?[A-Za-z][\w.]*(\(.*\))?")
FILE = re.compile(r"[\w/]+\.py")


def named(text: str) -> set[str]:
    """Names of code on a page: what stands in backticks and is a call, private, of several words or of a class."""
    code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = {match for match in re.findall(r"`([^`\n]+)`", code) if NAME.fullmatch(match)}
    names = {re.sub(r"\(.*\)", "", match) for match in found}
    names = {
        part
        for name in names
        for part in name.split(".")
        if "_" in part.strip("_") or part[:1] in "_" or part[:1].isupper()
    }
    return names | {match.partition("(")[0].rpartition(".")[2] for match in found if "(" in match}


def missing(text: str) -> list[str]:
    """Those that are no word of our code."""
    files = [
        path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")
    ]
    words = {
        word
        for path in files
        if path != Path(__file__)
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }
    return sorted(named(text) - words)


def test_names_on_the_page_of_the_architecture_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert {"rewards_in_order", "own_share", "Endpoint", "together", "gather"} <= named(text)
    assert missing(text) == []


def test_files_on_the_page_of_the_architecture_exist() -> None:
    """Modules are named from the package's folder on."""
    text = PAGE.read_text(encoding="utf-8")
    paths = [path for path in FILE.findall(text) if "/" in path]
    assert len(paths) > 5
    assert [
        path for path in paths if not any((root / path).is_file() for root in (ROOT, ROOT / "src" / "rewardlab"))
    ] == []


def test_a_name_that_is_gone_is_found() -> None:
    assert missing("`_evaluated_by_nobody` does, and `Run.create`, which `no_such_call(text)` is not") == [
        "_evaluated_by_nobody",
        "no_such_call",
    ]
