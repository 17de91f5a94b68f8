"""The sections on one evaluation: accuracy, calibration, length, and the browser of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from rewardlab.errors import counted
from rewardlab.evaluate.summary import size_words, without_pairs
from rewardlab.records import Estimate
from rewardlab.report import examples, figures
from rewardlab.report.blocks import Figure, Section, disclosure, dot_rows, estimate_table, prose, sentence, table
from rewardlab.report.html import Html, content, element, json_island
from rewardlab.report.inputs import AccuracyFile, Evaluation, Stage
from rewardlab.report.words import DASH, estimate_words, name_of, plain_number, scalar_words

_MOST_SINGLE_ROWS = 12
"""Subsets or folds drawn in one figure; more stand in the table."""
_UNITS = ("tokens", "characters")


def evaluation_sections(
    stage: Stage[Evaluation], *, suffix: str, several: bool, limits: examples.Limits, seed: int
) -> list[Section]:
    """The sections on one evaluation.

    Args:
        stage: what to show.
        suffix: added to the names of sections and figures, so that they are unique in the page.
        several: whether other evaluations stand beside it, so that titles name the stage.
        limits: of the browser of examples.
        seed: of the pairs drawn at random.
    """
    result = stage.content.file
    of = f" \N{MIDDLE DOT} {stage.label}" if several else ""
    accuracy, length = (
        _accuracy(result, suffix, of),
        _length(result, stage.content.pairs, suffix, of, seed),
    )
    if without_pairs(result.counts):
        # The section on accuracy says what is missing and why.
        return [accuracy, length]
    calibration, browser = _calibration(result, suffix, of), _examples(stage.content.pairs, suffix, of, limits, seed)
    return [accuracy, calibration, length, browser]


def comparison(stages: Sequence[Stage[Evaluation]]) -> Figure | None:
    """The accuracies of several evaluations in one picture; None where none has one."""
    rows: list[dict[str, Any]] = []
    words = []
    for stage in stages:
        found = _computed([item for item in [stage.content.file.estimate("accuracy")] if item is not None])
        rows += [{**row, "label": stage.label} for row in dot_rows(found)]
        words += [f"{stage.label} {estimate_words(item)}" for item in found]
    if not rows:
        return None
    spec = figures.dots_with_intervals(rows, axis_title="accuracy (%)", reference=0.5, reference_label="coin flip")
    reading = (
        "Overlapping intervals are no proof of equality: runs scored on the same pairs are compared pair by pair "
        "with rewardlab runs compare."
    )
    return Figure("comparison", "Accuracy of every evaluation", f"{'; '.join(words)}.", reading, spec)


def _accuracy(result: AccuracyFile, suffix: str, of: str) -> Section:
    model = _group(result, "accuracy", lambda name: name == "accuracy")
    accuracies = lambda name: name.endswith(".accuracy")  # noqa: E731
    controls = [*_group(result, "ignorance", accuracies), *_group(result, "baselines", accuracies)]
    shown = [*model, *controls]
    families = _group(result, "accuracy", lambda name: name.startswith(("accuracy.subset.", "accuracy.fold.")))
    rest = _group(result, "accuracy", lambda name: name.startswith("accuracy.ties"))
    differences = [
        item
        for group in ("ignorance", "baselines")
        for item in _group(result, group, lambda name: name.endswith((".lost", ".gain")))
    ]
    missing = without_pairs(result.counts)
    blocks: list[Figure | Html] = [element("p", prose(missing))] if missing else []
    if not missing:
        blocks.append(
            _dots(
                f"accuracy{suffix}",
                "The model beside models that know less",
                shown,
                "The blue dot is the model; the orange ones know less: no prompt, the wrong prompt, only words, only "
                "length. Bars are intervals, the dashed line is a coin flip. Only what lies to the right of every "
                "orange dot can come from reading the answer in the light of the prompt; that a wrong or missing "
                "prompt is a strange input may be a part of it.",
                comparisons=[item.name for item in controls],
                numbers=[*shown, *differences, *rest],
            )
        )
    gold = _computed(result.estimates.get("gold", []))
    if gold:
        blocks.append(_gold(gold, suffix))
    if len(families) > 1:
        blocks.append(
            _dots(
                f"families{suffix}",
                "Accuracy by subset and fold",
                [*model, *families][: _MOST_SINGLE_ROWS + 1],
                "Small subsets have wide intervals; expect one interval in twenty to miss by chance alone.",
            )
        )
    if result.curves.margins:
        blocks.append(_margins(result, suffix))
    agreement = result.estimates.get("agreement", [])
    if any(item.value is not None for item in agreement):
        blocks.append(estimate_table("Agreement with the rewards that come with the candidates", agreement))
    lead = (
        f"How often the {'answer with the higher reward' if missing else 'chosen answer'} gets the higher score, on "
        f"the set {result.split} ({size_words(result.counts)}). A tie counts one half."
    )
    return Section(f"accuracy{suffix}", f"Accuracy{of}", lead, blocks)


def _gold(gold: Sequence[Estimate], suffix: str) -> Figure:
    return _dots(
        f"gold{suffix}",
        "Labels and model against the known truth",
        gold,
        "These data know which answer is better: the one with the higher gold reward. Labels follow it with "
        "noise, so the accuracy of labels is the most that agreement with them can reach; the blue dots "
        "leave the labels aside.",
        comparisons=["gold.accuracy_of_labels"],
        axis_title="agreement with gold (%)",
    )


def _margins(result: AccuracyFile, suffix: str) -> Figure:
    rows = _rows(result.curves.margins)
    mean = result.estimate("margin.mean")
    finding = f"Mean margin {estimate_words(mean)} reward units." if mean and mean.value is not None else "Margins."
    numbers = content(
        [
            estimate_table("Margins", result.estimates.get("margin", [])),
            _bins("Pairs by margin", rows, {"low": "From", "high": "To", "n": "Pairs"}),
        ]
    )
    reading = (
        "Each bar counts pairs by how much higher the chosen answer scored. Bars left of zero are pairs that the "
        "model ranks wrong; far left are those it gets wrong with confidence, worth reading below."
    )
    spec = figures.margin_histogram(rows)
    return Figure(f"margins{suffix}", "How far apart the two scores are", finding, reading, spec, numbers)


def _calibration(result: AccuracyFile, suffix: str, of: str) -> Section:
    slope, error = (
        sentence([item for item in map(result.estimate, names) if item is not None])
        for names in (("calibration.slope",), ("calibration.ece", "calibration.ece_if_calibrated"))
    )
    headers = {
        "predicted": "Predicted (%)",
        "observed": "Observed (%)",
        "observed_low": "Interval from",
        "observed_high": "Interval to",
        "n": "Cases",
    }
    reliability, confident = _rows(result.curves.reliability), _rows(result.curves.confidence)
    blocks: list[Figure | Html] = []
    if reliability:
        reading = (
            "A difference of scores implies a chance that the first answer is the preferred one. On the dashed line "
            "these chances are right; a curve flatter than the line means that the model is too sure of itself, a "
            "steeper one that it is too timid."
        )
        spec = figures.reliability_curve(
            reliability,
            x_title="predicted chance of being chosen (%)",
            y_title="share that was chosen (%)",
        )
        numbers = _bins("Reliability", reliability, headers, percent=True)
        blocks.append(Figure(f"reliability{suffix}", "Reliability", slope, reading, spec, numbers, half=True))
    if confident:
        reading = (
            "The same pairs by how sure the model is of its own ranking. The calibration error (ECE) is the mean "
            "distance of these dots from the dashed line, weighted by pairs. It is never zero on a finite sample: "
            "compare it with what chance alone would give."
        )
        spec = figures.reliability_curve(
            confident, x_title="confidence of the model (%)", y_title="accuracy (%)", low=0.5
        )
        numbers = _bins("Confidence and accuracy", confident, headers, percent=True)
        blocks.append(Figure(f"confidence{suffix}", "Confidence", error, reading, spec, numbers, half=True))
    blocks.append(estimate_table("Calibration", result.estimates.get("calibration", [])))
    lead = (
        "Whether differences of scores can be taken for chances: how sure the model is against how often it is right."
    )
    return Section(f"calibration{suffix}", f"Calibration{of}", lead, blocks)


def _length(result: AccuracyFile, pairs: examples.Pairs, suffix: str, of: str, seed: int) -> Section:
    without = bool(without_pairs(result.counts))
    blocks: list[Figure | Html] = [] if without else [_accuracy_and_length(result, suffix)]
    bins = _rows(result.curves.length_bins)
    if any(row["n"] for row in bins):
        blocks += [_accuracy_by_length(result, bins, suffix), _scatter(result, bins, pairs, suffix, seed)]
    scores = _rows(result.curves.length_scores)
    if any(row["n"] for row in scores):
        blocks.append(_scores_by_length(result, scores, suffix))
    correlations = _in_tokens(
        result, "delta_pearson", "delta_spearman", "pooled_pearson", "pooled_spearman",
        "within_prompt_pearson", "within_prompt_kendall",
    )  # fmt: skip
    if _computed(correlations):
        blocks.append(_length_correlations(_computed(correlations) if without else correlations, suffix))
    blocks.append(disclosure("All length measures, in tokens and in characters", *_length_tables(result)))
    lead = (
        "How scores go along with length, in tokens of the model that scores."
        if without
        else "How much of the accuracy is length. Differences are chosen minus rejected, in tokens of the model that "
        f"scores; {_equally_long(result)}."
    )
    return Section(f"length{suffix}", f"Length{of}", lead, blocks)


def _in_tokens(result: AccuracyFile, *leaves: str) -> list[Estimate]:
    found = [result.estimate(f"length.tokens.{leaf}") for leaf in leaves]
    return [item for item in found if item is not None]


def _accuracy_and_length(result: AccuracyFile, suffix: str) -> Figure:
    leaves = ("accuracy_longer_chosen", "accuracy_shorter_chosen", "accuracy_balanced", "heuristic_accuracy")
    return _dots(
        f"length-accuracy{suffix}",
        "Accuracy where length points the right way, and where it does not",
        _in_tokens(result, *leaves),
        "A model that only counted words would be right wherever the longer answer was chosen and wrong "
        "wherever the shorter one was. On the length-balanced subset length is no help; what is left there "
        "above a coin flip is not length.",
        comparisons=["length.tokens.heuristic_accuracy"],
    )


def _scores_by_length(result: AccuracyFile, scores: Sequence[Mapping[str, Any]], suffix: str) -> Figure:
    reading = (
        "Each step is the mean score of answers of that length, the box one standard deviation of single answers "
        "either way (not an interval of the mean). Steps that rise by less than the height of a box mean that "
        "length moves scores less than everything else together."
    )
    headers = {
        "low": "From",
        "high": "To",
        "n": "Answers",
        "mean_score": "Mean score",
        "sd_score": "Standard deviation",
    }
    return Figure(
        f"length-scores{suffix}",
        "Score of single answers by their length",
        sentence(_in_tokens(result, "pooled_pearson")),
        reading,
        figures.score_by_length(scores),
        _bins("Scores by length", scores, headers),
    )


def _length_correlations(correlations: Sequence[Estimate], suffix: str) -> Figure:
    return _dots(
        f"length-correlations{suffix}",
        "Correlation of length and score",
        correlations,
        "Zero is no relation. Within a prompt is the cleanest reading: the same question, answers of different "
        "length. The pooled numbers also mix in that some prompts get longer and better answers than others.",
        axis_title="correlation",
        reference=0.0,
        reference_label="none",
    )


def _equally_long(result: AccuracyFile) -> str:
    number = result.counts.get("equal_length_pairs")
    if number is None:
        return "how many pairs are equally long is not known"
    return f"{counted(number, 'pair')} {'is' if number == 1 else 'are'} equally long"


def _length_tables(result: AccuracyFile) -> list[Html]:
    group = result.estimates.get("length", [])
    if without_pairs(result.counts):
        group = _computed(group)
    units = {unit: [item for item in group if item.name.startswith(f"length.{unit}.")] for unit in _UNITS}
    tables = [estimate_table(f"Length in {unit}", found) for unit, found in units.items() if found]
    balanced = [row for row in _rows(result.curves.balanced_bins) if row["longer_chosen"] or row["shorter_chosen"]]
    headers = {
        "low": "More than",
        "high": "Up to",
        "longer_chosen": "Longer chosen",
        "shorter_chosen": "Shorter chosen",
        "kept": "Kept of each",
    }
    title = "The length-balanced subset, by absolute difference in tokens"
    return [*tables, _bins(title, balanced, headers)] if balanced else tables


def _accuracy_by_length(result: AccuracyFile, bins: Sequence[Mapping[str, Any]], suffix: str) -> Figure:
    finding = sentence(_in_tokens(result, "accuracy_gap"))
    reading = (
        "Each step is the accuracy on the pairs whose lengths differ by that much, the box its interval. A staircase "
        "that climbs to the right means that the model follows length. The outermost steps are open: they "
        "hold everything beyond."
    )
    headers = {
        "low": "From",
        "high": "To",
        "n": "Pairs",
        "accuracy": "Accuracy (%)",
        "accuracy_low": "Interval from",
        "accuracy_high": "Interval to",
    }
    numbers = _bins("Accuracy by difference in length", bins, headers, percent=True)
    title = "Accuracy by difference in length"
    return Figure(f"length-bins{suffix}", title, finding, reading, figures.accuracy_by_length(bins), numbers)


def _scatter(
    result: AccuracyFile, bins: Sequence[Mapping[str, Any]], pairs: examples.Pairs, suffix: str, seed: int
) -> Figure:
    points, total = examples.points(pairs, seed=seed), len(pairs.margins)
    drawn = "every pair" if len(points) == total else f"{len(points):,} of {total:,} pairs, drawn at random"
    reading = (
        f"A dot is a pair ({drawn}); above the dashed line the model agrees with the choice. The steps are "
        "means over all pairs of that difference in length: if length played no part, they would be level."
    )
    headers = {"low": "From", "high": "To", "n": "Pairs", "mean_margin": "Mean difference of scores"}
    return Figure(
        f"length-scatter{suffix}",
        "Difference in length against difference in score",
        sentence(_in_tokens(result, "delta_pearson", "longer_scores_higher", "longer_is_chosen")),
        reading,
        figures.length_scatter(points, bins),
        _bins("Mean difference of scores by difference in length", bins, headers),
    )


def _examples(pairs: examples.Pairs, suffix: str, of: str, limits: examples.Limits, seed: int) -> Section:
    selection = examples.select(pairs, limits, seed=seed)
    name = f"examples{suffix}"
    island = json_island(f"{name}-data", {"rows": selection.rows, "total": selection.total})
    browser = element(
        "div",
        element("noscript", "The browser of examples needs JavaScript."),
        class_="browser",
        data_rows=f"{name}-data",
    )
    lead = (
        f"{selection.words} Words that only one answer has are marked, with a solid line in the chosen "
        "answer and a dashed one in the rejected, unless the two have little in common."
    )
    return Section(name, f"Examples{of}", lead, [browser, island])


def _dots(
    name: str,
    title: str,
    estimates: Sequence[Estimate],
    reading: str,
    *,
    comparisons: Sequence[str] = (),
    axis_title: str = "accuracy (%)",
    reference: float = 0.5,
    reference_label: str = "coin flip",
    numbers: Sequence[Estimate] = (),
) -> Figure:
    spec = figures.dots_with_intervals(
        dot_rows(estimates, comparisons),
        axis_title=axis_title,
        reference=reference,
        reference_label=reference_label,
        percent=axis_title.endswith("(%)"),
    )
    missing = [f"{name_of(item)}: {item.reason}" for item in estimates if item.value is None]
    words = f"{reading} Not drawn: {'; '.join(missing)}." if missing else reading
    figures_table = estimate_table(title, numbers or estimates)
    return Figure(name, title, sentence(estimates), words, spec, figures_table, plain=False)


def _bins(
    caption: str, rows: Sequence[Mapping[str, Any]], headers: Mapping[str, str], *, percent: bool = False
) -> Html:
    """Rows of a curve as a table; with `percent`, fractions are shown in per cent."""
    shares = {"predicted", "observed", "observed_low", "observed_high", "accuracy", "accuracy_low", "accuracy_high"}

    def words(name: str, value: Any) -> str:
        if value is None:
            return "open" if name in ("low", "high") else DASH
        if percent and name in shares:
            return plain_number(100.0 * value, 1)
        return f"{value:g}" if name in ("low", "high") else scalar_words(value)

    cells = [[words(name, row[name]) for name in headers] for row in rows]
    return table(caption, list(headers.values()), cells, numeric=range(1, len(headers)))


def _group(result: AccuracyFile, group: str, wanted: Any) -> list[Estimate]:
    return [item for item in result.estimates.get(group, []) if wanted(item.name)]


def _rows(bins: Sequence[BaseModel]) -> list[dict[str, Any]]:
    return [item.model_dump() for item in bins]


def _computed(estimates: Sequence[Estimate]) -> list[Estimate]:
    return [item for item in estimates if item.value is not None]
