"""`rewardlab audit rewrite`: responses → rewrites and rewrites of rewrites.

    rewrites.jsonl    the chains, as canonical candidates (`audit.chains`)
    originals.jsonl   some originals, to be scored a second time
    substitutions.jsonl  of mined substitutions alone: the words that are put in place of others, to be scored too
    rewrites.json     the whole chains in the published form
    audit.json        what was audited, and how (`audit.about`)
    judged.jsonl      what a chat model said of the texts, where one judges them (`audit.judge`)
    set_aside.jsonl   rows and responses that cannot be used, with reasons

What a language model answers is kept in a ledger that all runs share, `ledger/` in the folder of runs: a run that is
repeated, resumed, or made of data of which one row was edited pays only for what it does not find there.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from tqdm import tqdm

from rewardlab.audit.about import ABOUT, About
from rewardlab.audit.asked import AskedMeasure
from rewardlab.audit.chains import ORIGINALS, PUBLISHED, REWRITES, audited_text, write_chains, write_originals
from rewardlab.audit.chains import write_published as write_published_form
from rewardlab.audit.chat import ChatRewriter, Outlook
from rewardlab.audit.human import SUBSTITUTIONS, human_pairs, write_substitutions
from rewardlab.audit.intake import Intake, tools_for, units
from rewardlab.audit.judge import JUDGED, write_judged
from rewardlab.audit.local import LocalClient, LocalModel
from rewardlab.audit.measures import Measure, measure_named
from rewardlab.audit.mined import Mined, mined
from rewardlab.audit.rules import RULE_OF, RuleRewriter, rule_named
from rewardlab.audit.scored import cluster_labels
from rewardlab.audit.template import Template, attribute_template, find_template
from rewardlab.audit.units import SCORABLE, Chain, Rewriter, Task
from rewardlab.audit.world import WorldRewriter
from rewardlab.config import Config
from rewardlab.data.canonical import write_set_aside
from rewardlab.data.source import DataSource
from rewardlab.data.world.rewriter import Rewriter as WorldFaults
from rewardlab.errors import ConfigError, Problem
from rewardlab.llm.agree import Agreement, Plan
from rewardlab.llm.asking import JudgeEndpoint
from rewardlab.llm.batch import BatchClient
from rewardlab.llm.budget import estimate
from rewardlab.llm.client import LiveClient
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.requests import ChatClient
from rewardlab.llm.shared import shared_ledger
from rewardlab.records import Message, content_id
from rewardlab.store.files import write_json
from rewardlab.store.runs import Run

_REPEATED = 100
"""Responses that are rewritten several times, by default: enough to tell the rewriter's own spread."""
_FIRST_POLL = 5.0
WORLD = "world_"
_NORMAL_95 = 1.96


class Rewriting(Config):
    """Configuration of `audit rewrite`."""

    template: str | None = None
    """Name or file of a dataset template: where responses come from, what W is, what is asked."""

    attribute: str | None = None
    """Instead of a template: an attribute that code can measure, of data in any known format."""

    changes: dict[str, Any] = Field(default_factory=dict)
    """Fields of the template or attribute to be set otherwise, nested: `--changes.typos 0.1`,
    `--changes.treated.of transcript`. A run records all of the template here, as it was used."""

    data: DataSource | None = None
    """What to audit; default: the template's own data."""

    endpoint: Endpoint | None = None
    """An OpenAI-compatible chat model that rewrites; its URL alone will do."""

    batch: bool = False
    """Send requests to the endpoint by its Batch API: cheaper, within a day."""

    poll: float = Field(60.0, gt=0)
    """Seconds between looks at batches under way, at most; the first come sooner."""

    rewriter: LocalModel | None = None
    """Instead of an endpoint, a causal language model that rewrites in this process; its path alone will do."""

    judge: JudgeEndpoint | None = None
    """A chat model, better not the one that rewrites, that is asked the template's question about every text: to decide
    W, and whether rewrites have the attribute; its URL alone will do."""

    rule: str | None = None
    """Instead of a model, a rule that rewrites; default where no model is given: the attribute's own."""

    world: WorldFaults | None = None
    """Instead of a model, the synthetic world's rewriter, with its declared faults, for texts of the world."""

    mined: DataSource | None = None
    """Instead of a model, a rule that puts words in place of others, as people did in these pairs (a format such as
    counterfactual, whose `meta` names the original)."""

    steps: Literal[2, 3] = 2
    """Rewrites to a chain: 3 shows the rewriter's drift and corrects for it, for half as much again."""

    rewrites_per_response: int = Field(1, ge=1, le=20)
    """Independent chains of rewrites of some responses, to tell the rewriter's own spread from that of the texts."""

    repeated: int = Field(_REPEATED, ge=2)
    """Responses of which there are `rewrites_per_response` chains; of the others there is one."""

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
        ways = [name for name in ("endpoint", "rewriter", "rule", "world", "mined") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"expected one rewriter, not {' and '.join(ways)}")
        if self.batch and self.endpoint is None:
            raise ValueError("expected an endpoint with batch")
        if self.rewrites_per_response > 1 and self.rewriter is not None and self.rewriter.temperature == 0.0:
            raise ValueError(
                "expected a rewriter.temperature above 0 with several rewrites of a response: at 0 they are alike"
            )
        return self

    def pinned(self) -> Self:
        """The configuration with the whole template in `changes` and its data in `data`, so that the run's record and
        the step's key cover whatever the template names.

        Raises:
            ConfigError: no such template, or one that cannot be used; nothing to read.
        """
        template = _template(self)
        whole = template.model_dump(mode="json", exclude={"data"})
        resolved = self.model_copy(update={"changes": whole, "data": template.source(self.data)})
        return super(Rewriting, resolved).pinned()


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
    template, agreement = _template(config), Agreement(config.yes)
    judge = _judge(config, template, agreement)
    asked = None if judge is None or template.treated.ask is None else _measure(config, template, judge)
    if template.judge is not None and template.judge.measure is not None:
        # What it needs is missing now, or never.
        measure_named(template.judge.measure, tools_for(template.judge))
    intake = units(template, config.data, limit=config.limit, seed=config.seed, asked=asked)
    tasks = _tasks(config, intake)
    with contextlib.ExitStack() as stack:
        rewriter = _rewriter(config, template, intake, tasks, stack, judge, agreement)
        run.log.info(
            "%d responses, %d chains of %d rewrites by %s", len(intake.units), len(tasks), config.steps, rewriter.name
        )
        chains = list(_in_order(tasks, rewriter.chains(tasks, config.steps)))
    counts = _counts(chains, config.steps)
    if judge is not None:
        counts |= _write_judged(run, judge, chains)
    write_chains(run.path(REWRITES), chains, config.steps)
    write_originals(run.path(ORIGINALS), chains)
    if isinstance(rewriter, RuleRewriter) and isinstance(rewriter.rule, Mined):
        write_substitutions(run.path(SUBSTITUTIONS), rewriter.rule, [unit.prompt for unit in intake.units])
    write_set_aside(run.path("set_aside.jsonl"), intake.set_aside)
    write_json(run.path(ABOUT), _about(template, intake, judge, rewriter.name, config.steps, counts).as_dict())
    write_published_form(run.path(PUBLISHED), (audited_text(chain, config.steps) for chain in chains))
    return Rewritten(intake, counts)


def _template(config: Rewriting) -> Template:
    if config.template is None:
        return attribute_template(str(config.attribute), config.changes)
    return find_template(config.template, config.changes)


def _tasks(config: Rewriting, intake: Intake) -> list[Task]:
    """First draws of everything, then the further ones of some, spread over the data."""
    first = [Task(unit) for unit in intake.units]
    step = max(1, len(first) // config.repeated)
    some = intake.units[::step][: config.repeated]
    return first + [Task(unit, draw) for draw in range(1, config.rewrites_per_response) for unit in some]


def _rewriter(
    config: Rewriting,
    template: Template,
    intake: Intake,
    tasks: Sequence[Task],
    stack: contextlib.ExitStack,
    judge: AskedMeasure | None,
    agreement: Agreement,
) -> Rewriter:
    if config.endpoint is not None:
        return _chat_rewriter(config, config.endpoint, template, tasks, stack, judge, agreement)
    if config.rewriter is not None:
        ledger = stack.enter_context(shared_ledger())
        client = LocalClient(config.rewriter, ledger, config.seed)
        local = ChatRewriter(template, client, client)
        if judge is not None:
            # What is sent when all is rewritten is asked about now, not hours later.
            agreement.to([_to_judge(judge, local.outlook(tasks, config.steps, ledger), ledger)])
        return local
    if config.world is not None:
        attribute = template.treated.measure or ""
        if not attribute.startswith(WORLD):
            expected = "an attribute of the world, such as world_length"
            raise ConfigError("the world's rewriter cannot set W", [Problem("attribute", template.name, expected)])
        return WorldRewriter(attribute.removeprefix(WORLD), config.world)  # type: ignore[arg-type]  # a measure's name
    if config.mined is not None:
        return RuleRewriter(Mined(mined(human_pairs(config.mined))), config.seed)
    rule = config.rule or RULE_OF.get(template.treated.measure or "")
    if rule is None:
        remedy = "Name one with --endpoint URL or --rewriter MODEL, or a rule with --rule."
        raise ConfigError(
            "no rewriter",
            [Problem("endpoint", "nothing", f"a model that rewrites: no rule sets {template.name}", remedy)],
        )
    typos = {"typos": template.typos} if template.typos else {}
    return RuleRewriter(rule_named(rule, intake, **typos), config.seed)


def _chat_rewriter(
    config: Rewriting,
    endpoint: Endpoint,
    template: Template,
    tasks: Sequence[Task],
    stack: contextlib.ExitStack,
    judge: AskedMeasure | None,
    agreement: Agreement,
) -> ChatRewriter:
    ledger = stack.enter_context(shared_ledger())
    client: ChatClient = LiveClient(endpoint, ledger, config.seed)
    if config.batch:
        client = BatchClient(endpoint, ledger, first_poll=min(_FIRST_POLL, config.poll), longest_poll=config.poll)
    rewriter = ChatRewriter(template, endpoint, client)
    outlook = rewriter.outlook(tasks, config.steps, ledger)
    to_send = [
        estimate([one.request], endpoint, batch=config.batch).times(one.rewrites - one.sent) for one in outlook.waiting
    ]
    plans = [Plan(endpoint, sum(to_send, estimate([], endpoint)))]
    if judge is not None:
        plans.append(_to_judge(judge, outlook, ledger))
    texts = [audited_text(Chain(task, ()), config.steps) for task in tasks]
    clusters = cluster_labels(texts, template.clusters)
    agreement.to(plans, _precision(len(set(clusters.tolist()))))
    return rewriter


def _to_judge(judge: AskedMeasure, outlook: Outlook, ledger: Ledger) -> Plan:
    """What it takes to ask about all texts of the chains; those to come are about as long as what they rewrite."""
    to_come = [judge.expected([one.text]).times(one.rewrites) for one in outlook.waiting]
    return Plan(judge.endpoint, sum(to_come, judge.expected(outlook.texts, ledger)))


def _judge(config: Rewriting, template: Template, agreement: Agreement) -> AskedMeasure | None:
    """The template's question, to the chat model that answers it.

    Raises:
        ConfigError: one of them without the other, where both are needed.
    """
    if config.judge is None:
        return None
    if template.asked is None:
        remedy = "A template file says what is asked: `judge: Is this text ...?`"
        problem = Problem("judge", config.judge.url, f"a template with a question; {template.name} has none", remedy)
        raise ConfigError("there is nothing to ask", [problem])
    return AskedMeasure(template.asked[0], config.judge, agreement, config.seed)


def _measure(config: Rewriting, template: Template, judge: AskedMeasure) -> Measure:
    """The question that decides W. What is asked first is the agreement to everything that comes after, too."""

    def values(texts: Sequence[str]) -> list[float]:
        beside = []
        if config.endpoint is not None:
            # W is not known yet: what is asked towards either side is about as long.
            requests = [
                config.endpoint.request([Message("user", template.prompt(text, True))], draw)
                for draw in range(config.rewrites_per_response)
                for text in (texts[: config.repeated] if draw else texts)
            ]
            beside = [Plan(config.endpoint, estimate(requests, config.endpoint, batch=config.batch), config.steps)]
        return judge.values(texts, times=1 + config.steps, beside=beside, buys=_precision(len(texts)))

    key = content_id([judge.question.model_dump(mode="json"), judge.endpoint.question("").body()])
    return Measure("ask", f"the answer to “{judge.question.question}”", values, key)


def _write_judged(run: Run, judge: AskedMeasure, chains: Sequence[Chain]) -> dict[str, int]:
    """Ask about every text of the chains, and keep what is said; gives counts."""
    rewritten = [one.text for chain in chains for one in chain.rewrites if one.text is not None]
    texts = list(dict.fromkeys([*(chain.task.unit.response for chain in chains), *rewritten]))
    values = judge.values(texts)
    write_judged(run.path(JUDGED), texts, values)
    return {"judged": len(texts), "unjudged": sum(map(math.isnan, values))}


def _precision(clusters: int) -> str:
    """What rewrites of so many independent texts tell: half of a 95 % interval of a mean is 1.96 sd / sqrt(G)."""
    return (
        f"{clusters:,} independent texts: where rewriting changes rewards by one standard deviation from text to text, "
        f"the effect will be known to within {_NORMAL_95 / math.sqrt(max(clusters, 1)):.2f} standard deviations."
    )


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


def _judged_by(template: Template, intake: Intake, asked: AskedMeasure | None) -> dict[str, Any] | None:
    """Who tells whether a text has the attribute, as audit.json says it; None where nobody can."""
    if asked is not None and template.asked is not None:
        question, limit = template.asked
        values = {"ask": question.model_dump(mode="json"), "by": asked.endpoint.model, "above": limit}
        return {**values, "decided": template.treated.ask is not None}
    own = template.judge is None or template.judge.measure is None
    rule = template.treated if own or template.judge is None else template.judge
    above = intake.threshold if own else rule.above
    if rule.measure is None or above is None or rule.of == "transcript":
        return None
    return {"measure": rule.measure, "above": above, "model": rule.model, "against": rule.against, "decided": own}


def _about(
    template: Template,
    intake: Intake,
    asked: AskedMeasure | None,
    rewriter: str,
    steps: int,
    counts: dict[str, Any],
) -> About:
    judge = _judged_by(template, intake, asked)
    words = {"name": template.name, "high": template.high, "low": template.low}
    files = [asdict(file) for file in intake.files]
    return About(words, judge, rewriter, steps, template.clusters, {**intake.counts, **counts}, files)
