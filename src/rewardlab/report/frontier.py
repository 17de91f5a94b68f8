"""`rewardlab evaluate frontier`: measures it (`evaluate.frontier`) and writes its page."""

from __future__ import annotations

from rewardlab.evaluate.frontier import RESULT, FrontierEvaluation, measure
from rewardlab.report.blocks import Section
from rewardlab.report.frontier_sections import findings, frontier_sections
from rewardlab.report.html import element
from rewardlab.report.page import MeasuredPage, write_page
from rewardlab.store.files import write_json
from rewardlab.store.runs import Run


def evaluate_frontier(config: FrontierEvaluation, run: Run) -> MeasuredPage:
    """Measure, then write `frontier.json`, `frontier.parquet`, `report.html` and its figures as SVG and PNG.

    Raises:
        RewardlabError: as `evaluate.frontier.measure`.
    """
    measured = measure(config, run)
    values = {**measured, "findings": findings(measured)}
    found = element("ol", [element("li", line) for line in values["findings"]])
    sections = [Section("findings", "Findings", "", [found]), *frontier_sections(values)]
    write_json(run.path(RESULT), values)
    return MeasuredPage(write_page(run, config.title, sections), values)
