"""The hub as far as tests of data need it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """Answers like the hub's client: with the commit of any dataset, or with an error."""

    def __init__(self, answer: Exception | str = COMMIT) -> None:
        self.answer = answer

    def __call__(self) -> FakeHub:
        return self

    def repo_info(self, hub_id: str, *, revision: str | None, repo_type: str, timeout: float) -> Any:
        assert repo_type == "dataset"
        assert timeout <= 10
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(sha=self.answer)
