"""`rewardlab audit score`: the texts of an audit through a reward model, into the same table as `rewardlab score`."""

from __future__ import annotations

from pathlib import Path

from rewardlab.audit.chains import ORIGINALS, REWRITES
from rewardlab.audit.human import SUBSTITUTIONS
from rewardlab.data.source import DataSource
from rewardlab.score.score import Scored, ScorerOptions, Scoring, score_file
from rewardlab.store.runs import Run


class AuditScoring(ScorerOptions):
    """Configuration of `audit score`."""

    rewrites: Path
    """Folder of `audit rewrite`, or a published file of rewrites."""


def score_rewrites(config: AuditScoring, run: Run) -> Scored:
    """Score originals and rewrites, some originals a second time, to see what scoring alone changes, and mined words.

    Raises:
        DataError: unusable rewrites.
        ModelError: unusable model, or scores that differ from one-by-one scoring.
    """
    places = [config.rewrites]
    if config.rewrites.is_dir():
        places = [
            path
            for name in (REWRITES, ORIGINALS, SUBSTITUTIONS)
            if (path := config.rewrites / name).is_file() or name == REWRITES
        ]
    data = tuple(DataSource(path=str(place)) for place in places)
    return score_file(Scoring(data=data, **config.model_dump(exclude={"rewrites"})), run)
