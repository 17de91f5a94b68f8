"""Arms side by side: values and paired differences against scipy, a jackknife and calculations by hand."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from rewardlab.errors import ConfigError, DataError
from rewardlab.report import ablation, ablation_measures
from rewardlab.report.ablation import Ablation, ComparedArms, compare_arms
from rewardlab.store.runs import Run
from tests.report.test_report_page import Folder

PAIRS, PROMPTS, RESPONSES = 80, 30, 60


def write_pairs(
    folder: Path, margins: np.ndarray, *, gold: bool = True, rows: slice = slice(None), level: int = 0
) -> str:
    """Pairs 0 to 79, each a conversation of its own; even ones are longer by 5 tokens, odd ones shorter by 3, and the
    first so many as `level` says are equally long."""
    count = np.arange(PAIRS)
    table = pa.table(
        {
            "pair_id": [f"p{i}" for i in count],
            "occurrence": np.zeros(PAIRS, np.int32),
            "root_id": [f"r{i}" for i in count],
            "margin": margins,
            "gold_margin": np.where(count % 5 == 0, -1.0, 1.0) if gold else pa.nulls(PAIRS, pa.float64()),
            "chosen_tokens": np.where(count % 2 == 0, 25, 20).astype(np.int32),
            "rejected_tokens": np.where(count < level, 25 - 5 * (count % 2), 20 + 3 * (count % 2)).astype(np.int32),
        }
    )
    folder.mkdir(parents=True)
    # The order of a file says nothing: rows are matched by their ids.
    pq.write_table(
        table.take(pa.array(np.random.default_rng(len(str(folder))).permutation(PAIRS)))[rows], folder / "pairs.parquet"
    )
    return str(folder)


def write_triples(folder: Path, effect: np.ndarray, original: np.ndarray, scorers: int = 1) -> str:
    treated = np.arange(RESPONSES) % 2 == 0
    sign = np.where(treated, 1.0, -1.0)
    table = pa.table(
        {
            "id": [f"t{i}" for i in range(RESPONSES)],
            "prompt_id": [f"q{i}" for i in range(RESPONSES)],
            "draw": np.zeros(RESPONSES, np.int32),
            "scorer": [f"m{i % scorers}" for i in range(RESPONSES)],
            "treated": treated,
            "original_reward": original,
            "rewrite_reward": original - sign * effect,
            "rerewrite_reward": original,
        }
    )
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "triples.parquet")
    return str(folder)


def write_candidates(folder: Path, slope: float, seed: int) -> str:
    """Four answers to each of 30 prompts: reward = slope x tokens + noise."""
    generator = np.random.default_rng(seed)
    tokens = np.tile([10, 20, 30, 40], PROMPTS)
    scores = slope * tokens + generator.normal(size=len(tokens)) * 10
    prompts = np.repeat([f"q{i}" for i in range(PROMPTS)], 4)
    folder.mkdir(parents=True)
    table = pa.table({"prompt_id": prompts, "completion_tokens": tokens.astype(np.int32), "score": scores})
    pq.write_table(table, folder / "scores.parquet")
    return str(folder)


def run(folder: Path, arms: dict[str, Any], baseline: str = "standard") -> tuple[ComparedArms, dict[str, Any]]:
    report = Folder(folder / "report")
    found = compare_arms(Ablation(arms=arms, baseline=baseline), cast(Run, report))
    values = json.loads((folder / "report" / "ablation.json").read_text())
    by_name = {one["name"]: {arm["arm"]: arm for arm in one["arms"]} for one in values["measures"]}
    return found, by_name


def test_the_comparison_of_a_mend_works_as_its_page_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits before are `audit run`, whose effects are a step; those after are `audit effects`."""
    page = (Path(__file__).resolve().parents[2] / "docs/mend.md").read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL) if "evaluate ablation" in one]
    config = Ablation.build(yaml.safe_load(block))
    generator = np.random.default_rng(3)
    monkeypatch.chdir(tmp_path)
    for name, arm in config.arms.items():
        for place in arm.evaluate:
            write_pairs(place, generator.normal(size=PAIRS))
        effect = np.full(RESPONSES, 2.0 if name == "before" else 0.5)
        for place in arm.effects:
            inside = place / "steps" / "effects" if name == "before" else place
            write_triples(inside, effect, generator.normal(size=RESPONSES))
    found = compare_arms(config, cast(Run, Folder(tmp_path / "report")))
    before, mended = found.results["effect"]
    assert (len(before.seeds), len(mended.seeds)) == (2, 2)
    assert mended.gain is not None
    assert mended.gain.value is not None
    assert mended.gain.value < -1.0


def test_pairs_are_compared_one_by_one_over_the_mean_of_the_seeds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    margins = {
        arm: [generator.normal(size=PAIRS) + shift for _ in range(3)]
        for arm, shift in (("standard", 0.2), ("cut", 0.9))
    }
    arms = {
        arm: {"evaluate": [write_pairs(tmp_path / f"{arm}-{seed}", one) for seed, one in enumerate(seeds)]}
        for arm, seeds in margins.items()
    }
    _, found = run(tmp_path, arms)
    right = {arm: np.mean([one > 0 for one in seeds], axis=0) for arm, seeds in margins.items()}
    gain = found["accuracy"]["cut"]["difference"]
    apart = right["cut"] - right["standard"]
    assert gain["value"] == pytest.approx(apart.mean(), abs=1e-12)
    # Two sources of variance: the pairs, and the seeds of both arms.
    of_seeds = [np.var([(one > 0).mean() for one in margins[arm]], ddof=1) / 3 for arm in margins]
    variance = apart.var(ddof=1) / PAIRS + sum(of_seeds)
    freedom = variance**2 / ((apart.var(ddof=1) / PAIRS) ** 2 / (PAIRS - 1) + sum(one**2 / 2 for one in of_seeds))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert (gain["low"], gain["high"]) == pytest.approx((apart.mean() - half, apart.mean() + half), abs=1e-10)
    assert found["accuracy"]["standard"]["difference"] is None
    assert found["accuracy"]["standard"]["seeds"] == pytest.approx(
        [float((one > 0).mean()) for one in margins["standard"]]
    )

    sign = np.where(np.arange(PAIRS) % 5 == 0, -1, 1)
    agrees = np.mean([one * sign > 0 for one in margins["cut"]], axis=0)
    assert found["gold_accuracy"]["cut"]["value"] == pytest.approx(agrees.mean(), abs=1e-12)
    longer = np.mean([np.where(np.arange(PAIRS) % 2 == 0, one > 0, one < 0) for one in margins["cut"]], axis=0)
    assert found["longer_scores_higher"]["cut"]["value"] == pytest.approx(longer.mean(), abs=1e-12)


def test_with_one_seed_it_is_the_paired_t_test(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    first, second = generator.normal(0.2, size=PAIRS), generator.normal(0.6, size=PAIRS)
    arms = {
        "standard": {"evaluate": write_pairs(tmp_path / "a", first)},
        "cut": {"evaluate": write_pairs(tmp_path / "b", second)},
    }
    gain = run(tmp_path, arms)[1]["accuracy"]["cut"]["difference"]
    truth = stats.ttest_rel((second > 0) * 1.0, (first > 0) * 1.0)
    span = truth.confidence_interval()
    assert (gain["low"], gain["high"], gain["p"]) == pytest.approx((span.low, span.high, truth.pvalue), abs=1e-10)


def test_only_what_all_hold_is_compared(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(size=(2, PAIRS))
    arms = {
        "standard": {"evaluate": write_pairs(tmp_path / "a", first, gold=False)},
        "cut": {"evaluate": write_pairs(tmp_path / "b", second, rows=slice(0, 50), gold=False)},
    }
    _, found = run(tmp_path, arms)
    assert {one["n"] for one in found["accuracy"].values()} == {50}
    assert "gold_accuracy" not in found


def test_pairs_of_equal_length_say_nothing_of_length(tmp_path: Path) -> None:
    """60 of 80 pairs differ in length: the interval is that of a mean over a part of the sample (Cochran 1977, section
    2.12), sd of the part / sqrt(60), with the 80 clusters of the sample."""
    generator = np.random.default_rng(5)
    first, second = generator.normal(size=(2, PAIRS))
    arms = {
        "standard": {"evaluate": write_pairs(tmp_path / "a", first, level=20)},
        "cut": {"evaluate": write_pairs(tmp_path / "b", second, level=20)},
    }
    found = run(tmp_path, arms)[1]["longer_scores_higher"]
    sign = np.where(np.arange(PAIRS) % 2 == 0, 1, -1)
    longer, reference = ((one * sign > 0)[20:] * 1.0 for one in (second, first))
    for one, values in ((found["cut"], longer), (found["cut"]["difference"], longer - reference)):
        assert one["value"] == pytest.approx(values.mean(), abs=1e-12)
        assert one["error"] == pytest.approx(values.std() / np.sqrt(60) * np.sqrt(80 / 79), rel=1e-12)


def test_the_effect_is_that_of_the_audit_in_sd(tmp_path: Path) -> None:
    """An effect of 2 for every response over originals with a known pooled sd; the baseline has 1 in other units."""
    generator = np.random.default_rng(2)
    original = generator.normal(size=RESPONSES)
    effect = np.full(RESPONSES, 2.0) + generator.normal(size=RESPONSES) * 0.1
    treated = np.arange(RESPONSES) % 2 == 0
    sd = np.sqrt(
        sum(((original[group] - original[group].mean()) ** 2).sum() for group in (treated, ~treated)) / (RESPONSES - 2)
    )
    arms = {
        "standard": {"effects": [write_triples(tmp_path / "a", effect / 2, original)]},
        "cut": {"effects": [write_triples(tmp_path / "b", effect, original)]},
        # Ten times the reward is the same model.
        "scaled": {"effects": [write_triples(tmp_path / "c", effect * 10, original * 10)]},
    }
    found = run(tmp_path, arms)[1]["effect"]
    assert found["cut"]["value"] == pytest.approx(effect.mean() / sd, rel=1e-12)
    assert found["standard"]["value"] == pytest.approx(effect.mean() / 2 / sd, rel=1e-12)
    assert found["scaled"]["low"] == pytest.approx(found["cut"]["low"], rel=1e-9)
    # Jackknife: an independent truth for the influence of numerator and unit together.
    ratios = []
    for left_out in range(RESPONSES):
        kept = np.arange(RESPONSES) != left_out
        squares = sum(
            ((original[group] - original[group].mean()) ** 2).sum() for group in (treated & kept, ~treated & kept)
        )
        ratios.append(effect[kept].mean() / np.sqrt(squares / (RESPONSES - 3)))
    jackknife = np.sqrt((RESPONSES - 1) ** 2 / RESPONSES * np.var(ratios, ddof=1))
    assert found["cut"]["error"] == pytest.approx(jackknife, rel=0.1)


def effect_arms(folder: Path, effects: dict[str, list[float]]) -> dict[str, Any]:
    """Arms of models with these effects in units of their rewards, give or take what each response adds."""
    generator = np.random.default_rng(21)
    original, shared = generator.normal(size=(2, RESPONSES))
    return {
        name: {
            "effects": [
                write_triples(
                    folder / f"{name}-{seed}",
                    size * (1 + 0.2 * shared) + 0.2 * generator.normal(size=RESPONSES),
                    original,
                )
                for seed, size in enumerate(sizes)
            ]
        }
        for name, sizes in effects.items()
    }


def test_what_is_left_of_the_effect_is_fiellers_interval(tmp_path: Path) -> None:
    """With one seed, by Fieller's quadratic; its variances are those of the values' own intervals and the difference's:
    2 cov(a, b) = V(a) + V(b) - V(a - b)."""
    output, measures = run(tmp_path, effect_arms(tmp_path, {"standard": [1.0], "mended": [0.2], "half": [0.5]}))
    found = measures["effect"]
    t2 = stats.t.ppf(0.975, RESPONSES - 1) ** 2
    a, b, apart = found["mended"], found["standard"], found["mended"]["difference"]
    both = (a["error"] ** 2 + b["error"] ** 2 - apart["error"] ** 2) / 2
    quadratic = [
        b["value"] ** 2 - t2 * b["error"] ** 2,
        -2 * (a["value"] * b["value"] - t2 * both),
        a["value"] ** 2 - t2 * a["error"] ** 2,
    ]
    left = a["left"]
    assert left["value"] == pytest.approx(a["value"] / b["value"], rel=1e-12)
    assert (left["low"], left["high"]) == pytest.approx(tuple(sorted(np.roots(quadratic).real)), rel=1e-6)
    assert (left["n"], left["clusters"], left["reason"]) == (RESPONSES, RESPONSES, "")
    assert found["standard"]["left"] is None
    half = found["half"]["left"]
    assert half["low"] < 0.5 < half["high"]

    ends = [f"{100 * one[name]:.1f}" for one in (left, half) for name in ("value", "low", "high")]
    shares = [f"{value} % of the effect is left ({low} to {high})" for value, low, high in (ends[:3], ends[3:])]
    told = f"Against standard, in mended {shares[0]}, less than half; in half {shares[1]}."
    assert told in output.findings
    html = output.page.read_text(encoding="utf-8")
    assert "Left of standard (%)" in html
    assert "{} ({} to {})".format(*ends[:3]) in html
    rows = {
        row["arm"]: row for row in json.loads((tmp_path / "report" / "tables" / "effects.json").read_text())["rows"]
    }
    for name in ("value", "low", "high"):
        assert rows["mended"][f"left_{name}"] == left[name]
        assert rows["standard"][f"left_{name}"] is None


def test_seeds_widen_what_is_left_as_they_widen_the_difference(tmp_path: Path) -> None:
    """At either end the interval of arm - rho x baseline, over responses and seeds, touches 0."""
    _, measures = run(tmp_path, effect_arms(tmp_path, {"standard": [0.9, 1.0, 1.2], "mended": [0.1, 0.3]}))
    found = measures["effect"]
    a, b = found["mended"], found["standard"]
    of_seeds = [np.var(one["seeds"], ddof=1) / len(one["seeds"]) for one in (a, b)]
    of_data = [one["error"] ** 2 - variance for one, variance in zip((a, b), of_seeds, strict=True)]
    both = (sum(of_data) - (a["difference"]["error"] ** 2 - sum(of_seeds))) / 2
    for rho in (a["left"]["low"], a["left"]["high"]):
        parts = [of_data[0] - 2 * rho * both + rho**2 * of_data[1], of_seeds[0], rho**2 * of_seeds[1]]
        nu = sum(parts) ** 2 / sum(one**2 / df for one, df in zip(parts, (RESPONSES - 1, 1, 2), strict=True))
        assert abs(a["value"] - rho * b["value"]) == pytest.approx(
            stats.t.ppf(0.975, nu) * np.sqrt(sum(parts)), rel=1e-6
        )


def test_of_no_effect_no_share_is_left(tmp_path: Path) -> None:
    """The baseline's effect cannot be told from 0; another is the baseline itself."""
    arms = effect_arms(tmp_path, {"standard": [0.001], "mended": [0.5]})
    output, measures = run(tmp_path, arms)
    standard, left = measures["effect"]["standard"], measures["effect"]["mended"]["left"]
    assert standard["low"] < 0 < standard["high"]
    reason = "what it is a share of cannot be told from 0"
    assert (left["low"], left["high"], left["reason"]) == (None, None, reason)
    assert f"Against standard, what is left of it in mended cannot be said: {reason}." in output.findings
    assert f"none: {reason}" in output.page.read_text(encoding="utf-8")

    other = tmp_path / "same"
    arms = effect_arms(other, {"standard": [1.0]})
    output, measures = run(other, {**arms, "mended": arms["standard"]})
    left = measures["effect"]["mended"]["left"]
    assert (left["value"], left["low"], left["reason"]) == (
        1.0,
        None,
        measures["effect"]["mended"]["difference"]["reason"],
    )
    assert any(
        "in mended 100.0 % of the effect is left, without an interval: all clusters" in x for x in output.findings
    )


def test_within_prompt_correlation_is_the_mean_over_prompts(tmp_path: Path) -> None:
    arms = {
        "standard": {"candidates": [write_candidates(tmp_path / f"a{seed}", 1.0, seed) for seed in range(2)]},
        "cut": {"candidates": [write_candidates(tmp_path / "b", 0.0, 9)]},
    }
    found = run(tmp_path, arms)[1]["within_prompt"]
    means = []
    for seed in range(2):
        table = pq.read_table(tmp_path / f"a{seed}" / "scores.parquet")
        scores = table["score"].to_numpy().reshape(PROMPTS, 4)
        means.append(np.mean([stats.pearsonr([10, 20, 30, 40], one).statistic for one in scores]))
    assert found["standard"]["value"] == pytest.approx(np.mean(means), abs=1e-12)
    assert found["standard"]["n"] == PROMPTS
    assert found["cut"]["difference"]["high"] < 0


def test_a_finding_tells_the_value_of_an_arm_from_its_difference(tmp_path: Path) -> None:
    """By hand: right in 20 of 80 pairs, and in 60 of them: 25 %, and 75 %, that is 50 points more."""
    places = np.arange(PAIRS)
    arms = {
        "standard": {"evaluate": write_pairs(tmp_path / "a", np.where(places < 20, 1.0, -1.0), gold=False)},
        "cut": {"evaluate": write_pairs(tmp_path / "b", np.where(places < 60, 1.0, -1.0), gold=False)},
    }
    output, _ = run(tmp_path, arms)
    apart = stats.ttest_1samp(np.where((places >= 20) & (places < 60), 1.0, 0.0), 0.0).confidence_interval()
    expected = f"standard 25.0 %; cut 75.0 %, that is +50.0 points ({100 * apart.low:.1f} to {100 * apart.high:.1f})"
    assert f"Accuracy on the pairs: {expected} against standard." in output.findings


@pytest.mark.parametrize("lacking", ["cut", "standard"])
def test_an_arm_without_a_number_says_which_folder_lacks_it(tmp_path: Path, lacking: str) -> None:
    """One of two seeds has pairs without a gold reward; of the other measures nothing is missing."""
    generator = np.random.default_rng(6)
    arms = {
        name: {
            "evaluate": [
                write_pairs(
                    tmp_path / f"{name}-{seed}", generator.normal(size=PAIRS) + 1, gold=(name, seed) != (lacking, 1)
                )
                for seed in range(2)
            ]
        }
        for name in ("standard", "cut", "balanced")
    }
    output, found = run(tmp_path, arms)
    gold = found["gold_accuracy"]
    reason = f"pairs without a gold reward ({tmp_path / lacking}-1)"
    assert {name: one["reason"] for name, one in gold.items()} == {
        name: reason if name == lacking else "" for name in arms
    }
    assert {name for name, one in gold.items() if one["value"] is None} == {lacking}
    assert len(gold[lacking]["seeds"]) == 1
    assert (gold[lacking]["n"], gold[lacking]["clusters"]) == (PAIRS, PAIRS)
    told = {name: one["difference"] for name, one in gold.items() if name != "standard"}
    without = {"cut"} if lacking == "cut" else {"cut", "balanced"}
    assert {name for name, one in told.items() if one["value"] is None and one["reason"] == reason} == without
    assert all(one["value"] is not None for one in found["accuracy"].values())
    sentence = next(line for line in output.findings if line.startswith("Agreement with the gold reward"))
    assert f"{lacking} has none: {reason}" in sentence
    assert f"none: {reason}" in output.page.read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "report" / "tables" / "effects.json").read_text())["rows"]
    assert [row["arm"] for row in rows if row["reason"] == reason] == [lacking]
    assert (tmp_path / "report" / "figures" / "arms-gold-accuracy.svg").is_file()


def test_a_model_that_gives_all_the_same_has_no_effect_in_sd(tmp_path: Path) -> None:
    original = np.random.default_rng(8).normal(size=RESPONSES)
    arms = {
        "standard": {"effects": [write_triples(tmp_path / "a", np.ones(RESPONSES), original)]},
        "flat": {"effects": [write_triples(tmp_path / "flat", np.zeros(RESPONSES), np.zeros(RESPONSES))]},
    }
    flat = run(tmp_path, arms)[1]["effect"]["flat"]
    assert (flat["value"], flat["difference"]["value"], flat["left"]["value"]) == (None, None, None)
    assert flat["left"]["reason"] == flat["reason"]
    assert "rewards that are all the same" in flat["reason"]
    assert str(tmp_path / "flat") in flat["reason"]


def test_every_file_is_read_and_every_statistic_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(9)
    arms = {
        name: {
            "evaluate": [write_pairs(tmp_path / f"{name}-{seed}", generator.normal(size=PAIRS)) for seed in range(2)]
        }
        for name in ("standard", "cut")
    }
    read: list[Path] = []
    computed: list[str] = []
    table = ablation_measures.pq.read_table

    def counted(path: Path, **options: Any) -> Any:
        read.append(path)
        return table(path, **options)

    def noted(measure: ablation_measures.Measure) -> ablation_measures.Measure:
        def statistic(columns: Any) -> Any:
            computed.append(measure.name)
            return measure.statistic(columns)

        return replace(measure, statistic=statistic)

    monkeypatch.setattr(ablation_measures.pq, "read_table", counted)
    monkeypatch.setattr(ablation, "MEASURES", tuple(map(noted, ablation.MEASURES)))
    run(tmp_path, arms)
    assert sorted(read) == sorted(tmp_path / f"{name}-{seed}" / "pairs.parquet" for name in arms for seed in range(2))
    assert Counter(computed) == dict.fromkeys(("accuracy", "gold_accuracy", "longer_scores_higher"), 4)


def test_the_page_names_the_arms_and_the_table_has_every_value(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    original = generator.normal(size=RESPONSES)
    arms = {
        name: {
            "evaluate": write_pairs(tmp_path / f"pairs-{place}", generator.normal(size=PAIRS) + place),
            "effects": write_triples(
                tmp_path / f"triples-{place}", np.full(RESPONSES, 1.0 - place) + original, original
            ),
        }
        for place, name in enumerate(("standard", "<script>alert(1)</script>"))
    }
    found, _ = run(tmp_path, arms)
    html = found.page.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    rows = json.loads((tmp_path / "report" / "tables" / "effects.json").read_text())["rows"]
    assert len(rows) == 2 * 4
    assert (tmp_path / "report" / "figures" / "trade-effect-accuracy.svg").is_file()
    assert any("standard" in line for line in found.lines())


def test_what_cannot_be_compared_is_told_at_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    good = write_pairs(tmp_path / "a", generator.normal(size=PAIRS))
    two = write_triples(tmp_path / "two", np.ones(RESPONSES), generator.normal(size=RESPONSES), scorers=2)
    one = write_triples(tmp_path / "one", np.ones(RESPONSES), generator.normal(size=RESPONSES))
    arms = {"standard": {"evaluate": good, "effects": one}, "cut": {"evaluate": str(tmp_path / "gone"), "effects": two}}
    with pytest.raises(DataError) as caught:
        run(tmp_path, arms)
    places = "\n".join(str(problem) for problem in caught.value.problems)
    assert "gone" in places
    assert "2 reward models" in places
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "report" / "ablation.json").exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"arms": {"a": {"evaluate": "x"}, "b": {"evaluate": "y"}}, "baseline": "c"}, "one of a, b"),
        ({"arms": {"a": {"evaluate": "x"}, "b": {}}, "baseline": "a"}, "none for b"),
    ],
)
def test_arms_that_say_nothing_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Ablation.build(values)
