"""A source → its records, with what was set aside and which files were read."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from rewardlab.config import nearest
from rewardlab.data.adapters import ADAPTERS, detect, dialoconan, for_hub_id, preference
from rewardlab.data.adapters.base import Adapter
from rewardlab.data.files import FileRows, unreadable
from rewardlab.data.rows import Row
from rewardlab.data.source import AUTO, DataSource, read_source
from rewardlab.data.unread import unread_columns, without_prompt
from rewardlab.errors import DataError, Problem, counted
from rewardlab.records import TEXT_ROLE, Candidates, Message, Pair, Prompt, Record, SetAside

__all__ = ["DataSource", "Loaded", "LoadedFile", "load"]

TRL = (
    "TRL's formats are preference (chosen, rejected), labelled (completion, label), completion, messages and prompt; "
    "auto tells them apart."
)
KNOWN = sorted({column for adapter in ADAPTERS.values() for column in adapter.columns})
"""The columns of all formats."""
NEAR = 0.85
"""How alike the names of two columns are that are taken for one misspelt: `rejcted` and `rejected` are .93."""
WITHOUT_PROMPT = 0.1
"""Share of the pairs without any prompt from which on text beside them is taken for prompts that were missed."""
ROWS_LOOKED_AT = 20
"""How many rows at the beginning of each file tell its format."""


@dataclass(frozen=True)
class LoadedFile:
    """A file that was read: name, sha256 of its bytes and number of rows; on the hub a commit stands for the sha256."""

    name: str
    sha256: str | None
    rows: int
    commit: str | None = None


@dataclass(frozen=True)
class Loaded:
    """What a source gave.

    Attributes:
        records: in the order of the rows.
        set_aside: rows that cannot be used, with reasons.
        adapter: name of the format.
        files: what was read.
        dropped: empty completions left out of records that have others.
    """

    records: tuple[Record, ...]
    set_aside: tuple[SetAside, ...]
    adapter: str
    files: tuple[LoadedFile, ...]
    dropped: int = 0

    @property
    def reasons(self) -> dict[str, int]:
        """Reason → number of rows set aside."""
        return dict(sorted(Counter(item.reason for item in self.set_aside).items()))


def load(source: DataSource) -> Loaded:
    """Read a source.

    Raises:
        DataError: with every problem of every file and row.
        MissingExtraError: a hub id, and `datasets` is not installed.
    """
    problems: list[Problem] = []
    adapter = _named(source, problems)
    if problems:
        raise unreadable(problems)
    files = (adapter.load if adapter else read_source)(source, problems)
    if not problems and not any(file.rows for file in files):
        problems.append(Problem(source.path, "no rows", "at least one row"))
    files = _limited(files, source.limit)
    absent = _absent_columns(files, source)
    problems += absent
    adapter = adapter or _detected(files, source, problems)
    if adapter is not None and source.dialogue is not None and adapter.gather is not dialoconan.gather:
        problems.append(
            Problem("dialogue", f"data of the format {adapter.name}", f"the format {dialoconan.ADAPTER.name}")
        )
    if adapter is None or absent:
        raise unreadable(problems)
    records, aside, dropped = _parsed(adapter, files, source, problems)
    if source.adapter == AUTO and adapter is preference.ADAPTER and all(_lacks(one, "prompt", source) for one in files):
        problems += _unread_prompt(records, files[0].name)
    if problems:
        raise unreadable(problems)
    read = tuple(LoadedFile(file.name, file.sha256, len(file.rows), file.commit) for file in files)
    return Loaded(tuple(records), tuple(aside), adapter.name, read, dropped)


def load_all(sources: Iterable[DataSource], *, usable: bool = False) -> list[Loaded]:
    """Read several sources; the problems of all of them come in one error.

    Args:
        sources: where to read.
        usable: every source has to have a row that can be used; one whose rows are all set aside is a problem.

    Raises:
        DataError: with the problems of every source.
    """
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            loaded.append(load(source))
        except DataError as error:
            problems += error.problems
        else:
            problems += [_all_set_aside(source, loaded[-1])] if usable and not loaded[-1].records else []
    if problems:
        raise unreadable(problems)
    return loaded


def _all_set_aside(source: DataSource, loaded: Loaded) -> Problem:
    found = f"{counted(len(loaded.set_aside), 'row')}, all of them set aside ({in_words(loaded.reasons)})"
    return Problem(source.path, found, "a row that can be used", "`rewardlab data doctor` shows what is wrong.")


def in_words(reasons: Mapping[str, int]) -> str:
    """Numbers by reason in words: `1 empty, 2 identical`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())


def dropped_words(count: int) -> str:
    """How many empty completions were dropped, in words."""
    return f"{counted(count, 'empty completion')} dropped, the others of their rows are used"


def _named(source: DataSource, problems: list[Problem]) -> Adapter | None:
    known = set(KNOWN)
    adapter = for_hub_id(source.path) if source.adapter == AUTO else ADAPTERS.get(source.adapter)
    if adapter is not None:
        known = set(adapter.columns)
    elif source.adapter != AUTO:
        names = [AUTO, *ADAPTERS]
        remedy = TRL if source.adapter.lower() == "trl" else nearest(source.adapter, names)
        problems.append(Problem("adapter", repr(source.adapter), "a known format", remedy))
    for name in source.columns:
        if name not in known:
            remedy = f"{nearest(name, sorted(known))} The map reads our name: their name."
            problems.append(Problem("columns", repr(name), "a column of ours", remedy))
    return adapter


def _limited(files: Sequence[FileRows], limit: int | None) -> list[FileRows]:
    if limit is None:
        return list(files)
    kept, left = [], limit
    for file in files:
        kept.append(replace(file, rows=tuple(islice(file.rows, left))))
        left -= len(kept[-1].rows)
    return kept


def _absent_columns(files: Sequence[FileRows], source: DataSource) -> list[Problem]:
    """Mapped columns that a file does not have: a format that does without would be taken for it silently."""
    problems = []
    for file in files:
        for name, theirs in source.columns.items():
            if _lacks(file, name, source):
                columns = list(file.rows[0][1])
                found = f"columns {', '.join(map(repr, columns))}"
                expected = f"the column that `columns` names for {name}"
                problems.append(Problem(f'{file.name}, column "{theirs}"', found, expected, nearest(theirs, columns)))
    return problems


def _lacks(file: FileRows, name: str, source: DataSource) -> bool:
    """Whether a file has rows, and none of them the column; mostly the first one has it."""
    known = (Row(position, values, source.columns).knows(name) for position, values in file.rows)
    return bool(file.rows) and not any(known)


def _detected(files: Sequence[FileRows], source: DataSource, problems: list[Problem]) -> Adapter | None:
    first = [Row(position, values, source.columns) for file in files for position, values in file.rows[:ROWS_LOOKED_AT]]
    adapter = detect(first)
    if adapter is not None:
        problems += _misspelt(adapter, files[0].name, first, source)
    if adapter is None and first:
        columns = ", ".join(map(repr, first[0].values)) or "none"
        meant = " ".join(_meant(column, KNOWN) for column in first[0].values)
        known = "those of a known format, e.g. prompt, chosen, rejected"
        remedy = (
            "`rewardlab data formats` lists them. Name one with `adapter`, or map columns with `columns` "
            "(our name: their name)."
        )
        problems.append(Problem(files[0].name, f"columns {columns}", known, " ".join(f"{meant} {remedy}".split())))
    return adapter


def _misspelt(adapter: Adapter, name: str, rows: Sequence[Row], source: DataSource) -> list[Problem]:
    """Columns that nothing reads and that are nearly one which the format would read: silently they would be lost."""
    absent = [column for column in adapter.optional if not any(row.knows(column) for row in rows)]
    named = {column for row in rows for column in row.values} - {*KNOWN, *source.columns.values()}
    return [
        Problem(
            f'{name}, column "{column}"',
            f"a name that the format {adapter.name} does not read",
            f'"{near[0]}", if that is meant',
            f"Map it with `columns: {{{near[0]}: {column}}}`, or leave it as it is with `adapter: {adapter.name}`.",
        )
        for column in sorted(named)
        if (near := difflib.get_close_matches(column, absent, n=1, cutoff=NEAR))
    ]


def _unread_prompt(records: Sequence[Record], name: str) -> list[Problem]:
    """Pairs without a prompt column, of which many have no common beginning either, beside text that was not read: what
    was asked stands in it, and would silently be lost."""
    lacking, columns = without_prompt(records), unread_columns(records)
    if not columns or len(lacking) < WITHOUT_PROMPT * len(records):
        return []
    named, meant = ", ".join(map(repr, columns)), columns[0] if len(columns) == 1 else "its name"
    found = f"no column prompt, and no common beginning of the sides in {len(lacking):,} of {len(records):,} rows"
    remedy = (
        f"Text was not read of {named}. Map the column that has it, `columns: {{prompt: {meant}}}`; or take common "
        "beginnings, or nothing, for prompts: `adapter: preference`."
    )
    return [Problem(name, found, "a prompt in every row", remedy)]


def _meant(column: str, known: Sequence[str]) -> str:
    """`Did you mean "x"?` for a column that is nearly one of ours; empty for one of ours, and where none is near."""
    near = [] if column in known else difflib.get_close_matches(column, known, n=1, cutoff=NEAR)
    return f'Did you mean "{near[0]}" by "{column}"?' if near else ""


def _parsed(
    adapter: Adapter, files: Sequence[FileRows], source: DataSource, problems: list[Problem]
) -> tuple[list[Record], list[SetAside], int]:
    """Records, rows set aside, and how many empty completions were dropped."""
    records: list[Record] = []
    aside: list[SetAside] = []
    dropped = 0
    for file in files:
        if _lacks_columns(adapter, file, source, problems):
            continue
        gathered = adapter.gather(file, source) if adapter.gather else file
        for position, values in gathered.rows:
            row = Row(position, values, source.columns)
            parsed = adapter.parse(row)
            problems += row.problems
            dropped += row.dropped
            if isinstance(parsed, SetAside):
                aside.append(parsed)
            else:
                records.append(_adjusted(parsed, source))
    return records, aside, dropped


def _lacks_columns(adapter: Adapter, file: FileRows, source: DataSource, problems: list[Problem]) -> bool:
    """Whether no row of a file has a column that it needs: one problem, rather than one a row."""
    lacking = [name for name in adapter.required if _lacks(file, name, source)]
    for name in lacking:
        theirs = source.columns.get(name, name)
        columns = list(file.rows[0][1])
        where = f'{file.name}, column "{theirs}"'
        remedy = f"{nearest(theirs, columns)} Map it with `columns: {{{name}: their name}}`."
        expected = f"a column {theirs!r}, which the format {adapter.name} needs"
        problems.append(Problem(where, f"columns {', '.join(map(repr, columns))}", expected, remedy))
    return bool(lacking)


def _adjusted(record: Record, source: DataSource) -> Record:
    if source.prompt_role is not None:
        record = replace(record, prompt=_with_role(record.prompt, source.prompt_role))
    return _stripped(record) if source.strip else record


def _with_role(prompt: Prompt, role: str) -> Prompt:
    """A prompt of one user turn or one plain text, as the other of the two."""
    if len(prompt.messages) != 1 or prompt.messages[0].role not in (TEXT_ROLE, "user"):
        return prompt
    return Prompt((Message(role, prompt.messages[0].content),), prompt.template_options)


def _stripped(record: Record) -> Record:
    if isinstance(record, Pair):
        return replace(record, chosen=record.chosen.strip(), rejected=record.rejected.strip())
    if isinstance(record, Candidates):
        return replace(record, completions=tuple(text.strip() for text in record.completions))
    return replace(record, completion=record.completion.strip())
