"""Effects, directions and p-values in the words of a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from numpy import format_float_positional

from rewardlab.audit.effects import PARTS, AuditedModel
from rewardlab.audit.effects_file import Attribute
from rewardlab.audit.estimates import EffectEstimate
from rewardlab.audit.summary import MINUS, number
from rewardlab.report.audit_inputs import AuditFile
from rewardlab.report.words import DASH

ESTIMATORS: Mapping[str, str] = {
    "naive": "Naive",
    "single": "Single rewrite",
    "double": "RATE",
    "corrected": "RATE, corrected",
    "per_protocol": "RATE, flips seen",
    "unflawed": "RATE, unflawed",
}
"""Estimator → what figures and tables call it, in their order; a phone has room for 17 characters."""

TARGETS: Mapping[str, str] = {
    "ATE": "All responses (ATE)",
    "ATT": "Those with it (ATT)",
    "ATU": "Those without it (ATU)",
    "balanced": "Half and half, (ATT + ATU) / 2",
    "population": "ATE of the population",
}
_SPACE = "\N{NO-BREAK SPACE}"
LONGEST_NAME = 60
_NOTHING = 1e-6
"""Size below which a reward is rounding: that of single precision, for rewards about 1."""


class EffectName(NamedTuple):
    """What the machine name of an effect says."""

    estimator: str
    target: str
    in_sd: bool


def effect_name(name: str) -> EffectName | None:
    """The parts of `double.ATE.sd` or `per_protocol.double.ATE`; None for the name of anything else."""
    parts = name.split(".")
    in_sd = parts[-1] == "sd"
    parts = parts[:-1] if in_sd else parts
    if parts[0] in PARTS:
        parts = [parts[0], *parts[2:]]
    if len(parts) != 2 or parts[0] not in ESTIMATORS or parts[1] not in TARGETS:
        return None
    return EffectName(parts[0], parts[1], in_sd)


def short(text: str, most: int = LONGEST_NAME) -> str:
    """`text` on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def side(attribute: Attribute, treated: bool) -> str:
    """The value of W and what a response with it is: `W = 1, longer`."""
    words = short(attribute.high if treated else attribute.low)
    return f"W{_SPACE}={_SPACE}{int(treated)}, {words}"


def towards(attribute: Attribute, treated: bool) -> str:
    """Where a rewrite leads: `to longer`."""
    return f"to {short(attribute.high if treated else attribute.low)}"


def overall(model: AuditedModel, group: str = "double") -> EffectEstimate:
    """The ATE of RATE in sd, or where one side is empty the effect over the other; without a value if none has one.

    Args:
        model: of the audit.
        group: `double`, or one of `PARTS` that the audit has.
    """
    prefix = "" if group == "double" else f"{group}."
    found = [model[f"{prefix}double.{target}.sd"] for target in ("ATE", "ATT", "ATU")]
    return next((one for one in found if one.value is not None), found[0])


def effect_words(one: EffectEstimate) -> str:
    """`+0.29 (0.21 to 0.37)`; a dash where there is no value."""
    if one.value is None:
        return DASH
    value = number(one.value, signed=True)
    return value if one.low is None or one.high is None else f"{value} ({number(one.low)} to {number(one.high)})"


def p_words(p: float | None) -> str:
    """`0.03`, `0.0004`, `< 0.0001`; a dash where there is none."""
    if p is None:
        return DASH
    return "< 0.0001" if p < 1e-4 else f"{p:.1g}" if p < 1e-2 else f"{p:.2f}"


def reward_words(value: float | None) -> str:
    """A reward, or a difference of rewards, to three digits: rewards come in all sizes. Below a millionth it is 0."""
    if value is None:
        return DASH
    if abs(value) < _NOTHING:
        return "0"
    text = format_float_positional(value, 3, unique=False, fractional=False, trim="-") if abs(value) < 1.0 else ""
    return (text or f"{value:.3g}").replace("-", MINUS)


def level_words(file: AuditFile) -> str:
    """Coverage of the intervals in per cent: `95`."""
    return f"{100 * float(file.options.get('level', 0.95)):g}"
