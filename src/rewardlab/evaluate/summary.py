"""What accuracy.json says, for a terminal: a few sentences, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rewardlab.errors import counted
from rewardlab.evaluate.quality import CLEAR_GOLD_GAP
from rewardlab.records import Estimate

MINUS = "\N{MINUS SIGN}"
FEW_PAIRS = 30
"""What is measured on fewer is not named as the best or the worst, the most or the least: chance decides there."""


def percent(share: float, *, signed: bool = False) -> str:
    """`63.1`: a share, or a difference of shares, in per cent with a true minus sign; with a plus too if `signed`."""
    # z: what rounds to zero has no minus sign.
    return format(100 * share, "+z.1f" if signed else "z.1f").replace("-", MINUS)


class Number(NamedTuple):
    """An estimate that has a value."""

    value: float
    low: float | None
    high: float | None

    def percent(self, label: str = "") -> str:
        """`63.1 % (60.2 to 65.9)`, with `label` before the ends."""
        if self.low is None or self.high is None:
            return f"{percent(self.value)} %"
        return f"{percent(self.value)} % ({label}{percent(self.low)} to {percent(self.high)})"

    def points(self) -> str:
        """`2.3 points (0.4 to 5.0)`."""
        return self.percent().replace(" %", " points", 1)

    def opposite(self) -> Number:
        """The number with the other sign: what is lost where this is what is gained."""
        return Number(-self.value, *(None if end is None else -end for end in (self.high, self.low)))

    def is_above(self, reference: float) -> bool:
        """Whether the whole interval lies above `reference`."""
        return self.low is not None and self.low > reference

    def is_below(self, reference: float) -> bool:
        """Whether the whole interval lies below `reference`."""
        return self.high is not None and self.high < reference


def findings(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences: how good, how much of it is length, what it knows beyond the ignorant baselines.

    The first one also says how it agrees with the truth, where the data carry one. Behind it stands a warning where
    training data were not given; a last one warns of conversations that the training data hold too.

    Args:
        result: the object in accuracy.json.
    """
    estimates = (Estimate.from_dict(one) for members in result["estimates"].values() for one in members)
    found = {one.name: Number(one.value, one.low, one.high) for one in estimates if one.value is not None}
    counts = result["counts"]
    return [
        " ".join([_how_good(result, found), *_against_gold(found)]),
        *_not_checked(counts, found),
        _how_much_length(found),
        _what_more(counts, found),
        *_how_much_was_seen(counts),
    ]


def format_accuracy(result: Mapping[str, Any]) -> str:
    """All estimates as aligned lines: name, value, interval, observations, or why there is none.

    Args:
        result: the object in accuracy.json.
    """
    counts, options = result["counts"], result["options"]
    scorers = ", ".join(dict.fromkeys(result["scorer"]["names"]))
    size = size_words(counts)
    intervals = f"{100 * options['level']:g} % intervals, clustered by {options['cluster']}"
    lines = [f"{scorers} on {result['split']}: {size}; {intervals}"]
    return "\n".join([*lines, *estimate_lines(result["estimates"])])


def estimate_lines(estimates: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Groups of estimates as aligned lines, an empty one before each group: name, value, interval, observations, or
    why there is none."""
    groups = [[Estimate.from_dict(one) for one in members] for members in estimates.values() if members]
    width = max((len(one.name) for members in groups for one in members), default=0)
    return [line for members in groups for line in ("", *(_row(one, width) for one in members))]


def size_words(counts: Mapping[str, int | None]) -> str:
    """`1,200 pairs, 900 prompts`; without pairs, the prompts alone."""
    parts = ((counts.get("pairs"), "pair"), (counts.get("prompts"), "prompt"))
    return ", ".join(counted(number, noun) for number, noun in parts if number) or "nothing"


def without_pairs(counts: Mapping[str, int | None]) -> str:
    """What is missing where the data hold no pairs, and how to get it; empty where they hold some."""
    if counts.get("pairs") != 0:
        return ""
    return (
        "Baselines, probes, calibration and margins need pairs, and these data hold none: `data prepare --candidates "
        "pairs` makes pairs of candidates with rewards."
    )


def _row(one: Estimate, width: int) -> str:
    if one.value is None:
        return f"{one.name:<{width}}  {'-':>7}  {one.reason}"
    ends = f"[{one.low:.3f}, {one.high:.3f}]" if one.low is not None and one.high is not None else ""
    return f"{one.name:<{width}}  {one.value:>7.3f}  {ends:<16}  {one.n:,} {one.unit}"


def _how_good(result: Mapping[str, Any], found: Mapping[str, Number]) -> str:
    accuracy, order = found.get("accuracy"), found.get("agreement.pairwise")
    if accuracy is None:
        if order is None:
            return "How good it is cannot be said: the data hold neither pairs nor candidates with rewards."
        where = f"of the set {result['split']} ({size_words(result['counts'])})"
        share = order.percent(f"{100 * result['options']['level']:g} % interval ")
        return f"It orders {share} of the pairs of candidates of a prompt {where} as their rewards do."
    where = f"{counted(result['counts']['pairs'], 'pair')} of the set {result['split']}"
    share = accuracy.percent(f"{100 * result['options']['level']:g} % interval ")
    return f"It prefers the chosen answer in {share} of {where}; {_verdict(accuracy, found)}."


def _verdict(accuracy: Number, found: Mapping[str, Number]) -> str:
    if accuracy.is_below(0.5):
        return "that is worse than a coin flip"
    if not accuracy.is_above(0.5):
        return "that is not distinguishable from a coin flip"
    claimed = found["calibration.confidence"].value
    claim = f"its scores claim {percent(claimed)} %"
    if accuracy.is_below(claimed):
        return f"{claim}, so it is overconfident"
    if accuracy.is_above(claimed):
        return f"{claim}, so it is underconfident"
    return f"{claim}, which is inside that interval"


def _how_much_length(found: Mapping[str, Number]) -> str:
    longer, chosen = found.get("length.tokens.longer_scores_higher"), found.get("length.tokens.longer_is_chosen")
    if longer is None or chosen is None:
        within = found.get("length.tokens.within_prompt_pearson")
        if within is None:
            return "How much of it is length cannot be said: too few answers differ in length."
        ends = f" ({within.low:.2f} to {within.high:.2f})" if within.low is not None and within.high is not None else ""
        correlation = f"{within.value:+.2f}{ends}".replace("-", MINUS)
        return f"Among the answers to one prompt, its scores correlate with length by {correlation}."
    sentence = f"It scores the longer answer higher in {longer.percent()} of the pairs that differ in length"
    sentence += f"; the data prefer it in {percent(chosen.value)} %"
    kinds = [found.get(f"length.tokens.accuracy_{kind}") for kind in ("longer_chosen", "shorter_chosen", "balanced")]
    words = ("where the longer answer was chosen", "where the shorter one was", "where length cannot help")
    parts = [f"{percent(one.value)} % {where}" for one, where in zip(kinds, words, strict=True) if one is not None]
    return f"{sentence}. It is right in {', '.join(parts)}." if parts else f"{sentence}."


def _what_more(counts: Mapping[str, int | None], found: Mapping[str, Number]) -> str:
    missing = without_pairs(counts)
    if missing:
        return missing
    baselines = (("bag_of_words", "counting words"), ("longer_tokens", "preferring the longer answer"))
    gains = [(found[f"baselines.{name}.gain"], words) for name, words in baselines if f"baselines.{name}.gain" in found]
    parts = " and ".join(f"{_above_or_below(gain)} {words}" for gain, words in gains)
    sentence = f"Its accuracy is {parts}" if parts else "It was compared with no baseline"
    probes = (("shuffled_prompt", "with the prompts shuffled"), ("response_only", "without the prompt"))
    for name, words in probes:
        lost = found.get(f"ignorance.{name}.lost")
        if lost is not None:
            return f"{sentence}; {words} {_what_it_loses(lost)}."
    return f"{sentence}."


def _above_or_below(gain: Number) -> str:
    """`2.3 points (0.4 to 5.0) above`, with the numbers turned around where it is below."""
    return f"{gain.points()} above" if gain.value >= 0 else f"{gain.opposite().points()} below"


def _what_it_loses(lost: Number) -> str:
    """What a wrong or missing prompt costs. Such a prompt is also an unusual input, so a loss alone proves no use."""
    if lost.is_above(0.0):
        return f"it loses {lost.points()}: it uses the prompt, or such an input is only strange to it"
    change = f"loses {lost.points()}" if lost.value >= 0 else f"does not lose but is {lost.opposite().points()} better"
    return f"it {change}: nothing shows that it uses the prompt"


def _against_gold(found: Mapping[str, Number]) -> list[str]:
    """Nothing where the data carry no truth."""
    labels, model, clear = (found.get(f"gold.{leaf}") for leaf in ("accuracy_of_labels", "accuracy", "accuracy_clear"))
    if labels is None or model is None:
        return []
    sentence = (
        f"The truth is known here (gold): {labels.percent()} of the labels follow it, as many as a model that knew it "
        f"would get; this one orders {model.percent()} of the pairs as it does"
    )
    gap = f"of those whose gold rewards differ by more than {CLEAR_GOLD_GAP:g}"
    apart = f", and {clear.percent()} {gap}" if clear is not None else ""
    return [f"{sentence}{apart}."]


def _not_checked(counts: Mapping[str, int | None], found: Mapping[str, Number]) -> list[str]:
    """A warning where something is said to be good and the training data are not known."""
    if counts.get("shared_roots", 0) is not None or not {"accuracy", "agreement.pairwise"} & found.keys():
        return []
    return ["Training data were not given (`--train`), so overlap with them was not checked."]


def _how_much_was_seen(counts: Mapping[str, int | None]) -> list[str]:
    """Nothing where no conversation is shared, or where it is not known."""
    shared = counts.get("shared_roots")
    if not shared:
        return []
    begin = "begins" if shared == 1 else "begin"
    sentence = (
        f"Of the {counted(counts['roots'] or 0, 'conversation')} evaluated, {shared:,} {begin} like one of the "
        f"training data"
    )
    return [f"{sentence}: it may have seen part of them (`data prepare` splits by conversation)."]
