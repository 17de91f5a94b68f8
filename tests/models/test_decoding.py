"""How tokens are chosen: the distributions of transformers' own processors, and draws with their probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rewardlab.errors import ModelError
from rewardlab.models.decoding import Decoding, drawn, log_probabilities, warped

VOCABULARY = 50


def logits(rows: int = 20, seed: int = 0) -> Tensor:
    return 3.0 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def ids_and_seen(rows: int = 20) -> tuple[Tensor, Tensor]:
    ids = torch.randint(VOCABULARY, (rows, 7), generator=torch.Generator().manual_seed(1))
    return ids, torch.zeros(rows, VOCABULARY, dtype=torch.bool).scatter(1, ids, True)


def theirs(decoding: Decoding, ids: Tensor, scores: Tensor) -> Tensor:
    """What transformers samples from, in the order in which it applies its processors."""
    steps: list[LogitsProcessor] = []
    if decoding.repetition_penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty))
    steps.append(TemperatureLogitsWarper(decoding.temperature))
    if decoding.top_k:
        steps.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1.0:
        steps.append(TopPLogitsWarper(decoding.top_p))
    return torch.softmax(LogitsProcessorList(steps)(ids, scores), dim=-1)


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(),
        Decoding(0.7),
        Decoding(2.0, top_k=5),
        Decoding(1.0, top_p=0.9),
        Decoding(1.0, top_p=0.01),
        Decoding(0.9, top_k=9, top_p=0.8),
        Decoding(1.0, repetition_penalty=1.3),
        Decoding(0.9, 20, 0.9, 1.2),
        Decoding(1.0, top_k=1000),
    ],
    ids=str,
)
def test_distributions_are_those_of_transformers(decoding: Decoding) -> None:
    ids, seen = ids_and_seen()
    found = warped(logits(), decoding, seen if decoding.repetition_penalty != 1.0 else None).softmax(-1)
    torch.testing.assert_close(found, theirs(decoding, ids, logits()), rtol=0, atol=1e-6)


def test_a_distribution_by_hand() -> None:
    # Shares .5, .3, .15, .05; seen: the first.
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert warped(scores, Decoding(top_p=0.75), None).softmax(-1).tolist()[0] == pytest.approx([0.625, 0.375, 0, 0])
    assert warped(scores, Decoding(top_k=3), None).softmax(-1).tolist()[0] == pytest.approx(
        [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]
    )
    # The logarithm of .5 is negative, so the penalty multiplies it: .5 becomes .25.
    seen = torch.tensor([[True, False, False, False]])
    shares = [0.25 / 0.75, 0.3 / 0.75, 0.15 / 0.75, 0.05 / 0.75]
    assert warped(scores, Decoding(repetition_penalty=2.0), seen).softmax(-1).tolist()[0] == pytest.approx(shares)
    assert drawn(warped(scores, Decoding(0.0), None), torch.tensor([0.99]), 0.0).tolist() == [0]
    assert drawn(warped(scores, Decoding(0.0, repetition_penalty=2.0), seen), torch.tensor([0.1]), 0.0).tolist() == [1]


@pytest.mark.parametrize(("chance", "token"), [(0.0, 1), (0.29, 1), (0.31, 2), (0.99, 3), (1.0, 3)])
def test_the_number_falls_on_a_token_and_never_on_an_impossible_one(chance: float, token: int) -> None:
    scores = torch.tensor([[0.0, 0.3, 0.5, 0.2, 0.0]]).log()
    assert drawn(scores, torch.tensor([chance]), 1.0).tolist() == [token]


def test_log_probabilities_are_of_the_distribution_drawn_from() -> None:
    scores = warped(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), Decoding(top_p=0.75), None)
    found = log_probabilities(scores.expand(2, -1), torch.tensor([0, 1])).tolist()
    assert found == pytest.approx([math.log(0.625), math.log(0.375)])


@pytest.mark.parametrize("decoding", [Decoding(0.7), Decoding(1.5, top_k=6), Decoding(1.0, top_p=0.9)], ids=str)
def test_draws_have_the_probabilities(decoding: Decoding) -> None:
    draws = 20_000
    scores = logits(1, seed=5)
    expected = theirs(decoding, torch.zeros(1, 1, dtype=torch.long), scores)[0].double().numpy()
    chances = torch.from_numpy(np.random.default_rng(0).random(draws)).float()
    tokens = drawn(warped(scores, decoding, None).expand(draws, -1), chances, decoding.temperature)
    counts = np.bincount(tokens.numpy(), minlength=VOCABULARY)
    assert counts[expected == 0].sum() == 0
    common = expected * draws >= 5
    rare = ~common & (expected > 0)
    seen = np.append(counts[common], counts[rare].sum()) if rare.any() else counts[common]
    wanted = np.append(expected[common], expected[rare].sum()) if rare.any() else expected[common]
    assert chisquare(seen, wanted / wanted.sum() * draws).pvalue > 1e-3


def test_what_changes_the_distribution_counts_as_warped() -> None:
    assert not Decoding(0.8).warped
    assert all(one.warped for one in (Decoding(0.0), Decoding(top_k=5), Decoding(top_p=0.9)))
    assert Decoding(repetition_penalty=1.2).warped


def test_no_numbers_are_refused() -> None:
    scores = logits(2)
    scores[1, 3] = torch.nan
    with pytest.raises(ModelError, match=r"no numbers, in torch\.float32"):
        warped(scores, Decoding(), None)
