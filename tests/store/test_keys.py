"""Content keys: the same content, the same key; any change, another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rewardlab.errors import DataError
from rewardlab.store import keys
from rewardlab.store.files import sha256_file


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


def aged(path: Path, seconds: float = 60.0) -> Path:
    """The file as if written a while ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
    return path


def test_a_file_is_read_again_only_when_it_may_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: str | Path) -> str:
        read.append(Path(path).name)
        return sha256_file(path)

    monkeypatch.setattr(keys, "sha256_file", counted)
    fill(tmp_path, {"old.txt": "one", "new.txt": "one"})
    first = keys.path_digest(aged(tmp_path / "old.txt"))
    assert keys.path_digest(tmp_path / "old.txt") == first
    assert read == ["old.txt"]
    monkeypatch.chdir(tmp_path)
    assert keys.path_digest("old.txt") == first, "the same file by another name"
    assert read == ["old.txt"]
    (tmp_path / "old.txt").write_text("two")
    assert keys.path_digest(aged(tmp_path / "old.txt", 30)) == sha256_file(tmp_path / "old.txt") != first

    # Within one tick of the clock neither size nor time tells that a file has changed.
    for text in ("one", "two"):
        (tmp_path / "new.txt").write_text(text)
        assert keys.path_digest(tmp_path / "new.txt") == sha256_file(tmp_path / "new.txt")


def test_checkpoints_of_a_run_do_not_count(tmp_path: Path) -> None:
    plain = {"run.json": "{}", "model/weights": "1"}
    checkpoints = {"checkpoints/checkpoint-3/weights": "1", "checkpoints/checkpoint-3/optimizer.pt": "2"}
    without = keys.path_digest(fill(tmp_path / "plain", plain))
    run = fill(tmp_path / "run", plain | checkpoints)
    assert keys.path_digest(run) == without
    # What is no run's, and a checkpoint that is named itself, count in full.
    other = fill(tmp_path / "other", {"model/weights": "1"})
    assert keys.path_digest(fill(tmp_path / "more", {"model/weights": "1"} | checkpoints)) != keys.path_digest(other)
    before = keys.path_digest(run / "checkpoints/checkpoint-3")
    (run / "checkpoints/checkpoint-3/weights").write_text("another")
    assert keys.path_digest(run / "checkpoints/checkpoint-3") != before
    # The runs of a study, too.
    study = fill(tmp_path / "study", {f"train/{name}": text for name, text in (plain | checkpoints).items()})
    lean = fill(tmp_path / "lean", {f"train/{name}": text for name, text in plain.items()})
    assert keys.path_digest(study) == keys.path_digest(lean)


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
