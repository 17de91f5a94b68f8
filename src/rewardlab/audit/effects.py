"""`rewardlab audit effects`: rewrites and scores → effects.json with diagnostics and refutations, and triples.parquet.

Beside them the published forms: the effects as effects.rate.json, or effects.<number>.rate.json for each of several
reward models, and texts with the scores of all of them as scores.rate.jsonl.

Any number of reward models stand beside each other: one score table each, all of the same rewrites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rewardlab.audit import diagnostics
from rewardlab.audit.about import About, read_about
from rewardlab.audit.chains import AuditedText, read_chains
from rewardlab.audit.estimates import EffectEstimate, Settings, adjusted, effect_groups
from rewardlab.audit.judge import LENGTHS, judge_of, judge_words, off_target_measures
from rewardlab.audit.mix import Mix, mixed
from rewardlab.audit.published import Errors, published_effects, read_published_scores, write_published_scores
from rewardlab.audit.refute import Refutation, refutations
from rewardlab.audit.scored import ScoredChains, join_scores
from rewardlab.audit.subgroups import subgroups
from rewardlab.audit.summary import findings
from rewardlab.audit.triples import TRIPLES, triples
from rewardlab.config import Config, Paths
from rewardlab.errors import DataError, Problem
from rewardlab.functional.effects import Rewards
from rewardlab.functional.units import Unit, unit_of
from rewardlab.llm.endpoint import Endpoint
from rewardlab.protocols import Folder
from rewardlab.score.tables import ScoreTable, read_scores
from rewardlab.store.files import write_json
from rewardlab.store.table import write_parquet

RESULT = "effects.json"
PARTS = {"per_protocol": "both flips confirmed", "unflawed": "no rewrite identical to its input or with chatter"}
"""Effects over a part of the responses, and which part."""


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

    cluster: Literal["prompt", "root"] = "prompt"
    """What makes responses dependent: the same prompt, or the same conversation root (first user turn), for dialogues
    of which several rows hold a part."""

    subgroups: list[str] = Field(default_factory=list)
    """Columns of the data by whose values effects are estimated too."""

    mix: Mix | None = None
    """Estimate on a sample in which W goes along with a second attribute to a known degree; default: on everything."""

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
        warnings: what its scoring warned of, in sentences.
    """

    scorer: str
    counts: dict[str, int]
    sd: float | None
    estimates: dict[str, list[EffectEstimate]]
    tipping: dict[str, float | None]
    refutations: list[Refutation]
    components: dict[str, Any] | None
    warnings: list[str] = field(default_factory=list)

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
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class AuditResult:
    """What effects.json holds."""

    attribute: dict[str, Any]
    rewriter: str
    options: dict[str, Any]
    models: list[AuditedModel]
    outcomes: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    balance: list[dict[str, Any]]
    flips: dict[str, Any] | None
    asked: list[dict[str, Any]]
    dose: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "attribute": self.attribute,
            "rewriter": self.rewriter,
            "options": self.options,
            "models": [model.as_dict() for model in self.models],
            "outcomes": self.outcomes,
            "failures": self.failures,
            "balance": self.balance,
            "flips": self.flips,
            "asked": self.asked,
            "dose": self.dose,
            "judge": self.judge,
        }

    def lines(self) -> list[str]:
        """The findings in plain words."""
        return findings(self.as_dict())


def estimate_effects(config: EffectsEstimation, run: Folder) -> AuditResult:
    """Estimate the effects; writes effects.json and triples.parquet.

    Raises:
        ConfigError: the mix goes by a measure that cannot be taken.
        DataError: files that cannot be read, texts without a score, no chain that is complete, too few for the mix:
            every problem, and nothing has been written.
    """
    about = read_about(config.rewrites)
    scored = _scored(config, about)
    # All reward models on the same responses: those that each has scored whole.
    whole = np.logical_and.reduce([one.complete for one in scored])
    if config.mix is not None:
        kept = mixed(scored[0].chains, whole, config.mix, config.seed)
        scored, whole = [one.only(kept) for one in scored], whole[kept]
    chains = scored[0].chains
    if not whole.any():
        raise _nothing(config.rewrites, chains, about)
    settings = Settings(
        config.level, None if config.bootstrap == "none" else config.bootstrap, config.draws, config.seed
    )
    members = [chain for chain, there in zip(chains, whole, strict=True) if there]
    judged = diagnostics.flips(members, judge_of(about.judge, config.rewrites)) if about.judge else None
    options = {name: getattr(config, name) for name in ("level", "bootstrap", "draws", "cluster", "seed")}
    if config.mix is not None:
        options["mix"] = config.mix.model_dump(mode="json", exclude_defaults=True)
    balance = diagnostics.balance(members, {**off_target_measures(), **_tokens(scored)})
    sides = Counter(chain.treated for chain in members)
    result = AuditResult(
        attribute=dict(about.attribute),
        rewriter=about.rewriter,
        options=options,
        models=_side_by_side([_audited(one, whole, judged, settings, config.subgroups) for one in scored]),
        outcomes=diagnostics.outcomes(chains),
        failures=diagnostics.failures(chains),
        balance=balance,
        flips=_flips(about, judged),
        asked=list((about.counts or {}).get("asked", [])),
        dose=diagnostics.dose(balance, sides) if (about.judge or {}).get("measure") in LENGTHS else None,
        judge=None if about.judge is None else dict(about.judge),
    )
    write_parquet(run.path(TRIPLES), triples(scored))
    write_json(run.path(RESULT), result.as_dict())
    for number, one in enumerate(scored, start=1):
        name = "effects.rate.json" if len(scored) == 1 else f"effects.{number}.rate.json"
        write_json(run.path(name), published_effects(one.matched(whole), one.scorer, config.published_errors))
    write_published_scores(run.path("scores.rate.jsonl"), scored, whole)
    return result


def _nothing(rewrites: Path, chains: Sequence[AuditedText], about: About) -> DataError:
    counts = Counter(outcome for chain in chains for outcome in chain.outcomes)
    words = f"Of the rewrites, {', '.join(f'{count:,} are {outcome}' for outcome, count in counts.most_common())}."
    if (about.counts or {}).get("asked") and not counts.keys().isdisjoint(Endpoint.useless):
        words += (
            " Answers of no use stay in the ledger: the same audit with --endpoint.ask_again, in another run or with "
            "--resume, asks for them once more, and pays for them once more."
        )
    found = f"{len(chains)} chains, none with both rewrites and a score for each text"
    return DataError("there is nothing to estimate", [Problem(str(rewrites), found, "at least one", words)])


def _flips(about: About, judged: diagnostics.Flips | None) -> dict[str, Any] | None:
    if judged is None or about.judge is None:
        return None
    return {"judge": judge_words(about.judge), "rates": judged.rates, "originals": judged.originals}


def _scored(config: EffectsEstimation, about: About) -> list[ScoredChains]:
    if not config.scores:
        return read_published_scores(config.rewrites, roots=config.cluster == "root")
    chains, tables = read_chains(config.rewrites), read_scores(config.scores, unscored=True)
    _refuse_same_scorer(tables)
    roots = config.cluster == "root"
    return [join_scores(chains, table, clusters=about.clusters, roots=roots) for table in tables]


def _tokens(scored: Sequence[ScoredChains]) -> dict[str, diagnostics.Measure]:
    """Lengths in tokens as the first reward model that has a tokenizer counts them."""
    counted = next((one for one in scored if one.tokens is not None), None)
    if counted is None or counted.tokens is None:
        return {}
    rows = zip(counted.chains, counted.tokens.tolist(), strict=True)
    known = {text: row[stage] for chain, row in rows for stage, text in enumerate(chain.texts)}
    return {"tokens": lambda texts: np.array([known[text] for text in texts])}


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
    scored: ScoredChains,
    whole: np.ndarray,
    judged: diagnostics.Flips | None,
    settings: Settings,
    columns: Sequence[str],
) -> AuditedModel:
    rewards = scored.matched(whole)
    unit = unit_of(rewards)
    estimates = effect_groups(rewards, settings)
    thirds = whole & ~np.isnan(scored.rewards[:, 3])
    third = scored.matched(thirds, third=True) if thirds.any() else None
    if third is not None:
        # Only where there are third rewrites: often on a part of the responses, since they cost half as much again.
        estimates["corrected"] = effect_groups(third, settings, unit, thirds[whole], ["corrected"])["corrected"]
    if judged is not None:
        estimates["per_protocol"] = _part("per_protocol", rewards, judged.confirmed, settings, unit)
    unflawed = np.array([set(chain.outcomes[:2]) == {"ok"} for chain in scored.chains], dtype=bool)[whole]
    if not unflawed.all():
        estimates["unflawed"] = _part("unflawed", rewards, unflawed, settings, unit)
    estimates["naive_excess"] = diagnostics.naive_excess(rewards, settings)
    estimates["rewrite_effect"] = diagnostics.rewrite_effects(rewards, settings)
    estimates["where"] = subgroups(scored, whole, settings, columns)
    return AuditedModel(
        scorer=scored.scorer,
        counts=_counts(scored, whole, thirds, judged),
        sd=None if unit is None else unit.sd,
        estimates=estimates,
        tipping=diagnostics.tipping_points(estimates),
        refutations=refutations(rewards, third, scored.again[whole], settings),
        components=diagnostics.components(scored, settings),
        warnings=list(scored.warnings),
    )


def _part(name: str, rewards: Rewards, kept: np.ndarray, settings: Settings, unit: Unit | None) -> list[EffectEstimate]:
    """RATE over a part of the responses: how the main effect, which takes rewrites as they came, would change."""
    if not kept.any():
        return []
    return [
        replace(one, name=f"{name}.{one.name}", reading=f"{one.reading}; {PARTS[name]}")
        for one in effect_groups(rewards.only(kept), settings, unit, kept, ["double"])["double"]
    ]


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
