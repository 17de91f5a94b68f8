"""Audits of the same responses by several rewriters, on the page of a comparison."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.cli.main import main
from rewardlab.report.compare import AuditComparison, ComparedAudits, compare_audits
from tests.report.audited import REWARDS, write_audit
from tests.report.test_report_html import PAYLOADS, read
from tests.report.test_report_page import Folder, islands

MODELS = list(REWARDS)[:2]


def by_another(audit: Path, folder: Path, name: str, shift: float) -> Path:
    """The audit as another rewriter would have left it: every effect on the first model differs by about `shift`."""
    shutil.copytree(audit, folder)
    file = folder / "effects.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"rewriter": name}))
    rows = pq.read_table(folder / "triples.parquet").to_pylist()
    chance = np.random.default_rng(0)
    for row in rows:
        if row["rerewrite_reward"] is not None:
            apart = 0.3 * chance.normal() + shift * (row["scorer"] == MODELS[0])
            row["rerewrite_reward"] += apart if row["treated"] else -apart
    schema = pq.read_schema(folder / "triples.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "triples.parquet")
    return folder


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("rewriters")
    first = write_audit(folder / "first", 80, steps=2, draws=2, models=MODELS)
    return [first, by_another(first, folder / "second", f"another {PAYLOADS[0]}", 1.5)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, audits: list[Path]) -> ComparedAudits:
    folder = tmp_path_factory.mktemp("compared")
    return compare_audits(AuditComparison(effects=tuple(audits)), Folder(folder))  # type: ignore[arg-type]


def d_of(folder: Path, scorer: str) -> dict[str, float]:
    rows = pq.read_table(folder / "triples.parquet").to_pylist()
    return {
        row["id"]: (row["rerewrite_reward"] - row["rewrite_reward"]) * (1 if row["treated"] else -1)
        for row in rows
        if row["scorer"] == scorer and row["draw"] == 0 and row["rerewrite_reward"] is not None
    }


def test_numbers_are_those_of_the_triples(audits: list[Path], compared: ComparedAudits) -> None:
    found: list[dict[str, Any]] = json.loads((compared.page.parent / "rewriters.json").read_text())
    assert [(one["attribute"], one["scorer"]) for one in found] == [("length", name) for name in MODELS]
    for one in found:
        columns = [d_of(folder, one["scorer"]) for folder in audits]
        estimates = {item["name"]: item for item in one["estimates"]}
        assert one["responses"] == len(columns[0])
        for number, column in enumerate(columns, 1):
            assert estimates[f"rewriter.{number}"]["value"] == pytest.approx(np.mean(list(column.values())), rel=1e-9)
        apart = np.mean([columns[0][name] - columns[1][name] for name in columns[0]])
        assert estimates["difference.1.2"]["value"] == pytest.approx(apart, rel=1e-9)
        assert one["components"]["draws"] == 2
    # An effect of both signs is never robust; noise alone never is a difference.
    assert found[0]["robustness"] in ("direction", "depends")
    assert found[1]["robustness"] in ("same", "none", "open")


def test_the_page_says_it(compared: ComparedAudits) -> None:
    markup = compared.page.read_text(encoding="utf-8")
    text = read(markup).text
    verdicts = [line for line in compared.findings if "by 2 rewriters" in line]
    assert len(verdicts) == 2
    assert all(line in text for line in verdicts)
    assert "does the finding hang on who rewrote?" in text
    assert "of the variance of single effects" in text
    rows = dict(islands(markup))["spec-rewriters"]["data"]["values"]
    assert len(rows) == 2 * 3
    values = {
        one["name"]: one["value"]
        for one in json.loads((compared.page.parent / "rewriters.json").read_text())[0]["estimates"]
    }
    assert [row["value"] for row in rows[:3]] == [
        values["rewriter.1.sd"], values["rewriter.2.sd"], values["difference.1.2.sd"],
    ]  # fmt: skip
    assert PAYLOADS[0] not in markup
    assert (compared.page.parent / "figures/rewriters.svg").is_file()


def test_one_rewriter_alone_has_no_such_section(audits: list[Path], tmp_path: Path) -> None:
    again = by_another(audits[0], tmp_path / "again", "rules", 0.0)
    name = json.loads((audits[0] / "effects.json").read_text())["rewriter"]
    assert name == "rules"
    config = AuditComparison(effects=(audits[0], again))
    found = compare_audits(config, Folder(tmp_path / "out"))  # type: ignore[arg-type]
    assert "by 2 rewriters" not in " ".join(found.findings)
    assert not (tmp_path / "out/rewriters.json").exists()


def test_audits_are_matched_by_their_responses(audits: list[Path], tmp_path: Path) -> None:
    # The same rewriter on other data comes first; the ones that share responses are found all the same.
    other = write_audit(tmp_path / "other", 30, steps=2, draws=1, models=MODELS[:1], seed=7)
    alone = AuditComparison(effects=(other, audits[1]))
    assert "by 2 rewriters" not in " ".join(compare_audits(alone, Folder(tmp_path / "one")).findings)  # type: ignore[arg-type]
    config = AuditComparison(effects=(other, *audits))
    found = compare_audits(config, Folder(tmp_path / "out"))  # type: ignore[arg-type]
    assert len([line for line in found.findings if "by 2 rewriters" in line]) == len(MODELS)


@pytest.mark.slow
def test_two_audits_by_one_rule_with_chances_of_its_own_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From data to verdict: the rule drops and repeats other sentences with another seed, and nothing else differs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    texts = [
        f"Text {n}. " + ". ".join(f"Point {part} " + "goes on " * ((n * part) % 5 + 1) for part in range(1, 3 + n % 6))
        for n in range(60)
    ]
    rows = [{"prompt": f"Question {n}?", "completion": f"{text}."} for n, text in enumerate(texts)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in ("0", "1"):
        made, scores, found = f"runs/rewrites-{seed}", f"runs/scores-{seed}", f"effects-{seed}"
        words = ["--attribute", "words", "--data", "data.jsonl", "--seed", seed, "--run", Path(made).name]
        assert main(["audit", "rewrite", *words]) == 0
        assert (
            main(["audit", "score", "--rewrites", made, "--model", "rule:length_words", "--run", Path(scores).name])
            == 0
        )
        assert main(["audit", "effects", "--rewrites", made, "--scores", scores, "--run", found]) == 0
    assert (
        main(["audit", "compare", "--effects", "runs/effects-0", "--effects", "runs/effects-1", "--run", "both"]) == 0
    )
    [one] = json.loads((tmp_path / "runs/both/rewriters.json").read_text())
    assert one["rewriters"][0] != one["rewriters"][1]
    assert all(name.startswith("length@") for name in one["rewriters"])
    assert one["robustness"] == "same"
    assert one["components"]["rewriter"] < 0.05 * one["components"]["rest"]
