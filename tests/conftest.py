"""Fixtures that every room's tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
