"""The page of policies in a real browser: answers side by side, sorted and filtered, long ones folded, nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.report.page import page as whole_page
from rewardlab.report.policies import findings, policy_sections
from tests.browser.test_report_in_chromium import HOSTILE, chromium, only_itself, opened, playwright, pytestmark
from tests.report.compared import compared, whole

__all__ = ["chromium", "pytestmark"]


def written(folder: Path, text: str = "", answers: int = 2) -> Path:
    found = compared(text, answers=answers)
    values = whole(found, kl=True)
    path = folder / "report.html"
    path.write_text(
        whole_page("Policies", policy_sections({**values, "findings": findings(values)}, found, 300, 0)),
        encoding="utf-8",
    )
    return path


def test_answers_stand_side_by_side_and_long_ones_unfold(chromium: playwright.Browser, tmp_path: Path) -> None:
    page, watch = opened(chromium, written(tmp_path, "long " * 200))
    assert page.locator(".drawing[data-state=drawn] svg.marks").count() == page.locator(".drawing").count()
    told = page.locator(".example .margin").all_inner_texts()
    assert told == sorted(told, reverse=True)
    first = page.locator(".example[open]").first
    assert first.locator(".side").count() == 3
    text = first.locator(".side .text").first
    short = text.bounding_box()
    first.locator("button.more").first.click()
    long = text.bounding_box()
    assert short is not None
    assert long is not None
    assert long["height"] > short["height"]
    page.locator(".controls select").first.select_option("2. ppo")
    assert all("ppo" in badge for badge in page.locator(".example .badge").all_inner_texts())
    only_itself(page, watch)


def test_many_answers_of_a_policy_do_not_push_the_others_away(chromium: playwright.Browser, tmp_path: Path) -> None:
    page, _ = opened(chromium, written(tmp_path, answers=7))
    side = page.locator(".example[open] .side").first
    notes = side.locator("p.note:visible")
    assert notes.count() == 4
    side.locator("summary", has_text="3 more").click()
    assert [note.split(" · ")[0] for note in notes.all_inner_texts()] == [f"{number} of 7" for number in range(1, 8)]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_hostile_runs_and_the_page_fits(chromium: playwright.Browser, tmp_path: Path, width: int) -> None:
    page, watch = opened(chromium, written(tmp_path, HOSTILE), viewport={"width": width, "height": 800})
    page.locator(".browser input").fill("<script>")
    assert "<script>" in page.locator(".example[open] .text").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    only_itself(page, watch)
