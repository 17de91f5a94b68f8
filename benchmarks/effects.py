"""All effects of a million triples with resampled intervals; scipy's bootstrap of one of them at a size it can bear."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.setting import Sizes, Worker, peak_mebibytes

DRAWS = 2000
BATCHES = (50, 500, DRAWS)
"""Resamples that scipy holds at once: its one setting that changes how fast it is."""
_STAY = 4
"""Responses to a prompt, on average, where responses share prompts."""


def run(sizes: Sizes, repeats: int, log: Path) -> dict[str, Any]:
    """Seconds and memory of ours at full size, and rounds of both at the peer's."""
    large = []
    for prompts in (sizes.triples, sizes.triples // _STAY):
        worker = Worker(log)
        found = worker(ours, sizes.triples, prompts)
        large.append({"triples": sizes.triples, "prompts": prompts} | found | {"peak": worker(peak_mebibytes)})
        worker.close()
    peer, own = Worker(log), Worker(log)
    rounds = []
    for number in range(repeats):
        results = {f"scipy, batch {batch}": peer(theirs, sizes.peer_triples, batch, number) for batch in BATCHES}
        results["rewardlab"] = own(ours, sizes.peer_triples, sizes.peer_triples, number)
        rounds.append({"results": results})
    peer.close()
    own.close()
    return {"draws": DRAWS, "large": large, "peer_triples": sizes.peer_triples, "rounds": rounds}


def triples(count: int, prompts: int, seed: int) -> Any:
    """Rewards of `count` triples; with as many prompts as triples every response has its own."""
    from rewardlab.functional.effects import Rewards

    rng = np.random.default_rng(seed)
    treated = rng.random(count) < 0.4
    quality = rng.normal(size=count) + treated
    rewrite, rerewrite = (quality + 0.3 * side + 0.4 * rng.normal(size=count) for side in (~treated, treated))
    clusters = rng.permutation(count) if prompts == count else rng.integers(0, prompts, size=count)
    return Rewards(treated, quality + 0.3 * treated, rewrite, rerewrite, clusters=clusters)


def ours(count: int, prompts: int, seed: int = 0) -> dict[str, Any]:
    """Every row of an audit: naive, single and double, ATE, ATT, ATU, balanced and population, raw and in sd."""
    from rewardlab.audit.estimates import Settings, effect_groups

    rewards = triples(count, prompts, seed)
    # What is loaded on first use is loaded before the clock starts.
    effect_groups(triples(100, 100, 0), Settings(bootstrap="bca", draws=100))
    began, work = time.perf_counter(), time.process_time()
    found = effect_groups(rewards, Settings(bootstrap="bca", draws=DRAWS))
    seconds, work = time.perf_counter() - began, time.process_time() - work
    (one,) = [one for one in found["double"] if one.name == "double.ATE.sd"]
    counted = sum(map(len, found.values()))
    return {"seconds": seconds, "work": work, "intervals": counted, "ends": [one.low, one.high]}


def theirs(count: int, batch: int, seed: int) -> dict[str, Any]:
    """scipy.stats.bootstrap, BCa, vectorised, of one number: the double-rewrite ATE in standard deviations."""
    from scipy import stats

    rewards = triples(count, count, seed)
    d = np.where(rewards.treated, 1.0, -1.0) * (rewards.rerewrite - rewards.rewrite)
    columns = (rewards.treated.astype(float), rewards.original, d)
    share = columns[0].mean()

    def statistic(w: np.ndarray, original: np.ndarray, d: np.ndarray, axis: int = -1) -> np.ndarray:
        squares, means = 0.0, []
        for side in (w, 1.0 - w):
            size = side.sum(axis)
            centred = original - ((side * original).sum(axis) / size)[..., None]
            squares = squares + (side * centred**2).sum(axis)
            means.append((side * d).sum(axis) / size)
        sd = np.sqrt(squares / (w.shape[axis] - 2))
        return np.asarray((share * means[0] + (1.0 - share) * means[1]) / sd)

    began = time.perf_counter()
    found = stats.bootstrap(
        columns, statistic, paired=True, vectorized=True, n_resamples=DRAWS, batch=batch, method="BCa", rng=seed
    ).confidence_interval
    return {"seconds": time.perf_counter() - began, "intervals": 1, "ends": [float(found.low), float(found.high)]}
