"""Every kind of scorer by its name: one function, one line per kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from rewardlab.data.source import DataSource
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ConfigError, ModelError, Problem
from rewardlab.llm.asking import JudgeEndpoint
from rewardlab.models.classes import ClassReading, ClassScale
from rewardlab.models.loading import load_reward_model
from rewardlab.models.located import located
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.quantisation import Quantisation
from rewardlab.models.reward import RewardModel
from rewardlab.models.source import LayoutChoice, Precision, torch_device
from rewardlab.records import content_id
from rewardlab.score.base import AnyScorer, shown_name
from rewardlab.score.ensemble import Ensemble, EnsembleScorer
from rewardlab.score.implicit import Implicit, ImplicitScorer, load_implicit
from rewardlab.score.judge import load_judge
from rewardlab.score.local import LocalScorer
from rewardlab.score.rules import RULE, built_in_rule, python_rule, rule_meant
from rewardlab.score.template import chosen, read_template
from rewardlab.store.keys import CODE, JUDGE, source_digests

ANSWER: Final = "answer"
"""The form of text that is the response alone."""


def load_scorer(
    model: str | Path | None = None,
    *,
    template: str | Path | None = None,
    label: int | str | None = None,
    revision: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    layout: LayoutChoice = "auto",
    encoding: Encoding | None = None,
    token_budget: int | None = None,
    trust_remote_code: bool = False,
    endpoint: JudgeEndpoint | None = None,
    references: DataSource | None = None,
    yes: bool = False,
    ensemble: Ensemble | Mapping[str, Any] | None = None,
    implicit: Implicit | Mapping[str, Any] | None = None,
    quantisation: Quantisation | None = None,
) -> AnyScorer:
    """Anything that gives a reward, as a scorer: `load_scorer(model)(prompts, completions) -> rewards`.

    Args:
        model: a folder or a hub id, a PEFT adapter with its head too; `rule:NAME`; `python:FILE.py:FUNCTION` or
            `python:MODULE.FUNCTION`, which run that code; `judge:NAME` or `judge:FILE.yaml`, which ask a chat model.
            None is the template's own model.
        template: name or file of a scoring template.
        label: of a classifier with several labels, which is the reward: an index, or a name.
        revision: of a hub id.
        device: cpu, cuda, mps or auto.
        precision: dtype of the weights; auto takes the template's, or keeps the checkpoint's.
        layout: auto shares prefixes where the backbone passes the self-test.
        encoding: overrides the folder's or template's rules, as a whole.
        token_budget: tokens per micro-batch.
        trust_remote_code: run Python code that comes with the checkpoint.
        endpoint: the chat model that a judge asks.
        references: what a judge that compares compares answers with.
        yes: what a judge costs is agreed to already.
        ensemble: several models as one, in place of a model: `{"members": [folder, folder], "rule": "lower-bound"}`.
        implicit: a policy and its reference, in place of a model: `{"policy": FOLDER, "reference": FOLDER}`.
        quantisation: weights of the backbone in fewer bits: 8bit, 4bit, or fields of a configuration of transformers.

    Raises:
        ConfigError: neither a model nor a template, an unknown template or judge, or options that a rule, a judge or a
            model has not.
        ModelError: unreadable folder, a head that is missing or newly initialised, several labels and no choice, or a
            rule that cannot be used.
    """
    computing: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "layout": layout,
        "encoding": encoding,
        "token_budget": token_budget,
        "trust_remote_code": trust_remote_code,
        "quantisation": quantisation,
    }
    if ensemble is not None:
        given = {"model": model, "template": template, "label": label, "revision": revision, "endpoint": endpoint}
        _refuse("an ensemble", given, "its members say what they are")
        together = ensemble if isinstance(ensemble, Ensemble) else Ensemble.build(ensemble)
        return _load_ensemble(together, **computing)
    if implicit is not None:
        given = {"model": model, "template": template, "label": label, "revision": revision, "endpoint": endpoint}
        return _load_implicit(implicit, given, **computing)
    model, template = chosen(None if model is None else str(model), None if template is None else str(template))
    name = model or ""
    options: dict[str, Any] = {"template": template, "label": label, "revision": revision, "encoding": encoding}
    options["quantisation"] = quantisation
    if name.startswith(JUDGE):
        _refuse(name, options, "a judge asks a chat model")
        return load_judge(name, endpoint, references, yes=yes)
    asking = {"endpoint": endpoint and endpoint.url, "references": references and references.path}
    if name.startswith((RULE, CODE)):
        _refuse(name, options | asking, "a rule reads text, not ids")
        return built_in_rule(name) if name.startswith(RULE) else python_rule(name)
    _refuse(name or str(template), asking, "a judge is named judge:NAME")
    if ".py:" in name:
        remedy = f"If its code may be run: {CODE}{name}"
        raise ModelError("The model cannot be loaded", [Problem(name, "a function", "a folder or a hub id", remedy)])
    if not name and template is None:
        raise ConfigError("No scorer is named", [Problem("model", "nothing", "a model, a template, or both")])
    with _rules_meant(name):
        return _load_local(name, template, label=label, revision=revision, **computing)


def find_scorer(model: str, revision: str | None = None) -> None:
    """What `load_scorer` would find, without reading weights: a rule is made, a model is looked up.

    Raises:
        ModelError: no such rule, folder or hub id.
    """
    if model.startswith((RULE, CODE)):
        load_scorer(model)
    elif not model.startswith(JUDGE):
        with _rules_meant(model):
            located(model, revision)


@contextmanager
def _rules_meant(name: str) -> Iterator[None]:
    """A model that is not found, with the rule that may have been meant.

    Raises:
        ModelError: as it comes.
    """
    try:
        yield
    except ModelError as error:
        meant = "" if not name or Path(name).exists() else rule_meant(name.partition(":")[0])
        if not meant:
            raise
        problems = [replace(one, remedy=f"{meant} {one.remedy}".rstrip()) for one in error.problems]
        raise ModelError(error.summary, problems) from error


def load_classifier(
    model: str | Path,
    *,
    bad: str | int | None = None,
    good: str | int | None = None,
    scale: ClassScale = "probability",
    revision: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    layout: LayoutChoice = "auto",
    encoding: Encoding | None = None,
    token_budget: int | None = None,
    trust_remote_code: bool = False,
    quantisation: Quantisation | None = None,
) -> LocalScorer:
    """Any sequence classifier as a reward of the response alone: 1 - P(bad), or P(good), or the log-odds of either.

    Args:
        model: a folder or a hub id.
        bad: the label that is punished, an index or a name of the model's configuration; or else
        good: the label that is rewarded.
        scale: probability, or logit: log((1 - P) / P) of a bad one.
        revision: of a hub id.
        device: cpu, cuda, mps or auto.
        precision: dtype of the weights; auto keeps the checkpoint's.
        layout: auto shares prefixes where the backbone passes the self-test.
        encoding: overrides the folder's rules, as a whole; its form is `answer`.
        token_budget: tokens per micro-batch.
        trust_remote_code: run Python code that comes with the checkpoint.
        quantisation: weights of the backbone in fewer bits.

    Raises:
        ConfigError: no label, or both, or an encoding that reads more than the response.
        ModelError: a model that is no classifier, or a label that it has not: the message lists those it has.
    """
    label, field = (good, "good") if bad is None else (bad, "bad")
    if label is None or (bad is not None and good is not None):
        found = "neither of them" if label is None else f"{bad!r} and {good!r}"
        problem = Problem("bad, good", found, "one of them: the label that is punished, or the one that is rewarded")
        raise ConfigError("The sign of the reward is not said", [problem])
    if encoding is not None and encoding.form != ANSWER:
        problem = Problem("encoding.form", encoding.form, f"{ANSWER}: only the response is scored")
        raise ConfigError("A classifier reads the response alone", [problem])
    classes = ClassReading(field == "bad", scale)
    keep_freed_memory()
    try:
        loaded = load_reward_model(
            model,
            revision=revision,
            device=torch_device(device),
            precision=precision,
            layout=layout,
            encoding=encoding,
            label=label,
            trust_remote_code=trust_remote_code,
            quantisation=quantisation,
            classes=classes,
        )
    except ModelError as error:
        problems = [replace(one, where=field) if one.where == "label" else one for one in error.problems]
        raise ModelError(error.summary, problems) from error
    if encoding is None:
        loaded.read_by(loaded.encoding.model_copy(update={"form": ANSWER, "template": None}))
    names: Any = loaded.plain_network.config
    name = str(names.id2label.get(loaded.label, label))
    return LocalScorer(loaded, f"{classes.words(name)} of {_identity(model, loaded)}", token_budget)


def _load_local(
    name: str, template: str | None, *, device: str, token_budget: int | None, **options: Any
) -> LocalScorer:
    """A model in this process; what is not given is the template's.

    Raises:
        ModelError: as `load_scorer`.
    """
    if template is not None:
        rules = read_template(template)
        rules.check_trust(options["trust_remote_code"])
        if not name:
            name, options["revision"] = rules.model, options["revision"] or rules.revision
        options["label"] = rules.label if options["label"] is None else options["label"]
        options["encoding"] = options["encoding"] or rules.encoding
        options["precision"] = rules.precision if options["precision"] == "auto" else options["precision"]
        options["output"] = rules.output
    keep_freed_memory()
    loaded = load_reward_model(name, device=torch_device(device), **options)
    return LocalScorer(loaded, _identity(name, loaded), token_budget)


def _load_ensemble(ensemble: Ensemble, **options: Any) -> EnsembleScorer:
    """Every member with the same options; rules, which read no ids, without an encoding of their own.

    Raises:
        InputError: members that cannot be loaded.
    """
    members = [load_scorer(one.model, revision=one.revision, label=one.label, **options) for one in ensemble.members]
    return EnsembleScorer(members, ensemble)


def _load_implicit(
    implicit: Implicit | Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    device: str,
    precision: Precision,
    layout: LayoutChoice,
    token_budget: int | None,
    trust_remote_code: bool,
    **others: Any,
) -> ImplicitScorer:
    """A policy and its reference.

    Raises:
        ConfigError: options that they have not.
        ModelError: policies that cannot be loaded, or that read other tokens.
    """
    half = None if precision in ("auto", "float32") else precision
    _refuse("an implicit reward", {**given, **others, "precision": half}, "its policies say the rest, in float32")
    named = implicit if isinstance(implicit, Implicit) else Implicit.build(implicit)
    keep_freed_memory()
    return load_implicit(
        named,
        device=torch_device(device),
        layout=layout,
        token_budget=token_budget,
        trust_remote_code=trust_remote_code,
    )


def _refuse(name: str, options: Mapping[str, Any], why: str) -> None:
    """Options that this kind of scorer has not.

    Raises:
        ConfigError: some are given.
    """
    problems = [
        Problem(option, str(value)[:200], f"nothing beside {name}: {why}")
        for option, value in options.items()
        if value is not None
    ]
    if problems:
        raise ConfigError("The scorer has no such options", problems)


def _identity(path: str | Path, model: RewardModel) -> str:
    """Name of the folder or hub id, and a hash of everything that the scores depend on, an adapter's base included."""
    weights = source_digests(model.sources)
    rules = model.encoding.model_dump(mode="json")
    dtype = str(next(model.parameters()).dtype)
    content = [weights[0] if len(weights) == 1 else weights, rules, dtype, model.label, model.output]
    content += [] if model.quantisation is None else [model.quantisation]
    content += [] if model.classes is None else [asdict(model.classes)]
    key = content_id(content)
    return f"{shown_name(path)}@{key[:12]}"
