"""The judge of rewrites: what is chatter, and above all what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.audit.judged import judged

TEXT = "The film was long. I liked the ending, though."

CHATTER = [
    f"Sure! Here is the adjusted review:\n\n{TEXT}!",
    f"Sure, here's a longer version of the review: {TEXT}!",
    f"Certainly!\n{TEXT}!",
    f"Of course. Below is your text.\n\n{TEXT}!",
    f"Here's the adjusted response:\n{TEXT}!",
    f"Here’s the rewritten review {TEXT}!",
    f"Here is a more positive version of the text: {TEXT}!",
    f"**Adjusted review:**\n{TEXT}!",
    f"I've rewritten the review. {TEXT}!",
    f'"{TEXT}!"',
    f"“{TEXT}!”",
    f"```\n{TEXT}!\n```",
    f"{TEXT}!\n\nLet me know if you would like any changes.",
    f"{TEXT} Please let me know if this works!",
    f"{TEXT}!\n\nI hope this helps!",
    f"{TEXT}!\n\n(Note: I only changed the length.)",
]

FINE = [
    f"{TEXT} It was worth it.",
    f"Sure, {TEXT}",
    f"Okay film. {TEXT}",
    f"Absolutely wonderful! {TEXT}",
    f"Of course, the film was long. {TEXT}",
    f"Here is a film that I liked. {TEXT}",
    f"This is the best adjusted budget ever. {TEXT}",
    '"Alien" was long. I liked the ending of "Aliens"',
    f"{TEXT} He would let me know if it rained.",
    f"{TEXT} Note the music.",
    "I have rewritten history, said he. The film was long.",
]


@pytest.mark.parametrize("after", CHATTER)
def test_chatter(after: str) -> None:
    found = judged(TEXT, after)
    assert (found.outcome, found.text) == ("chatter", after)
    assert found.detail
    # A text that had the same words before was rewritten faithfully.
    assert judged(f"{after} ", after.replace("long", "short")).outcome == "ok"


@pytest.mark.parametrize("after", FINE)
def test_no_chatter(after: str) -> None:
    assert judged(TEXT, after).outcome == "ok"


def test_empty_and_identical() -> None:
    assert judged(TEXT, " \n").outcome == "empty"
    assert judged(TEXT, "").text is None
    assert judged(TEXT, f"{TEXT}\n").outcome == "identical"
    assert judged("", "a").outcome == "ok"


def test_human_rewrites_are_no_chatter(shared: Path) -> None:
    """People rewrote 2,440 reviews by hand: whatever the judge finds there is an error of the judge."""
    judgements = []
    for part in ("train", "dev", "test"):
        lines = (shared / f"data/counterfactual-imdb/{part}_paired.tsv").read_text(encoding="utf-8").splitlines()[1:]
        texts = [line.split("\t")[1] for line in lines]
        for original, rewrite in zip(texts[::2], texts[1::2], strict=True):
            judgements += [judged(original, rewrite).outcome, judged(rewrite, original).outcome]
    assert len(judgements) == 4880
    assert {outcome: judgements.count(outcome) for outcome in set(judgements)} == {"ok": 4876, "identical": 4}
