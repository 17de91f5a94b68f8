"""`rewardlab audit export`: audited rewrites → counterfactual training data that neutralise an attribute.

The two rewrites of a chain differ in the attribute, have the same content, and have both gone through the rewriter:
what RATE takes the difference of. A reward model that learns to like them alike stops paying for the attribute.

    train.jsonl    ties: the two texts as candidates with equal rewards, learned with `objective.ties`; or margins: as
                   pairs, one for either order, each with a margin of minus the tolerance
    export.json    what was exported, of what, what was left out, and what the attribute was worth

The text with the attribute stands first. `meta.mend` of every record says where it comes from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rewardlab.audit.about import About, read_about
from rewardlab.audit.chains import AuditedText, read_chains
from rewardlab.audit.diagnostics import flips
from rewardlab.audit.effects_file import RATE, effects_path, read_effects
from rewardlab.audit.judge import judge_of
from rewardlab.audit.summary import number
from rewardlab.config import Config
from rewardlab.data.canonical import write_records
from rewardlab.data.load import load_all
from rewardlab.data.source import Sources
from rewardlab.data.splits import place
from rewardlab.errors import DataError, Problem
from rewardlab.protocols import Folder
from rewardlab.records import Candidates, Pair, Record
from rewardlab.store.files import write_json

RESULT, RECORDS = "export.json", "train.jsonl"
LEFT_OUT: Mapping[str, str] = {
    "incomplete": "without both rewrites",
    "identical": "whose two texts are the same",
    "unconfirmed": "whose flips were not confirmed",
    "shared": "of conversations that are kept apart",
    "limit": "beyond the limit",
}
"""Why a chain gives no record, in words."""
_EXPECTED = "what `audit effects` writes: RATE over all responses of every reward model"
_KEPT = ("value", "low", "high", "reason")
"""Of an effect, what export.json keeps."""


class Exporting(Config):
    """Configuration of `audit export`."""

    rewrites: Path
    """Folder of `audit rewrite` (of an `audit run` its steps/rewrite), its file, or a published file of rewrites."""

    effects: Path | None = None
    """Folder of `audit effects` on these rewrites, or of the `audit run`: what the attribute was worth is kept in
    export.json."""

    form: Literal["ties", "margins"] = "ties"
    """ties: candidates with equal rewards, for `train reward --objective.ties 1`. margins: pairs, one for either order,
    which every training on pairs reads, with more noise and twice the work."""

    tolerance: float = Field(0.0, ge=0.0)
    """margins: how far rewards may be apart, in reward units, before it costs much; the margin of each order is minus
    this."""

    texts: Literal["rewrites", "original"] = "rewrites"
    """What is made equal: the rewrite and the rewrite of the rewrite, or the original and its rewrite, which differ in
    the rewriter's own mark too."""

    confirmed: bool = False
    """Only chains whose two flips the audit's judge confirms."""

    apart_from: Sources = Field(default_factory=list)
    """Data whose conversations are left out, such as those that the reward model is tested and audited again on."""

    limit: int | None = Field(None, ge=1)
    """Export at most so many chains, drawn by their content: a larger limit keeps those of a smaller one."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the chains that are drawn."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tolerance and self.form != "margins":
            raise ValueError("expected tolerance beside form margins only: a tie asks for equal rewards")
        return self


@dataclass(frozen=True)
class Exported:
    """What export.json holds."""

    values: Mapping[str, Any]
    records: Path

    def lines(self) -> list[str]:
        """What was exported, and how it is trained on."""
        values = self.values
        left_out = [f"{count:,} {LEFT_OUT[why]}" for why, count in values["left_out"].items() if count]
        head = f"{values['exported']:,} of {values['chains']:,} chains give {values['records']:,} records"
        lines = [f"{head} that differ in {values['attribute']['name']} and are to be paid alike."]
        lines += [f"Left out are {', '.join(left_out)}."] if left_out else []
        lines += [
            f"Before, {one['scorer']} pays {number(one['value'] / one['sd'], signed=True)} standard deviations of its "
            "rewards for it (RATE over all responses)."
            for one in values["effects"]
            if one["value"] is not None and one["sd"]
        ]
        flag = " --objective.ties 1" if values["form"] == "ties" else ""
        return [*lines, f"Train with the original data beside it: --train FILE --train {self.records}{flag}"]


def export(config: Exporting, run: Folder) -> Exported:
    """Write `train.jsonl` and `export.json`.

    Raises:
        DataError: files that cannot be read, a judge that is not there, or nothing to export: nothing is written then.
    """
    about = read_about(config.rewrites)
    chains = read_chains(config.rewrites)
    effects = [] if config.effects is None else _effects(config.effects)
    kept, left_out = _kept(config, chains, about)
    if not kept:
        words = ", ".join(f"{count:,} {LEFT_OUT[why]}" for why, count in left_out.items() if count)
        problem = Problem(str(config.rewrites), f"{len(chains):,} chains: {words or 'none'}", "one at least to export")
        raise DataError("there is nothing to export", [problem])
    records = [record for chain in kept for record in _records(chain, config, about)]
    values = {
        "attribute": dict(about.attribute),
        "rewriter": about.rewriter,
        "rewrites": str(config.rewrites),
        "files": [dict(one) for one in about.files],
        **{name: getattr(config, name) for name in ("form", "tolerance", "texts", "confirmed", "limit", "seed")},
        "chains": len(chains),
        "left_out": left_out,
        "exported": len(kept),
        "records": len(records),
        "effects": effects,
    }
    path = run.path(RECORDS)
    write_records(path, records)
    write_json(run.path(RESULT), values)
    return Exported(values, path)


def _kept(config: Exporting, chains: Sequence[AuditedText], about: About) -> tuple[list[AuditedText], dict[str, int]]:
    """The chains that give records, in their order, and how many of the others for which reason."""
    counts: Counter[str] = Counter()
    apart = {
        record.prompt.root_id for one in load_all(config.apart_from, usable=True) for record in one.records
    }  # fmt: skip
    whole = [chain for chain in chains if len(chain.texts) > 2]
    counts["incomplete"] = len(chains) - len(whole)
    confirmed = _confirmed(config, whole, about)
    kept = []
    for chain, is_confirmed in zip(whole, confirmed, strict=True):
        if len(set(_both(chain, config))) < 2:
            counts["identical"] += 1
        elif not is_confirmed:
            counts["unconfirmed"] += 1
        elif chain.prompt.root_id in apart:
            counts["shared"] += 1
        else:
            kept.append(chain)
    most = len(kept) if config.limit is None else config.limit
    counts["limit"] = max(0, len(kept) - most)
    at = [place(f"{chain.id}:{chain.draw}", config.seed, "export") for chain in kept]
    drawn = set(sorted(range(len(kept)), key=at.__getitem__)[:most])
    return [chain for number, chain in enumerate(kept) if number in drawn], {why: counts[why] for why in LEFT_OUT}


def _confirmed(config: Exporting, whole: Sequence[AuditedText], about: About) -> list[bool]:
    """Whether the judge confirms both flips of each chain; where it is not asked, all are.

    Raises:
        DataError: the audit has no judge.
    """
    if not config.confirmed:
        return [True] * len(whole)
    if about.judge is None:
        found = f"{about.attribute['name']}, which nothing judges"
        remedy = "Leave `confirmed` out, or audit with a judge."
        problem = Problem(str(config.rewrites), found, "an attribute that a measure or a model sees", remedy)
        raise DataError("flips cannot be confirmed", [problem])
    confirmed: list[bool] = flips(whole, judge_of(about.judge, config.rewrites)).confirmed.tolist()
    return confirmed


def _both(chain: AuditedText, config: Exporting) -> tuple[str, str]:
    """The two texts that are to have equal rewards, the one with the attribute first."""
    original, rewrite, again = chain.texts[:3]
    like_w = again if config.texts == "rewrites" else original
    return (like_w, rewrite) if chain.treated else (rewrite, like_w)


def _records(chain: AuditedText, config: Exporting, about: About) -> list[Record]:
    high, low = _both(chain, config)
    mend = {
        "attribute": about.attribute["name"],
        "rewriter": about.rewriter,
        "texts": config.texts,
        "chain": chain.id,
        "treated": chain.treated,
        "draw": chain.draw,
    }
    meta = {"mend": mend, "row": dict(chain.row)}
    if config.form == "ties":
        return [Candidates(chain.prompt, (high, low), (0.0, 0.0), chain.source, meta)]
    margin = -config.tolerance if config.tolerance else None
    return [Pair(chain.prompt, *sides, margin, chain.source, meta) for sides in ((high, low), (low, high))]


def _effects(folder: Path) -> list[dict[str, Any]]:
    """RATE over all responses of every reward model, in units of its reward.

    Raises:
        DataError: a file of another shape, or without that estimate.
    """
    path = effects_path(folder)
    models = read_effects(path).models
    missing = [Problem(str(path), f"{one.scorer} without {RATE}", _EXPECTED) for one in models if one[RATE] is None]
    if missing:
        raise DataError("effects cannot be read", missing)
    return [
        {"scorer": model.scorer, "sd": model.sd, **{name: getattr(one, name) for name in _KEPT}}
        for model in models
        if (one := model[RATE]) is not None
    ]
