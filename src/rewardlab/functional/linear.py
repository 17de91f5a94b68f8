"""A linear Bradley-Terry model: the strongest thing that counts of features can say about a preference.

Conventions
    X          a row per pair: features of the chosen minus features of the rejected completion
    w          a weight per feature; the model's margin is X w, P(chosen wins) = sigma(X w)
    no intercept: swapping the sides of a pair must turn the margin around
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit


def fit_bradley_terry(differences: csr_array, penalty: float) -> Float[np.ndarray, " features"]:
    """Weights that minimise mean log(1 + exp(-X w)) + penalty / 2 * |w|^2.

    Args:
        differences: X, sparse, pairs by features; at least one pair.
        penalty: strength of the ridge, above 0, so that the optimum exists and is unique.

    Source: Bradley and Terry 1952 with covariates; solved by L-BFGS (Liu and Nocedal 1989).
    """
    if penalty <= 0.0:
        raise ValueError(f"penalty must be above 0, not {penalty}")
    pairs, features = differences.shape
    transposed = differences.T.tocsr()

    def loss_and_gradient(weights: Float[np.ndarray, " features"]) -> tuple[float, Float[np.ndarray, " features"]]:
        margins = differences @ weights
        loss = float(np.logaddexp(0.0, -margins).mean()) + penalty / 2.0 * float(weights @ weights)
        return loss, penalty * weights - transposed @ expit(-margins) / pairs

    found = minimize(
        loss_and_gradient,
        np.zeros(features),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "maxfun": 2000, "gtol": 1e-7, "ftol": 0.0},
    )
    return np.asarray(found.x, dtype=np.float64)
