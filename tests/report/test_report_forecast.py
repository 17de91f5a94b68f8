"""`audit forecast` on samples whose reward is a sum of two known attributes, one of which costs and pays nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardlab.audit.forecast import ASSOCIATIONS, BEST_OF, DOUBLE, EFFECTS, NAIVE, OWN, SINGLE, TILT, Forecasting
from rewardlab.data.canonical import write_records
from rewardlab.errors import ConfigError, DataError
from rewardlab.functional.intervals import NO_SPREAD
from rewardlab.records import Candidates, Prompt
from rewardlab.report.forecast import READINGS, WAYS, shift_curves, write_forecast
from rewardlab.score.score import Scoring, score_file
from rewardlab.store.files import read_json, write_json
from rewardlab.store.runs import Run
from tests.report.test_report_html import PAYLOADS, read
from tests.report.test_report_page import Folder

PROMPTS, SIZE, PAID = 60, 8, 0.7
RULE = f"def reward(prompts, completions):\n    return [{PAID} * (len(one.split()) > 4) for one in completions]\n"


def texts(seed: int) -> list[list[str]]:
    """Long answers (five words or more) begin with a vowel more often than short ones do."""
    rng = np.random.default_rng(seed)

    def one() -> str:
        long = rng.random() < 0.4
        vowel = rng.random() < (0.8 if long else 0.3)
        return " ".join(["apples" if vowel else "pears", *["grow"] * int(rng.integers(4, 7) if long else 1)])

    return [[one() for _ in range(SIZE)] for _ in range(PROMPTS)]


def write_effects(
    folder: Path, name: str, judge: dict[str, Any] | None, scorer: str, effect: float, **others: float
) -> Path:
    """Effects of an audit; `others` are estimators besides the double one, with their effects."""
    estimates = {
        by: [{"name": f"{by}.ATE", "value": value, "low": None, "high": None, "error": 0.01, "reason": ""}]
        for by, value in {"double": effect, **others}.items()
    }
    values = {
        "attribute": {"name": name, "high": f"{name} {PAYLOADS[0]} {PAYLOADS[2]}", "low": "without"},
        "judge": judge,
        "models": [{"scorer": scorer, "sd": 1.0, "estimates": estimates}],
    }
    folder.mkdir()
    write_json(folder / "effects.json", values)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("forecast")
    records = [Candidates(Prompt.of_text(f"Prompt {number}:"), tuple(own), None) for number, own in enumerate(texts(0))]
    write_records(root / "completions.jsonl", records)
    (root / "rule.py").write_text(RULE)
    scoring = Scoring.build({"model": f"python:{root}/rule.py:reward", "data": [str(root / "completions.jsonl")]})
    with Run.create(scoring, verb="score", root=root, name="scores") as run:
        score_file(scoring, run)
    scorer = read_json(root / "scores" / "summary.json")["scorer"]
    long = write_effects(root / "long", "length", {"measure": "words", "above": 4}, scorer, PAID)
    vowel = write_effects(root / "vowel", "vowel", {"measure": "vowel", "above": 0.5}, scorer, 0.0)
    return {
        "samples": [str(root / "completions.jsonl")],
        "scores": str(root / "scores"),
        "effects": [str(long), str(vowel)],
        "divergences": [0.2, 0.6],
        "root": root,
        "scorer": scorer,
    }


def forecast(settings: dict[str, Any], folder: Path, **changed: Any) -> dict[str, Any]:
    asked = {key: value for key, value in settings.items() if key not in ("root", "scorer")} | changed
    write_forecast(Forecasting.build(asked), Folder(folder))  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads((folder / "forecast.json").read_text())
    return found


def shifts(found: dict[str, Any], by: str, divergence: float) -> dict[str, dict[str, Any]]:
    rows = [row for row in found["forecasts"] if row["by"] == by and row["divergence"] == divergence]
    return {row["attribute"]: row for row in rows}


def test_where_the_effects_are_the_whole_reward_all_forecasts_meet(settings: dict[str, Any], tmp_path: Path) -> None:
    found = forecast(settings, tmp_path)
    assert found["explained"]["value"] == pytest.approx(1.0)
    assert found["spoken"]
    for divergence in (0.2, 0.6):
        by_effects, by_rewards = shifts(found, EFFECTS, divergence), shifts(found, ASSOCIATIONS, divergence)
        for name in ("length", "vowel"):
            assert by_effects[name]["value"] == pytest.approx(by_rewards[name]["value"])
    own = shifts(found, EFFECTS, 0.2)
    # Of an attribute that is all of the reward the shift is sqrt(2 kappa) times its standard deviation within prompts.
    long = np.array([[len(text.split()) > 4 for text in row] for row in texts(0)])
    assert own["length"]["value"] == pytest.approx(math.sqrt(0.4 * long.var(axis=1, ddof=1).mean()))
    assert own["length"]["carried"] == pytest.approx(0.0)
    assert own["vowel"]["direct"] == pytest.approx(0.0)
    assert own["vowel"]["low"] > 0.0
    assert "Carried along more than paid for themselves: vowel." in found["findings"]


def test_one_effect_alone_is_told_beside_the_forecast(settings: dict[str, Any], tmp_path: Path) -> None:
    measure, scorer = {"measure": "words", "above": 4}, settings["scorer"]
    # What an audit's naive effect and single rewrites say is another matter; an audit of the samples says half.
    long = write_effects(tmp_path / "long", "length", measure, scorer, PAID, naive=-2 * PAID, single=3 * PAID)
    own = write_effects(tmp_path / "own", "length", measure, scorer, PAID / 2)
    effects = [str(long), settings["effects"][1]]
    found = forecast(settings, tmp_path, effects=effects, sample_effects=[str(own)])
    whole = shifts(found, EFFECTS, 0.2)["length"]["direct"]
    for by, factor in ((DOUBLE, 1.0), (OWN, 0.5), (SINGLE, 3.0), (NAIVE, -2.0)):
        assert shifts(found, by, 0.2)["length"]["value"] == pytest.approx(factor * whole)
    # The carried part is what they leave out; an audit without an estimator says nothing by it.
    assert shifts(found, DOUBLE, 0.2)["vowel"]["value"] == pytest.approx(0.0)
    assert shifts(found, EFFECTS, 0.2)["vowel"]["value"] > 0.01
    assert set(shifts(found, NAIVE, 0.2)) == set(shifts(found, OWN, 0.2)) == {"length"}


def test_an_effect_on_which_all_responses_agree_is_known_exactly(settings: dict[str, Any], tmp_path: Path) -> None:
    long = write_effects(tmp_path / "long", "length", {"measure": "words", "above": 4}, settings["scorer"], PAID)
    written = read_json(long / "effects.json")
    (estimate,) = written["models"][0]["estimates"]["double"]
    estimate |= {"error": None, "reason": NO_SPREAD}
    write_json(long / "effects.json", written)
    found = forecast(settings, tmp_path, effects=[str(long), settings["effects"][1]])
    assert found["attributes"][0]["error"] == 0.0
    exact, estimated = (shifts(one, EFFECTS, 0.2)["length"] for one in (found, forecast(settings, tmp_path / "long")))
    assert exact["value"] == pytest.approx(estimated["value"])
    assert exact["high"] - exact["low"] < estimated["high"] - estimated["low"]
    # Without an error for another reason it is refused.
    estimate |= {"reason": "one independent cluster is too few for an interval"}
    write_json(long / "effects.json", written)
    with pytest.raises(DataError, match="RATE over all responses, with its error"):
        forecast(settings, tmp_path, effects=[str(long), settings["effects"][1]])


def test_an_audit_of_samples_is_of_an_attribute_that_is_forecast(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an attribute of `effects`: vowel"):
        forecast(settings, tmp_path, effects=settings["effects"][1:], sample_effects=settings["effects"][:1])


def test_an_audit_of_samples_goes_by_the_same_measure(settings: dict[str, Any], tmp_path: Path) -> None:
    own = write_effects(tmp_path / "own", "length", {"measure": "characters", "above": 400}, settings["scorer"], PAID)
    with pytest.raises(DataError, match=r"length, where that is characters > 400; expected length as in .*words > 4"):
        forecast(settings, tmp_path, sample_effects=[str(own)])
    assert not (tmp_path / "forecast.json").exists()


def test_the_folder_of_an_audit_run_stands_for_its_effects(settings: dict[str, Any], tmp_path: Path) -> None:
    for name, kept in zip(("long", "vowel"), settings["effects"], strict=True):
        write_json(tmp_path / name / "steps" / "effects" / "effects.json", read_json(Path(kept) / "effects.json"))
    runs = [str(tmp_path / name) for name in ("long", "vowel")]
    found = forecast(settings, tmp_path / "runs", effects=runs, sample_effects=runs)
    assert [one["audit"] for one in found["attributes"]] == runs
    plain = forecast(settings, tmp_path / "plain", sample_effects=settings["effects"])
    assert found["forecasts"] == plain["forecasts"]


def test_effects_of_another_shape_are_told(settings: dict[str, Any], tmp_path: Path) -> None:
    long, vowel = (read_json(Path(kept) / "effects.json") for kept in settings["effects"])
    long["attribute"] = "length"
    vowel["judge"] = {"measure": "vowels"}
    for name, values in (("long", long), ("vowel", vowel)):
        write_json(tmp_path / name / "effects.json", values)
    with pytest.raises(DataError) as caught:
        forecast(settings, tmp_path, effects=[str(tmp_path / name) for name in ("long", "vowel")])
    for words in ("attribute: found 'length'", "judge.above: found nothing", "judge.measure: found 'vowels'"):
        assert words in str(caught.value)


def test_a_tilt_and_the_best_of_n_stand_beside_while_they_can(settings: dict[str, Any], tmp_path: Path) -> None:
    found = forecast(settings, tmp_path, divergences=[0.2, 2.0])
    near, far = shifts(found, TILT, 0.2), shifts(found, TILT, 2.0)
    # Seven eighths of the variance are left among 8 samples; what is beyond the first order is small at 0.2 nats.
    expected = shifts(found, ASSOCIATIONS, 0.2)["length"]["value"] * math.sqrt(7 / 8)
    assert near["length"]["value"] == pytest.approx(expected, rel=0.1)
    assert near["length"]["size"] > 2.0
    assert far["length"]["value"] is None
    assert "do not reach" in far["length"]["reason"]
    assert 0.2 < found["farthest"] < 2.0
    best = {
        row["n"]: row["value"] for row in found["forecasts"] if row["by"] == BEST_OF and row["attribute"] == "length"
    }
    assert list(best) == [2, 4, 8]
    assert best[2] < best[4] < best[8]


def test_a_reward_that_the_effects_do_not_explain_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    measure, scorer = {"measure": "vowel", "above": 0.5}, settings["scorer"]
    vowel = [str(write_effects(tmp_path / "vowel", "vowel", measure, scorer, 0.02, naive=0.4, single=0.1))]
    found = forecast(settings, tmp_path, effects=vowel, sample_effects=vowel, least_explained=0.6)
    assert found["explained"]["value"] < 0.1
    assert not found["spoken"]
    assert not [row for row in found["forecasts"] if row["by"] == EFFECTS]
    assert "no forecast is made from effects" in found["findings"][1]
    # What single effects say needs no share explained: it is told, so that one can see what the refusal was worth.
    asked = forecast(settings, tmp_path / "asked", effects=vowel, sample_effects=vowel, least_explained=0.0)
    for by in READINGS:
        rows = [row for row in found["forecasts"] if row["by"] == by]
        assert [row["divergence"] for row in rows] == [0.2, 0.6]
        assert rows == [row for row in asked["forecasts"] if row["by"] == by]
    # The page says that these are no forecasts, and draws none of them.
    words = "is for comparison and no forecast"
    assert words in found["findings"][1]
    pages = [
        read((folder / "report.html").read_text(encoding="utf-8")).text for folder in (tmp_path, tmp_path / "asked")
    ]
    assert [page.count(f"{WAYS[DOUBLE]} (refused, for comparison)") for page in pages] == [2, 0]
    assert [words in page for page in pages] == [True, False]
    drawn = {row["by"] for row in shift_curves(found["forecasts"])["data"]["values"]}
    assert drawn.isdisjoint({EFFECTS, *READINGS})
    # What the samples' own rewards say is told all the same.
    assert shifts(found, ASSOCIATIONS, 0.2)["vowel"]["value"] > 0.0


def test_the_page_shows_words_of_audits_as_text(settings: dict[str, Any], tmp_path: Path) -> None:
    forecast(settings, tmp_path)
    reader = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert PAYLOADS[0] in reader.text
    assert not [tag for tag, attributes in reader.tags if tag == "img" or "onmouseover" in dict(attributes)]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"shift-{place}.{kind}" for place in (1, 2) for kind in ("svg", "png")
    }


def test_every_problem_of_every_audit_is_told(settings: dict[str, Any], tmp_path: Path) -> None:
    measure = {"measure": "words", "above": 4}
    other = write_effects(tmp_path / "other", "length", measure, "another-reward", 1.0)
    blind = write_effects(tmp_path / "blind", "tone", {"ask": "Is it kind?", "above": 0.5}, settings["scorer"], 1.0)
    again = write_effects(tmp_path / "again", "vowel", measure, settings["scorer"], 1.0)
    with pytest.raises(DataError) as caught:
        forecast(settings, tmp_path, effects=[*settings["effects"][1:], str(other), str(blind), str(again)])
    told = str(caught.value)
    for words in ("effects on another-reward", "which no measure sees", "vowel, as in"):
        assert words in told
    assert not (tmp_path / "forecast.json").exists()


def test_distances_are_above_0_and_told_once(settings: dict[str, Any]) -> None:
    asked = {key: value for key, value in settings.items() if key not in ("root", "scorer")}
    for wrong in ([-1.0], [0.5, 0.0]):
        with pytest.raises(ConfigError, match=r"divergences.*above 0"):
            Forecasting.build(asked | {"divergences": wrong})
    assert Forecasting.build(asked | {"divergences": [0.6, 0.2, 0.6]}).divergences == [0.2, 0.6]


def test_samples_without_scores_and_single_ones_are_told(settings: dict[str, Any], tmp_path: Path) -> None:
    lone = tmp_path / "lone.jsonl"
    write_records(lone, [Candidates(Prompt.of_text("Prompt 0:"), (texts(0)[0][0],), None)])
    with pytest.raises(DataError, match="2 or more to a prompt"):
        forecast(settings, tmp_path, samples=[str(lone)])
    write_records(lone, [Candidates(Prompt.of_text("Another:"), ("a", "b"), None)])
    with pytest.raises(DataError, match="scores are missing"):
        forecast(settings, tmp_path, samples=[str(lone)])
