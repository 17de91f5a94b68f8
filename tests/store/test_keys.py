"""Content keys: the same content, the same key; any change, another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rewardlab.errors import DataError
from rewardlab.store import keys


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


FILES = {"a.txt": "1", "deep/b.txt": "2"}


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    first = keys.path_digest(fill(tmp_path / "first", FILES))
    assert keys.path_digest(fill(tmp_path / "second", dict(reversed(FILES.items())))) == first
    fill(tmp_path / "second", {".lock": "x", ".unfinished-1-c": "x", "__pycache__/a.pyc": "x"})
    assert keys.path_digest(tmp_path / "second") == first
    changed = [{"a.txt": "1", "deep/b.txt": "3"}, {"a.txt": "1", "deep/c.txt": "2"}, {"a.txt": "1"}, {"a.txt": "12"}]
    digests = [keys.path_digest(fill(tmp_path / f"changed-{i}", files)) for i, files in enumerate(changed)]
    assert len({first, *digests}) == len(changed) + 1


def test_paths_count_by_content_and_other_values_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, {"one.txt": "same", "two.txt": "same", "three.txt": "other", "test": ""})

    def key(path: Any, **more: Any) -> str:
        return keys.content_key({"data": [path], "rate": 1e-5} | more)

    same = key(tmp_path / "one.txt")
    assert same == key(tmp_path / "two.txt") == key(str(tmp_path / "two.txt"))
    others = [
        key(tmp_path / "three.txt"),
        key(tmp_path / "absent.txt"),
        key(tmp_path / "one.txt", rate=2e-5),
        key(None),
    ]
    assert len({same, *others}) == 5


def test_a_word_is_no_path_even_when_a_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"test": "x", "test.json": "y", "deep/test": "z"})
    monkeypatch.chdir(tmp_path)
    values = ["test", Path("test"), "test.json", "deep/test", "absent.json", "a\nb.json", "\0.x", "x" * 5000 + ".y", 3]
    assert list(keys.paths_in({"values": values})) == [Path("test"), Path("test.json"), Path("deep/test")]
    assert list(keys.paths_in({"model": "deep", "deep": {"path": ["test", "", "\0"], "split": "test"}})) == [
        Path("deep"),
        Path("test"),
    ]
    assert keys.content_key({"path": "test"}) != keys.content_key({"path": "absent"}) != keys.content_key({"x": "test"})


def test_an_unreadable_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        keys.path_digest(tmp_path / "absent")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in which c imports b (late) and b imports a; d stands alone."""
    package = fill(
        tmp_path / "rewardlab",
        {
            "a.py": "x = 1",
            "b/__init__.py": "",
            "b/one.py": "import rewardlab.a\nimport json",
            "b/two.py": "",
            "c/one.py": "def f():\n    from rewardlab.b.one import y",
            "d/one.py": "from rewardlab import records_of_old",
        },
    )
    monkeypatch.setattr(keys, "PACKAGE", package)
    return package


@pytest.mark.parametrize(
    ("changed", "expected"),
    [("a.py", "abc"), ("b/two.py", "bc"), ("c/one.py", "c"), ("d/one.py", "d"), ("b/data.css", "bc"), ("e.py", "")],
)
def test_a_change_reaches_what_imports_it(package: Path, changed: str, expected: str) -> None:
    modules = {"a": "rewardlab.a", "b": "rewardlab.b.one", "c": "rewardlab.c.one", "d": "rewardlab.d.one"}

    def now() -> dict[str, str]:
        keys.code_key.cache_clear()
        return {name: keys.code_key(module) for name, module in modules.items()}

    before = now()
    fill(package, {changed: "changed = True"})
    after = now()
    assert {name for name in modules if before[name] != after[name]} == set(expected)
    keys.code_key.cache_clear()


def test_code_from_outside_is_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    fill(tmp_path, {"plugin_one.py": "x = 1", "plugin_two.py": "x = 2"})
    assert keys.code_key("plugin_one") != keys.code_key("plugin_two")
    with pytest.raises(DataError, match="plugin_three"):
        keys.code_key("plugin_three")
