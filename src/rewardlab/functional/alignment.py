"""Losses that turn preferences or rewards of K completions of a prompt into gradients of a policy.

Losses of reward models are in `functional.preference`.

Conventions
    s            log-ratio of a completion: sum over its tokens of log pi - log pi_ref; of `simpo` the sum of log pi
    n            tokens of a completion, an end-of-sequence token included
    r            reward of a completion; higher is better
    beta         of the policy, above 0; beta_r of the rewards, above 0
    q, p         over the candidates of a prompt: q = softmax(beta s), p = softmax(r / beta_r)
    w, l         winner and loser of a pair: columns 0 and 1 of s and n
    h            beta (s_w - s_l)
    eps          label smoothing: the believed share of flipped labels
    present      which candidates a prompt has, where some have fewer than K; None is all. One that is absent is in no
                 softmax, has no gradient, and its numbers, NaN too, mean nothing; a prompt without any has loss 0
    sigma        the logistic function; logarithms are natural
    shapes       [prompts, K] in, one value per prompt out; nothing is reduced, the loss of a batch is their mean
    dtypes       computed and returned in float32 (float64 where an input is float64), whatever the model's dtype is

    What both softmaxes depend on is differences between candidates of one prompt. Where q = p, the policy is the one of
    highest reward minus beta beta_r KL(pi || pi_ref), as far as these candidates tell.

References
    [1] Ji et al. 2024, Towards efficient exact optimization of language model alignment (EXO), arXiv 2402.00856; code:
        github.com/haozheji/exact-optimization, src/align_stage/loss.py.
    [2] Rafailov et al. 2023, Direct preference optimization, arXiv 2305.18290, equation 7.
    [3] Mitchell 2023, A note on DPO with noisy preferences (conservative DPO: label smoothing).
    [4] Azar et al. 2023, A general theoretical paradigm to understand learning from human preferences (IPO), arXiv
        2310.12036, equation 17; per token as in TRL 1.16, whose authors have it from those of the paper.
    [5] Zhao et al. 2023, SLiC-HF, arXiv 2305.10425; on log-ratios Liu et al. 2023, Statistical rejection sampling
        improves preference optimization, arXiv 2309.06657.
    [6] Chowdhury, Kini and Natarajan 2024, Provably robust DPO, arXiv 2403.00409.
    [7] Meng, Xia and Chen 2024, SimPO, arXiv 2405.14734.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

PUBLISHED_LOG_TARGETS = (0.0, -10.0)


def exo_rw(
    ratios: Float[Tensor, "prompts candidates"],
    rewards: Float[Tensor, "prompts candidates"],
    beta: float,
    reward_beta: float,
    present: Bool[Tensor, "prompts candidates"] | None = None,
) -> Float[Tensor, " prompts"]:
    """The divergence of the policy from the rewards, over the candidates of a prompt.

        l = KL(q || p) = sum_k q_k (log q_k - log p_k)

    The gradient is that of both q.

    Args:
        ratios: s.
        rewards: r.
        beta: of the policy.
        reward_beta: beta_r; the smaller, the more the best candidate counts.
        present: which candidates there are.

    Source: [1], EXO-rw.
    """
    q, p = _log_softmax(ratios, beta, present), _log_softmax(rewards, 1.0 / reward_beta, present)
    return (q.exp() * (q - p)).sum(dim=1)


def exo_pref(
    ratios: Float[Tensor, "prompts candidates"], beta: float, label_smoothing: float = 1e-3
) -> Float[Tensor, " prompts"]:
    """The divergence of the policy from (1 - eps, eps) for winner and loser.

        l = KL(q || p) with q = (sigma(h), sigma(-h)) and p = (1 - eps, eps)

    Least at h = log((1 - eps) / eps), where it is 0; beyond, it rises again.

    Args:
        ratios: s of winner and loser.
        beta: of the policy.
        label_smoothing: eps in (0, 0.5); at 0 the divergence is infinite.

    Raises:
        ValueError: K other than 2, or `label_smoothing` outside its range.

    Source: [1], equation 16.
    """
    if not 0.0 < label_smoothing < 0.5:
        raise ValueError(f"exo-pref: found label_smoothing {label_smoothing}; expected more than 0 and less than 0.5")
    return _divergence(_gap("exo-pref", ratios, beta), math.log1p(-label_smoothing), math.log(label_smoothing))


def exo_pref_published(ratios: Float[Tensor, "prompts candidates"], beta: float) -> Float[Tensor, " prompts"]:
    """`exo_pref` as its published code has it: log-targets (0, -10) in place of those of a distribution.

    Lower by log(1 + exp(-10)) = 4.5e-5 than with eps = sigma(-10); the gradients are the same.

    Raises:
        ValueError: K other than 2.

    Source: [1], code, `exact_loss`.
    """
    return _divergence(_gap("exo-pref-published", ratios, beta), *PUBLISHED_LOG_TARGETS)


def dpo_rw(
    ratios: Float[Tensor, "prompts candidates"],
    rewards: Float[Tensor, "prompts candidates"],
    beta: float,
    reward_beta: float,
    present: Bool[Tensor, "prompts candidates"] | None = None,
) -> Float[Tensor, " prompts"]:
    """Cross-entropy of the policy under the rewards, over the candidates of a prompt.

        l = -sum_k p_k log q_k

    Its least value is the entropy of p, not 0.

    Args:
        ratios: s.
        rewards: r.
        beta: of the policy.
        reward_beta: beta_r.
        present: which candidates there are.

    Source: [1], DPO-rw.
    """
    q, p = _log_softmax(ratios, beta, present), _log_softmax(rewards, 1.0 / reward_beta, present)
    return -(p.exp() * q).sum(dim=1)


def dpo_pref(
    ratios: Float[Tensor, "prompts candidates"], beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " prompts"]:
    """Negative log-likelihood that the winner wins.

        l = -(1 - eps) log sigma(h) - eps log sigma(-h)

    Args:
        ratios: s of winner and loser.
        beta: of the policy.
        label_smoothing: eps in [0, 0.5).

    Raises:
        ValueError: K other than 2, or `label_smoothing` outside its range.

    Source: [2], label smoothing [3].
    """
    _check_smoothing("dpo-pref", label_smoothing)
    gap = _gap("dpo-pref", ratios, beta)
    # softplus(-h) = -log sigma(h), without overflow and with a gradient that saturates at -1.
    return (1.0 - label_smoothing) * F.softplus(-gap) + label_smoothing * F.softplus(gap)


def robust(
    ratios: Float[Tensor, "prompts candidates"], beta: float, label_smoothing: float = 0.1
) -> Float[Tensor, " prompts"]:
    """The loss whose mean over labels flipped with probability eps is that of `dpo_pref` on the right labels.

        l = [-(1 - eps) log sigma(h) + eps log sigma(-h)] / (1 - 2 eps)

    Not bounded below: it falls with every h, in the end by eps / (1 - 2 eps) for each unit of it.

    Args:
        ratios: s of winner and loser.
        beta: of the policy.
        label_smoothing: eps in [0, 0.5).

    Raises:
        ValueError: K other than 2, or `label_smoothing` outside its range.

    Source: [6].
    """
    _check_smoothing("robust", label_smoothing)
    gap = _gap("robust", ratios, beta)
    kept, flipped = (1.0 - label_smoothing) * F.softplus(-gap), label_smoothing * F.softplus(gap)
    return (kept - flipped) / (1.0 - 2.0 * label_smoothing)


def hinge(ratios: Float[Tensor, "prompts candidates"], beta: float) -> Float[Tensor, " prompts"]:
    """How much h lacks of 1: max(0, 1 - h).

    Raises:
        ValueError: K other than 2.

    Source: [5].
    """
    return F.relu(1.0 - _gap("hinge", ratios, beta))


def ipo(
    ratios: Float[Tensor, "prompts candidates"],
    lengths: Int[Tensor, "prompts candidates"] | Float[Tensor, "prompts candidates"],
    beta: float,
) -> Float[Tensor, " prompts"]:
    """Squared distance of the difference per token from what beta asks for.

        l = (s_w / n_w - s_l / n_l - 1 / (2 beta))^2

    Args:
        ratios: s of winner and loser.
        lengths: n of both.
        beta: tau of the paper.

    Raises:
        ValueError: K other than 2.

    Source: [4].
    """
    return (_gap("ipo", per_token(ratios, lengths), 1.0) - 1.0 / (2.0 * beta)).square()


def ipo_sum(ratios: Float[Tensor, "prompts candidates"], beta: float) -> Float[Tensor, " prompts"]:
    """`ipo` as the paper prints it, of sums over tokens: (s_w - s_l - 1 / (2 beta))^2.

    Raises:
        ValueError: K other than 2.

    Source: [4], equation 17.
    """
    return (_gap("ipo-sum", ratios, 1.0) - 1.0 / (2.0 * beta)).square()


def simpo(
    sums: Float[Tensor, "prompts candidates"],
    lengths: Int[Tensor, "prompts candidates"] | Float[Tensor, "prompts candidates"],
    beta: float,
    gamma: float,
) -> Float[Tensor, " prompts"]:
    """Negative log-likelihood that the winner's mean log-probability wins by a margin; there is no reference.

        l = -log sigma(beta (m_w - m_l) - gamma) with m = s / n

    Args:
        sums: s, here the sum of log pi over the tokens of winner and loser.
        lengths: n of both.
        beta: of the policy.
        gamma: the margin, in units of h.

    Raises:
        ValueError: K other than 2.

    Source: [7].
    """
    return F.softplus(gamma - _gap("simpo", per_token(sums, lengths), beta))


def per_token(
    sums: Float[Tensor, "prompts candidates"],
    lengths: Int[Tensor, "prompts candidates"] | Float[Tensor, "prompts candidates"],
) -> Float[Tensor, "prompts candidates"]:
    """Mean over the tokens of a completion, s / n; 0 of a completion without tokens.

    In place of s it makes any loss one of means.

    Source: [7], equation 3; of log-ratios [4].
    """
    sums = _in_float32(sums)
    return sums / lengths.clamp(min=1).to(sums.dtype)


def check_pairs(name: str, candidates: int) -> None:
    """Refuse any number of candidates but the two of a pair.

    Args:
        name: of the objective that learns from pairs.
        candidates: K.

    Raises:
        ValueError: K is not 2.

    Source: bookkeeping.
    """
    if candidates != 2:
        raise ValueError(
            f"{name}: found {candidates} candidates to a prompt; expected 2, a winner and a loser. "
            "exo-rw and dpo-rw learn from the rewards of any number"
        )


def _gap(name: str, values: Tensor, beta: float) -> Tensor:
    """beta (winner - loser), shape [prompts]."""
    check_pairs(name, values.shape[1])
    values = _in_float32(values)
    return beta * (values[:, 0] - values[:, 1])


def _divergence(gap: Tensor, winner: float, loser: float) -> Tensor:
    """Sum over both sides of q (log q - log-target)."""
    log_won, log_lost = F.logsigmoid(gap), F.logsigmoid(-gap)
    return log_won.exp() * (log_won - winner) + log_lost.exp() * (log_lost - loser)


def _check_smoothing(name: str, label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"{name}: found label_smoothing {label_smoothing}; expected at least 0 and less than 0.5")


def _log_softmax(values: Tensor, factor: float, present: Tensor | None) -> Tensor:
    """Logarithm of the softmax of factor x values; 0 for candidates that are absent, which then add nothing."""
    values = _in_float32(values)
    if present is None:
        return torch.log_softmax(factor * values, dim=1)
    known = values.masked_fill(~present, -torch.inf)
    return torch.log_softmax(factor * known, dim=1).masked_fill(~present, 0.0)


def _in_float32(values: Tensor) -> Tensor:
    """`values` in float32, or as they are where they are float64."""
    return values if values.dtype == torch.float64 else values.float()
