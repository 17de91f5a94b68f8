"""Answers of a causal language model, in batches, each as if it had been asked for alone.

Rows are padded on the left. Chance is a row's own: a uniform number per token, drawn from the row's seed, at which the
distribution function of the next token is inverted. So an answer hangs on its prompt and its seed and not on what else
is in the batch, up to rounding: batches change the last bits of the logits (in half precision, more of them), and where
two tokens are all but equally near, that can change a word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from rewardlab.errors import ModelError, Problem


class Asked(NamedTuple):
    """A prompt to be answered.

    Attributes:
        ids: its tokens, special ones included.
        seed: of the answer's chance; at most 64 bits.
    """

    ids: tuple[int, ...]
    seed: int = 0


class Generated(NamedTuple):
    """An answer.

    Attributes:
        ids: its tokens, without the one that ends it.
        ended: whether the model ended it; else it was cut off.
    """

    ids: tuple[int, ...]
    ended: bool


@torch.inference_mode()
def generate(
    network: Any, rows: Sequence[Asked], most: int, *, temperature: float, ends: Collection[int], pad: int
) -> list[Generated]:
    """Answers, in the order of the rows.

    Args:
        network: a causal language model of transformers, in evaluation mode.
        rows: at least one.
        most: tokens of an answer, at most.
        temperature: what logits are divided by; 0 takes the likeliest token.
        ends: tokens that end an answer.
        pad: any token id; it is never seen by the network.

    Raises:
        ModelError: logits that are no numbers.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row.ids)) + list(row.ids) for row in rows])
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows])
    chances = torch.from_numpy(np.stack([np.random.default_rng(row.seed).random(most) for row in rows]))
    choice = _OwnChance(chances.float().to(network.device), width, temperature)
    # The likeliest token everywhere: chance has left one only. Nothing of the checkpoint's own sampling is in force.
    settings = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=most, eos_token_id=sorted(ends) or None, pad_token_id=pad
    )
    found = network.generate(
        ids.to(network.device),
        attention_mask=mask.to(network.device),
        generation_config=settings,
        logits_processor=LogitsProcessorList([choice]),
    )
    return [_until_end(answer, ends) for answer in found[:, width:].tolist()]


def _until_end(ids: Sequence[int], ends: Collection[int]) -> Generated:
    place = next((place for place, token in enumerate(ids) if token in ends), None)
    return Generated(tuple(ids[:place]), place is not None)


class _OwnChance:
    """Leaves, of every row, the one token that the row's number for this step falls on.

    Args:
        chances: uniform numbers (rows, steps).
        width: tokens of the padded prompts.
        temperature: what logits are divided by; 0 leaves all tokens.
    """

    def __init__(self, chances: Tensor, width: int, temperature: float) -> None:
        # Above 0, so that a token of probability 0 at the front is never met.
        self._chances, self._width = chances.clamp(min=torch.finfo(torch.float32).tiny), width
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores with all other tokens at minus infinity: (rows, vocabulary)."""
        if scores.isnan().any():
            problem = Problem("model", f"logits that are no numbers, in {scores.dtype}", "numbers", "Try float32.")
            raise ModelError("The model cannot answer", [problem])
        if self._temperature == 0.0:
            return scores
        step = input_ids.shape[1] - self._width
        shares = torch.softmax(scores.float() / self._temperature, dim=-1).cumsum(dim=-1)
        # Of what the shares sum up to, which is 1 but for rounding.
        picked = torch.searchsorted(shares, self._chances[:, step : step + 1] * shares[:, -1:])
        return torch.full_like(scores, -torch.inf).scatter(1, picked, 0.0)
