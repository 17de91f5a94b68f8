"""`rewardlab audit effects`: rewrites and scores → effects.json with diagnostics and refutations, and triples.parquet.

Beside them the effects in the published form: effects.rate.json, or effects.<number>.rate.json for each of several
reward models.

Any number of reward models stand beside each other: one score table each, all of the same rewrites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from rewardlab.audit import diagnostics
from rewardlab.audit.about import About, read_about
from rewardlab.audit.chains import STAGES, read_chains
from rewardlab.audit.estimates import EffectEstimate, Settings, adjusted, effect_groups
from rewardlab.audit.judge import judge_of, off_target_measures
from rewardlab.audit.published import Errors, published_effects, read_published_scores
from rewardlab.audit.refute import Refutation, refutations
from rewardlab.audit.scored import ScoredChains, join_scores
from rewardlab.audit.subgroups import subgroups
from rewardlab.audit.summary import findings
from rewardlab.config import Config, Paths
from rewardlab.errors import DataError, Problem
from rewardlab.functional import effects
from rewardlab.protocols import Folder
from rewardlab.score.tables import ScoreTable, read_scores
from rewardlab.store.files import write_json
from rewardlab.store.table import write_parquet

RESULT = "effects.json"
TRIPLES = "triples.parquet"
_TEXT_COLUMNS = ("original", "rewrite", "rerewrite", "third")
TRIPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("draw", pa.int32()),
        ("scorer", pa.string()),
        ("treated", pa.bool_()),
        ("prompt", pa.string()),
        ("source", pa.string()),
        ("outcomes", pa.list_(pa.string())),
        *((name, pa.string()) for name in _TEXT_COLUMNS),
        *((f"{name}_reward", pa.float64()) for name in _TEXT_COLUMNS),
        ("single", pa.float64()),
        ("double", pa.float64()),
    ]
)


class EffectsEstimation(Config):
    """Configuration of `audit effects`."""

    rewrites: Path
    """Folder of `audit rewrite`, its file, or a published file of rewrites."""

    scores: Paths = ()
    """Folders of `rewardlab score` (or their tables) on these rewrites: one per reward model. None where the rewrites
    are a published file that holds scores."""

    level: float = Field(0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""

    bootstrap: Literal["none", "percentile", "bca"] = "none"
    """Intervals from resamples of whole prompts in place of t intervals."""

    draws: int = Field(2000, ge=100)
    """Resamples, and permutations."""

    subgroups: list[str] = Field(default_factory=list)
    """Columns of the data by whose values effects are estimated too."""

    seed: int = Field(0, ge=0)
    """Of everything that is drawn."""

    published_errors: Errors = "ours"
    """Standard errors in effects.rate.json: ours, or as the published code takes them, which ignore the pairing."""


@dataclass(frozen=True)
class AuditedModel:
    """What an audit says about one reward model.

    Attributes:
        scorer: its name.
        counts: how many there are of everything.
        sd: pooled standard deviation of the original rewards within w; None where there is none.
        estimates: group → estimates.
        tipping: estimate → the asymmetry of the rewriter's drift that would overturn it.
        refutations: checks whose answer is known.
        components: where the differences vary, with several draws per text.
    """

    scorer: str
    counts: dict[str, int]
    sd: float | None
    estimates: dict[str, list[EffectEstimate]]
    tipping: dict[str, float | None]
    refutations: list[Refutation]
    components: dict[str, Any] | None

    def __getitem__(self, name: str) -> EffectEstimate:
        """The estimate of that machine name; KeyError where there is none."""
        for group in self.estimates.values():
            for one in group:
                if one.name == name:
                    return one
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "scorer": self.scorer,
            "counts": self.counts,
            "sd": self.sd,
            "estimates": {group: [one.as_dict() for one in found] for group, found in self.estimates.items()},
            "tipping": self.tipping,
            "refutations": [one.as_dict() for one in self.refutations],
            "components": self.components,
        }


@dataclass(frozen=True)
class AuditResult:
    """What effects.json holds."""

    attribute: dict[str, Any]
    rewriter: str
    options: dict[str, Any]
    models: list[AuditedModel]
    outcomes: list[dict[str, Any]]
    balance: list[dict[str, Any]]
    flips: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "attribute": self.attribute,
            "rewriter": self.rewriter,
            "options": self.options,
            "models": [model.as_dict() for model in self.models],
            "outcomes": self.outcomes,
            "balance": self.balance,
            "flips": self.flips,
        }

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return findings(self.as_dict())


def estimate_effects(config: EffectsEstimation, run: Folder) -> AuditResult:
    """Estimate the effects; writes effects.json and triples.parquet.

    Raises:
        DataError: files that cannot be read, texts without a score, no chain that is complete: every problem, and
            nothing has been written.
    """
    about = read_about(config.rewrites)
    scored = _scored(config, about)
    chains, whole = scored[0].chains, scored[0].complete
    if not whole.any():
        found = f"{len(chains)} chains, none with both rewrites"
        raise DataError("there is nothing to estimate", [Problem(str(config.rewrites), found, "at least one")])
    settings = Settings(
        config.level, None if config.bootstrap == "none" else config.bootstrap, config.draws, config.seed
    )
    members = [chain for chain, there in zip(chains, whole, strict=True) if there]
    judged = diagnostics.flips(members, judge_of(about.judge, config.rewrites)) if about.judge else None
    result = AuditResult(
        attribute=dict(about.attribute),
        rewriter=about.rewriter,
        options={"level": config.level, "bootstrap": config.bootstrap, "draws": config.draws, "seed": config.seed},
        models=_side_by_side([_audited(one, judged, settings, config.subgroups) for one in scored]),
        outcomes=diagnostics.outcomes(chains),
        balance=diagnostics.balance(members, off_target_measures()),
        flips=None if judged is None else {"rates": judged.rates, "originals": judged.originals},
    )
    write_parquet(run.path(TRIPLES), _triples(scored))
    write_json(run.path(RESULT), result.as_dict())
    for number, one in enumerate(scored, start=1):
        name = "effects.rate.json" if len(scored) == 1 else f"effects.{number}.rate.json"
        write_json(run.path(name), published_effects(one.matched(whole), one.scorer, config.published_errors))
    return result


def _scored(config: EffectsEstimation, about: About) -> list[ScoredChains]:
    if not config.scores:
        return read_published_scores(config.rewrites)
    chains, tables = read_chains(config.rewrites), read_scores(config.scores, unscored=True)
    _refuse_same_scorer(tables)
    return [join_scores(chains, table, clusters=about.clusters) for table in tables]


def _refuse_same_scorer(tables: Sequence[ScoreTable]) -> None:
    names = [table.scorer for table in tables]
    problems = [
        Problem(str(table.path), f"scores of {table.scorer}, as in another table", "a table per reward model")
        for number, table in enumerate(tables)
        if table.scorer in names[:number]
    ]
    if problems:
        raise DataError("the same reward model twice", problems)


def _audited(
    scored: ScoredChains, judged: diagnostics.Flips | None, settings: Settings, columns: Sequence[str]
) -> AuditedModel:
    whole = scored.complete
    rewards = scored.matched(whole)
    sd = effects.pooled_sd(rewards.original, rewards.treated)
    estimates = effect_groups(rewards, settings)
    thirds = whole & ~np.isnan(scored.rewards[:, 3])
    third = scored.matched(thirds, third=True) if thirds.any() else None
    if third is not None:
        # Only where there are third rewrites: often on a part of the responses, since they cost half as much again.
        estimates["corrected"] = effect_groups(third, settings, sd)["corrected"]
    if judged is not None:
        kept = rewards.only(judged.confirmed)
        protocol = effect_groups(kept, settings, sd) if len(kept.treated) else {"double": []}
        estimates["per_protocol"] = [
            replace(one, name=f"per_protocol.{one.name}", reading=f"{one.reading}; both flips confirmed")
            for one in protocol["double"]
        ]
    estimates["naive_excess"] = diagnostics.naive_excess(rewards, settings)
    estimates["rewrite_effect"] = diagnostics.rewrite_effects(rewards, settings)
    estimates["where"] = subgroups(scored, whole, settings, columns)
    return AuditedModel(
        scorer=scored.scorer,
        counts=_counts(scored, whole, thirds, judged),
        sd=sd,
        estimates=estimates,
        tipping=diagnostics.tipping_points(estimates),
        refutations=refutations(rewards, third, scored.again[whole], settings),
        components=diagnostics.components(scored, settings),
    )


def _counts(
    scored: ScoredChains, whole: np.ndarray, thirds: np.ndarray, judged: diagnostics.Flips | None
) -> dict[str, int]:
    treated = scored.treated
    first = np.array([chain.draw == 0 for chain in scored.chains], dtype=bool)
    return {
        "responses": int(first.sum()),
        "complete": int(whole.sum()),
        "treated": int((whole & treated).sum()),
        "untreated": int((whole & ~treated).sum()),
        "clusters": len(np.unique(scored.cluster[whole])),
        "third": int(thirds.sum()),
        "confirmed": 0 if judged is None else int(judged.confirmed.sum()),
        "draws": len(scored.chains),
        "truncated": int(scored.truncated.sum()),
        "unscored": sum(len(chain.texts) for chain in scored.chains) - int((~np.isnan(scored.rewards)).sum()),
    }


def _side_by_side(models: list[AuditedModel]) -> list[AuditedModel]:
    """The models, with the p of each effect adjusted over all of them."""
    names = [one.name for group in ("naive", "single", "double") for one in models[0].estimates[group]]
    by_model = [{one.name: one for group in model.estimates.values() for one in group} for model in models]
    for name in names:
        family = adjusted([estimates[name] for estimates in by_model], f"{name} of every reward model")
        for estimates, one in zip(by_model, family, strict=True):
            estimates[name] = one
    return [
        replace(model, estimates={group: [found[one.name] for one in ones] for group, ones in model.estimates.items()})
        for model, found in zip(models, by_model, strict=True)
    ]


def _triples(scored: Sequence[ScoredChains]) -> pa.Table:
    """A row per chain and reward model: texts, rewards and signed differences, to browse."""
    rows: dict[str, list[Any]] = {name: [] for name in TRIPLE_SCHEMA.names}
    for one in scored:
        for number, chain in enumerate(one.chains):
            rewards = [None if np.isnan(value) else float(value) for value in one.rewards[number]]
            texts = [*chain.texts, *[None] * (len(STAGES) - len(chain.texts))]
            sign = 1.0 if chain.treated else -1.0
            original, rewrite, again, _ = rewards
            values = {
                "id": chain.id,
                "prompt_id": chain.prompt.id,
                "draw": chain.draw,
                "scorer": one.scorer,
                "treated": chain.treated,
                "prompt": "\n\n".join(message.content for message in chain.prompt.messages),
                "source": None if chain.source is None else str(chain.source),
                "outcomes": list(chain.outcomes),
                "single": None if original is None or rewrite is None else sign * (original - rewrite),
                "double": None if again is None or rewrite is None else sign * (again - rewrite),
            }
            for stage, name in enumerate(_TEXT_COLUMNS):
                values |= {name: texts[stage], f"{name}_reward": rewards[stage]}
            for name, column in rows.items():
                column.append(values[name])
    return pa.table({name: _storable(column) for name, column in rows.items()}, schema=TRIPLE_SCHEMA)


def _storable(column: list[Any]) -> list[Any]:
    """The column, with lone surrogates, which UTF-8 cannot hold, written as their escapes."""
    return [one.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(one, str) else one for one in column]
