"""The loopback server, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Loopback


@pytest.fixture(scope="session")
def _server() -> Iterator[Loopback]:
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
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
