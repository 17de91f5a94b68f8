"""What a policy learns from a reward before it is trained: to first order from effects, and by tilting samples.

Conventions
    P, N, K    prompts; completions of each, sampled from the reference at temperature 1; attributes
    W, R       attributes [P, N, K] and rewards [P, N] of these samples; every row and column counts alike
    a          effects of the attributes on the reward, [K], in units of the reward per unit of the attribute
    kappa      KL of the trained policy from the reference, nats per completion, mean over prompts
    shift      change of the mean of an attribute, E_policy[W_k] - E_ref[W_k], averaged over prompts
    Sigma      covariance of the attributes within prompts, with N - 1 in the denominator, averaged over prompts

    KL-regularised training tilts the reference, pi proportional to pi_ref exp(eta R) with eta = 1 / beta [1]. To first
    order in eta the shift of W_k is eta Cov(W_k, R), and kappa is eta^2 Var(R) / 2, both within prompts. So at a
    distance of kappa

        shift_k = sqrt(2 kappa) Cov(W_k, R) / sd(R),        and where R = a . W + rest, the rest unrelated to W,
        shift_k = sqrt(2 kappa) (Sigma a)_k / sd(R)         (the forecast)

    An attribute moves directly, by Sigma_kk a_k, and is carried along by those that it goes together with, by the rest
    of (Sigma a)_k.

References
    [1] Peters, Mulling and Altun 2010, Relative entropy policy search; Korbak et al. 2022, RL with KL penalties is
        better viewed as Bayesian inference, arXiv 2205.11275, equation 4 (the tilt).
    [2] Price 1970, Selection and covariance (the mean of a trait moves by its covariance with fitness).
    [3] Owen 2013, Monte Carlo theory, methods and examples, sections 9.2 and 9.3 (self-normalised weights, effective
        sample size).
    [4] Hampel 1974, The influence curve and its role in robust estimation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import logsumexp

from rewardlab.functional.intervals import Interval, Statistic, interval, widened

Moments = Float[np.ndarray, "prompts m m"]
"""Of attributes and, last, the reward: m = K + 1."""


def within_moments(attributes: Float[np.ndarray, "prompts N K"], rewards: Float[np.ndarray, "prompts N"]) -> Moments:
    """Covariances of attributes and reward (the last row and column) within every prompt, with N - 1.

    Their mean over prompts is the covariance within prompts: Sigma, Cov(W, R) and Var(R).

    Raises:
        ValueError: fewer than two completions to a prompt.

    Source: bookkeeping.
    """
    count = rewards.shape[1]
    if count < 2:
        raise ValueError(f"{count} completion to a prompt; covariances within prompts need 2 or more")
    values = np.concatenate([attributes, rewards[:, :, None]], axis=2)
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(np.einsum("pnj,pnk->pjk", centred, centred) / (count - 1))


def explained_share(moments: Moments, effects: Float[np.ndarray, " K"]) -> Statistic:
    """The share of the reward's variance within prompts that the effects explain: 1 - Var(R - a . W) / Var(R).

    1 where the reward is a . W; below 0 where a . W says less than nothing. One influence per prompt.

    Raises:
        ValueError: rewards that never differ within a prompt.

    Source: the coefficient of determination (Wright 1921), with effects from elsewhere in place of fitted ones.
    """
    # Var(R - a.W) is a quadratic form of the covariances.
    combination = np.append(-effects, 1.0)
    rest = np.einsum("pjk,j,k->p", moments, combination, combination)
    whole = _variances(moments)
    share = rest.mean() / whole.mean()
    return Statistic(float(1.0 - share), -(rest - share * whole) / whole.mean())


class Shift(NamedTuple):
    """What an attribute is forecast to move.

    Attributes:
        total: the forecast, with the interval.
        direct: the part by the attribute's own effect.
        carried: the part by the effects of attributes that it goes along with.
    """

    total: Interval
    direct: float
    carried: float


def forecast(
    moments: Moments,
    effects: Float[np.ndarray, " K"],
    errors: Float[np.ndarray, " K"],
    divergence: float,
    level: float = 0.95,
) -> list[Shift]:
    """sqrt(2 kappa) (Sigma a)_k / sd(R) of every attribute, with intervals over prompts that know the effects' errors.

    Args:
        moments: of `within_moments`.
        effects: a.
        errors: standard errors of the effects, taken as independent of each other and of the samples; 0 where an
            effect is known.
        divergence: kappa, nats.
        level: coverage.

    Raises:
        ValueError: rewards that never differ within a prompt, or a divergence below 0.

    Source: the module's head; the interval by the delta method [4].
    """
    reach = _reach(divergence)
    covariance = moments[:, :-1, :-1]
    sigma, whole = covariance.mean(axis=0), _variances(moments)
    sd = math.sqrt(whole.mean())
    found = []
    for index, towards in enumerate(sigma @ effects):
        total = _over_sd(reach, covariance[:, index, :] @ effects, float(towards), whole)
        from_effects = reach / sd * float(np.sqrt(np.square(sigma[index] * errors).sum()))
        direct = reach / sd * float(sigma[index, index] * effects[index])
        found.append(Shift(_with_error(total, from_effects, level), direct, total.value - direct))
    return found


def lone_forecast(
    moments: Moments,
    effects: Float[np.ndarray, " K"],
    errors: Float[np.ndarray, " K"],
    divergence: float,
    level: float = 0.95,
) -> list[Interval]:
    """sqrt(2 kappa) Sigma_kk a_k / sd(R): what each attribute would move if it went along with no other one.

    The forecast of who reads an effect, of whatever estimator, as what a policy will learn. Arguments and errors are
    those of `forecast`; of attributes that do not vary together both are the same.

    Source: the module's head, the direct part.
    """
    reach, whole = _reach(divergence), _variances(moments)
    sd = math.sqrt(whole.mean())
    found = []
    for index, (effect, error) in enumerate(zip(effects.tolist(), errors.tolist(), strict=True)):
        spread = moments[:, index, index]
        total = _over_sd(reach, spread * effect, float(spread.mean()) * effect, whole)
        found.append(_with_error(total, reach / sd * float(spread.mean()) * error, level))
    return found


def associated_shift(moments: Moments, divergence: float) -> list[Statistic]:
    """sqrt(2 kappa) Cov(W_k, R) / sd(R): the first-order shift from rewards of the policy's own samples.

    Source: [2] and the module's head.
    """
    reach, whole = _reach(divergence), _variances(moments)
    covariances = moments[:, :-1, -1]
    return [_over_sd(reach, own, float(own.mean()), whole) for own in covariances.T]


def tilt_weights(rewards: Float[np.ndarray, "prompts N"], eta: float) -> Float[np.ndarray, "prompts N"]:
    """softmax(eta R) over the completions of every prompt: the tilted policy on the samples. Source: [1], [3]."""
    logits = eta * rewards
    return np.asarray(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))


def tilt_divergence(rewards: Float[np.ndarray, "prompts N"], eta: float) -> Float[np.ndarray, " prompts"]:
    """KL of the tilt from the samples, nats: eta E_w[R] - log mean exp(eta R); at most log N. Source: [1]."""
    logits = eta * rewards
    normaliser = logsumexp(logits, axis=1) - math.log(rewards.shape[1])
    return np.asarray((tilt_weights(rewards, eta) * logits).sum(axis=1) - normaliser)


def effective_size(weights: Float[np.ndarray, "prompts N"]) -> Float[np.ndarray, " prompts"]:
    """1 / sum of squared weights: completions of a prompt that the tilt still rests on, 1 to N. Source: [3]."""
    return np.asarray(1.0 / np.square(weights).sum(axis=1))


def tilt_at(rewards: Float[np.ndarray, "prompts N"], divergence: float) -> float | None:
    """eta at which the tilt is so many nats from the samples, on average over prompts; None where it cannot get there.

    The divergence never falls in eta, and ends at the mean over prompts of log(N / completions of the best reward).

    Raises:
        ValueError: a divergence below 0.

    Source: [1].
    """
    if divergence < 0:
        raise ValueError(f"a divergence of {divergence:g} nats; expected 0 or more")
    spread = float(np.ptp(rewards, axis=1).max())
    if divergence == 0 or spread == 0:
        return 0.0 if divergence == 0 else None
    best = (rewards == rewards.max(axis=1, keepdims=True)).sum(axis=1)
    if divergence >= np.log(rewards.shape[1] / best).mean():
        return None
    high = 1.0 / spread
    while tilt_divergence(rewards, high).mean() < divergence:
        high *= 2.0
        # Rewards that differ by next to nothing: the end is as good as out of reach.
        if not math.isfinite(high * float(np.abs(rewards).max())):
            return None
    return float(brentq(lambda eta: tilt_divergence(rewards, eta).mean() - divergence, 0.0, high, xtol=1e-12 * high))


def tilted_shift(
    attributes: Float[np.ndarray, "prompts N K"], rewards: Float[np.ndarray, "prompts N"], eta: float
) -> list[Statistic]:
    """Shift of every attribute in the tilt whose mean divergence over prompts is what it is at `eta`.

    sum_i (w_i - 1/N) W_i of each prompt, averaged. The influence of a prompt counts that eta follows from the
    divergences of all prompts: with d/d eta of the shift Cov_w(W, R) and of the divergence eta Var_w(R),

        psi_p = (s_p - s) - (mean Cov_w(W, R) / (eta mean Var_w(R))) (KL_p - KL)

    Covariances of N samples have N, not N - 1, in the denominator here: a tilt of few samples moves too little, at a
    given divergence by a factor of about sqrt(1 - 1/N), one part in 2N (.935 at N = 8).

    Source: [3]; the influence by implicit differentiation, [4].
    """
    weights = tilt_weights(rewards, eta)
    # Taken from each prompt's own mean, so that rounding does not grow with the level of an attribute.
    centred = attributes - attributes.mean(axis=1, keepdims=True)
    shifts = np.einsum("pn,pnk->pk", weights, centred)
    if eta == 0:
        return [Statistic(0.0, np.zeros(len(rewards))) for _ in range(attributes.shape[2])]
    about = rewards - (weights * rewards).sum(axis=1, keepdims=True)
    slopes = np.einsum("pn,pn,pnk->k", weights, about, centred) / len(rewards)
    steepness = eta * (weights * np.square(about)).sum(axis=1).mean()
    divergences = tilt_divergence(rewards, eta)
    away = divergences - divergences.mean()
    return [
        Statistic(float(own.mean()), own - own.mean() - slope / steepness * away)
        for own, slope in zip(shifts.T, slopes, strict=True)
    ]


def _reach(divergence: float) -> float:
    if divergence < 0:
        raise ValueError(f"a divergence of {divergence:g} nats; expected 0 or more")
    return math.sqrt(2.0 * divergence)


def _variances(moments: Moments) -> Float[np.ndarray, " prompts"]:
    """Variance of the reward within every prompt.

    Raises:
        ValueError: it is 0 in all.
    """
    found: Float[np.ndarray, " prompts"] = moments[:, -1, -1]
    if not found.mean() > 0:
        raise ValueError("the reward never differs between completions of a prompt: nothing is learnt from it")
    return found


def _over_sd(
    reach: float, own: Float[np.ndarray, " prompts"], mean: float, whole: Float[np.ndarray, " prompts"]
) -> Statistic:
    """reach x mean(own) / sqrt(mean(whole)), two means over prompts."""
    variance = float(whole.mean())
    sd = math.sqrt(variance)
    influence = (own - mean) / sd - 0.5 * mean * (whole - variance) / sd**3
    return Statistic(reach * mean / sd, reach * influence)


def _with_error(found: Statistic, error: float, level: float) -> Interval:
    """Over prompts, wider for an independent standard error that is known."""
    return widened(interval(found, level=level), [(error**2, math.inf)], level)
