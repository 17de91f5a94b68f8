"""The figures of a model card: what the runs of each verb say of one model, in one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rewardlab.audit.effects import RESULT as EFFECTS
from rewardlab.errors import DataError, Problem
from rewardlab.evaluate import accuracy, cartography
from rewardlab.evaluate.battery_words import WORDS
from rewardlab.evaluate.summary import MINUS, percent
from rewardlab.models.card import POLICY, REWARD
from rewardlab.records import Estimate
from rewardlab.report import gain, policies, toxicity, winrate
from rewardlab.report.audit_inputs import AuditFile
from rewardlab.report.card_runs import CardRun
from rewardlab.report.cartography_inputs import CartographyFile
from rewardlab.report.frontier_inputs import FrontierPolicy, Spanned, read_frontier
from rewardlab.report.inputs import AccuracyFile
from rewardlab.report.robustness_inputs import read_bench, read_perturb
from rewardlab.report.shift_inputs import SHIFT_FILE
from rewardlab.report.words import is_difference, is_share, name_of
from rewardlab.store.shapes import Shape, read_object, shaped

_KL = "Distance from the reference (KL)"
PERCENT, POINTS, SD, SIGNED, PLAIN = "%", "points", "sd", "signed", ""
"""Units of figures; others stand behind the number as they are. SIGNED is a difference in units of the reward."""


class Part(NamedTuple):
    """A section of a card: its title, how to read it, and the commands that measure what stands there."""

    title: str
    reading: str
    commands: str


PARTS: Mapping[str, Mapping[str, Part]] = {
    REWARD: {
        "accuracy": Part(
            "Accuracy",
            "Share of pairs whose chosen answer has the higher reward; a coin flip gets 50 %.",
            "`evaluate accuracy`",
        ),
        "subsets": Part(
            "Accuracy by subset", "The same, by the subsets that the data name.", "`evaluate accuracy` on such data"
        ),
        "calibration": Part(
            "Calibration",
            "Whether differences of rewards are honest log-odds: a slope of 1 is calibrated, below overconfident, "
            "above underconfident; chance alone keeps the error above 0.",
            "`evaluate accuracy`",
        ),
        "length": Part(
            "Length", "How much of it is length; lengths are in tokens of the model.", "`evaluate accuracy`"
        ),
        "prompt": Part(
            "Use of the prompt, and baselines",
            "What a wrong or missing prompt costs, and what it is better by than rules that know nothing of the text.",
            "`score --probes`, `evaluate accuracy --train`",
        ),
        "overlap": Part(
            "Overlap with the training data",
            "Whether it may have seen what it was measured on.",
            "`evaluate accuracy --train`",
        ),
        "effects": Part(
            "Causal effects",
            "By how much an attribute alone moves the reward, from rewrites of rewrites (RATE); in standard deviations "
            "(sd) of the rewards of the original responses.",
            "`audit run`",
        ),
        "perturb": Part(
            "Small changes",
            "What changes of the answers that keep their content do to the order of a pair.",
            "`score --battery`, `evaluate perturb`",
        ),
        "bench": Part("Benchmark", "Scores by the published formulas.", "`evaluate bench`"),
        "map": Part(
            "Map of the training data",
            "Which training pairs it finds easy, ambiguous and hard, and whether length decides.",
            "`evaluate cartography`",
        ),
    },
    POLICY: {
        "frontier": Part(
            "Reward against distance",
            "Mean reward of what it writes, and how far it is from its reference (KL divergence, per completion).",
            "`evaluate frontier`",
        ),
        "winrate": Part(
            "Win rates",
            "Share of comparisons won by a judge or a reward; ties count half.",
            "`evaluate winrate`, `evaluate policies`",
        ),
        "gain": Part(
            "Gain at equal length",
            "What is gained in mean reward, and what of it at equal length.",
            "`evaluate gain`, `evaluate policies`",
        ),
        "toxicity": Part("Toxicity", "How bad a classifier finds what it writes.", "`evaluate toxicity`"),
        "shift": Part(
            "What it has learned",
            "Change of the share of its answers that have an attribute, from the reference's.",
            "`evaluate shift`",
        ),
    },
}
"""Sections by kind of model, in their order."""


@dataclass(frozen=True)
class Measured:
    """A figure of a card.

    Attributes:
        part: section.
        title: what it is, in words of ours.
        name: what of the data or the user it is about (a subset, an attribute, a set); may be any text.
        estimate: the value; its name is that of the metric.
        unit: one of ours, or what stands behind the number.
        run: where it comes from.
        warning: why the interval says less than it seems to.
    """

    part: str
    title: str
    name: str
    estimate: Estimate
    unit: str
    run: CardRun
    warning: str = ""

    @property
    def value_words(self) -> str:
        """`67.1 %`, `+6.3 points`, `0.412 nats`."""
        if self.estimate.value is None:
            return ""
        return self._one(self.estimate.value) + (f" {self.unit}" if self.unit not in (PLAIN, SIGNED) else "")

    @property
    def interval_words(self) -> str:
        """`64.2 to 70.0`; why there is none, where there is none."""
        one = self.estimate
        if one.low is None or one.high is None:
            return f"none: {one.reason}" if one.reason else "none"
        level = "" if one.level == 0.95 else f" ({100 * one.level:g} %)"
        return f"{self._one(one.low)} to {self._one(one.high)}{level}"

    @property
    def words(self) -> str:
        """`67.1 % (64.2 to 70.0)`."""
        has_interval = self.estimate.low is not None and self.estimate.high is not None
        return f"{self.value_words} ({self.interval_words})" if has_interval else self.value_words

    @property
    def basis(self) -> str:
        """`1,204 pairs`."""
        return f"{self.estimate.n:,} {self.estimate.unit}" if self.estimate.n else ""

    def _one(self, value: float) -> str:
        if self.unit in (PERCENT, POINTS):
            return percent(value, signed=self.unit == POINTS)
        return format(value, "+.3f" if self.unit in (SD, SIGNED) else ".3f").replace("-", MINUS)


def figures_of(run: CardRun) -> list[Measured]:
    """What a run says of the model; nothing of a training, whose figures are of its own sets.

    Raises:
        DataError: files that are missing, unreadable or of another shape.
    """
    reader = _READERS.get(run.verb)
    if reader is None:
        return []
    found = list(reader(run))
    if not found:
        remedy = "Is it what others are compared with?"
        raise DataError("nothing", [Problem(str(run.folder), "no figure of the model", "one at least", remedy)])
    return found


_LENGTH = (
    "longer_scores_higher",
    "longer_is_chosen",
    "accuracy_longer_chosen",
    "accuracy_shorter_chosen",
    "accuracy_gap",
    "accuracy_balanced",
    "within_prompt_pearson",
)
_ACCURACY_PARTS = {
    **dict.fromkeys(("accuracy", "accuracy.ties"), "accuracy"),
    **{f"length.tokens.{leaf}": "length" for leaf in _LENGTH},
    **{f"ignorance.{probe}.lost": "prompt" for probe in ("shuffled_prompt", "response_only")},
    **{f"baselines.{baseline}.gain": "prompt" for baseline in ("longer_tokens", "length_only", "bag_of_words")},
}
_ACCURACY_GROUPS = {"calibration": "calibration", "agreement": "accuracy", "gold": "accuracy"}
_SUBSET = "accuracy.subset."


def _accuracy(run: CardRun) -> Iterator[Measured]:
    path = run.folder / accuracy.RESULT
    file = shaped(AccuracyFile, read_object(path), path)
    for group, members in file.estimates.items():
        for one in members:
            if one.name.startswith(_SUBSET):
                yield Measured("subsets", "Subset", one.name.removeprefix(_SUBSET), one, PERCENT, run)
                continue
            # Few data hold several answers with rewards, or a known truth: not having them is no gap.
            part = _ACCURACY_PARTS.get(one.name) or _ACCURACY_GROUPS.get(group)
            if part and (one.value is not None or group not in ("agreement", "gold")):
                yield _plain(run, part, one)
    shared, roots = file.counts.get("shared_roots"), file.counts.get("roots")
    if shared is not None and roots:
        found = Estimate("overlap.shared_roots", shared / roots, n=roots, unit="conversations", reason="a count")
        yield Measured("overlap", "Conversations that begin like one of the training data", "", found, PERCENT, run)


def _plain(run: CardRun, part: str, one: Estimate) -> Measured:
    """An estimate that `words` knows."""
    unit = POINTS if is_difference(one) else PERCENT if is_share(one) else PLAIN
    return Measured(part, name_of(one), "", one, unit, run)


def _bench(run: CardRun) -> Iterator[Measured]:
    shown = ("accuracy", "section.", "best_of_k", "ties.overall", "style.")
    for members in read_bench(run.folder).estimates.values():
        for one in members:
            if one.value is None or not one.name.startswith(shown) or one.name.count(".") > 1:
                continue
            family, _, name = one.name.partition(".")
            is_named = family in ("section", "best_of_k") and name not in ("", "average", "chance")
            if is_named:
                yield Measured("bench", "Section" if family == "section" else "Best of K,", name, one, PERCENT, run)
            else:
                yield _plain(run, "bench", one)


def _perturb(run: CardRun) -> Iterator[Measured]:
    for perturbation, members in read_perturb(run.folder).estimates.items():
        for one in members:
            leaf = one.name.rsplit(".", 1)[-1]
            if leaf in ("flips", "accuracy_lost"):
                words = WORDS.get(perturbation, "another change")
                title = f"{words[:1].upper()}{words[1:]}: "
                title += "pairs turned around" if leaf == "flips" else "accuracy lost"
                yield Measured("perturb", title, "", one, PERCENT if leaf == "flips" else POINTS, run)


def _effects(run: CardRun) -> Iterator[Measured]:
    path = run.folder / EFFECTS
    file = shaped(AuditFile, read_object(path), path)
    attribute = file.attribute
    name = f"{attribute.name}: {attribute.low} → {attribute.high}"
    for model in file.models:
        if model.scorer not in run.place.names:
            continue
        among = {"ATE": "", "ATT": ", of responses that have it", "ATU": ", of responses that have it not"}
        effects = [(model[f"double.{target}.sd"], words) for target, words in among.items()]
        # Of responses of one side alone only the effect on these is known.
        one, words = next((each for each in effects if each[0].value is not None), effects[0])
        yield Measured("effects", f"Effect on the reward{words} (RATE)", name, one, SD, run, one.warning)
        naive = model["naive.ATE.sd"]
        yield Measured(
            "effects",
            "Plain comparison of responses with and without it, confounded",
            name,
            naive,
            "sd",
            run,
            naive.warning,
        )


def _map(run: CardRun) -> Iterator[Measured]:
    path = run.folder / cartography.RESULT
    for one in shaped(CartographyFile, read_object(path), path).estimates:
        if one.value is not None:
            yield _plain(run, "map", one)


def _frontier(run: CardRun) -> Iterator[Measured]:
    file = read_frontier(run.folder)
    own = {one.step: one for one in file.checkpoints if _is_own(one.run, one.seed, run)}
    policy = own[_step(run, list(own))]
    yield from _policy(run, policy, file.scorers, file.level, f"at step {policy.step}" if policy.step else "")
    for name in policy.rewards:
        title = f"Reward of the reference, {_role(name)}"
        yield _spanned(run, f"frontier.reference.{name}", title, file.scorers.get(name, name),
                       file.reference.rewards[name], PLAIN, file.level)  # fmt: skip
    for change in file.changes:
        if _is_own(change.run, change.seed, run) and change.to == policy.step:
            for name, one in change.rewards.items():
                title = f"From the chosen step to the last one, {_role(name)}"
                yield _spanned(run, f"frontier.change.{name}", title, file.scorers.get(name, name), one,
                               SIGNED, file.level)  # fmt: skip


def _policy(
    run: CardRun, policy: FrontierPolicy, scorers: Mapping[str, str], level: float, step: str
) -> Iterator[Measured]:
    title = " ".join(filter(None, (_KL, step)))
    yield _spanned(run, "frontier.kl", title, "", policy.kl, "nats", level)
    for name, one in policy.rewards.items():
        title = f"Reward, {_role(name)}"
        yield _spanned(run, f"frontier.reward.{name}", title, scorers.get(name, name), one, PLAIN, level)
    yield _spanned(run, "frontier.tokens", "Length", "", policy.tokens, "tokens", level)
    yield _spanned(run, "frontier.unfinished", "Completions that did not end", "", policy.unfinished, PERCENT, level)


def _role(name: str) -> str:
    return "held out" if name.startswith("held_out.") else "gold" if name.startswith("gold") else "trained on"


def _is_own(name: str, seed: int, run: CardRun) -> bool:
    return name in run.place.names and run.place.seed in (None, seed)


def _step(run: CardRun, steps: Sequence[int]) -> int:
    """Which of the checkpoints that were measured is the model; one that stands alone has step 0.

    Raises:
        DataError: none of them.
    """
    if set(steps) == {0}:
        return 0
    if run.place.step is not None and run.place.step in steps:
        return run.place.step
    words = "a step that is not known" if run.place.step is None else f"step {run.place.step}"
    found = f"checkpoints at steps {', '.join(map(str, sorted(set(steps)))) or 'none'}"
    raise DataError("another checkpoint", [Problem(str(run.folder), found, f"one at {words}, which is the model's")])


def _spanned(
    run: CardRun, metric: str, title: str, name: str, one: Spanned, unit: str, level: float, part: str = "frontier"
) -> Measured:
    noun = "completions" if part == "frontier" else "prompts"
    estimate = Estimate(metric, one.value, one.low, one.high, level, one.n, noun, one.clusters, reason=one.reason)
    return Measured(part, title, name, estimate, unit, run)


class _ShiftRow(Spanned):
    """How far an attribute has moved from the reference."""

    run: str
    seed: int
    step: int
    attribute: str


class _ShiftFile(Shape):
    """What a card reads of shift.json."""

    level: float = 0.95
    paths: list[_ShiftRow]


def _shift(run: CardRun) -> Iterator[Measured]:
    path = run.folder / SHIFT_FILE
    file = shaped(_ShiftFile, read_object(path), path)
    own = [one for one in file.paths if _is_own(one.run, one.seed, run)]
    step = _step(run, [one.step for one in own])
    for one in own:
        if one.step == step:
            title = f"Change of the share with, at step {step}:" if step else "Change of the share with:"
            yield _spanned(run, "shift", title, one.attribute, one, POINTS, file.level, "shift")


class _Compared(Shape):
    """Two models side by side, second minus first."""

    first: str
    second: str
    estimates: list[Estimate]


class _Toxic(Shape):
    """A model that was measured."""

    name: str
    estimates: list[Estimate]


class _ToxicityFile(Shape):
    """What a card reads of toxicity.json."""

    models: list[_Toxic]
    comparisons: list[_Compared]


_TOXICITY = {
    "mean": "Mean P(bad) of responses",
    "share": "Responses with P(bad) above .5",
    "probability": "Prompts with a bad response among those drawn",
    "expected_maximum": "Mean over prompts of the largest P(bad)",
}


def _toxicity(run: CardRun) -> Iterator[Measured]:
    path = run.folder / toxicity.RESULT
    file = shaped(_ToxicityFile, read_object(path), path)
    for model in file.models:
        if model.name in run.place.names:
            yield from _toxic(run, model.estimates, "toxicity.", "", PERCENT)
    for pair in file.comparisons:
        if pair.second in run.place.names and pair.first not in run.place.names:
            yield from _toxic(run, pair.estimates, "toxicity.difference.", pair.first, POINTS)
        elif pair.first in run.place.names and pair.second not in run.place.names:
            turned = [_opposite(one) for one in pair.estimates]
            yield from _toxic(run, turned, "toxicity.difference.", pair.second, POINTS)


def _toxic(run: CardRun, estimates: Sequence[Estimate], prefix: str, other: str, unit: str) -> Iterator[Measured]:
    for one in estimates:
        if one.name in _TOXICITY:
            title = f"{_TOXICITY[one.name]}, more than of" if other else _TOXICITY[one.name]
            yield Measured("toxicity", title, other, replace(one, name=f"{prefix}{one.name}"), unit, run)


def _opposite(one: Estimate) -> Estimate:
    value, low, high = (None if end is None else -end for end in (one.value, one.high, one.low))
    return replace(one, value=value, low=low, high=high)


class _ComparedSets(Shape):
    """What a card reads of winrate.json and gain.json."""

    baseline: str
    estimates: dict[str, list[Estimate]]


class _Bad(Shape):
    """How bad answers are."""

    estimates: list[Estimate]


class _Distance(Spanned):
    """How far a policy is from its reference."""

    error: float | None = None
    step: int
    level: float = 0.95


class _PoliciesFile(Shape):
    """What a card reads of the summary.json of policies side by side."""

    rankers: dict[str, _ComparedSets]
    rewards: dict[str, _ComparedSets]
    bad: _Bad | None
    kl: dict[str, _Distance]


_WINRATE = {"raw": ("Win rate", PERCENT), "lc": ("Win rate at equal length", PERCENT)}
_GAIN = {
    "total": ("Gain in reward", SIGNED),
    "non_length": ("Gain within bins of length", SIGNED),
    "at_equal_length": ("Gain at the same length, by regression", SIGNED),
}


def _sets(run: CardRun, part: str, result: str, leaves: Mapping[str, tuple[str, str]]) -> Iterator[Measured]:
    path = run.folder / result
    yield from _of_sets(run, part, shaped(_ComparedSets, read_object(path), path), leaves)


def _of_sets(
    run: CardRun, part: str, file: _ComparedSets, leaves: Mapping[str, tuple[str, str]], by: str = ""
) -> Iterator[Measured]:
    """What each set of the model's answers has over the baseline; `by` says who judged, where there are several."""
    for members in file.estimates.values():
        for one in members:
            leaf, _, name = one.name.partition(".")
            if leaf in leaves and name in run.place.names:
                title, unit = leaves[leaf]
                about = f"{name} over {file.baseline}{f', by {by}' if by else ''}"
                yield Measured(part, title, about, replace(one, name=f"{part}.{leaf}"), unit, run)


def _policies(run: CardRun) -> Iterator[Measured]:
    path = run.folder / policies.RESULT
    file = shaped(_PoliciesFile, read_object(path), path)
    for by, one in file.rankers.items():
        yield from _of_sets(run, "winrate", one, _WINRATE, by)
    for by, one in file.rewards.items():
        yield from _of_sets(run, "gain", one, _GAIN, by)
    for estimate in file.bad.estimates if file.bad else ():
        leaf, _, name = estimate.name.partition(".")
        if leaf in _TOXICITY and name in run.place.names:
            named = replace(estimate, name=f"toxicity.{leaf}")
            yield Measured("toxicity", f"{_TOXICITY[leaf]}, of", name, named, PERCENT, run)
    for name, far in file.kl.items():
        if name in run.place.names:
            yield _distance(run, name, far)


def _distance(run: CardRun, name: str, far: _Distance) -> Measured:
    """How far the model is from its reference; without a value where what was measured is another policy."""
    title = " ".join(filter(None, (_KL, f"at step {far.step}" if far.step else "")))
    if name in run.place.distances:
        return _spanned(run, "frontier.kl", title, "", far, "nats", far.level)
    reason = "the checkpoint on the frontier is not known to be this model"
    return Measured("frontier", title, name, Estimate("frontier.kl", None, reason=reason), "nats", run)


_READERS: Mapping[str, Callable[[CardRun], Iterator[Measured]]] = {
    "evaluate accuracy": _accuracy,
    "evaluate bench": _bench,
    "evaluate perturb": _perturb,
    "evaluate cartography": _map,
    "audit effects": _effects,
    "audit run": _effects,
    "evaluate frontier": _frontier,
    "evaluate shift": _shift,
    "evaluate toxicity": _toxicity,
    "evaluate winrate": lambda run: _sets(run, "winrate", winrate.RESULT, _WINRATE),
    "evaluate gain": lambda run: _sets(run, "gain", gain.RESULT, _GAIN),
    "evaluate policies": _policies,
}
