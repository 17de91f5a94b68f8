"""The page of gains: numbers of an example by hand, what is told of one-sided bins, and hostile names kept as text."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import numpy as np
import pytest

from rewardlab.evaluate.gain import Answers, GainEvaluation, ReadSets, Values, gain_values
from rewardlab.report.blocks import Figure
from rewardlab.report.gain import findings, gain_sections
from rewardlab.report.html import visible
from rewardlab.report.page import page
from tests.report.test_report_html import PAYLOADS, read

BASE = ((0.0, 10), (1.0, 12), (2.0, 30), (3.0, 50))
OTHER = ((1.0, 15), (2.0, 35), (2.0, 33), (5.0, 95))
"""Reward and tokens of the answers to four prompts.

[0, 20): .5 against 1, three answers; [20, 40): 2 against 2, three answers; one more of each in a bin of its own. So NRG
is 3/8 x .5 = .1875 of a gain of 1, and .25 within the bins of both."""


def measured(*sets: tuple[str, tuple[tuple[float, int], ...]], scorer: str = "rm@1", strata: int = 2) -> Values:
    answers = {
        name: Answers(
            np.array([f"p{n:03}" for n in range(len(rows))]),
            np.array([reward for reward, _ in rows]),
            np.array([tokens for _, tokens in rows]),
        )
        for name, rows in sets
    }
    config = GainEvaluation.build({"sets": dict.fromkeys(answers, "a"), "strata": strata})
    values = gain_values(ReadSets(answers, scorer, 3), config)
    return {**values, "findings": findings(values)}


def lanes(values: Values, name: str) -> list[dict[str, Any]]:
    """Rows of data of a figure that are drawn as lanes, in order."""
    blocks = [block for section in gain_sections(values) for block in section.blocks]
    [figure] = [block for block in blocks if isinstance(block, Figure) and block.name == name]
    return lanes_of(figure.spec)


def lanes_of(spec: Any) -> list[dict[str, Any]]:
    """Rows of data anywhere in a specification that have a label and a text."""
    if isinstance(spec, dict):
        if "label" in spec and "text" in spec and "value" in spec:
            return [spec]
        return [row for part in spec.values() for row in lanes_of(part)]
    return [row for part in spec for row in lanes_of(part)] if isinstance(spec, list) else []


def cells(markup: str) -> list[str]:
    """Texts of the cells of all tables, one after the other."""
    found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", markup, re.DOTALL)
    return [unescape(re.sub(r"<[^>]*>", "", cell)) for cell in found]


def test_the_page_has_the_numbers_of_the_example() -> None:
    values = measured(("base", BASE), ("other", OTHER))
    sections = gain_sections(values)
    assert [one.name for one in sections] == ["findings", "strata", "tables"]
    text = read(page("Gains", sections)).text
    assert "Gains in reward over base, by rm@1, on 4 prompts that all sets have (3 others are left out)." in text
    assert "other over base: reward +1.00 (" in text
    assert "within bins of length +0.19 (" in text
    assert "26 against 44 tokens on average." in text
    rows = {row["label"]: row["value"] for row in lanes(values, "gains")}
    assert rows["the whole gain"] == pytest.approx(1.0)
    assert rows["within bins of length (NRG)"] == pytest.approx(0.1875)
    parts = rows["at equal length, regression"] + rows["through length, regression"]
    assert parts == pytest.approx(1.0)
    # The tables: sets with means, bins with counts and means.
    told = cells(page("Gains", sections))
    for row in (["base", "1.50", "25.5", "4"], ["other", "2.50", "44.5", "4"]):
        assert any(told[at : at + 4] == row for at in range(len(told))), row
    for row in (["[0, 20)", "2", "1", "0.50", "1.00"], ["[20, 40)", "1", "2", "2.00", "2.00"]):
        assert any(told[at : at + 5] == row for at in range(len(told))), row


def test_strata_by_hand() -> None:
    values = measured(("base", BASE), ("other", OTHER))
    # Lengths 10, 12, 15, 30 and 33, 35, 50, 95.
    assert [(row["group"], row["label"], row["value"]) for row in lanes(values, "strata")] == [
        ("10 to 33 tokens", "base", 1.0),
        ("10 to 33 tokens", "other", 1.0),
        ("33 to 95 tokens", "base", 3.0),
        ("33 to 95 tokens", "other", 3.0),
    ]
    # Longer by 5, 23, 3 and 45 tokens: won, won, even, won.
    assert [(row["label"], row["text"]) for row in lanes(values, "wins")] == [
        ("all", "87.5 %"),
        ("3 to 23 tokens longer", "75.0 %"),
        ("23 to 45 tokens longer", "100.0 %"),
    ]


def test_ranges_below_zero_have_true_minus_signs() -> None:
    values = measured(("other", OTHER), ("base", BASE))
    assert [row["label"] for row in lanes(values, "wins")][1:] == ["−45 to −5 tokens longer", "−5 to −3 tokens longer"]


def test_bins_of_one_model_are_told_from_a_twentieth_on() -> None:
    values = measured(("base", BASE), ("other", OTHER))
    assert values["findings"][1].startswith(
        "other: 25.0 % of the answers are in bins of length that hold answers of one"
    )
    assert "within the other bins the gain is +0.25" in values["findings"][1]
    assert "within bins that hold both" in {row["label"] for row in lanes(values, "gains")}
    apart = measured(("base", ((0.0, 5), (1.0, 6))), ("other", ((0.0, 105), (1.0, 106))))
    assert apart["findings"][1].endswith("of one of the two alone, so NRG says nothing.")


def test_few_of_them_are_told_where_the_interval_is_narrow() -> None:
    """One answer in 200 alone in its bin makes NRG short by .005, which matters at a standard error below .01."""
    generator = np.random.default_rng(0)
    for noise, told in ((0.02, True), (0.5, False)):
        base = tuple((float(noise * one), 5) for one in generator.normal(size=100))
        other = tuple((1.0 + float(noise * one), 5 if at else 45) for at, one in enumerate(generator.normal(size=100)))
        values = measured(("base", base), ("other", other))
        assert (len(values["findings"]) == 2) is told
        assert ("within bins that hold both" in {row["label"] for row in lanes(values, "gains")}) is told


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_stay_text(payload: str) -> None:
    harmless = re.sub(r"\S", "x", payload)
    pages = [
        page("Gains", gain_sections(measured(("base", BASE), (name, OTHER), scorer=name)))
        for name in (payload, harmless)
    ]
    hostile, tidy = map(read, pages)
    # No element more than a harmless page has.
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tidy.tags]
    assert f"{visible(payload)} over base: reward" in hostile.text
    assert f"Answers of {visible(payload)}" in hostile.text
