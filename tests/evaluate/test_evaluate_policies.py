"""Policies side by side: what is compared, scores and preferences from runs and files, and what cannot be compared."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from loopback import Loopback

from rewardlab.cli.main import main
from rewardlab.errors import DataError
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.policies import Compared, PolicyComparison, _gains, measure, policy_values
from rewardlab.evaluate.policy_answers import AnswerSets
from rewardlab.evaluate.policy_rankers import Scores, compared_by, preferences
from rewardlab.evaluate.winrate import Compared as Comparison
from rewardlab.evaluate.winrate import WinrateEvaluation, compare
from rewardlab.evaluate.winrate_estimates import equal_length_matrix, turned
from rewardlab.records import Prompt
from rewardlab.report.policies import findings
from rewardlab.report.policy_examples import shares_won
from rewardlab.score.comparing import Verdict
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run

Answers = Mapping[str, Sequence[Sequence[str]]]

ANSWERS: Answers = {
    "base": [["one two", "one"], ["one"], ["a b c"], ["x y"]],
    "long": [["one two three"], ["one two", "one"], ["a b c d e"], ["x y"]],
    "short": [["one"], ["one"], ["a b"], ["x"]],
}


def files(folder: Path, answers: Answers = ANSWERS) -> dict[str, Path]:
    """A file for each policy: {prompt, completions}."""
    found = {}
    for name, own in answers.items():
        rows = [{"prompt": f"Why {number}?", "completions": list(texts)} for number, texts in enumerate(own)]
        found[name] = folder / f"{name}.jsonl"
        found[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


def flags(sets: Mapping[str, Path], *more: str) -> list[str]:
    given = [word for name, path in sets.items() for word in (f"--sets.{name}", str(path))]
    return ["evaluate", "policies", *given, "--draws", "100", *more]


def measured(tmp_path: Path, name: str, sets: Mapping[str, Path], **values: Any) -> Compared:
    """What is measured, without a page."""
    config = PolicyComparison.build({"sets": {who: str(path) for who, path in sets.items()}, "draws": 100, **values})
    with Run.create(config, verb="evaluate policies", name=name, root=tmp_path / "home") as run:
        return measure(config, run)


def cells(values: dict[str, Any], by: str) -> dict[tuple[str, str], float]:
    return {(row["model"], row["other"]): row["value"] for row in values["rankers"][by]["matrix"]}


def by_hand(first: str, second: str) -> float:
    """Share of the pairs of answers with more words, prompt by prompt, ties half."""
    shares = []
    for own, other in zip(ANSWERS[first], ANSWERS[second], strict=True):
        pairs = [(len(a.split()), len(b.split())) for a, b in product(own, other)]
        shares.append(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))
    return float(np.mean(shares))


def test_all_pairs_of_answers_meet_and_tables_give_what_the_scorer_gives(tmp_path: Path) -> None:
    sets = files(tmp_path)
    values = measured(tmp_path, "scored", sets, rewards={"words": "rule:length_words"}).values
    expected = {(one, other): by_hand(one, other) for one, other in product(ANSWERS, ANSWERS) if one != other}
    assert cells(values, "words") == pytest.approx(expected)
    means = {one["name"]: one["value"] for one in values["rewards"]["words"]["estimates"]["sets"]}
    assert means["reward.base"] == pytest.approx(np.mean([2, 1, 1, 3, 2]))
    table = pq.read_table(tmp_path / "home/scored/answers.parquet").to_pydict()
    assert table["reward.words"] == [float(one) for one in table["words"]]
    assert table["policy"].count("long") == 5
    # The scores of that run, and a table for each policy from `score`, say the same.
    for name, path in sets.items():
        assert main(["score", "--model", "rule:length_words", "--data", str(path), "--run", f"own-{name}"]) == 0
    runs = [str(tmp_path / "home" / f"own-{name}") for name in sets]
    kept = str(tmp_path / "home/scored/rewards/0")
    again = measured(tmp_path, "read", sets, rewards={"kept": kept, "each": {"tables": runs}}).values
    assert cells(again, "kept") == cells(again, "each") == cells(values, "words")


def test_the_verb_leaves_its_files(tmp_path: Path) -> None:
    sets = {name: path for name, path in files(tmp_path).items() if name != "short"}
    assert main(flags(sets, "--rewards.words", "rule:length_words", "--run", "all")) == 0
    folder = tmp_path / "home/all"
    values = read_json(folder / "summary.json")
    assert values["findings"][0] == "2 policies on 4 prompts that all of them have answered."
    assert cells(values, "words")["long", "base"] == pytest.approx(by_hand("long", "base"))
    names = {f"{name}.{kind}" for name in ("policies", "standings") for kind in ("json", "csv", "tex")}
    assert {path.name for path in (folder / "tables").iterdir()} == names
    assert (folder / "figures/wins-raw-0.svg").is_file()
    assert "x y" in (folder / "report.html").read_text()


def test_only_common_prompts_count_and_the_rest_is_told(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    rows = [("Why?", "a b"), ("How?", "a"), ("Why?", "a b c"), ("Alone?", "a")]
    one.write_text("".join(json.dumps({"prompt": asked, "completion": text}) + "\n" for asked, text in rows))
    # A user's turn and a plain text that say the same are one question.
    turns = [{"prompt": [{"role": "user", "content": asked}], "completion": "x y"} for asked in ("How?", "Why?")]
    two.write_text("".join(json.dumps(row) + "\n" for row in turns))
    values = measured(tmp_path, "few", {"one": one, "two": two}, rewards={"words": "rule:length_words"}).values
    assert values["counts"] == {"prompts": 2, "answers": {"one": 3, "two": 2}}
    assert values["left_out"] == {
        "prompts of one in several rows, whose answers are put together": 1,
        "prompts of one that not all policies have answered": 1,
    }
    # a b against x y is a tie, a b c wins, a loses.
    assert cells(values, "words")["one", "two"] == pytest.approx((0.75 + 0.0) / 2)


def test_a_run_of_winrate_and_the_judge_itself_say_the_same(tmp_path: Path) -> None:
    sets = files(tmp_path)
    given = {name: str(path) for name, path in sets.items()}
    config = WinrateEvaluation.build({"sets": given, "judge": "rule:length_words", "baseline": "short"})
    with Run.create(config, verb="evaluate winrate", name="won", root=tmp_path / "home") as run:
        compare(config, run)
    judges = {"asked": "rule:length_words", "kept": str(tmp_path / "home/won")}
    values = measured(tmp_path, "both", sets, judges=judges).values
    # A judge reads first answers: base one two / one / a b c / x y.
    assert cells(values, "asked")["long", "base"] == pytest.approx(np.mean([1, 1, 1, 0.5]))
    assert cells(values, "kept") == cells(values, "asked")
    own = {one["name"]: one["value"] for one in values["rankers"]["kept"]["estimates"]["win_rate"]}
    assert own["raw.long"] == pytest.approx(np.mean([1, 1, 1, 0.5]))
    assert values["rewards"] == {}


def replaced(folder: Path, name: str, texts: Sequence[str]) -> Path:
    """Other answers of a policy to the same prompts."""
    folder.mkdir(exist_ok=True)
    return files(folder, {name: [[text] for text in texts]})[name]


@pytest.mark.parametrize("kind", ["folder", "recorded"])
def test_preferences_count_only_of_the_answers_that_are_given(tmp_path: Path, kind: str) -> None:
    sets = {name: path for name, path in files(tmp_path).items() if name != "short"}
    firsts = {name: [own[0] for own in ANSWERS[name]] for name in sets}
    if kind == "folder":
        config = WinrateEvaluation.build(
            {"sets": {name: str(path) for name, path in sets.items()}, "judge": "rule:length_words"}
        )
        with Run.create(config, verb="evaluate winrate", name="won", root=tmp_path / "home") as run:
            compare(config, run)
        judge: Any = str(tmp_path / "home/won")
    else:
        # By number of words, as the rule: white space at the ends makes no other answer.
        rows = [
            {"instruction": f"Why {number}?", "output_1": one, "output_2": f"{two}\n", "preference": value}
            for number, (one, two, value) in enumerate(zip(*firsts.values(), [2.0, 2.0, 2.0, 1.5], strict=True))
        ]
        file = tmp_path / "recorded.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        judge = {"recorded": {"long": str(file)}}
    whole = measured(tmp_path, "whole", sets, judges={"kept": judge}).values
    assert cells(whole, "kept")["long", "base"] == pytest.approx(np.mean([1, 1, 1, 0.5]))
    assert whole["rankers"]["kept"]["counts"] == {}
    # The policy has answered two of four prompts anew, one of them with as many characters.
    news = [firsts["long"][0], "won two"[: len(firsts["long"][1])], ".", firsts["long"][3]]
    assert len(news[1]) == len(firsts["long"][1])
    anew = sets | {"long": replaced(tmp_path / "anew", "long", news)}
    values = measured(tmp_path, "part", anew, judges={"kept": judge}).values
    assert cells(values, "kept")["long", "base"] == pytest.approx(np.mean([1, 0.5]))
    assert values["rankers"]["kept"]["counts"] == {"comparisons of other answers than those given": 2}
    assert any("2 comparisons of other answers" in line for line in findings({**values, "kl": {}}))
    none = sets | {"long": replaced(tmp_path / "none", "long", ["."] * 4)}
    with pytest.raises(DataError, match="4 comparisons between the sets on their prompts, all of other answers"):
        measured(tmp_path, "none", none, judges={"kept": judge})
    # The answers of the baseline count as much.
    none = sets | {"base": replaced(tmp_path / "none", "base", ["."] * 4)}
    with pytest.raises(DataError, match="all of other answers"):
        measured(tmp_path, "nobody", none, judges={"kept": judge})


def test_a_run_that_does_not_say_which_answers_it_compared_is_refused(tmp_path: Path) -> None:
    sets = {name: path for name, path in files(tmp_path).items() if name != "short"}
    config = WinrateEvaluation.build(
        {"sets": {name: str(path) for name, path in sets.items()}, "judge": "rule:length_words"}
    )
    with Run.create(config, verb="evaluate winrate", name="won", root=tmp_path / "home") as run:
        compare(config, run)
    path = tmp_path / "home/won/comparisons.parquet"
    old = pq.read_table(path).drop_columns(["answer_id", "baseline_answer_id"])
    path.unlink()
    pq.write_table(old, path)
    with pytest.raises(DataError, match=r"no column answer_id, baseline_answer_id.*run it anew"):
        measured(tmp_path, "old", sets, judges={"kept": str(path.parent)})


def test_the_published_trio_beside_its_baseline(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "alpaca-eval"
    trio = {"normal": "alpaca-7b", "concise": "alpaca-7b_concise", "verbose": "alpaca-7b_verbose"}
    paths = {name: str(folder / f"{file}.jsonl.gz") for name, file in trio.items()}
    answers = {name: {"path": path, "adapter": "instructions"} for name, path in paths.items()}
    sets = {"gpt4": {**answers["normal"], "columns": {"output": "output_1"}}}
    sets |= {name: {**one, "columns": {"output": "output_2"}} for name, one in answers.items()}
    config = PolicyComparison.build(
        {"sets": sets, "judges": {"gpt4 judge": {"recorded": paths}}, "draws": 100, "limit": 60, "difficulty": "none"}
    )
    with Run.create(config, verb="evaluate policies", name="trio", root=tmp_path / "runs") as run:
        found = measure(config, run)
    asked = {prompt.messages[0].content for prompt in found.sets.prompts}
    rates = {one["name"]: one["value"] for one in found.values["rankers"]["gpt4 judge"]["estimates"]["win_rate"]}
    for name, path in paths.items():
        rows = [json.loads(line) for line in gzip.decompress(Path(path).read_bytes()).splitlines()]
        own = [row["preference"] - 1.0 for row in rows if row["instruction"] in asked]
        assert rates[f"raw.{name}"] == pytest.approx(np.mean(own))
    assert 50 < len(asked) <= 60


def test_how_bad_answers_are_by_a_rule_and_by_its_run(tmp_path: Path) -> None:
    sets = files(tmp_path)
    code = tmp_path / "rude.py"
    code.write_text(
        "def rude(completions, **_):\n    return [0.9 if 'a b' in str(one) else 0.1 for one in completions]\n"
    )
    rewards = {"words": "rule:length_words"}
    values = measured(tmp_path, "measured", sets, rewards=rewards, classifier=f"python:{code}:rude").values
    own = {one["name"]: one["value"] for one in values["bad"]["estimates"]}
    # One of five answers of base, one of five of long, one of four of short.
    assert [own[f"share.{name}"] for name in ANSWERS] == pytest.approx([0.2, 0.2, 0.25])
    assert own["mean.base"] == pytest.approx(0.2 * 0.9 + 0.8 * 0.1)
    folder = str(tmp_path / "home/measured/toxicity")
    again = measured(tmp_path, "kept", sets, rewards=rewards, toxicity=folder).values
    assert again["bad"]["estimates"] == values["bad"]["estimates"]


def scored(tokens: Mapping[str, Sequence[int]], rewards: Mapping[str, Sequence[float]]) -> tuple[AnswerSets, Scores]:
    """One answer to a prompt, with lengths in tokens."""
    count = len(next(iter(tokens.values())))
    prompts = [Prompt.of_text(f"Why {number}?") for number in range(count)]
    sets = AnswerSets(prompts, dict.fromkeys(tokens, prompts), {name: [("x",)] * count for name in tokens}, {})
    values = {name: [np.array([one]) for one in own] for name, own in rewards.items()}
    lengths = {name: [np.array([one]) for one in own] for name, own in tokens.items()}
    return sets, Scores("rm", "rm@1", values, lengths)


def test_the_worked_case_of_the_non_length_gain() -> None:
    tokens = {"a": [5] * 8 + [50] * 2, "b": [5] * 2 + [50] * 8}
    rewards = {"a": [0.10] * 8 + [0.60] * 2, "b": [0.15] * 2 + [0.65] * 8}
    sets, scores = scored(tokens, rewards)
    config = PolicyComparison.build(
        {"sets": {"a": "a.jsonl", "b": "b.jsonl"}, "rewards": {"rm": "rule:length_words"}, "draws": 100}
    )
    matches = {"rm": compared_by(scores, sets, "a")}
    values = policy_values(config, sets, [scores], matches)
    own = {one["name"]: one["value"] for one in values["rewards"]["rm"]["estimates"]["gain"]}
    assert own["total.b"] == pytest.approx(0.35)
    assert own["non_length.b"] == pytest.approx(0.05)
    assert values["lengths"]["unit"] == "tokens"
    assert values["lengths"]["quartiles"]["a"] == pytest.approx([5.0, 5.0, 5.0])
    # Eight prompts on which b is better, two on which it is better too: 1 - everything.
    assert preferences(matches["rm"], sets).tolist() == [[0.0]] * 10


def test_answers_without_a_score_are_left_out_and_counted() -> None:
    nan = float("nan")
    sets, scores = scored({"a": [1, 2, 3], "b": [1, 2, 3]}, {"a": [1.0, nan, 3.0], "b": [2.0, 2.0, 2.0]})
    config = PolicyComparison.build(
        {"sets": {"a": "a.jsonl", "b": "b.jsonl"}, "rewards": {"rm": "rule:length_words"}, "draws": 100}
    )
    matches = {"rm": compared_by(scores, sets, "a")}
    values = policy_values(config, sets, [scores], matches)
    assert values["rewards"]["rm"]["unscored"] == 1
    assert values["rewards"]["rm"]["counts"] == {"prompts": 2, "left_out": 1}
    assert cells(values, "rm")["a", "b"] == pytest.approx(0.5)
    found = preferences(matches["rm"], sets)[:, 0]
    assert np.isnan(found).tolist() == [False, True, False]


def test_gains_are_over_the_prompts_on_which_every_policy_has_a_score() -> None:
    """b adds 1 on every prompt, and has no score on the hard ones, so over all that has a score it seems to add 6."""
    hard = [-10.0 if number % 2 else 0.0 for number in range(24)]
    own = {"a": hard, "b": [float("nan") if one else 1.0 for one in hard]}
    tokens = {name: [5 + 4 * (number // 2 % 2) for number in range(24)] for name in "ab"}
    sets, scores = scored(tokens, own)
    config = PolicyComparison.build(
        {"sets": {"a": "a.jsonl", "b": "b.jsonl"}, "rewards": {"rm": "rule:length_words"}, "draws": 100}
    )
    values = policy_values(config, sets, [scores], {"rm": compared_by(scores, sets, "a")})["rewards"]["rm"]
    total = next(one for one in values["estimates"]["gain"] if one["name"] == "total.b")
    assert total["value"] == pytest.approx(1.0)
    assert (values["unscored"], values["counts"]) == (12, {"prompts": 12, "left_out": 12})
    nowhere = {
        name: [float("nan") if (number % 2 == 0) == (name == "a") else 1.0 for number in range(24)] for name in own
    }
    sets, scores = scored(tokens, nowhere)
    with pytest.raises(DataError, match="no prompt on which every policy has an answer with a score"):
        _gains(scores, sets, config)


def test_one_agreement_covers_all_that_is_paid(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {name: [[f"<<worth {n + 1}>>"] for n in range(4)] for name in ("base", "long")}
    sets = files(tmp_path, {"base": answers["base"], "long": [[f"<<worth 9>> {n}", "two"] for n in range(4)]})
    paid = []
    for place, judge in (("judges.one", "judge:win"), ("judges.two", "judge:alpaca"), ("rewards.grade", "judge:grade")):
        paid += [f"--{place}", judge, f"--{place}.endpoint", server.url, f"--{place}.endpoint.model", "some-model"]
    assert main(flags(sets, *paid, "--run", "asked")) == 2
    said = capsys.readouterr().err
    # Both orders of four duels, twice, and a grade for four answers and eight.
    assert [int(one) for one in re.findall(r"At most (\d+) requests", said)] == [8, 8, 12]
    assert sum(server.seen()["answered"].values()) == 0
    # A yes to one of them is none to the others.
    assert main(flags(sets, *paid, "--judges.one.yes", "true", "--run", "one")) == 2
    assert sum(server.seen()["answered"].values()) == 0
    yes = [word for place in ("judges.one", "judges.two", "rewards.grade") for word in (f"--{place}.yes", "true")]
    main(flags(sets, *paid, *yes, "--run", "paid"))
    # What was announced is what is sent.
    assert sum(server.seen()["answered"].values()) == 28


def test_what_is_agreed_to_once_is_not_asked_again(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("rewardlab.llm.agree._ask", lambda: asked.append(sum(server.seen()["answered"].values())))
    sets = files(tmp_path, {name: [[f"<<worth {n}>> {name}"] for n in range(1, 4)] for name in ("base", "long")})
    judge = {"endpoint": {"url": server.url, "model": "some-model"}}
    judges = {"one": {"model": "judge:win", **judge}, "two": {"model": "judge:alpaca", **judge}}
    measured(tmp_path, "twice", sets, judges=judges)
    assert asked == [0]
    assert sum(server.seen()["answered"].values()) == 12


def test_both_directions_at_equal_length_add_up() -> None:
    """b is 50 characters longer, and a reward of length with noise likes it for that alone."""
    generator = np.random.default_rng(0)
    prompts = [Prompt.of_text(f"Why {number}?") for number in range(200)]
    lengths = {name: generator.normal(mean, 60.0, 200).clip(1).astype(int) for name, mean in (("a", 150), ("b", 200))}
    texts = {name: [("x" * int(n),) for n in own] for name, own in lengths.items()}
    sets = AnswerSets(prompts, dict.fromkeys(texts, prompts), texts, {})
    noisy = {name: [np.array([n + generator.normal(0.0, 40.0)]) for n in own] for name, own in lengths.items()}
    compared = compared_by(Scores("noisy", "noisy@1", noisy, None), sets, "a").compared
    rows = equal_length_matrix(compared, ["a", "b"], Settings())
    assert [(row["model"], row["other"]) for row in rows] == [("a", "b"), ("b", "a")]
    assert rows[0]["value"] + rows[1]["value"] == pytest.approx(1.0)
    assert rows[0]["low"] == pytest.approx(1.0 - rows[1]["high"])
    raw = float(np.mean([one.verdict.preference for one in compared]))
    assert raw > 0.6
    assert rows[1]["low"] < 0.5 < rows[1]["high"]
    assert rows[1]["value"] < raw


def test_a_comparison_turned_around() -> None:
    one = Comparison("a", "b", Prompt.of_text("Why?"), 0, 10, 20, "judge", Verdict(0.7, 0.9, 0.5))
    other = turned(one._replace(answer_id="x", baseline_answer_id="y"), "a")
    assert (other.answer_id, other.baseline_answer_id) == ("y", "x")
    other = turned(one, "a")
    assert (other.model, other.baseline, other.characters, other.baseline_characters) == ("b", "a", 20, 10)
    # b stands first where a stands second: there it wins with 1 - .5.
    assert other.verdict[:3] == pytest.approx((0.3, 0.5, 0.1))
    assert turned(other, "b") == one._replace(verdict=Verdict(*map(pytest.approx, (0.7, 0.9, 0.5))))
    assert turned(one, "b") is one


def test_the_share_won_on_a_prompt() -> None:
    # a over b, a over c, b over c.
    nan = np.nan
    found = shares_won(np.array([[1.0, 0.5, 0.0], [nan, nan, 1.0]]), 3)
    assert found[0].tolist() == pytest.approx([0.75, 0.0, 0.75])
    assert np.isnan(found[1, 0])
    assert found[1, 1:].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "a reward or a judge"),
        (["--rewards.one", "rule:length_words", "--judges.one", "rule:length_words"], "other names of judges"),
        (["--rewards.one", "rule:length_words", "--baseline", "nobody"], "baseline among the sets: base, long, short"),
        (["--rewards.one", "rule:length_words", "--kl.nobody", "frontier"], "not of nobody"),
        (["--rewards.one.tables", '["a.parquet", "b.parquet"]'], "one for each of the 3 sets"),
        (["--judges.one.over", "base"], "one of a judge"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(files(tmp_path), *more)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "home").exists() or not any((tmp_path / "home").rglob("summary.json"))


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = files(tmp_path)
    words = ["--rewards.words", "rule:length_words"]
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"prompt": "Who?", "completion": "me"}) + "\n")
    assert main(flags({"base": sets["base"], "other": other}, *words)) == 2
    assert "no prompt that all of them have (base has 4, other has 1)" in capsys.readouterr().err
    other.write_text(json.dumps({"prompt": "Why 0?", "chosen": "me", "rejected": "you"}) + "\n")
    assert main(flags({"base": sets["base"], "other": other}, *words)) == 2
    assert "Pairs are not the answers of one policy" in capsys.readouterr().err
    # Scores of other answers, and preferences between others.
    assert main(["score", "--model", "rule:length_words", "--data", str(sets["base"]), "--run", "base"]) == 0
    assert main(flags(sets, "--rewards.base", str(tmp_path / "home/base"))) == 2
    assert "scores are missing" in capsys.readouterr().err
    rows = [{"instruction": "Why 0?", "output_1": "one", "output_2": "two", "preference": 2.0}]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(flags(sets, "--judges.people.recorded.stranger", str(other))) == 2
    assert "1 comparisons of base, stranger, none with a preference" in capsys.readouterr().err
    frontier = tmp_path / "frontier"
    assert main(flags(sets, *words, "--kl.long", str(frontier))) == 2
    assert "frontier.json" in capsys.readouterr().err
