"""`rewardlab runs`: what ran, how to bring it back, how two runs differ."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rewardlab.cli.arguments import Arguments, Grammar, parse
from rewardlab.records import Estimate
from rewardlab.store.record import CONFIG, RunRecord, config_differences, find_run, find_runs
from rewardlab.store.settings import Settings

if TYPE_CHECKING:
    from rewardlab.evaluate.compare import Flip

PAIRS = "pairs.parquet"
SHOWN_FLIPS = 5

COMMANDS = {
    "runs list": "every run: when, how it ended, what ran",
    "runs show": "the record of a run: runs show RUN",
    "runs restore": "the commands that bring back a run's code and configuration: runs restore RUN",
    "runs compare": "how two runs differ, in configuration and in what they measured: runs compare RUN RUN",
}


def run_command(name: str, words: Sequence[str]) -> None:
    """Print what the `runs` command `name` is asked for.

    Raises:
        RewardlabError: no such run, or its record cannot be read.
    """
    names, answer = _ANSWERS[name]
    given = parse(words, Grammar(names=names, names_remedy="`rewardlab runs list` shows them."))
    print("\n".join(answer(given)))


def _root() -> Path:
    return Settings.from_environment().home


def _named(given: Arguments) -> list[RunRecord]:
    return [find_run(_root(), name) for name in given.names]


def _list(given: Arguments) -> list[str]:
    del given
    rows = [("RUN", "STATUS", "STARTED", "SECONDS", "VERB")]
    for run in find_runs(_root()):
        name = run.folder.relative_to(_root()).as_posix()
        rows.append((name, run.status, run.started[:19], f"{run.seconds:.1f}", run.verb))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _show(given: Arguments) -> list[str]:
    (run,) = _named(given)
    code, machine = run.values.get("code", {}), run.values.get("machine", {})
    lines = [
        f"run          {run.folder}",
        f"verb         {run.verb}",
        f"description  {run.values.get('description', '')}",
        f"status       {run.status}, {run.seconds:.1f} s in {len(run.values['sessions'])} session(s)",
        f"command      {run.command}",
        f"directory    {run.values['sessions'][-1].get('directory') or 'not known'}",
        f"code         {code.get('commit') or 'installed ' + str(code.get('version'))}",
        f"changes      {run.values['sessions'][-1].get('diff') or 'none'}",
        f"machine      {machine.get('processor')}, {machine.get('cores')} cores, python {machine.get('python')}",
        f"seeds        {run.values.get('seeds')}",
    ]
    lines += [f"input        {item['path']} {item['sha256'][:16]}" for item in run.values.get("inputs", [])]
    lines += [f"result       {name} ({size} bytes)" for name, size in run.values.get("results", {}).items()]
    lines += [f"finding      {line}" for line in run.findings]
    return [*lines, "", (run.folder / CONFIG).read_text(encoding="utf-8").rstrip()]


def _restore(given: Arguments) -> list[str]:
    (run,) = _named(given)
    code = run.values.get("code", {})
    place = run.folder.resolve()
    session = run.values["sessions"][-1]
    diff, directory = session.get("diff"), session.get("directory")
    if code.get("commit"):
        lines = ["# in a clone of the repository", f"git checkout {code['commit']}"]
        lines += [f"git apply {shlex.quote(str(place / diff))}"] if diff else []
    else:
        lines = [f"pip install rewardlab=={code.get('version')}  # sha256 of its files: code.files in run.json"]
    if not code.get("diff_recorded", True):
        lines.append(f"# not recorded: {code['diff_bytes']} bytes of changes against this commit")
    lines += [f"# not recorded: the untracked file {name}" for name in code.get("untracked", [])]
    if directory:
        lines += ["# where the relative paths of the configuration begin", f"cd {shlex.quote(directory)}"]
    return [*lines, f"rewardlab {run.verb} --config {shlex.quote(str(place / CONFIG))}"]


def _compare(given: Arguments) -> list[str]:
    first, second = _named(given)
    differences = config_differences(first.config(), second.config())
    lines = [f"configuration: {len(differences)} difference(s)"]
    lines += [f"  {item.where}: {item.expected} -> {item.found}" for item in differences]
    return [*lines, *_measured(first, second)]


def _measured(first: RunRecord, second: RunRecord) -> list[str]:
    """Paired differences and flipped examples of two evaluations."""
    without = [run.folder for run in (first, second) if not (run.folder / PAIRS).is_file()]
    if without:
        return [f"measures: no {PAIRS} of `evaluate accuracy` in {', '.join(map(str, without))}"]
    # The other commands need not wait for the numerical libraries that evaluation brings in.
    from rewardlab.evaluate.compare import compare
    from rewardlab.evaluate.estimates import Settings as EstimateSettings

    recorded = first.config()
    settings = EstimateSettings(**{name: recorded[name] for name in ("level", "cluster", "seed") if name in recorded})
    found = compare(first.folder, second.folder, settings)
    lines = [f"pairs: {found.common} in both, {found.only_first} only in the first, {found.only_second} in the second"]
    lines.append("measures, second minus first; an interval that holds 0 shows no difference:")
    lines += [_difference(estimate) for estimate in found.estimates]
    gained = sum(flip.gained for flip in found.flips)
    lines.append(f"flipped: {gained} pairs right only in the second, {len(found.flips) - gained} only in the first")
    return lines + [line for flip in found.flips[:SHOWN_FLIPS] for line in _flip(flip)]


def _difference(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"  {estimate.name.removeprefix('compare.')}: none ({estimate.reason})"
    ends = "" if estimate.low is None else f" [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"  {estimate.name.removeprefix('compare.')}: {estimate.value:+.3f}{ends}"


def _flip(flip: Flip) -> list[str]:
    texts = {"prompt": flip.prompt, "chosen": flip.chosen, "rejected": flip.rejected}
    lines = [f"  {flip.pair_id}: margin {flip.first_margin:+.3f} -> {flip.second_margin:+.3f}"]
    return lines + [f"    {name:<9} {textwrap.shorten(_printable(text), 90)}" for name, text in texts.items()]


def _printable(text: str) -> str:
    """Text of the data without what would steer the terminal."""
    return "".join(mark if mark.isprintable() or mark.isspace() else "\N{REPLACEMENT CHARACTER}" for mark in text)


_ANSWERS: dict[str, tuple[tuple[str, ...], Callable[[Arguments], list[str]]]] = {
    "runs list": ((), _list),
    "runs show": (("RUN",), _show),
    "runs restore": (("RUN",), _restore),
    "runs compare": (("RUN", "RUN"), _compare),
}
