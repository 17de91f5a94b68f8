"""The page in a real browser: Debian's Chromium, driven by Playwright.

Nothing hostile runs, nothing is fetched, the policy is never violated; figures, tooltips and the browser of
examples work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.report.blocks import Section, table
from rewardlab.report.page import Report, write_report
from rewardlab.report.page import page as whole_page
from rewardlab.store.runs import Run
from tests.report import finished
from tests.report.test_report_html import PAYLOADS
from tests.report.test_report_page import Folder

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason="needs Debian's chromium: apt-get install chromium"),
]

HOSTILE = " ".join(
    [
        *(payload.replace("\0", "").replace("\ud800", "") for payload in PAYLOADS),
        "<svg onload=window.pwned=1>",
        "<a href=javascript:window.pwned=1>x</a>",
        "<style>@import url(https://evil.example/x.css); body{background:url(https://evil.example/y)}</style>",
        "<meta http-equiv=refresh content='0;url=https://evil.example'><base href=https://evil.example>",
        "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe><details open ontoggle=window.pwned=1>",
        "expression(window.pwned=1) datum['x'] event.target \\\\u003cscript>window.pwned=1</script>",
    ]
)


@dataclass
class Watch:
    """What a page did that it should not have done."""

    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def written(folder: Path, hostile: str = "") -> Path:
    stages = finished.write_all(folder / "stages", pairs=120, hostile=hostile)
    folders = {name: tuple(paths) for name, paths in stages.items()}
    return write_report(Report(**folders, title=f"A report {hostile}"), cast(Run, Folder(folder))).page


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def opened(chromium: playwright.Browser, path: Path, **options: object) -> tuple[playwright.Page, Watch]:
    page, watch = chromium.new_page(**options), Watch()
    page.on("console", lambda message: watch.console.append(message.text))
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("dialog", lambda dialog: (watch.dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: watch.requests.append(request.url))
    page.add_init_script(
        "window.violations = []; document.addEventListener('securitypolicyviolation',"
        "(event) => window.violations.push(event.violatedDirective))"
    )
    page.goto(path.as_uri())
    page.wait_for_function("[...document.querySelectorAll('.drawing')].every((one) => one.dataset.state)")
    return page, watch


@pytest.fixture(scope="module")
def tidy(chromium: playwright.Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[playwright.Page, Watch]:
    return opened(chromium, written(tmp_path_factory.mktemp("tidy")))


@pytest.fixture(scope="module")
def hostile(chromium: playwright.Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[playwright.Page, Watch]:
    return opened(chromium, written(tmp_path_factory.mktemp("hostile"), HOSTILE))


def only_itself(page: playwright.Page, watch: Watch) -> None:
    assert watch == Watch(requests=[page.url])
    assert page.evaluate("window.violations") == []
    assert page.evaluate("window.pwned") is None


def test_the_watch_notices(chromium: playwright.Browser, tmp_path: Path, tidy: tuple[playwright.Page, Watch]) -> None:
    """The same page with a script of somebody else's and no policy sets the flag; with the policy it does not."""
    body, end, rest = Path(tidy[0].url.removeprefix("file://")).read_text(encoding="utf-8").rpartition("</body>")
    markup = f"{body}<script>window.pwned=1</script>{end}{rest}"
    stopped, unprotected = tmp_path / "stopped.html", tmp_path / "unprotected.html"
    stopped.write_text(markup, encoding="utf-8")
    page, watch = opened(chromium, stopped)
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("window.violations") == ["script-src-elem"]
    assert len(watch.console) == 1
    unprotected.write_text(re.sub(r"<meta http-equiv[^>]+>", "", markup), encoding="utf-8")
    page, _ = opened(chromium, unprotected)
    assert page.evaluate("window.pwned") == 1


def test_figures_are_drawn_without_eval_and_without_a_network(tidy: tuple[playwright.Page, Watch]) -> None:
    page, watch = tidy
    assert page.locator(".drawing").count() >= 12
    assert page.locator(".drawing[data-state=drawn] svg.marks").count() == page.locator(".drawing").count()
    only_itself(page, watch)


def test_nothing_hostile_runs(hostile: tuple[playwright.Page, Watch]) -> None:
    page, watch = hostile
    assert page.locator(".drawing[data-state=drawn] svg.marks").count() == page.locator(".drawing").count()
    for details in page.locator("details > summary").all():
        if details.is_visible():
            details.click()
    for select in page.locator(".browser select").all():
        select.select_option(index=1)
        select.select_option(index=0)
    page.locator(".browser input").fill("<script>")
    page.locator("#figure-length-scatter .mark-symbol path").first.hover()
    page.wait_for_timeout(300)
    assert "<script>" in page.locator(".browser .example .text").first.inner_text()
    assert "<script>" in page.locator(".tip").inner_text()
    for foreign in ("script:not([type='application/json'])", "style", "iframe", "meta", "base", "a", "img"):
        assert page.locator(f"main {foreign}").count() == 0
    only_itself(page, watch)


def test_tooltips_appear_on_hover_and_go_away(tidy: tuple[playwright.Page, Watch]) -> None:
    page, _ = tidy
    assert page.locator(".tip").is_hidden()
    page.locator("#figure-accuracy .mark-symbol path").first.hover()
    assert page.locator(".tip").is_visible()
    assert "How to read it" in page.locator(".tip").inner_text()
    page.locator("h1").hover()
    assert page.locator(".tip").is_hidden()


def rows_shown(page: playwright.Page) -> list[tuple[float, int]]:
    """Difference of scores and of tokens of every row on the current page."""
    found = []
    for text in page.locator(".example .margin").all_inner_texts():
        margin, tokens = re.findall(r"[+−]?[\d.]+", text)
        found.append((float(margin.replace("−", "-")), int(tokens.replace("−", "-"))))
    return found


def test_examples_can_be_sorted_filtered_searched_and_paged(tidy: tuple[playwright.Page, Watch]) -> None:
    page, _ = tidy
    page.reload()
    search = page.locator(".controls input")
    show, length, order = page.locator(".controls select").all()
    count = page.locator(".browser .count")
    margins = [margin for margin, _ in rows_shown(page)]
    assert margins == sorted(margins)
    assert count.inner_text() == "1–10 of 120 matching pairs (120 on this page)"

    order.select_option("longest chosen first")
    lengths = [tokens for _, tokens in rows_shown(page)]
    assert lengths == sorted(lengths, reverse=True)

    show.select_option("ranked wrong")
    length.select_option("shorter chosen")
    assert all(margin < 0 and tokens < 0 for margin, tokens in rows_shown(page))
    show.select_option("all pairs")
    length.select_option("any length")

    order.select_option("order of the file")
    first = page.locator(".example .excerpt").all_inner_texts()
    assert page.get_by_role("button", name="Previous").is_disabled()
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    assert count.inner_text().startswith("11–20 of 120")
    assert page.locator(".example .excerpt").first.inner_text() not in first
    page.get_by_role("button", name="Previous").click()
    assert page.locator(".example .excerpt").all_inner_texts() == first

    search.fill("(17)")
    assert count.inner_text() == "1–1 of 1 matching pairs (120 on this page)"
    search.fill("no such words")
    assert count.inner_text() == "None of the 120 pairs matches."
    assert page.get_by_role("button", name="Next").is_disabled()
    search.fill("")


def test_labels_against_the_known_truth_are_marked_and_filtered(
    chromium: playwright.Browser, tmp_path: Path, tidy: tuple[playwright.Page, Watch]
) -> None:
    folder = finished.write_evaluation(tmp_path / "evaluate", np.random.default_rng(0), 12)
    table = pq.read_table(folder / "pairs.parquet")
    gold = pa.array([1.0, -1.0, 0.0, None] * 3)
    pq.write_table(table.append_column("gold_margin", gold), folder / "pairs.parquet")
    written = write_report(Report(evaluate=(folder,)), cast(Run, Folder(tmp_path / "report")))
    page, watch = opened(chromium, written.page)
    show = page.locator(".controls select").first
    show.select_option("against gold")
    assert page.locator(".browser .count").inner_text() == "1–3 of 3 matching pairs (12 on this page)"
    assert page.locator(".excerpt .badge").all_inner_texts() == ["label against gold"] * 3
    assert "gold of chosen minus rejected −1.00" in page.locator(".example").first.inner_text()
    show.select_option("all pairs")
    assert page.locator(".excerpt .badge").count() <= 3
    only_itself(page, watch)
    without, _ = tidy
    assert "against gold" not in without.locator(".controls select").first.inner_text()


def test_differences_are_marked_side_by_side(tidy: tuple[playwright.Page, Watch]) -> None:
    """What is marked and what is not spell the two answers; what is not marked is the same on both sides."""
    page, _ = tidy
    data = json.loads(page.locator("#examples-data").text_content() or "")
    page.reload()
    page.locator(".controls select").last.select_option("order of the file")
    marked = 0
    for index, example in enumerate(page.locator(".example").all()):
        if index:
            example.locator("summary").focus()
            page.keyboard.press("Enter")
        chosen, rejected = (example.locator(".side .text").nth(side) for side in (0, 1))
        example.locator(".sides").wait_for()
        row = data["rows"][index]
        assert chosen.text_content() == row["chosen"]["text"]
        assert rejected.text_content() == row["rejected"]["text"]
        unmarked = "side => [...side.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join(' ')"
        marks = chosen.locator("ins").count() + rejected.locator("del").count()
        if marks:
            assert str(chosen.evaluate(unmarked)).split() == str(rejected.evaluate(unmarked)).split()
        else:
            assert chosen.text_content() == rejected.text_content() or "little in common" in example.inner_text()
        marked += marks > 0
    assert marked >= 3


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen(
    chromium: playwright.Browser, tidy: tuple[playwright.Page, Watch], width: int, scheme: str
) -> None:
    path = Path(tidy[0].url.removeprefix("file://"))
    page, watch = opened(chromium, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = "all => Math.max(...all.map((one) => one.getBoundingClientRect().right))"
    assert page.locator(".drawing svg.marks").evaluate_all(right) <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    only_itself(page, watch)


def test_without_javascript_the_words_and_tables_are_there(
    chromium: playwright.Browser, tidy: tuple[playwright.Page, Watch]
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(tidy[0].url)
    page.locator("#figure-accuracy details summary").click()
    assert page.locator("#figure-accuracy table").is_visible()
    assert "needs JavaScript" in page.locator(".browser").inner_text()
    context.close()


def test_names_in_a_wide_table_are_not_broken_inside_a_word(chromium: playwright.Browser, tmp_path: Path) -> None:
    """Eight columns, as of an ablation: each name of an arm stands on one line."""
    header = ("Measure", "Arm", "Value", "Minus standard", "p", "Seeds", "n", "Clusters")
    values = ("64.7 (56.9 to 72.4)", "\N{MINUS SIGN}2.7 (\N{MINUS SIGN}10.4 to 5.0)", "< 0.0001", "1", "150", "150")
    rows = [("correlation of length and reward within a prompt", arm, *values) for arm in ("standard", "balanced")]
    results = Section("results", "Results", "", [table("Arms", header, rows, numeric=(4, 5, 6, 7))])
    path = tmp_path / "wide.html"
    path.write_text(whole_page("Arms", [results]), encoding="utf-8")
    shown, watch = opened(chromium, path)
    lines = "(one) => one.getClientRects().length"
    names = shown.locator("td[data-label=Arm] span").all()
    assert [name.evaluate(lines) for name in names] == [1, 1]
    assert shown.locator(".table").evaluate("(one) => one.scrollWidth <= one.clientWidth")
    only_itself(shown, watch)
