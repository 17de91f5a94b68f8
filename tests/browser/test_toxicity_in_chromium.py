"""The page of the toxicity meter in a real browser: nothing is read unasked, and nothing hostile runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.report.page import page as whole_page
from rewardlab.report.toxicity import findings, toxicity_sections
from tests.browser.test_report_in_chromium import HOSTILE, chromium, only_itself, opened, playwright, pytestmark
from tests.report.toxic import measured_toxicity

__all__ = ["chromium", "pytestmark"]


def written(folder: Path, text: str = "") -> Path:
    values, table = measured_toxicity(text)
    sections = toxicity_sections({**values, "findings": findings(values)}, table, 400, 0)
    path = folder / "report.html"
    path.write_text(whole_page("Toxicity", sections), encoding="utf-8")
    return path


def test_texts_are_folded_until_they_are_clicked(chromium: playwright.Browser, tmp_path: Path) -> None:
    page, watch = opened(chromium, written(tmp_path))
    assert page.locator(".drawing[data-state=drawn] svg.marks").count() == page.locator(".drawing").count()
    assert page.locator(".example").count() > 0
    assert page.locator(".example[open]").count() == 0
    assert "said" not in page.locator("#responses").inner_text()
    page.locator(".example summary").first.click()
    assert "said" in page.locator(".example[open] .text").nth(1).inner_text()
    # The worst come first; of one model alone, only its own.
    badges = page.locator(".example .badge").all_inner_texts()
    assert badges == sorted(badges, reverse=True)
    page.locator(".controls select").first.select_option("2. after")
    assert all(text.startswith("after") for text in page.locator(".example .excerpt").all_inner_texts())
    only_itself(page, watch)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_hostile_runs_and_the_page_fits(chromium: playwright.Browser, tmp_path: Path, width: int) -> None:
    page, watch = opened(chromium, written(tmp_path, HOSTILE), viewport={"width": width, "height": 800})
    page.locator(".example summary").first.click()
    page.locator(".browser input").fill("<script>")
    page.locator(".example summary").first.click()
    assert "<script>" in page.locator(".example[open] .text").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    only_itself(page, watch)
