"""Audits of the same responses by different rewriters, for the same reward model: does the finding hang on them?

Only responses count that every rewriter has brought through both rewrites: rewriters are compared on the same texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rewardlab.audit.estimates import EffectEstimate, Settings
from rewardlab.audit.summary import number
from rewardlab.functional import effects, rewriters
from rewardlab.functional.effects import Rewards, Target
from rewardlab.functional.intervals import Interval
from rewardlab.functional.rewriters import Robustness

NEEDED = ("id", "prompt_id", "draw", "treated", "original_reward", "rewrite_reward", "rerewrite_reward")
"""Columns of triples.parquet that are read, beside `scorer`."""
FEWEST = 2
"""Responses in common below which there is nothing to compare."""

_VERDICTS: Mapping[Robustness, str] = {
    "same": "Robust: every rewriter finds the effect on the same side of 0, and no two differ by more than chance",
    "direction": "Robust in direction: every rewriter finds the effect on the same side of 0; its size hangs on them",
    "none": "No rewriter can tell the effect from 0, and no two differ by more than chance",
    "open": "Open: some rewriters cannot tell the effect from 0, but no two differ by more than chance",
    "depends": "Not robust: the finding hangs on the rewriter",
    "unknown": "Cannot be judged: an effect has no interval",
}


class Rewritten(NamedTuple):
    """What an audit has of one rewriter and reward model.

    Attributes:
        rewriter: its name.
        triples: rows of triples.parquet of this reward model, with the columns `NEEDED`.
    """

    rewriter: str
    triples: pa.Table


@dataclass(frozen=True)
class Comparison:
    """Rewriters side by side, over the same responses.

    Attributes:
        attribute: what was audited.
        scorer: the reward model.
        rewriters: names, in order.
        responses: in common.
        target: what the effects are over: ATE, or the only side there is.
        estimates: per rewriter `rewriter.<number>` and `.sd`, numbers from 1; per pair
            `difference.<number>.<number>` and `.sd`, whose intervals hold together.
        components: variance of the signed differences by source, in squared units of the reward.
        robustness: what they say together.
        level: coverage.
    """

    attribute: str
    scorer: str
    rewriters: tuple[str, ...]
    responses: int
    target: Target
    estimates: tuple[EffectEstimate, ...]
    components: dict[str, Any]
    robustness: Robustness
    level: float

    @property
    def verdict(self) -> str:
        """What they say together, in words."""
        return _VERDICTS[self.robustness]

    def of(self, name: str) -> EffectEstimate:
        """The estimate of that name; KeyError where there is none."""
        return {one.name: one for one in self.estimates}[name]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "estimates"}
        estimates = [one.as_dict() for one in self.estimates]
        return {**values, "rewriters": list(self.rewriters), "verdict": self.verdict, "estimates": estimates}

    def line(self) -> str:
        """The verdict for the findings."""
        found = [self.of(f"rewriter.{number}.sd") for number in range(1, len(self.rewriters) + 1)]
        values = ", ".join(number(one.value, signed=True) for one in found if one.value is not None)
        return (
            f"{self.attribute} on {self.scorer}, by {len(self.rewriters)} rewriters over the same {self.responses:,} "
            f"responses ({values} standard deviations): {self.verdict[0].lower()}{self.verdict[1:]}."
        )


def compare_rewriters(
    attribute: str, scorer: str, audits: Sequence[Rewritten], level: float = 0.95
) -> Comparison | None:
    """RATE by each rewriter, the differences, and where the variance is; None with too few responses in common.

    Args:
        attribute: what was audited.
        scorer: the reward model.
        audits: one per rewriter, at least two.
        level: coverage.
    """
    known = [_rows(one.triples) for one in audits]
    first_draws = [{name for name, draw in one if draw == 0} for one in known]
    common = [name for name, draw in known[0] if draw == 0 and all(name in names for names in first_draws)]
    if len(common) < FEWEST:
        return None
    rewards = [_rewards(one, common) for one in known]
    treated = rewards[0].treated
    target: Target = "ATT" if treated.all() else "ATE" if treated.any() else "ATU"
    effects_found = [effects.effect(one, "double", target, level) for one in rewards]
    differences = rewriters.all_differences(rewards, "double", target, level)
    sd = effects.pooled_sd(rewards[0].original, treated)
    names = tuple(one.rewriter for one in audits)
    estimates = _estimates(names, effects_found, differences, sd, level)
    robust = rewriters.robustness(effects_found, list(differences.values()))
    found = components(known, common)
    return Comparison(attribute, scorer, names, len(common), target, estimates, found, robust, level)


def components(known: Sequence[Mapping[tuple[Any, int], Any]], common: Sequence[Any]) -> dict[str, Any]:
    """Variance of the signed differences by source, and the draws of each response that they were told from.

    With several draws by every rewriter of at least two responses, what a rewriter does to a text in particular is told
    from its chance, on those; else both are one, `rest`, on all.
    """
    counts = [Counter(name for name, _ in one) for one in known]
    size = {name: min(count[name] for count in counts) for name in common}
    several = [name for name in common if size[name] > 1]
    if len(several) < FEWEST:
        values = np.array([[_signed(one[name, 0]) for one in known] for name in common])
        found = rewriters.unreplicated_components(values)
        return {"texts": len(common), "draws": 1, **found._asdict(), "interaction": None, "draw": None}
    draws = min(size[name] for name in several)
    by_name = [_by_name(one) for one in known]
    cells = np.array([[one[name][:draws] for one in by_name] for name in several])
    apart = effects.variance_components(cells)
    return {"texts": len(several), "draws": draws, **apart._asdict(), "rest": None}


Row = tuple[str, bool, float, float, float]
"""Prompt, w, and the rewards O, S and D."""


def _rows(triples: pa.Table) -> dict[tuple[Any, int], Row]:
    """Chains with all three rewards by ((id, occurrence), draw): equal responses are told apart by their order."""
    columns = [triples[name].to_pylist() for name in NEEDED]
    seen: Counter[tuple[str, int]] = Counter()
    found = {}
    for identity, prompt, draw, treated, *rewards in zip(*columns, strict=True):
        occurrence = seen[identity, draw]
        seen[identity, draw] += 1
        if all(value is not None and np.isfinite(value) for value in rewards):
            found[(identity, occurrence), draw] = (prompt, treated, *rewards)
    return found


def _rewards(rows: Mapping[tuple[Any, int], Row], common: Sequence[Any]) -> Rewards:
    chosen = [rows[name, 0] for name in common]
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(row[0] for row in chosen))}
    # A question that all share clusters nothing.
    labels = [prompts[row[0]] if len(prompts) > 1 else place for place, row in enumerate(chosen)]
    original, rewrite, rerewrite = (np.array([row[place] for row in chosen]) for place in (2, 3, 4))
    treated = np.array([row[1] for row in chosen], dtype=bool)
    return Rewards(treated, original, rewrite, rerewrite, None, np.array(labels))


def _by_name(rows: Mapping[tuple[Any, int], Row]) -> dict[Any, list[float]]:
    """The signed differences of every response, draw by draw."""
    found: dict[Any, list[float]] = {}
    for (name, _), row in sorted(rows.items(), key=lambda item: item[0][1]):
        found.setdefault(name, []).append(_signed(row))
    return found


def _signed(row: Row) -> float:
    _, treated, _, rewrite, rerewrite = row
    return rerewrite - rewrite if treated else rewrite - rerewrite


def _estimates(
    names: Sequence[str],
    found: Sequence[Interval],
    differences: Mapping[tuple[int, int], Interval],
    sd: float | None,
    level: float,
) -> tuple[EffectEstimate, ...]:
    made: list[EffectEstimate] = []
    settings = Settings(level)
    for place, one in enumerate(found):
        words = f"RATE by {names[place]}, over the responses that every rewriter brought through"
        made += _both(settings, f"rewriter.{place + 1}", one, sd, words)
    each = Settings(rewriters.pairs_level(len(names), level))
    for first, second in combinations(range(len(names)), 2):
        words = f"RATE by {names[first]} minus RATE by {names[second]}, paired by response"
        made += _both(each, f"difference.{first + 1}.{second + 1}", differences[first, second], sd, words)
    return tuple(made)


def _both(settings: Settings, name: str, found: Interval, sd: float | None, words: str) -> list[EffectEstimate]:
    in_sd = f"{words}, in standard deviations of the original rewards"
    return [settings.estimate(name, found, words), settings.estimate(f"{name}.sd", effects.scaled(found, sd), in_sd)]
