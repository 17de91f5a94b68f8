"""Attributes that a chat model sees: values by hand, one agreement, flips, and what is paid."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Loopback

from rewardlab.audit.asked import AskedMeasure, Question
from rewardlab.audit.chains import AuditedText
from rewardlab.audit.diagnostics import flips
from rewardlab.audit.judge import judge_of, write_judged
from rewardlab.audit.template import find_template
from rewardlab.cli.main import main
from rewardlab.errors import ConfigError, DataError, RunError
from rewardlab.llm.agree import Agreement
from rewardlab.llm.asking import JudgeEndpoint
from rewardlab.records import Prompt, content_id
from rewardlab.store.files import read_json, read_jsonl

POLITE = "Is this text polite?"


def measure(server: Loopback, question: Question, **endpoint: Any) -> AskedMeasure:
    at = JudgeEndpoint.build({"url": server.url, "model": "some-model", "timeout": 20.0, **endpoint})
    return AskedMeasure(question, at, Agreement(True))


def answered(server: Loopback) -> int:
    return sum(server.seen()["answered"].values())


# --- values --------------------------------------------------------------------------------------------------------


def test_the_value_is_the_probability_of_yes_or_the_expected_grade(server: Loopback) -> None:
    texts = ["<<tokens Yes:0.6 No:0.2 Maybe:0.2>>", "<<say No>>", "<<refuse>>", "<<say perhaps>>"]
    values = measure(server, Question(question=POLITE)).values(texts)
    assert values[:2] == pytest.approx([0.75, 0.0])
    assert all(map(math.isnan, values[2:]))
    graded = Question(question="How polite?", grades=(0, 4))
    assert measure(server, graded).values(["<<tokens 0:0.5 3:0.5>>", "<<say 4>>"]) == pytest.approx([1.5, 4.0])


def test_equal_texts_are_asked_about_once_and_never_again(server: Loopback) -> None:
    asked = measure(server, Question(question=POLITE))
    assert asked.values(["<<say Yes>>"] * 3) == [1.0] * 3
    assert measure(server, Question(question=POLITE)).values(["<<say Yes>>"]) == [1.0]
    assert answered(server) == 1
    (text,) = server.seen()["answered"]
    assert "<text>\n<<say Yes>>\n</text>" in text
    assert text.endswith(f"{POLITE}\n\nReply with yes or no alone.")


def test_texts_without_an_answer_stop_the_run(server: Loopback) -> None:
    with pytest.raises(RunError, match="left questions unanswered"):
        measure(server, Question(question=POLITE), max_retries=0).values(["<<say Yes>>", "<<status 500 9>>"])
    assert answered(server) == 1
    asked = measure(server, Question(question=POLITE), max_retries=0, accept_failures=True)
    yes, missing, refused = asked.values(["<<say Yes>>", "<<status 500 9>>", "<<status 400 9>>"])
    assert yes == 1.0
    assert math.isnan(missing)
    assert math.isnan(refused), "what the endpoint refuses to read is no reason to stop"


# --- templates -----------------------------------------------------------------------------------------------------


def template(folder: Path, treated: str, more: str = "") -> str:
    file = folder / "mine.yaml"
    file.write_text(f"treated: {treated}\nhigh: friendly\nlow: curt\n{more}")
    return str(file)


def test_a_question_in_a_template(tmp_path: Path) -> None:
    plain = find_template(template(tmp_path, f"{{ask: '{POLITE}'}}"))
    assert plain.asked == (Question(question=POLITE), 0.5)
    assert plain.treated.words() == f"“{POLITE}” > 0.5"
    graded = find_template(template(tmp_path, "{ask: {question: 'How polite?', grades: [1, 5]}, above: 3}"))
    assert graded.asked == (Question(question="How polite?", grades=(1, 5)), 3.0)
    judged = find_template(template(tmp_path, "{side: chosen}", f"judge: {{ask: '{POLITE}', above: 0.8}}\n"))
    assert judged.asked == (Question(question=POLITE), 0.8)
    assert find_template("hh_harmlessness").asked == (Question(question="Is this text harmful?"), 0.5)
    assert find_template("imdb_length").asked is None


def test_the_template_in_the_docs_asks(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/audit.md").read_text(encoding="utf-8")
    text = "treated:\n  ask:" + page.partition("treated:\n  ask:")[2].partition("```")[0]
    (tmp_path / "polite.yaml").write_text(text)
    assert find_template(str(tmp_path / "polite.yaml")).asked == (Question(question=POLITE), 0.5)


@pytest.mark.parametrize(
    ("treated", "message"),
    [
        ("{ask: x, measure: words, above: 1}", "not measure and ask"),
        ("{ask: x, above: median}", "a number as `above`"),
        ("{ask: {question: x, grades: [1, 5]}}", "`above` with a question"),
        ("{ask: {question: x, grades: [1, 10]}, above: 1}", "0 to 9"),
        ("{ask: {quastion: x}}", 'Did you mean "question"'),
        ("{ask: x}\njudge: y", "one judge"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(tmp_path: Path, treated: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_template(template(tmp_path, treated))


# --- flips ---------------------------------------------------------------------------------------------------------


def test_flips_that_the_judge_says_nothing_about_are_not_counted(tmp_path: Path) -> None:
    said = {"a": 0.9, "a-": 0.2, "a--": 0.7, "b": 0.9, "b-": math.nan, "b--": 0.9, "c": math.nan, "c-": 0.6, "c--": 0.1}
    write_judged(tmp_path / "judged.jsonl", list(said), list(said.values()))
    holds = judge_of({"ask": {"question": POLITE}, "by": "some-model", "above": 0.5}, tmp_path)
    assert holds(["a", "a-"]).tolist() == [1.0, 0.0]
    prompt = Prompt.of_text("p")
    chains = [AuditedText(prompt, (name, f"{name}-", f"{name}--"), name != "c", 0, 2, ("ok", "ok")) for name in "abc"]
    found = flips(chains, holds)
    assert found.confirmed.tolist() == [True, False, True]
    assert found.originals == 1.0
    # Of the two rewrites away from the attribute one was judged; of the one towards it, it was.
    assert [(row["step"], row["towards"], row["n"], row["success"]) for row in found.rates] == [
        (1, True, 1, 1.0), (1, False, 1, 1.0), (2, True, 2, 1.0), (2, False, 1, 1.0),
    ]  # fmt: skip
    with pytest.raises(DataError, match="not asked about every text"):
        holds(["a", "elsewhere"])
    (tmp_path / "judged.jsonl").write_text('{"text_id": 3}\n')
    with pytest.raises(DataError, match="cannot be read"):
        judge_of({"ask": {}, "by": "some-model", "above": 0.5}, tmp_path)
    assert np.isnan(judge_of({"measure": "words", "above": 2.0}, tmp_path)(["a b c"])).tolist() == [False]


# --- whole audits --------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    words = ["friendly", "curt"]
    rows = [{"prompt": f"Why {n}?", "completion": f"A {words[n % 2]} answer, number {n}."} for n in range(12)]
    rows.append({"prompt": "Why?", "completion": "<<refuse>>"})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def words(server: Loopback, folder: Path, name: str, *more: str) -> list[str]:
    """The server rewrites by repeating text and instruction, so that the last mark is what was asked for."""
    asked = template(folder, f"{{ask: '{POLITE}'}}")
    parts = ["--template", asked, "--data", "data.jsonl", "--judge", server.url, "--judge.model", "judging-model"]
    ends = ["--endpoint", server.url, "--endpoint.model", "some-model", "--run", name]
    return ["audit", "rewrite", *parts, *ends, *more]


def test_w_and_the_flips_by_a_chat_model_with_one_agreement(
    here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan(marks=["friendly", "curt"])
    assert main(words(server, here, "declined")) == 2
    said = capsys.readouterr().err
    # 13 texts and two rewrites of each to judge; two rewrites of each to write.
    assert "At most 39 requests to judging-model" in said
    assert "At most 26 requests to some-model" in said
    assert answered(server) == 0
    assert main(words(server, here, "first", "--yes")) == 0
    said = capsys.readouterr()
    assert said.err.count("At most") == 2
    assert "6 with W = 1, 6 with W = 0" in said.out
    assert "1 unmeasured" in said.out
    # 13 originals, and 24 rewrites, which are judged.
    assert answered(server) == 13 + 24 + 24
    about = read_json(here / "runs/first/audit.json")
    assert about["judge"] == {
        "ask": {"question": POLITE, "grades": None},
        "by": "judging-model",
        "above": 0.5,
        "decided": True,
    }
    assert (about["counts"]["judged"], about["counts"]["unjudged"]) == (36, 0)
    chains = list(read_jsonl(here / "runs/first/rewrites.jsonl"))
    assert all(chain["meta"]["treated"] == ("friendly" in chain["completions"][0]) for chain in chains)
    values = {row["text_id"]: row["value"] for row in read_jsonl(here / "runs/first/judged.jsonl")}
    # The probability of yes against no, by the mark that was asked for last: .9 of 1 and .2 of 1.
    for chain in chains:
        expected = 0.2 if chain["meta"]["treated"] else 0.9
        assert values[content_id(chain["completions"][1])] == pytest.approx(expected)
    # Nobody is asked for what is paid; the effects ask nobody at all.
    assert main(words(server, here, "second")) == 0
    assert answered(server) == 61
    for verb, *more in (
        ["score", "--rewrites", "runs/first", "--model", "rule:length_words", "--run", "scores"],
        ["effects", "--rewrites", "runs/first", "--scores", "runs/scores", "--run", "effects"],
    ):
        assert main(["audit", verb, *more]) == 0
    # What the answers took is told by every run that has them, not by the one alone that paid.
    asked = read_json(here / "runs/first/audit.json")["counts"]["asked"]
    assert [(one["of"], one["by"], one["answers"]) for one in asked] == [
        ("rewrites", "some-model", 24),
        ("judgements", "judging-model", 37),
    ]
    assert all(one["completion_tokens"] == 2 * one["prompt_tokens"] > 0 for one in asked)  # as the server counts
    assert read_json(here / "runs/second/audit.json")["counts"]["asked"] == asked
    effects = read_json(here / "runs/effects/effects.json")
    assert effects["asked"] == asked
    found = effects["flips"]
    assert found["originals"] == 1.0
    assert {(row["n"], row["success"]) for row in found["rates"]} == {(6, 1.0)}
    assert answered(server) == 61


def test_one_edited_row_pays_for_itself(here: Path, server: Loopback) -> None:
    server.plan(marks=["friendly", "curt"])
    assert main(words(server, here, "first", "--yes")) == 0
    before = answered(server)
    data = here / "data.jsonl"
    data.write_text(data.read_text().replace("number 3.", "numbered 3."))
    assert main(words(server, here, "second", "--yes")) == 0
    # The original is judged, rewritten twice, and both rewrites are judged.
    assert answered(server) == before + 5


def test_a_limit_is_one_to_what_is_asked(here: Path, server: Loopback) -> None:
    server.plan(marks=["friendly", "curt"])
    assert main(words(server, here, "first", "--yes", "--limit", "4")) == 0
    assert answered(server) in (4 * 5, 4 + 3 * 4)


def test_a_judge_as_the_audited_model(here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    """Offline rewrites, and a chat model that rewards each text by how many words its rewriter left."""
    rows = [
        {"prompt": f"Why {n}?", "completion": f"<<tokens {n % 5 + 1}:0.5 3:0.5>> It is so. " + "Indeed it is. " * n}
        for n in range(20)
    ]
    rows[7]["completion"] = "<<refuse>> It is so. And so it is, and ever was."
    (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ["audit", "run", "--attribute", "words", "--data", "data.jsonl", "--model", "judge:grade", "--run", "mine"]
    ends = ["--model.endpoint", server.url, "--model.endpoint.model", "some-model", "--yes"]
    assert main([*run, *ends]) == 0
    said = capsys.readouterr().out
    assert "judge:grade:some-model@" in said
    assert "The report: runs/mine/report.html" in said
    effects = read_json(here / "runs/mine/steps/effects/effects.json")
    (model,) = effects["models"]
    assert model["counts"]["responses"] == 20
    # The refused one is no number; its chain is left out, and that is said.
    assert model["counts"]["complete"] < 20
    assert model["counts"]["unscored"] > 0
    assert "texts have no score; their responses are left out" in said
    paid = answered(server)
    score = ["audit", "score", "--rewrites", "runs/mine/steps/rewrite", "--model", "judge:grade", "--run", "again"]
    assert main([*score, "--endpoint", server.url, "--endpoint.model", "some-model"]) == 0
    assert answered(server) == paid


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--attribute", "words", "--judge", "http://localhost/v1"], "words has none"),
        (["--template", "mine.yaml"], "--judge URL"),
    ],
)
def test_questions_without_a_judge_and_judges_without_a_question(
    here: Path, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    template(here, f"{{ask: '{POLITE}'}}")
    assert main(["audit", "rewrite", "--data", "data.jsonl", *more]) == 2
    assert expected in capsys.readouterr().err
