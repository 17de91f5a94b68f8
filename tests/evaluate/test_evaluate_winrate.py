"""Win rates of the verb: published figures, judges in both orders, scorers, pools, and what cannot be compared."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from loopback import Loopback

from rewardlab.cli.main import main
from rewardlab.evaluate.winrate import told_apart
from rewardlab.records import Message, Prompt
from rewardlab.score.comparing import drawn_judge, of_scores, verdict
from rewardlab.store.files import read_json

TRIO = {"normal": ("alpaca-7b", 0.0259, 805), "concise": ("alpaca-7b_concise", 0.0199, 804)}
TRIO |= {"verbose": ("alpaca-7b_verbose", 0.0293, 802)}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def outputs(path: Path, answers: list[str]) -> Path:
    return write(path, [{"instruction": f"Why {n}?", "output": text} for n, text in enumerate(answers)])


def result(tmp_path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(tmp_path / "home" / name / "winrate.json")
    return found


def estimate(values: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for group in values["estimates"].values() for one in group if one["name"] == name)


def words(server: Loopback, *more: str) -> list[str]:
    judge = ["--judge", "judge:win", "--judge.endpoint", server.url, "--judge.endpoint.model", "some-model"]
    return ["evaluate", "winrate", *judge, "--draws", "100", *more]


# --- recorded ------------------------------------------------------------------------------------------------------


def test_how_often_a_judge_agrees_with_people_is_what_their_files_say(shared: Path, tmp_path: Path) -> None:
    """LLMBar and what was processed with it, judged by counting words: a pair of answers as long is half right."""
    folder = shared / "data" / "llmbar"
    flags = ["--labelled", str(folder), "--judge", "rule:length_words", "--draws", "100"]
    assert main(["evaluate", "winrate", *flags, "--run", "people"]) == 0
    values = result(tmp_path, "people")
    right: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8")):
            first, second = row["output_1"], row["output_2"]
            # A pair of equal answers is set aside, and one of which an answer is blank.
            if first.split() != second.split() and first.split() and second.split():
                ahead = np.sign(len(first.split()) - len(second.split())) * (1 if row["label"] == 1 else -1)
                right.setdefault(file.name, []).append((1 + ahead) / 2)
    assert len(right) == 8
    for name, own in {"all": [one for each in right.values() for one in each], **right}.items():
        found = estimate(values, f"agreement.{name}")
        assert (found["value"], found["n"]) == (pytest.approx(np.mean(own), abs=1e-12), len(own))


def test_the_published_trio(shared: Path, tmp_path: Path) -> None:
    flags = [
        word
        for name, (file, _, _) in TRIO.items()
        for word in (f"--recorded.{name}", str(shared / "data" / "alpaca-eval" / f"{file}.jsonl.gz"))
    ]
    assert main(["evaluate", "winrate", *flags, "--draws", "100", "--run", "trio"]) == 0
    values = result(tmp_path, "trio")
    for name, (_, rate, count) in TRIO.items():
        raw, even = estimate(values, f"raw.{name}"), estimate(values, f"lc.{name}")
        assert (round(raw["value"], 4), raw["n"]) == (rate, count)
        # These answers are 1,500 characters shorter than the baseline's, and the judge likes length.
        assert even["value"] > raw["value"]
        assert even["low"] < even["value"] < even["high"]
        assert values["fits"][name]["phi"] > 0.0
    # The standard error of a mean.
    text = gzip.decompress((shared / "data" / "alpaca-eval" / "alpaca-7b.jsonl.gz").read_bytes()).decode()
    rows = [json.loads(line) for line in text.splitlines()]
    error = np.std([row["preference"] for row in rows], ddof=1) / np.sqrt(805)
    assert values["fits"]["normal"]["raw_error"] == pytest.approx(error)
    assert any("more than a third apart" in line for line in values["warnings"])
    assert any("extrapolation" in line for line in values["warnings"])
    page = (tmp_path / "home/trio/report.html").read_text()
    assert "Win rates against baseline" in page


def test_ties_count_half_and_missing_preferences_are_counted(tmp_path: Path) -> None:
    preferences = [1.0, 1.5, 2.0, 2.0, None]
    rows = [
        {"instruction": f"Why {n}?", "output_1": "one", "output_2": "" if n == 0 else "two", "preference": value}
        for n, value in enumerate(preferences)
    ]
    data = write(tmp_path / "data.jsonl", rows)
    assert main(["evaluate", "winrate", "--recorded.mine", str(data), "--draws", "100", "--run", "few"]) == 0
    values = result(tmp_path, "few")
    assert estimate(values, "raw.mine")["value"] == pytest.approx(2.5 / 4)
    assert values["counts"] == {"rows of mine without a preference": 1}
    assert values["outcomes"] == [{"judge": "recorded", "outcomes": {"wins": 2, "losses": 1, "ties": 1}}]
    even = estimate(values, "lc.mine")
    assert (even["value"], even["reason"]) == (None, "fewer than 10 prompts are too few for a fit")


def recorded(path: Path, rows: list[tuple[str, str, float | None]]) -> str:
    """Rows of what was asked, output_1 and preference."""
    keys = ("instruction", "output_1", "preference")
    return str(write(path, [{**dict(zip(keys, row, strict=True)), "output_2": "mine"} for row in rows]))


def test_files_over_different_baselines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = recorded(tmp_path / "one.jsonl", [(f"Why {n}?", f"base {n}", 2.0) for n in range(5)])
    two = recorded(tmp_path / "two.jsonl", [(f"Why {n}?", "base 1", 1.0) for n in range(5)])
    assert main(["evaluate", "winrate", "--recorded.one", one, "--recorded.two", two]) == 2
    said = capsys.readouterr().err
    assert "recorded.two" in said
    assert "two.jsonl:1" in said
    assert "4 rows with another output_1 than" in said


def test_rows_without_a_preference_keep_their_place_among_those_of_a_prompt(tmp_path: Path) -> None:
    """Of a prompt asked twice the baseline has two outputs. A missing verdict, or white space, is no other baseline."""
    one = recorded(tmp_path / "one.jsonl", [("Why?", "first", 2.0), ("Why?", "second", 1.0)])
    two = recorded(tmp_path / "two.jsonl", [("Why?", "first\n", None), ("Why?", " second", 2.0)])
    flags = ["evaluate", "winrate", "--recorded.one", one, "--recorded.two", two, "--draws", "100", "--run", "both"]
    assert main(flags) == 0
    table = pq.read_table(tmp_path / "home/both/comparisons.parquet").to_pydict()
    rows = list(zip(table["model"], table["occurrence"], table["preference"], strict=True))
    assert rows == [("one", 0, 1.0), ("one", 1, 0.0), ("two", 1, 1.0)]


def test_files_that_hold_no_comparisons_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = outputs(tmp_path / "data.json", ["a", "b"])
    assert main(["evaluate", "winrate", "--recorded.mine", str(data)]) == 2
    assert "output_1, output_2 and preference" in capsys.readouterr().err
    assert main(["evaluate", "winrate", "--sets.mine", str(data), "--judge", "rule:length_characters"]) == 2
    assert "two sets at least" in capsys.readouterr().err


# --- a chat model --------------------------------------------------------------------------------------------------


def test_both_orders_are_asked_and_a_disagreement_is_a_tie(server: Loopback, tmp_path: Path) -> None:
    # Shares .75, .25 and .55 for the first; the judge adds .2 to whatever stands first.
    mine = outputs(tmp_path / "mine.json", ["<<worth 3>>", "<<worth 1>>", "<<worth 11>>", "<<refuse>>", "<<say both>>"])
    base = outputs(tmp_path / "base.json", ["<<worth 1>>", "<<worth 3>>", "<<worth 9>>", "no", "no"])
    server.plan(liking=0.2)
    flags = ["--sets.base", str(base), "--sets.mine", str(mine), "--judge.yes", "--run", "asked"]
    assert main(words(server, *flags)) == 0
    table = pq.read_table(tmp_path / "home/asked/comparisons.parquet").to_pydict()
    assert table["preference"] == [1.0, 0.0, 0.5, None, None]
    assert table["leading"][:3] == pytest.approx([0.95, 0.45, 0.75])
    assert table["trailing"][:3] == pytest.approx([0.55, 0.05, 0.35])
    assert table["reason"][3:] == ["refused", "unreadable"]
    values = result(tmp_path, "asked")
    outcomes = {"wins": 1, "losses": 1, "ties": 1, "refused": 1, "unreadable": 1}
    assert values["outcomes"] == [{"judge": "judge", "outcomes": outcomes}]
    # First place: both orders of the third pair, and one of two of the others.
    assert estimate(values, "first_place.judge")["value"] == pytest.approx(2 / 3)
    assert estimate(values, "consistency.judge")["value"] == pytest.approx(2 / 3)
    asked = sum(server.seen()["answered"].values())
    assert asked == 10
    # Paid once, however the orders are put together.
    again = ["again" if word == "asked" else word for word in flags]
    assert main(words(server, *again, "--judge.rule", "probability")) == 0
    assert sum(server.seen()["answered"].values()) == asked
    assert estimate(result(tmp_path, "again"), "raw.mine")["value"] == pytest.approx((0.75 + 0.25 + 0.55) / 3)


def test_nothing_is_asked_that_nobody_agreed_to(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, base = (outputs(tmp_path / name, ["<<worth 2>>"] * 4) for name in ("mine.json", "base.json"))
    assert main(words(server, "--sets.mine", str(mine), "--sets.base", str(base))) == 2
    said = capsys.readouterr().err
    assert "4 prompts tell a win rate to ± 49.0 points at most" in said
    assert sum(server.seen()["answered"].values()) == 0


def test_what_the_comparisons_buy_is_counted_in_prompts(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": f"Why {n % 4}?", "output": f"<<worth {n}>>"} for n in range(16)]
    mine, base = (write(tmp_path / name, rows) for name in ("mine.json", "base.json"))
    assert main(words(server, "--sets.mine", str(mine), "--sets.base", str(base))) == 2
    assert "4 prompts tell a win rate to ± 49.0 points at most" in capsys.readouterr().err


def test_agreement_is_told_by_files_that_have_one_name(tmp_path: Path) -> None:
    row = {"input": "Why?", "output_1": "longer", "output_2": "long"}
    flags = []
    for folder, label in (("Natural", 1), ("Neighbor", 2)):
        (tmp_path / folder).mkdir()
        flags += ["--labelled", str(write(tmp_path / folder / "dataset.jsonl", [{**row, "label": label}]))]
    assert main(["evaluate", "winrate", *flags, "--judge", "rule:length_characters", "--run", "people"]) == 0
    values = result(tmp_path, "people")
    assert estimate(values, "agreement.Natural/dataset.jsonl")["value"] == 1.0
    assert estimate(values, "agreement.Neighbor/dataset.jsonl")["value"] == 0.0


def test_files_are_told_apart_by_the_shortest_ends_of_their_paths() -> None:
    assert told_apart(["a/one.json", "b/two.json", "b/two.json"]) == {
        "a/one.json": "one.json",
        "b/two.json": "two.json",
    }
    assert told_apart(["x/a/d.json", "x/b/d.json", "x/b/e.json"]) == {
        "x/a/d.json": "a/d.json",
        "x/b/d.json": "b/d.json",
        "x/b/e.json": "e.json",
    }
    assert told_apart(["d.json", "a/d.json"]) == {"d.json": "d.json", "a/d.json": "a/d.json"}


def test_agreement_with_people(server: Loopback, tmp_path: Path) -> None:
    rows = [
        {"input": "Why?", "output_1": "<<worth 1>>", "output_2": "<<worth 2>>", "label": 2},
        {"input": "How?", "output_1": "<<worth 1>>", "output_2": "<<worth 2>>", "label": 1},
        {"input": "Who?", "output_1": "<<worth 3>>", "output_2": "<<worth 2>>", "label": 1},
    ]
    data = write(tmp_path / "people.jsonl", rows)
    assert main(words(server, "--labelled", str(data), "--judge.yes", "--run", "people")) == 0
    values = result(tmp_path, "people")
    assert estimate(values, "agreement.people.jsonl")["value"] == pytest.approx(2 / 3)
    assert "agrees with people" in " ".join(values["findings"])


def test_a_pool_gives_each_prompt_one_judge(server: Loopback, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", [f"<<worth 3>> {'x' * n}" for n in range(12)])
    base = outputs(tmp_path / "base.json", ["<<worth 1>>"] * 12)
    flags = ["evaluate", "winrate", "--sets.mine", str(mine), "--sets.base", str(base), "--baseline", "base"]
    for name, judge in (("one", "judge:win"), ("two", "judge:alpaca")):
        flags += [f"--pool.{name}", judge, f"--pool.{name}.endpoint", server.url]
        flags += [f"--pool.{name}.endpoint.model", "some-model", f"--pool.{name}.yes", "true"]
    assert main([*flags, "--draws", "100", "--run", "pool"]) == 0
    table = pq.read_table(tmp_path / "home/pool/comparisons.parquet").to_pydict()
    assert set(table["judge"]) == {"one", "two"}
    assert [drawn_judge(["two", "one"], prompt, 0) for prompt in table["prompt_id"]] == table["judge"]
    assert table["preference"] == [1.0] * 12
    assert sum(server.seen()["answered"].values()) == 24


def test_a_prompt_goes_to_one_judge_however_a_file_writes_it(tmp_path: Path) -> None:
    """A plain text and the one turn of a user that says the same are one prompt."""
    texts = write(tmp_path / "text.jsonl", [{"prompt": f"Why {n}?", "completion": "aa"} for n in range(20)])
    turns = outputs(tmp_path / "turns.json", ["aaa"] * 20)
    base = outputs(tmp_path / "base.json", ["a"] * 20)
    flags = ["evaluate", "winrate", "--sets.base", str(base), "--sets.text", str(texts), "--sets.turns", str(turns)]
    flags += ["--sets.text.prompt_role", "text", "--pairs", "baseline", "--draws", "100", "--run", "one"]
    assert main([*flags, "--pool.one", "rule:length_characters", "--pool.two", "rule:length_words"]) == 0
    table = pq.read_table(tmp_path / "home/one/comparisons.parquet").to_pydict()
    assert table["prompt_id"][:20] != table["prompt_id"][20:]
    assert table["judge"][:20] == table["judge"][20:]
    assert set(table["judge"]) == {"one", "two"}


def test_judges_are_drawn_evenly() -> None:
    prompts = [Prompt((Message("user", str(n)),)).id for n in range(3000)]
    drawn = [drawn_judge(["a", "b", "c"], prompt, 1) for prompt in prompts]
    # Binomial(3000, 1/3): 1,000 with a standard deviation of 26.
    assert [drawn.count(name) for name in "abc"] == pytest.approx([1000] * 3, abs=105)
    assert drawn != [drawn_judge(["a", "b", "c"], prompt, 2) for prompt in prompts]


# --- scorers -------------------------------------------------------------------------------------------------------


def test_a_rule_ranks_three_sets(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sets = {
        name: outputs(tmp_path / f"{name}.json", ["x" * int(n) for n in generator.normal(mean, 12, 60).clip(1)])
        for name, mean in (("short", 40), ("middle", 50), ("long", 60))
    }
    flags = [word for name, path in sets.items() for word in (f"--sets.{name}", str(path))]
    assert (
        main(["evaluate", "winrate", *flags, "--judge", "rule:length_characters", "--draws", "100", "--run", "rule"])
        == 0
    )
    values = result(tmp_path, "rule")
    strengths = [estimate(values, f"strength.{name}")["value"] for name in sets]
    assert strengths == sorted(strengths)
    assert sum(strengths) == pytest.approx(0.0, abs=1e-9)
    assert [estimate(values, f"rank.{name}")["value"] for name in sets] == [3.0, 2.0, 1.0]
    assert len(values["matrix"]) == 6
    # A judge that sees nothing but length leaves an even match at equal length; the ridge and the form of the model
    # keep it from being exact.
    assert estimate(values, "raw.long")["value"] > 0.8
    assert estimate(values, "lc.long")["value"] < estimate(values, "raw.long")["value"] - 0.15
    assert (tmp_path / "home/rule/report.html").read_text().count("Bradley-Terry") > 0


def test_the_longest_of_several_answers_may_be_picked(tmp_path: Path) -> None:
    rows = [{"prompt": f"Why {n}?", "completions": ["a", "a" * 9, "aa"]} for n in range(3)]
    base = [{"prompt": f"Why {n}?", "completion": "aaa"} for n in range(4)]
    many, one = write(tmp_path / "many.jsonl", rows), write(tmp_path / "one.jsonl", base)
    flags = ["evaluate", "winrate", "--judge", "rule:length_characters", "--draws", "100", "--baseline", "one"]
    flags += ["--sets.one", str(one), "--sets.first", str(many), "--sets.longest", str(many)]
    assert main([*flags, "--sets.longest.pick", "longest", "--run", "pick"]) == 0
    values = result(tmp_path, "pick")
    assert [estimate(values, f"raw.{name}")["value"] for name in ("first", "longest")] == [0.0, 1.0]
    assert values["counts"]["answers of first or one without a partner"] == 1
    assert estimate(values, "lc.longest")["value"] is None


def test_sets_without_a_common_prompt_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": "Why?", "completion": "a"}])
    two = write(tmp_path / "two.jsonl", [{"prompt": "How?", "completion": "a"}])
    flags = ["evaluate", "winrate", "--judge", "rule:length_characters", "--sets.one", str(one), "--sets.two", str(two)]
    assert main(flags) == 2
    assert "answers to the same prompts" in capsys.readouterr().err


def test_verdicts_by_hand() -> None:
    assert verdict(0.9, 0.6, "word").preference == 1.0
    assert verdict(0.9, 0.4, "word").preference == 0.5
    assert verdict(0.2, 0.4, "word").preference == 0.0
    assert verdict(0.9, 0.4, "probability").preference == pytest.approx(0.65)
    assert [of_scores(*pair).preference for pair in ((1.0, 0.0), (0.0, 1.0), (2.0, 2.0))] == [1.0, 0.0, 0.5]
    assert of_scores(float("nan"), 1.0).reason == "no score"
