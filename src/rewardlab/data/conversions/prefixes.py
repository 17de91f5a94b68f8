"""Prompts that are the first tokens of texts, as in controlled generation: a policy goes on from the start of a review.

The text of every completion is cut behind its first n tokens, or words; the beginning is the prompt, as plain text, and
what follows is its one completion, so that the records also serve fine-tuning. Beginning and rest joined are the text:
it is cut, not decoded, and never within a character. What the text had answered is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewardlab.data.conversions.base import Converted
from rewardlab.data.pairs import FINISH_REASONS, PER_COMPLETION, picked
from rewardlab.data.splits import drawn_between
from rewardlab.data.tokenize import encodable
from rewardlab.errors import ModelError, Problem
from rewardlab.records import Candidates, Pair, Prompt, Rated, Record, completion_id

SHORT = "texts dropped, of too few tokens for a prompt and more"
REPEATED = "prompts that came before"
_WORD = re.compile(r"\S+")


def as_prefixes(records: Sequence[Record], tokenizer: Any, tokens: tuple[int, int], seed: int) -> Converted:
    """A prompt for every completion of the records.

    The number of tokens is drawn by the text's own id, so that it hangs on no other text. `meta` has it as
    `prefix_tokens`, with the label or score of the text.

    Args:
        records: whose completions are the texts.
        tokenizer: a fast transformers tokenizer; None counts words, which white space separates.
        tokens: the least and the largest number of tokens, without special tokens.
        seed: of the draws.

    Raises:
        ModelError: the tokenizer does not say where its tokens stand in a text.
    """
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        remedy = "Give one with a tokenizer.json."
        problem = Problem(
            "tokenizer", type(tokenizer).__name__, "a tokenizer that knows the places of its tokens", remedy
        )
        raise ModelError("The texts cannot be cut into tokens", [problem])
    found: list[Record] = []
    texts = 0
    for record in records:
        for position, text in enumerate(record.completions):
            texts += 1
            wanted = drawn_between(tokens, completion_id(record.prompt, text), seed, "prefix")
            end = _end(tokenizer, text, wanted)
            if end is not None:
                meta = {**_of_the_text(record, position), **_judgement(record), "prefix_tokens": wanted}
                found.append(Candidates(Prompt.of_text(text[:end]), (text[end:],), None, record.source, meta))
    repeated = len(found) - len({record.prompt.id for record in found})
    return Converted(found, {SHORT: texts - len(found), REPEATED: repeated})


def _end(tokenizer: Any, text: str, tokens: int) -> int | None:
    """Where the first tokens of a text end; None where nothing but white space would be left on either side."""
    if tokenizer is None:
        ends = [match.end() for match in _WORD.finditer(text)]
    else:
        places = tokenizer(encodable(text), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in places["offset_mapping"]]
    if len(ends) <= tokens:
        return None
    end = int(ends[tokens - 1])
    return end if text[:end].strip() and text[end:].strip() else None


def _of_the_text(record: Record, position: int) -> dict[str, Any]:
    """What `meta` says of a text that is still true of its rest: of what `sample` counted whether it was cut off."""
    meta = picked(record.meta, len(record.completions), (position,))
    return {key: value for key, value in meta.items() if key == FINISH_REASONS or key not in PER_COMPLETION}


def _judgement(record: Record) -> dict[str, Any]:
    if isinstance(record, Rated):
        return {"label": record.label} if record.score is None else {"score": record.score}
    return {} if isinstance(record, Pair) or record.rewards is None else {"rewards": list(record.rewards)}
