"""What accuracy.json says, for a terminal: a few sentences, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rewardlab.records import Estimate

MINUS = "\N{MINUS SIGN}"


def percent(share: float, *, signed: bool = False) -> str:
    """`63.1`: a share, or a difference of shares, in per cent with a true minus sign; with a plus too if `signed`."""
    return format(100 * share, "+.1f" if signed else ".1f").replace("-", MINUS)


class _Number(NamedTuple):
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

    def is_above(self, reference: float) -> bool:
        """Whether the whole interval lies above `reference`."""
        return self.low is not None and self.low > reference

    def is_below(self, reference: float) -> bool:
        """Whether the whole interval lies below `reference`."""
        return self.high is not None and self.high < reference


def findings(result: Mapping[str, Any]) -> list[str]:
    """Three plain sentences: how good, how much of it is length, what it knows beyond the ignorant baselines.

    A fourth one warns of conversations that the training data hold too.

    Args:
        result: the object in accuracy.json.
    """
    estimates = (Estimate.from_dict(one) for members in result["estimates"].values() for one in members)
    found = {one.name: _Number(one.value, one.low, one.high) for one in estimates if one.value is not None}
    sentences = [_how_good(result, found), _how_much_length(found), _what_more(found)]
    return [*sentences, *_how_much_was_seen(result["counts"])]


def format_accuracy(result: Mapping[str, Any]) -> str:
    """All estimates as aligned lines: name, value, interval, observations, or why there is none.

    Args:
        result: the object in accuracy.json.
    """
    counts, options = result["counts"], result["options"]
    scorers = ", ".join(dict.fromkeys(result["scorer"]["names"]))
    size = f"{counts['pairs']:,} pairs, {counts['prompts']:,} prompts"
    intervals = f"{100 * options['level']:g} % intervals, clustered by {options['cluster']}"
    lines = [f"{scorers} on {result['split']}: {size}; {intervals}"]
    groups = [[Estimate.from_dict(one) for one in members] for members in result["estimates"].values()]
    width = max(len(one.name) for members in groups for one in members)
    for members in groups:
        lines += ["", *(_row(one, width) for one in members)]
    return "\n".join(lines)


def _row(one: Estimate, width: int) -> str:
    if one.value is None:
        return f"{one.name:<{width}}  {'-':>7}  {one.reason}"
    ends = f"[{one.low:.3f}, {one.high:.3f}]" if one.low is not None and one.high is not None else ""
    return f"{one.name:<{width}}  {one.value:>7.3f}  {ends:<16}  {one.n:,} {one.unit}"


def _how_good(result: Mapping[str, Any], found: Mapping[str, _Number]) -> str:
    accuracy, order = found.get("accuracy"), found.get("agreement.pairwise")
    if accuracy is None:
        if order is None:
            return "How good it is cannot be said: the data hold neither pairs nor candidates with rewards."
        return f"It orders {order.percent()} of the pairs of candidates of a prompt as their rewards do."
    where = f"{result['counts']['pairs']:,} pairs of the set {result['split']}"
    share = accuracy.percent(f"{100 * result['options']['level']:g} % interval ")
    return f"It prefers the chosen answer in {share} of {where}; {_verdict(accuracy, found)}."


def _verdict(accuracy: _Number, found: Mapping[str, _Number]) -> str:
    if accuracy.is_below(0.5):
        return "that is worse than a coin flip"
    if not accuracy.is_above(0.5):
        return "that is not distinguishable from a coin flip"
    claimed = found["calibration.confidence"].value
    claim = f"its scores claim {percent(claimed)} %"
    if accuracy.is_below(claimed):
        return f"{claim}, so it is overconfident"
    return f"{claim}, so it is underconfident" if accuracy.is_above(claimed) else f"{claim}, about what it keeps"


def _how_much_length(found: Mapping[str, _Number]) -> str:
    longer, chosen = found.get("length.tokens.longer_scores_higher"), found.get("length.tokens.longer_is_chosen")
    if longer is None or chosen is None:
        within = found.get("length.tokens.within_prompt_pearson")
        if within is None:
            return "How much of it is length cannot be said: too few answers differ in length."
        correlation = f"{within.value:+.2f}".replace("-", MINUS)
        return f"Among the answers to one prompt, its scores correlate with length by {correlation}."
    sentence = f"It scores the longer answer higher in {longer.percent()} of the pairs that differ in length"
    sentence += f"; the data prefer it in {percent(chosen.value)} %"
    kinds = [found.get(f"length.tokens.accuracy_{kind}") for kind in ("longer_chosen", "shorter_chosen", "balanced")]
    words = ("where the longer answer was chosen", "where the shorter one was", "where length cannot help")
    parts = [f"{percent(one.value)} % {where}" for one, where in zip(kinds, words, strict=True) if one is not None]
    return f"{sentence}. It is right in {', '.join(parts)}." if parts else f"{sentence}."


def _what_more(found: Mapping[str, _Number]) -> str:
    baselines = (("bag_of_words", "counting words"), ("longer_tokens", "preferring the longer answer"))
    gains = [(found[f"baselines.{name}.gain"], words) for name, words in baselines if f"baselines.{name}.gain" in found]
    parts = " and ".join(f"{gain.points()} over {words}" for gain, words in gains)
    sentence = f"It gains {parts}" if parts else "It was compared with no baseline"
    probes = (("shuffled_prompt", "with the prompts shuffled"), ("response_only", "without the prompt"))
    for name, words in probes:
        lost = found.get(f"ignorance.{name}.lost")
        if lost is not None:
            verdict = "it uses the prompt" if lost.is_above(0.0) else "nothing shows that it uses the prompt"
            return f"{sentence}; {words} it loses {lost.points()}, so {verdict}."
    return f"{sentence}."


def _how_much_was_seen(counts: Mapping[str, int | None]) -> list[str]:
    """Nothing where no conversation is shared, or where it is not known."""
    shared = counts.get("shared_roots")
    if not shared:
        return []
    sentence = f"Of the {counts['roots']:,} conversations evaluated, {shared:,} begin like one of the training data"
    return [f"{sentence}: it may have seen part of them (`data prepare` splits by conversation)."]
