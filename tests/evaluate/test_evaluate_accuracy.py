"""The verb from files to files: numbers counted by hand, and models whose bias is set by construction."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scored_data import Workshop, conversation, score_rows

from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluate.accuracy import AccuracyEvaluation, AccuracyResult, evaluate_accuracy
from rewardlab.records import Candidates, Pair, Prompt, Rated, Source

RNG = np.random.default_rng
REPOSITORY = Path(__file__).resolve().parents[2]


def number(prompt: Prompt, text: str) -> float:
    """The score that a completion carries as its first word."""
    return float(text.split()[0])


def words(count: int, first: str = "0") -> str:
    return " ".join([first, *["word"] * (count - 1)])


def random_pairs(seed: int, n: int, prompts: int) -> list[Pair]:
    """Pairs with scores as their first words: margins are normal about 0.5, lengths uniform."""
    rng = RNG(seed)
    pairs = []
    for index in range(n):
        scores, lengths = rng.normal([0.5, 0.0], 1.0), rng.integers(2, 60, size=2)
        sides = [words(int(length), f"{score:.6f}") for score, length in zip(scores, lengths, strict=True)]
        source = Source("pairs.jsonl", index + 1)
        pairs.append(Pair(conversation(f"prompt {index % prompts}"), sides[0], sides[1], source=source))
    return pairs


def evaluated(workshop: Workshop, records: list[Any], score: Any = number, **options: Any) -> AccuracyResult:
    data, scores = workshop.records("data.jsonl", records), workshop.scores("scored", records, score)
    return evaluate_accuracy(AccuracyEvaluation(data=(data,), scores=(scores,), **options), workshop)


HAND = [
    # Right, wrong, right, tie; the chosen side is longer, longer, shorter, equally long.
    Pair(conversation("a"), words(5, "2"), words(3, "1"), 1.0, Source("f", 1), {"subset": "easy"}),
    Pair(conversation("a"), words(6, "0"), words(2, "3"), 2.0, Source("f", 2), {"subset": "hard"}),
    Pair(conversation("b"), words(2, "1"), words(9, "0.5"), None, Source("f", 3), {"subset": "hard"}),
    Pair(conversation("c"), words(4, "1") + " x", words(4, "1") + " y", 4.0, Source("f", 4)),
]


def test_counts_and_shares_by_hand(workshop: Workshop) -> None:
    result = evaluated(workshop, HAND)
    expected = {
        "accuracy": 2.5 / 4,
        "accuracy.ties": 1 / 4,
        "accuracy.ties_lose": 2 / 4,
        "accuracy.ties_win": 3 / 4,
        "accuracy.subset.easy": 1.0,
        "accuracy.subset.hard": 0.5,
        "margin.mean": (1.0 - 3.0 + 0.5 + 0.0) / 4,
        "calibration.log_loss": sum(math.log1p(math.exp(-d)) for d in (1.0, -3.0, 0.5, 0.0)) / 4,
        "calibration.confidence": sum(1 / (1 + math.exp(-d)) for d in (1.0, 3.0, 0.5, 0.0)) / 4,
        "margin.given_pearson": stats.pearsonr([1.0, -3.0, 0.0], [1.0, 2.0, 4.0]).statistic,
        "length.tokens.heuristic_accuracy": 2.5 / 4,
        "length.tokens.accuracy_longer_chosen": 0.5,
        "length.tokens.accuracy_shorter_chosen": 1.0,
        "length.tokens.accuracy_gap": -0.5,
        "length.tokens.longer_scores_higher": 1 / 3,
        "length.tokens.longer_is_chosen": 2 / 3,
        "length.tokens.delta_pearson": stats.pearsonr([2, 4, -7, 0], [1.0, -3.0, 0.5, 0.0]).statistic,
        "length.tokens.delta_spearman": stats.spearmanr([2, 4, -7, 0], [1.0, -3.0, 0.5, 0.0]).statistic,
        # The four completions of prompt a.
        "length.tokens.within_prompt_pearson": stats.pearsonr([5, 3, 6, 2], [2, 1, 0, 3]).statistic,
        "length.tokens.within_prompt_kendall": stats.kendalltau([5, 3, 6, 2], [2, 1, 0, 3]).statistic,
        "baselines.longer_tokens.accuracy": 2.5 / 4,
        "baselines.longer_tokens.gain": 0.0,
    }
    assert {name: result[name].value for name in expected} == pytest.approx(expected)
    counts = {"records": 4, "pairs": 4, "prompts": 3, "roots": 3, "clusters": 3, "completions": 8, "ties": 1}
    counts |= {"equal_length_pairs": 1, "within_prompt_prompts": 1, "within_prompt_too_few": 2, "duplicate_pairs": 0}
    assert {name: result.counts[name] for name in counts} == counts
    assert (result["accuracy"].n, result["accuracy"].clusters) == (4, 3)


def test_every_estimate_of_the_contract_is_there_and_explains_itself(workshop: Workshop) -> None:
    result = evaluated(workshop, HAND)
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    for group, estimates in result.estimates.items():
        assert f"| `{group}` |" in text
        for one in estimates:
            assert one.reading.endswith("."), one.name
            assert (one.value is None) <= bool(one.reason), one.name
            assert (one.low is None) == (one.high is None)
            assert (one.low is None) <= bool(one.reason), one.name
            if one.low is not None and one.high is not None and one.value is not None:
                assert one.low <= one.value <= one.high, one.name
                assert one.method, one.name
    names = [one.name for estimates in result.estimates.values() for one in estimates]
    assert len(names) == len(set(names))
    for unit in ("tokens", "characters"):
        for kind in ("longer_is_chosen", "accuracy_gap", "delta_spearman", "pooled_pearson", "within_prompt_kendall"):
            assert f"length.{unit}.{kind}" in names
    for probe in ("shuffled_prompt", "response_only"):
        assert {f"ignorance.{probe}.accuracy", f"ignorance.{probe}.lost"} <= set(names)
    assert list(result.estimates) == [
        "accuracy",
        "calibration",
        "margin",
        "length",
        "ignorance",
        "baselines",
        "agreement",
        "gold",
    ]
    assert list(result.curves) == [
        "reliability",
        "confidence",
        "margins",
        "length_bins",
        "length_scores",
        "balanced_bins",
    ]
    documented = text[text.index("`counts`:") :].split("\n\n")[0]
    assert all(name in documented for name in result.counts)


def test_files_are_the_contract(workshop: Workshop) -> None:
    result = evaluated(workshop, HAND)
    written = json.loads(workshop.path("accuracy.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(result.as_dict()))
    summary = workshop.path("accuracy.txt").read_text(encoding="utf-8")
    assert summary.startswith("\n\n".join(result.lines()))
    assert "\naccuracy.ties " in summary
    rows = pq.ParquetFile(workshop.path("pairs.parquet")).read().to_pylist()
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    documented = text[text.index("**pairs.parquet**") :]
    assert all(column in documented for column in rows[0])
    assert [row["pair_id"] for row in rows] == [pair.id for pair in HAND]
    assert rows[1] == {
        "pair_id": HAND[1].id,
        "occurrence": 0,
        "prompt_id": HAND[1].prompt.id,
        "root_id": HAND[1].prompt.root_id,
        "prompt": "\n\nHuman: a\n\nAssistant:",
        "chosen": HAND[1].chosen,
        "rejected": HAND[1].rejected,
        "chosen_score": 0.0,
        "rejected_score": 3.0,
        "margin": -3.0,
        "given_margin": 2.0,
        "chosen_tokens": 6,
        "rejected_tokens": 2,
        "chosen_characters": len(HAND[1].chosen),
        "rejected_characters": len(HAND[1].rejected),
        "chosen_truncated": False,
        "rejected_truncated": False,
        "subset": "hard",
        "fold": 0,
        "source": "f:2",
        "shuffled_prompt_margin": None,
        "response_only_margin": None,
        "bag_of_words_margin": None,
        "gold_margin": None,
    }


def test_the_same_configuration_gives_the_same_bytes(workshop: Workshop) -> None:
    records = random_pairs(1, 60, 20)
    evaluated(workshop, records, seed=3)
    first = [workshop.path(name).read_bytes() for name in ("accuracy.json", "accuracy.txt", "pairs.parquet")]
    evaluated(workshop, records, seed=3)
    assert [workshop.path(name).read_bytes() for name in ("accuracy.json", "accuracy.txt", "pairs.parquet")] == first


def test_intervals_are_clustered_by_what_was_asked(workshop: Workshop) -> None:
    first = random_pairs(2, 40, 10)
    longer = [
        Pair(Prompt((*pair.prompt.messages, *conversation("and?").messages)), pair.rejected, pair.chosen)
        for pair in first
    ]
    by_prompt = evaluated(workshop, [*first, *longer])["accuracy"]
    by_root = evaluated(workshop, [*first, *longer], cluster="root")["accuracy"]
    assert (by_prompt.clusters, by_root.clusters) == (20, 10)
    assert "clustered by prompt" in by_prompt.method
    assert "clustered by conversation root" in by_root.method
    # Every conversation holds each pair both ways round: within a root, right and wrong cancel exactly.
    assert by_prompt.low is not None
    assert by_root.low is None


def test_a_model_that_only_knows_length_is_found_out(workshop: Workshop) -> None:
    result = evaluated(workshop, random_pairs(3, 400, 400), lambda _, text: float(len(text.split())))
    assert result["length.tokens.longer_scores_higher"].value == 1.0
    assert result["length.tokens.accuracy_longer_chosen"].value == 1.0
    assert result["length.tokens.accuracy_shorter_chosen"].value == 0.0
    assert result["length.tokens.accuracy_gap"].value == 1.0
    assert result["length.tokens.accuracy_balanced"].value == 0.5
    assert result["length.tokens.delta_pearson"].value == pytest.approx(1.0)
    assert result["length.tokens.pooled_spearman"].value == pytest.approx(1.0)
    assert result["baselines.longer_tokens.gain"].value == 0.0


def test_a_model_that_ignores_length_is_acquitted(workshop: Workshop) -> None:
    result = evaluated(workshop, random_pairs(4, 1500, 1500))
    for name, reference in (("longer_scores_higher", 0.5), ("accuracy_gap", 0.0), ("delta_pearson", 0.0)):
        found = result[f"length.tokens.{name}"]
        assert found.low is not None
        assert found.high is not None
        assert found.low < reference < found.high
    # Margins are normal with mean .5 and variance 2: P(margin > 0) = Phi(.5 / sqrt 2) = .638.
    accuracy = result["accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low < stats.norm.cdf(0.5 / math.sqrt(2)) < accuracy.high


def test_probes_stand_beside_the_accuracy_with_their_paired_difference(workshop: Workshop) -> None:
    records = random_pairs(5, 200, 200)
    workshop.scores("scored", records, lambda _, text: -number(_, text), "scores.shuffled_prompt.parquet")
    result = evaluated(workshop, records)
    accuracy, probe = result["accuracy"].value, result["ignorance.shuffled_prompt.accuracy"].value
    assert accuracy is not None
    assert probe == pytest.approx(1 - accuracy)
    lost = result["ignorance.shuffled_prompt.lost"]
    assert lost.value == pytest.approx(2 * accuracy - 1)
    differences = [2 * (number(r.prompt, r.chosen) > number(r.prompt, r.rejected)) - 1 for r in records]
    expected = stats.t.interval(0.95, 199, loc=np.mean(differences), scale=stats.sem(differences))
    assert (lost.low, lost.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert result["ignorance.response_only.lost"].value is None
    assert "scores.response_only.parquet" in result["ignorance.response_only.lost"].reason
    rows = pq.ParquetFile(workshop.path("pairs.parquet")).read().to_pylist()
    assert all(row["shuffled_prompt_margin"] == -row["margin"] for row in rows)


def golden(scores: tuple[float, float], gold: tuple[Any, Any]) -> Pair:
    """A pair whose sides have these scores and, in `meta`, these gold rewards."""
    chosen, rejected = ({"gold": one, "author": "a"} for one in gold)
    name = f"{scores} {gold}"
    return Pair(conversation(name), f"{scores[0]} x", f"{scores[1]} y", meta={"chosen": chosen, "rejected": rejected})


def test_labels_and_scores_are_held_against_gold_where_pairs_carry_it(workshop: Workshop) -> None:
    """By hand: gold ties in the fourth pair, the first two are clear, the last two carry none."""
    known = [golden((2, 1), (5, 0)), golden((1, 2), (0, 5)), golden((1, 2), (1, 0)), golden((3, 1), (2, 2))]
    result = evaluated(workshop, [*known, HAND[0], golden((1, 2), ("high", None))])
    values = {name: result[f"gold.{name}"].value for name in ("accuracy_of_labels", "accuracy", "accuracy_clear")}
    assert values == pytest.approx(
        {"accuracy_of_labels": (1 + 0 + 1 + 0.5) / 4, "accuracy": (1 + 1 + 0 + 0.5) / 4, "accuracy_clear": 1.0}
    )
    assert [result[f"gold.{name}"].n for name in values] == [4, 4, 2]
    assert "The truth is known here" in " ".join(result.lines())
    rows = pq.ParquetFile(workshop.path("pairs.parquet")).read(["gold_margin"])["gold_margin"].to_pylist()
    assert rows == [5.0, -5.0, 1.0, 0.0, None, None]


def test_without_gold_nothing_is_said_of_it(workshop: Workshop) -> None:
    result = evaluated(workshop, HAND)
    assert [one.reason for one in result.estimates["gold"]] == ["the pairs carry no gold reward"] * 3
    assert "truth" not in " ".join(result.lines())


def test_folds_are_kept_apart_and_pooled(workshop: Workshop) -> None:
    parts = [random_pairs(6, 50, 50), random_pairs(7, 70, 70)]
    data = tuple(workshop.records(f"test{fold}.jsonl", part) for fold, part in enumerate(parts))
    # The second model's scores sit elsewhere: preferences leave the constant free.
    shifts = (0.0, 1000.0)
    scores = tuple(
        workshop.scores(f"fold{fold}", part, lambda prompt, text, shift=shift: number(prompt, text) + shift)
        for fold, (part, shift) in enumerate(zip(parts, shifts, strict=True))
    )
    result = evaluate_accuracy(AccuracyEvaluation(data=data, scores=scores), workshop)
    alone = [evaluated(workshop, part)["accuracy"].value for part in parts]
    assert [result[f"accuracy.fold.{fold}"].value for fold in (0, 1)] == alone
    assert result["accuracy"].value == pytest.approx((50 * alone[0] + 70 * alone[1]) / 120)
    assert result.scorer == {"names": ["test-scorer", "test-scorer"], "folds": 2}
    unshifted = [(number(p.prompt, t), len(t.split())) for p in parts[0] + parts[1] for t in (p.chosen, p.rejected)]
    assert len(unshifted) == 240
    centred = np.array([value for value, _ in unshifted])
    centred[:100] -= centred[:100].mean()
    centred[100:] -= centred[100:].mean()
    expected = stats.pearsonr([length for _, length in unshifted], centred).statistic
    assert result["length.tokens.pooled_pearson"].value == pytest.approx(expected)


def test_scores_of_two_models_are_never_correlated_within_a_prompt(workshop: Workshop) -> None:
    part = [
        Pair(conversation("a"), words(5, "2"), words(3, "1")),
        Pair(conversation("a"), words(5, "2"), words(9, "3")),
    ]
    parts = [part[:1], part[1:]]
    data = tuple(workshop.records(f"test{fold}.jsonl", part) for fold, part in enumerate(parts))
    scores = tuple(workshop.scores(f"fold{fold}", part, number) for fold, part in enumerate(parts))
    counts = evaluate_accuracy(AccuracyEvaluation(data=data, scores=scores), workshop).counts
    assert (counts["completions"], counts["within_prompt_too_few"], counts["within_prompt_prompts"]) == (4, 2, 0)


def test_each_side_says_whether_it_was_cut(workshop: Workshop) -> None:
    records = [Pair(conversation("a"), "1 cut", "0 b"), Pair(conversation("b"), "1 b", "0 cut"), HAND[0]]
    assert evaluated(workshop, records).counts["truncated_pairs"] == 2
    table = pq.ParquetFile(workshop.path("pairs.parquet")).read()
    assert table["chosen_truncated"].to_pylist() == [True, False, False]
    assert table["rejected_truncated"].to_pylist() == [False, True, False]


def test_one_table_may_serve_several_files(workshop: Workshop) -> None:
    records = random_pairs(8, 30, 30)
    # The last pair of the first file comes back in the second: the table knows it as a second occurrence.
    parts = [records[:20], [*records[20:], records[19]]]
    data = tuple(workshop.records(f"part{number}.jsonl", part) for number, part in enumerate(parts))
    scores = workshop.scores("scored", [*parts[0], *parts[1]], number)
    result = evaluate_accuracy(AccuracyEvaluation(data=data, scores=(scores,)), workshop)
    assert (result.counts["pairs"], result.counts["duplicate_pairs"], result.counts["unused_scores"]) == (31, 1, 0)
    rows = pq.ParquetFile(workshop.path("pairs.parquet")).read().to_pylist()
    assert [row["occurrence"] for row in rows if row["pair_id"] == records[19].id] == [0, 1]
    assert "accuracy.fold.0" not in [one.name for one in result.estimates["accuracy"]]


def test_tables_may_hold_more_and_stand_in_any_order(workshop: Workshop) -> None:
    records = random_pairs(9, 40, 40)
    rows = score_rows(records, number)
    shuffled = [rows[place] for place in RNG(10).permutation(len(rows))]
    data = workshop.records("data.jsonl", records[:25])
    config = AccuracyEvaluation(data=(data,), scores=(workshop.table("shuffled", shuffled),))
    result = evaluate_accuracy(config, workshop)
    assert result["accuracy"].value == evaluated(workshop, records[:25])["accuracy"].value
    assert result.counts["unused_scores"] == 30


def test_candidates_with_rewards_are_judged_by_them(workshop: Workshop) -> None:
    texts = tuple(words(length, str(score)) for length, score in ((3, 1), (5, 4), (4, 2)))
    records = [
        Candidates(conversation("a"), texts, (0.0, 2.0, 1.0)),
        Candidates(conversation("b"), texts, (2.0, 0.0, 1.0)),
        Candidates(conversation("c"), texts, (1.0, 1.0, 1.0)),
        Candidates(conversation("d"), texts),
    ]
    result = evaluated(workshop, records)
    assert result["agreement.pairwise"].value == 0.5
    assert result["agreement.best_of_k"].value == 0.5
    assert (result["agreement.pairwise"].n, result["agreement.pairwise"].unit) == (2, "prompts")
    assert result["agreement.within_prompt_kendall"].value == pytest.approx(0.0)
    assert "1 in which one of the two does not vary" in result["agreement.within_prompt_kendall"].reading
    within = result["length.tokens.within_prompt_pearson"]
    assert within.value == pytest.approx(stats.pearsonr([3, 5, 4], [1, 4, 2]).statistic)
    assert (within.n, result.counts["candidates"]) == (4, 4)
    assert result["accuracy"].value is None
    assert result["accuracy"].reason == "the data hold no pairs"
    assert result.lines()[0].startswith("It orders 50.0 %")


def test_data_without_pairs_or_candidates_give_nulls_with_reasons(workshop: Workshop) -> None:
    records = [Rated(conversation("a"), "1 good", label=True), Rated(conversation("b"), "0 bad", label=False)]
    result = evaluated(workshop, records)
    for name in ("accuracy", "calibration.ece", "calibration.slope", "margin.sd", "length.tokens.accuracy_gap"):
        assert (result[name].value, result[name].reason) == (None, "the data hold no pairs"), name
    assert result.curves["margins"] == []
    assert pq.ParquetFile(workshop.path("pairs.parquet")).metadata.num_rows == 0
    assert len(result.lines()) == 3


def test_curves_hold_every_pair_once(workshop: Workshop) -> None:
    result = evaluated(workshop, random_pairs(11, 333, 300))
    assert sum(row["n"] for row in result.curves["confidence"]) == 333
    assert sum(row["n"] for row in result.curves["reliability"]) == 666
    assert sum(row["n"] for row in result.curves["margins"]) == 333
    assert sum(row["n"] for row in result.curves["length_bins"]) == 333
    assert sum(row["n"] for row in result.curves["length_scores"]) == 666
    mirrored = result.curves["reliability"][::-1]
    for row, other in zip(result.curves["reliability"], mirrored, strict=True):
        assert row["predicted"] == pytest.approx(1 - other["predicted"])
        assert row["observed"] == pytest.approx(1 - other["observed"])
    for row in result.curves["margins"]:
        assert row["low"] < row["high"]
        assert row["low"] >= 0 or row["high"] <= 0
        assert row["accuracy"] in (None, 0.0 if row["high"] <= 0 else 1.0)
    kept = 2 * sum(row["kept"] for row in result.curves["balanced_bins"])
    assert kept + result.counts["equal_length_pairs"] == result.counts["balanced_pairs"]


def test_calibration_error_is_the_one_of_its_curve(workshop: Workshop) -> None:
    result = evaluated(workshop, random_pairs(12, 250, 250))
    gaps = [row["n"] / 250 * abs(row["observed"] - row["predicted"]) for row in result.curves["confidence"]]
    assert result["calibration.ece"].value == pytest.approx(sum(gaps))


def test_limit_reads_the_first_records(workshop: Workshop) -> None:
    assert evaluated(workshop, random_pairs(13, 20, 20), limit=7).counts["pairs"] == 7


def test_hostile_and_broken_text_is_written_as_it_is(workshop: Workshop) -> None:
    records = [Pair(conversation("x \ud800 \x00"), "1 <script>", "0 \udfff")]
    evaluated(workshop, records)
    row = pq.ParquetFile(workshop.path("pairs.parquet")).read().to_pylist()[0]
    assert row["chosen"] == "1 <script>"
    assert row["rejected"] == "0 \\udfff"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"data": ()}, "data"),
        ({"scores": ("a", "b")}, "one score table each"),
        ({"data": ("d", "e"), "scores": ("a", "b"), "train": ("t",)}, "one training file each"),
        ({"level": 95}, "level"),
        ({"cluster": "row"}, "cluster"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        AccuracyEvaluation.build({"data": ["d"], "scores": ["s"], **options})


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["data.jsonl"], "data.jsonl"),
        (["val.jsonl"], "val"),
        (["pairs.dev.jsonl"], "val"),
        (["test.jsonl"], "test"),
        (["fold-0/test.jsonl", "fold-1/test.jsonl"], "test"),
        (["fold-0/pairs.jsonl", "fold-1/pairs.jsonl"], "pairs.jsonl"),
        (["test.jsonl", "val.jsonl"], "test.jsonl, val.jsonl"),
        (["test.jsonl", "more.jsonl"], "test.jsonl, more.jsonl"),
    ],
)
def test_the_data_are_called_what_their_files_are(workshop: Workshop, names: list[str], called: str) -> None:
    parts = [HAND[:2], HAND[2:]] if len(names) > 1 else [HAND]
    data = tuple(workshop.records(name, part) for name, part in zip(names, parts, strict=True))
    scores = (workshop.scores("scored", HAND, number),)
    result = evaluate_accuracy(AccuracyEvaluation(data=data, scores=scores), workshop)
    assert result.split == called
    assert f"of 4 pairs of the set {called};" in result.lines()[0]
    named = evaluate_accuracy(AccuracyEvaluation(data=data, scores=scores, split="cross-fitted"), workshop)
    assert named.split == "cross-fitted"


def test_a_scorer_that_always_ties_is_not_certain_of_its_calibration(workshop: Workshop) -> None:
    found = evaluated(workshop, random_pairs(14, 30, 30), lambda *_: 1.0)["calibration.ece"]
    assert (found.value, found.low, found.high) == (0.0, None, None)
    assert "no spread" in found.reason


def test_an_empty_data_file_is_refused_and_nothing_is_written(workshop: Workshop) -> None:
    empty = workshop.folder / "empty.jsonl"
    empty.write_text("")
    scores = workshop.scores("scored", HAND, number)
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        evaluate_accuracy(AccuracyEvaluation(data=(empty,), scores=(scores,)), workshop)
    assert list(workshop.path().iterdir()) == []


def test_hh_through_the_whole_verb(workshop: Workshop, shared: Path) -> None:
    """Real pairs, scored by length: the heuristic's published share on HH comes out."""
    from rewardlab.data.load import load_all
    from rewardlab.data.source import DataSource

    path = shared / "data" / "hh-rlhf" / "helpful-base.test.jsonl.gz"
    records = [record for part in load_all([DataSource(path=str(path))]) for record in part.records]
    result = evaluated(workshop, records, lambda _, text: float(len(text)))
    # data/README.md: the chosen side is the longer one in .596 of the helpful-base pairs.
    assert result["accuracy"].value == pytest.approx(0.596, abs=0.005)
    assert result["length.characters.heuristic_accuracy"].value == result["accuracy"].value
    assert result["length.characters.longer_scores_higher"].value == 1.0
