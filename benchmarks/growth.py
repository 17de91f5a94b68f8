"""How time grows: training with the number of pairs and with their length, scoring with the number of candidates K."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import reward, score
from benchmarks.setting import MAX_TOKENS, PAIRS_PER_STEP, SIDES, Row, Sizes, Worker, groups, rows

STEPS = (2, 4, 8)
LENGTHS = (128, 256, 512, MAX_TOKENS)
CANDIDATES = (2, 4, 8)
PEER_MICRO = 1
"""TRL's fastest setting on CPUs: one pair to a micro-batch."""
MOST_REPEATS = 3


def run(folder: Path, sizes: Sizes, repeats: int, peer: Worker, own: Worker) -> dict[str, list[dict[str, Any]]]:
    """Three tables, medians over `repeats`, of which three suffice for a trend."""
    repeats = min(repeats, MOST_REPEATS)
    return {
        "pairs": [_by_pairs(folder, steps, repeats, peer, own) for steps in STEPS],
        "tokens": [
            _by_tokens(folder, low, high, repeats, peer, own)
            for low, high in zip((0, *LENGTHS), LENGTHS, strict=False)
            if sizes.sources is None or high <= LENGTHS[1]
        ],
        "candidates": [_by_candidates(folder, count, sizes.scored, repeats, peer, own) for count in CANDIDATES],
    }


def _by_pairs(folder: Path, steps: int, repeats: int, peer: Worker, own: Worker) -> dict[str, Any]:
    pairs = rows(folder, 0, (steps + 1) * PAIRS_PER_STEP)
    return {"pairs": steps * PAIRS_PER_STEP} | _both(folder, pairs, repeats, peer, own)


def _by_tokens(folder: Path, low: int, high: int, repeats: int, peer: Worker, own: Worker) -> dict[str, Any]:
    pairs = own(_of_length, folder, low, high, 2 * PAIRS_PER_STEP)
    return {"longest side (tokens)": f"{low + 1}-{high}"} | _both(folder, pairs, repeats, peer, own)


def _both(folder: Path, pairs: list[Row], repeats: int, peer: Worker, own: Worker) -> dict[str, Any]:
    name = f"TRL {PEER_MICRO}x{PAIRS_PER_STEP // PEER_MICRO} (s)"
    seconds: dict[str, list[float]] = {name: [], "rewardlab (s)": []}
    for _ in range(repeats):
        seconds[name].append(peer(reward.theirs, folder, pairs, PEER_MICRO)["seconds"])
        seconds["rewardlab (s)"].append(own(reward.ours, folder, pairs)["seconds"])
    return {side: statistics.median(values) for side, values in seconds.items()}


def _by_candidates(folder: Path, count: int, prompts: int, repeats: int, peer: Worker, own: Worker) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"loop 1 (s)": [], "rewardlab (s)": []}
    for _ in range(repeats):
        seconds["loop 1 (s)"].append(peer(_loop, folder, count, prompts // 2))
        seconds["rewardlab (s)"].append(own(_ours, folder, count, prompts // 2))
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    return {"candidates": count, "prompts": prompts // 2} | medians


def _of_length(folder: Path, low: int, high: int, count: int) -> list[Row]:
    """The first pairs whose longest side has more than `low` and at most `high` tokens."""
    pairs = rows(folder, 0, 2000)
    inside = [row for row, group in zip(pairs, groups(folder, pairs), strict=True) if low < group.longest <= high]
    return inside[:count]


def _candidates(folder: Path, count: int, prompts: int) -> list[tuple[str, list[str]]]:
    """Prompts with `count` answers each: their own two, and those of the pairs that follow."""
    pairs = rows(folder, 0, prompts + count // 2)
    answers = [[row[side] for side in SIDES] for row in pairs]
    return [
        (pairs[i]["prompt"], [answer for both in answers[i : i + count // 2] for answer in both])
        for i in range(prompts)
    ]


def _loop(folder: Path, count: int, prompts: int) -> float:
    work = _candidates(folder, count, prompts)
    score.theirs(folder, rows(folder, 0, 1), "loop 1")
    began = time.perf_counter()
    for prompt, answers in work:
        for answer in answers:
            score.theirs_one(folder, prompt + answer)
    return time.perf_counter() - began


def _ours(folder: Path, count: int, prompts: int) -> float:
    work = _candidates(folder, count, prompts)
    score.ours(folder, rows(folder, 0, 1))
    began = time.perf_counter()
    score.ours_many(folder, work)
    return time.perf_counter() - began
