"""`python -m benchmarks`: run the parts, write RESULTS.md and results.json."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import alignment, effects, growth, memory, ppo, reward, sampling, score
from benchmarks.results import made, write
from benchmarks.setting import QUICK, Sizes, Worker, backbone_parameters, prepare

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("reward", "score", "memory", "growth", "effects", "alignment", "candidates", "sampling", "ppo")
PACKAGES = {"effects": ("numpy", "scipy"), "sampling": ("torch", "transformers"), "ppo": ("torch", "transformers")}
"""Whose versions a part states, where they are not those of the parts with models."""
_OF_MODELS = ("torch", "transformers", "trl")


def main() -> None:
    """Parse, run, write."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    if options.steps is not None:
        sizes = replace(sizes, steps=options.steps, batches=options.steps)
    work = options.work / ("quick" if options.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    log = work / "workers.log"
    for name in options.part or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name == "effects":
            part = effects.run(sizes, options.repeats, log)
        else:
            part = _with_models(name, work, sizes, options, log)
        part["note"] = options.note
        part["made"] = made("benchmarks", PACKAGES.get(name, _OF_MODELS))
        write(options.output, name, part)
    print((options.output / "RESULTS.md").read_text(encoding="utf-8"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds per part (default: 5)")
    parser.add_argument(
        "--steps", type=int, help="optimiser steps (of PPO, batches) that are timed in a round of training"
    )
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        help='only this setting of the peer beside its default, in alignment or ppo, e.g. "TRL 1x16"; may be repeated '
        "(default: all)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of products in alignment, candidates and ppo (default: bfloat16 where the processor has it)",
    )
    parser.add_argument("--note", default="", help="what a reader has to know of the machine")
    parser.add_argument("--quick", action="store_true", help="a toy model and a handful of pairs: tests the harness")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "hh-rlhf", help="HH-RLHF files")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for model and pairs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks", help="folder for the results")
    return parser.parse_args()


def _with_models(name: str, work: Path, sizes: Sizes, options: argparse.Namespace, log: Path) -> dict[str, Any]:
    # New processes for every part: what training leaves in an allocator would change the times of scoring.
    peer, own = Worker(log), Worker(log)
    try:
        own(prepare, options.data.resolve(), work, sizes)
        part = _part(name, work, sizes, options, peer, own, log)
        return part | {"parameters": own(backbone_parameters, work)}
    finally:
        peer.close()
        own.close()


def _part(
    name: str, work: Path, sizes: Sizes, options: argparse.Namespace, peer: Worker, own: Worker, log: Path
) -> dict[str, Any]:
    repeats = options.repeats
    if name == "memory":
        return {"peaks": memory.run(work, sizes, log)}
    if name == "alignment":
        return alignment.run(work, sizes, repeats, log, options.setting, options.precision)
    if name == "ppo":
        return ppo.run(work, sizes, repeats, log, options.setting, options.precision)
    if name == "candidates":
        return alignment.by_candidates(work, sizes, repeats, log, options.precision)
    if name == "sampling":
        return sampling.run(sizes, repeats, peer, own)
    if name == "growth":
        return {"tables": growth.run(work, sizes, repeats, peer, own)}
    return (reward if name == "reward" else score).run(work, sizes, repeats, peer, own)


if __name__ == "__main__":
    main()
