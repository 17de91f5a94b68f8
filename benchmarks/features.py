"""`python -m benchmarks.features`: an epoch of a head on a frozen backbone, through the backbone and from the cache.

One clock for both: the callback of the other parts, from the end of the first optimiser step to the end of the last,
with collating, clipping, the optimiser and the log line of every step. What caching takes is told beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.alone import parser_of, prepared
from benchmarks.results import made, write
from benchmarks.setting import MAX_TOKENS, PAIRS_PER_STEP, Row, Worker, rows, stopwatch


def main() -> None:
    """Parse, run, print."""
    parser = parser_of("benchmarks.features", main.__doc__, pairs=512, counted="an epoch", repeats=3)
    parser.add_argument("--readout", default="last", help="what reads the backbone (default: last)")
    parser.add_argument("--precision", default="bfloat16", help="bfloat16 (default) or float32")
    options = parser.parse_args()
    with prepared(options) as (worker, _, folder):
        rounds = _rounds(worker, options, folder)
    part = {"pairs": options.pairs, "readout": options.readout, "rounds": rounds, "note": options.note}
    write(options.output, "features", part | {"made": made("benchmarks.features", ("torch", "transformers"))})


def _rounds(worker: Worker, options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    rounds = []
    for number in range(options.repeats):
        pairs = rows(folder, number * options.pairs, options.pairs)
        how = (options.readout, options.precision)
        live, cached = (worker(epoch, folder, pairs, *how, choice) for choice in ("off", "auto"))
        difference = max(abs(a - b) for a, b in zip(live["losses"], cached["losses"], strict=True))
        ratio = live["seconds"] / cached["seconds"]
        rounds.append({"backbone": live["seconds"], "cache": cached["seconds"], "difference": difference})
        print(
            f"round {number + 1}: an epoch of {options.pairs} pairs takes {live['seconds']:.1f} s through the backbone "
            f"and {cached['seconds']:.2f} s from the cache, {ratio:.0f} times less; losses differ by at most "
            f"{difference:.1e}; "
            f"all else took {live['rest']:.1f} and {cached['rest']:.1f} s, {cached['computed']} sequences cached",
            flush=True,
        )
    ratios = [one["backbone"] / one["cache"] for one in rounds]
    print(f"median of {len(ratios)} rounds: {statistics.median(ratios):.0f} times less")
    return rounds


def epoch(folder: Path, pairs: list[Row], readout: str, precision: str, features: str) -> dict[str, Any]:
    """Train one epoch, as the command line does.

    Returns:
        `seconds` of the epoch, `rest` of the run, `losses` by step, `computed` sequences.
    """
    import time

    from rewardlab.store.files import read_jsonl, write_jsonl
    from rewardlab.store.runs import Run
    from rewardlab.train.reward import RewardTraining, train_reward

    with tempfile.TemporaryDirectory() as temporary, stopwatch() as marks:
        root = Path(temporary)
        # A cache of its own, so that every round fills it.
        os.environ["REWARDLAB_HOME"] = str(root)
        write_jsonl(root / "train.jsonl", pairs)
        write_jsonl(root / "held_out.jsonl", pairs[:2])
        source = {"adapter": "preference", "prompt_role": "text"}
        config = RewardTraining.build(
            {
                "model": {"path": str(folder / "model"), "readout": readout},
                "train": [{"path": str(root / "train.jsonl")} | source],
                "validation": {"held_out": {"path": str(root / "held_out.jsonl")} | source},
                "encoding": {"max_tokens": MAX_TOKENS},
                "batch_size": PAIRS_PER_STEP,
                "learning_rate": 1e-4,
                "freeze_backbone": True,
                "features": features,
                "precision": precision,
                "device": "cpu",
            }
        )
        began = time.perf_counter()
        with Run.create(config, verb="train reward", name="run", root=root, allow_untracked=True) as run:
            summary = train_reward(config, run).summary
        rest = time.perf_counter() - began
        losses = [line["loss"] for line in read_jsonl(run.folder / "history.jsonl") if line["split"] == "train"]
    # The first step warms up: the others' time, for all steps.
    seconds = (marks[-1] - marks[0]) * len(marks) / (len(marks) - 1)
    computed = (summary["features"] or {"computed": 0})["computed"]
    return {"seconds": seconds, "rest": rest - seconds, "losses": losses, "computed": computed}


if __name__ == "__main__":
    main()
