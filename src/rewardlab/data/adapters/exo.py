"""The JSON lists of the published code of EXO (arXiv 2402.00856): one of four rows to a list.

    {prompt, chosen}                      what supervised fine-tuning reads → candidates with one completion
    {prompt, chosen, rejected}            → pair
    {prompt, completions, rewards?}       → candidates
    {prompt, scores_texts}                its evaluation: [[score, prompt and completion as one text], ...] → candidates

A prompt that is a transcript, as its preprocessing of HH writes it ("\\n\\nHuman: ...\\n\\nAssistant:"), becomes the
conversation, and white space is cut off both ends of its completions; any other text stays as it is. The two rows in
the middle are those of the formats `preference` and `k-way`, too, which leave every prompt plain text.
"""

from __future__ import annotations

from dataclasses import replace

from rewardlab.data.adapters import kway, preference
from rewardlab.data.adapters.base import Adapter, Parsed, broken, prompt_of, usable
from rewardlab.data.adapters.hh_rlhf import transcript_prompt
from rewardlab.data.render import plain_text
from rewardlab.data.rows import Row, as_number, shown
from rewardlab.records import Candidates, Pair, Prompt, SetAside


def parse(row: Row) -> Parsed:
    """A row of whichever of the lists."""
    if row.has("scores_texts"):
        return _as_conversation(row, _scored(row))
    if row.has("completions"):
        return _as_conversation(row, kway.parse(row))
    if row.has("rejected"):
        return _as_conversation(row, preference.parse(row))
    prompt, chosen = row.text("prompt"), row.text("chosen")
    if row.problems:
        return broken(row)
    return _as_conversation(row, Candidates(prompt_of(prompt), (chosen,), None, row.source, row.rest()))


def _scored(row: Row) -> Parsed:
    prompt, rewards, texts = row.text("prompt"), [], []
    for position, item in enumerate(row.items("scores_texts")):
        score = as_number(item[0]) if isinstance(item, list) and len(item) == 2 else None
        if score is None or not isinstance(item[1], str):
            row.complain("scores_texts", "pairs [score, text]", found=f"{shown(item)} at position {position}")
        elif not item[1].startswith(prompt):
            found = f"{shown(item[1])} at position {position}"
            row.complain("scores_texts", "texts that begin with the prompt", found=found)
        else:
            rewards.append(score)
            texts.append(item[1].removeprefix(prompt))
    if row.problems:
        return broken(row)
    return Candidates(prompt_of(prompt), tuple(texts), tuple(rewards), row.source, row.rest())


def _as_conversation(row: Row, parsed: Parsed) -> Parsed:
    """The record with its transcript as a conversation, if it is usable."""
    if isinstance(parsed, SetAside):
        return parsed
    asked = _conversation(parsed.prompt)
    if asked is not None and isinstance(parsed, Pair):
        parsed = replace(parsed, prompt=asked, chosen=parsed.chosen.strip(), rejected=parsed.rejected.strip())
    elif asked is not None and isinstance(parsed, Candidates):
        parsed = replace(parsed, prompt=asked, completions=tuple(text.strip() for text in parsed.completions))
    return usable(row, parsed)


def _conversation(prompt: Prompt) -> Prompt | None:
    """The turns of a transcript that ends where an answer is asked for and says nothing else."""
    if not prompt.is_text:
        return None
    asked = transcript_prompt(prompt.messages[0].content)
    return asked if asked is not None and plain_text(asked) == prompt.messages[0].content else None


def fits(row: Row) -> bool:
    """Whether no other format has the row: an evaluation, or a prompt with what is chosen alone."""
    return row.has("scores_texts") or (isinstance(row.raw("chosen"), str) and not row.knows("rejected"))


ADAPTER = Adapter(
    name="exo",
    title="lists of EXO: {prompt} with {chosen}, {chosen, rejected}, {completions, rewards?} or {scores_texts}",
    required=("prompt",),
    optional=("chosen", "rejected", "completions", "rewards", "scores_texts"),
    parse=parse,
    fits=fits,
)
