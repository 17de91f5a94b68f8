"""The sections on a frontier: its pictures, a table of every policy, and what was found in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.audit.summary import number
from rewardlab.evaluate.frontier_estimates import HELD_OUT, REWARD, Values, is_reference
from rewardlab.evaluate.frontier_runs import REFERENCE
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.frontier_figures import frontier_curves, over_optimisation
from rewardlab.report.html import Html
from rewardlab.report.tables import Column, ResultTable

LONGER, ENDLESS = 0.2, 0.05
"""From what change of the mean length, as a share of it, and of the share without an end on it is a finding."""
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def reward_title(name: str) -> str:
    """What a reward is called: the one trained on, or a held-out one by its name."""
    return "reward trained on" if name == REWARD else f"{name.removeprefix(HELD_OUT)} (held out)"


def findings(values: Values) -> list[str]:
    """What was found, in sentences."""
    reference = values["reference"]
    own = "; ".join(f"{reward_title(name)} {spanned(one)}" for name, one in reference["rewards"].items())
    length = number(reference["tokens"]["value"])
    count = f"{reference['completions']:,} completions of {reference['prompts']:,} prompts"
    lines = [f"The reference: {own}; {length} tokens on average ({count})."]
    lines += [_choice(one, reference) for one in values["chosen"]]
    lines += _lengthened(values)
    lines += [line for one in values["changes"] if (line := _after(one))]
    lines += [line for name in values["scorers"] if (line := _areas(values, name))]
    lines += _reasons(values)
    return [*lines, *values["warnings"]]


def _choice(one: Values, reference: Values) -> str:
    if is_reference(one):
        return (
            f"{one['run']}, seed {one['seed']}: step {one['step']}, the best by {reward_title(one['by'])}, is the "
            "reference: every log-ratio is 0. Its rewards differ by the number of completions alone."
        )
    rewards = "; ".join(f"{reward_title(name)} {spanned(found)}" for name, found in one["rewards"].items())
    title = reward_title(one["by"])
    where = f"{one['run']}, seed {one['seed']}: step {one['step']} has the best {title}"
    none = one["rewards"][one["by"]]["value"] <= reference["rewards"][one["by"]]["value"]
    no_more = ", which is no more than the reference's" if none else ""
    return f"{where}{no_more}, at {spanned(one['kl'])} nats: {rewards}."


def _lengthened(values: Values) -> list[str]:
    """The last checkpoints that write much longer or shorter than the reference, or stop ending: what counts words, and
    what dislikes a cut, moves with that."""
    reference = values["reference"]
    last = {(one["run"], one["seed"]): one for one in values["checkpoints"]}
    before = (reference["tokens"]["value"], reference["unfinished"]["value"])
    return [
        f"{run}, seed {seed}, step {one['step']}: {one['tokens']['value']:.0f} tokens on average in place of "
        f"{before[0]:.0f}, and {one['unfinished']['value']:.1%} without an end in place of {before[1]:.1%}. "
        "Rewards that depend on length move with that."
        for (run, seed), one in last.items()
        if abs(one["tokens"]["value"] - before[0]) > LONGER * before[0]
        or one["unfinished"]["value"] - before[1] > ENDLESS
    ]


def _after(one: Values) -> str:
    """What becomes of held-out rewards after the chosen step, where they fall beyond chance."""
    fallen = [
        f"{reward_title(name)} {spanned(found, signed=True)}"
        for name, found in one["rewards"].items()
        if name != REWARD and found["high"] is not None and found["high"] < 0.0
    ]
    if not fallen:
        return ""
    trained = spanned(one["rewards"][REWARD], signed=True)
    way = f"from step {one['from']} to step {one['to']}"
    return (
        f"{one['run']}, seed {one['seed']}, {way}: {'; '.join(fallen)}; reward trained on {trained}. The first of "
        "the two was chosen for being the best, so part of the fall is chance."
    )


def _areas(values: Values, name: str) -> str:
    """The areas of all runs by one reward, and how far apart they are; empty where there are none."""
    own = [one for one in values["areas"] if one["by"] == name]
    between = f"{values['area_from']:g} to {values['area_to']:g} nats"
    title = f"Mean height of the frontier above the reference, {between}, {reward_title(name)}"
    heights = [f"{one['run']} {spanned(one)}" for one in own]
    apart = [f"{_pair(one)} {spanned(one, signed=True)}" for one in values["differences"] if one["by"] == name]
    return f"{title}: {'; '.join([*heights, *apart])}." if own else ""


def _reasons(values: Values) -> list[str]:
    """Why areas and differences have no interval, or another one: each reason once, with what it is of."""
    named = [(one, one["run"]) for one in values["areas"]] + [(one, _pair(one)) for one in values["differences"]]
    found: dict[str, dict[str, list[str]]] = {}
    for one, name in named:
        if one["reason"]:
            found.setdefault(one["reason"], {}).setdefault(one["by"], []).append(name)
    return [
        f"Heights {'; '.join(_heights(by, names) for by, names in own.items())}: {reason}."
        for reason, own in found.items()
    ]


def _heights(by: str, names: Sequence[str]) -> str:
    return f"by {reward_title(by)} of {', '.join(names)}"


def _pair(one: Values) -> str:
    return f"{one['first']} minus {one['second']}"


def frontier_sections(values: Values, *, suffix: str = "", of: str = "") -> list[Section]:
    """The pictures, and the table of every policy.

    Args:
        values: of frontier.json.
        suffix: of the names of sections and figures, where a page has several frontiers.
        of: behind the titles, which frontier it is.
    """
    figures: list[Figure | Html] = []
    for place, name in enumerate(values["scorers"]):
        title = reward_title(name)
        spec = frontier_curves(values, name, title)
        told = f"{title[0].upper()}{title[1:]} against KL from the reference"
        figures.append(Figure(f"frontier{suffix}-{place}", told, told, _CURVES, spec, plain=False))
        drawn = over_optimisation(values, name) if name != REWARD else None
        if drawn is not None:
            told = f"Over-optimisation: {title} beside the reward trained on"
            figures.append(Figure(f"over-optimisation{suffix}-{place}", told, told, _OVER, drawn, plain=False))
    scorers = ", ".join(f"{reward_title(name)}: {scorer}" for name, scorer in values["scorers"].items())
    lead = (
        f"{values['n']} completions of every prompt by every policy at temperature {values['temperature']:g}, up to "
        f"{values['max_new_tokens']} tokens. {scorers[:1].upper()}{scorers[1:]}. Intervals (95 %) are over prompts; "
        "those of areas over seeds and prompts."
    )
    tables = [_policies(values).to_html(), *_best_of(values)]
    return [
        Section(f"frontier{suffix}", f"Reward against distance{of}", lead, figures),
        Section(f"checkpoints{suffix}", f"Every policy{of}", _TABLE, tables),
    ]


_CURVES = (
    "A curve follows a training from checkpoint to checkpoint; thin lines are seeds, the thick one their mean at each "
    "step. Diamonds are the chosen checkpoints, the grey curve is best of n from the reference. Point at a dot for its "
    "intervals; choose curves by a click on the legend. Higher at the same KL is better."
)
_OVER = (
    "Solid the held-out reward, dashed the reward trained on, both above the reference's, in standard deviations of "
    "the rewards of the reference's completions. Where the dashed line rises on and the solid one turns, the policy "
    "has learnt what only the reward trained on likes."
)
_TABLE = (
    "KL is the mean log-ratio of the policy's own completions, so chance can put it below 0. Distinct n-grams are "
    "those of equally many completions."
)


def _policies(values: Values) -> ResultTable:
    names = list(values["scorers"])
    rows = tuple(_row(one, names) for one in [values["reference"], *values["checkpoints"]])
    columns = (
        Column("run", "Run"),
        Column("seed", "Seed", str),
        Column("step", "Step", str),
        Column("kl", "KL (nats)"),
        Column("error", "SE", lambda value: f"{value:.3f}"),
        *(Column(name, f"{reward_title(name)[0].upper()}{reward_title(name)[1:]}") for name in names),
        Column("tokens", "Tokens", lambda value: f"{value:.1f}"),
        Column("unfinished", "Unfinished", lambda value: f"{value:.1%}"),
        Column("distinct_1", "Distinct 1-grams", lambda value: f"{value:.3f}"),
        Column("distinct_2", "Distinct 2-grams", lambda value: f"{value:.3f}"),
    )
    return ResultTable("Every policy, with 95 % intervals", columns, rows)


def _row(one: Values, names: Sequence[str]) -> dict[str, Any]:
    return {
        **{name: one[name] for name in ("run", "distinct_1", "distinct_2")},
        **{name: None if one["run"] == REFERENCE else one[name] for name in ("seed", "step")},
        "kl": _in_cell(one["kl"]),
        "error": one["kl"]["error"],
        **{name: _in_cell(one["rewards"][name]) for name in names},
        "tokens": one["tokens"]["value"],
        "unfinished": one["unfinished"]["value"],
    }


def _best_of(values: Values) -> list[Figure | Html]:
    if not values["best_of"]:
        return []
    names = list(values["scorers"])
    rows = tuple(
        {
            "n": str(one["n"]),
            "kl": one["kl"],
            **{name: _in_cell(one["rewards"][name]) for name in names},
            "tokens": one["tokens"]["value"],
        }
        for one in values["best_of"]
    )
    columns = (
        Column("n", "Best of"),
        Column("kl", "KL (nats)", lambda value: f"{value:.3f}"),
        *(Column(name, f"{reward_title(name)[0].upper()}{reward_title(name)[1:]}") for name in names),
        Column("tokens", "Tokens", lambda value: f"{value:.1f}"),
    )
    caption = "Best of n from the reference by the reward trained on; its KL is log n − (n − 1)/n, an upper bound"
    return [ResultTable(caption, columns, rows).to_html()]


def _in_cell(found: Mapping[str, Any]) -> str:
    """An interval that stays on one line of a narrow cell, below its value."""
    value, bracket, ends = spanned(found).partition("(")
    return value + bracket + ends.replace(" ", NO_BREAK_SPACE)


def spanned(found: Mapping[str, Any], *, signed: bool = False) -> str:
    """A value with its interval in words."""
    if found["value"] is None:
        return "none"
    ends = "" if found["low"] is None else f" ({number(found['low'])} to {number(found['high'])})"
    return f"{number(found['value'], signed=signed)}{ends}"
