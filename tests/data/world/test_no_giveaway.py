"""No cheap way to the latents: not by one token, not by a bag of words, not from the answer alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from rewardlab.data.world import ATTRIBUTES, CHANNELS, Copula, GoldReward, Preference, Response, draw_pair, render
from tests.data.world.conftest import responses

TRAIN = 2000


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+|[^\w\s]+|\n+", text.lower())


def counts(documents: Sequence[list[str]], at_least: int = 5) -> tuple[np.ndarray, list[str]]:
    """Token counts (documents × vocabulary) of the tokens in at least so many documents."""
    frequency = Counter(word for document in documents for word in set(document))
    vocabulary = sorted(word for word, count in frequency.items() if count >= at_least)
    index = {word: column for column, word in enumerate(vocabulary)}
    table = np.zeros((len(documents), len(vocabulary)))
    for row, document in enumerate(documents):
        for word in document:
            if word in index:
                table[row, index[word]] += 1
    return table, vocabulary


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    ranks = rankdata(scores)
    ones = positive.sum()
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * (len(positive) - ones)))


def linear_scores(table: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Scores of the rows after TRAIN by a ridge-penalised logistic regression on the rows before."""
    spread = table[:TRAIN].std(axis=0)
    features = torch.tensor(table[:, spread > 0] / spread[spread > 0])
    target = torch.tensor(labels[:TRAIN].astype(float))
    weights = torch.zeros(features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(1, dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = features[:TRAIN] @ weights + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, target) + penalty * weights @ weights
        value.backward()
        return value

    optimizer.step(loss)
    scores: np.ndarray = (features[TRAIN:] @ weights).detach().numpy()
    return scores


@pytest.fixture(scope="module")
def words(many: list[Response]) -> tuple[np.ndarray, list[str]]:
    return counts([tokens(render(text)) for text in many])


def high(texts: list[Response], attribute: str) -> np.ndarray:
    return np.array([text.reading.levels.high(attribute) for text in texts])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_no_single_token_gives_an_attribute_away(
    many: list[Response], words: tuple[np.ndarray, list[str]], attribute: str
) -> None:
    table, vocabulary = words
    labels = high(many, attribute)
    for column, word in enumerate(vocabulary):
        for feature in (table[:, column], table[:, column] > 0):
            found = auc(feature, labels)
            assert max(found, 1 - found) <= 0.75, word


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_bag_of_words_does_not_give_an_attribute_away(
    many: list[Response], words: tuple[np.ndarray, list[str]], attribute: str
) -> None:
    labels = high(many, attribute)
    found = [auc(linear_scores(words[0], labels, penalty), labels[TRAIN:]) for penalty in (0.003, 0.03)]
    assert max(found) <= 0.95
    # The attribute is there to be learned all the same.
    assert max(found) >= 0.8


def test_length_cannot_be_read_off_the_style_words(many: list[Response], words: tuple[np.ndarray, list[str]]) -> None:
    style = {
        word
        for channel in CHANNELS
        if channel.attribute != "length"
        for lexeme in (*channel.high, *channel.low)
        for word in tokens(lexeme)
    }
    length_words = {
        word
        for channel in CHANNELS
        if channel.attribute == "length"
        for lexeme in channel.high
        for word in tokens(lexeme)
    }
    table, vocabulary = words
    columns = [index for index, word in enumerate(vocabulary) if word in style - length_words]
    assert len(columns) > 200
    labels = high(many, "length")
    assert abs(auc(linear_scores(table[:, columns], labels, 0.03), labels[TRAIN:]) - 0.5) < 0.06


def test_quality_cannot_be_read_off_the_answer_alone() -> None:
    """Words and word pairs of the two answers, without the prompt, find the better one in under 60 % of pairs."""
    gold = GoldReward(per_level={})
    pairs = [draw_pair(0, f"q/{i}", Copula(), gold, Preference(temperature=0, noise=0)) for i in range(3000)]
    pairs = [pair for pair in pairs if pair.chosen_gold > pair.rejected_gold]
    documents = []
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            words = tokens(render(side))
            documents.append([*words, *map("_".join, pairwise(words))])
    table, _ = counts(documents, at_least=10)
    # Half of the differences are turned round, so that there is something to classify.
    sign = np.where(np.arange(len(pairs)) % 2 == 0, 1.0, -1.0)
    difference = (table[0::2] - table[1::2]) * sign[:, None]
    found = linear_scores(difference, sign > 0, 0.03)
    accuracy = np.mean((found > 0) == (sign[TRAIN:] > 0))
    assert accuracy < 0.6


def test_confounding_is_what_makes_style_predict_quality() -> None:
    """With the copula on, the attribute tells the better answer; with it off it does not: the dial works on text."""
    found = {}
    for rho in (0.0, 0.8):
        texts = responses(1500, Copula(quality={"politeness": rho}), tag=f"c{rho}")
        good = np.array([GoldReward(per_level={}).of(text.prompt, text.reading) for text in texts])
        level = np.array([text.reading.levels.politeness for text in texts], dtype=float)
        found[rho] = auc(level, good > np.median(good))
    assert abs(found[0.0] - 0.5) < 0.06
    assert found[0.8] > 0.65
