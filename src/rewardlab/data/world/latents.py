"""The structural causal model: author → content and attributes, with dials for how they hang together.

    U ~ N(0, 1)                                        the hidden author's skill
    Z_k = ρ_k U + Σ between + noise,  corr(Z) declared  Gaussian copula over (U, four attributes)
    W_k = [Z_k > Φ⁻¹(1 - rate_k)]                       attribute k is high or low
    level_k = ± magnitude_k                             magnitude drawn apart from the sign
    point asked for is answered, value is right, subject is right: Bernoulli(σ(base + slope · U)), one draw each

A level is a signed count of channels that speak, so it has room for a rewriter's drift at both ends. Everything a
reader can see of a response is its `Reading`; how it is worded hangs on draws of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from rewardlab.config import Config
from rewardlab.data.world.draws import Draws
from rewardlab.data.world.facts import Statement, WorldPrompt

ATTRIBUTES: tuple[str, ...] = ("length", "sentiment", "politeness", "structure")

COVERS = (1.0, 2.0)
CORRECT = (1.2, 2.0)
RELEVANT = (1.6, 2.0)
"""Base and slope of the log-odds in the author's skill U: an asked point is answered, a value is right, the subject
is right."""


@dataclass(frozen=True)
class Scale:
    """How the level of an attribute shows.

    Attributes:
        slots: name of each place that can speak and the channel it speaks through; "negation" borrows the lexemes of
            the adjectives, "disavowal" those of every channel of its attribute.
        magnitudes: possible |level| of an original text; each is equally likely.
        bound: largest |level| that text can show; further drift is cut off there.
        resting: slots that speak at level 0 (length: a count has no negative side).
    """

    slots: Mapping[str, str]
    magnitudes: tuple[int, ...]
    bound: int
    resting: int = 0


SCALES: Mapping[str, Scale] = {
    "length": Scale(
        {
            "first_elaboration": "elaboration",
            "last_elaboration": "elaboration",
            "first_restatement": "restatement",
            "last_restatement": "restatement",
            "lead_filler": "filler",
            "last_filler": "filler",
        },
        magnitudes=(1,),
        bound=3,
        resting=3,
    ),
    "sentiment": Scale(
        {
            "lead_adjective": "adjective",
            "first_adjective": "adjective",
            "verb": "verb",
            "negation": "negation",
            "outcome": "outcome",
        },
        magnitudes=(1, 2, 3),
        bound=5,
    ),
    "politeness": Scale(
        {
            "opening": "opening",
            "modal": "modal",
            "hedge": "hedge",
            "close": "close",
            "politeness_disavowal": "disavowal",
        },
        magnitudes=(1, 2, 3),
        bound=5,
    ),
    "structure": Scale(
        {
            "bullet": "bullet",
            "ordinal": "ordinal",
            "paragraph": "paragraph",
            "signpost": "signpost",
            "structure_disavowal": "disavowal",
        },
        magnitudes=(1, 2, 3),
        bound=5,
    ),
}


@dataclass(frozen=True)
class Levels:
    """Signed strength of each attribute; positive is high (long, positive, polite, structured)."""

    length: int
    sentiment: int
    politeness: int
    structure: int

    def __getitem__(self, attribute: str) -> int:
        return int(getattr(self, attribute))

    def high(self, attribute: str) -> bool:
        """W of the attribute: whether its level is above 0."""
        return self[attribute] > 0

    def put(self, attribute: str, level: int) -> Levels:
        """The same levels but for one, cut off at the bound of what text can show."""
        bound = SCALES[attribute].bound
        return replace(self, **{attribute: max(-bound, min(bound, level))})


@dataclass(frozen=True)
class Reading:
    """Everything that can be read off a response.

    Attributes:
        subject: what the response says it is about; None where it does not say.
        statements: points and values given, in order.
        levels: the attributes.
    """

    subject: str | None
    statements: tuple[Statement, ...]
    levels: Levels


@dataclass(frozen=True)
class Response:
    """One answer to a prompt.

    Attributes:
        prompt: what it answers.
        draws: its own random draws (wording, magnitudes).
        author: skill U of the hidden author.
        reading: its content and attributes.
    """

    prompt: WorldPrompt
    draws: Draws
    author: float
    reading: Reading


class Copula(Config):
    """How attributes hang together with quality and with each other in one set of texts."""

    quality: dict[str, float] = Field(default_factory=dict)
    """Correlation of each attribute's latent score with the author's skill, by attribute name; 0 where not named."""
    between: float = Field(default=0.0, ge=-1.0, le=1.0)
    """Correlation of the attributes' latent scores with each other, beyond what skill brings: partial, given U."""
    rate: dict[str, float] = Field(default_factory=dict)
    """P(W = 1) of each attribute, by name; 0.5 where not named."""

    @model_validator(mode="after")
    def _possible(self) -> Copula:
        for field in ("quality", "rate"):
            unknown = sorted(set(getattr(self, field)) - set(ATTRIBUTES))
            if unknown:
                raise ValueError(f"{field} to name only {', '.join(ATTRIBUTES)}; not {', '.join(unknown)}")
        if any(not -1 < value < 1 for value in self.quality.values()):
            raise ValueError("quality correlations strictly between -1 and 1")
        if any(not 0 < value < 1 for value in self.rate.values()):
            raise ValueError("rates strictly between 0 and 1")
        if not -1 / (len(ATTRIBUTES) - 1) < self.between < 1:
            raise ValueError(f"between above -1/{len(ATTRIBUTES) - 1} and below 1: no such correlation matrix exists")
        return self

    def high(self, draws: Draws, author: float) -> dict[str, bool]:
        """W of every attribute for an author of skill U."""
        noise = _root(self.between) @ [draws.normal(f"{name}.score") for name in ATTRIBUTES]
        result = {}
        for name, own in zip(ATTRIBUTES, noise, strict=True):
            rho = self.quality.get(name, 0.0)
            score = rho * author + math.sqrt(1 - rho**2) * float(own)
            result[name] = score > NormalDist().inv_cdf(1 - self.rate.get(name, 0.5))
        return result


@cache
def _root(between: float) -> npt.NDArray[np.float64]:
    """Lower Cholesky factor of the attributes' correlation matrix given U."""
    count = len(ATTRIBUTES)
    correlation = (1 - between) * np.eye(count) + between * np.ones((count, count))
    return np.asarray(np.linalg.cholesky(correlation), dtype=np.float64)


def respond(seed: int, prompt: WorldPrompt, name: str, copula: Copula) -> Response:
    """The answer called `name` to `prompt`, by an author drawn from the copula."""
    draws = Draws(seed, f"{prompt.key}/{name}")
    author = draws.normal("author")
    high = copula.high(draws, author)
    levels = Levels(**{attribute: _level(draws, attribute, high[attribute]) for attribute in ATTRIBUTES})
    subject = prompt.subject if _succeeds(draws, "relevant", RELEVANT, author) else other_subject(draws, prompt)
    return Response(prompt, draws, author, Reading(subject, _statements(draws, prompt, author), levels))


def do(response: Response, attribute: str, high: bool) -> Response:
    """The exact counterfactual: `attribute` set high or low, every other latent and every other draw as it was."""
    level = _level(response.draws, attribute, high)
    reading = replace(response.reading, levels=response.reading.levels.put(attribute, level))
    return replace(response, reading=reading)


def speaking(response: Response, attribute: str) -> dict[str, int]:
    """The slots of an attribute that speak, with their sign (+1 high pole, -1 low pole).

    The order in which slots join in is drawn once per text: raising the level by one adds one slot and moves none.
    """
    scale = SCALES[attribute]
    level = response.reading.levels[attribute]
    order = response.draws.shuffled(f"{attribute}.slots", list(scale.slots))
    sign = 1 if level + scale.resting > 0 else -1
    return dict.fromkeys(order[: abs(level + scale.resting)], sign)


def wrong_value(draws: Draws, slot: str, prompt: WorldPrompt, point: str) -> str:
    """A value that `point` could have but has not."""
    return draws.pick(slot, [value for value in prompt.domain.possible(point) if value != prompt.truth[point]])


def other_subject(draws: Draws, prompt: WorldPrompt) -> str:
    """A subject of the same domain that the prompt is not about."""
    return draws.pick("wrong_subject", [subject for subject in prompt.domain.subjects if subject != prompt.subject])


def _level(draws: Draws, attribute: str, high: bool) -> int:
    magnitude = draws.pick(f"{attribute}.magnitude", SCALES[attribute].magnitudes)
    return magnitude if high else -magnitude


def _succeeds(draws: Draws, slot: str, odds: tuple[float, float], author: float) -> bool:
    base, slope = odds
    return draws.flag(slot, 1 / (1 + math.exp(-(base + slope * author))))


def _statements(draws: Draws, prompt: WorldPrompt, author: float) -> tuple[Statement, ...]:
    """As many statements as points asked for: one that is not answered gives way to a point nobody asked for."""
    spare = draws.shuffled("spare", sorted(set(prompt.truth) - set(prompt.asked)))
    statements = []
    for index, asked in enumerate(prompt.asked):
        covered = _succeeds(draws, f"covers.{index}", COVERS, author)
        point = asked if covered or not spare else spare.pop()
        right = _succeeds(draws, f"correct.{index}", CORRECT, author)
        value = prompt.truth[point] if right else wrong_value(draws, f"wrong.{index}", prompt, point)
        statements.append(Statement(point, value))
    return tuple(statements)
