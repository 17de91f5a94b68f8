"""Win rates: raw, at equal length, and as a ranking.

Conventions
    p            preference of a model's answer over the baseline's, in [0, 1]; a tie is 1/2. NaN where there is none
    d            length of the model's answer minus the baseline's, in characters
    t            tanh(d / sd(d)), the length feature of a model's comparisons
    gamma_i      difficulty of instruction i, shared by all models: the larger, the better they fare on it
    m, i         number of a model, number of an instruction (the observation)
    clusters     what was asked, as numbers from 0 without a gap; instructions that ask the same are drawn, held out and
                 counted together. Every instruction is its own where there are none
    G            number of clusters in which a model has an answer
    weights      how often an instruction counts: 1, or what a resample drew

    logit P(model wins) = theta_m + phi_m t_mi + psi_m gamma_i

    gamma is fitted first, over all models with psi_m = 1, then theta, phi and psi of each model with gamma held. The
    win rate at equal length is the mean over the instructions of the prediction at t = 0. Where the answers are hardly
    ever equally long that is an extrapolation, and only as good as the form of the model.

    The ridge on psi is chosen by cross-validation. That on phi is not: whatever draws phi to 0 leaves a part of the
    effect of length in theta, a bias of the very rate that the fit is for, and cross-validation, which weighs the error
    of predictions where the data lie and not at t = 0, draws it far. It is that of a wide normal distribution of phi.

References
    [1] Dubois et al. 2024, Length-controlled AlpacaEval, arXiv 2404.04475, section 3.
    [2] Bradley and Terry 1952, Rank analysis of incomplete block designs.
    [3] Ford 1957, Solution of a ranking problem from binary comparisons.
    [4] Huber 1967, The behavior of maximum likelihood estimates under nonstandard conditions.
    [5] Zermelo 1929; Hunter 2004, MM algorithms for generalized Bradley-Terry models.
    [6] Davison and Hinkley 1997, Bootstrap methods and their application, chapters 2 and 3.
    [7] Conner and Grant 2000, An extension of Zermelo's model for ranking by paired comparisons.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.random import Generator
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit, logit, stdtrit

from rewardlab.functional.intervals import Statistic, numbered

RIDGE = 1.0
"""Of gamma and of phi in the joint fit: 1 / variance of the normal distribution they are thought to come from."""
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Strengths of the second fit's ridge on psi that cross-validation chooses from."""
PHI_SPREAD = 5.0
"""Standard deviation of the normal distribution that phi is thought to come from in the second fit: from one end of t
to the other, which is 2 apart, the odds change by e^10 or less in two models of three. It keeps phi finite where length
alone decides, and is of no weight elsewhere."""
FOLDS = 5
FEWEST = 10
"""Prompts below which nothing is fitted: each fold needs two."""
TOO_FEW = f"fewer than {FEWEST} prompts are too few for a fit"
ALL_ALIKE = "every comparison has the same winner, so there is nothing to fit"
SAME_DIFFERENCE = "the difference in length is the same everywhere, so its effect cannot be told"
ONE_MODEL = "with one model the difficulty of an instruction cannot be told from its outcome, so it is left out"
NOT_CONNECTED = "some models never meet the others, directly or through a third one, so nothing ranks all of them"

_STEPS = 100
_CONVERGED = 1e-8
_LARGEST_STEP = 4.0
_LEAST = 1e-12
_CELLS = 1 << 19
"""Resamples times instructions that are fitted at once."""


Clusters = Int[np.ndarray, " n"] | None
"""See the conventions."""
Ridge = float | Float[np.ndarray, " k"]
"""Strength of a ridge: of all coefficients but the intercept, or of each."""

By = Literal["joint", "others", "none"]
"""How gamma is found for a model's fit; see `difficulties`."""


class Difficulty(NamedTuple):
    """The joint fit of all models.

    Attributes:
        gamma: difficulty of each instruction; sums to 0 over the instructions, by their weights.
        theta, phi: of each model, in this fit alone.
    """

    gamma: Float[np.ndarray, " instructions"]
    theta: Float[np.ndarray, " models"]
    phi: Float[np.ndarray, " models"]


class LengthControlled(NamedTuple):
    """The fit of one model with gamma held.

    Attributes:
        rate: win rate at equal length, with its influence values per comparison.
        theta, phi: see the conventions.
        psi: of gamma; None where gamma is left out.
    """

    rate: Statistic
    theta: float
    phi: float
    psi: float | None


def length_feature(difference: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """tanh(d / sd(d)), with the sample standard deviation (n - 1); 0 everywhere where d does not vary.

    NaN stays NaN and has no part in the standard deviation.

    Source: [1], equation 2.
    """
    known = difference[~np.isnan(difference)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return np.asarray(np.tanh(difference / spread) if spread > 0.0 else difference * 0.0)


def why_not_fitted(
    preference: Float[np.ndarray, " n"], difference: Float[np.ndarray, " n"], clusters: Clusters = None
) -> str:
    """Why a model's comparisons cannot be fitted; empty where they can.

    Args:
        preference: p, without NaN.
        difference: d.
        clusters: as in the conventions.

    Source: none; the conditions under which the estimates of [1] are finite.
    """
    if _count(len(preference), clusters) < FEWEST:
        return TOO_FEW
    if np.ptp(preference) == 0.0 and preference[0] in (0.0, 1.0):
        return ALL_ALIKE
    return SAME_DIFFERENCE if np.ptp(difference) == 0.0 else ""


def fit_difficulty(
    preference: Float[np.ndarray, "models instructions"],
    feature: Float[np.ndarray, "models instructions"],
    weights: Float[np.ndarray, " instructions"] | None = None,
    ridge: float = RIDGE,
) -> Difficulty:
    """gamma, fitted jointly over all models with psi = 1.

        min  sum_i w_i [ sum_m loss(p_mi, theta_m + phi_m t_mi + gamma_i) + ridge / 2 gamma_i^2 ] + ridge / 2 |phi|^2

    with loss(p, z) = -p log sigma(z) - (1 - p) log sigma(-z). Newton's method; as no two gamma share a term, they are
    eliminated and a step costs as much as one for theta and phi.

    Args:
        preference: p; NaN where a model has no answer. Every model has wins and losses, or parts of them.
        feature: t, NaN in the same places.
        weights: of the instructions; 1 without.
        ridge: above 0, so that the optimum is unique.

    Source: [1], section 3; the elimination is the Schur complement.
    """
    models, count = preference.shape
    there = ~np.isnan(preference)
    p, t = np.where(there, preference, 0.0), np.where(there, feature, 0.0)
    own = np.ones(count) if weights is None else weights
    each = there * own
    shared, gamma = np.zeros(2 * models), np.zeros(count)

    def objective(shared: Float[np.ndarray, " k"], gamma: Float[np.ndarray, " n"]) -> float:
        z = shared[:models, None] + shared[models:, None] * t + gamma
        fit = float((each * _loss(p, z)).sum())
        return fit + ridge / 2.0 * (float(own @ np.square(gamma)) + float(np.square(shared[models:]).sum()))

    value = objective(shared, gamma)
    for _ in range(_STEPS):
        q = expit(shared[:models, None] + shared[models:, None] * t + gamma)
        rest, curve = each * (q - p), each * q * (1.0 - q)
        slope = np.concatenate([rest.sum(axis=1), (rest * t).sum(axis=1) + ridge * shared[models:]])
        slope_gamma = rest.sum(axis=0) + ridge * own * gamma
        # An instruction that no resample drew has no term: its gamma stays 0 and divides by 1.
        diagonal = np.where(own > 0.0, curve.sum(axis=0) + ridge * own, 1.0)
        across = np.concatenate([curve, curve * t])
        matrix = _block(curve, t, ridge) - (across / diagonal) @ across.T
        step = np.linalg.solve(matrix, slope - across @ (slope_gamma / diagonal))
        step_gamma = (slope_gamma - across.T @ step) / diagonal
        size = float(max(np.abs(step).max(), np.abs(step_gamma).max(initial=0.0)))
        scale = min(1.0, _LARGEST_STEP / max(size, _CONVERGED))
        following = objective(shared - scale * step, gamma - scale * step_gamma)
        while following > value + 1e-12 * abs(value) and scale > 1e-6:
            scale /= 2.0
            following = objective(shared - scale * step, gamma - scale * step_gamma)
        shared, gamma, value = shared - scale * step, gamma - scale * step_gamma, following
        if size < _CONVERGED:
            break
    return Difficulty(gamma, shared[:models], shared[models:])


def _block(
    curve: Float[np.ndarray, "models n"], t: Float[np.ndarray, "models n"], ridge: float
) -> Float[np.ndarray, "k k"]:
    """Second derivatives in theta and phi, which no two models share."""
    first, mixed, second = curve.sum(axis=1), (curve * t).sum(axis=1), (curve * t * t).sum(axis=1)
    return np.asarray(np.block([[np.diag(first), np.diag(mixed)], [np.diag(mixed), np.diag(second + ridge)]]))


def difficulties(
    preference: Float[np.ndarray, "models instructions"],
    feature: Float[np.ndarray, "models instructions"],
    by: By = "joint",
    weights: Float[np.ndarray, " instructions"] | None = None,
) -> list[Float[np.ndarray, " instructions"] | None]:
    """gamma as each model's fit takes it; None where there are not enough models to tell it from.

    Args:
        preference: p of the models that can be fitted, as in `fit_difficulty`.
        feature: t.
        by: "joint" fits it over all models, as published. A model's own outcomes are then on both sides of its fit,
            which with few models and a strong effect of length biases it a little; "others" fits it for each model
            over the others; "none" leaves it out.
        weights: of the instructions.

    Source: [1], section 3, for "joint"; fitting over the others is ours, after the cross-fitting of Chernozhukov et
    al. 2018, Double/debiased machine learning.
    """
    models = len(preference)
    if by == "none" or models < 2:
        return [None] * models
    if by == "joint":
        return [fit_difficulty(preference, feature, weights).gamma] * models
    return [
        fit_difficulty(np.delete(preference, own, 0), np.delete(feature, own, 0), weights).gamma
        for own in range(models)
    ]


def _count(n: int, clusters: Clusters) -> int:
    return n if clusters is None else len(np.unique(clusters))


def ridge_of(prompts: int, penalty: float | None = None) -> Float[np.ndarray, " k"]:
    """The ridge of the second fit on theta, phi and, where there is one, psi: 0, 1 / (G s^2), penalty.

    s is `PHI_SPREAD`: as losses are means, that is the term of a normal distribution N(0, s^2) of phi.

    Args:
        prompts: G.
        penalty: on psi; None where gamma is left out.

    Source: ours; see the conventions.
    """
    own = [0.0, 1.0 / (prompts * PHI_SPREAD**2)]
    return np.array(own if penalty is None else [*own, penalty])


def _ridges(penalty: Ridge, k: int) -> Float[np.ndarray, " k"]:
    if isinstance(penalty, np.ndarray):
        return penalty
    ridge = np.full(k, penalty)
    ridge[0] = 0.0
    return ridge


def fit_logistic(
    columns: Float[np.ndarray, "n k"],
    preference: Float[np.ndarray, " n"],
    penalty: Ridge,
    weights: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " k"]:
    """b that minimises sum w loss(p, X b) / sum w + 1/2 sum_j penalty_j b_j^2, by Newton's method.

    Args:
        columns: X; its first column is the intercept.
        preference: p in [0, 1]: fractions count as so much of a win and the rest of a loss. Not all 0, not all 1.
        penalty: one of every column; of a number the intercept has none. Above 0 but for the intercept.
        weights: w; 1 without.

    Source: logistic regression with a ridge, le Cessie and van Houwelingen 1992; fractions: Papke and Wooldridge 1996.
    """
    each = np.ones(len(preference)) if weights is None else weights
    return np.asarray(_fit_all(columns, preference, _ridges(penalty, columns.shape[1]), each[None, :])[0])


def _fit_all(
    columns: Float[np.ndarray, "n k"],
    preference: Float[np.ndarray, " n"],
    ridge: Float[np.ndarray, " k"],
    weights: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, "draws k"]:
    """`fit_logistic` with each row of the weights, at once."""
    each = weights / weights.sum(axis=1, keepdims=True)
    k = columns.shape[1]
    products = (columns[:, :, None] * columns[:, None, :]).reshape(-1, k * k)
    found = np.zeros((len(each), k))
    value = _objectives(columns, preference, ridge, each, found)
    for _ in range(_STEPS):
        q = expit(found @ columns.T)
        slope = (each * (q - preference)) @ columns + ridge * found
        matrix = ((each * q * (1.0 - q)) @ products).reshape(-1, k, k) + np.diag(ridge)
        # Weights that leave a single win, at one length, may leave a direction flat.
        step = (np.linalg.pinv(matrix, hermitian=True) @ slope[:, :, None])[:, :, 0]
        size = np.abs(step).max(axis=1, initial=0.0)
        scale = np.minimum(1.0, _LARGEST_STEP / np.maximum(size, _CONVERGED))
        following = _objectives(columns, preference, ridge, each, found - scale[:, None] * step)
        while (rising := (following > value + 1e-12 * np.abs(value)) & (scale > 1e-6)).any():
            scale = np.where(rising, scale / 2.0, scale)
            following = _objectives(columns, preference, ridge, each, found - scale[:, None] * step)
        found, value = found - scale[:, None] * step, following
        if size.max(initial=0.0) < _CONVERGED:
            break
    return found


def _objectives(
    columns: Float[np.ndarray, "n k"],
    preference: Float[np.ndarray, " n"],
    ridge: Float[np.ndarray, " k"],
    weights: Float[np.ndarray, "draws n"],
    found: Float[np.ndarray, "draws k"],
) -> Float[np.ndarray, " draws"]:
    fit = (weights * _loss(preference, found @ columns.T)).sum(axis=1)
    return np.asarray(fit + np.square(found) @ ridge / 2.0)


def _loss(p: Float[np.ndarray, "*#n"], z: Float[np.ndarray, "*#n"]) -> Float[np.ndarray, "*#n"]:
    return np.asarray((1.0 - p) * z - log_expit(z))


def chosen_penalty(
    columns: Float[np.ndarray, "n k"],
    preference: Float[np.ndarray, " n"],
    generator: Generator,
    clusters: Clusters = None,
    penalties: tuple[float, ...] = PENALTIES,
    folds: int = FOLDS,
) -> float:
    """The penalty on psi with the least log loss on prompts left out, fold by fold; phi has that of `ridge_of`.

    Args:
        columns: X of `design`, with gamma.
        preference: p.
        generator: deals the prompts out to the folds.
        clusters: as in the conventions.
        penalties: to choose from, the smallest first; of equals the smallest is taken.
        folds: as many as fit.

    Source: Stone 1974, Cross-validatory choice and assessment of statistical predictions.
    """
    own, count = _numbered(len(preference), clusters)
    fold = generator.permutation(np.arange(count) % folds)[own]
    losses = np.zeros(len(penalties))
    for number in range(folds):
        held = fold == number
        kept = preference[~held]
        if np.ptp(kept) == 0.0 and kept[0] in (0.0, 1.0):
            continue
        for index, penalty in enumerate(penalties):
            found = fit_logistic(columns[~held], kept, ridge_of(count, penalty))
            losses[index] += float(_loss(preference[held], columns[held] @ found).sum())
    return penalties[int(np.argmin(losses))]


def _numbered(n: int, clusters: Clusters) -> tuple[Int[np.ndarray, " n"], int]:
    return (np.arange(n), n) if clusters is None else numbered(clusters)


def design(feature: Float[np.ndarray, " n"], gamma: Float[np.ndarray, " n"] | None) -> Float[np.ndarray, "n k"]:
    """Columns of the second fit: 1, t, and gamma where there is one. Source: [1], equation 2."""
    columns = [np.ones(len(feature)), feature]
    return np.stack(columns if gamma is None else [*columns, gamma], axis=1)


def length_controlled(
    preference: Float[np.ndarray, " n"], columns: Float[np.ndarray, "n k"], penalty: Ridge
) -> LengthControlled:
    """The win rate at equal length of one model, with gamma held.

        LC = mean_i sigma(theta + psi gamma_i)
        influence on b:  A^-1 (x_i (p_i - q_i) - R b),  A = mean(x_i x_i' q_i (1 - q_i)) + R
        influence on LC: sigma(theta + psi gamma_i) - LC + mean(dLC/db) . influence on b

    R is the diagonal matrix of the ridge. The influence takes gamma, the ridge and sd(d) as they are;
    `resampled_rates` fits gamma anew.

    Args:
        preference: p, without NaN.
        columns: of `design`.
        penalty: of `fit_logistic`.

    Source: [1], section 3; [4] for the influence.
    """
    ridge = _ridges(penalty, columns.shape[1])
    found = fit_logistic(columns, preference, ridge)
    q = expit(columns @ found)
    matrix = (columns * (q * (1.0 - q))[:, None]).T @ columns / len(q) + np.diag(ridge)
    scores = columns * (preference - q)[:, None] - ridge * found
    own = np.linalg.lstsq(matrix, scores.T, rcond=None)[0].T
    level = _at_equal_length(columns)
    predicted = expit(level @ found)
    rate = float(predicted.mean())
    slope = (level * (predicted * (1.0 - predicted))[:, None]).mean(axis=0)
    psi = float(found[2]) if len(found) > 2 else None
    return LengthControlled(Statistic(rate, predicted - rate + own @ slope), float(found[0]), float(found[1]), psi)


def _at_equal_length(columns: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    level = columns.copy()
    level[:, 1] = 0.0
    return level


def resampled_rates(
    preference: Float[np.ndarray, "models instructions"],
    feature: Float[np.ndarray, "models instructions"],
    penalties: Float[np.ndarray, " models"],
    generator: Generator,
    draws: int = 1000,
    by: By = "joint",
    clusters: Int[np.ndarray, " instructions"] | None = None,
) -> Float[np.ndarray, "draws models 2"]:
    """Raw win rate and win rate at equal length of every model, in resamples of whole clusters.

    gamma and the fits of the models are made anew in every resample, with the ridges and the features as they are.
    NaN where a resample has nothing of a model, or nothing to fit.

    Args:
        preference: p, NaN where a model has no answer.
        feature: t, NaN in the same places.
        penalties: on psi of each model's fit; without a meaning where gamma is left out. NaN of models that are not to
            be fitted.
        generator: source of the draws.
        draws: number of resamples.
        by: of `difficulties`.
        clusters: as in the conventions.

    Source: [6], section 3.8 (whole clusters).
    """
    there, fits = ~np.isnan(preference), ~np.isnan(penalties)
    of, count = _numbered(preference.shape[1], clusters)
    taken = [np.bincount(row, minlength=count) for row in generator.integers(0, count, size=(draws, count))]
    weights = np.array(taken, dtype=np.float64)[:, of]
    found = np.full((draws, len(preference), 2), np.nan)
    usable = np.zeros((draws, len(preference)), dtype=bool)
    for model, (own, kept) in enumerate(zip(preference, there, strict=True)):
        each = weights[:, kept]
        total = each.sum(axis=1)
        found[total > 0.0, model, 0] = (each @ own[kept])[total > 0.0] / total[total > 0.0]
        usable[:, model] = [bool(fits[model]) and _varies(own[kept], row) for row in each]

    def refitted(
        model: int, rows: Int[np.ndarray, " some"], gamma: Float[np.ndarray, " n"] | None
    ) -> Float[np.ndarray, " some"]:
        kept = there[model]
        ridge = ridge_of(len(np.unique(of[kept])), None if gamma is None else float(penalties[model]))
        own = None if gamma is None else gamma[kept]
        return _refitted(preference[model, kept], feature[model, kept], own, weights[rows][:, kept], ridge)

    without = usable.copy()
    if by != "none" and fits.sum() > 1:
        for draw, own in enumerate(usable):
            gammas = difficulties(preference[own], feature[own], by, weights[draw])
            for model, gamma in zip(np.flatnonzero(own).tolist(), gammas, strict=True):
                if gamma is not None:
                    without[draw, model] = False
                    found[draw, model, 1] = refitted(model, np.array([draw]), gamma)[0]
    for model in np.flatnonzero(fits).tolist():
        # A few at a time, so that what is computed along the way stays small.
        for rows in np.array_split(np.flatnonzero(without[:, model]), 1 + draws * len(of) // _CELLS):
            found[rows, model, 1] = refitted(model, rows, None)
    return found


def _refitted(
    preference: Float[np.ndarray, " n"],
    feature: Float[np.ndarray, " n"],
    gamma: Float[np.ndarray, " n"] | None,
    weights: Float[np.ndarray, "draws n"],
    ridge: Float[np.ndarray, " k"],
) -> Float[np.ndarray, " draws"]:
    """The win rate at equal length in each resample."""
    columns = design(feature, gamma)
    fitted = _fit_all(columns, preference, ridge, weights)
    predicted = expit(fitted @ _at_equal_length(columns).T)
    return np.asarray((weights * predicted).sum(axis=1) / weights.sum(axis=1))


def logit_ends(value: float, error: float, freedom: float, level: float = 0.95) -> tuple[float, float]:
    """Ends of Student's interval of a share on the logit scale, which stays within (0, 1):

        sigma(logit(v) +- t se / (v (1 - v)))

    Percentiles of resamples, and Student's interval on the share itself, hold the truth less often: the rate at equal
    length is an extrapolation, and skewed.

    Args:
        value: v, the share.
        error: se, its standard error.
        freedom: degrees of freedom of t.
        level: coverage.

    Source: Agresti 2013, Categorical data analysis, section 3.1 (delta method); with a standard error over resamples,
    [6], section 5.2.1.
    """
    share = min(max(value, _LEAST), 1.0 - _LEAST)
    half = float(stdtrit(freedom, 0.5 + level / 2.0)) * error / (share * (1.0 - share))
    centre = float(logit(share))
    return float(expit(centre - half)), float(expit(centre + half))


def _varies(preference: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> bool:
    drawn = preference[weights > 0.0]
    return len(drawn) > 0 and not (np.ptp(drawn) == 0.0 and drawn[0] in (0.0, 1.0))


def is_connected(wins: Float[np.ndarray, "models models"]) -> bool:
    """Whether finite strengths fit: however the models are split in two, each part has won against the other.

    Args:
        wins: wins[a, b] counts a's wins over b; ties are half a win of either.

    Source: [3].
    """
    return int(connected_components(wins > 0.0, directed=True, connection="strong")[0]) == 1


class Standing(NamedTuple):
    """Why no finite strengths fit.

    Attributes:
        unbeaten: models that others have met and never won against, not even by a tie.
        winless: models that have met others and never won, not even by a tie.
        groups: models between which finite strengths fit, the groups in no order; one group where they fit for all.
        met: whether all models meet, directly or through others.
    """

    unbeaten: tuple[int, ...]
    winless: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    met: bool


def standing(wins: Float[np.ndarray, "models models"]) -> Standing:
    """Who keeps strengths from being finite.

    Args:
        wins: as in `is_connected`.

    Source: [3]: strengths are finite within the strongly connected parts of the graph of wins.
    """
    count, part = connected_components(wins > 0.0, directed=True, connection="strong")
    met = int(connected_components(wins > 0.0, directed=True, connection="weak")[0]) == 1
    groups = tuple(tuple(np.flatnonzero(part == number).tolist()) for number in range(count))
    won, lost = wins.sum(axis=1), wins.sum(axis=0)
    unbeaten = tuple(np.flatnonzero((won > 0.0) & (lost == 0.0)).tolist())
    winless = tuple(np.flatnonzero((won == 0.0) & (lost > 0.0)).tolist())
    return Standing(unbeaten, winless, groups, met)


def one_tie_each(wins: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """What to add to the wins so that strengths are finite wherever models meet: a tie between every two that met.

        a_ij = 1/2 where w_ij + w_ji > 0, else 0

    It draws strengths together, the less the more comparisons there are.

    Args:
        wins: as in `is_connected`.

    Source: [7], with epsilon = 1/2.
    """
    return np.asarray(0.5 * (wins + wins.T > 0.0))


def preference_of_scores(first: Float[np.ndarray, " m"], second: Float[np.ndarray, " n"]) -> float:
    """How often a score of the first model is above one of the second, over all m n pairs; equal ones count half.

    NaN scores are left out; NaN where one side has none.

    Source: Mann and Whitney 1947: U / (m n).
    """
    own, other = first[~np.isnan(first)], second[~np.isnan(second)]
    if not (len(own) and len(other)):
        return float("nan")
    signs = np.sign(own[:, None] - other)
    return float((1.0 + signs.mean()) / 2.0)


def disagreement(preference: Float[np.ndarray, "judges duels"]) -> float:
    """By how much several judges differ over the same duels: 0 where all say the same, 1 where half say the opposite.

        mean over the duels of 4 var(p), with the population variance over the judges that have a preference

    NaN where no duel has two of them.

    Args:
        preference: p of every judge, NaN where it has none.

    Source: Popoviciu 1935: the variance of values in [0, 1] is at most 1/4.
    """
    known = ~np.isnan(preference)
    told = known.sum(axis=0) > 1
    if not told.any():
        return float("nan")
    own = np.where(known, preference, 0.0)[:, told]
    count = known[:, told].sum(axis=0)
    centre = own.sum(axis=0) / count
    spread = (known[:, told] * np.square(own - centre)).sum(axis=0) / count
    return float(4.0 * spread.mean())


def bradley_terry(wins: Float[np.ndarray, "*draws models models"]) -> Float[np.ndarray, "*draws models"]:
    """Strengths s, of sum 0, with P(a beats b) = sigma(s_a - s_b): the maximum of the likelihood, by Newton's method.

        max  sum_{a, b} wins_ab log sigma(s_a - s_b)

    NaN where no finite strengths fit (`is_connected`).

    Args:
        wins: wins[..., a, b] counts a's wins over b, fractions too; the diagonal is 0.

    Source: [2]; existence [3]; the same maximum as the iteration of [5].
    """
    models = wins.shape[-1]
    flat = wins.reshape(-1, models, models)
    found = np.full((len(flat), models), np.nan)
    # Where everybody has won against everybody there is nothing to look for.
    fits: Bool[np.ndarray, " draws"] = np.asarray(((flat > 0.0) | np.eye(models, dtype=bool)).all(axis=(1, 2)))
    fits[~fits] = [is_connected(one) for one in flat[~fits]]
    found[fits] = _strengths(flat[fits])
    return found.reshape(wins.shape[:-1])


def _strengths(wins: Float[np.ndarray, "draws models models"]) -> Float[np.ndarray, "draws models"]:
    draws, models, _ = wins.shape
    games = wins + wins.swapaxes(1, 2)
    strengths = np.zeros((draws, models))
    active: Bool[np.ndarray, " draws"] = np.ones(draws, dtype=bool)
    for _ in range(_STEPS):
        if not active.any():
            break
        now = strengths[active]
        q = expit(now[:, :, None] - now[:, None, :])
        slope = (wins[active] - games[active] * q).sum(axis=2)
        curve = games[active] * q * (1.0 - q)
        # The strengths are known up to a constant: 1 / models in every cell holds their sum at 0.
        matrix = -curve + 1.0 / models
        matrix[:, range(models), range(models)] += curve.sum(axis=2)
        step = np.linalg.solve(matrix, slope[..., None])[..., 0]
        step -= step.mean(axis=1, keepdims=True)
        size = np.abs(step).max(axis=1)
        # A full step may leap over the maximum where a strength is far out; a short one is always uphill.
        strengths[active] = now + step * np.minimum(1.0, 1.0 / np.maximum(size, _CONVERGED))[:, None]
        active[active] = size > _CONVERGED
    return strengths
