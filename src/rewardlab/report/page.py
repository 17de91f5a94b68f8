"""One self-contained HTML page on what was run and what it showed.

    rewardlab report --evaluate runs/evaluate-001 --train runs/train-001

The page opens from disk without a network and holds its data, figures, style and code. Its security policy
lets only the scripts and styles run whose hashes it names, and nothing be loaded; texts from the data are
escaped on the way in and reach the document as text nodes. The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import vl_convert
from pydantic import Field

from rewardlab.audit.summary import findings as audit_findings
from rewardlab.audit.summary import findings_by_model
from rewardlab.config import Config, Paths
from rewardlab.errors import ConfigError, Problem
from rewardlab.evaluate.summary import findings
from rewardlab.report import evaluation, stages
from rewardlab.report.audit import audit_sections
from rewardlab.report.blocks import Figure, Section, prose, section_html
from rewardlab.report.cartography import cartography_sections
from rewardlab.report.chosen import test_findings
from rewardlab.report.examples import LARGEST_EXAMPLES_BYTES, Limits
from rewardlab.report.figures import write_images
from rewardlab.report.frontier_sections import frontier_sections
from rewardlab.report.html import Html, content, element, policy_hash, script, style
from rewardlab.report.inputs import Inputs, read_inputs
from rewardlab.report.interventions import interventions_section
from rewardlab.report.ppo import is_ppo, ppo_findings, ppo_section
from rewardlab.report.robustness import bench_section, perturb_section
from rewardlab.report.simulation import simulation_section
from rewardlab.report.tables import effects_table, write_tables
from rewardlab.store.files import write_text
from rewardlab.store.runs import Run


class Report(Config):
    """What to report on: folders that finished stages wrote. A section appears for what is given."""

    title: str = "Report"
    """Heading of the page."""
    doctor: Paths = ()
    """Folders of `data doctor`."""
    intervene: Paths = ()
    """Folders of `data intervene` and `data cut`."""
    train: Paths = ()
    """Folders of `train reward`; several are the folds of one training. Those of `train ppo` have a section apart."""
    score: Paths = ()
    """Folders of `score`."""
    evaluate: Paths = ()
    """Folders of `evaluate accuracy`."""
    bench: Paths = ()
    """Folders of `evaluate bench`."""
    perturb: Paths = ()
    """Folders of `evaluate perturb`."""
    audit: Paths = ()
    """Folders of `audit effects`, or of `audit run`."""
    simulate: Paths = ()
    """Folders of `audit simulate`."""
    cartography: Paths = ()
    """Folders of `evaluate cartography`."""
    frontier: Paths = ()
    """Folders of `evaluate frontier`."""
    max_examples: int = Field(default=600, ge=0, le=5000)
    """Most pairs and triples that the browsers of examples carry along, for all evaluations and audits together; see
    the page for how they are chosen."""
    seed: int = Field(default=0, ge=0)
    """Of the examples drawn at random, and the scatter of length."""


class AuditReport(Config):
    """What `audit report` shows: the page of audits alone."""

    effects: Paths = Field(min_length=1)
    """Folders of `audit effects`, or of `audit run`."""
    title: str = "What the reward model rewards"
    """Heading of the page."""
    max_examples: int = Field(default=600, ge=0, le=5000)
    """Most triples that the browser carries along, for all audits together."""
    seed: int = Field(default=0, ge=0)
    """Of the triples drawn at random."""


@dataclass(frozen=True)
class MeasuredPage:
    """What a verb wrote that measures and shows it on a page of its own.

    Attributes:
        page: the HTML file.
        values: what the JSON file beside it holds, `findings` (sentences) among them.
    """

    page: Path
    values: Mapping[str, Any]

    def lines(self) -> list[str]:
        """The findings, and where the page is."""
        return [*self.values["findings"], f"The report: {self.page}"]


@dataclass(frozen=True)
class WrittenReport:
    """What was written.

    Attributes:
        page: the HTML file.
        findings: the sentences at its top, as `named_findings` gives them.
    """

    page: Path
    findings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The findings, and where the page is."""
        return [*self.findings, f"The report: {self.page}"]


def write_page(run: Run, title: str, sections: Sequence[Section]) -> Path:
    """Write the figures as images, then `report.html` with the sections; gives its path."""
    write_images(run.path("figures"), {one.name: one.spec for section in sections for one in section.figures})
    path = run.path("report.html")
    write_text(path, page(title, sections))
    run.log.info("wrote %s", path)
    return path


def write_report(config: Report, run: Run) -> WrittenReport:
    """Write `report.html`, the figures as `figures/*.svg` and `figures/*.png`, and of audits `tables/effects.*`.

    Raises:
        ConfigError: nothing to report on is given.
        DataError: folders, files or values that cannot be used, all of them.
        RunError: the run directory cannot be written to, or the disk is full.
    """
    prepared, evaluated = (config.doctor, config.intervene), (config.evaluate, config.bench, config.perturb)
    drawn = (config.audit, config.simulate, config.cartography, config.frontier)
    if not any((*prepared, config.train, config.score, *evaluated, *drawn)):
        remedy = (
            "Give at least one folder with --doctor, --intervene, --train, --score, --evaluate, --bench, --perturb, "
            "--cartography, --frontier, --audit or --simulate."
        )
        raise ConfigError("nothing to report on", [Problem("report", "no folders", "folders of stages", remedy)])
    inputs = read_inputs(
        doctor=config.doctor,
        intervene=config.intervene,
        train=config.train,
        score=config.score,
        evaluate=config.evaluate,
        audit=config.audit,
        simulate=config.simulate,
        bench=config.bench,
        perturb=config.perturb,
        cartography=config.cartography,
        frontier=config.frontier,
    )
    sections = page_sections(inputs, max_examples=config.max_examples, seed=config.seed)
    images = write_images(
        run.path("figures"), {figure.name: figure.spec for part in sections for figure in part.figures}
    )
    if inputs.audit:
        write_tables(run.path("tables"), {"effects": effects_table(inputs.audit)})
    path = run.path("report.html")
    write_text(path, page(config.title, sections))
    run.log.info("wrote %s and %d image files", path, len(images))
    return WrittenReport(path, named_findings(inputs))


def write_audit_report(config: AuditReport, run: Run) -> WrittenReport:
    """`audit report`: as `write_report`, of audits alone.

    Raises:
        DataError: folders, files or values that cannot be used, all of them.
        RunError: the run directory cannot be written to, or the disk is full.
    """
    given = Report(title=config.title, audit=config.effects, max_examples=config.max_examples, seed=config.seed)
    return write_report(given, run)


def named_findings(inputs: Inputs) -> tuple[str, ...]:
    """What test sets, evaluations, audits, maps and frontiers found; of several, behind their stages' names."""
    evaluated = [(stage.label, findings(stage.content.raw)) for stage in inputs.evaluate]
    audited = [(stage.label, audit_findings(stage.content.raw)) for stage in inputs.audit]
    simulated = [(stage.label, stage.content.findings) for stage in inputs.simulate]
    checked = [(stage.label, stage.content.findings) for stage in inputs.robust]
    mapped = [(stage.label, stage.content.file.findings) for stage in inputs.cartography]
    reached = [(stage.label, stage.content.findings) for stage in inputs.frontier]
    found = [*_trained(inputs), *evaluated, *checked, *audited, *simulated, *mapped, *reached]
    several = len(found) > 1
    return tuple(f"{label}: {line}" if several else line for label, lines in found for line in lines)


def page_sections(inputs: Inputs, *, max_examples: int, seed: int) -> list[Section]:
    """The sections of the page, in order, for the inputs that are there."""
    sections = [_findings_section(inputs), stages.runs_section(inputs)]
    if inputs.doctor:
        sections.append(stages.doctor_section(inputs.doctor))
    if inputs.intervene:
        sections.append(interventions_section(inputs.intervene))
    policies = [stage for stage in inputs.train if is_ppo(stage)]
    others = [stage for stage in inputs.train if not is_ppo(stage)]
    if others:
        sections.append(stages.training_section(others))
    if policies:
        sections.append(ppo_section(policies))
    if inputs.score:
        sections.append(stages.score_section(inputs.score))
    several = len(inputs.evaluate) > 1
    # Evaluations, audits and maps share the room that there is for examples.
    browsers = [len(one.content.pairs.margins) for one in inputs.evaluate]
    browsers += [len(one.content.triples.places) for one in inputs.audit]
    browsers += [len(one.content.table.confidence) for one in inputs.cartography]
    limits = iter(Limits(max_examples, LARGEST_EXAMPLES_BYTES).shared(browsers))
    for index, stage in enumerate(inputs.evaluate, start=1):
        sections += evaluation.evaluation_sections(
            stage,
            suffix=f"-{index}" if several else "",
            several=several,
            limits=next(limits),
            seed=seed,
        )
    several = len(inputs.bench) > 1
    for index, bench in enumerate(inputs.bench, start=1):
        sections.append(bench_section(bench, suffix=f"-{index}" if several else "", several=several))
    several = len(inputs.perturb) > 1
    for index, perturb in enumerate(inputs.perturb, start=1):
        sections.append(perturb_section(perturb, suffix=f"-{index}" if several else "", several=several))
    several = len(inputs.audit) > 1
    for index, audit in enumerate(inputs.audit, start=1):
        suffix = f"-audit-{index}" if several else "-audit"
        sections += audit_sections(audit, suffix=suffix, several=several, limits=next(limits), seed=seed)
    several = len(inputs.simulate) > 1
    for index, simulated in enumerate(inputs.simulate, start=1):
        suffix = f"-known-{index}" if several else "-known"
        sections.append(simulation_section(simulated, suffix=suffix, several=several))
    several = len(inputs.cartography) > 1
    for index, one in enumerate(inputs.cartography, start=1):
        suffix = f"-{index}" if several else ""
        sections += cartography_sections(one, suffix=suffix, several=several, limits=next(limits), seed=seed)
    several = len(inputs.frontier) > 1
    for index, reached in enumerate(inputs.frontier, start=1):
        suffix, of = (f"-{index}", f" of {reached.label}") if several else ("", "")
        sections += frontier_sections(reached.content.model_dump(), suffix=suffix, of=of)
    return sections


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page as HTML text."""
    code, rules, library = _asset("page.js"), _asset("page.css"), _library()
    body = [
        element("a", "Skip to the findings", href=f"#{sections[0].name}", class_="skip"),
        element(
            "div",
            element("header", element("h1", title), element("p", _SUBTITLE, class_="subtitle")),
            element(
                "div",
                _contents(sections),
                element("main", [section_html(section) for section in sections]),
                class_="columns",
            ),
            class_="frame",
        ),
        script(library),
        script(code),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=security_policy([library, code], rules)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        style(rules),
    ]
    whole = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{whole}\n"


def security_policy(scripts: Sequence[str], rules: str) -> str:
    """A Content-Security-Policy under which only these scripts and styles count and nothing is loaded."""
    hashes = " ".join(policy_hash(code) for code in scripts)
    directives = (
        "default-src 'none'",
        f"script-src {hashes}",
        f"style-src {policy_hash(rules)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(directives)


_SUBTITLE = (
    "Every estimate stands with its interval and a sentence on how to read it. Point at a figure for its numbers; "
    "the same figures are beside this page in the folder figures, as SVG and PNG."
)


def _findings_section(inputs: Inputs) -> Section:
    trained = _trained(inputs)
    given: tuple[Sequence[object], ...] = (
        trained,
        inputs.evaluate,
        inputs.robust,
        inputs.audit,
        inputs.simulate,
        inputs.cartography,
        inputs.frontier,
    )
    several = sum(map(len, given)) > 1
    blocks: list[Figure | Html] = [_sentences(label if several else "", [("", lines)]) for label, lines in trained]
    blocks += [
        _sentences(stage.label if several else "", [("", findings(stage.content.raw))]) for stage in inputs.evaluate
    ]
    blocks += [_sentences(stage.label if several else "", [("", stage.content.findings)]) for stage in inputs.robust]
    blocks += [_sentences(stage.label if several else "", _by_model(stage.content.raw)) for stage in inputs.audit]
    blocks += [_sentences(stage.label if several else "", [("", stage.content.findings)]) for stage in inputs.simulate]
    blocks += [
        _sentences(stage.label if several else "", [("", stage.content.file.findings)]) for stage in inputs.cartography
    ]
    blocks += [_sentences(stage.label if several else "", [("", stage.content.findings)]) for stage in inputs.frontier]
    compared = evaluation.comparison(inputs.evaluate) if len(inputs.evaluate) > 1 else None
    if compared is not None:
        blocks.append(compared)
    nothing = "No evaluation was given, so this page says what was done, not how well it works."
    found = any(given)
    return Section("findings", "Findings", "" if found else nothing, blocks)


def _trained(inputs: Inputs) -> list[tuple[str, list[str]]]:
    """The trainings that say something of themselves: those that scored a test set, and those by PPO."""
    found = [(stage.label, ppo_findings(stage) if is_ppo(stage) else test_findings(stage)) for stage in inputs.train]
    return [(label, lines) for label, lines in found if lines]


def _by_model(raw: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The findings of an audit under the names of its reward models, as sentences that begin with a capital."""
    groups = findings_by_model(raw)
    return [(name or "The rewrites", [line[:1].upper() + line[1:] for line in lines]) for name, lines in groups]


def _sentences(label: str, groups: Sequence[tuple[str, Sequence[str]]]) -> Html:
    """Findings as lists, each under what it is about."""
    return content(
        [
            element("h3", label) if label else None,
            [
                [
                    element("p", element("strong", name), class_="about") if name else None,
                    element("ol", [element("li", prose(line)) for line in lines]),
                ]
                for name, lines in groups
            ],
        ]
    )


def _contents(sections: Sequence[Section]) -> Html:
    """Links to the sections."""
    links = [element("li", element("a", section.title, href=f"#{section.name}")) for section in sections]
    return element("nav", element("ul", links), aria_label="Sections")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, as vl-convert ships them: the versions that draw the files."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("\r", "")


def _asset(name: str) -> str:
    """Text of a file of this folder."""
    return resources.files("rewardlab.report").joinpath(name).read_text(encoding="utf-8")
