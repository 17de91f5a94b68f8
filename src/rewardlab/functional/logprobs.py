"""Log-probabilities of completions, and the rewards that a policy implies.

The plain way, with the logits of every position: what faster ways are held equal to.

Conventions
    logits     of the next token, before any temperature
    T          sampling temperature, above 0: logits are divided by it before their softmax
    dtypes     the softmax is taken in float32 (float64 where an input is float64), whatever the model's dtype is

References
    [1] Rafailov et al. 2023, Direct preference optimization, arXiv 2305.18290, section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_log_probabilities(
    logits: Float[Tensor, "*place vocabulary"], ids: Int[Tensor, " *place"], temperature: float = 1.0
) -> Float[Tensor, " *place"]:
    """Log-probability of every token under the logits at its own place.

        log softmax(logits / T)[id]

    Args:
        logits: what predicts the token: of a decoder-only model those one position before it.
        ids: of the tokens.
        temperature: T.

    Raises:
        ValueError: T of 0 or less.

    Source: the chain rule; [1].
    """
    if not temperature > 0.0:
        raise ValueError(f"found temperature {temperature}; expected more than 0")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide / temperature, dim=-1).gather(-1, ids.long().unsqueeze(-1)).squeeze(-1)


def completion_log_probabilities(
    logits: Float[Tensor, "rows time vocabulary"],
    ids: Int[Tensor, "rows time"],
    of_completion: Bool[Tensor, "rows time"],
    temperature: float = 1.0,
) -> Float[Tensor, " rows"]:
    """Log-probability of every completion given its prompt, of a decoder-only model: a sum over its tokens.

    Args:
        logits: at position t of the token at t + 1, as such a model gives them.
        ids: of prompt and completion, padded on either side.
        of_completion: which tokens are the completion's: an end-of-sequence token that ends it is one of them, padding
            is not, whatever its id.
        temperature: T.

    Raises:
        ValueError: T of 0 or less, or a completion that starts at the first position, whose token nothing predicts.

    Source: the chain rule; [1].
    """
    if of_completion.shape[1] and bool(of_completion[:, 0].any()):
        raise ValueError("found a completion at the first position; expected at least one token before it")
    found = token_log_probabilities(logits[:, :-1], ids[:, 1:], temperature)
    # Chosen rather than multiplied: a token of padding may have a log-probability of minus infinity.
    return found.masked_fill(~of_completion[:, 1:], 0.0).sum(dim=1)


def token_divergences(
    logits: Float[Tensor, "*place vocabulary"],
    reference: Float[Tensor, "*place vocabulary"],
    temperature: float = 1.0,
) -> Float[Tensor, " *place"]:
    """KL of the distribution of the next token from that of a reference, over the whole vocabulary, in nats.

        sum_v p_v (log p_v - log q_v),    p = softmax(logits / T), q = softmax(reference / T)

    Summed along a completion that p has written, its mean is the KL of completions, as that of log p - log q of the
    tokens is, with less variance: the expectation over every next token is taken, not drawn.

    Args:
        logits: of the policy.
        reference: of the reference, at the same places.
        temperature: T.

    Raises:
        ValueError: T of 0 or less.

    Source: the chain rule of KL (Cover and Thomas 2006, Elements of information theory, theorem 2.5.3); Rao-Blackwell.
    """
    if not temperature > 0.0:
        raise ValueError(f"found temperature {temperature}; expected more than 0")
    wide = [one if one.dtype == torch.float64 else one.float() for one in (logits, reference)]
    own, other = (torch.log_softmax(one / temperature, dim=-1) for one in wide)
    # Where p is 0 nothing is added, whatever q is: minus infinity minus itself is no number.
    terms = torch.where(own == -torch.inf, 0.0, own.exp() * (own - other))
    return terms.sum(dim=-1)


def implicit_reward(
    policy: Float[Tensor, " *shape"], reference: Float[Tensor, " *shape"], beta: float
) -> Float[Tensor, " *shape"]:
    """The reward for which the policy is the best one beside its reference: beta (log pi - log pi_ref).

    Up to a constant of the prompt, so that only differences between completions of one prompt mean something.

    Args:
        policy: log-probabilities of completions under the policy.
        reference: of the same completions under the reference.
        beta: weight of the divergence from the reference.

    Source: [1], equation 5.
    """
    wide = torch.promote_types(torch.promote_types(policy.dtype, reference.dtype), torch.float32)
    return beta * (policy.to(wide) - reference.to(wide))
