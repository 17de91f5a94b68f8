"""The reward manager: named terms, each logged alone, whose weighted sum is what a policy is trained on.

    reward = sum over terms of weight * clip(value)

One field of a term says what it is (`model`, `classifier`, `url`, `length`, ...); the others are its options. Nothing
is guessed about signs: of a classifier the label that is bad or good is named, and the first line of a log has every
term with its weight and what it goes up with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from rewardlab.config import all_of, mismatch
from rewardlab.errors import ConfigError, InputError, ModelError, Problem
from rewardlab.functional.rewards import weighted_sums
from rewardlab.models.classes import ClassScale
from rewardlab.records import Response
from rewardlab.score.choice import ScorerChoice, classifier_of, scorer_of
from rewardlab.score.load import ANSWER
from rewardlab.score.remote import EXPECTED_FORM, RemoteReward, address
from rewardlab.score.response_rules import FormatRule, LengthRule, MissingEndRule, RepetitionRule, ResponseRule

RULES = ("length", "missing_eos", "repetition", "format")
KINDS = ("model", "ensemble", "implicit", "classifier", "url", *RULES)
"""What a term can be; a template is one way to name a model."""

_COMPUTING = (
    "revision",
    "encoding",
    "precision",
    "quantisation",
    "layout",
    "token_budget",
    "trust_remote_code",
    "device",
)
_SCORER = (*_COMPUTING, "template", "label", "endpoint", "references", "yes")
_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "model": _SCORER,
        "ensemble": _SCORER,
        "implicit": _SCORER,
        "classifier": (*_COMPUTING, "bad", "good", "scale"),
        "url": ("timeout", "tries", "batch_size"),
    }
)
"""Which options go with which kind; the rules have theirs inside."""
_COMMON = ("weight", "clip")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SHOWN_TEXT = 80


class RewardTerm(ScorerChoice):
    """One term of a reward: a scorer, a classifier, a server, or a rule. A scorer's name alone stands for it."""

    text_field: ClassVar[str] = "model"

    weight: float = 1.0
    """What the value is multiplied by in the sum; below 0 the policy is driven away from it, at 0 it is only logged."""

    clip: tuple[float, float] | None = None
    """Least and greatest value, before the weight: [-5, 5]. Default: as it comes."""

    classifier: str | None = None
    """Folder or hub id of any sequence classifier, which reads the response alone; bad or good says which label."""

    bad: str | None = None
    """Label of the classifier that is punished, an index or a name: the value is 1 - P(bad)."""

    good: str | None = None
    """Label of the classifier that is rewarded, in place of a bad one: the value is P(good)."""

    scale: ClassScale = "probability"
    """Of a classifier: probability, or logit, the log-odds log((1 - P) / P) of a bad label, which have no ceiling."""

    url: str | None = None
    """Address of a reward server, http://HOST:PORT/get_reward, as OpenRLHF asks it."""

    timeout: float = Field(180.0, gt=0)
    """Seconds to wait for the server's answer."""

    tries: int = Field(5, ge=1)
    """How often the server is asked, at most, where a failure may pass."""

    batch_size: int = Field(64, ge=1)
    """Responses that the server gets at once, at most."""

    length: LengthRule | None = None
    """Length in tokens of the policy: {target: N}, or {} for every token."""

    missing_eos: MissingEndRule | None = None
    """-1 for a response that was cut off before its end: {}."""

    repetition: RepetitionRule | None = None
    """Minus the share of repeated n-grams of words: {n: 4}."""

    format: FormatRule | None = None
    """1 for a response that matches a regular expression, which alone stands for it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the term says it is; exactly one."""
        others = [kind for kind in ("classifier", "url", *RULES) if getattr(self, kind) is not None]
        return (*self.named, *others)

    @property
    def rule(self) -> ResponseRule | None:
        """The rule that the term is; None where it is something else."""
        rules: list[ResponseRule | None] = [getattr(self, name) for name in RULES]
        return next((rule for rule in rules if rule is not None), None)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if len(self.kinds) != 1:
            raise mismatch(" and ".join(self.kinds) or "none of them", f"one of {', '.join(KINDS)}")
        (kind,) = self.kinds
        expected = [*self._strangers(kind), *self._unusable()]
        if expected:
            raise all_of(expected, self)
        return self

    def _strangers(self, kind: str) -> list[str]:
        """Options of other kinds. Values that are the default are not told from those that were not given."""
        own = {kind, *_OPTIONS.get(kind, ()), *_COMMON, *(("template",) if kind == "model" else ())}
        fields = type(self).model_fields
        given = [name for name in fields if name not in KINDS and getattr(self, name) != fields[name].default]
        return [f"no {name}: it says nothing of the kind {kind}" for name in given if name not in own]

    def _unusable(self) -> list[str]:
        expected = []
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            expected.append("clip to be the least value, then a greater one")
        if self.url is not None and address(self.url) is None:
            expected.append(f"url to be {EXPECTED_FORM}")
        if self.classifier is not None and (self.bad is None) == (self.good is None):
            expected.append("bad or good, and not both: the label of the classifier that is punished, or rewarded")
        if self.classifier is not None and self.encoding is not None and self.encoding.form != ANSWER:
            expected.append(f"encoding.form to be {ANSWER}: a classifier reads the response alone")
        return expected


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("expected a name of letters, digits, _ and -, which begins with a letter")
    return name


TermsByName = dict[Annotated[str, AfterValidator(_check_name)], RewardTerm]
"""The terms of a reward in a configuration; names can stand in a log and on a command line."""

Values = Callable[[Sequence[Response]], Sequence[float]]


@dataclass(frozen=True)
class LoadedTerm:
    """A term that can be asked.

    Attributes:
        config: of which.
        values: the values of responses, in the order given, before clip and weight.
        words: the value in words.
        needs_prompt: whether it reads the prompt too.
    """

    config: RewardTerm
    values: Values
    words: str
    needs_prompt: bool


class RewardManager:
    """Asks every term about responses. What training sees: `protocols.RewardTerms`.

    Args:
        loaded: the terms by name, in the order of the log.
    """

    def __init__(self, loaded: Mapping[str, LoadedTerm]) -> None:
        self.loaded = dict(loaded)

    @property
    def weights(self) -> Mapping[str, float]:
        """What each term is multiplied by in the sum, by its name."""
        return {name: term.config.weight for name, term in self.loaded.items()}

    @property
    def needs_tokens(self) -> bool:
        """Whether a term counts tokens of the policy."""
        return any(term.config.rule is not None and term.config.rule.needs_tokens for term in self.loaded.values())

    @property
    def needs_end(self) -> bool:
        """Whether a term asks if a response ended by itself."""
        return any(term.config.rule is not None and term.config.rule.needs_end for term in self.loaded.values())

    @property
    def needs_prompt(self) -> bool:
        """Whether a term reads prompts."""
        return any(term.needs_prompt for term in self.loaded.values())

    @property
    def line(self) -> str:
        """The reward in one line for the beginning of a log: every term with its weight, and what it goes up with."""
        parts: list[str] = []
        for name, term in self.loaded.items():
            weight, clip = term.config.weight, term.config.clip
            way = "only logged" if weight == 0 else "higher is better" if weight > 0 else "lower is better"
            limits = f", between {clip[0]:g} and {clip[1]:g}" if clip else ""
            sign = "-" if weight < 0 else "+" if parts else ""
            parts.append(f"{sign} {abs(weight):g} * {name} [{term.words}{limits}; {way}]".strip())
        return f"reward = {' '.join(parts)}"

    def terms(self, responses: Sequence[Response]) -> dict[str, list[float]]:
        """The value of every term for every response, clipped, in the order given, not yet multiplied by its weight.

        Raises:
            ModelError: a term that has no finite number for a response, or that fails.
            RunError: a server that does not answer.
        """
        return {name: self._values(name, term, responses) for name, term in self.loaded.items()}

    def total(self, values: Mapping[str, Sequence[float]]) -> list[float]:
        """The weighted sum of what `terms` gave, per response."""
        return weighted_sums(values, self.weights)

    def _values(self, name: str, term: LoadedTerm, responses: Sequence[Response]) -> list[float]:
        try:
            values = term.values(responses)
        except ModelError as error:
            raise _within(name, error, _first_alone(name, term, responses)) from error
        except InputError as error:
            raise _within(name, error) from error
        wrong = [
            _without_reward(name, number, responses[number], str(value))
            for number, value in enumerate(values)
            if value is None or not math.isfinite(value)
        ]
        if wrong:
            raise ModelError("A term has no reward for a response", wrong)
        low, high = term.config.clip or (-math.inf, math.inf)
        return [min(max(float(value), low), high) for value in values]


def load_manager(terms: Mapping[str, RewardTerm]) -> RewardManager:
    """Every term, loaded.

    Raises:
        ConfigError: with the problems of all terms that cannot be loaded.
    """
    loaded: dict[str, LoadedTerm] = {}
    problems: list[Problem] = []
    for name, term in terms.items():
        try:
            loaded[name] = _loaded(term)
        except InputError as error:
            problems += _within(name, error).problems
    if problems:
        raise ConfigError("The rewards cannot be loaded", problems)
    return RewardManager(loaded)


def _loaded(term: RewardTerm) -> LoadedTerm:
    """The term, ready to be asked.

    Raises:
        InputError: it cannot be loaded.
    """
    rule = term.rule
    if rule is not None:
        return LoadedTerm(term, lambda responses: [rule.value(one) for one in responses], rule.words, False)
    if term.url is not None:
        server = RemoteReward(term.url, timeout=term.timeout, tries=term.tries, batch_size=term.batch_size)
        return LoadedTerm(term, server.rewards, f"reward of {term.url}", True)
    if term.classifier is None:
        scorer = scorer_of(term)
        return LoadedTerm(term, scorer.of_responses, f"score of {scorer.name}", True)
    classifier = classifier_of(term.classifier, term, bad=term.bad, good=term.good, scale=term.scale)
    return LoadedTerm(term, classifier.of_responses, f"{classifier.name}, of the response alone", False)


def _first_alone(name: str, term: LoadedTerm, responses: Sequence[Response]) -> list[Problem]:
    """The first response that the term fails on when it is asked of it alone; empty where it fails on none."""
    for number, response in enumerate(responses):
        try:
            term.values([response])
        except InputError:
            return [_without_reward(name, number, response, "no reward, asked alone,")]
    return []


def _without_reward(name: str, number: int, response: Response, found: str) -> Problem:
    where = f"rewards.{name}, response {number} (to prompt {response.prompt.id})"
    return Problem(where, f"{found} for {_shown(response)}", "a finite number")


def _within(name: str, error: InputError, more: Sequence[Problem] = ()) -> InputError:
    """The error with the term's name in front of every place, and more problems; of one without a place, its words."""
    if not error.problems:
        problem = Problem(f"rewards.{name}", error.summary, "a term that can be used")
        return ModelError("A term of the reward cannot be used", [problem, *more])
    placed = [Problem(f"rewards.{name}: {one.where}", one.found, one.expected, one.remedy) for one in error.problems]
    return type(error)(error.summary, [*placed, *more])


def _shown(response: Response) -> str:
    text = response.text if len(response.text) <= _SHOWN_TEXT else f"{response.text[:_SHOWN_TEXT]}..."
    return repr(text)
