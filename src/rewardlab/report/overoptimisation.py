"""`rewardlab evaluate overoptimisation`: frontiers of rewards that were trained on more or less data, on one page.

A proxy is pushed up by a policy or by best of n. Does the gold reward follow, and how much further with more data?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rewardlab.config import Config, Paths
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.frontier import LEVEL, RESULT
from rewardlab.evaluate.frontier_estimates import REWARD, Values, over_seeds
from rewardlab.evaluate.frontier_runs import BEST_OF
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.figures import write_images
from rewardlab.report.frontier_figures import by_data, standard_rows
from rewardlab.report.frontier_sections import reward_title, spanned
from rewardlab.report.html import element
from rewardlab.report.page import WrittenReport, page
from rewardlab.report.tables import Column, ResultTable
from rewardlab.store.files import read_json, write_json, write_text
from rewardlab.store.runs import Run

FILE = "overoptimisation.json"


class OverOptimisation(Config):
    """Which frontiers are drawn together."""

    frontiers: dict[str, Paths] = Field(min_length=1)
    """By what their proxies learnt from, the least first (`100 pairs`): a folder of `evaluate frontier`, or several of
    the same rewards and reference, of which the first one says where rewards begin. The first held-out reward of each
    is the gold one; runs of one name are one method."""

    title: str = "Over-optimisation: proxy and gold reward"
    """Heading of the page."""


def compare_frontiers(config: OverOptimisation, run: Run) -> WrittenReport:
    """Write `overoptimisation.json`, `report.html` and its figures as SVG and PNG.

    Raises:
        DataError: folders that are no frontiers with a held-out reward, or without a common method: all of them.
        RunError: the disk is full.
    """
    found = _read(config.frontiers)
    rows = [{**row, "data": data} for data, values in found for row in _standard(values)]
    methods = list(dict.fromkeys(row["curve"] for row in rows))
    ends = [one for data, values in found for one in _ends(data, values)]
    together = _together(ends)
    findings = tuple(_finding(one) for one in together)
    figures = [_panel(rows, name, place) for place, name in enumerate(methods)]
    sections = [
        Section("findings", "Findings", _LEAD, [element("ol", [element("li", line) for line in findings])]),
        Section("panels", "Proxy and gold reward against distance", _READING, figures),
        Section("ends", "Where the gold reward is best, and where the training ends", "", [_table(together).to_html()]),
    ]
    write_json(run.path(FILE), {"ends": ends, "methods": together, "findings": list(findings)})
    write_images(run.path("figures"), {one.name: one.spec for one in figures})
    path = run.path("report.html")
    write_text(path, page(config.title, sections))
    run.log.info("wrote %s", path)
    return WrittenReport(path, findings)


_LEAD = (
    "Rewards are above the reference's, in standard deviations of the rewards of its completions. Intervals (95 %) are "
    "over prompts, and over seeds where a method has several; the best step of a training was chosen for being the "
    "best, so part of a fall is chance."
)
_READING = (
    "Dashed the reward trained on (the proxy), solid the gold one; the darker, the more data the proxy learnt from. "
    "Axes are alike in all panels. Point at a dot for its values; choose a size by a click on the legend."
)


def _read(sizes: Mapping[str, Sequence[Path]]) -> list[tuple[str, Values]]:
    """What the frontiers hold, with what their proxies learnt from; of several of one size, all in units of the first.

    Raises:
        DataError: all problems.
    """
    problems, found = [], []
    for data, folders in sizes.items():
        first: Values | None = None
        for folder in folders:
            values = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
            where = f"frontiers.{data}: {folder}"
            if not isinstance(values, dict) or "from_reference" not in values:
                problems.append(Problem(where, f"no {RESULT} of this version", "a folder of evaluate frontier"))
            elif not values["chosen"] or _gold(values) == REWARD:
                problems.append(Problem(where, "no held-out reward", "one, the gold reward", "Give held_out to it."))
            elif any(values["sd"][name] is None for name in (REWARD, _gold(values))):
                problems.append(Problem(where, "a reward without any spread", "rewards of the reference that differ"))
            elif first is not None and _measured_by(values) != _measured_by(first):
                problems.append(Problem(where, "other rewards, or another reference", f"those of {folders[0]}"))
            else:
                first = first or values
                found.append((data, {**values, "reference": first["reference"], "sd": first["sd"]}))
    if problems:
        raise DataError("These cannot be drawn together", problems)
    return found


def _measured_by(values: Values) -> tuple[Any, ...]:
    """What frontiers of one size have alike."""
    return values["scorers"], values["reference"]["policy"], _gold(values)


def _gold(values: Values) -> str:
    """The reward that checkpoints were chosen by: the first held-out one."""
    return str(values["chosen"][0]["by"])


def _standard(values: Values) -> list[dict[str, Any]]:
    return standard_rows(values, _gold(values)) or []


def _ends(data: str, values: Values) -> list[Values]:
    """Of every training where the gold reward is best and where it ends; of best of n its largest n."""
    gold = _gold(values)
    own = {name: values["reference"]["rewards"][name]["value"] for name in (REWARD, gold)}
    changes = {(one["run"], one["seed"]): one["rewards"][gold] for one in values["changes"]}

    def above(one: Values, name: str) -> Values:
        return _scaled(one["rewards"][name], own[name], values["sd"][name])

    found = []
    for best in values["chosen"]:
        key = (best["run"], best["seed"])
        last = [one for one in values["checkpoints"] if (one["run"], one["seed"]) == key][-1]
        change = changes.get(key)
        found.append(
            {
                "data": data,
                "method": best["run"],
                "seed": best["seed"],
                "best_step": best["step"],
                "best_kl": best["kl"]["value"],
                "best_gold": above(best, gold),
                "step": last["step"],
                "kl": last["kl"]["value"],
                "proxy": above(last, REWARD),
                "gold": above(last, gold),
                "change": None if change is None else _scaled(change, 0.0, values["sd"][gold]),
                "held_out": {reward_title(name): last["rewards"][name] for name in last["rewards"] if name != REWARD},
            }
        )
    for one in values["best_of"][-1:]:
        proxy, own_gold = above(one, REWARD), above(one, gold)
        same = {"best_step": one["n"], "best_kl": one["kl"], "best_gold": own_gold, "step": one["n"], "kl": one["kl"]}
        rest = {"proxy": proxy, "gold": own_gold, "change": None, "held_out": {}}
        found.append({"data": data, "method": BEST_OF, "seed": None, **same, **rest})
    return found


def _scaled(found: Values, zero: float, sd: float) -> Values:
    """An estimate above `zero`, in standard deviations."""
    ends = {end: None if found[end] is None else (found[end] - zero) / sd for end in ("value", "low", "high")}
    error = found.get("error")
    known: Values = {name: found[name] for name in ("n", "clusters", "reason") if name in found}
    return {**ends, "error": None if error is None else error / sd, **known}


def _together(ends: Sequence[Values]) -> list[Values]:
    """A row per size and method: of several seeds their mean, with what every one is at its own best and end."""
    groups: dict[tuple[str, str], list[Values]] = {}
    for one in ends:
        groups.setdefault((one["data"], one["method"]), []).append(one)
    return [{**_mean(own), "seeds": len(own)} for own in groups.values()]


def _mean(own: Sequence[Values]) -> Values:
    if len(own) == 1:
        return own[0]
    still = _scaled({"value": 0.0, "low": 0.0, "high": 0.0}, 0.0, 1.0)
    changes = [one["change"] or still for one in own]
    return {
        **{name: own[0][name] for name in ("data", "method")},
        **{name: _range([one[name] for one in own]) for name in ("seed", "step", "best_step")},
        **{name: sum(one[name] for one in own) / len(own) for name in ("kl", "best_kl")},
        **{name: over_seeds([one[name] for one in own], LEVEL) for name in ("proxy", "gold", "best_gold")},
        "change": over_seeds(changes, LEVEL) if any(one["change"] for one in own) else None,
    }


def _range(values: Sequence[int]) -> str:
    """`3`, or `3 to 5`."""
    return " to ".join(str(one) for one in sorted({min(values), max(values)}))


def _finding(one: Values) -> str:
    end = f"proxy {spanned(one['proxy'], signed=True)}, gold {spanned(one['gold'], signed=True)} sd"
    if one["method"] == BEST_OF:
        return f"Best of {one['step']}, {one['data']} ({one['kl']:.1f} nats): {end}."
    where = f"{one['method']}, {one['data']}, {'seed' if one['seeds'] == 1 else 'seeds'} {one['seed']}"
    fall = "the best by gold as well"
    if one["change"] is not None:
        best = "step" if one["seeds"] == 1 else "the best, step"
        fall = f"{spanned(one['change'], signed=True)} in gold since {best} {one['best_step']}"
    return f"{where}: at the end, step {one['step']} ({one['kl']:.1f} nats), {end}; {fall}."


def _panel(rows: Sequence[Mapping[str, Any]], method: str, place: int) -> Figure:
    title = f"{method[:1].upper()}{method[1:]}"
    told = f"{title}: proxy and gold reward against the square root of KL"
    return Figure(f"panel-{place}", title, told, "", by_data(rows, method), plain=False, half=True)


def _table(ends: Sequence[Values]) -> ResultTable:
    def words(found: Values | None) -> str:
        return "none" if found is None else spanned(found, signed=True)

    rows = tuple(
        {
            **{name: one[name] for name in ("data", "method", "best_kl", "kl")},
            "seed": "" if one["seed"] is None else str(one["seed"]),
            "best_step": str(one["best_step"]),
            "step": str(one["step"]),
            **{name: words(one[name]) for name in ("best_gold", "proxy", "gold", "change")},
        }
        for one in ends
    )
    columns = (
        Column("data", "Data"),
        Column("method", "Method"),
        Column("seed", "Seed"),
        Column("best_step", "Best step, or n"),
        Column("best_kl", "KL (nats)", lambda value: f"{value:.2f}"),
        Column("best_gold", "Gold there (sd)"),
        Column("step", "Last step, or n"),
        Column("kl", "KL (nats)", lambda value: f"{value:.2f}"),
        Column("proxy", "Proxy there (sd)"),
        Column("gold", "Gold there (sd)"),
        Column("change", "Change in gold (sd)"),
    )
    return ResultTable("By what the proxy learnt from, with 95 % intervals", columns, rows)
