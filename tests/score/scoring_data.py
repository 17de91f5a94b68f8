"""The pairs that the tests of scoring score, and how they ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rewardlab.score.score import Scored

Score = Callable[..., Scored]
"""`score(run_name, resume=..., data=..., **configuration)`: see the fixture `score`."""

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"w{row} w{row % 7} " * (1 + row % 5),
        "chosen": f"w{row + 1} w3",
        "rejected": f"w{row + 2} " * (row % 9 + 1),
    }
    for row in range(20)
]
"""Pairs of many lengths, some longer than the model's limit of 128 tokens, with exact duplicates."""
ROWS[7] = dict(ROWS[3])
ROWS[8] = {"prompt": ROWS[3]["prompt"], "chosen": ROWS[3]["rejected"], "rejected": "w9"}
ROWS[11] = {"prompt": "w1 " * 100, "chosen": "w2 " * 60, "rejected": "w4 " * 60}
