"""Records → what a policy learns from: prompts with completions to imitate, or with completions to choose among."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from rewardlab.data.conversions.base import SHOWN_ALIKE
from rewardlab.data.layout import share_prompt
from rewardlab.data.pairs import ended, given_places
from rewardlab.data.turns import Ids
from rewardlab.data.unread import unread_words
from rewardlab.errors import DataError, Problem, counted
from rewardlab.functional.candidates import consecutive_groups, drawn_candidates
from rewardlab.models.policy import PolicyModel
from rewardlab.models.references import References
from rewardlab.records import Candidates, Pair, Rated, Record
from rewardlab.train.examples import CHUNK_RECORDS, Example, Examples, some
from rewardlab.train.trainer import StepPlan

Choice = Literal["consecutive", "drawn"]
PREFERENCE = "a pair, or candidates with rewards"


@dataclass(frozen=True)
class PolicyExample(Example):
    """A prompt with completions; its targets are their rewards.

    Attributes:
        reference: log-probabilities of the completions under the reference; empty where there is none.
    """

    reference: tuple[float, ...] = ()

    @property
    def lengths(self) -> list[int]:
        """Tokens of every completion."""
        group = self.group
        return [len(group.prefix) + len(branch) - group.start for branch in group.branches]

    def part(self, places: Sequence[int]) -> PolicyExample:
        """Some of the completions, in the order of `places`."""
        return replace(
            self,
            group=self.group.part(places),
            targets=tuple(self.targets[place] for place in places),
            reference=tuple(self.reference[place] for place in places) if self.reference else (),
        )


def policy_examples(examples: Sequence[Example]) -> list[PolicyExample]:
    """The same examples, by their type."""
    return [example for example in examples if isinstance(example, PolicyExample)]


class Grouping(NamedTuple):
    """Which of a prompt's completions a step takes.

    Attributes:
        pairs: winner and loser of two; otherwise completions with their rewards.
        size: how many; None takes all that there are, of pairs two.
        choice: of more than `size`, consecutive groups, or some drawn in every epoch.
    """

    pairs: bool
    size: int | None
    choice: Choice

    @property
    def is_drawn(self) -> bool:
        """Whether every epoch draws."""
        return self.choice == "drawn" and (self.pairs or self.size is not None)

    @property
    def whole(self) -> int | None:
        """The size of consecutive groups; None where completions are drawn, or all taken."""
        return None if self.is_drawn else 2 if self.pairs else self.size

    def groups(self, count: int) -> list[list[int]]:
        """The groups of `count` completions before anything is drawn.

        Raises:
            ValueError: they do not go into groups of that size.
        """
        if self.whole is None:
            return [list(range(count))]
        found: list[list[int]] = consecutive_groups(count, self.whole).tolist()
        return found

    def groups_of(self, record: Record) -> list[list[int]]:
        """The groups of a record's completions before anything is drawn.

        A completion stands in the group that it has in its row, where empty ones count too.

        Raises:
            ValueError: they do not go into groups of that size.
        """
        places, count = given_places(record)
        found = {place: position for position, place in enumerate(places)}
        if self.whole is None:
            return self.groups(len(places))
        return [[found[place] for place in group if place in found] for group in self.groups(count)]

    def draw(self, example: PolicyExample, *, seed: int, epoch: int, place: int) -> PolicyExample:
        """What an epoch takes of an example: candidates, or a winner and a loser that are no tie and not the same."""
        count = len(example.targets)
        if not self.pairs:
            size = self.size or count
            return example.part(drawn_candidates(count, size, seed=seed, epoch=epoch, prompt=place).tolist())
        pairs = unlike_pairs(example.targets, example.group.sequences())
        # Zeros at the end of a seed change nothing: the 2 keeps these draws apart from others.
        return example.part(pairs[np.random.default_rng([seed, epoch, place, 2]).integers(len(pairs))])


def unlike_pairs(rewards: Sequence[float], ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """The positions of winner and loser of all pairs that are no tie and not the same text."""
    places = range(len(rewards))
    return [[i, j] for i in places for j in places if rewards[i] > rewards[j] and ids[i] != ids[j]]


class DrawnPlan(StepPlan):
    """A plan whose epochs draw from the completions of every prompt.

    Args:
        examples: `PolicyExample`s with all completions.
        per_step: examples to a step.
        epochs: passes over the data.
        seed: of the order and the draws.
        grouping: what is drawn.
    """

    def __init__(
        self, examples: Sequence[Example], per_step: int, epochs: int, seed: int, *, grouping: Grouping
    ) -> None:
        super().__init__(examples, per_step, epochs, seed)
        self.grouping = grouping

    def taken(self, epoch: int, place: int) -> Example:
        """Some of the example's completions."""
        (example,) = policy_examples([self.examples[place]])
        return self.grouping.draw(example, seed=self.seed, epoch=epoch, place=place)


def imitation_examples(
    records: Sequence[Record], model: PolicyModel, name: str, *, on_prompts: bool = False
) -> Examples:
    """Completions to imitate: the chosen one of a pair, the one of highest reward, all without rewards, what is not
    labelled bad.

    Args:
        records: of any kind.
        model: its tokenizer and encoding.
        name: of the data set, for messages.
        on_prompts: imitate all that stands behind the prompt's first token.

    Raises:
        DataError: nothing is left.
    """
    counts: Counter[str] = Counter(records=len(records))
    items: list[Example] = []
    for record, prompt, completions in _encoded(records, model, counts):
        places = _imitated(record)
        if not places:
            counts["labelled_bad" if isinstance(record, Rated) else "prompts_alone"] += 1
        for place in places:
            ids = completions[place]
            if not ids.ids:
                counts["empty_completions"] += 1
                continue
            counts["truncated_completions"] += ids.truncated
            start = 1 if on_prompts else len(prompt.ids)
            items.append(PolicyExample(share_prompt(prompt.ids[:start], [prompt.ids[start:] + ids.ids]), (0.0,)))
    return some(Examples(items, "completion", counts), name)


def check_preferences(sets: Mapping[str, Sequence[Record]], grouping: Grouping) -> None:
    """Refuse records that show no preference, and completions that do not go into groups.

    Args:
        sets: records by the name of their set, for messages.
        grouping: which of a prompt's completions stand in one example.

    Raises:
        DataError: what is wrong with the records of all sets.
    """
    problems = [problem for name, records in sets.items() for problem in _unusable(records, name, grouping)]
    if problems:
        raise DataError("The policy cannot learn from these data", problems)


def preference_examples(records: Sequence[Record], model: PolicyModel, name: str, grouping: Grouping) -> Examples:
    """Completions to choose among, with rewards; of a pair they are (1, 0).

    Left out and counted: completions without tokens; ties and identical completions where there is nothing else; of
    pairs both, and where they are drawn the pairs of an example that are the same text. Of winner and loser the winner
    is first.

    Args:
        records: pairs, or candidates with rewards, that `check_preferences` has let pass.
        model: its tokenizer and encoding.
        name: of the data set, for messages.
        grouping: which of a prompt's completions stand in one example.

    Raises:
        DataError: nothing is left.
    """
    counts: Counter[str] = Counter(records=len(records))
    items: list[Example] = []
    for record, prompt, completions in _encoded(records, model, counts):
        if grouping.is_drawn and len(completions) < (grouping.size or 2):
            counts["fewer_candidates"] += 1
        rewards = (1.0, 0.0) if isinstance(record, Pair) else getattr(record, "rewards", None) or ()
        for places in grouping.groups_of(record):
            there = [place for place in places if completions[place].ids]
            counts["empty_completions"] += len(places) - len(there)
            if grouping.pairs:
                there.sort(key=lambda place: -rewards[place])
            own, ids = [rewards[place] for place in there], [completions[place].ids for place in there]
            reason = _of_no_use(own, ids, grouping)
            if reason:
                counts[reason] += 1
                continue
            if grouping.pairs and grouping.is_drawn:
                apart = sum(one > other for one in own for other in own)
                counts["identical_pairs"] += apart - len(unlike_pairs(own, ids))
            counts["truncated_completions"] += sum(completions[place].truncated for place in there)
            items.append(PolicyExample(share_prompt(prompt.ids, ids), tuple(own)))
    return some(Examples(items, "preference", counts), name)


def with_references(examples: Examples, references: References) -> Examples:
    """The same examples, each with its completions' log-probabilities under the reference."""
    items: list[Example] = [
        replace(example, reference=references.of(example.group)) for example in policy_examples(examples.items)
    ]
    return replace(examples, items=items)


def _encoded(
    records: Sequence[Record], model: PolicyModel, counts: Counter[str]
) -> Iterator[tuple[Record, Ids, list[Ids]]]:
    """Each record with the ids of its prompt and of its completions, a chunk at a time."""
    # A tokenizer makes a number of its own for every token; sharing them takes a quarter of the memory.
    known: dict[int, int] = {}

    def shared(ids: Ids) -> Ids:
        return ids._replace(ids=tuple(known.setdefault(token, token) for token in ids.ids))

    for start in range(0, len(records), CHUNK_RECORDS):
        chunk = records[start : start + CHUNK_RECORDS]
        prompts = [record.prompt for record in chunk]
        encoded = model.encoder.completions(
            prompts, [record.completions for record in chunk], [ended(record) for record in chunk]
        )
        for record, prompt, completions in zip(chunk, model.encoder.prompts(prompts), encoded, strict=True):
            counts["truncated_prompts"] += prompt.truncated
            own = _as_sampled(record, model)
            counts.update({"as_sampled": sum(one is not None for one in own)} if any(own) else {})
            yield record, shared(prompt), [shared(a or b) for a, b in zip(own, completions, strict=True)]


def _as_sampled(record: Record, model: PolicyModel) -> list[Ids | None]:
    """The ids that completions were sampled with, where the record has them and they are this tokenizer's."""
    found = record.meta.get("token_ids")
    if not isinstance(found, list) or len(found) != len(record.completions):
        return [None] * len(record.completions)
    texts = zip(record.completions, found, strict=True)
    return [model.encoder.as_sampled(record.prompt, text, ids) for text, ids in texts]


def _imitated(record: Record) -> list[int]:
    if isinstance(record, Rated):
        return [] if record.label is False else [0]
    if isinstance(record, Pair):
        return [0]
    rewards = record.rewards
    return list(range(len(record.completions))) if rewards is None else [int(np.argmax(rewards))]


class _Fault(NamedTuple):
    """Why records cannot be used: what was found, what was expected, what to do."""

    found: str
    expected: str
    remedy: str


def _unusable(records: Sequence[Record], name: str, grouping: Grouping) -> list[Problem]:
    """A problem for every reason that a record has no preference, or has completions that do not go into groups."""
    alike: dict[_Fault, list[Record]] = {}
    for record in records:
        if (fault := _fault(record, grouping)) is not None:
            alike.setdefault(fault, []).append(record)
    most = max((len(record.completions) for record in records), default=0)
    if not alike and grouping.is_drawn and most < (grouping.size or 2):
        return [Problem(name, *_too_few(most, grouping.size or 2, "at most"))]
    problems = []
    for (found, expected, remedy), own in alike.items():
        # Further candidates are sampled; a preference that is not there may stand in a column of another name.
        unread = unread_words(own) if expected == PREFERENCE else ""
        problems.append(
            Problem(_where(name, own, len(records)), found, expected, " Or: ".join(filter(None, [unread, remedy])))
        )
    return problems


def _where(name: str, records: Sequence[Record], total: int) -> str:
    """How many records of a set, and the rows that the first of them came from."""
    rows = sorted({(record.source.file, record.source.row) for record in records if record.source})
    shown = ", ".join([f"{file}:{row}" for file, row in rows[:SHOWN_ALIKE]] + ["..."] * (len(rows) > SHOWN_ALIKE))
    return f"{name}, {len(records):,} of {counted(total, 'record')}" + (f" ({shown})" if shown else "")


def _fault(record: Record, grouping: Grouping) -> _Fault | None:
    """Why a record cannot be used; None where it can."""
    count, size = given_places(record)[1], grouping.whole
    if isinstance(record, Rated) or (isinstance(record, Candidates) and record.rewards is None):
        lone = "a prompt alone" if not count else "one completion" if count == 1 else ""
        steps = "rewardlab score, then rewardlab data convert --to labelled"
        remedy = f"Give completions their rewards: {steps}."
        if lone:
            remedy = f"Sample several completions of every prompt, then give them rewards: rewardlab sample, {steps}."
        return _Fault(lone or "candidates without rewards", PREFERENCE, remedy)
    if size is not None and count < size:
        return _too_few(count, size)
    if size is not None and count % size:
        drawn = f"Draw {size} of them in every epoch: --choice drawn"
        others = "--objective exo-rw (train exo) or dpo-rw (train dpo)" if grouping.pairs else "no --candidates"
        remedy = f"{drawn}. Or learn from all of them: {others}."
        return _Fault(f"{counted(count, 'candidate')} to a prompt", f"a multiple of {size}, to go into groups", remedy)
    return None


def _too_few(count: int, size: int, more: str = "") -> _Fault:
    remedy = f"Give --candidates {count}, or leave it out: all that there are." if count > 1 else ""
    sample = f"`rewardlab sample --n {size}` makes more."
    found = " ".join(filter(None, [f"{counted(count, 'candidate')} to a prompt", more]))
    return _Fault(found, f"{size} or more, to make groups of {size}", f"{remedy} {sample}".strip())


def _of_no_use(rewards: Sequence[float], ids: Sequence[tuple[int, ...]], grouping: Grouping) -> str:
    """Why a group teaches nothing; empty where it does."""
    if len(rewards) < 2:
        return "too_few_completions"
    if len(set(ids)) < 2:
        return "identical_completions"
    return "ties" if grouping.pairs and len(set(rewards)) < 2 else ""
