"""Fixtures of the data room."""

from __future__ import annotations

from pathlib import Path

import pytest


class Folder:
    """A run, as far as this room needs one."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def path(self, name: str | Path = "") -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    """A run that writes to `tmp_path / "out"`."""
    return Folder(tmp_path / "out")
