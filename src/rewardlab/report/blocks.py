"""What the sections of the page are made of: figures with captions, tables of estimates, facts, disclosures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.records import Estimate
from rewardlab.report.figures import stretched
from rewardlab.report.html import Content, Html, content, element, json_island
from rewardlab.report.vega import Spec
from rewardlab.report.words import (
    DASH,
    basis_words,
    estimate_words,
    interval_words,
    is_difference,
    name_of,
    value_words,
)

_MOST_WIDE_COLUMNS = 7


@dataclass(frozen=True)
class Figure:
    """A picture with its words.

    Attributes:
        name: of its files and its element: lower-case letters, digits and hyphens, unique in the page.
        title: what is drawn.
        finding: what it shows, in one sentence; read out in place of the picture.
        reading: how to read it.
        spec: the Vega-Lite specification.
        numbers: the table behind it, shown on demand.
        plain: whether the finding is shown too; False where the picture itself says it in words.
        half: whether it is drawn at half the width of the page, beside another one.
    """

    name: str
    title: str
    finding: str
    reading: str
    spec: Spec
    numbers: Html | None = None
    plain: bool = True
    half: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its element, for links; like a figure's.
        title: its heading.
        lead: one or two sentences under the heading.
        blocks: figures and finished markup, in order.
    """

    name: str
    title: str
    lead: str
    blocks: Sequence[Figure | Html]

    @property
    def figures(self) -> list[Figure]:
        """The figures among the blocks."""
        return [block for block in self.blocks if isinstance(block, Figure)]


def section_html(section: Section) -> Html:
    """A section with its heading and blocks."""
    heading = f"{section.name}-heading"
    return element(
        "section",
        element("h2", section.title, id=heading),
        element("p", section.lead, class_="lead") if section.lead else None,
        [figure_html(block) if isinstance(block, Figure) else block for block in section.blocks],
        id=section.name,
        aria_labelledby=heading,
    )


def figure_html(figure: Figure) -> Html:
    """A figure: heading, place for the drawing, caption, numbers on demand, and the specification as data."""
    spec = {**stretched(figure.spec), "description": figure.finding}
    return element(
        "figure",
        element("h3", figure.title),
        element("div", class_="drawing", data_spec=f"spec-{figure.name}", role="img", aria_label=figure.finding),
        element(
            "figcaption",
            element("p", element("strong", figure.finding)) if figure.plain else None,
            element("p", figure.reading),
            disclosure("The numbers behind the figure", figure.numbers) if figure.numbers else None,
        ),
        json_island(f"spec-{figure.name}", spec),
        id=f"figure-{figure.name}",
        class_="half" if figure.half else None,
    )


def disclosure(summary: str, *body: Content) -> Html:
    """Something shown on demand; works without JavaScript and with the keyboard."""
    return element("details", element("summary", summary), *body)


def prose(text: str) -> Html:
    """Text in which words between backticks are code."""
    parts = text.split("`")
    # An odd number of backticks leaves the last one without its partner: then none of them is a mark.
    if len(parts) % 2 == 0:
        return content(text)
    return content([element("code", part) if index % 2 else part for index, part in enumerate(parts)])


def estimate_table(caption: str, estimates: Sequence[Estimate]) -> Html:
    """Estimates with interval, basis and how to read them; what could not be computed says why."""
    level = f"{100 * estimates[0].level:g}" if estimates else "95"
    header = ("Measure", "Estimate", f"{level} % interval", "Based on", "How to read it")
    return table(caption, header, [_estimate_cells(item) for item in estimates], numeric=(1, 2))


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Content]], *, numeric: Sequence[int] = ()
) -> Html:
    """A table whose first column names the row; on a narrow screen each row becomes a card.

    Args:
        caption: what the table holds.
        header: names of the columns.
        rows: cells, as many as there are columns.
        numeric: indices of right-aligned columns.
    """

    def cell(index: int, value: Content) -> Html:
        style = "number" if index in numeric else None
        if index == 0:
            return element("th", value, scope="row")
        # A card has no header row above its cells: each carries its column's name along.
        return element("td", element("span", value), class_=style, data_label=header[index])

    head = [
        element("th", name, scope="col", class_="number" if index in numeric else None)
        for index, name in enumerate(header)
    ]
    body = [element("tr", [cell(index, value) for index, value in enumerate(row)]) for row in rows]
    # The roles stand here because browsers drop those of a table that is laid out as cards.
    whole = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", head)),
        element("tbody", body),
        class_="dense" if len(header) > _MOST_WIDE_COLUMNS else None,
    )
    return element("div", whole, class_="table", role="region", aria_label=caption, tabindex="0")


def facts(values: Mapping[str, Content]) -> Html:
    """Names and values, one below the other."""
    return element("dl", [element("div", element("dt", name), element("dd", value)) for name, value in values.items()])


def dot_rows(estimates: Sequence[Estimate], comparisons: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows for `dots_with_intervals`; what could not be computed is left to the table.

    Args:
        estimates: in the order of the figure.
        comparisons: machine names to be drawn as "for comparison".
    """
    return [
        {
            "label": name_of(item),
            "value": item.value,
            "low": item.low,
            "high": item.high,
            "text": estimate_words(item),
            "short": value_words(item),
            "n": basis_words(item),
            "method": item.method or DASH,
            "reading": item.reading or DASH,
            "role": "comparison" if item.name in comparisons else "model",
        }
        for item in estimates
        if item.value is not None
    ]


def sentence(estimates: Sequence[Estimate]) -> str:
    """`Accuracy 67.1 % (64.2 to 70.0); longer is better 52.0 % (...).` for the text in place of a picture."""
    parts = [f"{name_of(item)} {estimate_words(item)}" for item in estimates if item.value is not None]
    return f"{'; '.join(parts)}." if parts else "None of these could be computed; the table says why."


def _estimate_cells(estimate: Estimate) -> list[Content]:
    missing: Content = None
    if estimate.value is None:
        missing = element("span", f"Not available: {estimate.reason}", class_="missing")
    elif estimate.reason:
        missing = f"No interval: {estimate.reason}."
    unit = element("small", " points") if is_difference(estimate) and estimate.low is not None else None
    return [
        name_of(estimate),
        element("strong", value_words(estimate)),
        content([interval_words(estimate), unit]),
        element("span", basis_words(estimate), title=estimate.method or None),
        content([missing, " " if missing and estimate.reading else None, prose(estimate.reading)]),
    ]
