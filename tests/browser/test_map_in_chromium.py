"""The map of training data in a real browser: dots show their texts, the pairs can be sorted, nothing hostile runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from rewardlab.report.page import Report, write_report
from rewardlab.store.runs import Run
from tests.report.mapped import write_map
from tests.report.test_report_page import Folder

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
from tests.browser.test_report_in_chromium import (  # noqa: E402  (it needs playwright too)
    ARGUMENTS,
    CHROMIUM,
    HOSTILE,
    only_itself,
    opened,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason="needs Debian's chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    folder = tmp_path_factory.mktemp("map")
    report = Report(cartography=(write_map(folder, pairs=80, hostile=HOSTILE),))
    path = write_report(report, cast(Run, Folder(folder / "out"))).page
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield opened(browser, path)
        browser.close()


def test_a_dot_shows_its_pair(page: tuple[Any, Any]) -> None:
    shown, watch = page
    assert shown.locator(".drawing[data-state=drawn]").count() == shown.locator(".drawing").count() == 3
    shown.locator("#figure-map-margin .mark-symbol path").nth(5).hover(force=True)
    words = shown.locator(".tip").inner_text()
    for part in ("Prompt", "chosen answer", "rejected answer", "Epochs ranked right", "<script>"):
        assert part in words
    shown.locator("h1").hover()
    assert shown.locator(".tip").is_hidden()
    only_itself(shown, watch)


def test_pairs_are_sorted_and_filtered(page: tuple[Any, Any]) -> None:
    shown, watch = page
    rows = json.loads(shown.locator("#map-pairs-data").text_content() or "")["rows"]
    region, length, order = shown.locator(".controls select").all()
    confidence = shown.locator(".example .margin").all_inner_texts()
    assert [float(text.split()[1].replace("−", "-")) for text in confidence] == pytest.approx(
        sorted(row["confidence"] for row in rows)[:10], rel=0.01
    )
    region.select_option("never right")
    count = sum(row["never"] for row in rows)
    assert shown.locator(".browser .count").inner_text().endswith(f"of {count} matching pairs (80 on this page)")
    assert set(shown.locator(".example .badge").all_inner_texts()) == {"never right"}
    region.select_option("all pairs")
    length.select_option("longer chosen")
    count = sum((row["chosen"]["length"] or 0) > (row["rejected"]["length"] or 0) for row in rows)
    assert f"of {count} matching" in shown.locator(".browser .count").inner_text()
    length.select_option("any length")
    order.select_option("most often forgotten first")
    most = max(row["forgetting"] for row in rows)
    times = "once" if most == 1 else f"{most:g} times"
    assert f"forgotten {times} in 4 epochs" in shown.locator(".example").first.inner_text()
    only_itself(shown, watch)
