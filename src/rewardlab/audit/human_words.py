"""The words of a rule that was mined from human rewrites: what rewards give them, and what depends on their number."""

from __future__ import annotations

from typing import Any

import numpy as np

from rewardlab.audit.human import WrittenSubstitutions, phrases
from rewardlab.audit.human_effects import HumanUnits, ends
from rewardlab.audit.mined import Substitution
from rewardlab.audit.scored import ScoredChains
from rewardlab.data.cues import words as count_words
from rewardlab.errors import DataError, Problem
from rewardlab.functional.effects import scaled
from rewardlab.functional.intervals import Interval, interval, mean, ratio_statistic
from rewardlab.records import completion_id
from rewardlab.score.tables import ScoreTable

BANDS = 3
"""Bands of texts by the number of substitutions to 100 words, of equal size."""


def lexicon_overlap(
    units: HumanUnits, scored: ScoredChains, table: ScoreTable, words: WrittenSubstitutions, level: float = 0.95
) -> list[dict[str, Any]]:
    """What a reward gives the words alone that the rule put in place of others, by use in the first rewrites.

    A substitution moves the reward `as asked` where the new words alone have a reward that lies from that of the old
    words where it should, `against` where it lies on the other side, and `not at all` where both have the same: where
    neither stands in the reward's lexicon, if it has one. Words that are only taken away are not judged.

    Returns:
        A row per verdict: `scorer, verdict, uses, words` (different substitutions), `removals` (uses that are not
        judged), and the share of uses `value, low, high`, with `n` and `clusters`.
    """
    verdicts = {one: _verdict(one, way, table, words) for way in (True, False) for one in words.rule.substitutions[way]}
    used = _used(units, scored, words)
    judged = np.array([sum(bool(one.new) for one in own) for own in used], dtype=np.float64)
    rows = []
    for verdict in ("as asked", "against", "not at all"):
        counts = np.array([sum(verdicts[one] == verdict for one in own) for own in used], dtype=np.float64)
        share = Interval(None, reason="no substitution was used")
        if judged.any():
            share = interval(ratio_statistic(counts, judged), units.pair, level)
        rows.append(
            {
                "scorer": table.scorer,
                "verdict": verdict,
                "uses": int(counts.sum()),
                "words": len({one for own in used for one in own if verdicts[one] == verdict}),
                "removals": int(sum(map(len, used)) - judged.sum()),
                **ends(share),
            }
        )
    return rows


def _verdict(one: Substitution, towards: bool, table: ScoreTable, words: WrittenSubstitutions) -> str:
    """What the reward gives a substitution alone; empty for a removal.

    Raises:
        DataError: the words have no score.
    """
    found = [table.rows.get((words.prompt.id, completion_id(words.prompt, text), 0)) for text in phrases(one)]
    if None in found:
        expected = "a score of every substitution, as `audit score` gives the folder of rewrites"
        raise DataError("scores are missing", [Problem(str(table.path), f"no row of {phrases(one)}", expected)])
    if len(found) < 2:
        return ""
    change = float(table.score[found[1]] - table.score[found[0]]) * (1.0 if towards else -1.0)
    return "as asked" if change > 0.0 else "against" if change < 0.0 else "not at all"


def differences_by_uses(
    units: HumanUnits, scored: ScoredChains, words: WrittenSubstitutions, level: float = 0.95
) -> list[dict[str, Any]]:
    """How far single rewrites and RATE lie from people, by how much the rule finds to change in a text.

    A rule that leaves words standing falls short of people, the more so the fewer it knows; agreement over all texts
    may be a balance of too little in some and too much in others. Every text has the other one of its pair beside it.

    Returns:
        Rows `scorer, estimator, band` (1 has the fewest), `least` and `most` (substitutions to 100 words) and of the
        difference in sd `value, low, high`, with `n` and `clusters`.
    """
    original, rewrite, again = units.rewards.T
    sign = np.where(units.treated, 1.0, -1.0)
    people = sign * (original - original[units.partner])
    apart = {"single": sign * (original - rewrite) - people, "double": sign * (again - rewrite) - people}
    lengths = [count_words(scored.chains[place].texts[0]) for place in units.chains.tolist()]
    uses = np.array([len(own) for own in _used(units, scored, words)]) * 100.0 / np.maximum(lengths, 1)
    # Ties go by place, so that bands are of one size whatever the counts.
    rank = np.argsort(np.argsort(uses, kind="stable"), kind="stable")
    band = rank * BANDS // len(uses)
    rows = []
    for estimator, values in apart.items():
        for number in range(BANDS):
            own = band == number
            if own.any():
                found = scaled(mean(values[own], units.pair[own], level), units.sd)
                limits = {"least": float(uses[own].min()), "most": float(uses[own].max())}
                rows.append(
                    {"scorer": scored.scorer, "estimator": estimator, "band": number + 1, **limits, **ends(found)}
                )
    return rows


def _used(units: HumanUnits, scored: ScoredChains, words: WrittenSubstitutions) -> list[list[Substitution]]:
    """The substitutions of every first rewrite."""
    chosen = zip(units.chains.tolist(), units.treated.tolist(), strict=True)
    return [words.rule.applied(scored.chains[place].texts[0], not treated)[1] for place, treated in chosen]
