"""The laws of the house: imports flow one way, functional/ stays pure, importing has no side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "rewardlab"

# Rooms of one rank do not see each other; a room imports only from ranks before its own.
RANKS: list[set[str]] = [
    {"errors"},
    {"records"},
    {"protocols", "config"},
    {"functional"},
    {"store"},
    {"data"},
    {"llm"},
    {"models"},
    {"train", "sample", "score"},
    {"audit", "evaluate"},
    {"report"},
    {"studies"},
    {"launch"},
    {"cli"},
    {"__main__"},
]
RANK_OF = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
FUNCTIONAL_MAY_IMPORT = {"numpy", "scipy", "torch", "jaxtyping", "beartype"}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py" or file.parent != PACKAGE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_flow_one_way(file: Path) -> None:
    room = room_of(file)
    assert room in RANK_OF, f"{file} is in no room of the house"
    for name in imported_modules(file):
        parts = name.split(".")
        if parts[0] != "rewardlab":
            continue
        other = parts[1]
        assert other == room or RANK_OF[other] < RANK_OF[room], f"{file} ({room}) imports {name}"


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "functional").rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_functional_is_pure(file: Path) -> None:
    for name in imported_modules(file):
        top = name.split(".")[0]
        allowed = top in FUNCTIONAL_MAY_IMPORT or top in sys.stdlib_module_names
        assert allowed or name.startswith("rewardlab.functional"), f"{file} imports {name}"
        assert top not in {"os", "io", "pathlib", "logging", "tempfile"}, f"{file} imports {name}"


def test_importing_the_package_touches_nothing() -> None:
    """No logger, environment variable, heavy library or file is touched by `import rewardlab`."""
    program = (
        "import os, sys, logging\n"
        "before = dict(os.environ), list(logging.root.handlers), logging.root.level\n"
        "import rewardlab\n"
        "assert before == (dict(os.environ), list(logging.root.handlers), logging.root.level)\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'scipy', 'datasets', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
