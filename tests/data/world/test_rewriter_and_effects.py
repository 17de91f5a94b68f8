"""The rewriter keeps its declared laws, and the truths are exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rewardlab.data.world import (
    ATTRIBUTES,
    Copula,
    Direction,
    GoldReward,
    Levels,
    Response,
    Rewriter,
    averaged,
    do,
    exact_effects,
    quality,
    render,
    scored_by,
    triples,
    truths,
)
from rewardlab.data.world.facts import Statement
from rewardlab.errors import ConfigError
from rewardlab.records import Prompt
from tests.data.world.conftest import responses

GOLD = GoldReward(per_level={"length": 0.5, "sentiment": 0.3, "politeness": -0.4, "structure": 0.2})
HIGH = {"length": 0.5, "politeness": -0.75, "structure": 0.25}
LOW = {"length": -0.5, "politeness": 0.5, "structure": 0.25}


def rate(texts: Sequence[Response], rewriter: Rewriter, attribute: str = "sentiment") -> np.ndarray:
    """RATE's per-text contrast: D - S for W = 1, S - D for W = 0, in gold reward."""
    chain = triples(texts, attribute, rewriter)
    back = np.array(GOLD([triple.back for triple in chain]))
    single = np.array(GOLD([triple.rewrite for triple in chain]))
    sign = np.array([1 if text.reading.levels.high(attribute) else -1 for text in texts])
    return sign * (back - single)


def off_target(drift: dict[str, float]) -> float:
    return sum(GOLD.per_level[name] * value for name, value in drift.items())


@pytest.fixture(scope="module")
def confounded() -> list[Response]:
    """Audited texts whose sentiment goes with quality and with the other attributes."""
    return responses(2500, Copula(quality={"sentiment": 0.5}, between=0.4, rate={"sentiment": 0.7}), tag="r")


def test_a_faultless_rewriter_writes_the_exact_counterfactual(many: list[Response]) -> None:
    for text in many[:100]:
        for attribute in ATTRIBUTES:
            high = not text.reading.levels.high(attribute)
            rewritten = Rewriter().rewrite(text, attribute, high)
            assert render(rewritten) == render(do(text, attribute, high))
            assert render(Rewriter().rewrite(rewritten, attribute, not high)) == render(text)


def test_law_of_replacement(confounded: list[Response]) -> None:
    """s = 1: ATT, ATU and ATE are each biased by Σ a_k (δ_{k,→1} - δ_{k,→0}), and naive is confounded."""
    rewriter = Rewriter(high=Direction(drift=HIGH), low=Direction(drift=LOW), saturation=1.0)
    found = rate(confounded, rewriter)
    truth = exact_effects(confounded, "sentiment", GOLD)
    bias = off_target(HIGH) - off_target(LOW)
    assert abs(bias) > 0.5
    for error, group in zip(
        averaged(confounded, "sentiment", found - truth), averaged_sizes(confounded, "sentiment"), strict=True
    ):
        assert abs(error - bias) < 4 * (found - truth).std() / math.sqrt(group)
    rewards = np.array(GOLD(confounded))
    treated = np.array([text.reading.levels.high("sentiment") for text in confounded])
    naive = rewards[treated].mean() - rewards[~treated].mean()
    assert naive - truth.mean() > 1.0


def test_law_of_cumulation(confounded: list[Response]) -> None:
    """s = 0: the ATT is off by +δ_high, the ATU by -δ_low, the ATE by their mixture."""
    rewriter = Rewriter(high=Direction(drift=HIGH), low=Direction(drift=LOW), saturation=0.0)
    errors = rate(confounded, rewriter) - exact_effects(confounded, "sentiment", GOLD)
    sizes = averaged_sizes(confounded, "sentiment")
    share = sizes[0] / sizes[2]
    expected = (off_target(HIGH), -off_target(LOW), share * off_target(HIGH) - (1 - share) * off_target(LOW))
    for error, value, group in zip(averaged(confounded, "sentiment", errors), expected, sizes, strict=True):
        assert abs(error - value) < 4 * errors.std() / math.sqrt(group)


def averaged_sizes(texts: list[Response], attribute: str) -> tuple[int, int, int]:
    treated = sum(text.reading.levels.high(attribute) for text in texts)
    return treated, len(texts) - treated, len(texts)


def test_symmetric_drift_leaves_rate_unbiased_under_replacement(confounded: list[Response]) -> None:
    side = Direction(drift=HIGH, variance={"length": 0.3})
    errors = rate(confounded, Rewriter(high=side, low=side, saturation=1.0)) - exact_effects(
        confounded, "sentiment", GOLD
    )
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(len(errors))


@pytest.mark.parametrize("saturation", [0.0, 0.5, 1.0])
def test_drift_has_the_declared_mean_and_variance(many: list[Response], saturation: float) -> None:
    side = Direction(drift={"politeness": 0.4}, variance={"politeness": 0.25})
    rewriter = Rewriter(high=side, saturation=saturation, house={"politeness": 0.5})
    before = np.array([text.reading.levels.politeness for text in many], dtype=float)
    after = np.array([rewriter.rewrite(text, "length", True).reading.levels.politeness for text in many], dtype=float)
    change = after - ((1 - saturation) * before + saturation * 0.5)
    assert abs(change.mean() - 0.4) < 4 * change.std() / math.sqrt(len(many))
    # Rounding at random adds at most a quarter, and a twelfth or more where the fractions spread.
    assert 0.25 - 0.05 < change.var() < 0.25 + 0.25 + 0.05


def test_house_style_is_idempotent(many: list[Response]) -> None:
    rewriter = Rewriter(
        high=Direction(drift=HIGH, variance={"politeness": 1.0}), low=Direction(drift=LOW), saturation=1.0
    )
    for text in many[:200]:
        once = rewriter.rewrite(text, "sentiment", True)
        assert rewriter.rewrite(once, "sentiment", True) == once
        assert rewriter.rewrite(rewriter.rewrite(text, "sentiment", False), "sentiment", True) == once


def test_independent_draws_differ_and_equal_draws_agree(many: list[Response]) -> None:
    rewriter = Rewriter(high=Direction(variance={"politeness": 1.0}), saturation=1.0)
    levels = np.array(
        [
            [rewriter.rewrite(text, "sentiment", True, draw).reading.levels.politeness for draw in (0, 1, 0)]
            for text in many[:1000]
        ]
    )
    assert (levels[:, 0] == levels[:, 2]).all()
    assert abs(np.corrcoef(levels[:, 0], levels[:, 1])[0, 1]) < 4 / math.sqrt(1000)


def test_failures_and_damage_come_at_their_rate(many: list[Response]) -> None:
    rewriter = Rewriter(high=Direction(failure=0.3, damage=0.2), low=Direction(failure=0.1))
    low = [text for text in many if not text.reading.levels.high("structure")]
    raised = [rewriter.rewrite(text, "structure", True) for text in low]
    failed = np.mean([not text.reading.levels.high("structure") for text in raised])
    assert abs(failed - 0.3) < 4 * math.sqrt(0.21 / len(low))
    lowered = [rewriter.rewrite(text, "structure", False) for text in many if text not in low]
    assert abs(np.mean([text.reading.levels.high("structure") for text in lowered]) - 0.1) < 4 * math.sqrt(0.09 / 1400)
    right_before = sum(quality(text.prompt, text.reading).correctness * len(text.reading.statements) for text in low)
    right_after = sum(quality(text.prompt, text.reading).correctness * len(text.reading.statements) for text in raised)
    assert abs(right_after / right_before - 0.8) < 4 * math.sqrt(0.16 / right_before)


def test_points_that_the_notes_do_not_have_are_kept(many: list[Response]) -> None:
    """A policy answers what nobody has told it; the rewriter changes the style and no facts."""
    text = next(text for text in many if len(text.prompt.truth) < len(text.prompt.domain.values) + 1)
    unknown = next(point for point in text.prompt.domain.values if point not in text.prompt.truth)
    statements = (*text.reading.statements, Statement(unknown, "high"))
    told = replace(text, reading=replace(text.reading, statements=statements))
    rewriter = Rewriter(high=Direction(damage=1.0), low=Direction(damage=1.0))
    rewritten = rewriter.rewrite(told, "sentiment", not told.reading.levels.high("sentiment"))
    assert rewritten.reading.statements[-1] == Statement(unknown, "high")
    assert quality(text.prompt, rewritten.reading).correctness == 0.0


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_gold_effect_is_the_weight_times_the_change_of_level(many: list[Response], attribute: str) -> None:
    texts = many[:200]
    steps = [
        do(text, attribute, True).reading.levels[attribute] - do(text, attribute, False).reading.levels[attribute]
        for text in texts
    ]
    expected = GOLD.per_level[attribute] * np.array(steps)
    np.testing.assert_allclose(exact_effects(texts, attribute, GOLD), expected, atol=1e-12)
    assert min(steps) >= 2


def test_the_two_truths_agree_for_an_additive_reward_and_only_there(many: list[Response]) -> None:
    rewriter = Rewriter(high=Direction(drift=HIGH), low=Direction(drift=LOW), saturation=1.0)
    chain = triples(many[:400], "sentiment", rewriter)
    additive = truths(chain, "sentiment", GOLD)
    np.testing.assert_allclose(additive.original, additive.rewritten, atol=1e-12)
    bent = GoldReward(interaction=0.3)
    learned = truths(chain, "sentiment", bent)
    # By hand: the interaction adds η · politeness per level of sentiment, at whatever politeness the text then has.
    steps = np.array([2 * abs(triple.original.reading.levels.sentiment) for triple in chain])
    met = np.array([(t.rewrite.reading.levels.politeness + t.back.reading.levels.politeness) / 2 for t in chain])
    np.testing.assert_allclose(learned.rewritten, steps * (0.1 + 0.3 * met), atol=1e-9)
    assert np.abs(learned.original - learned.rewritten).max() > 0.5


class CharacterCount:
    """A scorer whose exact effect can be counted."""

    name = "characters"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[float(len(text)) for text in texts] for texts in completions]


def test_exact_effect_of_any_scorer(many: list[Response]) -> None:
    texts = many[:50]
    found = exact_effects(texts, "length", scored_by(CharacterCount()))
    expected = [len(render(do(text, "length", True))) - len(render(do(text, "length", False))) for text in texts]
    np.testing.assert_array_equal(found, expected)
    assert found.min() > 0


def test_effects_of_an_empty_group_are_undefined(many: list[Response]) -> None:
    high = [text for text in many[:50] if text.reading.levels.high("length")]
    found = averaged(high, "length", np.ones(len(high)))
    assert found.att == found.ate == 1
    assert math.isnan(found.atu)


def test_rewriter_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError) as caught:
        Rewriter.build(
            {"high": {"drift": {"loudness": 1}, "failure": 2}, "low": {"variance": {"length": -1}}, "house": {"x": 0}}
        )
    assert len(caught.value.problems) == 4
    assert Levels(0, 0, 0, 0)["length"] == 0
