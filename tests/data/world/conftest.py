"""Texts of the world that several tests look at."""

from __future__ import annotations

import pytest

from rewardlab.data.world import Copula, Response, respond, write_prompt


def responses(count: int, copula: Copula | None = None, tag: str = "t", seed: int = 0) -> list[Response]:
    """Answers to `count` different prompts."""
    return [respond(seed, write_prompt(seed, f"{tag}/{i}"), "a", copula or Copula()) for i in range(count)]


@pytest.fixture(scope="session")
def many() -> list[Response]:
    return responses(3000)
