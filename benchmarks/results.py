"""results.json and the page that is written from it: a part is put beside the others, with how it was made."""

from __future__ import annotations

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

from benchmarks import report


def made(module: str, packages: Sequence[str]) -> dict[str, Any]:
    """Command, day, machine and versions."""
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in packages},
    }


def write(folder: Path, name: str, part: dict[str, Any]) -> None:
    """Put a part's numbers beside those of the other parts, and write the page anew."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"parts": {}}
    results["parts"][name] = part
    # The page is made of the numbers that are kept: it can be made again from them to the letter.
    results = _rounded(results)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "RESULTS.md").write_text(report.page(results), encoding="utf-8")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _rounded(value: Any) -> Any:
    """Numbers with six significant digits: more are noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
