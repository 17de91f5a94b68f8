from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.data.world import ATTRIBUTES, CHANNELS, SCALES, Copula, Levels, Response, do, quality, speaking
from rewardlab.errors import ConfigError
from tests.data.world.conftest import responses

SE = 1 / math.sqrt(3000)


def highs(texts: list[Response], attribute: str) -> np.ndarray:
    return np.array([text.reading.levels.high(attribute) for text in texts], dtype=float)


def test_attributes_are_independent_of_all_else_by_default(many: list[Response]) -> None:
    columns = np.array([*(highs(many, name) for name in ATTRIBUTES), [text.author for text in many]])
    off_diagonal = np.corrcoef(columns)[~np.eye(5, dtype=bool)]
    assert np.abs(off_diagonal).max() < 4 * SE
    assert np.abs(columns[:4].mean(axis=1) - 0.5).max() < 4 * 0.5 * SE


@pytest.mark.parametrize("rho", [-0.6, 0.3, 0.8])
def test_quality_dial_is_the_copula_correlation(rho: float) -> None:
    """A normal score cut at its median correlates with U as ρ·√(2/π) (point-biserial correlation)."""
    texts = responses(3000, Copula(quality={"politeness": rho}))
    author = np.array([text.author for text in texts])
    found = np.corrcoef(highs(texts, "politeness"), author)[0, 1]
    assert abs(found - rho * math.sqrt(2 / math.pi)) < 4 * SE
    assert abs(np.corrcoef(highs(texts, "sentiment"), author)[0, 1]) < 4 * SE


def test_between_dial_is_the_correlation_of_the_scores() -> None:
    """P(both above their medians) = 1/4 + asin(ρ)/2π, so the correlation of the two flags is 2·asin(ρ)/π."""
    texts = responses(3000, Copula(between=0.5))
    found = np.corrcoef([highs(texts, name) for name in ATTRIBUTES])[~np.eye(4, dtype=bool)]
    assert np.abs(found - 2 * math.asin(0.5) / math.pi).max() < 4 * SE


def test_both_dials_together() -> None:
    """Given U the scores have correlation `between`; together ρ₁ρ₂ + between·√(1-ρ₁²)·√(1-ρ₂²)."""
    texts = responses(3000, Copula(quality={"length": 0.6, "sentiment": -0.6}, between=0.3))
    latent = -0.36 + 0.3 * 0.64
    found = np.corrcoef(highs(texts, "length"), highs(texts, "sentiment"))[0, 1]
    assert abs(found - 2 * math.asin(latent) / math.pi) < 4 * SE


def test_rates_are_met() -> None:
    texts = responses(3000, Copula(rate={"structure": 0.2, "length": 0.9}))
    assert abs(highs(texts, "structure").mean() - 0.2) < 4 * 0.4 * SE
    assert abs(highs(texts, "length").mean() - 0.9) < 4 * 0.3 * SE


def test_better_authors_write_better_answers(many: list[Response]) -> None:
    author = np.array([text.author for text in many])
    parts = np.array([quality(text.prompt, text.reading) for text in many])
    for column in parts.T:
        assert np.corrcoef(author, column)[0, 1] > 0.2
        assert 0.5 < column.mean() < 0.9


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_channels_fire_with_the_stated_probability(many: list[Response], attribute: str) -> None:
    """Every slot of a high text speaks with probability .4 to .7."""
    high = [text for text in many if text.reading.levels.high(attribute)]
    for slot in SCALES[attribute].slots:
        rate = np.mean([slot in speaking(text, attribute) for text in high])
        assert 0.4 - 4 * 0.5 / math.sqrt(len(high)) < rate < 0.7


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_has_room_for_drift(many: list[Response], attribute: str) -> None:
    largest = max(abs(text.reading.levels[attribute]) for text in many)
    assert largest + 2 <= SCALES[attribute].bound
    assert all(text.reading.levels[attribute] != 0 for text in many)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_do_changes_the_attribute_and_no_other_latent(many: list[Response], attribute: str) -> None:
    for text in many[:200]:
        for high in (True, False):
            changed = do(text, attribute, high)
            assert changed.reading.levels.high(attribute) == high
            assert changed.reading.levels.put(attribute, text.reading.levels[attribute]) == text.reading.levels
            assert changed.reading.statements == text.reading.statements
            assert changed.reading.subject == text.reading.subject
        assert do(text, attribute, text.reading.levels.high(attribute)) == text


def test_levels_are_cut_off_at_their_bound() -> None:
    levels = Levels(0, 0, 0, 0)
    assert levels.put("sentiment", 99).sentiment == SCALES["sentiment"].bound
    assert levels.put("length", -99).length == -SCALES["length"].bound


def test_lexicon_is_large_and_a_fifth_is_held_out() -> None:
    for attribute in ATTRIBUTES:
        assert len([channel for channel in CHANNELS if channel.attribute == attribute]) >= 3
    for channel in CHANNELS:
        every = [*channel.high, *channel.low]
        assert len(every) >= 30, channel.name
        assert len(set(every)) == len(every), channel.name
        for pole in (+1, -1):
            kept, out = channel.lexemes(pole, "training"), channel.lexemes(pole, "held_out")
            assert not set(kept) & set(out)
            assert set(kept) | set(out) == set(channel.lexemes(pole, "all"))
            assert len(out) * 5 == len(kept) + len(out)


def test_impossible_dials_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="between above"):
        Copula.build({"between": -0.9})
    with pytest.raises(ConfigError, match="loudness"):
        Copula.build({"quality": {"loudness": 0.2}})
    with pytest.raises(ConfigError, match="strictly between"):
        Copula.build({"quality": {"length": 1.0}})
    with pytest.raises(ConfigError, match="strictly between"):
        Copula.build({"rate": {"length": 0.0}})
