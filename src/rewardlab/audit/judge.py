"""Whether a text has the attribute, as code or a chat model sees it, and what else code sees in a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rewardlab.audit.intake import tools_for
from rewardlab.audit.measures import measure_named
from rewardlab.audit.template import Treatment
from rewardlab.errors import ConfigError, DataError, Problem
from rewardlab.records import content_id
from rewardlab.store.files import read_jsonl, write_jsonl

OFF_TARGET = ("characters", "words", "readability", "list_lines", "sentiment")
"""What a balance table shows; sentiment where its package is installed."""
LENGTHS = ("characters", "words", "tokens")
"""Measures of an attribute of which there is more or less: the dose of a rewrite."""
JUDGED = "judged.jsonl"
"""What a chat model said of the texts of an audit, beside the rewrites: {text_id, value}."""

_RULE = ("measure", "above", "model", "against")
"""What tells the judge that a measure is from another one."""
_UNUSABLE = "a judge that cannot be used"

Numbers = Callable[[Sequence[str]], np.ndarray]


def judge_of(values: Mapping[str, Any], rewrites: Path) -> Numbers:
    """Texts → whether each has the attribute, 1 or 0, NaN where the judge does not say.

    Args:
        values: as audit.json has them: `measure`, `above` and, for some measures, `model` and `against`; or `ask`, `by`
            and `above`: what a chat model was asked, who it was, and the number that its answer has to exceed.
        rewrites: where the rewrites are, and beside them what the model said.

    Raises:
        DataError: no judge that is known, what it said cannot be read, or texts that it was not asked about.
    """
    if "ask" in values:
        nobody = [] if values.get("by") else [Problem(f"{rewrites}: judge.by", "nothing", "the model that was asked")]
        _refuse([*nobody, *_without_number(values, rewrites)])
        said = _read_judged((rewrites if rewrites.is_dir() else rewrites.parent) / JUDGED)
        return lambda texts: _exceeds(said(texts), float(values["above"]))
    rule = measured_by(values, rewrites)
    measure = measure_named(str(rule.measure), tools_for(rule))
    return lambda texts: _exceeds(np.array(measure.values(texts), dtype=np.float64), rule.threshold)


def measured_by(values: Mapping[str, Any], place: Path) -> Treatment:
    """The measure that judges, and the number that it has to exceed.

    Args:
        values: as of `judge_of`.
        place: where they are said, for messages.

    Raises:
        DataError: no known measure, no number, or a model that does not fit: every problem.
    """
    problems = _without_number(values, place)
    told = {name: values[name] for name in _RULE if values.get(name) is not None}
    if "measure" not in told:
        _refuse([Problem(f"{place}: judge.measure", "nothing", "the name of a measure"), *problems])
    try:
        # A number that is missing has been told.
        rule = Treatment.build({**told, "above": 0.0 if problems else values["above"]})
    except ConfigError as error:
        problems += [replace(one, where=f"{place}: judge.{one.where}") for one in error.problems]
        raise DataError(_UNUSABLE, problems) from error
    _refuse(problems)
    return rule


def same_rule(judge: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two judges see an attribute by the same measure and number."""
    return all(judge.get(name) == other.get(name) for name in _RULE)


def rule_words(judge: Mapping[str, Any]) -> str:
    """By what measure and number a judge sees an attribute."""
    models = " less ".join(str(judge[name]) for name in ("model", "against") if judge.get(name) is not None)
    return f"{judge['measure']} > {judge['above']:g}{models and f' by {models}'}"


def judge_words(values: Mapping[str, Any]) -> str:
    """Who judges, for a caption: what stands in audit.json, and whether W was decided by it."""
    who = str(values["by"]) if "ask" in values else f"{values['measure']} > {values['above']:g}"
    return f"{who}, which decided W too," if values.get("decided", True) else f"{who}, which did not decide W,"


def write_judged(path: Path, texts: Sequence[str], values: Sequence[float]) -> None:
    """Keep what a chat model said of texts; NaN is null."""
    rows = (
        {"text_id": content_id(text), "value": None if np.isnan(value) else value}
        for text, value in zip(texts, values, strict=True)
    )
    write_jsonl(path, rows)


def off_target_measures() -> dict[str, Numbers]:
    """Name → measure, of everything that can be measured here without a model."""
    there = [name for name in OFF_TARGET if name != "sentiment" or find_spec("vaderSentiment") is not None]
    return {name: _numbers(name) for name in there}


def _numbers(name: str) -> Numbers:
    measure = measure_named(name)
    return lambda texts: np.array(measure.values(texts), dtype=np.float64)


def _without_number(values: Mapping[str, Any], place: Path) -> list[Problem]:
    """The problem of a judge without a number that measures or answers have to exceed."""
    above = values.get("above")
    if isinstance(above, int | float) and not isinstance(above, bool) and math.isfinite(above):
        return []
    found = "nothing" if above is None else repr(above)[:120]
    return [Problem(f"{place}: judge.above", found, "the number that what it says of a text has to exceed")]


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise DataError(_UNUSABLE, problems)


def _exceeds(values: np.ndarray, above: float) -> np.ndarray:
    return np.where(np.isnan(values), np.nan, values > above)


def _read_judged(path: Path) -> Numbers:
    expected = "what `rewardlab audit rewrite` wrote beside the rewrites"
    try:
        known = {row["text_id"]: np.nan if row["value"] is None else float(row["value"]) for row in read_jsonl(path)}
    except (KeyError, TypeError, ValueError) as error:
        problem = Problem(str(path), f"{type(error).__name__}: {error}", expected)
        raise DataError("the judge's answers cannot be read", [problem]) from error

    def said(texts: Sequence[str]) -> np.ndarray:
        ids = [content_id(text) for text in texts]
        problems = [
            Problem(str(path), f"nothing about the text {text[:60]!r}", expected)
            for text, name in zip(texts, ids, strict=True)
            if name not in known
        ]
        if problems:
            raise DataError("the judge was not asked about every text", problems)
        return np.array([known[name] for name in ids], dtype=np.float64)

    return said
