"""Proximal policy optimisation of completions: divergence, rewards per token, advantages, clipped losses, beta.

What the length of completions does to rewards is in `functional.shaping`.

Conventions
    rows, time   completions, and their tokens, padded on the right; an end-of-sequence token is one of them
    mask         which places hold a token; what stands elsewhere, NaN too, changes nothing. A row may have no token
    log pi       log-probability of a token at the sampling temperature: `old` of the policy that sampled it, `new` of
                 the one that is being trained, `reference` of the one it shall not go away from
    ratio        exp(new - old)
    V            value: expected sum of rewards from a token on, before that token is known
    A            advantage; the return of a token is A + V, before any whitening
    beta         weight of the divergence from the reference, in reward per nat
    units        divergences and entropies are in nats
    dtypes       results have the dtype of the inputs; float32 is enough

References
    [1] Schulman et al. 2017, Proximal policy optimization algorithms, arXiv 1707.06347, equation 7; the clipped value
        loss and explained variance are those of its code (OpenAI baselines, ppo2).
    [2] Schulman et al. 2016, High-dimensional continuous control using generalized advantage estimation, arXiv
        1506.02438, equations 11-16.
    [3] Ziegler et al. 2019, Fine-tuning language models from human preferences, arXiv 1909.08593, section 2.2 (rewards
        per token, adaptive beta).
    [4] Schulman 2020, Approximating KL divergence, joschu.net/blog/kl-approx.html (k1, k3).
    [5] Ahmadian et al. 2024, Back to basics: revisiting REINFORCE style optimization for learning from human feedback
        in LLMs (RLOO), arXiv 2402.14740, section 2.3; Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for
        free!
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Estimator = Literal["k1", "k3"]
SMALLEST_VARIANCE = 1e-8
"""Added to a variance before its root, so that equal values become 0 and not NaN."""
LARGEST_CHANGE = 0.2
"""What a relative error of the divergence counts for at most, in the rule for beta."""


class Advantages(NamedTuple):
    """Of every token, shape [rows, time], 0 where there is none.

    Attributes:
        advantages: A.
        returns: A + V.
    """

    advantages: Tensor
    returns: Tensor


def divergence(
    policy: Float[Tensor, " *place"], reference: Float[Tensor, " *place"], estimator: Estimator = "k1"
) -> Float[Tensor, " *place"]:
    """An estimate of KL(policy || reference) from each token that the policy sampled.

        k1 = d                      with d = log pi - log pi_ref
        k3 = exp(-d) - 1 + d

    Both have the mean KL under the policy's own distribution, without any warping. k1 may be negative, k3 is never and
    varies less; as a penalty in the reward, k1 is the one whose sum is the log-ratio of the completion.

    Args:
        policy: log pi.
        reference: log pi_ref.
        estimator: which.

    Source: [4].
    """
    difference = policy - reference
    return difference if estimator == "k1" else torch.expm1(-difference) + difference


def token_rewards(
    divergences: Float[Tensor, "rows time"],
    scores: Float[Tensor, " rows"],
    mask: Bool[Tensor, "rows time"],
    beta: float,
) -> Float[Tensor, "rows time"]:
    """What each token earns: -beta times its divergence, and the last one the score besides.

    A row without a token has nowhere to put its score.

    Args:
        divergences: of every token.
        scores: of every completion.
        mask: of tokens.
        beta: weight of the divergence.

    Source: [3], equation 2, dealt out to tokens as in its code.
    """
    rewards = torch.where(mask, -beta * divergences, 0.0)
    lengths = mask.sum(dim=1)
    present = lengths > 0
    rewards[present, lengths[present] - 1] += scores[present]
    return rewards


def generalised_advantages(
    rewards: Float[Tensor, "rows time"],
    values: Float[Tensor, "rows time"],
    mask: Bool[Tensor, "rows time"],
    gamma: float = 1.0,
    lam: float = 1.0,
) -> Advantages:
    """Advantages from the last token back; after it the value is 0.

        delta_t = r_t + gamma V_(t+1) - V_t
        A_t     = delta_t + gamma lambda A_(t+1)

    Args:
        rewards: of every token.
        values: V of every token.
        mask: of tokens.
        gamma: discount; 1 is none.
        lam: lambda; 1 is reward-to-go minus V, 0 is delta.

    Source: [2], equation 16.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    following = next_value = rewards.new_zeros(len(rewards))
    for time in reversed(range(rewards.shape[1])):
        delta = rewards[:, time] + gamma * next_value - values[:, time]
        following = delta + gamma * lam * following
        advantages[:, time] = following
        next_value = values[:, time]
    advantages = torch.where(mask, advantages, 0.0)
    return Advantages(advantages, advantages + values)


def leave_one_out(scores: Float[Tensor, "prompts samples"]) -> Float[Tensor, "prompts samples"]:
    """Each score minus the mean of the others of its prompt: an advantage without a critic.

    Args:
        scores: of the completions of every prompt, the divergence taken off.

    Raises:
        ValueError: fewer than two samples.

    Source: [5].
    """
    count = scores.shape[1]
    if count < 2:
        raise ValueError(f"found {count} completions to a prompt; expected two or more, each is measured by the others")
    return (scores - scores.mean(dim=1, keepdim=True)) * (count / (count - 1))


def masked_mean(values: Float[Tensor, " *place"], mask: Bool[Tensor, " *place"]) -> Float[Tensor, ""]:
    """Mean over the places of the mask; 0 where there are none.

    Source: bookkeeping.
    """
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def whitened(values: Float[Tensor, " *place"], mask: Bool[Tensor, " *place"]) -> Float[Tensor, " *place"]:
    """Values with mean 0 and variance 1 over the mask, 0 elsewhere; equal values become 0.

    The variance is that of the values at hand (divided by their number).

    Args:
        values: any.
        mask: over what.

    Source: [3], code; customary since.
    """
    centred = torch.where(mask, values - masked_mean(values, mask), 0.0)
    return centred * torch.rsqrt(masked_mean(centred.square(), mask) + SMALLEST_VARIANCE)


def policy_losses(
    new: Float[Tensor, " *place"],
    old: Float[Tensor, " *place"],
    advantages: Float[Tensor, " *place"],
    clip: float = 0.2,
) -> Float[Tensor, " *place"]:
    """The pessimistic one of the plain and the clipped objective, negated, of every token.

        max(-A ratio, -A clip(ratio, 1 - c, 1 + c))

    Args:
        new: log-probabilities, with gradient.
        old: those of the sampling policy.
        advantages: A.
        clip: c.

    Source: [1], equation 7.
    """
    ratio = (new - old).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1.0 - clip, 1.0 + clip))


def is_clipped(
    new: Float[Tensor, " *place"],
    old: Float[Tensor, " *place"],
    advantages: Float[Tensor, " *place"],
    clip: float = 0.2,
) -> Bool[Tensor, " *place"]:
    """Which tokens give the policy no gradient, as the clipped objective is the lower one.

    Args:
        new: log-probabilities.
        old: those of the sampling policy.
        advantages: A.
        clip: c.

    Source: [1], code (`clipfrac`), here without the tokens whose clipping the maximum undoes.
    """
    ratio = (new - old).exp()
    return ((advantages > 0) & (ratio > 1.0 + clip)) | ((advantages < 0) & (ratio < 1.0 - clip))


def value_losses(
    values: Float[Tensor, " *place"],
    old: Float[Tensor, " *place"],
    returns: Float[Tensor, " *place"],
    clip: float = 0.2,
) -> Float[Tensor, " *place"]:
    """Half the squared error of every value, or of the value held near the old one, whichever is larger.

        1/2 max((v - ret)^2, (clip(v, v_old - c, v_old + c) - ret)^2)

    Args:
        values: v, with gradient.
        old: v_old, as the advantages were computed with.
        returns: ret.
        clip: c, in units of the reward.

    Source: [1], code.
    """
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (near - returns).square())


def entropy(logits: Float[Tensor, "*place vocabulary"], temperature: float = 1.0) -> Float[Tensor, " *place"]:
    """Entropy of the next token, -sum p log p, with p the softmax of logits / T.

    Args:
        logits: before any temperature.
        temperature: T, above 0.

    Raises:
        ValueError: T of 0 or less.

    Source: Shannon 1948.
    """
    if not temperature > 0.0:
        raise ValueError(f"found temperature {temperature}; expected more than 0")
    logs = torch.log_softmax(logits / temperature, dim=-1)
    # A token of probability 0 adds 0, not 0 times minus infinity.
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(dim=-1)


def adapted_beta(beta: float, divergence: float, target: float, completions: int, horizon: int) -> float:
    """The next beta: larger where the divergence is above its target, smaller below.

        beta (1 + clip(KL / target - 1, -.2, .2) n / horizon)

    Args:
        beta: the last one.
        divergence: KL of the batch, mean of the sum over tokens.
        target: of it.
        completions: n of the batch.
        horizon: completions over which an error of .2 changes beta by about a fifth.

    Raises:
        ValueError: a target or horizon that is not above 0.

    Source: [3], section 2.2.
    """
    if not (target > 0 and horizon > 0):
        raise ValueError(f"found target {target} and horizon {horizon}; expected both above 0")
    error = min(max(divergence / target - 1.0, -LARGEST_CHANGE), LARGEST_CHANGE)
    return beta * (1.0 + error * completions / horizon)


def explained_variance(
    values: Float[Tensor, " *place"], returns: Float[Tensor, " *place"], mask: Bool[Tensor, " *place"]
) -> float:
    """How much of the variance of the returns the values foretell: 1 is all, 0 no more than a constant would.

        1 - Var(ret - v) / Var(ret)

    NaN where the returns do not vary.

    Args:
        values: v.
        returns: ret.
        mask: over what.

    Source: [1], code.
    """
    if not bool(mask.any()):
        return float("nan")
    spread = returns[mask].double().var(correction=0)
    left = (returns - values)[mask].double().var(correction=0)
    return float(1.0 - left / spread) if spread > 0 else float("nan")


def row_sums(values: Float[Tensor, "rows time"], mask: Bool[Tensor, "rows time"]) -> Float[Tensor, " rows"]:
    """Sum over the tokens of every row.

    Source: bookkeeping.
    """
    return torch.where(mask, values, 0.0).sum(dim=1)
