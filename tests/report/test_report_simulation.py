"""The section on a simulation: its figures draw the numbers of the file, the page holds it, broken files are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import vl_convert

from rewardlab.audit.simulate import Simulation, simulate
from rewardlab.errors import ConfigError, DataError
from rewardlab.report import simulation_figures, vega
from rewardlab.report.inputs import read_inputs
from rewardlab.report.page import Report, named_findings, page, page_sections, write_report
from rewardlab.report.simulation_inputs import SimulationFile, read_simulation
from rewardlab.store.runs import Run
from tests.report.audited import Here
from tests.report.finished import write_record
from tests.report.test_report_figures import HOSTILE, marks
from tests.report.test_report_page import Folder

RULE = """
def reward(completions, **_):
    # Length pays less the longer a text is, so rewriting changes what an attribute is worth.
    return [len(messages[0]["content"]) ** 0.5 for messages in completions]
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The gold reward, and a rule that is not additive."""
    root = tmp_path_factory.mktemp("simulated")
    (root / "rule.py").write_text(RULE)
    small: dict[str, Any] = {"samples": 3, "texts": 50, "confounding": [0.0, 0.4], "asymmetry": [0.0, 0.5]}
    for name, more in (("gold", {}), ("learned", {"model": f"python:{root / 'rule.py'}:reward"})):
        write_record(root / name, "audit simulate")
        simulate(Simulation(**small, **more), Here(root / name))
    return root / "gold", root / "learned"


@pytest.fixture(scope="module")
def file(folders: tuple[Path, Path]) -> SimulationFile:
    return read_simulation(folders[1])


@pytest.fixture(scope="module")
def specs(file: SimulationFile) -> dict[str, vega.Spec]:
    rows = file.along("confounding", "replacement", file.rows)
    overall = [row for row in rows if row["target"] == "ATE"]
    rate = [row for row in rows if row["estimator"] == "double"]
    causes = file.along("confounding", "replacement", file.causes)
    return {
        "bias": simulation_figures.bias_by_dial(overall, "confounding", [-1.0, 1.0]),
        "targets": simulation_figures.bias_by_dial(rate, "confounding", [-1.0, 1.0], by="target"),
        "rmse": simulation_figures.rmse_by_dial(overall, "confounding", 1.0),
        "coverage": simulation_figures.coverage_by_dial(overall, "confounding", 3, 0.95),
        "causes": simulation_figures.causes_by_dial(causes, "confounding", [-1.0, 1.0]),
        "nothing": simulation_figures.bias_by_dial([], "asymmetry", [-1.0, 1.0]),
    }


NAMES = ["bias", "targets", "rmse", "coverage", "causes", "nothing"]


@pytest.mark.parametrize("name", NAMES)
def test_every_specification_compiles_without_a_warning(
    name: str, specs: dict[str, vega.Spec], capfd: pytest.CaptureFixture[str]
) -> None:
    vl_convert.vegalite_to_vega(json.dumps(specs[name], allow_nan=False), show_warnings=True)
    assert "WARN" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("name", "dots", "lines"), [("bias", 8, 4), ("targets", 8, 4), ("rmse", 8, 8), ("coverage", 8, 4), ("causes", 8, 4)]
)
def test_a_dot_per_estimator_and_place_of_the_dial(
    name: str, dots: int, lines: int, specs: dict[str, vega.Spec]
) -> None:
    svg = vl_convert.vegalite_to_svg(specs[name])
    assert marks(svg, "mark-symbol") == dots
    assert marks(svg, "mark-line") == lines
    # The line that figures are held against is there; intervals are rules too.
    assert marks(svg, "mark-rule") == {"rmse": 0, "bias": 9, "targets": 9, "coverage": 9, "causes": 9}[name]


def test_dots_stand_where_the_scale_says() -> None:
    """Naive at a bias of .5 and RATE at -.5, on an axis from -1 to 1: half of the height apart."""
    rows = [
        {"estimator": name, "confounding": 0.0, "bias": bias, "bias_error": 0.0, "stated": None}
        for name, bias in (("naive", 0.5), ("double", -0.5))
    ]
    svg = vl_convert.vegalite_to_svg(simulation_figures.bias_by_dial(rows, "confounding", [-1.0, 1.0]))
    at: dict[str, float] = {}
    for y, color in re.findall(r'translate\([\d.]+,([\d.]+)\)" d="M[^"]*" stroke="(#[0-9a-f]{6})"', svg):
        # The dots come before those of the legend.
        at.setdefault(color, float(y))
    assert at[vega.BLUE] - at[vega.ORANGE] == pytest.approx(simulation_figures.HEIGHT / 2, abs=1.0)


def test_intervals_of_bias_and_coverage() -> None:
    row = {"estimator": "double", "confounding": 0.0, "bias": 0.2, "bias_error": 0.1, "stated": 0.0, "coverage": 1.0}
    (bias,) = simulation_figures.bias_by_dial([row], "confounding", [0.0, 1.0])["data"]["values"]
    assert (bias["low"], bias["high"]) == pytest.approx((0.004, 0.396))
    (held,) = simulation_figures.coverage_by_dial([row], "confounding", 20, 0.95)["data"]["values"]
    # Clopper and Pearson: all of 20 held, so at least .025^(1/20).
    assert (held["low"], held["high"]) == pytest.approx((100 * 0.025**0.05, 100.0))
    no_interval = simulation_figures.coverage_by_dial([{**row, "coverage": None}], "confounding", 20, 0.95)
    assert no_interval["data"]["values"] == []


def test_dials_are_told_apart_and_sorted(file: SimulationFile) -> None:
    """At the base confounding the asymmetry varies; without asymmetry the confounding does."""
    for law in file.laws:
        for dial, values in (("confounding", [0.0, 0.4]), ("asymmetry", [0.0, 0.5])):
            found = file.along(dial, law, file.causes)
            assert [row[dial] for row in found] == values
            assert {row["law"] for row in found} == {law}


def test_the_page_holds_every_figure(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: dict[str, vega.Spec] = {}
    # Drawing them all takes seconds, and how images are written is tested with other figures.
    monkeypatch.setattr("rewardlab.report.page.write_images", lambda _, specs: images.update(specs) or [])
    written = write_report(Report(simulate=folders), cast(Run, Folder(tmp_path)))
    markup = written.page.read_text(encoding="utf-8")
    # Three measures and the targets, by dial and law; causes of the rule only, as the gold reward is additive.
    assert len(images) == 2 * (3 * 2 * 2 + 2) + 2 * 2
    assert "causes-asymmetry-replacement-known-2" in images
    assert not [name for name in images if name.startswith("causes") and name.endswith("known-1")]
    assert markup.count("<figure") == len(images)
    assert "Known truth · gold" in markup
    assert written.findings[0].startswith("gold: Replacement, ")
    assert written.findings == named_findings(read_inputs(simulate=folders))
    assert markup.count("<li>Replacement, ") == 4


def test_hostile_names_are_text(folders: tuple[Path, Path], tmp_path: Path) -> None:
    raw = json.loads((folders[1] / "simulation.json").read_text())
    raw["reward"] = raw["options"]["attribute"] = HOSTILE
    (tmp_path / "simulation.json").write_text(json.dumps(raw))
    sections = page_sections(read_inputs(simulate=[tmp_path]), max_examples=0, seed=0)
    assert "<script>alert" not in page("title", sections)


def test_other_files_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    raw = json.loads((folders[0] / "simulation.json").read_text())
    raw["rows"][3]["bias"] = "high"
    del raw["causes"]
    (tmp_path / "simulation.json").write_text(json.dumps(raw))
    with pytest.raises(DataError) as caught:
        read_inputs(simulate=[tmp_path, tmp_path / "nowhere"])
    places = "\n".join(problem.where for problem in caught.value.problems)
    for place in ("simulation.json: rows.3.bias", "simulation.json: causes", "nowhere"):
        assert place in places
    write_record(tmp_path, "audit effects")
    with pytest.raises(DataError, match="a run of `audit effects`"):
        read_inputs(simulate=[tmp_path])
    with pytest.raises(ConfigError, match="--audit or --simulate"):
        write_report(Report(), cast(Run, Folder(tmp_path)))
