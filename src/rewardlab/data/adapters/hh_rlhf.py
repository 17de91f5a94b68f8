"""Anthropic's helpful–harmless preference pairs: two whole dialogues as text (arXiv 2204.05862).

A dialogue is split at its `Human:` and `Assistant:` marks; the prompt is the turns that both sides share, the
answers are the first assistant turns in which they differ, white space at the ends of every turn of either
side is cut off. Identical or empty answers are set aside, as are dialogues that part at a human turn
(`prefix_mismatch`).

A transcript that goes on with a human turn after its last answer keeps only the answer. (Splitting at the
last `Assistant:` mark would hang that human turn on the answer: two rejected sides of the published
helpful-online test split would then be told apart by it.)
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from rewardlab.data.adapters.base import Adapter, Parsed, Turns, broken, dialogue_pair, set_aside
from rewardlab.data.files import FileRows, data_files, is_hub_id, read_hub, split_in_name, subsets_in_name
from rewardlab.data.rows import Row
from rewardlab.data.source import DataSource, read_source
from rewardlab.errors import Problem
from rewardlab.records import TRANSCRIPT_MARK, Message, Prompt

SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
ROLE_OF = {"Human": "user", "Assistant": "assistant"}


def dialogue(transcript: str) -> Turns | None:
    """The turns of a transcript, white space at their ends cut off; None where it does not begin with a mark."""
    before, *parts = TRANSCRIPT_MARK.split(transcript)
    if before.strip() or not parts:
        return None
    return tuple(Message(ROLE_OF[mark], text.strip()) for mark, text in zip(parts[::2], parts[1::2], strict=True))


def transcript_prompt(text: str) -> Prompt | None:
    """The turns of a transcript up to the answer that is asked for; None where the text is none."""
    turns = dialogue(f"\n\n{text.lstrip()}")
    if not turns:
        return None
    asked = turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content else turns
    return Prompt(asked) if asked else None


def parse(row: Row) -> Parsed:
    """A row {chosen, rejected} of transcripts as a pair; `meta` has subset and split where the file names them."""
    chosen, rejected = dialogue(row.text("chosen")), dialogue(row.text("rejected"))
    if row.problems:
        return broken(row)
    if chosen is None or rejected is None:
        side = "chosen" if chosen is None else "rejected"
        return set_aside(row, "no_dialogue", f"{side} does not begin with 'Human:' or 'Assistant:'")
    return dialogue_pair(row, chosen, rejected, _origin(row.source.file))


@lru_cache(maxsize=256)
def _origin(file: str) -> dict[str, str]:
    """Subset and split that a file name speaks of."""
    subset = next((name for name in SUBSETS if name in re.split(r"[/.:]", file)), None)
    found = {"subset": subset, "split": split_in_name(re.split(r"[/:]", file)[-1])}
    return {name: value for name, value in found.items() if value is not None}


def load(source: DataSource, problems: list[Problem]) -> list[FileRows]:
    """Rows of the wanted subsets, all four by default; on the hub and on disk they are folders or file names."""
    unknown = [name for name in source.subsets if name not in SUBSETS]
    problems += [Problem("subsets", repr(name), f"one of {', '.join(SUBSETS)}") for name in unknown]
    wanted = source.subsets or SUBSETS
    if unknown:
        return []
    if is_hub_id(source.path):
        split, revision = source.split, source.revision
        return [
            rows
            for name in wanted
            for rows in read_hub(source.path, problems, split=split, revision=revision, folder=name)
        ]
    if Path(source.path).is_dir() and not source.subsets:
        there = set().union(*map(subsets_in_name, data_files(Path(source.path))))
        source = source.model_copy(update={"subsets": tuple(name for name in SUBSETS if name in there)})
    return read_source(source, problems)


def fits(row: Row) -> bool:
    """Whether both sides are transcripts."""
    sides = (row.raw("chosen"), row.raw("rejected"))
    return not row.has("prompt") and all(isinstance(side, str) and TRANSCRIPT_MARK.match(side) for side in sides)


ADAPTER = Adapter(
    name="hh-rlhf",
    title="Anthropic HH: {chosen, rejected} as Human/Assistant transcripts, four subsets",
    required=("chosen", "rejected"),
    optional=("margin",),
    parse=parse,
    fits=fits,
    load=load,
    hub_ids=("Anthropic/hh-rlhf",),
)
