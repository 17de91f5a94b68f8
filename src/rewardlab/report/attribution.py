"""`rewardlab evaluate attribution`: measures it (`evaluate.attribution`) and writes its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardlab.audit.summary import number
from rewardlab.evaluate.attribution import AttributionEvaluation, Values, measure
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.figures import write_images
from rewardlab.report.html import element
from rewardlab.report.page import page
from rewardlab.report.toxicity_figures import spanned
from rewardlab.report.vega import BLUE, Row, Spec, number_field, specification
from rewardlab.store.files import write_json, write_text
from rewardlab.store.runs import Run

_READING = (
    "The mean over responses of the n-th token that the model wrote, with its interval; later tokens have more before "
    "them that is the model's own. Points of fewer than five responses are left out."
)


@dataclass(frozen=True)
class WrittenAttribution:
    """What was written.

    Attributes:
        page: the HTML file.
        values: what attribution.json holds.
    """

    page: Path
    values: Values

    def lines(self) -> list[str]:
        """The finding, and where the page is."""
        return [self.values["finding"], f"The report: {self.page}"]


def evaluate_attribution(config: AttributionEvaluation, run: Run) -> WrittenAttribution:
    """Measure, then write `attribution.json`, `attribution.parquet`, `report.html` and its figures as SVG and PNG.

    Raises:
        RewardlabError: as `evaluate.attribution.measure`.
    """
    found = measure(config, run)
    values = {**found, "finding": finding(found)}
    write_json(run.path("attribution.json"), values)
    section = attribution_section(values)
    write_images(run.path("figures"), {one.name: one.spec for one in section.figures})
    path = run.path("report.html")
    write_text(path, page(config.title, [section]))
    return WrittenAttribution(path, values)


def finding(values: Values) -> str:
    """What was found, in a sentence."""
    share, entropy = values["estimates"]
    ends = "" if entropy["low"] is None else f" ({number(entropy['low'])} to {number(entropy['high'])})"
    return (
        f"Of the attribution ({values['method']}) of what {values['model']} wrote, {spanned(share)} a token lies on "
        f"the prompt; the entropy over all tokens before it is {number(entropy['value'])}{ends} nats "
        f"({values['responses']:,} responses, {share['n']:,} tokens)."
    )


def attribution_section(values: Values) -> Section:
    """The one section of the page."""
    titles = {"prompt_share": "Attribution on the prompt (share)", "entropy": "Entropy of the attribution (nats)"}
    figures = []
    for name, title in titles.items():
        spec = along(values["along"], name, title)
        figures.append(Figure(name.replace("_", "-"), title, title, _READING, spec, plain=False, half=True))
    return Section("attribution", "Attribution", "", [element("p", values["finding"]), *figures])


def along(points: Sequence[Values], name: str, title: str) -> Spec:
    """A measure against the number of the token that was written, with its interval."""
    rows: list[Row] = [{"token": one["token"], "responses": one["responses"], **one[name]} for one in points]
    x: Spec = {"field": "token", "type": "quantitative", "title": "token that the model wrote", "axis": {"format": "d"}}
    y: Spec = {"type": "quantitative", "title": title.lower(), "scale": {"zero": True}}
    pointer = [
        number_field("token", "Token", "d"),
        number_field("value", title),
        number_field("low", "From"),
        number_field("high", "To"),
        number_field("responses", "Responses", "d"),
    ]
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.2, "color": BLUE},
            "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "color": BLUE, "strokeWidth": 2, "point": True},
            "encoding": {"x": x, "y": {"field": "value", **y}, "tooltip": pointer},
        },
    ]
    return specification(rows, layers, height=260)
