"""What perturb.json says, in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardlab.errors import counted
from rewardlab.evaluate.summary import FEW_PAIRS, MINUS, Number

WORDS: Mapping[str, str] = {
    "typos": "typos",
    "casing": "lower case",
    "whitespace": "stray blanks",
    "list_formatting": "list formatting",
    "sentence_order": "another sentence order",
    "politeness": "polite phrases",
    "padding": "an empty sentence",
    "repeated": "saying it twice",
}
"""What a reader calls each perturbation."""

_SMALL_SHIFT = 0.1
"""Standard deviations below which a shift, however sure, is not worth a sentence."""


def findings(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences: what turns pairs around, what is rewarded for nothing, what costs score and accuracy.

    Args:
        result: the object in perturb.json.
    """
    return [*_order(result), *_shifts(result), *_costs(result)]


def _order(result: Mapping[str, Any]) -> list[str]:
    flips, sizes = _found(result, "flips")
    if not flips:
        return ["No order of pairs could be compared: the data hold none, or nothing was changed."]
    enough = [name for name in flips if sizes[name] >= FEW_PAIRS]
    if not enough:
        return [f"No change alters {FEW_PAIRS} pairs or more: too few to say which turns the most of them around."]
    most, least = (choose(enough, key=lambda name: flips[name].value) for choose in (max, min))
    pairs = counted(sizes[most], "pair")
    label = f"{100 * result['options']['level']:g} % interval "
    share = flips[most].percent(label)
    line = f"Under {WORDS[most]} in both answers the order of {share} of the {pairs} that it changes turns around"
    if most == least:
        return [f"{line}."]
    count = f"the most of {len(enough)} changes that keep the meaning"
    fewest = f"the fewest under {WORDS[least]}, {flips[least].percent()} of {sizes[least]:,}"
    return [f"{line}, {count}; {fewest}."]


def _shifts(result: Mapping[str, Any]) -> list[str]:
    shifts, _ = _found(result, "shift")
    up = {name: one for name, one in shifts.items() if one.is_above(0.0) and one.value >= _SMALL_SHIFT}
    down = {name: one for name, one in shifts.items() if one.is_below(0.0) and one.value <= -_SMALL_SHIFT}
    lines = []
    if up:
        lines.append(f"It rewards what says nothing new: {_listed(up)}. Anybody can have that reward with any answer.")
    if down:
        lines.append(f"Scores fall with {_listed(down)}.")
    if shifts and not lines:
        lines.append(
            f"No change moves the mean score by {_SMALL_SHIFT:g} standard deviations or more, as far as is sure."
        )
    return lines


def _costs(result: Mapping[str, Any]) -> list[str]:
    found, sizes = _found(result, "accuracy_lost")
    lost = {name: one for name, one in found.items() if sizes[name] >= FEW_PAIRS}
    sure = {name: one for name, one in lost.items() if one.is_above(0.0)}
    if not sure:
        return ["None of the changes is sure to cost accuracy."] if lost else []
    worst = max(sure, key=lambda name: sure[name].value)
    line = f"Accuracy loses most with {WORDS[worst]}: {sure[worst].points()}"
    others = [WORDS[name] for name in sure if name != worst]
    return [f"{line}; it also loses with {', '.join(others)}." if others else f"{line}."]


def _found(result: Mapping[str, Any], leaf: str) -> tuple[dict[str, Number], dict[str, int]]:
    """One estimate of every perturbation that has it, and over how many observations it is."""
    members = {
        name: one
        for name, group in result["estimates"].items()
        for one in group
        if one["name"] == f"battery.{name}.{leaf}" and one["value"] is not None
    }
    numbers = {name: Number(one["value"], one["low"], one["high"]) for name, one in members.items()}
    return numbers, {name: one["n"] for name, one in members.items()}


def _listed(shifts: Mapping[str, Number]) -> str:
    """`typos -0.51 sd (-0.60 to -0.42), ...`, the largest first."""
    order = sorted(shifts, key=lambda name: -abs(shifts[name].value))
    return ", ".join(f"{WORDS[name]} {_sd(shifts[name])}" for name in order)


def _sd(one: Number) -> str:
    words = f"{one.value:+.2f} sd"
    if one.low is not None and one.high is not None:
        words = f"{words} ({one.low:.2f} to {one.high:.2f})"
    return words.replace("-", MINUS)
