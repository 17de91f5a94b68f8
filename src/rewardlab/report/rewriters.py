"""The section on who rewrote: audits of the same responses by different rewriters, beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rewardlab.audit.rewriters import NEEDED, Comparison, Rewritten, compare_rewriters
from rewardlab.audit.summary import number
from rewardlab.report.audit_inputs import Audit
from rewardlab.report.audit_words import effect_words, p_words, reward_words, short
from rewardlab.report.blocks import Figure, Section, table
from rewardlab.report.forest import forest
from rewardlab.report.html import Content, Html, element
from rewardlab.report.inputs import Stage
from rewardlab.report.reading import readable
from rewardlab.report.vega import BLUE, GREY, Spec
from rewardlab.report.words import DASH

RESULT = "rewriters.json"
_FEWEST = 2
_FEW = 10


@dataclass(frozen=True)
class _Group:
    """Audits of one attribute and reward model that share responses: rewriter → what it made, and coverage."""

    attribute: str
    scorer: str
    ids: frozenset[str]
    members: dict[str, tuple[Rewritten, float]]

    def takes(self, attribute: str, one: Rewritten, scorer: str) -> bool:
        """Whether an audit belongs here: by another rewriter, on some of the same responses."""
        same = (self.attribute, self.scorer) == (attribute, scorer) and one.rewriter not in self.members
        return same and len(self.ids & set(one.triples["id"].to_pylist())) >= _FEWEST


def compared_rewriters(audits: Sequence[Stage[Audit]]) -> list[Comparison]:
    """A comparison per attribute and reward model that several rewriters were used for, on responses they share.

    Raises:
        DataError: triples that cannot be read.
    """
    groups: list[_Group] = []
    for stage in audits:
        file = stage.content.file
        level = float(file.options.get("level", 0.95))
        for model in file.models:
            one = Rewritten(file.rewriter, _triples(stage.content.triples.path, model.scorer))
            group = next((each for each in groups if each.takes(file.attribute.name, one, model.scorer)), None)
            if group is None:
                ids = frozenset(one.triples["id"].to_pylist())
                group = _Group(file.attribute.name, model.scorer, ids, {})
                groups.append(group)
            group.members[file.rewriter] = (one, level)
    compared = (
        compare_rewriters(
            group.attribute,
            group.scorer,
            [one for one, _ in group.members.values()],
            min(level for _, level in group.members.values()),
        )
        for group in groups
        if len(group.members) >= _FEWEST
    )
    return [one for one in compared if one is not None]


def _triples(path: Path, scorer: str) -> pa.Table:
    with readable(path, "the triples.parquet of an audit"):
        return pq.read_table(path, columns=list(NEEDED), filters=pc.field("scorer") == scorer)


def rewriters_section(comparisons: Sequence[Comparison]) -> Section:
    """Effects by rewriter, their differences, where the variance is, and the verdicts."""
    rows = [row for one in comparisons for row in _rows(one)]
    blocks: list[Figure | Html] = [element("ul", [element("li", one.line()) for one in comparisons])]
    if rows:
        reading = (
            "RATE by each rewriter (blue), over the responses that all of them brought through, and the differences "
            "(grey), paired by response. A rewriter brings its own side effects; a finding that stays is less likely "
            "to be one of them."
        )
        blocks.append(
            Figure(
                "rewriters",
                "The effect by rewriter",
                comparisons[0].line(),
                reading,
                effects_by_rewriter(rows),
                plain=False,
            )
        )
    blocks += [_table(one) for one in comparisons]
    blocks += [element("p", _components(one)) for one in comparisons]
    lead = (
        "The same responses, rewritten by different rewriters and scored by the same reward model: does the finding "
        "hang on who rewrote?"
    )
    return Section("rewriters", "Rewriters", lead, blocks)


def effects_by_rewriter(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """RATE by rewriter, and the differences.

    Args:
        rows: `group, label, value, low, high, text, is_difference`, in sd.
    """
    drawn = [
        {
            **row,
            "short": str(row["text"]).split(" (")[0],
            "hint": "paired by response" if row["is_difference"] else "over the responses in common",
            "color": GREY if row["is_difference"] else BLUE,
        }
        for row in rows
    ]
    return forest(drawn, axis_title="Effect (standard deviations)", reference_label="no effect")


def _named(one: Comparison) -> list[tuple[str, str, bool]]:
    """(Machine name, label, whether it is a difference) of every estimate, in order."""
    names = [short(name) for name in one.rewriters]
    found = []
    for estimate in one.estimates:
        kind, *places = estimate.name.split(".")
        if places[-1] != "sd":
            labels = [names[int(place) - 1] for place in places]
            found.append((estimate.name, " minus ".join(labels), kind == "difference"))
    return found


def _rows(one: Comparison) -> list[dict[str, Any]]:
    rows = []
    for name, label, is_difference in _named(one):
        found = one.of(f"{name}.sd")
        if found.value is not None:
            group = short(f"{one.attribute} \N{MIDDLE DOT} {one.scorer}")
            ends = {"value": found.value, "low": found.low, "high": found.high, "text": effect_words(found)}
            rows.append({"group": group, "label": label, **ends, "is_difference": is_difference})
    return rows


def _table(one: Comparison) -> Html:
    header = ("Rewriter", "Effect (sd)", "From", "To", "Effect (reward)", "SE (reward)", "p", "n", "Clusters")
    cells: list[list[Content]] = []
    for name, label, _ in _named(one):
        raw, in_sd = one.of(name), one.of(f"{name}.sd")
        value = DASH if in_sd.value is None else number(in_sd.value, signed=True)
        cells.append(
            [
                label,
                value if in_sd.value is not None else element("span", in_sd.reason, class_="missing"),
                _end(in_sd.low),
                _end(in_sd.high),
                reward_words(raw.value),
                reward_words(raw.error),
                p_words(raw.p),
                f"{raw.n:,}",
                f"{raw.clusters:,}",
            ]
        )
    caption = (
        f"{one.attribute} on {one.scorer}: {one.target} of RATE by rewriter, over {one.responses:,} responses in "
        f"common, with {100 * one.level:g} % intervals{_together(one)}"
    )
    return table(caption, header, cells, numeric=range(1, len(header)))


def _together(one: Comparison) -> str:
    return "; those of the differences hold all at once (Bonferroni)" if len(one.rewriters) > _FEWEST else ""


def _end(value: float | None) -> str:
    return DASH if value is None else number(value)


def _components(one: Comparison) -> str:
    """Where the variance of single effects is, in words."""
    found = one.components
    told = {
        "differences between responses": found["text"],
        "between rewriters, the same for all responses": found["rewriter"],
        "what a rewriter does to one response in particular": found["interaction"],
        "chance in the rewriter": found["draw"],
        "what a rewriter does to one response in particular, and its chance": found["rest"],
    }
    total = sum(value for value in told.values() if value is not None)
    start = f"{short(one.scorer)}, {short(one.attribute)}: "
    if total <= 0.0:
        return f"{start}the effects do not vary at all."
    shares = ", ".join(f"{100 * value / total:.0f} % {name}" for name, value in told.items() if value is not None)
    return (
        f"{start}of the variance of single effects ({found['texts']:,} responses, {found['draws']} "
        f"{'draw' if found['draws'] == 1 else 'draws'} each), {shares}. Effects by rewriters like these spread around "
        f"their mean with a standard deviation of about {reward_words(math.sqrt(found['rewriter']))} reward units"
        f"{_few(one)}."
    )


def _few(one: Comparison) -> str:
    few = len(one.rewriters)
    return f", a rough figure: it is told from {few} rewriters" if few < _FEW else ""
