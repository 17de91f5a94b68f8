"""The answers of several policies to the same prompts, prompt by prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rewardlab.data.canonical import write_records
from rewardlab.data.load import Loaded, load_all
from rewardlab.data.source import DataSource, with_limit
from rewardlab.errors import DataError, Problem
from rewardlab.records import Candidates, Pair, Prompt
from rewardlab.score.references import asked
from rewardlab.store.runs import Run

ByPrompt = Mapping[str, Sequence[np.ndarray]]
"""By policy, an array for each prompt with a number for each answer."""


@dataclass(frozen=True)
class AnswerSets:
    """What all policies have answered.

    Attributes:
        prompts: that all of them have, in the order of the first policy and as it has them.
        own: by policy, the same prompts as its own file has them: a plain text, or the one turn of a user.
        texts: by policy, the answers to each prompt.
        counts: what was left out or put together, by what it is.
    """

    prompts: list[Prompt]
    own: Mapping[str, list[Prompt]]
    texts: Mapping[str, list[tuple[str, ...]]]
    counts: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """The policies, in order."""
        return list(self.texts)

    @cached_property
    def places(self) -> dict[str, int]:
        """By id of a prompt, in whatever form, its number."""
        found: dict[str, int] = {}
        for number, prompt in enumerate(self.prompts):
            forms = [asked(prompt), prompt.id, *(own[number].id for own in self.own.values())]
            forms += [Prompt.of_text(prompt.messages[0].content).id] if len(prompt.messages) == 1 else []
            found |= dict.fromkeys(forms, number)
        return found

    def total(self, name: str) -> int:
        """Answers of a policy."""
        return sum(map(len, self.texts[name]))

    def prompt_ids(self, name: str) -> np.ndarray:
        """Id of the prompt of each answer of a policy: the clusters."""
        return np.repeat([prompt.id for prompt in self.prompts], [len(own) for own in self.texts[name]])

    @cached_property
    def words(self) -> ByPrompt:
        """Words of every answer: what white space separates."""
        return self._lengths(lambda text: len(text.split()))

    @cached_property
    def characters(self) -> ByPrompt:
        """Characters of every answer."""
        return self._lengths(len)

    def _lengths(self, measure: Callable[[str], int]) -> ByPrompt:
        return {
            name: [np.array([measure(text) for text in own], dtype=np.int64) for own in texts]
            for name, texts in self.texts.items()
        }

    def write(self, run: Run) -> list[Path]:
        """A canonical file for each policy, `sets/<number>.jsonl`, all with the same prompts."""
        paths = [run.path(f"sets/{number}.jsonl") for number in range(len(self.texts))]
        for path, texts in zip(paths, self.texts.values(), strict=True):
            write_records(path, (Candidates(*both) for both in zip(self.prompts, texts, strict=True)))
        return paths


def read_answers(sets: Mapping[str, DataSource], limit: int | None = None) -> AnswerSets:
    """Read what the policies have answered, and keep the prompts that all of them have.

    Rows of one prompt go together. Prompts are the same where the same was asked.

    Args:
        sets: by policy, where its answers are: any known format, or a folder of `sample`.
        limit: rows to read of every source.

    Raises:
        DataError: unusable data, pairs, or no prompt that all sets have.
    """
    loaded = load_all((with_limit(source, limit) for source in sets.values()), usable=True)
    problems = [
        Problem(source.path, "chosen and rejected answers", "completions: {prompt, completion}, or several to a prompt")
        for source, one in zip(sets.values(), loaded, strict=True)
        if any(isinstance(record, Pair) for record in one.records)
    ]
    if problems:
        raise DataError("Pairs are not the answers of one policy", problems)
    counts: Counter[str] = Counter()
    found = {name: _gathered(name, one, counts) for name, one in zip(sets, loaded, strict=True)}
    first, *others = found.values()
    common = [key for key in first if all(key in own for own in others)]
    if not common:
        remedy = "Sample all of them from the same prompts."
        listed = ", ".join(f"{name} has {len(own)}" for name, own in found.items())
        problem = Problem("sets", f"no prompt that all of them have ({listed})", "answers to the same prompts", remedy)
        raise DataError("The policies cannot be compared", [problem])
    for name, own in found.items():
        counts[f"prompts of {name} that not all policies have answered"] = len(own) - len(common)
    return AnswerSets(
        [first[key][0] for key in common],
        {name: [own[key][0] for key in common] for name, own in found.items()},
        {name: [tuple(own[key][1]) for key in common] for name, own in found.items()},
        {what: count for what, count in counts.items() if count},
    )


def _gathered(name: str, loaded: Loaded, counts: Counter[str]) -> dict[str, tuple[Prompt, list[str]]]:
    """By what was asked, the prompt and all answers to it."""
    counts[f"rows of {name} set aside"] = len(loaded.set_aside)
    if loaded.dropped:
        counts[f"empty completions of {name} dropped"] = loaded.dropped
    found: dict[str, tuple[Prompt, list[str]]] = {}
    several = set()
    for record in loaded.records:
        if not record.completions:
            counts[f"rows of {name} without an answer"] += 1
            continue
        key = asked(record.prompt)
        several |= {key} if key in found else set()
        found.setdefault(key, (record.prompt, []))[1].extend(record.completions)
    counts[f"prompts of {name} in several rows, whose answers are put together"] = len(several)
    return found
