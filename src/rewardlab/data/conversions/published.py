"""Records as the rows of published code: the JSON lists of EXO, and generated answers.

    exo         {prompt, chosen, rejected} of pairs, {prompt, completions, rewards?} of candidates, {prompt, chosen} of
                rated completions and {prompt} of prompts alone: one of them to a file, as that code reads it
    exo-scores  {prompt, scores_texts: [[score, prompt and completion as one text], ...]} of candidates with rewards
    generated   {question, response, rewards?}: one response as a text, several as a list

How a sampled completion ended (`finish_reasons`) goes along in the rows of `exo`: the published code takes what it
reads by name, and the format `exo` reads it back. Of the others it does not fit the form, and is counted as lost.

In the first two a conversation is the transcript of its turns, ready for the answer, which begins with one space and
has no other white space at its ends, on both sides of a pair alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardlab.data.adapters.hh_rlhf import transcript_prompt
from rewardlab.data.conversions.base import place, rewarded
from rewardlab.data.pairs import FINISH_REASONS, ended, finish_reasons
from rewardlab.data.render import plain_text, question
from rewardlab.errors import Problem
from rewardlab.records import Candidates, Pair, Prompt, Rated, Record

Rows = list[dict[str, Any]]
LOST_REASONS = "records with completions that were cut off, which nothing in their rows says"
OTHER_PROMPT = "prompts read back as another: turns or options that a transcript does not hold"


def exo_rows(name: str, records: Sequence[Record], problems: list[Problem]) -> Rows:
    """The list of a set; records of several kinds, which no list holds, are a problem."""
    rows = [_exo_row(record) for record in records]
    kinds = {kind: number for number, kind in reversed(list(enumerate(map(_kind, rows), start=1)))}
    if len(kinds) > 1:
        found = "; ".join(
            f"{{{kind}}} in record {number}" for kind, number in sorted(kinds.items(), key=lambda it: it[1])
        )
        remedy = "Put `--to candidates` or `--to pairs` before, or convert them apart."
        problems.append(Problem(name, f"rows of several kinds: {found}", "one kind to a list", remedy))
    return rows


def exo_score_rows(name: str, records: Sequence[Record], problems: list[Problem]) -> Rows:
    """The evaluation of a set; records without rewards are problems."""
    rows = []
    for number, record in enumerate(records, start=1):
        candidates = rewarded(record, place(name, number, record), problems)
        if candidates is not None:
            prompt = plain_text(candidates.prompt)
            texts = [prompt + _answer(candidates.prompt, text) for text in candidates.completions]
            scored = [[reward, text] for reward, text in zip(candidates.rewards or (), texts, strict=True)]
            rows.append({"prompt": prompt, "scores_texts": scored})
    return rows


def generated_rows(name: str, records: Sequence[Record], problems: list[Problem]) -> Rows:
    """Questions and responses of a set; pairs, in which a response is preferred, and prompts alone are problems."""
    rows: Rows = []
    for number, record in enumerate(records, start=1):
        if isinstance(record, Pair) or not record.completions:
            found = "a pair" if isinstance(record, Pair) else "a prompt without completions"
            problems.append(Problem(place(name, number, record), found, "candidates, or one completion"))
            continue
        texts, rewards = list(record.completions), _rewards(record)
        several = len(texts) > 1
        row: dict[str, Any] = {"question": question(record.prompt), "response": texts if several else texts[0]}
        rows.append(row if rewards is None else row | {"rewards": rewards if several else rewards[0]})
    return rows


def other_prompts(records: Sequence[Record]) -> int:
    """How many prompts are another after they have been written as text and read by the format `exo`."""
    return sum(not _is_read_back(record.prompt) for record in records)


def lost_reasons(records: Sequence[Record]) -> int:
    """How many records have completions that were cut off, which no row of another form than `exo` says."""
    return sum(not all(ended(record)) for record in records)


def _is_read_back(prompt: Prompt) -> bool:
    text = plain_text(prompt)
    read = transcript_prompt(text)
    is_transcript = read is not None and plain_text(read) == text
    return prompt.id == (read if read is not None and is_transcript else Prompt.of_text(text)).id


def _rewards(record: Record) -> list[float] | None:
    if isinstance(record, Candidates):
        return None if record.rewards is None else list(record.rewards)
    return [record.score] if isinstance(record, Rated) and record.score is not None else None


def _kind(row: dict[str, Any]) -> str:
    return ", ".join(name for name in row if name != FINISH_REASONS)


def _exo_row(record: Record) -> dict[str, Any]:
    reasons = finish_reasons(record)
    return _plain_row(record) | ({FINISH_REASONS: reasons} if reasons else {})


def _plain_row(record: Record) -> dict[str, Any]:
    prompt = record.prompt
    texts = [_answer(prompt, text) for text in record.completions]
    row: dict[str, Any] = {"prompt": plain_text(prompt)}
    if isinstance(record, Pair):
        return row | {"chosen": texts[0], "rejected": texts[1]}
    if isinstance(record, Rated):
        return row | {"chosen": texts[0]}
    if not texts:
        return row
    row["completions"] = texts
    return row if record.rewards is None else row | {"rewards": list(record.rewards)}


def _answer(prompt: Prompt, text: str) -> str:
    """The completion as it stands behind the prompt's text: as data.turns tokenises it."""
    return text if prompt.is_text or not prompt.messages else f" {text.strip()}"
