"""The page as a whole: structure, policy, escaping, determinism."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.errors import ConfigError
from rewardlab.evaluate.accuracy import AccuracyEvaluation, evaluate_accuracy
from rewardlab.records import Candidates
from rewardlab.report.inputs import read_inputs
from rewardlab.report.page import Report, WrittenReport, named_findings, page, page_sections, write_report
from rewardlab.store.runs import Run
from tests.evaluate.scored_data import Workshop, conversation
from tests.report import finished
from tests.report.test_report_html import PAYLOADS, Reader, read


class Folder:
    """A run as far as this verb uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = logging.getLogger("tests.report")

    def path(self, name: str | Path = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write(folder: Path, stages: dict[str, list[Path]], **options: Any) -> WrittenReport:
    folders = {name: tuple(paths) for name, paths in stages.items()}
    return write_report(Report(**folders, **options), cast(Run, Folder(folder)))


def render(stages: dict[str, list[Path]], title: str = "A title", most: int = 600) -> str:
    """The page alone, without image files."""
    inputs = read_inputs(**{"doctor": [], "train": [], "score": [], "evaluate": [], **stages})
    return page(title, page_sections(inputs, max_examples=most, seed=0))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return finished.write_all(tmp_path_factory.mktemp("stages"), pairs=60)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, stages: dict[str, list[Path]]) -> WrittenReport:
    return write(tmp_path_factory.mktemp("report"), stages, title="A small & tidy <report>")


@pytest.fixture(scope="module")
def reader(written: WrittenReport) -> Reader:
    return read(written.page.read_text(encoding="utf-8"))


def islands(markup: str) -> Iterator[tuple[str, Any]]:
    for name, body in re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', markup, re.DOTALL):
        yield name, json.loads(body)


def test_the_headings_form_an_outline(reader: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in reader.tags


def test_ids_are_unique_and_links_lead_to_them(reader: Reader) -> None:
    ids = Counter(attributes["id"] for _, attributes in reader.tags if "id" in attributes)
    assert max(ids.values()) == 1
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert len(links) > 8
    assert all(link is not None and link[1:] in ids for link in links)
    labels = [attributes["aria-labelledby"] for _, attributes in reader.tags if "aria-labelledby" in attributes]
    assert set(labels) <= set(ids)


def test_the_policy_names_exactly_the_scripts_and_styles_of_the_page(written: WrittenReport) -> None:
    markup = written.page.read_bytes().decode("utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", markup, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", markup, re.DOTALL)
    hashed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in [*scripts, *styles]
    ]
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', markup)
    assert found is not None
    policy = dict(part.split(" ", 1) for part in found[1].replace("&#x27;", "'").split("; "))
    assert policy.pop("script-src").split() == hashed[:2]
    assert policy.pop("style-src") == hashed[2]
    none = ("default-src", "base-uri", "form-action")
    assert policy == {"img-src": "data:", **dict.fromkeys(none, "'none'")}
    assert markup.index("Content-Security-Policy") < markup.index("<style>") < markup.index("<script>")


def test_nothing_refers_to_anything_outside(reader: Reader) -> None:
    for tag, attributes in reader.tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base", "form"}
        assert not {"src", "style", "action", "srcset"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]


def test_every_figure_is_in_the_page_and_in_files(written: WrittenReport, reader: Reader) -> None:
    found = islands(written.page.read_text(encoding="utf-8"))
    specs = {name.removeprefix("spec-"): spec for name, spec in found if name.startswith("spec-")}
    files = {path.name for path in (written.page.parent / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in specs for kind in ("svg", "png")}
    drawings = [attributes for _, attributes in reader.tags if attributes.get("class") == "drawing"]
    assert {attributes["data-spec"] for attributes in drawings} == {f"spec-{name}" for name in specs}
    for attributes in drawings:
        spec = specs[str(attributes["data-spec"]).removeprefix("spec-")]
        assert attributes["aria-label"] == spec["description"] != ""
        assert spec["width"] == "container"


def test_numbers_stand_with_interval_and_reading_and_nulls_with_their_reason(reader: Reader) -> None:
    for words in (
        "60.0\N{NO-BREAK SPACE}%55.5 to 64.5",
        "What is left with a wrong prompt.",
        "420 pairs in 210 clusters",
        "needs prompts with three or more completions; all have 2",
        "Not available: no training pairs were given",
        "commit 9f8e7d6c5b4a",
        "A small & tidy <report>",
    ):
        assert words in reader.text, words


def test_the_findings_come_first_and_are_handed_on(written: WrittenReport, reader: Reader) -> None:
    assert [line.partition(": ")[0] for line in written.findings] == ["ppo"] * 2 + ["evaluate"] * 3
    assert written.lines() == [*written.findings, f"The report: {written.page}"]
    at = [reader.text.index(line.partition(": ")[2]) for line in written.findings]
    assert at == sorted(at)
    assert at[-1] < reader.text.index("Every stage keeps a record")


def test_the_same_inputs_give_the_same_bytes(stages: dict[str, list[Path]], written: WrittenReport) -> None:
    assert render(stages, "A small & tidy <report>").encode("utf-8") == written.page.read_bytes()


def test_hostile_text_changes_no_tag(tmp_path: Path) -> None:
    """The page with payloads in every text has the very tags and attribute names of the harmless one."""

    def skeleton(text: str) -> list[tuple[str, list[str]]]:
        folder = tmp_path / hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        stages = finished.write_all(folder, pairs=8, folds=1, hostile=text)
        parsed = read(render(stages, f"title {text}"))
        assert "window.pwned" not in text or "window.pwned" in parsed.text
        return [(tag, sorted(attributes)) for tag, attributes in parsed.tags]

    # Backticks make code of words, and file names and YAML cannot hold NUL or lone surrogates.
    payload = " ".join(PAYLOADS).replace("\0", "").replace("\ud800", "")
    assert skeleton(payload) == skeleton("harmless")


def test_sections_appear_for_what_is_given(tmp_path: Path) -> None:
    folder = finished.write_doctor(tmp_path / "doctor")
    parsed = read(render({"doctor": [folder]}))
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert sections == ["findings", "runs", "data"]
    assert "No evaluation was given" in parsed.text


def test_several_evaluations_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = [finished.write_evaluation(tmp_path / name, rng, 20) for name in ("first", "second")]
    markup = render({"evaluate": folders}, most=12)
    parsed = read(markup)
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert sections == ["findings", "runs"] + [
        f"{name}-{number}" for number in (1, 2) for name in ("accuracy", "calibration", "length", "examples")
    ]
    assert "Accuracy · second" in parsed.text
    data = dict(islands(markup))
    assert [len(data[f"examples-{number}-data"]["rows"]) for number in (1, 2)] == [6, 6]
    labels = [row["label"] for row in data["spec-comparison"]["data"]["values"]]
    assert labels == ["first", "second"]
    inputs = read_inputs(doctor=[], train=[], score=[], evaluate=folders)
    assert [line.partition(":")[0] for line in named_findings(inputs)] == ["first"] * 3 + ["second"] * 3


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of candidates with rewards, of which there are no pairs, by the verb itself."""
    workshop = Workshop(tmp_path_factory.mktemp("candidates"))
    records = [
        Candidates(conversation(f"q{index}"), ("a b c", f"d {'e ' * index} f g", f"h{index}"), (3.0, 2.0, 1.0))
        for index in range(12)
    ]
    data = workshop.records("data.jsonl", records)
    scores = workshop.scores("scored", records, lambda _, text: len(text) % 7 + len(text) / 50)
    evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,), split="test"), workshop)
    return workshop.path()


def test_data_without_pairs_have_no_figure_without_data(candidates: Path) -> None:
    markup = render({"evaluate": [candidates]})
    parsed = read(markup)
    figures = {name: spec for name, spec in islands(markup) if name.startswith("spec-")}
    assert set(figures) == {"spec-length-scores", "spec-length-correlations"}
    assert all(spec["data"]["values"] for spec in figures.values())
    assert "Not available" not in parsed.text
    assert not re.search(r"\b0 pairs", parsed.text)
    assert "on the set test (12 prompts)" in parsed.text
    assert "data prepare --candidates pairs" in parsed.text
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert sections == ["findings", "runs", "accuracy", "length"]


def test_evaluations_without_pairs_are_not_compared(candidates: Path, stages: dict[str, list[Path]]) -> None:
    assert "spec-comparison" not in dict(islands(render({"evaluate": [candidates, candidates]})))
    both = dict(islands(render({"evaluate": [candidates, *stages["evaluate"]]})))
    assert len(both["spec-comparison"]["data"]["values"]) == 1


def test_a_reference_value_without_an_interval_is_not_called_missing(tmp_path: Path) -> None:
    folder = finished.write_evaluation(tmp_path / "evaluate", np.random.default_rng(0), 20)
    result = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    chance = result["estimates"]["calibration"][1]
    chance |= {"low": None, "high": None, "reason": "it is a simulated reference value"}
    (folder / "accuracy.json").write_text(json.dumps(result), encoding="utf-8")
    parsed = read(render({"evaluate": [folder]}))
    assert "No interval: it is a simulated reference value." in parsed.text
    assert "Not available: it is" not in parsed.text


def test_the_calibration_error_is_said_under_its_own_figure_alone(written: WrittenReport) -> None:
    specs = dict(islands(written.page.read_text(encoding="utf-8")))
    assert "ECE" in specs["spec-confidence"]["description"]
    assert "ECE" not in specs["spec-reliability"]["description"]
    assert "slope" in specs["spec-reliability"]["description"]


def test_the_known_truth_has_its_figure_and_its_pairs_say_so(tmp_path: Path) -> None:
    folder = finished.write_evaluation(tmp_path / "evaluate", np.random.default_rng(0), 20)
    without = dict(islands(render({"evaluate": [folder]})))
    assert "spec-gold" not in without
    assert {row["gold"] for row in without["examples-data"]["rows"]} == {None}
    result = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    result["estimates"]["gold"] = [
        finished.estimate("gold.accuracy_of_labels", 0.84, 0.03),
        finished.estimate("gold.accuracy", 0.75, 0.04),
        finished.estimate("gold.accuracy_clear", None, reason="no pair has gold rewards that differ by so much"),
    ]
    (folder / "accuracy.json").write_text(json.dumps(result), encoding="utf-8")
    table = pq.read_table(folder / "pairs.parquet")
    gold = pa.array([float(index) - 5.0 for index in range(20)])
    pq.write_table(table.append_column("gold_margin", gold), folder / "pairs.parquet")
    found = dict(islands(render({"evaluate": [folder]})))
    assert [row["value"] for row in found["spec-gold"]["data"]["values"]] == pytest.approx([84.0, 75.0])
    assert [row["gold"] for row in found["examples-data"]["rows"]] == gold.to_pylist()


def test_nothing_to_report_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one folder"):
        write(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
