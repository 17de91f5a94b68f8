"""Losses that turn preferences, labels and scores into gradients of a reward model.

Losses of a policy are in `functional.alignment`.

Conventions
    c, r       rewards of the chosen and of the rejected side; higher is better
    m          margin: by how much the chosen side should at least win, in reward units
    eps        label smoothing: the believed share of flipped labels
    sigma      the logistic function, sigma(x) = 1 / (1 + exp(-x)); logarithms are natural
    shapes     one value per pair, per row or per list; nothing is reduced, so that the caller weights and averages
    dtypes     computed and returned in float32 (float64 where an input is float64), whatever the model's dtype is

References
    [1] Bradley and Terry 1952, Rank analysis of incomplete block designs; as a loss Ouyang et al. 2022,
        arXiv 2203.02155, equation 1.
    [2] Touvron et al. 2023, Llama 2, arXiv 2307.09288, equation 2 (the margin).
    [3] Mitchell 2023, A note on DPO with noisy preferences (conservative DPO: label smoothing).
    [4] Eisenstein et al. 2023, Helping or herding?, arXiv 2312.09244, equation 2 (the centring term).
    [5] Luce 1959, Individual choice behavior; Plackett 1975, The analysis of permutations; of reward models Zhu, Jiao
        and Jordan 2023, arXiv 2301.11270; as a loss Xia et al. 2008, Listwise approach to learning to rank (ListMLE).
    [6] Varin, Reid and Firth 2011, An overview of composite likelihood methods.
    [7] Burges et al. 2005, Learning to rank using gradient descent (RankNet), section 3: of equal rank, the target
        probability is 1/2. Of reward models and counterfactual answers Srivastava et al. 2025, Robust reward modeling
        via causal rubrics, arXiv 2506.16507.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def bradley_terry(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    margin: Float[Tensor, " pairs"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " pairs"]:
    """Negative log-likelihood that the chosen side wins.

        l = -(1 - eps) log sigma(c - r - m) - eps log sigma(r - c - m)

    The second term is the loss of the flipped pair, which keeps its margin: swapping the sides is the same as
    replacing eps by 1 - eps. At m = 0 it is the smoothed loss of [3].

    Args:
        chosen: rewards of the preferred sides.
        rejected: rewards of the other sides.
        margin: m per pair; None is 0.
        label_smoothing: eps in [0, 0.5).

    Raises:
        ValueError: `label_smoothing` outside [0, 0.5).

    Source: [1], margin [2], label smoothing [3].
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), not {label_smoothing}")
    chosen, rejected = _in_float32(chosen), _in_float32(rejected)
    required = torch.zeros_like(chosen) if margin is None else _in_float32(margin)
    # softplus(-x) = -log sigma(x), without overflow and with a gradient that saturates at -1.
    loss = F.softplus(rejected - chosen + required)
    if label_smoothing == 0.0:
        return loss
    return (1.0 - label_smoothing) * loss + label_smoothing * F.softplus(chosen - rejected + required)


def tied(first: Float[Tensor, " pairs"], second: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Cross-entropy of the Bradley-Terry probability with a target of 1/2: neither side is better.

        l = -1/2 log sigma(a - b) - 1/2 log sigma(b - a)

    log 2 where the rewards are equal and more elsewhere; its gradient is (sigma(a - b) - 1/2), so it asks for equality
    and nothing else. The mean of the losses of both orders as pairs.

    Args:
        first: rewards a of the one side.
        second: rewards b of the other.

    Source: [7].
    """
    return 0.5 * (bradley_terry(first, second) + bradley_terry(second, first))


def plackett_luce(
    rewards: Float[Tensor, " candidates"], values: Float[Tensor, " candidates"] | Int[Tensor, " candidates"]
) -> Float[Tensor, ""]:
    """Negative log-likelihood of the order of a list: its best, then the best of the rest, and so on.

        l = -sum_i log( exp(r_i) / (exp(r_i) + sum_{j: v_j < v_i} exp(r_j)) )

    Of two candidates it is Bradley-Terry. Where values are equal the order is partial: equal candidates are not
    compared with each other, and each is compared with all that are worse. Every term is then a probability of the
    same model, in which a choice between some candidates does not depend on the others; their product is a composite
    likelihood [6], since the terms of equal candidates are not independent.

    Args:
        rewards: r of every candidate, in any order.
        values: v, what they are ordered by; higher is better.

    Source: [5].
    """
    rewards = _in_float32(rewards)
    # Row i: which candidates are worse than candidate i.
    worse = values.unsqueeze(0) < values.unsqueeze(1)
    wins = worse.any(dim=1)
    rivals = rewards.expand(len(rewards), -1).masked_fill(~worse, -torch.inf)[wins]
    return F.softplus(torch.logsumexp(rivals, dim=1) - rewards[wins]).sum()


def centring(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Squared sum (c + r)^2 of the rewards of a pair.

    Bradley-Terry fixes rewards only up to a constant; a small multiple of this term's mean pulls the constant to
    the place where the rewards of a pair sum to 0.

    Source: [4].
    """
    return (_in_float32(chosen) + _in_float32(rejected)).square()


def binary(
    rewards: Float[Tensor, " rows"], labels: Bool[Tensor, " rows"] | Int[Tensor, " rows"] | Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Negative log-likelihood of labels under P(good) = sigma(reward).

        l = -y log sigma(x) - (1 - y) log sigma(-x)

    Args:
        rewards: x per row.
        labels: y per row: 1 or True is good; values between are soft labels.

    Source: logistic regression, Cox 1958.
    """
    logits = _in_float32(rewards)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")


def regression(rewards: Float[Tensor, " rows"], scores: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Squared error (x - y)^2 of rewards against given scores.

    Source: least squares; for reward models Wang et al. 2024, HelpSteer2, arXiv 2406.08673.
    """
    return (_in_float32(rewards) - _in_float32(scores)).square()


def _in_float32(values: Tensor) -> Tensor:
    """`values` in float32, or as they are where they are float64."""
    return values if values.dtype == torch.float64 else values.float()
