"""Which scorer, and how it is run: the part of a configuration that every user of a scorer has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from rewardlab.config import Config
from rewardlab.data.source import DataSource
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ModelError, Problem
from rewardlab.llm.asking import JudgeEndpoint
from rewardlab.models.classes import ClassScale
from rewardlab.models.quantisation import Quantisation
from rewardlab.models.source import LayoutChoice, Precision
from rewardlab.score.base import AnyScorer
from rewardlab.score.ensemble import Ensemble
from rewardlab.score.implicit import Implicit
from rewardlab.score.load import find_scorer, load_classifier, load_scorer
from rewardlab.score.local import LocalScorer
from rewardlab.score.template import chosen, read_template


class ScorerChoice(Config):
    """Which reward model, and how it is run."""

    model: str | None = None
    """Folder or hub id of the reward model, rule:NAME, python:FILE.py:FUNCTION and python:MODULE.FUNCTION, which run
    that code, or judge:NAME and judge:FILE.yaml, which ask a chat model."""

    template: str | None = None
    """Name or file of a scoring template: how a published model is read. Without a model, the template's own."""

    ensemble: Ensemble | None = None
    """Several reward models as one scorer, in place of a model."""

    implicit: Implicit | None = None
    """A policy and its reference as a scorer, in place of a model: beta times the difference of log-probabilities."""

    label: str | None = None
    """Of a classifier with several labels, which is the reward: an index, or a name."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    encoding: Encoding | None = None
    """Overrides the model's (or template's) own rules for turning text into ids, as a whole."""

    precision: Precision = "auto"
    """dtype of the weights; auto takes the template's, or keeps the checkpoint's."""

    quantisation: Quantisation | None = None
    """Weights of the backbone in fewer bits: 8bit, 4bit, or fields of a quantisation configuration of transformers."""

    layout: LayoutChoice = "auto"
    """auto shares prefixes where the backbone passes the self-test."""

    token_budget: int | None = Field(None, ge=64)
    """Tokens per micro-batch. Default: 2,048 on a CPU, 65,536 elsewhere; a resumed run keeps what it began with."""

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Only for sources you trust."""

    device: str = "auto"
    """cpu, cuda, mps or auto."""

    endpoint: JudgeEndpoint | None = None
    """An OpenAI-compatible chat model that a judge asks; its URL alone will do."""

    references: DataSource | None = None
    """Answers in any known format that a judge compares with: the first one of each prompt, of pairs the chosen one."""

    yes: bool = False
    """Ask a judge without being asked about the cost first."""

    @property
    def named(self) -> tuple[str, ...]:
        """The ways in which a scorer is named; a model and a template are one."""
        ways = {
            "model": self.model is not None or self.template is not None,
            "ensemble": self.ensemble is not None,
            "implicit": self.implicit is not None,
        }
        return tuple(way for way, is_given in ways.items() if is_given)

    @property
    def made_of(self) -> tuple[tuple[str, str | None], ...]:
        """Every model with its revision: the scorer, the members of an ensemble, a policy and its reference."""
        if self.ensemble is not None:
            return tuple((one.model, one.revision) for one in self.ensemble.members)
        if self.implicit is not None:
            return tuple((one.path, one.revision) for one in (self.implicit.policy, self.implicit.reference))
        model, template = chosen(self.model, self.template)
        rules = None if template is None else read_template(template)
        if model is not None:
            return ((model, self.revision),)
        return () if rules is None else ((rules.model, self.revision or rules.revision),)

    @property
    def running(self) -> dict[str, Any]:
        """How a model is read and run, as `load_scorer` and `load_classifier` are told."""
        names = ("revision", "device", "precision", "layout", "encoding", "token_budget", "trust_remote_code")
        return {name: getattr(self, name) for name in (*names, "quantisation")}

    def pinned(self, *, offline: bool = False) -> Self:
        """With the model that a template names, so that a run records it and a study sees when it changes."""
        found = super().pinned(offline=offline)
        model, template = chosen(found.model, found.template)
        if model is not None or template is None:
            return found
        rules = read_template(template)
        revision = found.revision or rules.revision
        return found.model_copy(update={"model": rules.model, "template": template, "revision": revision})


def scorer_of(options: ScorerChoice) -> AnyScorer:
    """The scorer that options name, loaded.

    Raises:
        ConfigError, ModelError: see `load_scorer`.
    """
    return load_scorer(
        options.model,
        template=options.template,
        label=options.label,
        endpoint=options.endpoint,
        references=options.references,
        yes=options.yes,
        ensemble=options.ensemble,
        implicit=options.implicit,
        **options.running,
    )


def check_scorers(asked: Mapping[str, ScorerChoice]) -> None:
    """Find all that scorers are made of, before work is done that needs them all and may take hours.

    Args:
        asked: by where they stand in the configuration.

    Raises:
        ModelError: rules, folders and hub ids that are not there, all of them.
    """
    problems: list[Problem] = []
    for where, options in asked.items():
        for model, revision in options.made_of:
            try:
                find_scorer(model, revision)
            except ModelError as error:
                problems += [replace(one, where=f"{where}: {one.where}") for one in error.problems]
    if problems:
        raise ModelError("These cannot score", problems)


def classifier_of(
    model: str | Path,
    options: ScorerChoice,
    *,
    bad: str | int | None = None,
    good: str | int | None = None,
    scale: ClassScale = "probability",
) -> LocalScorer:
    """A classifier, run as options say.

    Raises:
        ConfigError, ModelError: see `load_classifier`.
    """
    return load_classifier(model, bad=bad, good=good, scale=scale, **options.running)
