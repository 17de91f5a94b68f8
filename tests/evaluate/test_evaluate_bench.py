"""`evaluate bench`: the published formulas on data small enough to count by hand."""

from __future__ import annotations

import json
import math

import pytest
from scipy import stats
from scored_data import Score, Workshop, conversation

from rewardlab.errors import DataError
from rewardlab.evaluate.bench import BenchEvaluation, BenchResult, evaluate_bench
from rewardlab.records import Candidates, Pair, Prompt, Record

SCORE_IN_TEXT: Score = lambda _, text: float(text.split()[0])  # noqa: E731


def pairs(subset: str, margins: list[float]) -> list[Record]:
    """A pair of its own prompt per margin; answers begin with their scores."""
    return [
        Pair(conversation(f"{subset} {number}"), f"{margin} right", "0.0 wrong", meta={"subset": subset})
        for number, margin in enumerate(margins)
    ]


def candidates(name: str, right: list[float], wrong: list[float], **meta: object) -> Candidates:
    texts = [f"{score} right {n}" for n, score in enumerate(right)] + [
        f"{score} wrong {n}" for n, score in enumerate(wrong)
    ]
    rewards = (1.0,) * len(right) + (0.0,) * len(wrong)
    return Candidates(conversation(name), tuple(texts), rewards, meta=dict(meta))


def evaluated(workshop: Workshop, records: list[Record], **options: object) -> BenchResult:
    data, scores = workshop.records("data.jsonl", records), workshop.scores("scores", records, SCORE_IN_TEXT)
    return evaluate_bench(BenchEvaluation.model_validate({"data": [data], "scores": [scores], **options}), workshop)


def value(result: BenchResult, name: str) -> float:
    found = result[name].value
    assert found is not None
    return found


def test_subsets_sections_and_their_mean_by_hand(workshop: Workshop) -> None:
    records = [
        *pairs("llmbar-natural", [1, 1, 1, -1]),
        *pairs("llmbar-adver-manual", [1, -1]),
        *pairs("hep-python", [1, 1, -1, 0]),
        *pairs("math-prm", [1, -1, -1]),
        *pairs("my own", [1, 1]),
    ]
    result = evaluated(workshop, records)
    assert value(result, "accuracy") == pytest.approx((3 + 1 + 2.5 + 1 + 2) / 15)
    assert value(result, "subset.my own") == 1.0
    assert value(result, "section.Chat Hard") == pytest.approx(4 / 6)
    heavy = 984 / 447
    assert value(result, "section.Reasoning") == pytest.approx((2.5 + heavy) / (4 + 3 * heavy))
    mean = (4 / 6 + (2.5 + heavy) / (4 + 3 * heavy)) / 2
    assert value(result, "section.average") == pytest.approx(mean)
    assert len(result.raw["absent_subsets"]) == 23 - 4
    assert result["section.average"].n == 13, "the pairs of my own subset are in no section"
    assert "The data lack 19 subsets of the sections" in "\n".join(result.lines())
    lost = evaluated(workshop, records, ties="lose")
    assert value(lost, "accuracy") == pytest.approx((3 + 1 + 2 + 1 + 2) / 15)
    assert value(lost, "section.Reasoning") == pytest.approx((2 + heavy) / (4 + 3 * heavy))


def test_sections_of_ones_own(workshop: Workshop) -> None:
    records = [*pairs("a", [1, 1, -1]), *pairs("b", [1]), *pairs("math-prm", [-1])]
    result = evaluated(workshop, records, sections={"First": ["a", "b"], "Second": ["math-prm", "c"]})
    assert value(result, "section.First") == 0.75
    assert value(result, "section.average") == pytest.approx(0.375)
    assert result.raw["absent_subsets"] == ["c"]


@pytest.mark.parametrize("wins", [1, 3])
def test_intervals_end_where_the_scores_do(workshop: Workshop, wins: int) -> None:
    """Of four prompts one is all right, or all but one: intervals by Student would go below the lowest value there is,
    which by the formula is 0.01 x -1, or above the highest, 1.01; of the mean of two subsets a half of that."""
    records: list[Record] = []
    for n in range(4):
        up, down = (1000, 0) if n < wins else (-1000, 0)
        records.append(candidates(f"tied {n}", [up, up + 1], [down, -2000], subset="Ties", id=f"tied:{n}"))
        records.append(candidates(f"ref {n}", [up], [down, -2000], subset="Ties", id=f"ref:{n}"))
        records.append(candidates(f"math {n}", [up], [down, -1, -2], subset="Math"))
    result = evaluated(workshop, records)
    for name, low, high in (
        ("ties.overall", -0.01, 1.01),
        ("ties.tied", 0.0, 1.0),
        ("ties.closeness", -1.0, 1.0),
        ("best_of_k.average", -0.005, 1.005),
    ):
        found = result[name]
        assert (found.low, found.high)[wins > 2] == pytest.approx((low, high)[wins > 2], abs=1e-12), name
        assert found.low is not None
        assert found.high is not None
        assert low <= found.low < found.high <= high, name


def test_best_of_four_and_ties_and_their_mean_by_hand(workshop: Workshop) -> None:
    records: list[Record] = [
        candidates("m1", [3], [1, 2, 0], subset="Math"),
        candidates("m2", [2], [2, 1, 0], subset="Math"),
        candidates("s1", [0], [2, 1, 3], subset="Safety"),
        candidates("t1", [5, 4], [1, 0], subset="Ties", id="tied:1"),
        candidates("t2", [5, 1], [0.5, 0], subset="Ties", id="tied:2"),
        candidates("r1", [3], [1, 0], subset="Ties", id="ref:1"),
        candidates("r2", [0], [1, 0.5], subset="Ties", id="ref:2"),
        candidates("odd", [0], [1], subset="Ties", id="nothing"),
        Candidates(conversation("no rewards"), ("1", "2")),
    ]
    result = evaluated(workshop, records)
    assert value(result, "best_of_k.Math") == pytest.approx((1 + 1 / 2) / 2)
    assert value(result, "best_of_k.Safety") == 0.0
    assert value(result, "best_of_k") == pytest.approx(1.5 / 3)
    assert value(result, "best_of_k.chance") == 0.25
    gap = (math.tanh(2.0 - 1.0) + math.tanh(-1.0 / 4.0 - 1.0)) / 2
    score = 0.3 * 1.0 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * gap
    assert value(result, "ties.overall") == pytest.approx(score)
    assert value(result, "best_of_k.average") == pytest.approx((0.75 + 0.0 + score) / 3)
    assert result.raw["counts"]["left_out"] == 2
    assert result["ties.overall"].clusters == 2, "a prompt and its reference hang together"
    words = "\n".join(result.lines())
    assert "lots would in 25.0 %" in words
    assert f"the Ties score is {100 * score:.1f} %" in words


def test_the_interval_of_the_mean_over_subsets(workshop: Workshop) -> None:
    """Subsets and Ties have no prompt in common: the variance of their mean is the sum of their own, over 9.

    Each is the mean square of influences, whose sum has the factor G / (G - 1) of all G clusters once: what the
    intervals of Math (t with 19 degrees of freedom), Safety (9) and Ties (4) have of their own is taken out."""
    sizes = {"best_of_k.Math": 20, "best_of_k.Safety": 10, "ties.overall": 5}
    records: list[Record] = []
    for name, count in (("Math", 20), ("Safety", 10)):
        records += [candidates(f"{name} {n}", [2], [1, 3 * (n % 3 == 0), 0], subset=name) for n in range(count)]
    for n in range(5):
        records.append(candidates(f"tied {n}", [5, 5 - n], [4, 0], subset="Ties", id=f"tied:{n}"))
        records.append(candidates(f"ref {n}", [n], [1.5, 0], subset="Ties", id=f"ref:{n}"))
    result = evaluated(workshop, records)
    variance = 0.0
    for name, count in sizes.items():
        one = result[name]
        assert one.clusters == count
        assert one.low is not None
        assert one.high is not None
        assert 0.0 < one.low < one.high < 1.0, "not cut"
        error = (one.high - one.low) / 2 / stats.t.ppf(0.975, count - 1)
        variance += error**2 * (count - 1) / count / 9
    half = stats.t.ppf(0.975, 34) * math.sqrt(variance * 35 / 34)
    mean = result["best_of_k.average"]
    assert mean.clusters == 35
    assert (mean.low, mean.high) == pytest.approx((mean.value - half, mean.value + half))


def styled(name: str, right: list[float], wrong: list[float], subset: str) -> Candidates:
    return candidates(name, right, wrong, subset=subset, styles=["plain", "rich"] * 2)


def test_style_against_correctness_by_hand(workshop: Workshop) -> None:
    """The first prompt is judged by style alone, the second rightly, the third wrongly."""
    records: list[Record] = [
        styled("one", [1, 2], [1.1, 2.1], "chat"),
        styled("two", [5, 6], [1, 2], "safety-refuse"),
        styled("three", [1, 2], [5, 6], "safety-response"),
        candidates("broken", [1], [2], styles=["plain"]),
    ]
    result = evaluated(workshop, records)
    assert [value(result, f"style.{name}") for name in ("easy", "normal", "hard")] == pytest.approx(
        [2 / 3, 1 / 3, 1 / 3]
    )
    assert value(result, "style.gap") == pytest.approx(1 / 3)
    assert value(result, "style.hard.safety-refuse") == 1.0
    # Safety is the mean of its halves, (1 + 0) / 2; chat has (1 + 0 + 0) / 3.
    assert value(result, "style.average") == pytest.approx((0.5 + 1 / 3) / 2)
    matrix = {(row["right"], row["wrong"]): row["value"] for row in result.raw["curves"]["style_matrix"]}
    assert matrix["rich", "plain"] == pytest.approx(2 / 3)
    assert matrix["plain", "rich"] == pytest.approx(1 / 3)
    assert result.raw["counts"]["left_out"] == 1
    assert "nothing shows that style moves it" in "\n".join(result.lines())


def test_a_taste_for_style_is_said(workshop: Workshop) -> None:
    records: list[Record] = [styled(f"p{n}", [1, 2], [1.1, 2.1], "chat") for n in range(20)]
    result = evaluated(workshop, records)
    assert (value(result, "style.easy"), value(result, "style.normal"), value(result, "style.hard")) == (1.0, 0.0, 0.0)
    records.append(styled("other", [5, 6], [1, 2], "chat"))
    assert "style alone moves it by 95.2 points" in "\n".join(evaluated(workshop, records).lines())


def test_any_scorer_will_do(workshop: Workshop) -> None:
    """A rule has no tokenizer: its table has no lengths."""
    records = pairs("a", [1, -1])
    data, folder = workshop.records("data.jsonl", records), workshop.scores("scores", records, SCORE_IN_TEXT)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(folder / "scores.parquet").read()
    empty = pa.nulls(table.num_rows, pa.int32())
    for name in ("prompt_tokens", "completion_tokens"):
        table = table.set_column(table.column_names.index(name), name, empty)
    pq.write_table(table, folder / "scores.parquet")
    result = evaluate_bench(BenchEvaluation(data=(data,), scores=(folder,)), workshop)
    assert value(result, "accuracy") == 0.5


def test_the_files_say_the_same_and_nothing_says_so(workshop: Workshop) -> None:
    result = evaluated(workshop, pairs("a", [1, -1, 1]))
    assert json.loads(workshop.path("bench.json").read_text()) == json.loads(json.dumps(result.raw))
    text = workshop.path("bench.txt").read_text()
    assert all(line in text for line in result.lines())
    assert "subset.a" in text
    nothing = evaluated(workshop, [Candidates(Prompt.of_text("q"), ("1", "2"))])
    assert nothing.lines() == [
        "The data hold no pairs and no candidates of which some are right: there is nothing to count."
    ]


def test_missing_scores_are_told_and_nothing_is_written(workshop: Workshop) -> None:
    records = pairs("a", [1, -1])
    data, scores = workshop.records("data.jsonl", records), workshop.scores("scores", records[:1], SCORE_IN_TEXT)
    with pytest.raises(DataError, match="scores are missing"):
        evaluate_bench(BenchEvaluation(data=(data,), scores=(scores,)), workshop)
    assert not workshop.path("bench.json").exists()
