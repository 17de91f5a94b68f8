"""The page of an audit in a real browser: triples are sorted, filtered, searched and read; hostile text stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest

from rewardlab.report.page import AuditReport, write_audit_report
from rewardlab.store.runs import Run
from tests.browser.test_report_in_chromium import HOSTILE, Watch, chromium, only_itself, opened, playwright, pytestmark
from tests.report.audited import REWARDS, write_audit
from tests.report.test_report_page import Folder

MODELS = list(REWARDS)

__all__ = ["chromium", "pytestmark"]


def written(folder: Path, n: int, **options: object) -> Path:
    audit = write_audit(folder / "audit", n, **options)  # type: ignore[arg-type]
    return write_audit_report(AuditReport(effects=(audit,)), cast(Run, Folder(folder / "report"))).page


@pytest.fixture(scope="module")
def tidy(chromium: playwright.Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[playwright.Page, Watch]:
    return opened(chromium, written(tmp_path_factory.mktemp("tidy"), 60))


def effects_shown(page: playwright.Page) -> list[float]:
    found = [re.search(r"effect ([+−]?[\d.]+)", text) for text in page.locator(".example .margin").all_inner_texts()]
    return [float(one[1].replace("−", "-")) for one in found if one is not None]


def data_of(page: playwright.Page) -> dict[str, list[dict[str, object]]]:
    return cast(
        "dict[str, list[dict[str, object]]]", json.loads(page.locator("#triples-audit-data").text_content() or "")
    )


def test_figures_are_drawn_and_nothing_is_fetched(tidy: tuple[playwright.Page, Watch]) -> None:
    page, watch = tidy
    assert page.locator(".drawing").count() == 15
    assert page.locator(".drawing[data-state=drawn] svg.marks").count() == 15
    only_itself(page, watch)


def test_triples_are_sorted_by_the_effect_on_the_chosen_model(tidy: tuple[playwright.Page, Watch]) -> None:
    page, watch = tidy
    page.reload()
    search = page.locator(".controls input")
    originals, rewrites, order, model = page.locator(".controls select").all()
    count = page.locator(".browser .count")
    rows = data_of(page)["rows"]

    def expected(place: int, reverse: bool) -> list[float]:
        values = [row["effects"][place][1] for row in rows]  # type: ignore[index]
        return [float(f"{value:.3g}") for value in sorted((v for v in values if v is not None), reverse=reverse)[:10]]

    assert count.inner_text() == "1–10 of 60 matching responses (60 on this page)"
    assert effects_shown(page) == pytest.approx(expected(0, True))
    order.select_option("most negative first")
    assert effects_shown(page) == pytest.approx(expected(0, False))
    model.select_option(index=2)
    assert effects_shown(page) == pytest.approx(expected(2, False))
    order.select_option("closest to 0 first")
    sizes = [abs(value) for value in effects_shown(page)]
    assert sizes == sorted(sizes)
    model.select_option(index=0)
    order.select_option("largest effect first")

    originals.select_option("with the attribute (W = 1)")
    assert set(page.locator(".example summary > .badge").all_inner_texts()) == {"W = 1"}
    treated = sum(bool(row["treated"]) for row in rows)
    assert f"of {treated} matching" in count.inner_text()
    originals.select_option("all")

    flawed = [row for row in rows if set(row["outcomes"]) != {"ok"}]  # type: ignore[call-overload]
    assert flawed
    kind = next(one for one in flawed[0]["outcomes"] if one != "ok")  # type: ignore[attr-defined]
    rewrites.select_option(kind)
    holding = sum(kind in row["outcomes"] for row in rows)  # type: ignore[operator]
    assert f"of {holding} matching" in count.inner_text()
    assert page.locator(".excerpt .badge").count() == min(holding, 10)
    rewrites.select_option("all ok")
    assert page.locator(".excerpt .badge").count() == 0
    rewrites.select_option("any outcome")

    search.fill("no such words")
    assert count.inner_text() == "None of the 60 responses matches."
    search.fill("")
    page.get_by_role("button", name="Next").click()
    assert count.inner_text().startswith("11–20 of 60")
    # The page was loaded more than once by now.
    only_itself(page, Watch(watch.console, watch.errors, watch.dialogs, watch.requests[-1:]))


def test_texts_stand_side_by_side_with_what_changed(tidy: tuple[playwright.Page, Watch]) -> None:
    """Unmarked words of the original and of its rewrite are the same; so are those of rewrites against the original."""
    page, _ = tidy
    page.reload()
    page.locator(".controls select").nth(2).select_option("order of the file")
    rows = data_of(page)["rows"]
    unmarked = "side => [...side.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join(' ')"
    marks = 0
    for index, example in enumerate(page.locator(".example").all()):
        if index:
            example.locator("summary").click()
        example.locator(".sides").wait_for()
        texts = cast("list[str | None]", rows[index]["texts"])
        boxes = example.locator(".side").all()
        assert len(boxes) == len(texts)
        original, rewrite = boxes[0].locator(".text"), boxes[1]
        assert original.text_content() == texts[0]
        for box, text in zip(boxes[1:], texts[1:], strict=True):
            if text is None:
                assert "No text that can be used." in box.inner_text()
            else:
                assert box.locator(".text").text_content() == text
        if texts[1] is not None and rewrite.locator("ins").count() + original.locator("del").count():
            left, right = original.evaluate(unmarked), rewrite.locator(".text").evaluate(unmarked)
            assert str(left).split() == str(right).split()
            marks += 1
        assert example.locator("tbody tr").count() == len(MODELS)
        assert MODELS[0] in example.locator("tbody tr").first.inner_text()
    assert marks >= 3


def test_nothing_hostile_runs(chromium: playwright.Browser, tmp_path: Path) -> None:
    huge = f"{HOSTILE} \u202eabc\u2066 {'very ' * 2000}"
    page, watch = opened(chromium, written(tmp_path, 14, hostile=huge, models=MODELS[:2], judge=False))
    assert page.locator(".drawing[data-state=drawn] svg.marks").count() == page.locator(".drawing").count()
    for details in page.locator("details > summary").all():
        if details.is_visible():
            details.click()
    for select in page.locator(".browser select").all():
        for index in (1, 0):
            select.select_option(index=index)
    page.locator(".browser input").fill("<script>")
    page.locator("#figure-estimators-audit .mark-symbol path").first.hover()
    page.wait_for_timeout(300)
    assert "<script>" in page.locator(".browser .example .text").first.inner_text()
    assert "more characters in triples.parquet]" in page.locator(".browser .example .side").first.inner_text()
    for foreign in ("script:not([type='application/json'])", "style", "iframe", "meta", "base", "a", "img"):
        assert page.locator(f"main {foreign}").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    only_itself(page, watch)


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screen(
    chromium: playwright.Browser, tidy: tuple[playwright.Page, Watch], width: int
) -> None:
    path = Path(tidy[0].url.removeprefix("file://"))
    page, watch = opened(chromium, path, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = "all => Math.max(...all.map((one) => one.getBoundingClientRect().right))"
    assert page.locator(".drawing svg.marks").evaluate_all(right) <= width
    only_itself(page, watch)
