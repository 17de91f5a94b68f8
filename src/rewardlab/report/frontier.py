"""`rewardlab evaluate frontier`: measures it (`evaluate.frontier`) and writes its page."""

from __future__ import annotations

from rewardlab.evaluate.frontier import RESULT, FrontierEvaluation, measure
from rewardlab.evaluate.frontier_estimates import REWARD
from rewardlab.report.blocks import Section
from rewardlab.report.frontier_sections import findings, frontier_sections
from rewardlab.report.html import element
from rewardlab.report.lineage import rewarded_by
from rewardlab.report.page import MeasuredPage, write_page
from rewardlab.store.files import write_json
from rewardlab.store.runs import Run


def evaluate_frontier(config: FrontierEvaluation, run: Run) -> MeasuredPage:
    """Measure, then write `frontier.json`, `frontier.parquet`, `report.html` and its figures as SVG and PNG.

    Raises:
        RewardlabError: as `evaluate.frontier.measure`.
    """
    measured = measure(config, run)
    measured["warnings"] += _not_recorded(config, measured["scorers"][REWARD])
    values = {**measured, "findings": findings(measured)}
    found = element("ol", [element("li", line) for line in values["findings"]])
    sections = [Section("findings", "Findings", "", [found]), *frontier_sections(values)]
    write_json(run.path(RESULT), values)
    return MeasuredPage(write_page(run, config.title, sections), values)


def _not_recorded(config: FrontierEvaluation, scorer: str) -> list[str]:
    """Which runs nothing says of that they were trained on what the configuration calls so."""
    names = [
        name
        for name, folders in config.runs.items()
        if not all(rewarded_by(folder.resolve(), config.reward) for folder in folders)
    ]
    if not names:
        return []
    why = "It is called the reward trained on because the configuration says so."
    return [f"Not recorded as trained on {scorer}: {', '.join(names)}. {why}"]
