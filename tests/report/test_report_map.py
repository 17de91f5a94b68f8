"""The section on a map of training data: what is drawn is what the table holds, and texts stay texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import vl_convert

from rewardlab.errors import ConfigError, DataError
from rewardlab.report import cartography as section
from rewardlab.report.cartography import cartography_sections, forgotten_words
from rewardlab.report.examples import Limits
from rewardlab.report.figures import write_images
from rewardlab.report.inputs import read_inputs
from rewardlab.report.page import Report, page, page_sections, write_report
from rewardlab.store.runs import Run
from tests.report.mapped import made_up_margins, write_map
from tests.report.test_report_figures import expressions
from tests.report.test_report_page import Folder

HOSTILE = "</script><script>alert(1)</script> ${datum.x} '; DROP"


def sections(folder: Path, limits: Limits | None = None) -> Any:
    (stage,) = read_inputs(cartography=[folder]).cartography
    return cartography_sections(stage, suffix="", several=False, limits=limits or Limits(100), seed=0)


def island(markup: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', markup, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def test_every_pair_is_a_dot_where_it_lies(tmp_path: Path) -> None:
    folder = write_map(tmp_path)
    margins, classic, length = sections(folder)[0].figures
    values = margins.spec["data"]["values"]
    expected = made_up_margins(60, 4)[:, 1:].astype(float)
    assert [row["confidence"] for row in values] == pytest.approx(expected.mean(axis=1), abs=1e-4)
    assert [row["variability"] for row in values] == pytest.approx(expected.std(axis=1, ddof=1), abs=1e-4)
    assert len(classic.spec["data"]["values"]) == 60
    assert all(0 <= row["confidence"] <= 1 for row in classic.spec["data"]["values"])
    assert values[7]["chosen"].startswith("chosen answer 7")
    assert values[-1]["chosen"] == "(not in the data given)"
    assert "every pair" in margins.reading
    bins = pq.read_table(folder / "cartography.parquet").num_rows // 10
    assert {row["n"] for row in length.spec["data"]["values"]} == {bins}
    assert all(0 <= row["longer_is_chosen"] <= 100 for row in length.spec["data"]["values"])
    write_images(tmp_path / "figures", {one.name: one.spec for one in (margins, classic, length)})


def test_beyond_the_limit_a_stated_sample_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "MOST_MAP_POINTS", 25)
    figure = sections(write_map(tmp_path))[0].figures[0]
    assert len(figure.spec["data"]["values"]) == 25
    assert "25 of 60 pairs, drawn at random" in figure.reading


def test_two_epochs_have_the_classic_map_alone(tmp_path: Path) -> None:
    found = sections(write_map(tmp_path, epochs=2))[0]
    assert [figure.name for figure in found.figures] == ["map-classic", "map-length"]
    words = " ".join(block for block in found.blocks if isinstance(block, str))
    assert "No map in reward units: no pair was trained on in two epochs after the first" in words


def test_the_browser_has_all_pairs_or_says_which(tmp_path: Path) -> None:
    folder = write_map(tmp_path)
    browser = sections(folder)[1]
    rows = island("".join(browser.blocks), "map-pairs-data")["rows"]
    assert len(rows) == 60
    assert {region for row in rows for region in row["regions"]} == {"easy", "ambiguous", "hard"}
    never = [row["confidence"] for row in rows if row["never"]]
    assert len(never) >= 6
    few = sections(folder, Limits(12))[1]
    assert "12 of 60 pairs are here" in few.lead
    kept = [row["confidence"] for row in island("".join(few.blocks), "map-pairs-data")["rows"]]
    assert len(kept) == 12
    assert min(kept) == min(row["confidence"] for row in rows)
    assert max(kept) == max(row["confidence"] for row in rows)


@pytest.mark.parametrize(
    ("times", "epochs", "trainings", "words"),
    [
        (1.0, 4, 1, "forgotten once in 4 epochs"),
        (2.0, 4, 1, "forgotten 2 times in 4 epochs"),
        # Once in one of two trainings of 4 epochs: the table has the mean.
        (0.5, 8, 2, "forgotten 0.5 times per training (2 trainings, 8 epochs in all)"),
        (None, 1, 1, "forgotten \N{EM DASH} times"),
    ],
)
def test_how_often_a_pair_was_forgotten_is_said_per_training(
    times: float | None, epochs: int, trainings: int, words: str
) -> None:
    assert forgotten_words(times, epochs, trainings) == words


def test_the_browser_counts_forgetting_of_two_trainings_per_training(tmp_path: Path) -> None:
    """Right, wrong, right, right in the first training, always right in the second: once in two trainings."""
    folder = write_map(tmp_path, margins=[[1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    map_section, browser = sections(folder)
    rows = island("".join(browser.blocks), "map-pairs-data")["rows"]
    assert {row["forgotten"] for row in rows} == {
        "forgotten 0.5 times per training (2 trainings, 8 epochs in all)",
    }
    titles = [field["title"] for field in map_section.figures[0].spec["layer"][-1]["encoding"]["tooltip"]]
    assert titles[-1] == "Times forgotten per training"


def test_hostile_texts_are_data(tmp_path: Path) -> None:
    folder = write_map(tmp_path, hostile=HOSTILE)
    markup = page("A page", page_sections(read_inputs(cartography=[folder]), max_examples=100, seed=0))
    assert "alert(1)" in markup
    assert "<script>alert" not in markup
    spec = island(markup, "spec-map-margin")
    assert HOSTILE[:20] in spec["data"]["values"][0]["chosen"]
    # No text of the data stands where Vega reads code.
    compiled = vl_convert.vegalite_to_vega(json.dumps(spec))
    found = list(expressions({key: value for key, value in compiled.items() if key != "data"}))
    found += list(expressions([{**source, "values": None} for source in compiled["data"]]))
    assert found
    assert not any("alert" in text or "datum.x}" in text for text in found)


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    folder = write_map(tmp_path)
    written = write_report(Report(cartography=(folder,)), cast(Run, Folder(tmp_path / "out")))
    assert written.findings[0].startswith("60 pairs over up to 4 epochs")
    markup = written.page.read_text(encoding="utf-8")
    for words in ("Map of the training data", "right in every epoch", "Longer answer is chosen, hard pairs"):
        assert words in markup
    assert (tmp_path / "out" / "figures" / "map-margin.svg").is_file()


def test_a_folder_of_another_stage_is_refused(tmp_path: Path) -> None:
    folder = write_map(tmp_path)
    (folder / "cartography.parquet").unlink()
    with pytest.raises(DataError, match=r"cartography\.parquet"):
        read_inputs(cartography=[folder])
    with pytest.raises(ConfigError, match="--cartography"):
        write_report(Report(), cast(Run, Folder(tmp_path / "out")))
