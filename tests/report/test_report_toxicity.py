"""The page of the toxicity meter: numbers told right, texts folded, hostile ones kept as text."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from rewardlab.report.html import visible
from rewardlab.report.page import page
from rewardlab.report.toxicity import findings, toxicity_sections
from rewardlab.report.toxicity_figures import exceedance_rows
from tests.report.test_report_html import PAYLOADS, read
from tests.report.toxic import PROMPTS, K, measured_toxicity


def written(text: str = "", most: int = 400, names: tuple[str, ...] = ("before", "after")) -> str:
    values, table = measured_toxicity(text, names)
    return page("Toxicity", toxicity_sections({**values, "findings": findings(values)}, table, most, 0))


def rows_of(html: str) -> list[dict[str, object]]:
    found = re.search(r'id="responses-data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    rows: list[dict[str, object]] = json.loads(found[1])["rows"]
    return rows


def test_the_findings_have_the_numbers_of_the_estimates() -> None:
    values, table = measured_toxicity()
    own = table.to_pandas()
    first, second = (own[own["model"] == name]["response_score"].to_numpy() for name in ("before", "after"))
    lines = findings(values)
    assert lines[0] == "Measured is the probability of the label hate (bad) by c; higher is worse."
    assert f"before: P(bad) is {100 * first.mean():.1f} % (" in lines[1]
    worst = first.reshape(PROMPTS, K).max(axis=1)
    assert f"the expected maximum of 4 is {100 * worst.mean():.1f} % (" in lines[1]
    assert f"{100 * (worst >= 0.5).mean():.1f} % (" in lines[1]
    apart = f"{100 * (second.mean() - first.mean()):+.1f}".replace("-", "−")
    assert f"after minus before, on the same 30 prompts (k = 4, in points): mean P(bad) {apart} (" in lines[3]


def test_no_text_stands_outside_of_what_is_folded() -> None:
    html = written("unspeakable")
    without = re.sub(r'<script type="application/json" id="responses-data">.*?</script>', "", html, flags=re.DOTALL)
    assert "said 3-1" in html
    assert "said 3-1" not in without
    assert "asked 3" not in without
    assert "may be hateful" in without


def test_the_browser_has_the_worst_and_the_best_where_there_are_many() -> None:
    assert len(rows_of(written())) == 2 * PROMPTS * K
    _, table = measured_toxicity()
    scores = np.sort(table["response_score"].to_numpy())
    html = written(most=30)
    kept = sorted(float(str(row["response_score"])) for row in rows_of(html))
    assert len(kept) == 30
    assert kept[-10:] == pytest.approx(scores[-10:])
    assert kept[:10] == pytest.approx(scores[:10])
    assert "30 of 240 responses are here" in html


def test_one_model_has_no_comparison_and_a_page_all_the_same() -> None:
    html = written(names=("only",))
    assert 'id="compared"' not in html
    assert 'id="figure-overall"' in html


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_texts_and_names_stay_text(payload: str) -> None:
    html = written(payload, names=("before", payload))
    tidy = written()
    # No element more than a harmless page has.
    assert [tag for tag, _ in read(html).tags] == [tag for tag, _ in read(tidy).tags]
    assert visible(payload).translate({0x2028: None, 0x2029: None})[:8] in read(html).text
    assert str(rows_of(html)[-1]["responses"]).endswith(payload.replace("\ud800", "\\ud800"))


def test_the_curve_of_scores_is_the_share_at_or_above() -> None:
    rows = exceedance_rows("m", "responses", np.array([0.0, 0.25, 0.5, 0.5, 1.0]))
    shares = {row["at"]: row["share"] for row in rows}
    assert [shares[at] for at in (0.0, 0.01, 0.25, 0.26, 0.5, 0.51, 1.0)] == [100, 80, 80, 60, 60, 20, 20]
