"""`rewardlab evaluate toxicity`: measures it (`evaluate.toxicity`) and writes its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rewardlab.evaluate.toxicity import ROWS, ToxicityEvaluation, measure
from rewardlab.evaluate.toxicity_estimates import MEASURES, Values
from rewardlab.functional.toxicity import BANDS
from rewardlab.report import toxicity_figures as figures
from rewardlab.report.blocks import Figure, Section, disclosure
from rewardlab.report.examples import LARGEST_EXAMPLES_BYTES, bytes_in_page, cut, priority
from rewardlab.report.figures import write_images
from rewardlab.report.html import Html, element, json_island
from rewardlab.report.page import MeasuredPage, page
from rewardlab.report.tables import Column, ResultTable
from rewardlab.report.toxicity_figures import PROMPTS, RESPONSES, spanned
from rewardlab.store.files import write_json, write_text
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run

RESULT = "toxicity.json"
TITLES = {
    "mean": "Mean P(bad)",
    "share": "Responses above .5",
    "expected_maximum": "Expected maximum of k",
    "probability": "Prompts with one of k at or above .5",
}
BAND_TITLES = {"low": "prompts below .333", "mid": "prompts from .333 to .666", "high": "prompts above .666"}


def evaluate_toxicity(config: ToxicityEvaluation, run: Run) -> MeasuredPage:
    """Measure, then write `toxicity.json`, `toxicity.parquet`, `report.html` and its figures as SVG and PNG.

    Raises:
        RewardlabError: as `evaluate.toxicity.measure`.
    """
    found = measure(config, run)
    values = {**found.values, "findings": findings(found.values)}
    path = run.path("report.html")

    def write() -> None:
        write_json(run.path(RESULT), values)
        sections = toxicity_sections(values, found.table, config.max_examples, config.seed)
        write_images(run.path("figures"), {one.name: one.spec for section in sections for one in section.figures})
        write_text(path, page(config.title, sections))
        run.log.info("wrote %s", path)

    processes().first(write)
    return MeasuredPage(path, values)


def findings(values: Values) -> list[str]:
    """What was found, in sentences."""
    lines = [f"Measured is {values['measures']}; higher is worse."]
    for one in values["models"]:
        own = {estimate["name"]: estimate for estimate in one["estimates"]}
        lines.append(
            f"{one['name']}: P(bad) is {spanned(own['mean'])} on average over {one['responses']:,} responses to "
            f"{one['prompts']:,} prompts, and above .5 for {spanned(own['share'])}; the expected maximum of {one['k']} "
            f"is {spanned(own['expected_maximum'])}; {spanned(own['probability'])} of the prompts have one at or "
            "above .5."
        )
    return [*lines, *(_compared(one) for one in values["comparisons"]), *values["warnings"]]


def _compared(one: Values) -> str:
    who = f"{one['second']} minus {one['first']}"
    if not one["estimates"]:
        return f"{who}: they have no prompt in common."
    own = {estimate["name"]: estimate for estimate in one["estimates"]}
    parts = [f"{TITLES[name][:1].lower()}{TITLES[name][1:]} {_apart(own[name])}" for name in MEASURES]
    parts[0] = f"mean P(bad) {_apart(own['mean'])}"
    return f"{who}, on the same {one['prompts']:,} prompts (k = {one['k']}, in points): {'; '.join(parts)}."


def _apart(found: Mapping[str, Any]) -> str:
    because = f" ({found['reason']})" if found["low"] is None and found["reason"] else ""
    return f"{spanned(found, signed=True)}{because}"


def toxicity_sections(values: Values, table: pa.Table, most: int, seed: int) -> list[Section]:
    """The sections of the page.

    Args:
        values: what toxicity.json holds.
        table: a row per response.
        most: of the examples.
        seed: of those drawn at random.
    """
    lead = f"Measured is {values['measures']}, of prompts and of responses, each read alone. Higher is worse."
    blocks: list[Figure | Html] = [element("ol", [element("li", line) for line in values["findings"]])]
    sections = [
        Section("findings", "Findings", lead, blocks),
        Section("models", "The models", _INTERVALS, _pictures(values, table)),
    ]
    compared = [one for one in values["comparisons"] if one["estimates"]]
    if compared:
        sections.append(Section("compared", "On the same prompts", _PAIRED, _comparisons(compared)))
    return [
        *sections,
        Section("numbers", "All numbers", "", [disclosure("Every estimate as a table", _numbers(values))]),
        _examples(table, most, seed),
    ]


_INTERVALS = "Intervals are over prompts: the responses to one prompt count as a cluster."
_PAIRED = (
    "Differences, prompt by prompt: what makes a prompt hard for both models falls out, so intervals are narrower than "
    "those of either. Below 0 the named model is less bad than the one it is compared with."
)
_OVERALL = "Further left is better. k is the number of responses that every prompt has; the findings name it."
_DIFFERENCES = "Left of the line the named model is less bad. An interval that crosses the line tells neither way."
_SPREAD = (
    "How many texts reach a score or go beyond it: at 0 all of them, at .5 (dashed line) those that count as bad. "
    "Solid are responses, dashed are prompts. Point at a curve for its numbers."
)
_CURVE = (
    "Over all choices of k of a prompt's responses, so the curve is what fresh draws would give on average; bands are "
    "intervals. At k = 1 it is the mean, or the share of responses."
)


def _pictures(values: Values, table: pa.Table) -> list[Figure | Html]:
    models = values["models"]
    own = {one["name"]: {found["name"]: found for found in one["estimates"]} for one in models}
    overall = {TITLES[name]: [(model, found[name]) for model, found in own.items()] for name in MEASURES}
    bands = {
        f"{TITLES['mean']}, {BAND_TITLES[band]}": [(model, found[f"{band}.mean"]) for model, found in own.items()]
        for band in BANDS
    }
    bands |= {
        f"{TITLES['probability']}, {BAND_TITLES[band]}": [
            (model, found[f"{band}.probability"]) for model, found in own.items()
        ]
        for band in BANDS
    }
    rows, start = [], 0
    for one in models:
        rows += _spread(table.slice(start, one["responses"]), one["name"])
        start += one["responses"]
    told = "Four measures of every model"
    pictures = [
        Figure("overall", told, told, _OVERALL, figures.by_group(overall, "per cent"), plain=False),
        Figure("spread", *_told("How scores are spread"), _SPREAD, figures.exceedance(rows), plain=False),
        Figure(
            "bands",
            *_told("By what the prompts are like"),
            _BANDS,
            figures.by_group(_drawn(bands), "per cent"),
            plain=False,
        ),
    ]
    for name, title in (("expected_maximum", "expected maximum"), ("probability", "share of prompts with one")):
        if max(one["k"] for one in models) > 1:
            spec = figures.by_k(models, name, title)
            heading = f"{title[:1].upper()}{title[1:]} by the number of responses"
            pictures.append(
                Figure(f"k-{name.replace('_', '-')}", *_told(heading), _CURVE, spec, plain=False, half=True)
            )
    return list(pictures)


_BANDS = "Bands are by the classifier's own score of the prompt. A band without prompts is left out."


def _told(title: str) -> tuple[str, str]:
    return title, title


def _drawn(groups: Mapping[str, list[tuple[str, Values]]]) -> dict[str, list[tuple[str, Values]]]:
    """Groups in which there is something to draw."""
    return {name: own for name, own in groups.items() if any(found["value"] is not None for _, found in own)}


def _spread(own: pa.Table, name: str) -> list[dict[str, Any]]:
    """The curves of a model from its rows of the table, in which its name may stand with escapes."""
    first = np.asarray(own["sample"].to_numpy()) == 0
    return [
        *figures.exceedance_rows(name, RESPONSES, np.asarray(own["response_score"].to_numpy())),
        *figures.exceedance_rows(name, PROMPTS, np.asarray(own["prompt_score"].to_numpy())[first]),
    ]


def _comparisons(compared: Sequence[Values]) -> list[Figure | Html]:
    found = {one["second"]: {each["name"]: each for each in one["estimates"]} for one in compared}
    baseline = compared[0]["first"]
    groups = {TITLES[name]: [(model, own[name]) for model, own in found.items()] for name in MEASURES}
    for band in BANDS:
        lanes = [(model, own[f"{band}.mean"]) for model, own in found.items() if f"{band}.mean" in own]
        if lanes:
            groups[f"{TITLES['mean']}, {BAND_TITLES[band]}"] = lanes
    title = f"Every model minus {baseline}"
    spec = figures.by_group(groups, "points (difference of percentages)", signed=True)
    return [Figure("differences", title, title, _DIFFERENCES, spec, plain=False)]


def _numbers(values: Values) -> Html:
    rows = tuple(
        {
            "model": who,
            "over": BAND_TITLES.get(found["name"].split(".")[0], "all prompts"),
            "measure": TITLES.get(found["name"].split(".")[-1], "Mean P(bad) of the prompts"),
            "value": spanned(found, signed=signed),
            "n": f"{found['n']:,} {found['unit']}",
            "reason": found["reason"],
        }
        for who, estimates, signed in [
            *((one["name"], one["estimates"], False) for one in values["models"]),
            *((f"{one['second']} minus {one['first']}", one["estimates"], True) for one in values["comparisons"]),
        ]
        for found in estimates
    )
    columns = (
        Column("model", "Model"),
        Column("over", "Over"),
        Column("measure", "Measure"),
        Column("value", f"Estimate ({100 * values['level']:g} % interval)"),
        Column("n", "Based on"),
        Column("reason", "Note"),
    )
    return ResultTable("Every estimate, with the number of responses or prompts behind it", columns, rows).to_html()


def _examples(table: pa.Table, most: int, seed: int) -> Section:
    """Responses to read, folded: a click on one of them shows it."""
    total = table.num_rows
    order = priority(np.asarray(table["response_score"].to_numpy()).tolist(), most, seed)[:most]
    kept: list[tuple[int, dict[str, Any]]] = []
    room = LARGEST_EXAMPLES_BYTES
    for index, row in zip(order, table.take(pa.array(order, pa.int64())).to_pylist(), strict=True):
        shown = {**row, "prompts": cut(row["prompts"], ROWS), "responses": cut(row["responses"], ROWS)}
        room -= bytes_in_page(shown)
        if room < 0:
            break
        kept.append((index, shown))
    rows = [row for _, row in sorted(kept, key=lambda item: item[0])]
    browser = element(
        "div",
        element("noscript", "The browser of responses needs JavaScript."),
        class_="browser",
        data_rows="responses-data",
        data_kind="toxicity",
    )
    lead = (
        "These texts may be hateful, obscene or frightening. Each is folded: its scores are shown, and a click shows "
        "the text. "
    )
    lead += (
        f"All {total:,} responses are here."
        if len(rows) == total
        else (
            f"{len(rows):,} of {total:,} responses are here: those with the lowest scores, those with the highest, and "
            f"some drawn at random; {ROWS} has them all."
        )
    )
    return Section("responses", "Responses to read", lead, [browser, json_island("responses-data", {"rows": rows})])
