"""The table of objectives of a policy: what each is called, and what it needs.

Conventions
    those of `functional.alignment`, which has the losses
    labels     what an objective learns from: "rewards" of K candidates, or the "order" of two, the winner first
    options    the numbers of an objective, by the names of its loss's arguments; one that it does not have is refused
               rather than ignored

References
    [1] Ji et al. 2024, Towards efficient exact optimization of language model alignment (EXO), arXiv 2402.00856.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from rewardlab.functional import alignment

INPUTS = {"ratios", "sums", "rewards", "lengths", "present"}


@dataclass(frozen=True)
class PolicyObjective:
    """What is minimised, and what that takes.

    Attributes:
        name: what it is called in configurations and messages.
        loss: its function in `functional.alignment`.
        labels: what it learns from.
        reference: whether it takes log-ratios to a reference; otherwise log-probabilities of the policy alone.
        smallest: the fewest candidates to a prompt.
    """

    name: str
    loss: Callable[..., Tensor]
    labels: Literal["rewards", "order"]
    reference: bool = True
    smallest: int = 2

    @property
    def largest(self) -> int | None:
        """The most candidates to a prompt; None where there is no limit."""
        return None if self.labels == "rewards" else 2

    @property
    def lengths(self) -> bool:
        """Whether it needs the lengths of completions."""
        return "lengths" in inspect.signature(self.loss).parameters

    @property
    def options(self) -> dict[str, float | None]:
        """Its options with their defaults; None where it has to be given."""
        parameters = inspect.signature(self.loss).parameters
        return {
            name: None if parameter.default is parameter.empty else parameter.default
            for name, parameter in parameters.items()
            if name not in INPUTS
        }

    def check(self, candidates: int) -> None:
        """Refuse a number of candidates to a prompt that the objective is not defined for.

        Raises:
            ValueError: which objective, how many there are and how many it takes.
        """
        if self.largest == 2:
            alignment.check_pairs(self.name, candidates)
        elif candidates < self.smallest:
            raise ValueError(
                f"{self.name}: found {candidates} candidates to a prompt; expected {self.smallest} or more"
            )

    def losses(
        self,
        values: Float[Tensor, "prompts candidates"],
        *,
        rewards: Float[Tensor, "prompts candidates"] | None = None,
        lengths: Int[Tensor, "prompts candidates"] | Float[Tensor, "prompts candidates"] | None = None,
        present: Bool[Tensor, "prompts candidates"] | None = None,
        **options: float,
    ) -> Float[Tensor, " prompts"]:
        """The loss of every prompt.

        Args:
            values: log-ratios of the candidates, or, without a reference, log-probabilities; sums over tokens. Where
                the labels are an order, the winner first.
            rewards: where the labels are rewards, and only there.
            lengths: in tokens; looked at only where they are needed.
            present: which candidates there are; None is all, and pairs are always whole.
            **options: beta and the others that the objective has.

        Raises:
            ValueError: a number of candidates that it is not defined for, an input that is missing or that it would
                ignore, or an option that it does not have or that is out of range.
        """
        self.check(values.shape[1])
        self._check_options(options)
        given: dict[str, Tensor | None] = {}
        if self.labels == "rewards":
            if rewards is None:
                raise ValueError(f"{self.name}: found no rewards; expected one per candidate")
            given = {"rewards": rewards, "present": present}
        elif rewards is not None:
            raise ValueError(f"{self.name}: found rewards; expected none, the winner first")
        elif present is not None and not bool(present.all()):
            raise ValueError(f"{self.name}: found a prompt with one candidate; expected a winner and a loser in each")
        if self.lengths:
            if lengths is None:
                raise ValueError(f"{self.name}: found no lengths; expected one per candidate, in tokens")
            given["lengths"] = lengths
        return self.loss(values, **given, **options)

    def _check_options(self, options: dict[str, float]) -> None:
        known = self.options
        missing = [name for name, default in known.items() if default is None and name not in options]
        other = [name for name in options if name not in known]
        if missing or other:
            found = ", ".join(options) or "none"
            expected = ", ".join(name if default is None else f"{name} (optional)" for name, default in known.items())
            raise ValueError(f"{self.name}: found options {found}; expected {expected}")
        for name in ("beta", "reward_beta"):
            if name in options and not options[name] > 0.0:
                raise ValueError(f"{self.name}: found {name} {options[name]}; expected more than 0")


OBJECTIVES = {
    objective.name: objective
    for objective in (
        PolicyObjective("exo-rw", alignment.exo_rw, "rewards"),
        PolicyObjective("exo-pref", alignment.exo_pref, "order"),
        PolicyObjective("exo-pref-published", alignment.exo_pref_published, "order"),
        PolicyObjective("dpo-rw", alignment.dpo_rw, "rewards"),
        PolicyObjective("dpo-pref", alignment.dpo_pref, "order"),
        PolicyObjective("robust", alignment.robust, "order"),
        PolicyObjective("hinge", alignment.hinge, "order"),
        PolicyObjective("ipo", alignment.ipo, "order"),
        PolicyObjective("ipo-sum", alignment.ipo_sum, "order"),
        PolicyObjective("simpo", alignment.simpo, "order", reference=False),
    )
}
