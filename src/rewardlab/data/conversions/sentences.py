"""Texts cut behind a number of whole sentences, so that a policy can learn to end what it writes.

A language model that never ends its texts, or whose samples are cut off, gives texts without an end; what is left here
of each ends with a sentence, and fine-tuning puts the token that ends an answer behind it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewardlab.data.conversions.base import Converted
from rewardlab.data.pairs import PER_COMPLETION
from rewardlab.data.splits import drawn_between
from rewardlab.data.texts import sentences
from rewardlab.records import Candidates, Record, completion_id

NONE = "completions dropped, without a whole sentence"
FEWER = "completions with fewer whole sentences than drawn"
_WHOLE = re.compile(r"[.!?…][\"'”’)\]]*$")


def first_sentences(records: Sequence[Record], kept: tuple[int, int], seed: int) -> Converted:
    """Every completion cut behind its first sentences, as candidates without rewards, which were of the whole texts.

    How many are kept is drawn by the completion's own id, so that it hangs on no other text. Of a completion with fewer
    whole sentences all of these stay. Lists of `rewardlab sample` about the whole completions are left out of `meta`.

    Args:
        records: of any kind.
        kept: the least and the largest number of sentences.
        seed: of the draws.
    """
    found: list[Record] = []
    dropped = fewer = 0
    for record in records:
        texts = []
        for text in record.completions:
            wanted = drawn_between(kept, completion_id(record.prompt, text), seed, "sentences")
            whole = _whole_sentences(text)
            fewer += 0 < len(whole) < wanted
            dropped += not whole
            texts += ["".join(whole[:wanted]).rstrip()] if whole else []
        if texts:
            meta = {key: value for key, value in record.meta.items() if key not in PER_COMPLETION}
            found.append(Candidates(record.prompt, tuple(texts), None, record.source, meta))
    return Converted(found, {NONE: dropped, FEWER: fewer})


def _whole_sentences(text: str) -> list[str]:
    """The sentences of a text, without a last one that breaks off."""
    pieces = sentences(text)
    return pieces if pieces and _WHOLE.search(pieces[-1].rstrip()) else pieces[:-1]
