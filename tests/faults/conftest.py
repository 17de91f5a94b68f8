"""A working folder for every broken input, with good pairs in it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("corpus")

from corpus import ROWS, rows  # noqa: E402  # after its assertions are made to explain themselves


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `pairs.jsonl`, and `runs` as the folder of runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    rows("pairs.jsonl", *ROWS)(tmp_path)
    return tmp_path
