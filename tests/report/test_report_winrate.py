"""The page of win rates: numbers of an example by hand, sections with something to show, hostile names and texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from rewardlab.evaluate.winrate import Compared, Labelled, Matches
from rewardlab.evaluate.winrate_estimates import Values, winrate_values
from rewardlab.functional.winrate import By
from rewardlab.records import Message, Prompt
from rewardlab.report.blocks import Figure
from rewardlab.report.html import visible
from rewardlab.report.page import page
from rewardlab.report.winrate import findings, winrate_sections
from rewardlab.report.words import DASH
from rewardlab.score.comparing import Verdict
from tests.report.test_report_gain import cells, lanes_of
from tests.report.test_report_html import PAYLOADS, read


@dataclass(frozen=True)
class Rates:
    """What the rates of a test are made with."""

    base: str = "base"
    difficulty: By = "none"
    draws: int = 100
    strata: int = 2
    level: float = 0.95
    seed: int = 0


def prompt(number: int) -> Prompt:
    return Prompt((Message("user", f"asked {number}"),))


def met(model: str, longer: list[int], preferences: list[float | None], other: str = "base") -> list[Compared]:
    """Comparisons of answers that are longer than 100 characters by that much; without a preference: refused."""
    rows = []
    for at, (more, won) in enumerate(zip(longer, preferences, strict=True)):
        verdict = Verdict(won, reason="refused" if won is None else "")
        rows.append(Compared(model, other, prompt(at), 0, 100 + more, 100, "judge", verdict))
    return rows


def measured(found: Matches) -> Values:
    values = winrate_values(found, Rates(), {"judge": "word"})
    return {**values, "findings": findings(values)}


def small() -> Matches:
    """Answers longer by -20, -5, 5 and 40 characters: lost, won, even, won; a fifth one was refused."""
    rows = met("mine", [-20, -5, 5, 40, 7], [0.0, 1.0, 0.5, 1.0, None])
    return Matches(rows, judges={"judge": "a model"}, counts={"without a preference": 1})


def figure(values: Values, name: str) -> Figure:
    blocks = [block for section in winrate_sections(values) for block in section.blocks]
    [found] = [block for block in blocks if isinstance(block, Figure) and block.name == name]
    return found


def test_the_page_has_the_numbers_of_the_example() -> None:
    values = measured(small())
    sections = winrate_sections(values)
    # Two players have no ranking.
    assert [one.name for one in sections] == ["findings", "length", "judge"]
    text = read(page("Win rates", sections)).text
    assert "Judges: judge (a model)." in text
    assert "mine against base: raw 62.5 % (" in text
    assert "its answers are 5 characters longer on average; 4 comparisons." in text
    [raw] = [row for row in lanes_of(figure(values, "win-rates").spec) if row["label"] == "raw"]
    assert (raw["group"], raw["value"]) == ("mine", pytest.approx(62.5))
    told = cells(page("Win rates", sections))
    row = ["a model", "2", "1", "1", "1 refused"]
    assert any(told[at : at + 5] == row for at in range(len(told)))
    assert told[told.index("without a preference") + 1] == "1"


def test_strata_by_hand() -> None:
    """The middle of the differences is 0: -20 and -5 are below, 5 and 40 above."""
    rows = lanes_of(figure(measured(small()), "strata").spec)
    assert [(row["group"], row["label"], row["value"]) for row in rows] == [
        ("mine", "−20 to 5 characters", 50.0),
        ("mine", "5 to 40 characters", 75.0),
    ]


def three(names: tuple[str, str] = ("one", "two"), judged: str = "judge") -> Matches:
    """Two models against the base and each other on 24 prompts, by a judge asked in both orders, and people's pairs."""
    generator = np.random.default_rng(0)
    rows = []
    for model, other, share in ((names[0], "base", 0.6), (names[1], "base", 0.75), (names[1], names[0], 0.6)):
        for at in range(24):
            won = float(generator.random() < share)
            lengths = generator.integers(50, 200, 2).tolist()
            verdict = Verdict(won, won, won if at % 4 else 1.0 - won)
            rows.append(Compared(model, other, prompt(at), 0, *lengths, "judge", verdict))
    people = [Labelled(f"{judged}.jsonl", prompt(at), "judge", Verdict(float(at < 3))) for at in range(4)]
    return Matches(rows, people, {"judge": judged}, {judged: 2})


def test_three_players_have_a_ranking_with_the_rate_of_every_meeting() -> None:
    found = three()
    values = measured(found)
    assert [one.name for one in winrate_sections(values)] == ["findings", "length", "ranking", "judge"]
    order = [row["label"] for row in lanes_of(figure(values, "ranking").spec)]
    strengths = {one["name"]: one["value"] for one in values["estimates"]["ranking"]}
    assert order == sorted(order, key=lambda name: -strengths[f"strength.{name}"])
    won = [one.verdict.preference for one in found.compared if (one.model, one.baseline) == ("two", "one")]
    rate = f"{100 * np.mean([one for one in won if one is not None]):.1f} % ("
    html = page("Win rates", winrate_sections(values))
    told = cells(html)
    start = told.index("Wins of")
    players = [told[start + at].removeprefix("over ") for at in range(1, 4)]
    row = next(at for at in range(start + 4, len(told)) if told[at] == "two")
    assert told[row + 1 + players.index("one")].startswith(rate)
    assert told[row + 1 + players.index("two")] == DASH
    # Three of people's four pairs.
    assert "The judge agrees with people in judge.jsonl 75.0 %" in read(html).text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_and_texts_stay_text(payload: str) -> None:
    harmless = re.sub(r"\S", "x", payload)
    hostile, tidy = (
        read(page("Win rates", winrate_sections(measured(three((name, "two"), name))))) for name in (payload, harmless)
    )
    # No element more than a harmless page has.
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tidy.tags]
    for text in (f"{visible(payload)} against base: raw", f"over {visible(payload)}", f"judge ({visible(payload)})"):
        assert text in hostile.text
