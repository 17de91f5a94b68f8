"""Fixtures that every room's tests use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Loopback

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside a checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("REWARDLAB_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("needs the shared data folder beside the checkout (or REWARDLAB_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's results or environment settings."""
    monkeypatch.setenv("REWARDLAB_HOME", str(tmp_path / "home"))
    # Tests pass in a checkout that somebody is working in.
    monkeypatch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")


@pytest.fixture(scope="session")
def _server() -> Iterator[Loopback]:
    command = [sys.executable, str(Path(__file__).with_name("chat_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Loopback(int(process.stdout.readline()))
        process.communicate()


@pytest.fixture
def server(_server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loopback:
    # Only keys of the tests' own, and no proxy between them and the server.
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    _server.reset()
    return _server
