"""The folder in which tests of this room make their scored data."""

from __future__ import annotations

from pathlib import Path

import pytest
from scored_data import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    (tmp_path / "run").mkdir()
    return Workshop(tmp_path)
