"""`python -m benchmarks`: run the parts, write RESULTS.md and results.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import effects, growth, memory, report, reward, score
from benchmarks.setting import QUICK, Sizes, Worker, backbone_parameters, prepare

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("reward", "score", "memory", "growth", "effects")
PACKAGES = {"effects": ("numpy", "scipy")}
"""Whose versions a part states, where they are not those of the parts with models."""
_OF_MODELS = ("torch", "transformers", "trl")


def main() -> None:
    """Parse, run, write."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    work = options.work / ("quick" if options.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    log = work / "workers.log"
    for name in options.part or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name == "effects":
            part = effects.run(sizes, options.repeats, log)
        else:
            part = _with_models(name, work, sizes, options, log)
        part["made"] = _made(PACKAGES.get(name, _OF_MODELS))
        _write(options.output, name, part)
    print((options.output / "RESULTS.md").read_text(encoding="utf-8"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds per part (default: 5)")
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
        part = _part(name, work, sizes, options.repeats, peer, own, log)
        return part | {"parameters": own(backbone_parameters, work)}
    finally:
        peer.close()
        own.close()


def _part(name: str, work: Path, sizes: Sizes, repeats: int, peer: Worker, own: Worker, log: Path) -> dict[str, Any]:
    if name == "memory":
        return {"peaks": memory.run(work, sizes, log)}
    if name == "growth":
        return {"tables": growth.run(work, sizes, repeats, peer, own)}
    return (reward if name == "reward" else score).run(work, sizes, repeats, peer, own)


def _made(packages: Sequence[str]) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _write(folder: Path, name: str, part: dict[str, Any]) -> None:
    """Put a part's numbers beside those of the other parts, and write the page anew."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"parts": {}}
    results["parts"][name] = part
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")
    (folder / "RESULTS.md").write_text(report.page(results), encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Numbers with six significant digits: more are noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
