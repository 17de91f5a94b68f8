"""Effects along the dial of an experiment: curves where the numbers are, a column of the table, clear errors."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from rewardlab.errors import ConfigError
from rewardlab.report.compare import AuditComparison, ComparedAudits, compare_audits
from tests.report.audited import REWARDS, write_audit
from tests.report.test_report_audit import estimates
from tests.report.test_report_html import PAYLOADS, read
from tests.report.test_report_page import Folder, islands

MODELS = list(REWARDS)[:2]
DIAL = "share of words with a typo"
VALUES = [0.3, 0.0, 0.15]


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("dial")
    return [
        write_audit(root / f"audit-{seed}", 24, steps=2, draws=1, models=MODELS, seed=seed, subgroups=(), judge=False)
        for seed in range(len(VALUES))
    ]


def compared(audits: list[Path], folder: Path, **along: object) -> ComparedAudits:
    config = AuditComparison.build({"effects": [str(one) for one in audits], "along": {"name": DIAL, **along}})
    return compare_audits(config, Folder(folder))  # type: ignore[arg-type]


def test_each_reward_model_has_its_curves(audits: list[Path], tmp_path: Path) -> None:
    found = compared(audits, tmp_path, values=VALUES, truth=0.1)
    drawn = dict(islands(found.page.read_text(encoding="utf-8")))
    assert [name for name in drawn if name.startswith("spec-")] == ["spec-along-1", "spec-along-2"]
    for place in range(2):
        points = {(one["name"], one["along"]): one for one in drawn[f"spec-along-{place + 1}"]["data"]["values"]}
        assert len(points) == 3 * 3
        for audit, value in zip(audits, VALUES, strict=True):
            for name, title in (("naive", "Naive"), ("single", "Single rewrite"), ("double", "RATE")):
                expected = estimates(audit, place)[f"{name}.ATE.sd"]
                point = points[title, value]
                assert [point[end] for end in ("value", "low", "high")] == [
                    expected[end] for end in ("value", "low", "high")
                ]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"along-{place}.{kind}" for place in (1, 2) for kind in ("svg", "png")
    }
    assert "The dashed line is the true effect, 0.10." in found.page.read_text(encoding="utf-8")


def test_the_finding_goes_from_one_end_of_the_dial_to_the_other(audits: list[Path], tmp_path: Path) -> None:
    page = read(compared(audits, tmp_path, values=VALUES).page.read_text(encoding="utf-8")).text
    ends = [estimates(audits[at])["naive.ATE.sd"]["value"] for at in (1, 0)]
    first, last = (f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in ends)
    assert f"From 0 to 0.3, effect in standard deviations: Naive {first} to {last}, Single rewrite" in page


def test_the_table_says_where_the_dial_stood(audits: list[Path], tmp_path: Path) -> None:
    compared(audits, tmp_path, values=VALUES)
    stored = json.loads((tmp_path / "tables" / "effects.json").read_text())
    assert stored["columns"]["along"] == DIAL
    stood = {(row["audit"], row["along"]) for row in stored["rows"]}
    assert sorted(value for _, value in stood) == sorted(VALUES)
    assert len(stood) == 3
    rows = list(csv.DictReader((tmp_path / "tables" / "effects.csv").read_text().splitlines()))
    assert {float(row["along"]) for row in rows} == set(VALUES)


def test_points_stand_as_high_as_their_effects(audits: list[Path], tmp_path: Path) -> None:
    """The two ends of the naive curve are as far apart as the scale says, and the true effect lies where it should."""
    found = compared(audits, tmp_path, values=VALUES, truth=0.0)
    spec = dict(islands(found.page.read_text(encoding="utf-8")))["spec-along-1"]
    low, high = spec["layer"][1]["encoding"]["y"]["scale"]["domain"]
    svg = (tmp_path / "figures" / "along-1.svg").read_text()
    places = [
        (float(x), float(y))
        for x, y, color in re.findall(r'translate\(([\d.]+),([\d.]+)\)" d="M[^"]*" fill="(#[0-9a-f]{6})"', svg)
        if color == "#d1701a"
    ]
    # Behind the points comes the symbol of the legend.
    heights = [y for _, y in sorted(places[:3])]
    values = [estimates(audits[at])["naive.ATE.sd"]["value"] for at in (1, 2, 0)]
    pixels = 300 / (high - low)
    for place, value in enumerate(values[1:], start=1):
        assert heights[0] - heights[place] == pytest.approx((value - values[0]) * pixels, abs=0.6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.2], "as many values of `along` as audits: 3, not 2"),
        ([1, 1, 1], "two different"),
        (["a", 1, 2], "number"),
    ],
)
def test_a_dial_that_does_not_fit_is_refused(audits: list[Path], values: list[object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AuditComparison.build({"effects": [str(one) for one in audits], "along": {"name": DIAL, "values": values}})
    assert expected in str(caught.value)


def test_a_hostile_name_stays_a_name(audits: list[Path], tmp_path: Path) -> None:
    payload = PAYLOADS[0]
    config = {"effects": [str(one) for one in audits], "along": {"name": payload, "values": VALUES}}
    found = compare_audits(AuditComparison.build(config), Folder(tmp_path))  # type: ignore[arg-type]
    assert payload not in found.page.read_text(encoding="utf-8")
