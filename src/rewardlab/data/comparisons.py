"""Recorded preferences: files of two outputs and which of them is better, with their ties, in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rewardlab.data.adapters.comparison import OUTPUTS, Comparison, read_comparison
from rewardlab.data.files import FileRows, unreadable
from rewardlab.data.rows import Row
from rewardlab.data.source import DataSource, read_source
from rewardlab.errors import Problem

_ASKED = ("instruction", "prompt", "input")


@dataclass(frozen=True)
class Recorded:
    """The comparisons of a source.

    Attributes:
        comparisons: of every row, without a preference too, so that rows of one prompt keep their order in all files.
        missing: rows without a preference.
    """

    comparisons: tuple[Comparison, ...]
    missing: int


def read_recorded(source: DataSource) -> Recorded:
    """Read {instruction | prompt | input, output_1, output_2, preference | label}, as AlpacaEval and LLMBar have it.

    Raises:
        DataError: files that cannot be read, or have other columns: every problem.
    """
    problems: list[Problem] = []
    files = read_source(source, problems)
    rows = [Row(position, values, source.columns) for file in files for position, values in file.rows]
    problems += [problem for file in files if (problem := _foreign(file, source))]
    if not rows and not problems:
        problems.append(Problem(source.path, "no rows", "at least one row"))
    if problems:
        raise unreadable(problems)
    found: Sequence[Comparison] = [read_comparison(row) for row in rows[: source.limit]]
    problems = [problem for row in rows for problem in row.problems]
    if problems:
        raise unreadable(problems)
    missing = sum(one.preference is None for one in found)
    if missing == len(found):
        problem = Problem(source.path, f"{len(found)} rows, none with a preference", "a preference from 1 to 2")
        raise unreadable([problem])
    return Recorded(tuple(found), missing)


def _foreign(file: FileRows, source: DataSource) -> Problem | None:
    """A file that is something else: one problem, rather than several a row."""
    if not file.rows:
        return None
    row = Row(*file.rows[0], source.columns)
    there = all(row.knows(name) for name in OUTPUTS) and (row.knows("preference") or row.knows("label"))
    if there and any(row.knows(name) for name in _ASKED):
        return None
    expected = "instruction, output_1, output_2 and preference (or prompt; or input and label)"
    remedy = "Answers without preferences are given as --sets, with a judge."
    return Problem(file.name, f"columns {', '.join(map(repr, row.values))}", expected, remedy)
