"""The sections on a map of training data: the map, length along confidence, counts, and the pairs themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardlab.errors import counted
from rewardlab.evaluate.cartography_map import REGIONS
from rewardlab.records import Estimate
from rewardlab.report import cartography_figures as figures
from rewardlab.report.blocks import Figure, Section, estimate_table, sentence, table
from rewardlab.report.cartography_inputs import NUMBERS, CartographyFile, DataMap, MapTable
from rewardlab.report.examples import Limits, bytes_in_page, cut, excerpt, priority
from rewardlab.report.html import Html, element, json_island
from rewardlab.report.inputs import Stage
from rewardlab.report.words import DASH, plain_number, scalar_words

MOST_MAP_POINTS = 2_000
_FILE = "cartography.parquet"
_CONVENTIONS: Mapping[str, tuple[str, str, str, str, float]] = {
    "margin": ("", "confidence: mean margin (reward units)", "variability: sd of the margin", "in reward units", 0.0),
    "classic": (
        "_classic",
        "confidence: mean chance of the label",
        "variability: sd of the chance",
        "in chances",
        0.5,
    ),
}
"""Convention → suffix of its columns, titles of both axes, name, and the confidence of a coin."""
_COUNTS = {
    "trainings": "Trainings",
    "epochs": "Epochs, at most",
    "pairs": "Pairs trained on",
    "always_right": "right in every epoch",
    "never_learnt": "right in none",
    "forgotten": "forgotten at least once",
    "longer_chosen": "longer side chosen",
    "shorter_chosen": "shorter side chosen",
    "equally_long": "equally long",
    "easy": "easy: highest confidence",
    "ambiguous": "ambiguous: highest variability",
    "hard": "hard: lowest confidence",
    "cut": "within the confidence cut",
    "without_variability": "without a variability",
    "without_confidence": "without a confidence",
    "untrained_pairs": "Pairs of the data that were not trained on",
    "unknown_pairs": "Pairs trained on that the data do not hold",
}


def cartography_sections(
    stage: Stage[DataMap], *, suffix: str, several: bool, limits: Limits, seed: int
) -> list[Section]:
    """The map of one training or several, and its pairs."""
    file, pairs = stage.content.file, stage.content.table
    of = f" of {stage.label}" if several else ""
    lead = (
        "Where every pair of the training data lies for the model that learns from it: confidence is how clearly it "
        "gets the label, variability how much that moves from epoch to epoch. Low confidence collects wrong labels "
        "and hard cases alike: read the pairs before leaving them out. "
        f"{_trainings_words(file)}"
    )
    blocks: list[Figure | Html] = [*_maps(file, pairs, suffix, seed), *_length(file, suffix)]
    rows = [(title, plain_number(file.counts[name])) for name, title in _COUNTS.items() if name in file.counts]
    blocks.append(table("Pairs of the map", ("What", "How many"), rows, numeric=(1,)))
    return [
        Section(f"map{suffix}", f"Map of the training data{of}", lead, blocks),
        _browser(pairs, suffix, of, limits, seed),
    ]


def _trainings_words(file: CartographyFile) -> str:
    if len(file.runs) == 1:
        return "The rewards are those of the training passes themselves."
    return f"Means over {len(file.runs)} trainings; the rewards are those of the training passes themselves."


def _maps(file: CartographyFile, pairs: MapTable, suffix: str, seed: int) -> list[Figure | Html]:
    total = len(pairs.confidence)
    drawn: Sequence[int] = range(total)
    if total > MOST_MAP_POINTS:
        drawn = sorted(np.random.default_rng(seed).choice(total, size=MOST_MAP_POINTS, replace=False).tolist())
    rows = pairs.rows(drawn)
    words = "every pair" if len(drawn) == total else f"{len(drawn):,} of {total:,} pairs, drawn at random"
    blocks: list[Figure | Html] = []
    for name, (columns, y_title, x_title, title, reference) in _CONVENTIONS.items():
        points = [_point(row, columns) for row in rows]
        points = [point for point in points if point["confidence"] is not None and point["variability"] is not None]
        if not points:
            reason = file.reasons.get("variability", "no pair has both measures")
            blocks.append(element("p", f"No map {title}: {reason}.", class_="note half"))
            continue
        reading = (
            f"A dot is a pair ({words}); point at it for its texts. Below the dashed line the label loses on average. "
            + (
                "Over the epochs after the first."
                if name == "margin"
                else "Over all epochs; a model that is sure of everything leaves only the edge."
            )
        )
        finding = (
            f"{file.counts['always_right']:,} of {file.counts['pairs']:,} pairs were right in every epoch, "
            f"{file.counts['never_learnt']:,} in none."
        )
        spec = figures.data_map(
            points, x_title=x_title, y_title=y_title, reference=reference, several=len(file.runs) > 1
        )
        # The same sentence under both would be read twice.
        plain = name == "margin"
        blocks.append(
            Figure(f"map-{name}{suffix}", f"The map, {title}", finding, reading, spec, plain=plain, half=True)
        )
    return blocks


def _point(row: Mapping[str, Any], columns: str) -> dict[str, Any]:
    point = {
        "confidence": _rounded(row[f"confidence{columns}"]),
        "variability": _rounded(row[f"variability{columns}"]),
        "correctness": _rounded(row["correctness"]),
        "forgetting": _rounded(row["forgetting"]),
    }
    return point | {name: excerpt(row[name] or "(not in the data given)") for name in ("prompt", "chosen", "rejected")}


def _length(file: CartographyFile, suffix: str) -> list[Figure | Html]:
    name = "confidence" if file.options.convention == "margin" else "confidence_classic"
    bins = [row.model_dump() for row in file.curves.get(name, [])]
    names = ("longer_is_chosen", *(f"{region}.longer_is_chosen" for region in REGIONS))
    shares = [item for item in (file.estimate(f"cartography.{one}") for one in names) if item is not None]
    blocks: list[Figure | Html] = []
    if any(row["longer_is_chosen"] is not None for row in bins):
        reading = (
            f"A dot is a tenth of the pairs, by confidence; its bar is the interval. Length is in {file.options.unit}; "
            "equally long pairs are left out. A line that climbs means that what the model finds easy is what length "
            "points to; a level one, that length plays no part in what is easy."
        )
        along = file.estimate("cartography.length_pearson")
        headers = {
            "low": "From",
            "high": "To",
            "n": "Pairs",
            "longer_is_chosen": "Longer chosen (%)",
            "longer_is_chosen_low": "Interval from",
            "longer_is_chosen_high": "Interval to",
            "correctness": "Right (%)",
        }
        cells = [[_cell(key, row[key]) for key in headers] for row in bins]
        numbers = table(
            "Longer is chosen, by confidence", list(headers.values()), cells, numeric=range(1, len(headers))
        )
        spec = figures.length_along_confidence(bins, x_title=_CONVENTIONS[file.options.convention][1])
        title = "Is the longer answer chosen? Along confidence"
        found: list[Estimate] = [along] if along is not None else []
        blocks.append(Figure(f"map-length{suffix}", title, sentence(found), reading, spec, numbers))
    rest = [item for item in file.estimates if item not in shares]
    return [*blocks, estimate_table("Length, and agreement of trainings", [*shares, *rest])]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return DASH
    shares = name.startswith("longer_is_chosen") or name == "correctness"
    return plain_number(100.0 * value, 1) if shares else scalar_words(value)


def _browser(pairs: MapTable, suffix: str, of: str, limits: Limits, seed: int) -> Section:
    total = len(pairs.confidence)
    order = priority(pairs.confidence, limits.pairs, seed)
    kept: list[tuple[int, dict[str, Any]]] = []
    room = limits.bytes
    for index, row in zip(order, pairs.rows(order), strict=True):
        shown = _embedded(row)
        room -= bytes_in_page(shown)
        if room < 0:
            break
        kept.append((index, shown))
    rows = [row for _, row in sorted(kept, key=lambda item: item[0])]
    name = f"map-pairs{suffix}"
    browser = element(
        "div",
        element("noscript", "The browser of pairs needs JavaScript."),
        class_="browser",
        data_rows=f"{name}-data",
        data_kind="map",
    )
    lead = f"All {total:,} pairs are here."
    if len(rows) < total:
        lead = (
            f"{len(rows):,} of {total:,} pairs are here: those of lowest confidence, those of highest, and the rest "
            f"drawn at random; {_FILE} has them all."
        )
    return Section(name, f"Pairs of the map{of}", lead, [browser, json_island(f"{name}-data", {"rows": rows})])


def _embedded(row: Mapping[str, Any]) -> dict[str, Any]:
    is_known = row["prompt"] is not None
    return {
        "id": row["pair_id"],
        "source": row["source"],
        "excerpt": excerpt(row["prompt"]) if is_known else "(not in the data given)",
        "prompt": cut(row["prompt"], _FILE) if is_known else "",
        **{
            side: {"text": cut(row[side], _FILE) if is_known else "", "length": row[f"{side}_length"]}
            for side in ("chosen", "rejected")
        },
        **{name: _rounded(row[name]) for name in NUMBERS},
        "never": row["never_learnt"],
        "forgotten": forgotten_words(row["forgetting"], row["epochs"], row["runs"]),
        "regions": [region for region in REGIONS if row[region]],
    }


def forgotten_words(times: float | None, epochs: int, trainings: int) -> str:
    """How often a pair was right and then wrong; of several trainings the mean, as the table has it.

    Args:
        times: mean number over the trainings.
        epochs: of all trainings together.
        trainings: how many there are.
    """
    if times is None or not math.isfinite(times):
        return f"forgotten {DASH} times"
    whole = "once" if times == 1 else f"{times:.3g} times"
    if trainings > 1:
        return f"forgotten {whole} per training ({trainings} trainings, {epochs} epochs in all)"
    return f"forgotten {whole} in {counted(epochs, 'epoch')}"


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
