"""Chains as a file: canonical candidates, so that any scorer scores them and any tool reads them.

One record per chain. Its completions are the texts that can be scored, the original first; `meta` says the rest:

    treated   w
    draw      number of the independent attempt
    steps     how many rewrites were asked for
    outcomes  of what use each rewrite was, one per rewrite made
    details   what went wrong with each, where something did
    row       whatever the row of the original carried

The published form (adapter `rewrites`) is read too: a chain per entry, with two rewrites taken as made and usable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rewardlab.audit.units import SCORABLE, Chain, Outcome
from rewardlab.data.adapters.rewrites import STEPS
from rewardlab.data.canonical import write_records
from rewardlab.data.load import DataSource, load
from rewardlab.errors import DataError, Problem
from rewardlab.records import Candidates, Prompt, Source, completion_id
from rewardlab.store.files import write_json

REWRITES = "rewrites.jsonl"
ORIGINALS = "originals.jsonl"
PUBLISHED = "rewrites.json"
SCORED_TWICE = 200
"""Originals that are scored a second time, at most."""
STAGES = ("original", "rewrite", "rewrite of rewrite", "third rewrite")
"""What the texts of a chain are called, in order."""


@dataclass(frozen=True)
class AuditedText:
    """A chain as it stands in the file.

    Attributes:
        prompt: what the response answers.
        texts: original and usable rewrites, in order; at most `steps` + 1.
        treated: w.
        draw: number of the attempt.
        steps: rewrites asked for.
        outcomes: one per rewrite made.
        details: one per rewrite made.
        source: where the original came from.
        row: what its row carried.
    """

    prompt: Prompt
    texts: tuple[str, ...]
    treated: bool
    draw: int
    steps: int
    outcomes: tuple[Outcome, ...]
    details: tuple[str, ...] = ()
    source: Source | None = None
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def id(self) -> str:
        """The completion_id of the original."""
        return completion_id(self.prompt, self.texts[0])


def audited_text(chain: Chain, steps: int) -> AuditedText:
    """A chain as it stands in the file."""
    unit, made = chain.task.unit, chain.rewrites
    usable = (rewrite.text for rewrite in made if rewrite.outcome in SCORABLE and rewrite.text is not None)
    outcomes, details = tuple(one.outcome for one in made), tuple(one.detail for one in made)
    texts = (unit.response, *usable)
    return AuditedText(
        unit.prompt, texts, unit.treated, chain.task.draw, steps, outcomes, details, unit.source, unit.meta
    )


def chain_record(chain: Chain, steps: int) -> Candidates:
    """A chain as canonical candidates."""
    text = audited_text(chain, steps)
    meta = {
        "treated": text.treated,
        "draw": text.draw,
        "steps": text.steps,
        "outcomes": list(text.outcomes),
        "details": list(text.details),
        "row": dict(text.row),
    }
    return Candidates(text.prompt, text.texts, None, text.source, meta)


def write_chains(path: Path, chains: Iterable[Chain], steps: int) -> int:
    """Write `rewrites.jsonl`, whole or not at all; gives the number of chains."""
    return write_records(path, (chain_record(chain, steps) for chain in chains))


def write_originals(path: Path, chains: Sequence[Chain]) -> int:
    """Write the originals that are to be scored a second time, spread over the file; gives their number."""
    units = {chain.task.unit.id: chain.task.unit for chain in chains}
    step = max(1, len(units) // SCORED_TWICE)
    some = list(units.values())[::step][:SCORED_TWICE]
    return write_records(path, (Candidates(unit.prompt, (unit.response,), None, unit.source) for unit in some))


def write_published(path: Path, audited: Iterable[AuditedText]) -> int:
    """Write whole chains of the first draw in the interchange form of the published code; gives their number.

    Entries are named by the id of the original; of originals that are equal, the first one stands.
    """
    entries: dict[str, Any] = {}
    for text in audited:
        if text.draw == 0 and len(text.texts) >= len(STEPS) and text.id not in entries:
            entries[text.id] = published_entry(text)
    write_json(path, entries)
    return len(entries)


def published_entry(text: AuditedText) -> dict[str, Any]:
    """A whole chain as an entry of the interchange form."""
    return {
        "w_original": text.treated,
        "completions": dict(zip(STEPS, text.texts, strict=False)),
        "reward_question": "\n".join(message.content for message in text.prompt.messages),
    }


def read_chains(path: Path) -> list[AuditedText]:
    """The chains of a folder of `audit rewrite`, of its file, or of a published file of rewrites.

    Raises:
        DataError: unreadable, or records that are no chains: every problem.
    """
    file = path / REWRITES if path.is_dir() else path
    loaded = load(DataSource(path=str(file)))
    problems: list[Problem] = []
    result = []
    for number, record in enumerate(loaded.records, start=1):
        found = _audited(record) if isinstance(record, Candidates) else "a record of another kind"
        if isinstance(found, str):
            place = str(record.source or f"{file}:{number}")
            problems.append(Problem(place, found, "a chain as `rewardlab audit rewrite` writes it"))
        else:
            result.append(found)
    if problems:
        raise DataError("the rewrites cannot be audited", problems)
    return result


def _audited(record: Candidates) -> AuditedText | str:
    """The chain of a record, or what is wrong with it."""
    meta = record.meta
    if "w_original" in meta:
        usable: Outcome = "ok"
        made = (usable,) * (len(record.completions) - 1)
        return AuditedText(
            record.prompt, record.completions, bool(meta["w_original"]), 0, len(made), made, ("",) * len(made),
            record.source, {name: value for name, value in meta.items() if name not in ("w_original", "steps")},
        )  # fmt: skip
    treated, draw, steps, outcomes = (meta.get(name) for name in ("treated", "draw", "steps", "outcomes"))
    if not isinstance(treated, bool):
        return "meta without treated: true or false"
    if not isinstance(draw, int) or not isinstance(steps, int):
        return "meta without draw and steps, which are whole numbers"
    if not isinstance(outcomes, list) or any(one not in get_args(Outcome) for one in outcomes):
        return f"meta without outcomes, a list of {', '.join(get_args(Outcome))}"
    texts = 1 + sum(one in SCORABLE for one in outcomes)
    if len(record.completions) != texts or len(outcomes) > steps:
        return f"{len(record.completions)} texts where the outcomes speak of {texts}"
    details = tuple(meta.get("details") or [""] * len(outcomes))
    row = meta.get("row") or {}
    return AuditedText(
        record.prompt, record.completions, treated, draw, steps, tuple(outcomes), details, record.source, row
    )
