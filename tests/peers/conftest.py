"""These tests need other people's libraries, which live in an environment of their own (`make test-peers`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("trl") and find_spec("statsmodels") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.peers)
            # What peers warn about is not ours to mend.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def setting(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model, its tokenizer and HH pairs, as the benchmarks prepare them."""
    from benchmarks.setting import QUICK, prepare

    folder = tmp_path_factory.mktemp("setting")
    prepare(shared / "data" / "hh-rlhf", folder, QUICK)
    return folder
