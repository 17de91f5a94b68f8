"""How the next token is chosen: which distribution the logits become, and what a uniform number draws from it.

The order is that of transformers: repetition penalty, temperature, top-k, top-p. Chance is an argument, a uniform
number a row, at which the distribution function of the next token is inverted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rewardlab.errors import ModelError, Problem


class Decoding(NamedTuple):
    """What becomes of logits.

    Attributes:
        temperature: what they are divided by; 0 takes the likeliest token.
        top_k: only so many likeliest tokens, and what ties with the last of them; 0 for all.
        top_p: only the likeliest tokens that have this probability together; 1 for all.
        repetition_penalty: logits of tokens that stand in the prompt or answer are divided by it where they are
            positive, and multiplied elsewhere (Keskar et al. 2019, arXiv 1909.05858); of an encoder-decoder, in the
            answer. 1 for none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    @property
    def warped(self) -> bool:
        """Whether the distribution is another one than the model's at the temperature: such samples give no KL."""
        return self.temperature == 0.0 or self.top_k > 0 or self.top_p < 1.0 or self.repetition_penalty != 1.0


def warped(logits: Tensor, decoding: Decoding, seen: Tensor | None) -> Tensor:
    """Logits of the distribution that is sampled from: float32 (rows, vocabulary).

    Args:
        logits: of the network, of any dtype.
        decoding: the rules; of temperature 0 its repetition penalty alone.
        seen: bool (rows, vocabulary), which tokens stand in a row; None without a penalty.

    Raises:
        ModelError: logits that are no numbers.
    """
    if logits.isnan().any():
        problem = Problem("model", f"logits that are no numbers, in {logits.dtype}", "numbers", "Try float32.")
        raise ModelError("The model cannot answer", [problem])
    scores = logits.float()
    if seen is not None:
        penalty = decoding.repetition_penalty
        scores = torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
    if decoding.temperature == 0.0:
        return scores
    scores = scores / decoding.temperature
    if 0 < decoding.top_k < scores.shape[-1]:
        least = scores.topk(decoding.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if decoding.top_p < 1.0:
        ordered, order = scores.sort(dim=-1, descending=True)
        shares = ordered.softmax(dim=-1)
        # A token stays where those before it do not have the probability yet, so the likeliest one always does.
        beyond = shares.cumsum(dim=-1) - shares >= decoding.top_p
        beyond[:, 0] = False
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    return scores


def drawn(scores: Tensor, chances: Tensor, temperature: float) -> Tensor:
    """The token of every row that its number falls on; at temperature 0 the likeliest one.

    Args:
        scores: of `warped`.
        chances: uniform numbers (rows,).
        temperature: only whether it is 0.
    """
    if temperature == 0.0:
        return scores.argmax(dim=-1)
    shares = scores.softmax(dim=-1).cumsum(dim=-1)
    # Above 0, so that a token of probability 0 at the front is never met.
    above = chances.unsqueeze(-1).clamp(min=torch.finfo(torch.float32).tiny)
    # Of what the shares sum up to, which is 1 but for rounding.
    return torch.searchsorted(shares, above * shares[:, -1:]).squeeze(-1)


def log_probabilities(scores: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of every row's token under the distribution that is sampled from, in float32: (rows,)."""
    return scores.log_softmax(dim=-1).gather(1, tokens.unsqueeze(-1)).squeeze(-1)
