"""The package as others get it: built, installed into an environment of its own, run in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from tiny_demo import COMMAND, STAGES

from rewardlab.store.files import read_json
from rewardlab.store.record import RunRecord

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
VERSION = metadata.version("rewardlab")


def call(words: Sequence[str | Path], folder: Path, **settings: str) -> str:
    """Standard output of a program that has to end well, run in a folder with little of this environment."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution and the wheel that is made from it."""
    source = tmp_path_factory.mktemp("source")
    # A copy: building leaves folders of its own beside the source.
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        else:
            shutil.copy2(ROOT / name, source / name)
    # The environment's own setuptools, so that nothing is fetched.
    call([sys.executable, "-m", "build", "--no-isolation"], source)
    return source / "dist"


def package_files() -> set[str]:
    """Every file of the package's source, relative to its parent folder."""
    files = (path for path in (ROOT / "src/rewardlab").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


def test_source_and_wheel_hold_the_whole_package_and_nothing_else(dist: Path) -> None:
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        notes = {name.rpartition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name}
    assert packed == package_files()
    assert {"rewardlab/py.typed", "rewardlab/studies/demo.yaml", "rewardlab/report/page.css"} < packed
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= notes
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in package_files()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheel, and nothing else of ours, is installed."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", place / "bin/python", "install"]
    call([*pip, "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel], place)
    # Installing torch again would take minutes: the dependencies are borrowed from the environment of the tests. A
    # folder that is named in a .pth file has its own .pth files ignored, so the editable install stays out.
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    return place / "bin"


def test_the_demo_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = call([installed / "python", "-c", "import rewardlab; print(rewardlab.__file__)"], tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    assert call([installed / "rewardlab", "--version"], tmp_path) == f"{VERSION}\n"
    printed = call([installed / "rewardlab", *COMMAND], tmp_path).splitlines()
    assert printed[0].startswith("It prefers the chosen answer in ")
    assert printed[-1] == "The report: runs/demo/report/report.html"
    assert (tmp_path / "runs/demo/report/report.html").stat().st_size > 100_000
    assert {name: RunRecord.read(tmp_path / "runs/demo" / name).status for name in STAGES} == dict.fromkeys(
        STAGES, "done"
    )
    code = read_json(tmp_path / "runs/demo/train/run.json")["code"]
    assert code["version"] == VERSION
    assert set(code["files"]) == {name.removeprefix("rewardlab/") for name in package_files()}
    assert code.get("commit") is None
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_bad_input_is_refused_as_in_the_checkout(installed: Path, tmp_path: Path) -> None:
    words = [installed / "rewardlab", "data", "doctor", "--sources.mine", "absent.jsonl"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "absent.jsonl: found no such file" in done.stderr
    assert "Traceback" not in done.stderr
