"""Benchmarks and the battery on the page: what was computed is what is drawn, and texts stay texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from rewardlab.data.perturb import PERTURBATIONS, perturbed
from rewardlab.errors import DataError
from rewardlab.evaluate.bench import BenchEvaluation, evaluate_bench
from rewardlab.evaluate.perturb import PerturbEvaluation, evaluate_perturb
from rewardlab.records import Candidates, Estimate, Pair, Record
from rewardlab.report.inputs import Inputs, read_inputs
from rewardlab.report.page import Report, page, page_sections, write_report
from rewardlab.report.robustness import bench_section
from rewardlab.report.words import estimate_words, name_of
from rewardlab.store.runs import Run
from tests.evaluate.scored_data import Workshop, conversation, score_rows
from tests.report import finished
from tests.report.test_report_html import Reader, read

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Folder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = logging.getLogger("tests.report")

    def path(self, name: str | Path = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def records() -> list[Record]:
    pairs = [
        Pair(
            conversation(f"{subset} {n}"),
            f"It is {'so ' * (n % 4)}good. {HOSTILE}",
            "Bad. No!",
            meta={"subset": subset},
        )
        for subset in ("llmbar-natural", "hep-go", HOSTILE)
        for n in range(6)
    ]
    styled = [
        Candidates(
            conversation(f"styled {n}"),
            (f"Right {n}.", f"Right and long {n}.", f"Wrong {n}.", f"Wrong and rather long {n}."),
            (1.0, 1.0, 0.0, 0.0),
            meta={"styles": ["plain", HOSTILE] * 2, "subset": "chat"},
        )
        for n in range(8)
    ]
    ties = [
        Candidates(conversation(f"{kind} {n}"), texts, rewards, meta={"subset": "Ties", "id": f"{kind}:{n}"})
        for n in range(4)
        for kind, texts, rewards in (
            ("tied", ("A b c d.", "A b c.", "A."), (1.0, 1.0, 0.0)),
            ("ref", ("A b c d e.", "A b."), (1.0, 0.0)),
        )
    ]
    best = [
        Candidates(conversation(f"best {n}"), ("A b c.", "A.", "B.", "C d."), (1.0, 0, 0, 0), meta={"subset": "Math"})
        for n in range(5)
    ]
    return [*pairs, *styled, *ties, *best]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("robust")
    workshop, rows = Workshop(root), records()
    data, scores = (
        workshop.records("data.jsonl", rows),
        workshop.scores("scores", rows, lambda _, text: len(text.split())),
    )
    for name in PERTURBATIONS:
        changed = score_rows(rows, lambda _, text, name=name: len(perturbed(name, text, 0).split()))
        workshop.table("scores", changed, f"scores.{name}.parquet")
    found = {"bench": root / "bench", "perturb": root / "perturb"}
    bench = BenchEvaluation(data=(data,), scores=(scores,))
    evaluate_bench(bench, Folder(found["bench"]))
    evaluate_perturb(PerturbEvaluation(data=(data,), scores=(scores,), scoring_seed=0), Folder(found["perturb"]))
    for name, folder in found.items():
        finished.write_record(folder, f"evaluate {name}")
    return found


@pytest.fixture(scope="module")
def inputs(folders: dict[str, Path]) -> Inputs:
    return read_inputs(bench=[folders["bench"]], perturb=[folders["perturb"]])


@pytest.fixture(scope="module")
def reader(inputs: Inputs) -> Reader:
    return read(page("Title", page_sections(inputs, max_examples=10, seed=0)))


def values(inputs: Inputs, figure: str) -> list[dict[str, Any]]:
    sections = page_sections(inputs, max_examples=10, seed=0)
    spec = next(one.spec for part in sections for one in part.figures if one.name == figure)
    rows: list[dict[str, Any]] = spec["data"]["values"]
    return rows


def estimates(folder: Path, file: str) -> dict[str, Estimate]:
    groups: dict[str, Sequence[dict[str, Any]]] = json.loads((folder / file).read_text())["estimates"]
    return {one["name"]: Estimate.from_dict(one) for group in groups.values() for one in group}


def test_every_subset_and_section_is_drawn_with_its_interval(inputs: Inputs, folders: dict[str, Path]) -> None:
    found = estimates(folders["bench"], "bench.json")
    drawn = {(row["group"], row["label"]): row for row in values(inputs, "bench-subsets")}
    chat = drawn["Chat Hard", "llmbar-natural"]
    own = found["subset.llmbar-natural"]
    assert [chat["value"], chat["low"], chat["high"]] == pytest.approx(
        [100 * (end or 0.0) for end in (own.value, own.low, own.high)]
    )
    assert drawn["Sections", "Mean of the sections"]["text"] == estimate_words(found["section.average"])
    assert {group for group, _ in drawn} == {"All pairs", "Sections", "Chat Hard", "Reasoning", "In no section"}


def test_the_style_matrix_is_the_one_of_the_file(inputs: Inputs, folders: dict[str, Path]) -> None:
    curve = json.loads((folders["bench"] / "bench.json").read_text())["curves"]["style_matrix"]
    drawn = values(inputs, "bench-style")
    assert [(row["right"], row["wrong"], row["value"]) for row in drawn] == [
        (row["right"], row["wrong"], pytest.approx(100 * row["value"])) for row in curve
    ]
    assert len(drawn) == 4


def test_flips_and_shifts_of_every_change_are_drawn(inputs: Inputs, folders: dict[str, Path]) -> None:
    found = estimates(folders["perturb"], "perturb.json")
    flips = values(inputs, "perturb-flips")
    assert {(row["group"], row["label"]) for row in flips if row["group"] == "Saying it twice"} == {
        ("Saying it twice", side) for side in ("both", "chosen alone", "rejected alone")
    }
    shifts = {row["label"]: row["value"] for row in values(inputs, "perturb-shifts")}
    assert shifts["saying it twice"] == pytest.approx(found["battery.repeated.shift"].value)


def test_the_page_has_sections_findings_and_no_code_of_the_data(inputs: Inputs, reader: Reader) -> None:
    headings = [part.title for part in page_sections(inputs, max_examples=10, seed=0)]
    assert {"Benchmarks", "Small changes"} <= set(headings)
    assert not any(tag == "img" for tag, _ in reader.tags)


def test_scores_are_called_published_only_where_no_subset_is_lacking(inputs: Inputs) -> None:
    """The data have 2 of the 23 subsets: finding and section say the same."""
    (stage,) = inputs.bench
    lack = len(stage.content.absent_subsets)
    lead = bench_section(stage, suffix="", several=False).lead
    assert f"lack {lack} subsets of the sections, so these are not the published scores" in lead
    assert any(
        f"lack {lack} subsets of the sections: these are not the published" in one for one in stage.content.findings
    )
    whole = replace(stage, content=stage.content.model_copy(update={"absent_subsets": []}))
    assert "not the published" not in bench_section(whole, suffix="", several=False).lead


@pytest.mark.slow
def test_images_are_written(folders: dict[str, Path], tmp_path: Path) -> None:
    config = Report(bench=(folders["bench"],), perturb=(folders["perturb"],))
    written = write_report(config, cast(Run, Folder(tmp_path)))
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"bench-subsets", "bench-best", "bench-style", "perturb-flips", "perturb-shifts"} <= names
    assert any("saying it twice" in line for line in written.findings)


def test_folders_of_other_verbs_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="evaluate perturb") as caught:
        read_inputs(bench=[folders["perturb"]], perturb=[folders["bench"]])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("name", "title", "words"),
    [
        ("subset.mind-the-gap", "Subset mind-the-gap", "50.0\N{NO-BREAK SPACE}% (40.0 to 60.0)"),
        ("best_of_k.average", "Mean of the subsets", "50.0\N{NO-BREAK SPACE}% (40.0 to 60.0)"),
        ("style.gap", "Easy minus hard", "+50.0 points (+40.0 to +60.0)"),
        ("ties.closeness", "By how much closer (from \N{MINUS SIGN}1 to 1)", "0.500 (0.400 to 0.600)"),
        ("battery.repeated.shift", "Saying it twice: score of all answers (sd)", "0.500 (0.400 to 0.600)"),
        (
            "battery.casing.flips",
            "Lower case: order turned around, both changed",
            "50.0\N{NO-BREAK SPACE}% (40.0 to 60.0)",
        ),
    ],
)
def test_names_and_units(name: str, title: str, words: str) -> None:
    one = Estimate(name, 0.5, 0.4, 0.6)
    assert (name_of(one), estimate_words(one)) == (title, words)
