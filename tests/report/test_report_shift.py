"""What tiny policies have learned: one token long, so that every share and divergence can be counted out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr
from small_models import word_tokenizer

from rewardlab.audit.forecast import ASSOCIATIONS, EFFECTS, NAIVE
from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluate import frontier_samples
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.shift_agreement import DOWN, UP, agreements, predicted_at
from rewardlab.functional.shift import meetings
from rewardlab.report.forecast import WAYS
from rewardlab.report.shift import evaluate_forecasts, evaluate_shift
from rewardlab.report.shift_inputs import ForecastEvaluation, ShiftEvaluation, attributes_of
from rewardlab.report.shift_sections import _part_table, findings, shift_sections
from rewardlab.report.words import DASH
from rewardlab.store.files import read_json, write_json
from rewardlab.store.runs import Run
from tests.evaluate.test_evaluate_frontier import PROMPTS, TEMPERATURE, log_softmax, prompts_of, recorded, save
from tests.report.test_report_html import PAYLOADS, read

N = 40
LONG = {"measure": "characters", "above": 2.0}
"""Words from w10 on, of all words from w0 to w95."""
SAME = "<b>same</b>"
FAR = 50.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference, two trainings that went away from it, and prompts."""
    root = tmp_path_factory.mktemp("shift")
    save(root / "reference", 0.0)
    for seed, steps in enumerate([(0.05, 0.1, 0.15), (0.08, 0.13)]):
        for step, moved in enumerate(steps, start=1):
            save(root / f"training-{seed}" / "policies" / f"step-{step:06d}", moved)
        recorded(root / f"training-{seed}", root / "reference")
    texts = [" ".join(f"w{count + place}" for place in range(1 + count % 4)) for count in range(PROMPTS)]
    (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return root


def exact(place: Path, policy: str) -> tuple[np.ndarray, float]:
    """Divergence of every prompt from the reference, and the share of long words, counted over the vocabulary."""
    own, reference = (log_softmax(place / folder, prompts_of(place)) for folder in (policy, "reference"))
    texts = word_tokenizer().batch_decode([[token] for token in range(own.shape[1])], skip_special_tokens=True)
    long = np.array([len(text) > 2 for text in texts])
    return (np.exp(own) * (own - reference)).sum(axis=1), float(np.exp(own)[:, long].sum(axis=1).mean())


def step_of(seed: int, step: int) -> str:
    return f"training-{seed}/policies/step-{step:06d}"


def half_way(place: Path) -> float:
    """A distance that both trainings reach."""
    return 0.6 * min(exact(place, step_of(0, 3))[0].mean(), exact(place, step_of(1, 2))[0].mean())


def write_forecast(folder: Path, distance: float, predicted: dict[str, float], effect: float = 0.0) -> Path:
    """forecast.json as `audit forecast` writes it, at two distances; of shifts that grow with the root of the KL."""
    rows = []
    for by, value in predicted.items():
        for at in (distance / 2.0, distance * 2.0):
            told = value * np.sqrt(at / distance)
            ends = {"value": told, "low": told - 0.01, "high": told + 0.01}
            rows.append({"attribute": "long", "by": by, "divergence": at, **ends})
    attribute = {"name": "long", "high": f"long {PAYLOADS[0]}", "judge": LONG, "effect": effect, "error": 0.01}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "forecast.json", {"spoken": True, "attributes": [attribute], "forecasts": rows})
    return folder


def write_effects(folder: Path, name: str, judge: dict[str, Any]) -> None:
    """effects.json as `audit effects` writes it, of one reward model."""
    estimate = {"name": "double.ATE", "value": 0.1, "low": 0.0, "high": 0.2, "error": 0.05, "reason": ""}
    about = {"name": name, "high": f"more {name}", "low": f"less {name}"}
    models = [{"scorer": "rm", "sd": 1.0, "estimates": {"double": [estimate]}}]
    write_json(folder / "effects.json", {"attribute": about, "judge": judge, "models": models})


def options(place: Path, **more: Any) -> dict[str, Any]:
    return {
        "runs": {"moved": [str(place / "training-0"), str(place / "training-1")], SAME: str(place / "reference")},
        "data": str(place / "prompts.jsonl"),
        "reference": str(place / "reference"),
        "measures": {"said": {"measure": "words", "above": 0}},
        "forecasts": {"moved": str(place / "forecast")},
        "n": N,
        "temperature": TEMPERATURE,
        "max_new_tokens": 1,
        "device": "cpu",
        "draws": 100,
        **more,
    }


def run_in(root: Path, values: dict[str, Any], *, resume: bool = False) -> dict[str, Any]:
    config = ShiftEvaluation.build(values)
    with Run.create(config, verb="evaluate shift", name="shift", root=root, resume=resume) as run:
        evaluate_shift(config, run)
    found: dict[str, Any] = read_json(root / "shift" / "shift.json")
    return found


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("runs")
        patch.setenv("REWARDLAB_HOME", str(root))
        patch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
        distance = half_way(place)
        write_forecast(place / "forecast", distance, {EFFECTS: -0.05, ASSOCIATIONS: 0.02})
        return root / "shift", run_in(root, options(place, divergences=[distance, FAR]))


def row(values: dict[str, Any], run: str, attribute: str, divergence: float) -> dict[str, Any]:
    keys = (run, attribute, divergence)
    return next(one for one in values["shifts"] if (one["run"], one["attribute"], one["divergence"]) == keys)


def test_divergences_and_shares_are_those_counted_out(place: Path, done: tuple[Path, dict[str, Any]]) -> None:
    folder, values = done
    table = pq.read_table(folder / "shift.parquet").to_pandas()
    reference = exact(place, "reference")[1]
    for seed, step in ((0, 1), (0, 3), (1, 2)):
        own = table[(table["run"] == "moved") & (table["seed"] == seed) & (table["step"] == step)]
        away, share = exact(place, step_of(seed, step))
        # After one token the divergence is the prompt's, whatever was written: nothing is left to chance.
        found_away = own["divergence"].to_numpy().reshape(PROMPTS, N)
        np.testing.assert_allclose(found_away, np.repeat(away[:, None], N, axis=1), atol=1e-5)
        keys = ("moved", seed, step, "long")
        found = next(one for one in values["paths"] if (one["run"], one["seed"], one["step"], one["attribute"]) == keys)
        assert found["kl"] == pytest.approx(away.mean(), abs=1e-5)
        assert abs(found["value"] - (share - reference)) < 4.0 * found["error"]
        assert found["value"] == pytest.approx(
            own["attribute.long"].mean() - table[table["run"] == "reference"]["attribute.long"].mean()
        )


def test_shifts_are_read_between_checkpoints_and_averaged_over_seeds(
    place: Path, done: tuple[Path, dict[str, Any]]
) -> None:
    _, values = done
    distance = half_way(place)
    by_seed = []
    for seed in (0, 1):
        points = sorted(
            (one["step"], one["kl"], one["value"])
            for one in values["paths"]
            if (one["run"], one["seed"], one["attribute"]) == ("moved", seed, "long")
        )
        roots = np.sqrt([0.0, *(kl for _, kl, _ in points)])
        by_seed.append(np.interp(np.sqrt(distance), roots, [0.0, *(value for _, _, value in points)]))
    found = row(values, "moved", "long", distance)
    assert found["seeds"] == pytest.approx(by_seed)
    assert found["value"] == pytest.approx(np.mean(by_seed))
    assert found["low"] < found["value"] < found["high"]
    rate = values["reference"]["rates"]["long"]["value"]
    odds = [np.log(share / (1.0 - share)) for share in (rate, *(rate + one for one in by_seed))]
    assert found["log_odds"]["value"] == pytest.approx(np.mean(odds[1:]) - odds[0])


def test_what_no_checkpoint_reaches_is_not_told(done: tuple[Path, dict[str, Any]]) -> None:
    _, values = done
    far = row(values, "moved", "long", FAR)
    assert far["value"] is None
    assert far["unreached"] == 2
    assert "no checkpoint gets that far" in far["reason"]
    assert any("not reached" in line and "2 of 2 seeds" in line for line in values["findings"])
    # The distance lies behind the first checkpoint of either seed or not, as the means of the divergences say.
    first = [
        next(one["kl"]["value"] for one in values["checkpoints"] if (one["run"], one["seed"]) == ("moved", seed))
        for seed in (0, 1)
    ]
    near = min(one["divergence"] for one in values["shifts"])
    assert row(values, "moved", "long", near)["before_first"] == sum(kl > near for kl in first)
    # A policy that is the reference goes nowhere.
    same = values["checkpoints"][-1]
    assert (same["run"], same["kl"]["value"]) == (SAME, 0.0)
    assert all(one["value"] is None for one in values["shifts"] if one["run"] == SAME)


def test_of_many_runs_trainings_are_counted(done: tuple[Path, dict[str, Any]]) -> None:
    """Two seeds of one policy get part of the way, and the one that is the reference nowhere."""
    _, values = done
    many = [{**one, "run": f"{one['run']} {copy}"} for copy in range(2) for one in values["shifts"]]
    told = findings({**values, "shifts": many})
    assert any(
        line.startswith(f"{FAR:g} nats are not reached by 6 of 6 trainings, by none of moved 0, ") for line in told
    )
    (near,) = (line for line in told if "not reached by 2 of 6 trainings" in line)
    assert near.endswith(f"by none of {SAME} 0, {SAME} 1.")
    assert not any(line.startswith("moved") for line in told)


def test_forecasts_stand_beside_shifts_at_their_distance(place: Path, done: tuple[Path, dict[str, Any]]) -> None:
    _, values = done
    distance = half_way(place)
    found = row(values, "moved", "long", distance)
    assert found["predicted"][EFFECTS]["value"] == pytest.approx(-0.05)
    assert row(values, "moved", "long", FAR)["predicted"] == {}
    assert row(values, "moved", "said", distance)["predicted"] == {}
    measures = {(one["by"], one["measure"]): one for one in values["agreement"]["measures"]}
    assert measures[EFFECTS, "error"]["value"] == pytest.approx(abs(found["value"] + 0.05))
    assert measures[EFFECTS, "error"]["low"] is None
    assert "one reward model" in measures[EFFECTS, "error"]["reason"]
    apart = next(one for one in values["agreement"]["differences"] if one["measure"] == "error")
    assert apart["value"] == pytest.approx(abs(found["value"] + 0.05) - abs(found["value"] - 0.02))


def test_other_forecasts_are_set_beside_shifts_that_were_measured(
    place: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, values = done
    distance = half_way(place)

    def asked(forecasts: dict[str, str], name: str) -> dict[str, Any]:
        config = ForecastEvaluation.build({"shifts": str(folder), "forecasts": forecasts, "draws": 100})
        with Run.create(config, verb="evaluate forecasts", name=name, root=tmp_path) as run:
            evaluate_forecasts(config, run)
        found: dict[str, Any] = read_json(tmp_path / name / "shift.json")
        return found

    # The same forecast says the same; nothing is sampled for it.
    same = asked({"moved": str(place / "forecast")}, "same")
    assert same["agreement"] == values["agreement"]
    assert same["shifts"] == values["shifts"]
    assert not (tmp_path / "same" / "samples").exists()
    other = asked({"moved": str(write_forecast(tmp_path / "other", distance, {EFFECTS: 0.5}))}, "else")
    assert row(other, "moved", "long", distance)["predicted"][EFFECTS]["value"] == pytest.approx(0.5)
    assert row(other, "moved", "long", distance)["value"] == row(values, "moved", "long", distance)["value"]
    (error,) = [one for one in other["agreement"]["measures"] if one["measure"] == "error"]
    assert error["value"] == pytest.approx(abs(row(values, "moved", "long", distance)["value"] - 0.5))


def test_forecasts_of_other_runs_and_attributes_are_refused(
    place: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = done
    strange = read_json(place / "forecast" / "forecast.json")
    strange["attributes"][0]["judge"] = {"measure": "characters", "above": 3.0}
    write_json(tmp_path / "forecast.json", strange)
    forecasts = {"moved": str(tmp_path), "mooved": str(place / "forecast")}
    config = ForecastEvaluation.build({"shifts": str(folder), "forecasts": forecasts})
    with pytest.raises(DataError) as caught:
        evaluate_forecasts(config, None)  # type: ignore[arg-type]
    assert "forecasts.mooved: found no run of that name" in str(caught.value)
    assert "found long; expected an attribute as" in str(caught.value)


def test_the_page_shows_names_as_text_and_its_pictures_hold_the_numbers(done: tuple[Path, dict[str, Any]]) -> None:
    folder, values = done
    reader = read((folder / "report.html").read_text(encoding="utf-8"))
    assert SAME in reader.text
    assert not [tag for tag, attributes in reader.tags if tag == "img" or "onmouseover" in dict(attributes)]
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("met-1", "path-1", "path-2") for kind in ("svg", "png")
    }
    assert values["findings"][0].startswith("6 checkpoints of 2 runs wrote 40 answers to each of 12 prompts")


def test_what_is_done_is_not_done_again(
    place: Path, done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setenv("REWARDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
    more = options(place, runs={"moved": str(place / "training-1")}, forecasts={}, n=2, divergences=[1e-6])
    with monkeypatch.context() as patch:
        patch.setattr("rewardlab.report.shift.write_parquet", never)
        with pytest.raises(AssertionError):
            run_in(tmp_path, more)
    monkeypatch.setattr(frontier_samples, "divergences", never)
    monkeypatch.setattr(frontier_samples, "sample", never)
    assert len(run_in(tmp_path, more, resume=True)["checkpoints"]) == 2


def test_settings_that_do_not_fit_are_refused(place: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"forecasts": {"other": "somewhere"}}, "names of the runs"),
        ({"forecasts": {}, "measures": {}}, "attributes"),
        ({"measures": {"kind": {"ask": "Is it kind?"}}}, "a measure, and a number"),
        ({"divergences": [0.0]}, "above 0"),
    ]
    for changed, words in cases:
        with pytest.raises(ConfigError, match=words):
            ShiftEvaluation.build(options(place, **changed))


def test_every_attribute_that_cannot_be_used_is_told(place: Path, tmp_path: Path) -> None:
    for name, judge in (("tone", {"ask": "Is it kind?", "above": 0.5}), ("said", LONG), ("more", {"measure": "wrods"})):
        write_effects(tmp_path / name, name, judge)
    write_json(tmp_path / "broken" / "effects.json", {"attribute": "broken", "judge": LONG, "models": []})
    effects = [str(tmp_path / name) for name in ("tone", "said", "more", "broken")]
    config = ShiftEvaluation.build(options(place, effects=effects, forecasts={}))
    with pytest.raises(DataError) as caught:
        evaluate_shift(config, None)  # type: ignore[arg-type]
    assert "tone, which no measure sees" in str(caught.value)
    assert "said, which is another attribute" in str(caught.value)
    assert "more/effects.json: judge.measure: found 'wrods'" in str(caught.value)
    assert "broken/effects.json: attribute: found 'broken'" in str(caught.value)
    write_json(tmp_path / "forecast.json", {"forecasts": []})
    config = ShiftEvaluation.build(options(place, forecasts={"moved": str(tmp_path)}))
    with pytest.raises(DataError, match="attributes"):
        evaluate_shift(config, None)  # type: ignore[arg-type]


def test_the_folder_of_an_audit_run_stands_for_its_effects(place: Path, tmp_path: Path) -> None:
    write_effects(tmp_path / "run" / "steps" / "effects", "long", LONG)
    found = attributes_of(ShiftEvaluation.build(options(place, effects=[str(tmp_path / "run")], forecasts={})), {})
    assert [(one.name, one.high, one.judge) for one in found[:1]] == [("long", "more long", LONG)]
    assert found[0].place == tmp_path / "run" / "steps" / "effects" / "effects.json"


def test_a_forecast_is_read_along_the_root_and_not_beyond() -> None:
    rows = [{"divergence": at, "value": 0.3 * at**0.5, "low": 0.2 * at**0.5, "high": None} for at in (1.0, 4.0)]
    found = predicted_at(rows, 2.25)
    assert found is not None
    assert found["value"] == pytest.approx(0.45)
    assert found["low"] == pytest.approx(0.3)
    assert found["high"] is None
    assert predicted_at(rows, 4.1) is None
    assert predicted_at([{"divergence": 1.0, "value": None, "low": None, "high": None}], 0.5) is None


def loop_rows(models: int, seed: int) -> list[dict[str, Any]]:
    """Shifts of three attributes under reward models whose effects differ; what chance adds is .02, and associations
    are told with an error of .1. The third attribute has no effect, and moves by .1 all the same."""
    generator = np.random.default_rng(seed)
    rows = []
    for unit in range(models):
        for attribute in ("first", "second", "unpaid"):
            told = 0.1 if attribute == "unpaid" else float(generator.uniform(-0.3, 0.3))
            seeds = (told + 0.02 * generator.standard_normal(2)).tolist()
            value = float(np.mean(seeds))
            wrong = told + 0.1 * float(generator.standard_normal())
            rows.append(
                {
                    "run": f"model {unit}",
                    "unit": unit,
                    "attribute": attribute,
                    "divergence": 1.0,
                    "value": value,
                    "low": value - 0.03,
                    "high": value + 0.03,
                    "error": 0.014,
                    "seeds": seeds,
                    "predicted": {
                        EFFECTS: {"value": told, "low": told - 0.01, "high": told + 0.01},
                        ASSOCIATIONS: {"value": wrong, "low": wrong - 0.01, "high": wrong + 0.01},
                    },
                    "effect": 0.0 if attribute == "unpaid" else 1.0,
                    "effect_error": 0.1,
                }
            )
    return rows


def test_over_many_reward_models_the_better_forecast_wins_with_an_interval() -> None:
    found = agreements(loop_rows(20, 3), list(WAYS), 0.03, 400, Settings())
    measures = {(one["by"], one["measure"]): one for one in found["measures"]}
    error = measures[EFFECTS, "error"]
    # The mean of |normal| with a standard deviation of .02 / sqrt(2).
    expected = 0.02 / np.sqrt(2.0) * np.sqrt(2.0 / np.pi)
    assert error["low"] < expected < error["high"]
    assert (error["n"], error["units"]) == (60, 20)
    assert measures[EFFECTS, "rank"]["low"] > 0.9
    assert measures[EFFECTS, "slope"]["low"] < 1.0 < measures[EFFECTS, "slope"]["high"]
    apart = {one["measure"]: one for one in found["differences"]}
    assert apart["error"]["high"] < 0.0
    assert apart["error"]["value"] == pytest.approx(error["value"] - measures[ASSOCIATIONS, "error"]["value"])
    assert apart["rank"]["low"] > 0.0
    dealt = {one["by"]: one for one in found["permutations"]}
    assert dealt[EFFECTS]["error_p"] < 0.01
    assert {one["attribute"] for one in found["unpaid"]} == {"unpaid"}
    # What is forecast is the truth: it is as far off as a perfect forecast would be.
    assert found["ceiling"][0]["error"] == pytest.approx(expected, rel=0.3)


def test_parts_are_what_their_shifts_alone_would_say() -> None:
    rows = loop_rows(12, 9)
    parts = agreements(rows, [EFFECTS], 0.03, 100, Settings())["parts"]
    names = ["first", "second", "unpaid", UP, DOWN]
    assert list(dict.fromkeys(one["part"] for one in parts)) == names
    for name in names:
        of_part = {
            "first": [one["attribute"] == "first" for one in rows],
            "second": [one["attribute"] == "second" for one in rows],
            "unpaid": [one["attribute"] == "unpaid" for one in rows],
            UP: [one["predicted"][EFFECTS]["value"] > 0 for one in rows],
            DOWN: [one["predicted"][EFFECTS]["value"] < 0 for one in rows],
        }[name]
        own = [one for one, taken in zip(rows, of_part, strict=True) if taken]
        told = np.array([one["predicted"][EFFECTS]["value"] for one in own])
        learned = np.array([one["value"] for one in own])
        found = {one["measure"]: one for one in parts if one["part"] == name}
        assert found["error"]["value"] == pytest.approx(np.abs(told - learned).mean())
        assert (found["error"]["n"], found["error"]["units"]) == (len(own), len({one["unit"] for one in own}))
        if name != "unpaid":
            assert found["rank"]["value"] == pytest.approx(spearmanr(told, learned).statistic)
            assert found["slope"]["value"] == pytest.approx(np.polyfit(told, learned, 1)[0])
        # A shift of .03 or more counts, of attributes with an effect; errors of .014 ask for less.
        signed = np.abs(learned[[one["attribute"] != "unpaid" for one in own]]) > 0.03
        assert found["signs"]["n"] == signed.sum()


@pytest.mark.parametrize(("models", "figures"), [(10, 1), (5, 0)])
def test_the_page_has_a_table_of_parts_and_a_picture_where_models_are_enough(models: int, figures: int) -> None:
    rows = loop_rows(models, 7)
    names = ["first", "second", "unpaid"]
    log_odds = {"log_odds": {"value": None}, "unreached": 0, "before_first": 0, "reason": ""}
    values = {
        "shifts": [{**one, **log_odds} for one in rows],
        "agreement": agreements(rows, list(WAYS), 0.03, 200, Settings()),
        "reference": {"rates": {name: {"value": 0.5} for name in names}},
        "attributes": [{"name": name} for name in names],
        "paths": [],
        "forecasts": {},
        "findings": [],
        "level": 0.95,
    }
    (section,) = [one for one in shift_sections(values) if one.name == "parts"]
    *pictures, table = section.blocks
    assert [one.name for one in pictures] == ["part-1"] * figures
    for picture in pictures:
        drawn = picture.spec["data"]["values"]
        assert [(row["run"], row["attribute"], row["x"], row["y"]) for row in drawn] == [
            (one["run"], one["attribute"], one["predicted"][EFFECTS]["value"], one["value"]) for one in rows
        ]
    found = {row["part"]: row for row in _part_table(values).rows}
    assert list(found) == [*names, UP, DOWN]
    signed = sum(abs(one["value"]) > 0.03 for one in rows if one["attribute"] == "first")
    assert found["first"]["signs"].startswith("1.00")
    assert found["first"]["signs"].endswith(f", of {signed}")
    assert (found["unpaid"]["signs"], found["unpaid"]["n"]) == (DASH, models)
    assert found["unpaid"]["carried"].endswith(f", of {models}")
    reason = "" if figures else "5 reward models; an interval over them needs 8"
    assert found["first"]["reason"] == reason
    assert all(name in str(table) for name in (*names, UP, DOWN))


def test_a_missing_shift_takes_its_reward_model_alone_out_of_the_deal() -> None:
    rows = loop_rows(12, 4)
    rows[1] |= {"value": None, "seeds": [None, None]}
    dealt = {one["by"]: one for one in agreements(rows, list(WAYS), 0.03, 100, Settings())["permutations"]}
    assert dealt[EFFECTS]["units"] == 11
    assert dealt[EFFECTS]["rank_p"] < 0.01


def test_signs_of_attributes_without_an_effect_are_counted_apart() -> None:
    """The effect alone forecasts 0 for them, which has no sign: it is right wherever there is an effect."""
    rows = loop_rows(10, 5)
    for one in rows:
        alone = 0.0 if one["attribute"] == "unpaid" else one["value"]
        one["predicted"][ASSOCIATIONS] = {"value": alone, "low": None, "high": None}
    measures = {
        (one["by"], one["measure"]): one["value"]
        for one in agreements(rows, list(WAYS), 0.03, 100, Settings())["measures"]
    }
    assert measures[ASSOCIATIONS, "signs"] == 1.0
    assert measures[ASSOCIATIONS, "carried"] == 0.0
    assert measures[EFFECTS, "carried"] == 1.0


def test_findings_tell_order_first_and_forecasts_that_were_refused() -> None:
    rows = loop_rows(10, 6)
    for one in rows:
        one["predicted"][NAIVE] = one["predicted"][ASSOCIATIONS]
    for one in rows[:3]:
        del one["predicted"][EFFECTS]
    told = ("refused", "spoken")
    values = {
        "shifts": rows,
        "forecasts": {name: {"spoken": name == "spoken"} for name in told},
        "agreement": agreements(rows, list(WAYS), 0.03, 200, Settings()),
        "reference": {"rates": {"first": {"value": 0.05}, "second": {"value": 0.95}, "unpaid": {"value": 0.5}}},
        "checkpoints": [],
        "attributes": [{"name": "first"}],
        "n": 4,
        "prompts": 8,
        "warnings": [],
    }
    lines = findings({**values, "shifts": [{**one, "unreached": 0, "before_first": 0} for one in rows]})
    assert lines[1].startswith("At 1 nats, 27 shifts under 9 reward models: rank correlation of forecasts and shifts ")
    assert "naive effect alone (of 30 shifts under 10 reward models)" in lines[1]
    assert "a perfect forecast would reach 0.9" in lines[1]
    assert "reward models), less by 0." in lines[1]
    assert lines[2].startswith("At 1 nats, 27 shifts under 9 reward models: forecasts from effects are 0.0")
    # Forecasts are below .3: of what half of the answers have they stay within a share, elsewhere not all do.
    rates = {"first": 0.05, "second": 0.95, "unpaid": 0.5}
    ends = [rates[one["attribute"]] + one["predicted"][EFFECTS]["value"] for one in rows if EFFECTS in one["predicted"]]
    below, above = sum(end < 0 for end in ends), sum(end > 1 for end in ends)
    assert min(below, above) > 0
    assert f"; beyond what a share can do are {below + above} of 27." in lines[2]
    assert re.search(r", of \d+ that can be told; ", lines[2])
    assert re.search(r"part by part: .*\) of first; .* of those forecast to rise; .*", lines[3])
    assert any(line.startswith("Of 2 forecasts from effects 1 were refused") and "refused." in line for line in lines)


@pytest.mark.parametrize(("models", "holds"), [(8, 0.89), (24, 0.93)])
def test_intervals_over_reward_models_hold_nearly_what_they_say(models: int, holds: float) -> None:
    """Percentiles of few are a little narrow. Of 300 runs, three standard errors are .05."""
    held = 0
    for seed in range(300):
        generator = np.random.default_rng([models, seed])
        # What forecasts are off by belongs to the reward model in half, so that its shifts are no independent points.
        wide = generator.standard_normal((models, 1))
        off = np.abs(generator.standard_normal((models, 3)) + wide)
        chosen = generator.integers(0, models, (400, models))
        counts = np.array([np.bincount(units, minlength=models) for units in chosen])
        drawn = meetings(np.zeros((models, 3)), off, counts)[:, 0]
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= 2.0 / np.sqrt(np.pi) <= high
    assert held / 300 == pytest.approx(holds, abs=0.05)


def test_of_few_reward_models_there_are_values_and_reasons() -> None:
    found = agreements(loop_rows(7, 2), list(WAYS), 0.03, 100, Settings())
    assert all(one["low"] is None and "7 reward models" in one["reason"] for one in found["measures"])
    dealt = agreements(loop_rows(3, 2), list(WAYS), 0.03, 100, Settings())["permutations"]
    assert all(one["error_p"] is None and "3 reward models with all shifts" in one["reason"] for one in dealt)
    nothing = agreements([{**one, "unit": None} for one in loop_rows(2, 2)], list(WAYS), 0.03, 100, Settings())
    assert nothing["measures"] == []
