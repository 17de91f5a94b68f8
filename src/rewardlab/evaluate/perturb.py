"""`rewardlab evaluate perturb`: scores before and after small changes of the answers → perturb.json and perturb.txt.

`rewardlab score --battery` scores every answer after each perturbation of `rewardlab.data.perturb`, too. Here is how
often that turns the order of a pair around, how far it moves the scores, and what it costs in accuracy.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rewardlab.config import Paths
from rewardlab.data.perturb import PERTURBATIONS
from rewardlab.errors import ConfigError, DataError, Problem, RunError
from rewardlab.evaluate.base import EvaluationResult, ScoresEvaluation
from rewardlab.evaluate.battery import Answers, answers_of, battery_group, turned_examples
from rewardlab.evaluate.battery_words import findings
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.scored import read_scored_records
from rewardlab.protocols import Folder
from rewardlab.store.record import read_config

RESULT = "perturb.json"
SUMMARY = "perturb.txt"


class PerturbEvaluation(ScoresEvaluation):
    """Data and the tables of a score run with `--battery`."""

    scores: Paths = Field(min_length=1)
    """Folders of `rewardlab score --battery`: one per data file, or one for all of them."""
    scoring_seed: int | None = Field(default=None, ge=0)
    """Seed of the perturbations that were scored. Default: what the record of the score run says."""
    max_examples: int = Field(default=2, ge=0, le=20)
    """Pairs turned around that are kept for reading, for each perturbation."""


class PerturbResult(EvaluationResult):
    """What perturb.json holds."""

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return findings(self.raw)


def evaluate_perturb(config: PerturbEvaluation, run: Folder) -> PerturbResult:
    """Compare scores before and after the perturbations; writes perturb.json, and perturb.txt for reading.

    Raises:
        DataError: files that cannot be read, score tables that are not usable or of no perturbation, scores that are
            missing: every problem, and nothing has been written.
        ConfigError: the seed of the perturbations is not known.
    """
    seeds = [_seed(folder, config.scoring_seed) for folder in config.scores]
    scored = read_scored_records(config.data, config.scores, config.cluster, config.limit, PERTURBATIONS)
    there = {name for one in scored.records for name in one.probes}
    if not there:
        found = "no table of a perturbation, such as scores.typos.parquet"
        problem = Problem(", ".join(map(str, config.scores)), found, "one at least", "Score with --battery.")
        raise DataError("there is nothing to compare with", [problem])
    answers = answers_of(scored, seeds)
    settings = Settings(config.level, config.cluster)
    raw = {
        "split": config.title,
        "scorer": {"names": list(scored.scorers), "folds": len(scored.scorers)},
        "options": {"level": config.level, "cluster": config.cluster, "scoring_seeds": seeds},
        "counts": _counts(answers),
        "estimates": {
            name: [one.as_dict() for one in battery_group(answers, name, settings)] for name in PERTURBATIONS
        },
        "examples": {name: turned_examples(answers, name, config.max_examples) for name in PERTURBATIONS},
    }
    result = PerturbResult(raw)
    result.write(run, RESULT, SUMMARY)
    return result


def _counts(answers: Answers) -> dict[str, int]:
    return {
        "pairs": len(answers.better),
        "answers": len(answers.texts),
        "prompts": len({record.record.prompt.id for record in answers.records}),
        "clusters": len(set(answers.cluster.tolist())),
    }


def _seed(scores: Path, given: int | None) -> int:
    """The seed that perturbations were drawn with.

    Raises:
        ConfigError: neither the configuration nor the record of the score run says it.
    """
    if given is not None:
        return given
    try:
        return int(read_config(scores if scores.is_dir() else scores.parent)["seed"])
    except (RunError, KeyError, TypeError, ValueError) as error:
        problem = Problem(
            str(scores), "no record of a score run", "the folder of a score run", "Give --scoring_seed, 0 by default."
        )
        raise ConfigError("the seed of the perturbations is not known", [problem]) from error
