"""An audit from data to page: one command, by rule and by a chat model, and what it pays."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from loopback import Loopback

from rewardlab.audit.rewrite import Rewriting
from rewardlab.cli.main import main
from rewardlab.data.source import DataSource
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.keys import content_key
from rewardlab.store.lock import FolderLock
from rewardlab.store.settings import Settings

WORDS = ["audit", "run", "--attribute", "words", "--model", "rule:length_words", "--data", "data.jsonl"]


def write_data(folder: Path, texts: list[str]) -> None:
    rows = [{"prompt": f"Question {number}?", "completion": text} for number, text in enumerate(texts)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    write_data(tmp_path, [f"Answer {n}. " + "It goes on for a while. " * (n % 7) for n in range(40)])
    return tmp_path


def test_one_command_makes_a_page_offline(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--run", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "The report: runs/mine/report.html"
    page = (here / "runs/mine/report.html").read_text(encoding="utf-8")
    size = re.search(r"by ([0-9.]+) standard deviations", lines[0])
    assert size
    assert f"by {size[1]} standard deviations" in page
    effects = read_json(here / "runs/mine/steps/effects/effects.json")
    found = {one["name"]: one for group in effects["models"][0]["estimates"].values() for one in group}
    # A reward that is the number of words: the effect is how many words the rule adds and takes, response by response.
    chains = list(read_jsonl(here / "runs/mine/steps/rewrite/rewrites.jsonl"))
    sizes = [[len(text.split()) for text in chain["completions"]] for chain in chains]
    signs = [1 if chain["meta"]["treated"] else -1 for chain in chains]
    expected = sum(sign * (size[2] - size[1]) for sign, size in zip(signs, sizes, strict=True)) / len(chains)
    assert found["double.ATE"]["value"] == pytest.approx(expected, abs=1e-9)
    # The same number is the dose: how many words the compared rewrites are apart.
    assert effects["dose"]["double"] == pytest.approx(expected, abs=1e-9)
    assert effects["dose"]["single"] == pytest.approx(found["single.ATE"]["value"], abs=1e-9)
    assert expected < 10
    assert f"to “longer”, by about {expected:.1f} words on average, raises" in lines[0]
    identity = next(one for one in effects["models"][0]["refutations"] if one["name"] == "identity")
    assert identity["verdict"] == "passed"


def test_reward_models_that_cannot_be_used_are_all_named_before_anything_is_rewritten(
    here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "headless").mkdir()
    models = "[rule:length_words, rule:length_wrods, headless, {model: judge:grade}]"
    words = [
        "audit",
        "run",
        "--attribute",
        "words",
        "--data",
        "data.jsonl",
        "--model",
        models,
        "--run",
        "mine",
        "--yes",
    ]
    assert main([*words, "--endpoint", server.url, "--endpoint.model", "some-model"]) == 2
    said = capsys.readouterr().err
    wrong = [
        "model rule:length_wrods, model: found",
        'Did you mean "rule:length_words"?',
        "model headless, ",
        "judge:grade, end",
    ]
    for expected in [*wrong, "nothing has been rewritten"]:
        assert expected in said
    assert "model rule:length_words," not in said
    assert not server.seen()["answered"]
    # The name is free for the corrected command.
    assert not (here / "runs/mine").exists()


def test_subgroups_that_are_not_there_are_found_before_anything_is_sent(
    here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "Q?", "completion": f"A {n}. " * (1 + n % 3), "topic": n % 2, "id": n} for n in range(60)]
    (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*WORDS, "--run", "mine", "--yes", "--endpoint", server.url, "--endpoint.model", "some-model"]
    assert main([*words, "--subgroups", "[topik, id]"]) == 2
    said = capsys.readouterr().err
    assert "subgroups: found 'topik'; expected a column of the data. Did you mean \"topic\"?" in said
    assert "subgroups: found id with 60 values; expected at most 50 groups" in said
    assert "--resume" not in said
    assert not server.seen()["answered"]
    assert not (here / "runs/mine").exists()
    assert main([*words, "--subgroups", "topic"]) == 0
    effects = read_json(here / "runs/mine/steps/effects/effects.json")
    assert sum("column" in one["name"] for one in effects["models"][0]["estimates"]["where"]) == 2


def test_a_rule_that_fails_late_is_told_with_what_works_then(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = here / "mine.py"
    rule.write_text("def reward(prompts, completions, **_):\n    return 1 / 0\n")
    words = [*WORDS[:4], "--model", "python:mine.py:reward", "--data", "data.jsonl"]
    assert main([*words, "--run", "mine"]) == 2
    said = capsys.readouterr().err
    assert "rewardlab audit score --rewrites runs/mine/steps/rewrite --model MODEL" in said
    assert said.rstrip().endswith(
        "Where its configuration or a file has to change, start another run under another name; where not, go on with: "
        "rewardlab audit run --run mine --resume"
    )
    rule.write_text("def reward(prompts, completions, **_):\n    return [len(one) for one in completions]\n")
    assert main([*words, "--run", "mine", "--resume"]) == 2
    capsys.readouterr()
    # As the message says: the phases that are left, from the rewrites that are there.
    score = ["audit", "score", "--rewrites", "runs/mine/steps/rewrite", "--model", "python:mine.py:reward"]
    assert main([*score, "--run", "scores"]) == 0
    assert main(["audit", "effects", "--rewrites", "runs/mine/steps/rewrite", "--scores", "runs/scores"]) == 0


def test_what_scoring_warns_of_is_said_once_and_stands_in_the_findings(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "def reward(prompts, completions, **_):\n    logging.getLogger('rewardlab').warning('odd')\n"
    (here / "mine.py").write_text(f"import logging\n\n\n{rule}    return [len(one) for one in completions]\n")
    assert main([*WORDS[:4], "--model", "python:mine.py:reward", "--data", "data.jsonl", "--run", "mine"]) == 0
    # One call of the rule for its rewards, or several: as often in the log as on the terminal.
    log = (here / "runs/mine/run.log").read_text(encoding="utf-8")
    assert capsys.readouterr().err.count("odd\n") == log.count(": odd\n") > 0
    scores = here / "runs/mine/steps/score-0"
    assert read_json(scores / "summary.json")["warnings"] == []
    (here / "warned").mkdir()
    (here / "warned/scores.parquet").write_bytes((scores / "scores.parquet").read_bytes())
    (here / "warned/summary.json").write_text('{"warnings": ["prompts are strange"]}')
    words = ["audit", "effects", "--rewrites", "runs/mine/steps/rewrite", "--scores", "warned", "--run", "effects"]
    assert main(words) == 0
    assert "Note: prompts are strange." in capsys.readouterr().out


REWRITE = ["audit", "rewrite", "--attribute", "words", "--data", "data.jsonl"]


def ask(server: Loopback, name: str, *more: str) -> list[str]:
    return [*REWRITE, "--endpoint", server.url, "--endpoint.model", "some-model", "--run", name, *more]


def test_an_endpoint_rewrites_when_its_url_is_added(here: Path, server: Loopback) -> None:
    assert main(ask(server, "first", "--yes")) == 0
    assert sum(server.seen()["answered"].values()) == 80
    chains = list(read_jsonl(here / "runs/first/rewrites.jsonl"))
    assert len(chains) == 40
    for chain in chains:
        original, rewrite, again = chain["completions"]
        # The server answers with what it was asked.
        assert rewrite.startswith(f"re: {original}")
        assert again.startswith(f"re: {rewrite}")
        assert ("shorter" if chain["meta"]["treated"] else "longer") in rewrite
        assert ("longer" if chain["meta"]["treated"] else "shorter") in again.removeprefix(f"re: {rewrite}")


def test_what_was_paid_is_not_paid_again_and_an_edited_row_pays_for_itself(here: Path, server: Loopback) -> None:
    assert main(ask(server, "first", "--yes")) == 0
    # Nothing is left to pay, so nobody is asked.
    assert main(ask(server, "second")) == 0
    assert sum(server.seen()["answered"].values()) == 80
    rows = (here / "data.jsonl").read_text().splitlines()
    edited = json.loads(rows[3])
    edited["completion"] = edited["completion"].replace("goes", "runs")
    (here / "data.jsonl").write_text("\n".join([*rows[:3], json.dumps(edited), *rows[4:]]) + "\n")
    assert main(ask(server, "third", "--yes")) == 0
    assert sum(server.seen()["answered"].values()) == 82


def test_a_second_job_that_asks_a_model_is_told_of_the_first(
    here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = FolderLock(Settings.from_environment().home / "ledger")
    try:
        assert main(ask(server, "second", "--yes")) == 2
    finally:
        lock.release()
    told = capsys.readouterr().err
    assert "cannot write to the ledger of paid answers" in told
    assert "One job at a time asks chat models" in told
    assert server.seen()["tries"] == {}


def test_nothing_is_sent_that_nobody_agreed_to(
    here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = ["--endpoint.prices.prompt", "2.5", "--endpoint.prices.completion", "10"]
    assert main(ask(server, "declined", *prices)) == 2
    said = capsys.readouterr().err
    assert "At most 80 requests to some-model" in said
    assert "for about 0.0" in said
    assert "--yes" in said
    assert not server.seen()["answered"]


def test_rewrites_that_follow_from_paid_ones_are_asked_about_too(
    here: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ask(server, "two", "--yes")) == 0
    capsys.readouterr()
    # The first 80 are paid: 40 third rewrites are left, and nobody agreed to them.
    assert main(ask(server, "three", "--steps", "3")) == 2
    assert "At most 40 requests to some-model" in capsys.readouterr().err
    assert sum(server.seen()["answered"].values()) == 80
    # Of four requests three are paid when the budget ends the run: one is left, the second of a chain.
    write_data(here, ["It was said.", "Something else was said, and at length."])
    assert main(ask(server, "short", "--yes", "--endpoint.budget.requests", "3")) == 2
    capsys.readouterr()
    assert main(ask(server, "again")) == 2
    assert "At most 1 requests" in capsys.readouterr().err


MINE = """\
data: {path: data.jsonl}
treated: {measure: classifier, model: judge-model, above: 0}
first: 2
high: friendly
low: curt
"""


def test_a_judge_that_did_not_decide_w_sees_what_rewrites_did(here: Path) -> None:
    """W is a column, the rule changes letters alone, and the judge counts words: it sees what the originals had."""
    rows = [{"prompt": f"Question {n}?", "completion": "word " * (n + 1), "kind": "ab"[n % 3 == 0]} for n in range(12)]
    (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = "judge: {measure: words, above: 4}"
    (here / "mine.yaml").write_text(f"treated: {{column: kind, one: [b], zero: [a]}}\n{judge}\nhigh: B\nlow: a\n")
    told = ["--template", "mine.yaml", "--data", "data.jsonl", "--rule", "casing", "--run", "rewrites"]
    assert main(["audit", "rewrite", *told]) == 0
    assert read_json(here / "runs/rewrites/audit.json")["judge"] == {
        "measure": "words", "above": 4.0, "model": None, "against": None, "decided": False,
    }  # fmt: skip
    rewrites = ["--rewrites", "runs/rewrites"]
    assert main(["audit", "score", *rewrites, "--model", "rule:length_words", "--run", "scores"]) == 0
    assert main(["audit", "effects", *rewrites, "--scores", "runs/scores", "--run", "effects"]) == 0
    flips = read_json(here / "runs/effects/effects.json")["flips"]
    assert flips["judge"] == "words > 4, which did not decide W,"
    # W = 1 are numbers 0, 3, 6 and 9, of 1, 4, 7 and 10 words: two above 4. Of the others, six of eight.
    assert flips["originals"] == pytest.approx((2 + 2) / 12)
    assert [(rate["step"], rate["towards"], rate["n"], rate["success"]) for rate in flips["rates"]] == [
        (1, True, 8, 0.75), (1, False, 4, 0.5), (2, True, 4, 0.5), (2, False, 8, 0.25),
    ]  # fmt: skip


def test_what_a_template_names_is_in_the_record_and_in_the_key_of_a_step(here: Path) -> None:
    (here / "mine.yaml").write_text(MINE)
    (here / "judge-model").mkdir()
    (here / "judge-model/config.json").write_text("{}")
    given = Rewriting(template="mine.yaml", changes={"first": None, "typos": 0.25})
    pinned = given.pinned()
    assert pinned.data == DataSource(path="data.jsonl")
    assert (pinned.changes["first"], pinned.changes["typos"], pinned.changes["high"]) == (None, 0.25, "friendly")
    assert Rewriting.build(yaml.safe_load(pinned.to_yaml())).pinned() == pinned
    keys = {content_key(given.pinned().model_dump())}
    for name in ("data.jsonl", "judge-model/config.json", "mine.yaml"):
        (here / name).write_text((here / name).read_text() + "\n")
        keys.add(content_key(given.pinned().model_dump()))
    assert len(keys) == 4
    easy = ["--changes.treated", "{measure: words, above: median, model: null}"]
    assert main(["audit", "rewrite", "--template", "mine.yaml", "--run", "mine", "--rule", "length", *easy]) == 0
    inputs = {one["path"]: one["sha256"] for one in read_json(here / "runs/mine/run.json")["inputs"]}
    assert inputs["data.jsonl"] == sha256((here / "data.jsonl").read_bytes()).hexdigest()
    about = read_json(here / "runs/mine/audit.json")
    assert [(one["name"], one["sha256"]) for one in about["files"]] == [("data.jsonl", inputs["data.jsonl"])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--attribute", "kindness"], "kindness"),
        (["--attribute", "sentiment"], "--endpoint"),
        (["--attribute", "words", "--template", "imdb_length"], "found both template and attribute; expected one of"),
        ([], "found neither template nor attribute; expected one of the two"),
        (["--attribute", "words", "--rule", "nothing"], "nothing"),
        (["--attribute", "words", "--batch"], "batch"),
        (["--template", "typo.yaml"], 'No row has a value in the column knd. Did you mean "kind"?'),
    ],
)
def test_bad_settings_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    (here / "typo.yaml").write_text("treated: {column: knd, one: [a], zero: [b]}\nhigh: blue\nlow: red\n")
    rows = [
        {**json.loads(line), "kind": "ab"[n % 2]}
        for n, line in enumerate((here / "data.jsonl").read_text().splitlines())
    ]
    (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["audit", "rewrite", "--data", "data.jsonl", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
