"""Every public function of the mathematics names its source, and stands in the index of papers."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import rewardlab.functional

PAPERS = Path(__file__).resolve().parents[2] / "docs" / "papers.md"
MODULES = [
    importlib.import_module(f"rewardlab.functional.{found.name}")
    for found in pkgutil.iter_modules(rewardlab.functional.__path__)
]
FUNCTIONS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": member
    for module in MODULES
    for name, member in vars(module).items()
    if inspect.isfunction(member) and member.__module__ == module.__name__ and not name.startswith("_")
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_file_opens_with_its_conventions(module: object) -> None:
    assert "\nConventions\n" in (module.__doc__ or "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_names_its_source(name: str) -> None:
    assert "Source: " in (FUNCTIONS[name].__doc__ or "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_stands_in_the_index_of_papers(name: str) -> None:
    module, _, function = name.partition(".")
    rows = [row for row in PAPERS.read_text(encoding="utf-8").splitlines() if f"functional.{module}." in row]
    assert any(f"`{function}`" in row or f"functional.{module}.{function}`" in row for row in rows)
