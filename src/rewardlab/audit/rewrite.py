"""`rewardlab audit rewrite`: responses → rewrites and rewrites of rewrites.

    rewrites.jsonl    the chains, as canonical candidates (`audit.chains`)
    originals.jsonl   some originals, to be scored a second time
    rewrites.json     the whole chains in the published form
    audit.json        what was audited, and how (`audit.about`)
    set_aside.jsonl   rows and responses that cannot be used, with reasons

What a paid model answers is kept in a ledger that all runs share, `ledger/` in the folder of runs: a run that is
repeated, resumed, or made of data of which one row was edited pays only for what it does not find there.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from tqdm import tqdm

from rewardlab.audit.about import ABOUT, About
from rewardlab.audit.agree import agree
from rewardlab.audit.chains import ORIGINALS, PUBLISHED, REWRITES, read_chains, write_chains, write_originals
from rewardlab.audit.chains import write_published as write_published_form
from rewardlab.audit.chat import ChatRewriter
from rewardlab.audit.intake import Intake, units
from rewardlab.audit.rules import RULE_OF, RuleRewriter, rule_named
from rewardlab.audit.template import Template, attribute_template, find_template
from rewardlab.audit.units import SCORABLE, Chain, Rewriter, Task
from rewardlab.audit.world import WorldRewriter
from rewardlab.config import Config
from rewardlab.data.canonical import write_set_aside
from rewardlab.data.source import DataSource
from rewardlab.data.world.rewriter import Rewriter as WorldFaults
from rewardlab.errors import ConfigError, Problem
from rewardlab.llm.batch import BatchClient
from rewardlab.llm.budget import estimate
from rewardlab.llm.client import LiveClient
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger
from rewardlab.store.files import write_json
from rewardlab.store.lock import FolderLock
from rewardlab.store.runs import Run
from rewardlab.store.settings import Settings

LEDGER = "ledger.sqlite"
_LEDGER_IN_USE = (
    "One job at a time asks chat models, so that nothing is paid for twice: wait for it, or stop it (what it has paid "
    "for is kept), or give this one a ledger of its own with REWARDLAB_HOME."
)
_REPEATED = 100
"""Responses that are rewritten several times, by default: enough to tell the rewriter's own spread."""
WORLD = "world_"


class Rewriting(Config):
    """Configuration of `audit rewrite`."""

    template: str | None = None
    """Name or file of a dataset template: where responses come from, what W is, what is asked."""

    attribute: str | None = None
    """Instead of a template: an attribute that code can measure, of data in any known format."""

    data: DataSource | None = None
    """What to audit; default: the template's own data."""

    endpoint: Endpoint | None = None
    """An OpenAI-compatible chat model that rewrites; its URL alone will do."""

    batch: bool = False
    """Send requests to the endpoint by its Batch API: cheaper, within a day."""

    rule: str | None = None
    """Instead of a model, a rule that rewrites; default where no endpoint is given: the attribute's own."""

    world: WorldFaults | None = None
    """Instead of a model, the synthetic world's rewriter, with its declared faults, for texts of the world."""

    steps: Literal[2, 3] = 2
    """Rewrites to a chain: 3 shows the rewriter's drift and corrects for it, for half as much again."""

    draws: int = Field(1, ge=1, le=20)
    """Independent rewrites of some responses, to tell the rewriter's own spread from that of the texts."""

    repeated: int = Field(_REPEATED, ge=2)
    """Responses that are rewritten `draws` times; the others are rewritten once."""

    limit: int | None = Field(None, ge=1)
    """Audit at most so many responses, drawn by their content: a larger limit keeps those of a smaller one."""

    yes: bool = False
    """Send requests without asking first."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of everything that is drawn."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.template is None) == (self.attribute is None):
            raise ValueError("expected either a template or an attribute")
        if self.attribute is not None and self.data is None:
            raise ValueError("expected data with an attribute")
        ways = [name for name in ("endpoint", "rule", "world") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"expected one rewriter, not {' and '.join(ways)}")
        if self.batch and self.endpoint is None:
            raise ValueError("expected an endpoint with batch")
        return self


@dataclass(frozen=True)
class Rewritten:
    """What was made: the intake's and the rewrites' counts."""

    intake: Intake
    counts: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in self.counts["outcomes"].items())
        return [
            *self.intake.lines(),
            f"{self.counts['complete']:,} of {self.counts['chains']:,} chains are whole; {outcomes}",
        ]


def rewrite(config: Rewriting, run: Run) -> Rewritten:
    """Rewrite the responses of the data.

    Raises:
        ConfigError: no such template, rule or endpoint; no rule for the attribute.
        DataError: data that cannot be read: every problem.
        RunError: declined; the budget is spent or the endpoint is down, with what is paid for kept.
    """
    template = _template(config)
    intake = units(template, config.data, limit=config.limit, seed=config.seed)
    tasks = _tasks(config, intake)
    with contextlib.ExitStack() as stack:
        rewriter = _rewriter(config, template, intake, tasks, stack)
        run.log.info(
            "%d responses, %d chains of %d rewrites by %s", len(intake.units), len(tasks), config.steps, rewriter.name
        )
        chains = list(_in_order(tasks, rewriter.chains(tasks, config.steps)))
    counts = _counts(chains, config.steps)
    write_chains(run.path(REWRITES), chains, config.steps)
    write_originals(run.path(ORIGINALS), chains)
    write_set_aside(run.path("set_aside.jsonl"), intake.set_aside)
    write_json(run.path(ABOUT), _about(template, intake, rewriter.name, config.steps, counts).as_dict())
    write_published_form(run.path(PUBLISHED), read_chains(run.path(REWRITES)))
    return Rewritten(intake, counts)


def _template(config: Rewriting) -> Template:
    return attribute_template(str(config.attribute)) if config.template is None else find_template(config.template)


def _tasks(config: Rewriting, intake: Intake) -> list[Task]:
    """First draws of everything, then the further ones of some, spread over the data."""
    first = [Task(unit) for unit in intake.units]
    step = max(1, len(first) // config.repeated)
    some = intake.units[::step][: config.repeated]
    return first + [Task(unit, draw) for draw in range(1, config.draws) for unit in some]


def _rewriter(
    config: Rewriting, template: Template, intake: Intake, tasks: Sequence[Task], stack: contextlib.ExitStack
) -> Rewriter:
    if config.endpoint is not None:
        return _chat_rewriter(config, config.endpoint, template, tasks, stack)
    if config.world is not None:
        attribute = template.treated.measure or ""
        if not attribute.startswith(WORLD):
            expected = "an attribute of the world, such as world_length"
            raise ConfigError("the world's rewriter cannot set W", [Problem("attribute", template.name, expected)])
        return WorldRewriter(attribute.removeprefix(WORLD), config.world)  # type: ignore[arg-type]  # a measure's name
    rule = config.rule or RULE_OF.get(template.treated.measure or "")
    if rule is None:
        remedy = "Name one with --endpoint URL, or a rule with --rule."
        raise ConfigError(
            "no rewriter",
            [Problem("endpoint", "nothing", f"a model that rewrites: no rule sets {template.name}", remedy)],
        )
    return RuleRewriter(rule_named(rule, intake), config.seed)


def _chat_rewriter(
    config: Rewriting, endpoint: Endpoint, template: Template, tasks: Sequence[Task], stack: contextlib.ExitStack
) -> ChatRewriter:
    folder = Settings.from_environment().home / "ledger"
    lock = FolderLock(folder, "ledger of paid answers", _LEDGER_IN_USE)
    stack.callback(lock.release)
    ledger = stack.enter_context(Ledger(folder / LEDGER))
    client = BatchClient(endpoint, ledger) if config.batch else LiveClient(endpoint, ledger, config.seed)
    rewriter = ChatRewriter(template, endpoint, client)
    expected = estimate(rewriter.first_requests(tasks), endpoint, ledger, batch=config.batch)
    names = {task.unit.prompt.id if template.clusters else task.unit.id for task in tasks}
    agree(endpoint, expected, config.steps, len(names), yes=config.yes)
    return rewriter


def _in_order(tasks: Sequence[Task], chains: Iterator[Chain]) -> Iterator[Chain]:
    """The chains in the order of their tasks, with a bar while they come."""
    made: dict[int, Chain] = {}
    with tqdm(total=len(tasks), unit="chain", desc="rewriting", mininterval=0.5) as bar:
        for chain in chains:
            made[id(chain.task)] = chain
            bar.update()
    return (made[id(task)] for task in tasks)


def _counts(chains: Sequence[Chain], steps: int) -> dict[str, Any]:
    outcomes = Counter(one.outcome for chain in chains for one in chain.rewrites)
    whole = sum(len(chain.rewrites) == steps and chain.rewrites[-1].outcome in SCORABLE for chain in chains)
    return {"chains": len(chains), "complete": whole, "outcomes": dict(outcomes.most_common())}


def _about(template: Template, intake: Intake, rewriter: str, steps: int, counts: dict[str, Any]) -> About:
    rule = template.treated
    judge = None
    if rule.measure is not None and intake.threshold is not None and rule.of == "response":
        judge = {"measure": rule.measure, "above": intake.threshold, "model": rule.model, "against": rule.against}
    words = {"name": template.name, "high": template.high, "low": template.low}
    return About(words, judge, rewriter, steps, template.clusters, {**intake.counts, **counts})
