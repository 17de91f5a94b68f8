"""Folders are read whole, and everything that is wrong with them is said at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.errors import DataError
from rewardlab.report import inputs as report_inputs
from rewardlab.report import reading
from rewardlab.report.inputs import Inputs, read_inputs
from tests.report import finished
from tests.report.audited import write_audit


def read(**folders: list[Path]) -> Inputs:
    return read_inputs(**{"doctor": [], "train": [], "score": [], "evaluate": [], **folders})


def test_finished_stages_are_read(tmp_path: Path) -> None:
    inputs = read(**finished.write_all(tmp_path, pairs=12))
    expected = ["doctor", "train-0", "train-1", "ppo", "score", "evaluate"]
    assert [stage.label for stage in inputs.stages] == expected
    assert inputs.evaluate[0].record["verb"] == "evaluate accuracy"
    assert len(inputs.evaluate[0].content.pairs.margins) == 12
    assert inputs.evaluate[0].content.file.estimate("accuracy.ties") is not None
    assert inputs.evaluate[0].content.file.estimate("no.such") is None
    assert inputs.train[1].content.history[0].measure("loss") is not None
    assert inputs.train[1].content.history[0].measure("accuracy") is None


def test_runs_that_a_stage_was_made_from_are_named_before_it(tmp_path: Path) -> None:
    """evaluate ← a file in prepared ← raw, and ← score, which is shown itself; once each, however they are named."""
    stages = finished.write_all(tmp_path, pairs=4)
    for name, started in (("raw", "2026-01-01"), ("prepared", "2026-01-02")):
        finished.write_record(tmp_path / name, f"data {name}")
        edit(tmp_path / name, sessions=[{"started": started, "directory": str(tmp_path)}])
    edit(tmp_path / "prepared", inputs=[{"path": "raw"}, {"path": "prepared/itself.jsonl"}])
    mine = [{"path": str(tmp_path / "prepared/test.jsonl")}, {"path": str(tmp_path / "score")}, {"path": "gone"}]
    no_paths = [{"path": "very " * 2000}, {"path": "a\0b"}]
    edit(tmp_path / "evaluate", inputs=[*no_paths, *mine])
    edit(tmp_path / "doctor", inputs=[{"path": "prepared"}], sessions=[{"directory": str(tmp_path)}])
    edit(tmp_path / "train-0", inputs=None, sessions="none")
    found = read(**stages)
    assert [stage.label for stage in found.behind] == ["raw", "prepared"]
    assert [stage.record["verb"] for stage in found.behind] == ["data raw", "data prepared"]
    assert [stage.label for stage in found.stages[2:]] == [stage.label for stage in found.given]


def edit(folder: Path, **values: object) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_every_problem_is_reported(tmp_path: Path) -> None:
    stages = finished.write_all(tmp_path, pairs=4)
    (tmp_path / "doctor" / "doctor.json").write_text('{"checks": [{"name": "x"}]}')
    (tmp_path / "train-0" / "history.jsonl").write_text('{"step": 1, "split": "train"}\n{"step": "no"}\n')
    (tmp_path / "train-1" / "history.jsonl").write_text("not json\n")
    (tmp_path / "score" / "summary.json").write_text("[1]")
    values = json.loads((tmp_path / "evaluate" / "accuracy.json").read_text())
    del values["curves"]["margins"]
    values["estimates"]["accuracy"][0]["value"] = "high"
    (tmp_path / "evaluate" / "accuracy.json").write_text(json.dumps(values))
    stages["evaluate"].append(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        read(**stages)
    places = "\n".join(problem.where for problem in caught.value.problems)
    for place in ("doctor.json: checks.0.title", "history.jsonl:2: step", "train-1", "score/summary.json"):
        assert place in places
    for place in ("accuracy.json: curves.margins", "accuracy.json: estimates.accuracy.0.value", "nowhere"):
        assert place in places


def test_a_run_of_another_verb_is_named(tmp_path: Path) -> None:
    stages = finished.write_all(tmp_path, pairs=4)
    with pytest.raises(DataError) as caught:
        read(**{**stages, "doctor": stages["score"], "score": stages["train"][:1]})
    assert [(problem.where, problem.found, problem.expected) for problem in caught.value.problems] == [
        (str(stages["score"][0]), "a run of `score`", "a run of `data doctor`"),
        (str(stages["train"][0]), "a run of `train reward`", "a run of `score`"),
    ]


def test_pairs_are_read_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, across the parts that the file is read in; the others never leave the file."""
    folder = finished.write_all(tmp_path, pairs=23)["evaluate"][0]
    monkeypatch.setattr(reading, "_ROWS_AT_ONCE", 5)
    pairs = read(evaluate=[folder]).evaluate[0].content.pairs
    table = pq.read_table(folder / "pairs.parquet").select(report_inputs.PAIR_COLUMNS).to_pylist()
    wanted = [22, 3, 0, 4, 5, 3]
    assert pairs.rows(wanted) == [table[index] for index in wanted]
    assert pairs.rows([]) == []
    assert pairs.margins == [row["margin"] for row in table]
    (folder / "pairs.parquet").unlink()
    with pytest.raises(DataError, match=r"pairs\.parquet"):
        pairs.rows([1])


def test_pairs_without_their_columns_are_refused(tmp_path: Path) -> None:
    folder = finished.write_evaluation(tmp_path / "evaluate", np.random.default_rng(0), 4)
    pq.write_table(pa.table({"pair_id": ["a"], "chosen": ["b"]}), folder / "pairs.parquet")
    with pytest.raises(DataError, match=r"no column chosen_characters, .*rejected"):
        read(evaluate=[folder])
    (folder / "pairs.parquet").write_bytes(b"PAR1 but no table")
    with pytest.raises(DataError, match=r"pairs\.parquet"):
        read(evaluate=[folder])


def test_a_killed_and_diverged_training_can_be_reported_on(tmp_path: Path) -> None:
    folder = finished.write_train(tmp_path / "train", np.random.default_rng(0))
    (folder / "summary.json").unlink()
    (folder / "run.json").unlink()
    (folder / "history.jsonl").write_text('{"step": 1, "split": "train", "loss": NaN}\n{"step": 2, "sp')
    stage = read(train=[folder]).train[0]
    assert (stage.record, stage.content.summary) == ({}, {})
    assert len(stage.content.history) == 1
    loss = stage.content.history[0].measure("loss")
    assert loss is not None
    assert math.isnan(loss)


def test_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = [finished.write_train(tmp_path / fold / "train", rng) for fold in ("fold-0", "fold-1")]
    assert [stage.label for stage in read(train=folders).train] == ["fold-0/train", "fold-1/train"]


def test_the_folder_of_an_audit_run_stands_for_its_effects_and_names_them(tmp_path: Path) -> None:
    for name, seed in (("length", 0), ("tone", 1)):
        made = write_audit(tmp_path / name / "made", 20, steps=2, draws=1, models=["likes-advice-2B"], seed=seed)
        made.rename(tmp_path / name / "effects")
        (tmp_path / name / "steps").mkdir()
        (tmp_path / name / "effects").rename(tmp_path / name / "steps/effects")
    runs = [tmp_path / name for name in ("length", "tone")]
    whole, steps = read(audit=runs), read(audit=[run / "steps/effects" for run in runs])
    assert [stage.label for stage in whole.audit] == [stage.label for stage in steps.audit] == ["length", "tone"]
    assert [stage.content.raw for stage in whole.audit] == [stage.content.raw for stage in steps.audit]
    # In the page of one run its steps stand beside each other.
    assert [stage.label for stage in read(audit=runs[:1]).audit] == ["effects"]
