"""The sections on benchmarks and on the battery of perturbations."""

from __future__ import annotations

from typing import Any

from rewardlab.data.perturb import PERTURBATIONS
from rewardlab.errors import counted
from rewardlab.evaluate.battery_words import WORDS
from rewardlab.evaluate.bench_groups import SECTIONS
from rewardlab.evaluate.summary import size_words
from rewardlab.records import Estimate
from rewardlab.report import figures
from rewardlab.report.blocks import Figure, Section, disclosure, dot_rows, estimate_table, sentence, table
from rewardlab.report.forest import forest
from rewardlab.report.html import Html
from rewardlab.report.inputs import Stage
from rewardlab.report.robustness_inputs import BenchFile, PerturbFile
from rewardlab.report.style_matrix import style_matrix
from rewardlab.report.vega import BLUE, GREY, ORANGE
from rewardlab.report.words import estimate_words, name_of, plain_number, value_words

_OTHER = "In no section"
_SIDES = {"": ("both", GREY), "_chosen": ("chosen alone", BLUE), "_rejected": ("rejected alone", ORANGE)}


def bench_section(stage: Stage[BenchFile], *, suffix: str, several: bool) -> Section:
    """Accuracy by section and subset, best of K, the Ties score, style against correctness.

    Args:
        stage: what to show.
        suffix: added to the names of section and figures, so that they are unique in the page.
        several: whether other benchmarks stand beside it, so that the title names the stage.
    """
    file = stage.content
    blocks: list[Figure | Html] = [*_subsets(file, suffix), *_best_of_k(file, suffix)]
    ties = [item for item in file.estimates.get("ties", []) if item.value is not None]
    if ties:
        blocks.append(estimate_table("Prompts with many right answers (Ties)", ties))
    blocks += _styles(file, suffix)
    lead = f"Scores by the published formulas of benchmarks on the set {file.split} ({size_words(file.counts)})."
    if file.absent_subsets:
        lack = counted(len(file.absent_subsets), "subset")
        lead = f"{lead} The data lack {lack} of the sections, so these are not the published scores."
    if file.counts["pairs"] or file.counts["styled"]:
        words = "one half" if file.options.get("ties") == "half" else "nothing"
        lead = f"{lead} Two answers with the same score count {words}."
    of = f" \N{MIDDLE DOT} {stage.label}" if several else ""
    return Section(f"bench{suffix}", f"Benchmarks{of}", lead, blocks)


def perturb_section(stage: Stage[PerturbFile], *, suffix: str, several: bool) -> Section:
    """What each perturbation turns around, how far it moves scores, and pairs to read.

    Args:
        stage: what to show.
        suffix: added to the names of section and figures, so that they are unique in the page.
        several: whether other batteries stand beside it, so that the title names the stage.
    """
    file = stage.content
    blocks: list[Figure | Html] = [*_flips(file, suffix), *_shifts(file, suffix)]
    tables = [estimate_table(WORDS[name].capitalize(), file.estimates[name]) for name in PERTURBATIONS]
    blocks += [disclosure("All measures of every change", *tables), *_turned(file)]
    lead = (
        "Every answer was scored again after small changes that keep what it says. A robust model orders pairs as "
        f"before and gives the same scores ({size_words(file.counts)})."
    )
    of = f" \N{MIDDLE DOT} {stage.label}" if several else ""
    return Section(f"perturb{suffix}", f"Small changes{of}", lead, blocks)


def _subsets(file: BenchFile, suffix: str) -> list[Figure]:
    pairs = {item.name: item for item in file.estimates.get("pairs", []) if item.value is not None}
    if not pairs:
        return []
    sections = [item for item in file.estimates.get("sections", []) if item.value is not None]
    rows = [_lane("All pairs", pairs["accuracy"], BLUE)]
    rows += [_lane("Sections", item, ORANGE, name_of(item).removeprefix("Section ")) for item in sections]
    where = {subset: section for section, subsets in SECTIONS.items() for subset in subsets} if sections else {}
    subsets = {name.removeprefix("subset."): one for name, one in pairs.items() if name.startswith("subset.")}
    groups = [*SECTIONS, _OTHER] if where else [_OTHER]
    for group in groups:
        title = "Subsets" if not where else group
        rows += [_lane(title, subsets[name], BLUE, name) for name in subsets if where.get(name, _OTHER) == group]
    reading = (
        "Bars are intervals, the dashed line is a coin flip; small subsets have wide intervals. A section counts its "
        "subsets by their sizes, their mean counts every section alike."
    )
    if file.absent_subsets:
        reading = f"{reading} {counted(len(file.absent_subsets), 'subset')} of the sections are not in the data."
    spec = forest(rows, axis_title="accuracy (%)", reference=50.0, reference_label="coin flip")
    shown = [*pairs.values(), *sections]
    numbers = estimate_table("Accuracy by subset and section", shown)
    finding = sentence([pairs["accuracy"], *sections])
    return [Figure(f"bench-subsets{suffix}", "Accuracy by subset", finding, reading, spec, numbers, plain=False)]


def _best_of_k(file: BenchFile, suffix: str) -> list[Figure]:
    found = [item for item in file.estimates.get("best_of_k", []) if item.value is not None]
    ties = file.estimate("ties.overall")
    if not found:
        return []
    chance = file.estimate("best_of_k.chance")
    shown = [item for item in found if item is not chance]
    shown += [ties] if ties is not None and ties.value is not None else []
    spec = figures.dots_with_intervals(
        dot_rows(shown, ["ties.overall"]),
        axis_title="prompts with a right answer on top (%)",
        reference=None if chance is None else chance.value,
        reference_label="drawing lots",
    )
    reading = "A prompt counts where its highest-scoring answer is right; answers of equal score share."
    if len(shown) > 1 and shown[-1] is ties:
        reading = f"{reading} Orange is the Ties score, a formula of its own: see the table below."
    numbers = estimate_table("Best of K", found)
    return [Figure(f"bench-best{suffix}", "Best of K", sentence(shown), reading, spec, numbers, plain=False)]


def _styles(file: BenchFile, suffix: str) -> list[Figure | Html]:
    rows = [cell.model_dump() for cell in file.curves.style_matrix]
    if not rows:
        return []
    styles = list(dict.fromkeys(str(row["right"]) for row in rows))
    group = [item for item in file.estimates.get("styles", []) if item.value is not None]
    main = [item for item in group if item.name in ("style.easy", "style.normal", "style.hard", "style.gap")]
    reading = (
        "How often the right answer in the style of the row scores above the wrong answer in the style of the column. "
        "Below the diagonal style helps (easy), above it style is against it (hard). A model that looks only at what "
        "is right has the same colour everywhere; one that looks only at style is blue below and orange above."
    )
    numbers = estimate_table("Style against correctness", group)
    title = "Style against correctness"
    return [Figure(f"bench-style{suffix}", title, sentence(main), reading, style_matrix(rows, styles), numbers)]


def _flips(file: PerturbFile, suffix: str) -> list[Figure]:
    rows = [
        _lane(WORDS[name].capitalize(), one, color, words)
        for name in PERTURBATIONS
        for side, (words, color) in _SIDES.items()
        if (one := file.estimate(f"battery.{name}.flips{side}")) is not None and one.value is not None
    ]
    if not rows:
        return []
    found = [file.estimate(f"battery.{name}.flips") for name in PERTURBATIONS]
    reading = (
        "The share of pairs whose order the change turns around: 0 for a robust model, 50 % for one that draws lots "
        "anew. Both answers change alike (grey), or one of them alone (blue the chosen, orange the rejected one)."
    )
    spec = forest(rows, axis_title="pairs whose order turns around (%)", reference=0.0)
    finding = sentence([one for one in found if one is not None])
    return [Figure(f"perturb-flips{suffix}", "Pairs turned around", finding, reading, spec, plain=False)]


def _shifts(file: PerturbFile, suffix: str) -> list[Figure]:
    found = {name: file.estimate(f"battery.{name}.shift") for name in PERTURBATIONS}
    known = {name: one for name, one in found.items() if one is not None and one.value is not None}
    rows = [_lane("All answers", one, BLUE, WORDS[name], factor=1.0) for name, one in known.items()]
    if not rows:
        return []
    reading = (
        "By how much the change moves the mean score, in standard deviations of the scores before it. Right of the "
        "dashed line the change is rewarded although it says nothing new: a policy trained on this would learn it."
    )
    spec = forest(rows, axis_title="mean shift of the score (standard deviations)", reference=0.0)
    finding = sentence(list(known.values()))
    return [Figure(f"perturb-shifts{suffix}", "Scores moved", finding, reading, spec, plain=False)]


def _turned(file: PerturbFile) -> list[Html]:
    header = ("Change", "Prompt", "Chosen, changed", "Rejected, changed", "Margin: before, after")
    rows: list[list[Any]] = [
        [
            WORDS[name],
            one.prompt,
            one.chosen_after,
            one.rejected_after,
            f"{plain_number(one.margin, 2)}, {plain_number(one.margin_after, 2)}",
        ]
        for name in PERTURBATIONS
        for one in file.examples.get(name, [])
    ]
    if not rows:
        return []
    title = "Pairs that were turned around furthest, both answers changed"
    return [disclosure(title, table(title, header, rows, numeric=(4,)))]


def _lane(group: str, one: Estimate, color: str, label: str = "", *, factor: float = 100.0) -> dict[str, Any]:
    """A row of `forest`."""
    value, low, high = (None if end is None else factor * end for end in (one.value, one.low, one.high))
    return {
        "group": group,
        "label": label or name_of(one),
        "value": value,
        "low": low,
        "high": high,
        "text": estimate_words(one),
        "short": value_words(one),
        "color": color,
        "hint": one.reading,
    }
