"""What a matrix of attributions says of each generated token: how much stems from the prompt, and how spread it is.

Conventions
    a[s, t]  attribution of generated token t to source token s, of any sign; NaN where s comes after t
    p[s, t]  |a[s, t]| / sum over s of |a[s, t]|, its share of the mass
    sources  the tokens of the prompt come first, then those generated before t
    units    shares from 0 to 1, entropy in nats

References
    [1] Sarti et al. 2023, Inseq: An interpretability toolkit for sequence generation models, arXiv 2302.13942.
    [2] Shannon 1948, A mathematical theory of communication.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def prompt_share(attributions: Float[np.ndarray, "sources tokens"], prompt: int) -> Float[np.ndarray, " tokens"]:
    """The share of attribution mass on the prompt, for each generated token; NaN where there is no mass at all.

    Args:
        attributions: a.
        prompt: how many of the sources are tokens of the prompt.

    Source: [1], whose attributions are summed.
    """
    return np.asarray(_shares(attributions)[:prompt].sum(axis=0))


def attribution_entropy(attributions: Float[np.ndarray, "sources tokens"]) -> Float[np.ndarray, " tokens"]:
    """Entropy of the shares of all sources, -sum p log p, for each generated token; 0 where one source has all.

    It is at most the logarithm of the number of sources, which grows from token to token.

    Source: [2], of the shares of [1].
    """
    shares = _shares(attributions)
    return np.asarray(-(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(axis=0))


def _shares(attributions: Float[np.ndarray, "sources tokens"]) -> Float[np.ndarray, "sources tokens"]:
    mass = np.abs(np.nan_to_num(attributions, nan=0.0))
    total = mass.sum(axis=0)
    return np.asarray(np.divide(mass, total, out=np.full(mass.shape, np.nan), where=total > 0.0))
