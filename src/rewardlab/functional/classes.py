"""Probabilities of the classes of a classifier, as log-odds.

Conventions
    z        logits, one per class; axis 1 is the class
    P(c)     softmax over the classes, where they exclude each other; otherwise the logistic function of z_c
    odds     P(c) / (1 - P(c))
    dtypes   that of z

References
    [1] Bishop 2006, Pattern Recognition and Machine Learning, equations 4.57 to 4.63.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def log_odds(logits: Float[Tensor, "rows classes"], label: int, *, exclusive: bool = True) -> Float[Tensor, " rows"]:
    """Log-odds of one class against all others; their logistic function is its probability.

        exclusive       z_c - log sum_{k != c} exp z_k
        not exclusive   z_c

    Far from 0, where a probability rounds to 0 or 1, log-odds still tell texts apart.

    Args:
        logits: z.
        label: c.
        exclusive: whether a text has exactly one class. Of a single class there are no others: z itself.

    Source: [1].
    """
    chosen = logits[:, label]
    if not exclusive or logits.shape[1] == 1:
        return chosen
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return chosen - others.logsumexp(dim=1)
