"""`rewardlab audit simulate`: the estimators where the truth is known, over many samples of the synthetic world.

Every sample has texts of its own; a rewriter with declared drift rewrites them three times; the gold reward, or any
reward model, scores them. Two dials are turned, each under both laws of the rewriter:

    confounding   correlation of the attribute with the author's skill, which moves the quality of the answer; the
                  rewriter drifts alike in both directions
    asymmetry     a: rewrites towards W = 1 drift by (1 + a) times `drift`, those towards W = 0 by (1 - a) times; at the
                  base confounding

    replacement   a rewrite puts a house style, and its drift, in place of what was there
    cumulation    a rewrite adds its drift to what was there

The other attributes are independent of W, so that all confounding runs through quality. What is made of the samples:
`simulated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from tqdm import tqdm

from rewardlab.audit.simulated import LAWS, Law, Sample, Setting, causes_of, findings, rows_of, stated_biases
from rewardlab.config import Config
from rewardlab.data.world.effects import Reward, exact_effects, scored_by
from rewardlab.data.world.facts import write_prompt
from rewardlab.data.world.gold import GoldReward
from rewardlab.data.world.latents import Copula, Reading, Response, respond
from rewardlab.data.world.rewriter import Direction, Rewriter
from rewardlab.errors import DataError, Problem
from rewardlab.functional.effects import Rewards
from rewardlab.protocols import Folder
from rewardlab.score.load import load_scorer
from rewardlab.store.files import write_json

RESULT = "simulation.json"
GOLD = "gold"
Attribute = Literal["length", "sentiment", "politeness", "structure"]
Correlation = Annotated[float, Field(gt=-1.0, lt=1.0)]
_SATURATION: Mapping[Law, float] = {"replacement": 1.0, "cumulation": 0.0}


class Simulation(Config):
    """Configuration of `audit simulate`."""

    model: str | None = None
    """A reward model, as `rewardlab score` takes it; the gold reward where none is given."""

    device: str = "auto"
    """Of the model: cpu, cuda, mps or auto."""

    gold: GoldReward = GoldReward(per_level={"length": 0.2, "sentiment": 0.4, "politeness": 0.4, "structure": 0.4})
    """The reward, unless a model is given."""

    attribute: Attribute = "sentiment"
    """Whose effect is estimated."""

    samples: int = Field(200, ge=2)
    """Samples to a setting, each from a seed of its own."""

    texts: int = Field(200, ge=50)
    """Texts to a sample."""

    share: float = Field(0.7, ge=0.2, le=0.8)
    """P(W = 1)."""

    laws: list[Law] = Field(default=["replacement", "cumulation"], min_length=1)
    """Of the rewriter."""

    confounding: list[Correlation] = Field(default=[0.0, 0.2, 0.4, 0.6, 0.8], min_length=1)
    """Correlations of the attribute with the author's skill, tried with a symmetric rewriter."""

    base: Correlation = 0.4
    """Confounding while the asymmetry varies."""

    asymmetry: list[Annotated[float, Field(ge=-1.0, le=1.0)]] = Field(default=[0.0, 0.25, 0.5, 0.75, 1.0], min_length=1)
    """Asymmetries of the rewriter's drift. 0: both directions drift alike; 1: only towards W = 1; -1: only to 0."""

    drift: dict[Attribute, float] = Field(default={"politeness": 0.5, "structure": 0.5})
    """What a rewrite changes besides, in levels per attribute, in the mean of both directions. Up to half a level,
    rewrites of rewrites keep within the bounds of what text can show, as the stated laws ask."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage that the intervals claim."""

    seed: int = Field(0, ge=0)
    """Of the first sample; the others follow it."""

    limit: int | None = Field(None, ge=1)
    """Draw at most so many samples (smoke run), but two."""

    @model_validator(mode="after")
    def _attribute_keeps_still(self) -> Self:
        if self.attribute in self.drift:
            raise ValueError(f"expected drift of other attributes than {self.attribute}, which is the one rewritten")
        return self

    @property
    def seeds(self) -> range:
        """A seed per sample."""
        count = self.samples if self.limit is None else max(2, min(self.samples, self.limit))
        return range(self.seed, self.seed + count)

    def settings(self) -> list[Setting]:
        """Every setting once, those of one confounding behind each other."""
        found = [Setting(law, one, 0.0) for law in self.laws for one in self.confounding]
        found += [Setting(law, self.base, one) for law in self.laws for one in self.asymmetry]
        return sorted(set(found), key=lambda one: (one.confounding, list(LAWS).index(one.law), one.asymmetry))


@dataclass(frozen=True)
class Simulated:
    """What simulation.json holds: a row per setting, estimator and target, and RATE's error by cause."""

    result: dict[str, Any]

    def row(self, setting: Setting, estimator: str, target: str = "ATE") -> dict[str, Any]:
        """The row of a setting, an estimator and a target; StopIteration where there is none."""
        wanted = {**setting._asdict(), "estimator": estimator, "target": target}
        return next(row for row in self.result["rows"] if wanted.items() <= row.items())

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return findings(self.result)


def simulate(config: Simulation, run: Folder) -> Simulated:
    """Draw, rewrite, score and estimate; writes simulation.json.

    Raises:
        ModelError: a model that cannot be used.
        DataError: a sample with fewer than two texts of either W, or the same reward for every text.
    """
    scorer = None if config.model is None else load_scorer(config.model, device=config.device)
    reward: Reward = config.gold if scorer is None else scored_by(scorer)
    settings = config.settings()
    found: dict[Setting, list[Sample]] = {setting: [] for setting in settings}
    with tqdm(total=len(settings) * len(config.seeds), unit="sample", desc="simulating", mininterval=0.5) as bar:
        for confounding, members in groupby(settings, key=lambda one: one.confounding):
            tried = list(members)
            for seed in config.seeds:
                texts, known = texts_of(config, confounding, seed), remembered(reward)
                for setting in tried:
                    found[setting].append(sample(texts, config.attribute, rewriter(config, setting), known))
                    bar.update()
    result = {
        "reward": GOLD if scorer is None else scorer.name,
        "samples": len(config.seeds),
        "options": config.model_dump(mode="json"),
        "rows": [
            row
            for setting, samples in found.items()
            for row in rows_of(setting, samples, config.level, _stated(config, setting))
        ],
        "causes": [causes_of(setting, samples) for setting, samples in found.items()],
    }
    write_json(run.path(RESULT), result)
    return Simulated(result)


def texts_of(config: Simulation, confounding: float, seed: int) -> list[Response]:
    """The texts of one sample, each an answer to a prompt of its own.

    Raises:
        DataError: fewer than two of either W.
    """
    attribute = config.attribute
    copula = Copula(quality={attribute: confounding}, rate={attribute: config.share})
    prompts = (write_prompt(seed, f"simulation/{number}") for number in range(config.texts))
    texts = [respond(seed, prompt, "a", copula) for prompt in prompts]
    treated = sum(text.reading.levels.high(attribute) for text in texts)
    if not 2 <= treated <= len(texts) - 2:
        found = f"{treated} of {len(texts)} texts with W = 1 at seed {seed}"
        raise DataError("too few texts", [Problem("texts", found, "two or more of either W", "Raise --texts.")])
    return texts


def rewriter(config: Simulation, setting: Setting) -> Rewriter:
    """The rewriter of a setting."""
    high, low = (
        Direction(drift={name: (1.0 + sign * setting.asymmetry) * value for name, value in config.drift.items()})
        for sign in (1.0, -1.0)
    )
    return Rewriter(high=high, low=low, saturation=_SATURATION[setting.law])


def remembered(reward: Reward) -> Reward:
    """The reward of the texts of one sample, each asked for once: rewrites that leave alike, or undo, are many."""
    known: dict[tuple[str, Reading], float] = {}

    def of(responses: Sequence[Response]) -> list[float]:
        keys = [(one.prompt.key, one.reading) for one in responses]
        new = {key: one for key, one in zip(keys, responses, strict=True) if key not in known}
        if new:
            known.update(zip(new, reward(list(new.values())), strict=True))
        return [known[key] for key in keys]

    return of


def sample(texts: Sequence[Response], attribute: str, by: Rewriter, reward: Reward) -> Sample:
    """Texts rewritten three times and scored, with both truths of each text."""
    treated = np.array([text.reading.levels.high(attribute) for text in texts], dtype=bool)
    stages = [list(texts)]
    for step in range(3):
        towards = ~treated if step % 2 == 0 else treated
        stages.append([by.rewrite(text, attribute, bool(high)) for text, high in zip(stages[-1], towards, strict=True)])
    original, rewrite, rerewrite, third = (np.array(reward(stage), dtype=np.float64) for stage in stages)
    rewritten = (exact_effects(stages[1], attribute, reward) + exact_effects(stages[2], attribute, reward)) / 2.0
    rewards = Rewards(treated, original, rewrite, rerewrite, third)
    return Sample(rewards, exact_effects(texts, attribute, reward), rewritten)


def _stated(config: Simulation, setting: Setting) -> dict[tuple[str, str], float]:
    """The biases that the laws state for the gold reward where it is additive; none for other rewards."""
    if config.model is not None or not config.gold.is_additive:
        return {}
    drift = sum(config.gold.per_level.get(name, 0.0) * value for name, value in config.drift.items())
    one, zero = (1.0 + setting.asymmetry) * drift, (1.0 - setting.asymmetry) * drift
    return stated_biases(setting.law, one, zero, config.share)
