"""An audit from data to page: one command, by rule and by a chat model, and what it pays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from loopback import Loopback

from rewardlab.cli.main import main
from rewardlab.store.files import read_json, read_jsonl
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
    identity = next(one for one in effects["models"][0]["refutations"] if one["name"] == "identity")
    assert identity["verdict"] == "passed"


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--attribute", "kindness"], "kindness"),
        (["--attribute", "sentiment"], "--endpoint"),
        (["--attribute", "words", "--template", "imdb_length"], "either a template or an attribute"),
        (["--attribute", "words", "--rule", "nothing"], "nothing"),
        (["--attribute", "words", "--batch"], "batch"),
    ],
)
def test_bad_settings_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert main(["audit", "rewrite", "--data", "data.jsonl", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
