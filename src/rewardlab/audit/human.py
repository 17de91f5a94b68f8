"""Pairs of texts and their human rewrites, and the words that a rule mined from them puts in place of others.

substitutions.jsonl lets any scorer say what it gives the words alone: a canonical record per substitution, whose
completions are the words replaced and, where there are any, those that replace them; `meta` has the substitution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rewardlab.audit.mined import HumanPair, Mined, Substitution, written
from rewardlab.data.canonical import read_records, write_records
from rewardlab.data.load import DataSource, load
from rewardlab.errors import DataError, Problem
from rewardlab.records import Candidates, Pair, Prompt, Record

SUBSTITUTIONS = "substitutions.jsonl"
ORIGINAL = "original"
"""Key of a pair's `meta`: the side, chosen or rejected, that is no rewrite."""
SIDES = ("chosen", "rejected")
_EXPECTED = "pairs whose `meta` names the original: chosen or rejected"


def human_pairs(source: DataSource) -> list[HumanPair]:
    """Originals and what people made of them; the chosen side has the attribute.

    Raises:
        DataError: unreadable, or records that do not say which side is the original: every problem.
    """
    records = load(source).records
    wrong = [record for record in records if not _is_human(record)]
    problems = [Problem(str(one.source or source.path), "a record without an original", _EXPECTED) for one in wrong]
    if not records:
        problems.append(Problem(source.path, "no pairs that can be used", _EXPECTED))
    if problems:
        raise DataError("no substitutions can be mined from these data", problems)
    return [_human_pair(record) for record in records if isinstance(record, Pair)]


def _is_human(record: Record) -> bool:
    return isinstance(record, Pair) and record.meta.get(ORIGINAL) in SIDES


def _human_pair(pair: Pair) -> HumanPair:
    if pair.meta[ORIGINAL] == "chosen":
        return HumanPair(pair.chosen, pair.rejected, positive=False)
    return HumanPair(pair.rejected, pair.chosen, positive=True)


def phrases(one: Substitution) -> tuple[str, ...]:
    """The words replaced and those in their place, as texts; the former alone where nothing comes in their place."""
    return tuple(written(words, "") for words in (one.old, one.new) if words)


def write_substitutions(path: Path, rule: Mined, prompts: Sequence[Prompt]) -> int:
    """Write `substitutions.jsonl` under the first of the prompts of the audited texts; gives the number of records."""
    prompt = prompts[0] if prompts else Prompt(())
    return write_records(
        path,
        (
            Candidates(prompt, phrases(one), None, None, {**one._asdict(), "towards": towards})
            for towards, found in rule.substitutions.items()
            for one in found
        ),
    )


class WrittenSubstitutions(NamedTuple):
    """What `substitutions.jsonl` holds.

    Attributes:
        rule: that applies them.
        prompt: that the words were scored under.
    """

    rule: Mined
    prompt: Prompt


def read_substitutions(path: Path) -> WrittenSubstitutions:
    """The substitutions that `write_substitutions` wrote.

    Raises:
        DataError: unreadable, or another kind of file.
    """
    found: dict[bool, list[Substitution]] = {True: [], False: []}
    prompt = Prompt(())
    for number, record in enumerate(read_records(path), start=1):
        try:
            meta, prompt = record.meta, record.prompt
            counts = int(meta["seen"]), int(meta["seen_other"]), float(meta["share"])
            one = Substitution(_words(meta["old"]), _words(meta["new"]), *counts)
            found[meta["towards"] is True].append(one)
        except (KeyError, TypeError, ValueError) as error:
            shown = f"{type(error).__name__}: {error}"
            problem = Problem(f"{path}:{number}", shown, "a substitution as `audit rewrite` writes it")
            raise DataError("the substitutions cannot be read", [problem]) from error
    return WrittenSubstitutions(Mined(found), prompt)


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{value!r} instead of a list of words")
    return tuple(value)
