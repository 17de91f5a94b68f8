"""Largest resident memory of every side, each in a fresh process on the same pairs, libraries and model included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import reward, score
from benchmarks.setting import PAIRS_PER_STEP, Sizes, Worker, peak_mebibytes, rows

STEPS = 3
WORK: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
    "training: TRL 16x1": ("trained", reward.theirs, (16,)),
    "training: TRL 1x16": ("trained", reward.theirs, (1,)),
    "training: rewardlab": ("trained", reward.ours, ()),
    "scoring: pipeline 32": ("scored", score.theirs, ("pipeline 32",)),
    "scoring: loop 1": ("scored", score.theirs, ("loop 1",)),
    "scoring: rewardlab": ("scored", score.ours, ()),
}


def run(folder: Path, sizes: Sizes, log: Path) -> dict[str, int]:
    """Mebibytes by side."""
    counts = {"trained": STEPS * PAIRS_PER_STEP, "scored": sizes.scored}
    peaks = {}
    for name, (kind, function, arguments) in WORK.items():
        worker = Worker(log)
        worker(function, folder, rows(folder, 0, counts[kind]), *arguments)
        peaks[name] = worker(peak_mebibytes)
        worker.close()
    return peaks
