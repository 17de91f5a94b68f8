from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.data.world import (
    Copula,
    GoldReward,
    Levels,
    Preference,
    Reading,
    Statement,
    draw_pair,
    parse,
    quality,
    read_prompt,
)
from rewardlab.errors import ConfigError

PROMPT = read_prompt("Notes on Risotto: price low; noise high; risk high. What are the price and the origin?")
NEUTRAL = Levels(0, 0, 0, 0)


def reading(*statements: tuple[str, str], subject: str = "Risotto", levels: Levels = NEUTRAL) -> Reading:
    return Reading(subject, tuple(Statement(*statement) for statement in statements), levels)


def test_quality_by_hand() -> None:
    assert quality(PROMPT, reading(("price", "low"), ("origin", "south"))) == (1, 1, 1)
    assert quality(PROMPT, reading(("price", "low"), ("risk", "high"))) == (0.5, 1, 1)
    assert quality(PROMPT, reading(("price", "high"), ("risk", "high"), subject="Goulash")) == (0.5, 0.5, 0)
    # Said twice is said once; what the prompt does not tell is not right.
    assert quality(PROMPT, reading(("price", "low"), ("price", "low"), ("demand", "low"))) == (0.5, 2 / 3, 1)
    assert quality(PROMPT, reading()) == (0, 0, 1)


def test_gold_by_hand() -> None:
    levels = Levels(length=1, sentiment=-2, politeness=3, structure=0)
    answer = reading(("price", "low"), ("risk", "low"), levels=levels)
    weights = {"length": 0.5, "sentiment": 0.25}
    plain = GoldReward(coverage=2, correctness=4, relevance=1, per_level=weights)
    assert plain.of(PROMPT, answer) == pytest.approx(2 * 0.5 + 4 * 0.5 + 1 + 0.5 * 1 + 0.25 * -2)
    assert plain.is_additive
    dialled = GoldReward(
        coverage=2, correctness=4, relevance=1, per_level=weights, interaction=0.1, length_saturation=0.5
    )
    expected = 1 + 2 + 1 + 0.5 * (1 - math.exp(-0.5)) / 0.5 + 0.25 * -2 + 0.1 * -2 * 3
    assert dialled.of(PROMPT, answer) == pytest.approx(expected)
    assert not dialled.is_additive


def test_saturation_makes_each_further_level_worth_less_and_is_linear_at_zero() -> None:
    gold = GoldReward(per_level={"length": 1.0}, length_saturation=0.4)
    values = [gold.of_levels(Levels(level, 0, 0, 0)) for level in range(-3, 4)]
    steps = np.diff(values)
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()
    nearly = GoldReward(per_level={"length": 1.0}, length_saturation=1e-9)
    assert nearly.of_levels(Levels(3, 0, 0, 0)) == pytest.approx(3, rel=1e-6)


def test_gold_refuses_unknown_attributes() -> None:
    with pytest.raises(ConfigError, match="loudness"):
        GoldReward.build({"per_level": {"loudness": 1}})


def test_preference_probability_by_hand() -> None:
    rater = Preference(temperature=2.0, noise=0.1)
    assert rater.probability(3.0) == pytest.approx(0.1 + 0.8 / (1 + math.exp(-1.5)))
    assert rater.probability(3.0) + rater.probability(-3.0) == pytest.approx(1)
    assert Preference(temperature=0, noise=0).probability(1e-9) == 1
    assert Preference(temperature=0, noise=0).probability(0.0) == 0.5
    assert Preference(temperature=1e-6, noise=0.0).probability(-1e6) == 0


def test_labels_follow_bradley_terry_with_noise() -> None:
    """Mean and calibration: Σ(won - P) is within 4 standard errors of 0 overall and in bands of the gap."""
    rater = Preference(temperature=1.5, noise=0.08)
    pairs = [draw_pair(3, f"bt/{i}", Copula(), GoldReward(), rater) for i in range(6000)]
    gaps = np.array([abs(pair.chosen_gold - pair.rejected_gold) for pair in pairs])
    better_won = np.array([pair.chosen_gold > pair.rejected_gold for pair in pairs])
    expected = np.array([rater.probability(gap) for gap in gaps])
    for low, high in ((0.0, 99.0), (0.1, 1.0), (1.0, 3.0), (3.0, 99.0)):
        band = (gaps > low) & (gaps <= high)
        error = 4 * math.sqrt((expected * (1 - expected))[band].sum())
        assert abs((better_won - expected)[band].sum()) < error


def test_pairs_are_two_answers_to_one_prompt_and_carry_their_latents() -> None:
    pair = draw_pair(0, "p/1", Copula(), GoldReward(), Preference())
    record = pair.record()
    assert record.prompt == pair.chosen.prompt.record
    assert parse(record.chosen).reading == pair.chosen.reading
    assert parse(record.rejected).reading == pair.rejected.reading
    assert record.meta["chosen"]["gold"] == pair.chosen_gold
    assert GoldReward().of(
        read_prompt(record.prompt.messages[0].content), parse(record.rejected).reading
    ) == pytest.approx(pair.rejected_gold)
    # The label is drawn apart from the answers: another rater chooses between the same two texts.
    other = draw_pair(0, "p/1", Copula(), GoldReward(), Preference(noise=0.5)).record()
    assert {other.chosen, other.rejected} == {record.chosen, record.rejected}
