"""Every specification compiles and draws what it was given."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from rewardlab.evaluate.length import DIFFERENCE_BINS
from rewardlab.report import figures, vega

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script> onload=\"x\" & 'q' <b>"

DOTS = [
    {"label": "model", "value": 0.67, "low": 0.62, "high": 0.72, "text": "67 %", "short": "67 %", "role": "model"},
    {"label": HOSTILE, "value": 0.5, "low": None, "high": None, "text": "50 %", "short": "50 %", "role": "comparison"},
]
HISTORY = [
    {"step": step, "value": 0.7 - step / 100, "split": split, "fold": fold}
    for fold in ("a", HOSTILE)
    for split in ("train", "val", "other", "fourth", "fifth", "sixth")
    for step in (1, 5, 9)
]
OBSERVED = [
    {"n": 5, "predicted": 0.2, "observed": 0.3, "observed_low": 0.1, "observed_high": 0.5},
    {"n": 5, "predicted": 0.8, "observed": 0.7, "observed_low": None, "observed_high": None},
]
MARGINS = [{"low": low / 10, "high": (low + 1) / 10, "n": abs(low), "accuracy": None} for low in range(-5, 5)]
LENGTHS: list[dict[str, Any]] = [
    {"low": low, "high": high, "n": 4, "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9, "mean_margin": 0.2}
    for low, high in [(None, -11), (-10, -1), (0, 0), (1, 10), (11, None)]
]
EMPTY_BIN = {"n": 0, "accuracy": None, "accuracy_low": None, "accuracy_high": None, "mean_margin": None}
LENGTHS[1] |= EMPTY_BIN
POINTS = [
    {"tokens": tokens, "reward": tokens / 10, "ranked": ranked, "prompt": HOSTILE}
    for tokens, ranked in [(-30, "wrong"), (0, "tie"), (45, "right")]
]
SCORES = [
    {"low": 0, "high": 20, "n": 3, "mean_score": 0.1, "sd_score": 1.0},
    {"low": 21, "high": 21, "n": 1, "mean_score": 0.4, "sd_score": None},
    {"low": 22, "high": 60, "n": 0, "mean_score": None, "sd_score": None},
]

SPECS: dict[str, vega.Spec] = {
    "dots": figures.dots_with_intervals(DOTS, axis_title="accuracy (%)", reference=0.5, reference_label="coin"),
    "correlations": figures.dots_with_intervals(DOTS, axis_title="correlation", reference=None, percent=False),
    "no-dots": figures.dots_with_intervals([], axis_title="accuracy (%)", reference=0.5),
    "training": figures.training_curve(HISTORY, axis_title="loss (nats per pair)"),
    "reliability": figures.reliability_curve(OBSERVED, x_title="predicted (%)", y_title="observed (%)"),
    "margins": figures.margin_histogram(MARGINS),
    "length-bins": figures.accuracy_by_length(LENGTHS),
    "length-scatter": figures.length_scatter(POINTS, LENGTHS),
    "no-pairs": figures.length_scatter([], []),
    "length-scores": figures.score_by_length(SCORES),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return {name: vl_convert.vegalite_to_svg(spec) for name, spec in SPECS.items()}


def marks(svg: str, kind: str) -> int:
    """Shapes of one kind of mark, axes and legends left out."""
    count = 0
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        classes = group.get("class", "").split()
        if kind in classes and "role-mark" in classes:
            count += len(list(group))
    return count


@pytest.mark.parametrize("name", SPECS)
def test_every_specification_is_json_and_compiles_without_a_warning(
    name: str, drawn: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    compiled = vl_convert.vegalite_to_vega(json.dumps(SPECS[name], allow_nan=False), show_warnings=True)
    assert compiled["$schema"].endswith("vega/v6.json")
    assert "WARN" not in "".join(capfd.readouterr())
    assert ET.fromstring(drawn[name]).tag == f"{SVG}svg"


@pytest.mark.parametrize("name", SPECS)
def test_hostile_names_are_text_in_the_images(name: str, drawn: dict[str, str]) -> None:
    tags = {node.tag.removeprefix(SVG) for node in ET.fromstring(drawn[name]).iter()}
    assert tags <= {"svg", "g", "path", "line", "rect", "text", "defs", "clipPath", "title", "tspan", "style", "filter"}


def expressions(value: Any, inside: bool = False) -> Iterator[str]:
    """Every string of a compiled specification that Vega parses as code."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from expressions(inner, inside or key in ("signal", "expr", "test", "update", "init"))
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner, inside)
    elif isinstance(value, str) and inside:
        yield value


@pytest.mark.parametrize("name", SPECS)
def test_no_text_from_the_data_becomes_code(name: str) -> None:
    compiled = vl_convert.vegalite_to_vega(SPECS[name])
    found = list(expressions({key: value for key, value in compiled.items() if key != "data"}))
    found += list(expressions([{**source, "values": None} for source in compiled["data"]]))
    assert found
    assert not [code for code in found if "alert" in code or "fourth" in code]


@pytest.mark.parametrize(
    ("name", "kind", "shapes"),
    [
        ("dots", "mark-symbol", 2),
        ("training", "mark-symbol", len(HISTORY)),
        ("training", "mark-line", 12),
        ("reliability", "mark-symbol", 2),
        ("margins", "mark-rect", len(MARGINS)),
        ("length-bins", "mark-rect", 4),
        ("length-scatter", "mark-symbol", 3),
        ("length-scores", "mark-rect", 2),
    ],
)
def test_each_row_is_drawn_once(name: str, kind: str, shapes: int, drawn: dict[str, str]) -> None:
    assert marks(drawn[name], kind) == shapes


def test_numbers_are_drawn_where_the_scale_says(drawn: dict[str, str]) -> None:
    """The dot at 67 % lies right of the one at 50 % in proportion to the axis, both inside their domain."""
    places = re.findall(r'translate\(([\d.]+),[\d.]+\)" d="M[^"]*" fill="(#[0-9a-f]{6})"', drawn["dots"])
    at = {color: float(place) for place, color in places}
    low, high = SPECS["dots"]["layer"][1]["encoding"]["x"]["scale"]["domain"]
    width = (at[vega.BLUE] - at[vega.ORANGE]) / (67 - 50) * (high - low)
    assert low < 50 < 72 < high
    assert vega.WIDTH_PIXELS * 0.9 < width <= vega.WIDTH_PIXELS


def test_the_reference_line_leaves_the_names_of_the_rows_alone() -> None:
    """Letters of 12.5 pixels on their baseline, three quarters of them above it."""
    rows = [{**DOTS[0], "label": f"the same model, without the prompt, {number}"} for number in range(4)]
    spec = figures.dots_with_intervals(rows, axis_title="accuracy (%)", reference=0.5, reference_label="coin")
    drawing = ET.fromstring(vl_convert.vegalite_to_svg(spec))
    places = lambda node: [float(part) for part in re.findall(r"-?[\d.]+", node.get("transform", ""))]  # noqa: E731
    pieces = [node for node in drawing.iter(f"{SVG}line") if node.get("stroke-dasharray")]
    lines = [(places(node)[1], places(node)[1] + float(node.get("y2", 0))) for node in pieces]
    names = [places(node)[1] for node in drawing.iter(f"{SVG}text") if (node.text or "").startswith("the same")]
    assert len(lines) == len(names) == 4
    assert len({places(node)[0] for node in pieces}) == 1
    for name in names:
        letters = (name - 0.75 * 12.5, name + 0.2 * 12.5)
        assert not [one for one in lines if one[0] < letters[1] and one[1] > letters[0]]


def test_open_bins_get_an_edge_to_draw_and_keep_their_words() -> None:
    closed = figures.closed_bins(LENGTHS)
    edges = [-20.5, -10.5, -0.5, 0.5, 10.5, 20.5]
    assert [(row["low"], row["high"]) for row in closed] == list(itertools.pairwise(edges))
    assert [row["range"] for row in closed] == ["-11 or less", "-10 to -1", "0", "1 to 10", "11 or more"]
    reaching = figures.closed_bins(LENGTHS, ends=(-90, 10))
    assert (reaching[0]["low"], reaching[-1]["high"]) == (-90.5, 11.5)


def test_pairs_of_equal_length_are_to_be_seen(drawn: dict[str, str]) -> None:
    """The bin of one number, 0, is a bar with a width and a line with a length."""
    bars = drawn["length-bins"].split("mark-rect")[1].split("</g>")[0]
    widths = [float(width) for width in re.findall(r'd="M[^h"]+h([\d.]+)', bars)]
    assert len(widths) == 4
    assert min(widths) > 5


def test_narrow_bins_beside_wide_ones_have_room() -> None:
    """The bins of the evaluation: to scale, those within 20 tokens would have a tenth of the width."""
    rows = [
        {"low": low, "high": high, "n": 4, "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9}
        for low, high in DIFFERENCE_BINS
    ]
    spec = figures.accuracy_by_length(rows)
    svg = vl_convert.vegalite_to_svg(spec)
    bars = svg.split("mark-rect")[1].split("</g>")[0]
    widths = [float(width) for width in re.findall(r'd="M[^h"]+h([\d.]+)', bars)]
    assert len(widths) == len(rows)
    narrow = [width for width, ends in zip(widths, DIFFERENCE_BINS, strict=True) if set(ends) <= {*range(-20, 21)}]
    assert sum(narrow) > 0.3 * sum(widths)
    for end in (-200, -20, 0, 20, 200):
        assert f">{end}<".replace("-", "\N{MINUS SIGN}") in svg


def test_an_axis_that_is_not_to_scale_says_so(drawn: dict[str, str]) -> None:
    assert "logarithmic scale" in drawn["length-bins"]
    assert "square-root scale" in drawn["length-scores"]
    assert "scale" not in "".join(re.findall(r">([^<]*tokens[^<]*)<", drawn["length-scatter"]))


def test_the_histogram_turns_its_colour_at_zero() -> None:
    sides = [row["side"] for row in SPECS["margins"]["data"]["values"]]
    assert sides == ["ranked wrong"] * 5 + ["ranked right"] * 5


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.1."""
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [vega.BLUE, vega.ORANGE, vega.GREY])
@pytest.mark.parametrize("paper", ["#ffffff", "#14181d"])
def test_colours_stand_out_on_light_and_dark_paper(color: str, paper: str) -> None:
    light, dark = sorted([luminance(color), luminance(paper)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3.0
    assert paper in (Path(figures.__file__).parent / "page.css").read_text(encoding="utf-8")


def test_images_are_written_all_and_alike(tmp_path: Path) -> None:
    specs = {name: SPECS[name] for name in ("dots", "margins")}
    for folder in ("one", "two"):
        names = figures.write_images(tmp_path / folder, specs)
        assert names == ["dots.png", "dots.svg", "margins.png", "margins.svg"]
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith(".png") else b"<svg")


def test_stretched_leaves_the_original_alone() -> None:
    spec = SPECS["dots"]
    assert figures.stretched(spec)["width"] == "container"
    assert spec["width"] == vega.WIDTH_PIXELS
    assert vega.CONFIG["background"] == "#ffffff"
