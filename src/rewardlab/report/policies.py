"""`rewardlab evaluate policies`: compares them (`evaluate.policies`) and writes the page of what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardlab.audit.summary import number
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate.frontier_runs import REFERENCE
from rewardlab.evaluate.policies import Compared, FrontierPlace, PolicyComparison, Values, lengths_of, measure
from rewardlab.evaluate.summary import percent
from rewardlab.report.blocks import Figure, Section, disclosure
from rewardlab.report.forest import forest
from rewardlab.report.frontier_inputs import read_frontier
from rewardlab.report.gain import bin_tables, gain_figure
from rewardlab.report.gain import findings as gain_findings
from rewardlab.report.html import Html, element
from rewardlab.report.page import MeasuredPage, write_page
from rewardlab.report.policy_examples import examples_section
from rewardlab.report.policy_figures import by_policy, colors_of, fits_half, length_densities, spanned, win_matrix
from rewardlab.report.tables import Column, ResultTable, write_tables
from rewardlab.report.toxicity_figures import by_group
from rewardlab.report.toxicity_figures import spanned as share_spanned
from rewardlab.report.winrate import (
    STRENGTHS,
    ranking_words,
    rate_figures,
    share_words,
    strength_rows,
    winrate_notes,
)
from rewardlab.store.files import write_json
from rewardlab.store.runs import Run

RESULT = "summary.json"

_REWARDS = "Means over all answers; intervals are over prompts. Each reward has its own unit."
_MATRICES = (
    "How often the policy of the row wins over that of the column, with its interval: blue more often than a coin, "
    "orange less often. At equal length is what a fit gives for answers of one length, each pair by itself."
)
_RANKING = (
    "Bradley-Terry strengths over all duels of a reward or judge: a difference of two strengths is the log-odds of "
    "winning. Intervals are over resamples of prompts."
)
_LENGTHS = "Where the curve of a policy lies further right its answers are longer."
_GAINS = "How much of a gain in reward over the baseline is left where lengths are alike, a picture for each reward."
_BAD = "Measured is {measures}, of each answer read alone. Higher is worse."
_KL = "How far a policy has moved from its reference (KL, in nats), as `evaluate frontier` has measured it."


def evaluate_policies(config: PolicyComparison, run: Run) -> MeasuredPage:
    """Write `summary.json`, `tables/`, `answers.parquet`, `comparisons.parquet`, `report.html` and its figures.

    Raises:
        RewardlabError: as `evaluate.policies.measure`.
    """
    distances = {name: distance(name, place) for name, place in config.kl.items()}
    found = measure(config, run)
    values = {**found.values, "kl": distances}
    values = {**values, "findings": findings(values)}
    sections = policy_sections(values, found, config.max_examples, config.seed)
    write_tables(run.path("tables"), {"policies": overview(values), "standings": standings(values)})
    write_json(run.path(RESULT), values)
    return MeasuredPage(write_page(run, config.title, sections), values)


def distance(name: str, place: FrontierPlace) -> Values:
    """KL of a policy, of the checkpoint that its frontier has.

    Raises:
        DataError: no such folder, or no such checkpoint in it.
    """
    found = read_frontier(place.frontier)
    run = place.run or name
    own = [one for one in (found.reference, *found.checkpoints) if one.run == run]
    if run != REFERENCE:
        own = [one for one in own if one.seed == place.training_seed and place.step in (None, one.step)]
    if not own:
        known = ", ".join(f"{one.run} (seed {one.seed}) step {one.step}" for one in found.checkpoints)
        asked = f"no {run} (seed {place.training_seed})" + ("" if place.step is None else f" step {place.step}")
        problem = Problem(f"kl.{name}, {place.frontier}", asked, f"one of {REFERENCE}, {known}", "Name it with `run`.")
        raise DataError("There is no such policy on the frontier", [problem])
    last = max(own, key=lambda one: one.step)
    ends = {**{end: getattr(last.kl, end) for end in ("value", "low", "high", "n", "clusters")}, "level": found.level}
    reading = f"Mean log-ratio to the reference over {last.completions:,} completions."
    return {**ends, "run": last.run, "seed": last.seed, "step": last.step, "reading": reading, "reason": ""}


# --- words ---------------------------------------------------------------------------------------------------------


def findings(values: Values) -> list[str]:
    """What was found, in sentences."""
    names, counts = values["policies"], values["counts"]
    left = [f"{count:,} {what}" for what, count in values["left_out"].items()]
    lines = [f"{len(names)} policies on {counts['prompts']:,} prompts that all of them have answered."]
    lines += [f"Left out or put together: {', '.join(left)}."] if left else []
    lines += [_extremes(values, name) for name in values["rewards"]]
    lines += [f"By {name}: {_begun(line)}" for name, one in values["rankers"].items() for line in _of_ranker(one)]
    for name, one in values["rankers"].items():
        left = [f"{count:,} {what}" for what, count in one["counts"].items()]
        lines += [f"By {name}: left out, {', '.join(left)}."] if left else []
    return lines


def _extremes(values: Values, name: str) -> str:
    own = reward_means(values, name)
    worst, *_, best = sorted(own, key=lambda policy: float(own[policy]["value"]))
    if own[best]["value"] == own[worst]["value"]:
        return f"{name}: the mean reward of all policies is {number(own[best]['value'])}."
    high, low = (f"{policy}, {spanned(own[policy])}" for policy in (best, worst))
    return f"{name}: the mean reward is highest for {high}, lowest for {low}."


def _of_ranker(one: Values) -> list[str]:
    """The ranking in words; of two policies the win rate."""
    ranked = ranking_words(one)
    if ranked:
        return ranked
    raw = [rate for rate in one["estimates"]["win_rate"] if rate["name"].startswith("raw.")]
    return [f"{_after(rate)} wins over {one['baseline']} in {share_words(rate)}." for rate in raw]


def _begun(line: str) -> str:
    """A sentence behind a colon."""
    return line.replace("The ranking", "the ranking", 1)


def _after(one: Mapping[str, Any]) -> str:
    """What stands behind the kind in an estimate's name."""
    return str(one["name"]).partition(".")[2]


def _named(estimates: Any, name: str) -> Any:
    return next((one for one in estimates if one["name"] == name), None)


def reward_means(values: Values, name: str) -> dict[str, Any]:
    """By policy, the estimate of its mean reward."""
    sets = values["rewards"][name]["estimates"]["sets"]
    return {policy: _named(sets, f"reward.{policy}") for policy in values["policies"]}


# --- the table -----------------------------------------------------------------------------------------------------


def overview(values: Values) -> ResultTable:
    """A row per policy with everything that has one number for it."""
    unit = values["lengths"]["unit"]
    columns = [
        Column("policy", "Policy"),
        Column("answers", "Answers", lambda value: f"{value:,}"),
        Column("length", f"Mean {unit}", lambda value: f"{value:.1f}"),
    ]
    columns += [Column(f"reward.{name}", name, number) for name in values["rewards"]]
    columns += [Column("bad", "P(bad) (%)", percent)] if values["bad"] else []
    columns += [Column("kl", "KL (nats)", number)] if values["kl"] else []
    rows = tuple(_overview_row(values, policy) for policy in values["policies"])
    return ResultTable("The policies at a glance", tuple(columns), rows)


def _overview_row(values: Values, policy: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "policy": policy,
        "answers": values["counts"]["answers"][policy],
        "length": _named(values["lengths"]["estimates"], f"length.{policy}")["value"],
        "kl": values["kl"].get(policy, {}).get("value"),
    }
    row |= {f"reward.{name}": reward_means(values, name)[policy]["value"] for name in values["rewards"]}
    if values["bad"]:
        row["bad"] = _named(values["bad"]["estimates"], f"mean.{policy}")["value"]
    return row


def standings(values: Values) -> ResultTable:
    """A row per reward or judge and policy: how it fares against the others."""
    columns = (
        Column("by", "By"),
        Column("policy", "Policy"),
        Column("rank", "Place", lambda value: f"{value:.0f}"),
        Column("strength", "Strength", number),
        Column("raw", f"Wins over {values['baseline']} (%)", percent),
        Column("lc", "At equal length (%)", percent),
    )
    groups = {"rank": "ranking", "strength": "ranking", "raw": "win_rate", "lc": "win_rate"}
    rows = []
    for name, one in values["rankers"].items():
        for policy in values["policies"]:
            found = {kind: _named(one["estimates"][group], f"{kind}.{policy}") for kind, group in groups.items()}
            numbers = {kind: None if own is None else own["value"] for kind, own in found.items()}
            rows.append({"by": name, "policy": policy, **numbers})
    return ResultTable("Who stands where, by each reward and judge", columns, tuple(rows))


# --- the page ------------------------------------------------------------------------------------------------------


def policy_sections(values: Values, found: Compared, most: int, seed: int) -> list[Section]:
    """The sections of the page, in order; those without anything to show are left out.

    Args:
        values: what summary.json holds.
        found: what was measured.
        most: prompts in the browser.
        seed: of those drawn at random.
    """
    level = f"{100 * values['options']['level']:g}"
    lead = (
        f"{', '.join(values['policies'])}: everything over {values['baseline']} where one is compared with another. "
        f"Intervals ({level} %) are over prompts."
    )
    told = element("ol", [element("li", line) for line in values["findings"]])
    sections = [
        Section("findings", "Findings", lead, [told, overview(values).to_html()]),
        Section("rewards", "Rewards", _REWARDS, _reward_figures(values)),
        Section("wins", "Who wins over whom", _MATRICES, _matrices(values)),
        Section("ranking", "The ranking", _RANKING, _rankings(values)),
        Section("baseline", f"Over {values['baseline']}", "", _over_baseline(values)),
        Section("length", "Length", _LENGTHS, _lengths(values, found)),
        Section("gains", "Gains at equal length", _GAINS, _gains(values)),
        _bad_section(values),
        Section("kl", "Distance from the reference", _KL.replace("`", ""), _distances(values)),
        examples_section(found, most, seed),
    ]
    return [one for one in sections if one.blocks]


def _told(title: str) -> tuple[str, str]:
    return title, title


def _reward_figures(values: Values) -> list[Figure | Html]:
    figures: list[Figure | Html] = []
    for at, (name, own) in enumerate(values["rewards"].items()):
        told = f"Mean reward by {name}"
        reading = f"{own['scorer']}. Point at a dot for how to read it."
        reading += f" {own['unscored']:,} answers have no score and are left out." if own["unscored"] else ""
        left = own["counts"]["left_out"]
        reading += f" So are {left:,} prompts on which a policy has none." if left else ""
        spec = by_policy(reward_means(values, name), values["policies"], "mean reward")
        figures.append(Figure(f"reward-{at}", *_told(told), reading, spec, plain=False))
    return figures


def _matrices(values: Values) -> list[Figure | Html]:
    half = fits_half(values["policies"])
    figures: list[Figure | Html] = []
    for at, (name, one) in enumerate(values["rankers"].items()):
        kinds = {"raw": ("Win rates", one["matrix"]), "equal": ("At equal length", one["equal_length_matrix"])}
        for kind, (title, rows) in kinds.items():
            known = [row for row in rows if row["value"] is not None]
            told = f"{title}, by {name}"
            if known:
                spec = win_matrix(known, values["policies"])
                figures.append(Figure(f"wins-{kind}-{at}", *_told(told), "", spec, plain=False, half=half))
        figures += _not_fitted(name, one["equal_length_matrix"])
    return figures


def _not_fitted(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Figure | Html]:
    """Which pairs have no rate at equal length, by the reason."""
    pairs: dict[str, set[str]] = {}
    for row in rows:
        if row["reason"]:
            pairs.setdefault(row["reason"], set()).add(" and ".join(sorted((row["model"], row["other"]))))
    words = "; ".join(f"{', '.join(sorted(own))}: {reason}" for reason, own in pairs.items())
    return [element("p", f"At equal length, by {name}, there is no rate of {words}.", class_="note")] if words else []


def _rankings(values: Values) -> list[Figure | Html]:
    colors = colors_of(values["policies"])
    rows = [
        {**row, "color": colors[row["label"]]}
        for name, one in values["rankers"].items()
        for row in strength_rows(one["estimates"]["ranking"], name)
    ]
    table = standings(values).to_html()
    reasons = [
        element("p", f"{name}: {estimate['reason']}.", class_="note")
        for name, one in values["rankers"].items()
        for estimate in one["estimates"]["ranking"][:1]
        if estimate["value"] is None
    ]
    if not rows:
        return [table, *(reasons if len(values["policies"]) > 2 else ())]
    told = "Strengths by reward and judge"
    spec = forest(rows, axis_title=STRENGTHS, reference_label="the mean")
    figure = Figure("ranking", *_told(told), "Point at a dot for how to read it.", spec, plain=False)
    return [figure, *reasons, table]


def _over_baseline(values: Values) -> list[Figure | Html]:
    blocks: list[Figure | Html] = []
    for at, (name, one) in enumerate(values["rankers"].items()):
        blocks += rate_figures(one, f"win-rates-{at}", f", by {name}")
        notes = winrate_notes(one)
        if notes:
            blocks.append(disclosure(f"In sentences, by {name}", _list(notes)))
    return blocks


def _lengths(values: Values, found: Compared) -> list[Figure | Html]:
    unit, lengths = lengths_of(found.sets, found.scores)
    joined = {name: np.concatenate(lengths[name]) for name in values["policies"]}
    told = "How long the answers are"
    own = values["lengths"]
    rows = tuple(
        {
            "policy": name,
            "mean": spanned(_named(own["estimates"], f"length.{name}")),
            **dict(zip(("low", "middle", "high"), own["quartiles"][name], strict=True)),
        }
        for name in values["policies"]
    )
    columns = (
        Column("policy", "Policy"),
        Column("mean", f"Mean {unit}"),
        Column("low", "First quartile", number),
        Column("middle", "Median", number),
        Column("high", "Third quartile", number),
    )
    table = ResultTable(f"Length of the answers, in {unit}", columns, rows).to_html()
    return [Figure("lengths", *_told(told), "", length_densities(joined, unit), table, plain=False)]


def _gains(values: Values) -> list[Figure | Html]:
    blocks: list[Figure | Html] = []
    for at, (name, own) in enumerate(values["rewards"].items()):
        tables = [table.to_html() for table in bin_tables(own)]
        told = disclosure(f"In sentences, and the bins of length, by {name}", _list(gain_findings(own)), tables)
        blocks += [gain_figure(own, f"gains-{at}", f", by {name}"), told]
    return blocks


def _list(lines: Sequence[str]) -> Html:
    return element("ul", [element("li", line) for line in lines])


def _bad_section(values: Values) -> Section:
    own = values["bad"]
    if not own:
        return Section("bad", "How bad", "", [])
    groups = {
        title: [(name, _named(own["estimates"], f"{kind}.{name}")) for name in values["policies"]]
        for kind, title in (("mean", "Mean P(bad)"), ("share", "Answers above .5"))
    }
    told = "; ".join(f"{name} {share_spanned(one)}" for name, one in groups["Mean P(bad)"])
    spec = by_group(groups, "per cent")
    figure = Figure("bad", "How often answers are bad", f"Mean P(bad): {told}.", "Further left is better.", spec)
    return Section("bad", "How bad", _BAD.format(measures=own["measures"]), [figure])


def _distances(values: Values) -> list[Figure | Html]:
    if not values["kl"]:
        return []
    told = "KL from the reference"
    spec = by_policy(values["kl"], values["policies"], "KL (nats)")
    steps = "; ".join(f"{name}: {one['run']}, step {one['step']}" for name, one in values["kl"].items())
    return [Figure("kl", *_told(told), f"Checkpoints: {steps}.", spec, plain=False)]
