"""The section on trainings by PPO: curves of rewards, divergence and length, counts, and responses to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from rewardlab.report.blocks import Figure, Section, disclosure, facts, table
from rewardlab.report.curves import Measure, curve
from rewardlab.report.examples import cut, excerpt
from rewardlab.report.html import Content, Html, content, element
from rewardlab.report.inputs import Sample, Stage, Training
from rewardlab.report.words import DASH, flat, plain_number

MOST_STEPS = 12
"""Steps whose responses a page carries along, of each training."""
SAMPLES = "samples.jsonl"
_TERM = "term."
_of_run = partial(Measure, each="run", steps="steps (batches of responses)")

_SCORE = _of_run(
    "score",
    "Reward",
    "mean reward",
    "The weighted sum of the terms, before it is shaped: what the policy is meant to raise. One point of train is one "
    "batch of responses; held-out prompts are answered with the same draws every time.",
    name="ppo-score",
)
_OTHERS = (
    _of_run(
        "kl",
        "Divergence from the start",
        "KL (nats per response)",
        "How far the policy has gone from the one that it began as. An estimate from one batch; far above the rewards "
        "that were gained it says that they were bought dearly, and where it goes on rising beta is too small.",
        name="ppo-kl",
    ),
    _of_run(
        "length",
        "Length",
        "tokens per response",
        "The end of a response counts. A reward that rises along with the length may be the length itself.",
        name="ppo-length",
    ),
    _of_run(
        "entropy",
        "Entropy",
        "nats per token",
        "How undecided the policy is about its next token. A fall towards 0 is a policy that says the same to all.",
        name="ppo-entropy",
    ),
    _of_run(
        "clip_share",
        "Clipped tokens",
        "share of tokens (%)",
        "Tokens without a gradient because their probability has changed enough in this batch. Beyond some 20 % the "
        "learning rate is too large, or there are too many passes.",
        percent=True,
        name="ppo-clip-share",
    ),
    _of_run(
        "explained_variance",
        "What the critic explains",
        "explained variance",
        "1 is all of the variance of the returns, 0 no more than a constant would explain. Below 0 the critic adds "
        "noise to the advantages.",
        name="ppo-explained-variance",
    ),
    _of_run(
        "unfinished",
        "Responses without an end",
        "share of responses (%)",
        "Cut off at the largest number of tokens.",
        percent=True,
        name="ppo-unfinished",
    ),
)
_BETA = _of_run(
    "beta",
    "Price of divergence",
    "beta (reward per nat)",
    "What a nat of divergence costs; it moves where it follows a target.",
    name="ppo-beta",
)


def is_ppo(stage: Stage[Training]) -> bool:
    """Whether a training is one by PPO: its history says which responses had no end."""
    return any(row.measure("unfinished") is not None for row in stage.content.history)


def ppo_findings(stage: Stage[Training]) -> list[str]:
    """How far a training has come, and what it could not learn from."""
    summary = stage.content.summary
    first, last, counts = (_mapping(summary.get(name)) for name in ("first", "last", "counts"))
    found = []
    if first and last:
        found.append(
            f"The mean reward was {_number(first, 'score')} in the first tenth of the steps and "
            f"{_number(last, 'score')} in the last, {_number(last, 'kl')} nats from the policy that it began as; "
            f"a response had {_number(first, 'length')} tokens at first and {_number(last, 'length')} at last."
        )
    found += [f"{counts[name]} {words}." for name, words in _LEFT_OUT.items() if counts.get(name)]
    return found


def ppo_section(stages: Sequence[Stage[Training]]) -> Section:
    """Curves of all trainings, numbers, and some responses of each."""
    several = len(stages) > 1
    measures = [_SCORE, *_terms(stages), *_OTHERS, *([_BETA] if _beta_moves(stages) else [])]
    blocks: list[Figure | Html] = [figure for one in measures for figure in [curve(stages, one)] if figure is not None]
    blocks.append(_numbers(stages))
    for stage in stages:
        of = f" of {stage.label}" if several else ""
        if stage.content.samples:
            blocks.append(element("h3", f"Responses{of}"))
            blocks += _responses(stage.content.samples)
        if stage.content.summary:
            blocks.append(disclosure(f"Summary{of}", facts(flat(stage.content.summary))))
    lead = (
        "A policy that is trained on rewards of what it writes itself. The reward is what is maximised, and not what "
        "was meant: read the responses, and look at the length."
    )
    return Section("ppo", "Training by PPO", lead, blocks)


def _beta_moves(stages: Sequence[Stage[Training]]) -> bool:
    return any(len({row.measure("beta") for row in stage.content.history} - {None}) > 1 for stage in stages)


def _terms(stages: Sequence[Stage[Training]]) -> list[Measure]:
    """The terms of the reward, where there are several: a single one is the reward but for its weight."""
    keys = dict.fromkeys(
        key
        for stage in stages
        for row in stage.content.history
        for key in (row.model_extra or {})
        if key.startswith(_TERM)
    )
    if len(keys) < 2:
        return []
    reading = "A term of the reward, before its weight."
    names = {key: key.removeprefix(_TERM) for key in keys}
    return [
        _of_run(key, f"Term {name}", f"mean of {name}", reading, name=f"ppo-term-{number}")
        for number, (key, name) in enumerate(names.items(), start=1)
    ]


_LEFT_OUT = {
    "skipped": "steps were left out, as none of their responses ended",
    "level": "steps had one reward for all responses and taught nothing",
}
_ENDS = {"score": "Reward", "kl": "KL (nats)", "length": "Tokens"}
_COUNTS = {"responses": "Responses", "unfinished": "Without an end", "empty": "Empty", "skipped": "Batches left out"}


def _numbers(stages: Sequence[Stage[Training]]) -> Html:
    header = ["Run", "Steps", *(f"{title}, first \N{RIGHTWARDS ARROW} last" for title in _ENDS.values())]
    header += ["Best held-out reward", *_COUNTS.values()]
    rows = [[stage.label, *_cells(stage)] for stage in stages]
    caption = "Training in numbers: means of the first and of the last tenth of the steps"
    return table(caption, header, rows, numeric=range(1, len(header)))


def _cells(stage: Stage[Training]) -> Iterator[str]:
    summary = stage.content.summary
    steps = [row.step for row in stage.content.history if row.split == "train"]
    yield f"{max(steps, default=0):,}"
    first, last = (_mapping(summary.get(end)) for end in ("first", "last"))
    for name in _ENDS:
        yield f"{_number(first, name)} \N{RIGHTWARDS ARROW} {_number(last, name)}" if name in first else DASH
    best = _mapping(summary.get("best"))
    by = f" by {summary['best_by']}" if summary.get("best_by") else ""
    yield f"{_number(best, 'score')}{by}, step {best.get('step', DASH)}" if best else DASH
    counts = _mapping(summary.get("counts"))
    for name in _COUNTS:
        yield f"{counts[name]:,}" if isinstance(counts.get(name), int) else DASH


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return plain_number(float(value), 2) if isinstance(value, int | float) else DASH


def _responses(samples: Sequence[Sample]) -> list[Html]:
    """The responses of some steps, evenly spaced with the first and the last, each folded."""
    by_step = [(step, list(own)) for step, own in groupby(samples, key=lambda one: one.step)]
    shown = _spaced(len(by_step), MOST_STEPS)
    note = "Nobody has chosen these texts: they may be hateful or frightening."
    if len(shown) < len(by_step):
        note += f" Those of {len(shown)} of {len(by_step)} recorded steps are here; {SAMPLES} has them all."
    return [element("p", note), *(_step(*by_step[place]) for place in shown)]


def _spaced(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly spaced, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _step(step: int, samples: Sequence[Sample]) -> Html:
    mean = sum(one.score for one in samples) / len(samples)
    header = ("Response", "Reward", "Shaped", "KL (nats)", "Tokens")
    rows = table(f"Responses of step {step:,}", header, [_row(one) for one in samples], numeric=range(1, len(header)))
    return disclosure(f"Step {step:,}: {len(samples)} responses, mean reward {plain_number(mean, 2)}", rows)


def _row(one: Sample) -> list[Content]:
    ended = "" if one.finished else ", cut off"
    numbers = [plain_number(value, 2) for value in (one.score, one.reward, one.kl)]
    return [_texts(one), *numbers, f"{one.tokens:,}{ended}"]


def _texts(one: Sample) -> Html:
    """What was written, behind a line of it."""
    terms = {name: plain_number(value) for name, value in one.terms.items()}
    parts = [
        element("h4", "Prompt"),
        element("pre", cut(one.prompt, SAMPLES)),
        element("h4", "Response"),
        element("pre", cut(one.response, SAMPLES)),
        facts(dict(terms)) if len(terms) > 1 else None,
    ]
    return disclosure(excerpt(one.response) or "(empty)", content(parts))
