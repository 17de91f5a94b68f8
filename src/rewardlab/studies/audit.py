"""`rewardlab audit run`: the four phases of an audit in one command, each a run of its own under `steps/`.

steps/rewrite     audit rewrite
steps/score-0     audit score, one per reward model
steps/effects     audit effects
steps/report      audit report
report.html       its page
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from rewardlab.audit.chains import REWRITES
from rewardlab.audit.published import Errors
from rewardlab.audit.rewrite import Rewriting
from rewardlab.errors import ConfigError, InputError, RewardlabError, RunError
from rewardlab.score.choice import scorer_of
from rewardlab.score.score import ScorerOptions
from rewardlab.store.files import atomic_path
from rewardlab.store.record import RunRecord
from rewardlab.store.runs import Run
from rewardlab.studies.pipeline import Options, run_study
from rewardlab.studies.study import Stage, Study, StudyFile

STEPS = "steps"
PAGE = "report.html"
_OF_EFFECTS = ("level", "bootstrap", "draws", "cluster", "subgroups", "seed", "published_errors")
"""Options that the phase of effects has under the same names."""


class AuditedScorer(ScorerOptions):
    """A reward model to be audited; its name alone stands for it."""

    text_field: ClassVar[str] = "model"


def _in_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping | AuditedScorer) else value


class Audit(Rewriting):
    """Configuration of `audit run`: what is rewritten and by whom, and the reward models to audit."""

    model: Annotated[list[AuditedScorer], BeforeValidator(_in_list)] = Field(min_length=1)
    """The reward model, or several to stand side by side: a folder, a hub id, a rule, a judge, a template."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    bootstrap: Literal["none", "percentile", "bca"] = "none"
    """Intervals from resamples of whole prompts in place of t intervals."""

    draws: int = Field(2000, ge=100)
    """Resamples, and permutations."""

    cluster: Literal["prompt", "root"] = "prompt"
    """What makes responses dependent: the same prompt, or the same conversation root (first user turn)."""

    published_errors: Errors = "ours"
    """Standard errors in effects.rate.json: ours, or as the published code takes them, which ignore the pairing."""

    title: str = "What does this reward model reward?"
    """Heading of the page."""


@dataclass(frozen=True)
class Audited:
    """What the last phase found, and where its page is."""

    findings: tuple[str, ...]
    page: Path

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return [*self.findings, f"The report: {self.page}"]


def audit(config: Audit, run: Run) -> Audited:
    """Rewrite, score, estimate, report. What an earlier session of the run has done is not done again.

    Raises:
        ConfigError: reward models that cannot be used: every problem, before anything is rewritten.
        DataError: subgroups that the data do not make, as early; or data that cannot be read.
        RewardlabError: of any phase; what is done, and paid for, is kept.
    """
    if not (run.folder / STEPS / "rewrite" / REWRITES).is_file():
        _check_scorers(config.model)
    # What the steps say is in the log of the whole, once.
    options = Options(name=STEPS, root=run.folder, allow_untracked=True)
    study = _study(config)
    try:
        result = run_study(StudyFile(study, {}), options, tell=run.log.info)
    except InputError as error:
        if not isinstance(error, RunError) and (words := _kept(study, config, run)):
            error.add_note(words)
        raise
    with atomic_path(run.path(PAGE)) as temporary:
        temporary.write_bytes((result.folder / "report" / PAGE).read_bytes())
    found = tuple(line for line in result.findings if not line.startswith("The report: "))
    return Audited(found, run.path(PAGE))


def _kept(study: Study, config: Audit, run: Run) -> str:
    """How to use what is done of an audit that cannot be resumed, since something it was given has to change."""
    steps = run.folder / STEPS
    done = {stage.id for stage in study.stages if _is_done(steps / stage.id)}
    if "rewrite" not in done:
        return ""
    rewrites = f"--rewrites {shlex.quote(str(steps / 'rewrite'))}"
    scores = [stage.id for stage in study.stages if stage.verb == "audit score"]
    paid = " Another run pays for no answer twice." if config.endpoint or config.judge else ""
    if done.issuperset(scores):
        given = " ".join(f"--scores {shlex.quote(str(steps / name))}" for name in scores)
        return f"Its rewrites and scores can be used elsewhere: rewardlab audit effects {rewrites} {given}.{paid}"
    return f"Its rewrites can be used elsewhere: rewardlab audit score {rewrites} --model MODEL.{paid}"


def _is_done(folder: Path) -> bool:
    with suppress(RewardlabError):
        return RunRecord.read(folder).is_whole()
    return False


def _check_scorers(scorers: Sequence[AuditedScorer]) -> None:
    """Load every reward model once and let it go: rewrites cost hours or money, and a misspelt name should not.

    Raises:
        ConfigError: some cannot be loaded: every problem.
    """
    problems = []
    for scorer in scorers:
        try:
            scorer_of(scorer.model_copy(update={"device": "cpu"}))
        except InputError as error:
            name = (
                scorer.model or scorer.template or ("of the ensemble" if scorer.ensemble else "of the implicit reward")
            )
            problems += [replace(one, where=f"model {name}, {one.where}") for one in error.problems]
    if problems:
        raise ConfigError("reward models cannot be used; nothing has been rewritten", problems)


def _study(config: Audit) -> Study:
    rewriting = config.model_dump(mode="json", exclude_defaults=True, include=set(Rewriting.model_fields))
    agreed = {"yes": True} if config.yes else {}
    scorers = [one.model_dump(mode="json", exclude_defaults=True) | agreed for one in config.model]
    names = [f"score-{number}" for number in range(len(scorers))]
    effects = {
        "rewrites": "${rewrite}",
        "scores": [f"${{{name}}}" for name in names],
        **{name: getattr(config, name) for name in _OF_EFFECTS},
    }
    stages = [
        Stage(id="rewrite", verb="audit rewrite", config=rewriting),
        *(
            Stage(id=name, verb="audit score", config={**scorer, "rewrites": "${rewrite}"})
            for name, scorer in zip(names, scorers, strict=True)
        ),
        Stage(id="effects", verb="audit effects", config=effects),
        Stage(id="report", verb="audit report", config={"title": config.title, "effects": ["${effects}"]}),
    ]
    return Study(name="audit", stages=tuple(stages))
