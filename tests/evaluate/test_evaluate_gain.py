"""Gains of the verb, from score tables made by hand: the worked case, longest of N, and tables that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.cli.main import main
from rewardlab.evaluate.gain import FEW_PROMPTS, Answers, GainEvaluation, ReadSets, _paired, gain_values, longest
from rewardlab.score.score import SCHEMA
from rewardlab.store.files import read_json

Row = tuple[str, float, int | None]


def table(path: Path, rows: list[Row], scorer: str = "rm@1") -> Path:
    """A score table of (prompt, reward, tokens)."""
    columns = {
        "prompt_id": [prompt for prompt, _, _ in rows],
        "completion_id": [f"c{n}" for n in range(len(rows))],
        "occurrence": [0] * len(rows),
        "row": list(range(len(rows))),
        "candidate": [0] * len(rows),
        "scorer": [scorer] * len(rows),
        "score": [reward for _, reward, _ in rows],
        "prompt_tokens": [3] * len(rows),
        "completion_tokens": [tokens for _, _, tokens in rows],
        "truncated": [False] * len(rows),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path)
    return path


def estimates(tmp_path: Path, name: str) -> dict[str, dict[str, Any]]:
    values = read_json(tmp_path / "home" / name / "gain.json")
    return {one["name"]: one for group in values["estimates"].values() for one in group}


def test_the_worked_case(tmp_path: Path) -> None:
    a = [(f"p{n}", 0.10, 5) if n < 8 else (f"p{n}", 0.60, 50) for n in range(10)]
    b = [(f"p{n}", 0.15, 5) if n < 2 else (f"p{n}", 0.65, 50) for n in range(10)]
    flags = ["--sets.a", str(table(tmp_path / "a.parquet", a)), "--sets.b", str(table(tmp_path / "b.parquet", b))]
    assert main(["evaluate", "gain", *flags, "--run", "worked"]) == 0
    found = estimates(tmp_path, "worked")
    assert found["total.b"]["value"] == pytest.approx(0.35)
    assert found["non_length.b"]["value"] == pytest.approx(0.05)
    assert found["ratio.b"]["value"] == pytest.approx(1 / 7)
    assert found["one_sided.b"]["value"] == 0.0
    assert found["at_equal_length.b"]["value"] == pytest.approx(0.05)
    assert found["through_length.b"]["value"] == pytest.approx(0.30)
    assert found["wins.b"]["value"] == 1.0
    assert found["non_length.b"]["clusters"] == 10
    page = (tmp_path / "home/worked/report.html").read_text()
    assert "14.3 % of it" in page


def test_a_policy_that_is_only_longer_gains_nothing_at_equal_length(tmp_path: Path) -> None:
    """Rewards are a line in length plus noise; the longest of four is longer still."""
    generator = np.random.default_rng(0)
    sft, ppo = [], []
    for prompt in range(150):
        for mean, rows in ((80.0, sft), (110.0, ppo)):
            for tokens in generator.normal(mean, 25.0, 4).clip(5).astype(int):
                rows.append((f"p{prompt}", float(0.02 * tokens + generator.normal(0.0, 0.3)), int(tokens)))
    ppo += [("alone", 1.0, 50)]
    flags = [
        "--sets.sft",
        str(table(tmp_path / "sft.parquet", sft)),
        "--sets.ppo",
        str(table(tmp_path / "p.parquet", ppo)),
    ]
    assert main(["evaluate", "gain", *flags, "--longest_of", "sft", "--run", "longer"]) == 0
    found = estimates(tmp_path, "longer")
    for name in ("ppo", "longest of sft"):
        assert found[f"total.{name}"]["low"] > 0.3
        for part in ("non_length", "at_equal_length"):
            # A bin of 20 tokens is 0.4 wide in the reward, and longer answers lie further up in it.
            assert abs(found[f"{part}.{name}"]["value"]) < 0.15
    assert found["at_equal_length.ppo"]["low"] < 0.0 < found["at_equal_length.ppo"]["high"]
    assert found["tokens.longest of sft"]["n"] == 150
    assert read_json(tmp_path / "home/longer/gain.json")["counts"] == {"prompts": 150, "left_out": 1}


def frontier(folder: Path) -> Path:
    """Two trainings of one run and one of another beside the reference; the first has two policies, the earlier one
    with other rewards. Answers of the worked case; the held-out reward is one more than the other."""
    a = [(f"p{n}", 0.10, 5) if n < 8 else (f"p{n}", 0.60, 50) for n in range(10)]
    b = [(f"p{n}", 0.15, 5) if n < 2 else (f"p{n}", 0.65, 50) for n in range(10)]
    early = [(prompt, -9.0, 5) for prompt, _, _ in a]
    policies = [("reference", 0, 0, a), ("PPO", 0, 20, b), ("PPO", 0, 10, early), ("PPO", 1, 20, a), ("SFT", 0, 3, b)]
    rows = [(*one, *row) for *one, answers in policies for row in answers]
    table = {
        **{name: [row[at] for row in rows] for at, name in enumerate(["run", "seed", "step", "prompt_id", "reward"])},
        "held_out.gold": [None if row[3] == "p9" else row[4] + 1.0 for row in rows],
        "tokens": [row[5] for row in rows],
    }
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "frontier.parquet")
    (folder / "frontier.json").write_text('{"scorers": {"reward": "rm@1", "held_out.gold": "rule:gold"}}')
    return folder


def test_the_last_policies_of_a_frontier_are_sets_over_its_reference(tmp_path: Path) -> None:
    flags = ["--frontier", str(frontier(tmp_path / "f")), "--longest_of", "reference", "--run", "last"]
    assert main(["evaluate", "gain", *flags]) == 0
    values = read_json(tmp_path / "home/last/gain.json")
    assert (values["baseline"], values["scorer"]) == ("reference", "rm@1")
    assert values["sets"] == ["reference", "PPO, seed 0", "PPO, seed 1", "SFT", "longest of reference"]
    found = estimates(tmp_path, "last")
    for name, total, part in (("PPO, seed 0", 0.35, 0.05), ("PPO, seed 1", 0.0, 0.0), ("SFT", 0.35, 0.05)):
        assert (found[f"total.{name}"]["value"], found[f"non_length.{name}"]["value"]) == pytest.approx((total, part))


def test_a_held_out_reward_of_a_frontier_is_measured_where_it_is_known(tmp_path: Path) -> None:
    flags = ["--frontier", str(frontier(tmp_path / "f")), "--reward", "gold", "--baseline", "SFT", "--run", "gold"]
    assert main(["evaluate", "gain", *flags]) == 0
    values, found = read_json(tmp_path / "home/gold/gain.json"), estimates(tmp_path, "gold")
    assert (values["baseline"], values["scorer"], values["counts"]["prompts"]) == ("SFT", "rule:gold", 9)
    # Without the tenth answer (0.8 + 0.6 of nine, against 0.3 + 7 times 0.65).
    assert found["reward.reference"]["value"] == pytest.approx(1.0 + 1.4 / 9)
    assert found["total.reference"]["value"] == pytest.approx((1.4 - 4.85) / 9)


def test_frontiers_that_have_not_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["--frontier", str(frontier(tmp_path / "f"))]
    for flags, expected in (
        (["--frontier", str(tmp_path / "none")], "a folder of evaluate frontier"),
        ([*one, "--reward", "silver"], "found silver; expected one of reward, gold"),
        ([*one, "--baseline", "PPO"], "found PPO; expected one of reference, PPO, seed 0"),
        ([*one, "--sets.a", "a.parquet"], "expected sets or a frontier, and not both"),
        (["--sets.a", "a", "--sets.b", "b", "--reward", "gold"], "expected no reward beside sets"),
    ):
        assert main(["evaluate", "gain", *flags]) == 2
        assert expected in capsys.readouterr().err


def test_the_longest_answer_of_each_prompt() -> None:
    answers = Answers(np.array(["a", "a", "a", "b"]), np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 9, 9, 1]))
    found = longest(answers)
    assert (found.prompt.tolist(), found.reward.tolist(), found.tokens.tolist()) == (["a", "b"], [2.0, 4.0], [9, 1])


def test_answers_meet_turn_by_turn() -> None:
    """Prompts in no order, of unequal numbers of answers, against the search of every prompt in both sets."""
    generator = np.random.default_rng(3)
    first, second = (
        Answers(np.array([f"p{n}" for n in generator.integers(0, 40, size)]), np.zeros(size), np.zeros(size, int))
        for size in (150, 90)
    )
    expected = [
        pair
        for prompt in np.unique(first.prompt)
        for pair in zip(
            np.flatnonzero(first.prompt == prompt).tolist(),
            np.flatnonzero(second.prompt == prompt).tolist(),
            strict=False,
        )
    ]
    assert [tuple(pair) for pair in np.transpose(_paired(first, second)).tolist()] == expected


def values_of(**sets: list[Row]) -> dict[str, dict[str, Any]]:
    """By name, the estimates of sets of (prompt, reward, tokens)."""
    answers = {name: Answers(*(np.array([row[at] for row in rows]) for at in range(3))) for name, rows in sets.items()}
    config = GainEvaluation.build({"sets": dict.fromkeys(sets, "a"), "strata": 2})
    values = gain_values(ReadSets(answers, "rm@1", 0), config)
    return {one["name"]: one for group in values["estimates"].values() for one in group}


def test_the_interval_of_the_gain_is_the_jackknife_over_prompts() -> None:
    """Three prompts, the same at all lengths: gains of 1, 2 and 6, so NRG is 3, and 4, 3.5, 1.5 without each. The
    jackknife of a mean is Student's: 7 / 3 is the variance of it, 4.303 the quantile of 2 degrees of freedom."""
    rows = {"a": [(f"p{n}", 0.0, 5) for n in range(3)], "b": [("p0", 1.0, 5), ("p1", 2.0, 5), ("p2", 6.0, 5)]}
    found = values_of(**rows)
    own = found["non_length.b"]
    assert (own["value"], own["n"], own["clusters"]) == (pytest.approx(3.0), 6, 3)
    assert own["high"] - own["value"] == pytest.approx(4.3027 * (7 / 3) ** 0.5, rel=1e-4)
    assert own["method"] == "jackknife t, clustered by prompt"
    assert found["shared.b"]["low"] == pytest.approx(own["low"])


def test_what_hangs_on_one_prompt_has_no_interval_and_says_why() -> None:
    found = values_of(a=[("p", 0.0, 5)], b=[("p", 1.0, 5)])
    for name in ("non_length.b", "shared.b", "total.b"):
        assert found[name]["low"] is None
        assert "one independent cluster" in found[name]["reason"]
    # The only shared bin needs the first prompt.
    found = values_of(a=[("p", 0.0, 5), ("q", 1.0, 25)], b=[("p", 1.0, 5), ("q", 1.0, 45)])
    assert (found["shared.b"]["value"], found["shared.b"]["reason"]) == (1.0, FEW_PROMPTS)


def test_strata_of_lengths_one_token_apart_have_names_of_their_own() -> None:
    """Quantiles of 1, 2, 3, 4 are 1.75, 2.5 and 3.25, of which two round to 2."""
    rows = [(f"p{n}", float(n), n + 1) for n in range(4)]
    answers = {name: Answers(*(np.array([row[at] for row in rows]) for at in range(3))) for name in ("a", "b")}
    config = GainEvaluation.build({"sets": {"a": "a", "b": "b"}, "strata": 4})
    values = gain_values(ReadSets(answers, "rm@1", 0), config)
    own = {one["name"]: one["value"] for one in values["estimates"]["strata"]}
    assert {name: value for name, value in own.items() if ".a." in name} == {
        "stratum.a.1 to 2": 0.0,
        "stratum.a.2 to 3": 1.0,
        "stratum.a.3 to 4": 2.0,
        "stratum.a.4": 3.0,
    }


def test_tables_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = table(tmp_path / "one.parquet", [("a", 1.0, 5)])
    others = {
        "one scorer": table(tmp_path / "two.parquet", [("a", 1.0, 5)], "rm@2"),
        "a scorer with a tokenizer": table(tmp_path / "three.parquet", [("a", 1.0, None)]),
        "answers to the same prompts": table(tmp_path / "four.parquet", [("b", 1.0, 5)]),
    }
    for expected, other in others.items():
        assert main(["evaluate", "gain", "--sets.a", str(one), "--sets.b", str(other)]) == 2
        assert expected in capsys.readouterr().err
    assert main(["evaluate", "gain", "--sets.a", str(one)]) == 2
    assert "two sets at least" in capsys.readouterr().err
