"""Rewards from a table of scores for the completions that it scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rewardlab.data.canonical import record_to_dict
from rewardlab.data.conversions.base import Sets, place
from rewardlab.data.conversions.candidates import PAIR_MARGIN
from rewardlab.errors import DataError, Problem
from rewardlab.records import Candidates, Record, SetAside, Source
from rewardlab.score.tables import Matcher, ScoreTable

NOT_SCORED = "no_score"


@dataclass(frozen=True)
class Labelled:
    """Candidates with rewards by set, records without a reward for every completion, what was counted, and what the
    rewards were divided by."""

    sets: Sets
    unscored: list[SetAside]
    counts: dict[str, int]
    sd: float = 1.0


def labelled(sets: Sets, table: ScoreTable, *, unit_sd: bool = False) -> Labelled:
    """Every record as candidates with the rewards that the table has for them, in place of those that it had.

    A record of which a completion has no row, or a row without a score, is left out: no reward stands in for one that
    is not known. `meta.scorer` names the scorer.

    Args:
        sets: records of any kind, in the order in which they were scored.
        table: of one scorer.
        unit_sd: divide the rewards of all sets by one number, their standard deviation within records: the root of the
            mean of the records' variances (with n - 1). `meta.reward_sd` has it.

    Raises:
        DataError: the table has none of the completions, or rewards that never differ within a record are to be
            divided.
    """
    matcher = Matcher(table)
    found: dict[str, list[Candidates]] = {name: [] for name in sets}
    unscored: list[SetAside] = []
    missing = failed = 0
    for name, records in sets.items():
        for number, record in enumerate(records, start=1):
            rows = matcher.rows(record, place(name, number, record))
            lacking, empty = int((rows < 0).sum()), int(np.isnan(table.score[rows[rows >= 0]]).sum())
            missing, failed = missing + bool(lacking), failed + bool(empty and not lacking)
            if lacking or empty or not record.completions:
                unscored.append(_aside(name, number, record, lacking, empty))
                continue
            rewards = tuple(float(score) for score in table.score[rows])
            meta = {key: value for key, value in record.meta.items() if key != PAIR_MARGIN}
            meta["scorer"] = table.scorer
            found[name].append(Candidates(record.prompt, record.completions, rewards, record.source, meta))
    if not any(found.values()):
        raise DataError("There is no reward for any record", matcher.problems or [_none(table, unscored)])
    counts = {
        "records left out, completions not in the table": missing,
        "records left out, completions without a score": failed,
        "records left out, no completions": len(unscored) - missing - failed,
        "rows of the table that no completion asked for": matcher.unused,
    }
    sd = _sd_within([record for records in found.values() for record in records], table) if unit_sd else 1.0
    scaled: Sets = {
        name: [_divided(record, sd) if unit_sd else record for record in records] for name, records in found.items()
    }
    return Labelled(scaled, unscored, counts, sd)


def _sd_within(records: list[Candidates], table: ScoreTable) -> float:
    several = [np.array(record.rewards) for record in records if len(record.completions) > 1]
    sd = float(np.sqrt(np.mean([np.var(rewards, ddof=1) for rewards in several]))) if several else 0.0
    if not sd > 0.0:
        found = "rewards that never differ within a record" if several else "one completion to every record"
        expected = "several to a record, with rewards that differ, for unit_sd"
        problem = Problem(
            str(table.path),
            found,
            expected,
            "" if several else "Bring them together: --to candidates --merge true, before.",
        )
        raise DataError("Rewards cannot be divided by their standard deviation", [problem])
    return sd


def _divided(record: Candidates, sd: float) -> Candidates:
    rewards = tuple(reward / sd for reward in record.rewards or ())
    return Candidates(record.prompt, record.completions, rewards, record.source, {**record.meta, "reward_sd": sd})


def _aside(name: str, number: int, record: Record, lacking: int, empty: int) -> SetAside:
    of = f"of {len(record.completions)} completions"
    words = [f"{lacking} {of} not in the table"] if lacking else []
    words += [f"{empty} {of} without a score"] if empty else []
    detail = ", ".join(words) or "no completions"
    return SetAside(record.source or Source(name, number), NOT_SCORED, detail, record_to_dict(record))


def _none(table: ScoreTable, unscored: list[SetAside]) -> Problem:
    found = f"{len(unscored)} records, the first with {unscored[0].detail}" if unscored else "no records"
    return Problem(str(table.path), found, "a score for every completion of a record")
