"""Divergences of policies against transformers itself, called with one plain text at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import ENCODER_DECODERS, FLAT_SHAPES, SHAPES
from torch import Tensor

from rewardlab.data.layout import Group
from rewardlab.models import token_logprobs
from rewardlab.models.divergences import divergences
from tests.models.test_policy import CAPPED, many_groups, network_of, policy_of

TEMPERATURE = 0.8
CASES = {
    "llama": (SHAPES["llama"], "shared"),
    "mistral": (FLAT_SHAPES["mistral"], "flat"),
    "capped": (CAPPED, "flat"),
    "t5": (ENCODER_DECODERS["t5"], "flat"),
}


def distributions(network: Any, sequence: tuple[int, ...], start: int) -> Tensor:
    """Log-probabilities of every next token of a completion, shape [tokens, vocabulary]."""
    row = torch.tensor([sequence])
    if network.config.is_encoder_decoder:
        completion = row[:, start:]
        first = torch.full_like(completion[:, :1], network.config.decoder_start_token_id)
        shifted = torch.cat((first, completion[:, :-1]), dim=1)
        logits = network(input_ids=row[:, :start], decoder_input_ids=shifted).logits[0]
    else:
        logits = network(input_ids=row).logits[0, start - 1 : -1]
    return torch.log_softmax(logits.double() / TEMPERATURE, dim=-1)


@torch.no_grad()
def one_by_one(policy: Any, reference: Any, groups: list[Group]) -> list[float]:
    found = []
    for group in groups:
        for sequence in group.sequences():
            own, other = (distributions(network, sequence, group.start) for network in (policy, reference))
            found.append((own.exp() * (own - other)).sum().item())
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_divergence_is_that_of_plain_texts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, layout = CASES[name]
    groups = many_groups()
    policy, reference = network_of(fields, seed=1), network_of(fields, seed=2)
    truth = one_by_one(policy, reference, groups)
    # A few logits at once: what is made part by part is put together again.
    monkeypatch.setattr(token_logprobs, "CPU_CHUNK", 700)
    found = divergences(policy_of(policy, layout, TEMPERATURE), policy_of(reference, layout, TEMPERATURE), groups)
    assert np.ptp(truth) > 0.1
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)


def test_of_itself_a_policy_is_not_away() -> None:
    model = policy_of(network_of(SHAPES["llama"]), "shared")
    assert (divergences(model, model, many_groups()) == 0.0).all()
