"""Every error that rewardlab raises on purpose.

    RewardlabError                exit code 1
    └── InputError                exit code 2: something the user gave cannot be used
        ├── ConfigError           a configuration: unknown key, wrong type, value out of range
        ├── DataError             a file, row, column or encoding
        ├── ModelError            a model folder, head, tokenizer, backbone or rule
        ├── RunError              a run directory: exists, locked, not found, incomplete record
        │   └── UnfinishedError   work that another try can finish; the run stays, to be resumed
        └── MissingExtraError     an optional dependency that is not installed

Of a run in several processes:

    RewardlabError
    ├── LostProcessError          exit code 1: another process has ended
    └── ElsewhereError            exit code of the first process, which says why it ended

An input error carries *all* the problems found, each with what was found, what was expected and what
to do. The command line prints them without a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHOWN_PROBLEMS = 20


def counted(number: int, noun: str) -> str:
    """`1 pair`, `1,204 pairs`, `2 policies`, `2 batches`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("cy") else f"{noun}es" if noun.endswith("tch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input.

    Attributes:
        where: file, row and column (`pairs.jsonl:17, column "chosen"`), or the configuration key.
        found: what is there, shortened by the raiser where it can be long.
        expected: what would have been right.
        remedy: what the user can do about it; may be empty where `expected` says it all.
    """

    where: str
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: found {self.found}; expected {self.expected}"
        return f"{text}. {self.remedy}" if self.remedy else text


class RewardlabError(Exception):
    """Root of the tree."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come from other processes, too, whatever they are made from."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[RewardlabError], arguments: tuple[Any, ...], values: dict[str, Any]) -> RewardlabError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(values)
    return error


class LostProcessError(RewardlabError):
    """Another process of the run has ended, by itself or killed; what it said stands above, or in its log."""

    def __init__(self) -> None:
        super().__init__(
            "Another process of this run has ended: what it said stands above, or in run.1.log, run.2.log, ... of the "
            "run; one that was killed says nothing. The run can be resumed, with any number of processes."
        )


class ElsewhereError(RewardlabError):
    """The first process of the run has failed, and says why.

    Args:
        exit_code: with which it ends.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("The first process of this run has failed; it says why.")
        self.exit_code = exit_code


class InputError(RewardlabError):
    """Something the user gave cannot be used. Nothing has been written.

    Args:
        summary: one line: what could not be done.
        problems: every problem found; the message shows the first 20 and counts the rest.
    """

    exit_code = 2

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        lines = [summary]
        lines += [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        hidden = len(self.problems) - SHOWN_PROBLEMS
        if hidden > 0:
            lines.append(f"  ... and {hidden} more ({len(self.problems)} in all)")
        super().__init__("\n".join(lines))


class ConfigError(InputError):
    """A configuration that cannot be used."""


class DataError(InputError):
    """A data file, row, column or encoding that cannot be used."""


class ModelError(InputError):
    """A model folder, head, tokenizer, backbone or rule that cannot be used."""


class RunError(InputError):
    """A run directory that cannot be used."""


class UnfinishedError(RunError):
    """A part of the work that another try can do is left; what is done is kept, and the run can be resumed."""


class MissingExtraError(InputError):
    """An optional dependency is not installed.

    Args:
        package: the module that could not be imported.
        extra: the rewardlab extra that brings it.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'rewardlab[{extra}]'")
