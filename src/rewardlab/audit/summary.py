"""What effects.json says, in sentences that need no statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardlab.records import Estimate

MINUS = "\N{MINUS SIGN}"


def number(value: float, *, signed: bool = False) -> str:
    """`0.29`, `−0.01`: two digits behind the point, with a true minus sign; what rounds to 0 has none."""
    return format(value, "+z.2f" if signed else "z.2f").replace("-", MINUS)


def findings(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences, a few per reward model, of which the first one names it.

    Args:
        result: the object in effects.json.
    """
    lines = []
    for scorer, (first, *rest) in findings_by_model(result):
        lines += [f"{scorer}: {first}" if scorer else first, *rest]
    return lines


def findings_by_model(result: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(Reward model, its sentences) in order; at the end what concerns all of them, without a name, if anything does.

    Args:
        result: the object in effects.json.
    """
    groups = []
    for model in result["models"]:
        found = _estimates(model)
        more = [line for line in (_naive(found), _drift(model, found), _unscored(model), _failed(model)) if line]
        groups.append((str(model["scorer"]), [_effect(result["attribute"], found), *more]))
    rewrites = _rewrites(result)
    return [*groups, *([("", rewrites)] if rewrites else [])]


def _estimates(model: Mapping[str, Any]) -> dict[str, Estimate]:
    members = (Estimate.from_dict(one) for group in model["estimates"].values() for one in group)
    return {one.name: one for one in members}


def _effect(attribute: Mapping[str, Any], found: Mapping[str, Estimate]) -> str:
    high, low = attribute["high"], attribute["low"]
    one = next((found[name] for name in ("double.ATE.sd", "double.ATT.sd", "double.ATU.sd")
                if name in found and found[name].value is not None), None)  # fmt: skip
    if one is None or one.value is None:
        return f"the effect of “{high}” rather than “{low}” cannot be estimated ({found['double.ATE.sd'].reason})."
    # Of responses of one side alone only the effect on them is known.
    among = {"double.ATE.sd": "", "double.ATT.sd": f", for responses that are “{high}”"}.get(
        one.name, f", for responses that are “{low}”"
    )
    size = f"{number(abs(one.value))} standard deviations{_ends(one)}"
    if one.low is None or one.high is None:
        return (
            f"“{high}” rather than “{low}” changes the reward by {number(one.value, signed=True)} standard "
            f"deviations{among}; {one.reason or 'there is no interval'}."
        )
    if one.low <= 0.0 <= one.high:
        return (
            f"no causal effect of “{high}” rather than “{low}” can be told from 0 "
            f"({number(one.value, signed=True)} standard deviations{_ends(one)}){among}."
        )
    verb = "raises" if one.value > 0.0 else "lowers"
    return f"“{high}” rather than “{low}” {verb} the reward by {size}{among}."


def _ends(one: Estimate) -> str:
    if one.low is None or one.high is None:
        return ""
    return f" ({100 * one.level:g} % interval {number(one.low)} to {number(one.high)})"


def _naive(found: Mapping[str, Estimate]) -> str:
    naive, causal = found["naive.ATE.sd"], found["double.ATE.sd"]
    if naive.value is None or causal.value is None or causal.low is None or causal.high is None:
        return ""
    words = (
        f"Merely comparing the responses that have it with those that do not says {number(naive.value, signed=True)}"
    )
    if causal.low <= naive.value <= causal.high:
        return f"{words}, which is within the interval."
    return f"{words}: the rest is what comes along with the attribute in these data, not what it causes."


def _drift(model: Mapping[str, Any], found: Mapping[str, Estimate]) -> str:
    tip = model["tipping"].get("double.ATE.sd")
    sizes = [abs(one.value) for side in ("treated", "untreated")
             if (one := found.get(f"rewrite_effect.{side}.sd")) is not None and one.value is not None]  # fmt: skip
    if not tip or not sizes:
        return ""
    return (
        f"Two rewrites alone change rewards by up to {number(max(sizes))} sd; the finding would be overturned if the "
        f"side effects of the two directions differed by {number(tip)} sd."
    )


def _unscored(model: Mapping[str, Any]) -> str:
    count = model["counts"].get("unscored", 0)
    return f"{count} texts have no score; their responses are left out." if count else ""


def _failed(model: Mapping[str, Any]) -> str:
    failed = [one["title"] for one in model["refutations"] if one["verdict"] == "failed"]
    return f"Doubt it: {'; '.join(failed)} did not come out as expected." if failed else ""


def _rewrites(result: Mapping[str, Any]) -> list[str]:
    lines = []
    lost = sum(
        one["count"] for one in result["outcomes"] if one["outcome"] in ("empty", "refused", "truncated", "failed")
    )
    total = sum(one["count"] for one in result["outcomes"])
    if lost:
        lines.append(f"{lost} of {total} rewrites gave no text that can be used; their responses are left out.")
    rates = [one["success"] for one in (result["flips"] or {}).get("rates", [])]
    if rates and min(rates) < 0.8:
        lines.append(
            f"Only {100 * min(rates):.0f} % of the rewrites in one direction did what was asked: effects per protocol "
            "stand in the report."
        )
    return lines
