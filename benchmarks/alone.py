"""What the benchmarks that need no peer begin with: their options, and one process with model and pairs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.setting import QUICK, Sizes, Worker, prepare

ROOT = Path(__file__).resolve().parents[1]


def parser_of(module: str, about: str | None, *, pairs: int, counted: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options of all of them.

    Args:
        module: as it is run.
        about: the line of its help.
        pairs: how many by default.
        counted: what is made of them, `a step` or `an epoch`.
        repeats: rounds by default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--pairs", type=int, default=pairs, help=f"pairs in {counted} (default: {pairs})")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds (default: {repeats})")
    parser.add_argument("--quick", action="store_true", help="toy models: tests the harness")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "hh-rlhf", help="HH-RLHF files")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for model and pairs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks", help="folder for the results")
    parser.add_argument("--note", default="", help="what a reader of the numbers has to know of the machine")
    return parser


@contextmanager
def prepared(options: argparse.Namespace) -> Iterator[tuple[Worker, Sizes, Path]]:
    """A process of its own, the sizes, and the folder with model and pairs."""
    sizes = QUICK if options.quick else Sizes()
    folder = options.work / ("quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        worker = Worker(Path(temporary) / "worker.log")
        try:
            worker(prepare, options.data.resolve(), folder, sizes)
            yield worker, sizes, folder
        finally:
            worker.close()
