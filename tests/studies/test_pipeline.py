"""Pipelines: what is done is not done again, what is interrupted goes on, what changed runs anew."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import fake_verbs
import pytest
from fake_hub import COMMIT, FakeHub
from fake_verbs import VERBS

from rewardlab.errors import ConfigError, DataError, RunError
from rewardlab.store import keys
from rewardlab.store.files import read_json
from rewardlab.store.lock import FolderLock
from rewardlab.store.record import RunRecord
from rewardlab.studies import pipeline
from rewardlab.studies.pipeline import Options, StudyResult, missing_inputs, plan_study, run_study
from rewardlab.studies.study import StudyFile
from rewardlab.studies.verbs import Verb

STUDY = """\
name: small
stages:
  - {id: first, verb: make, config: {word: a, source: INPUT}}
  - {id: second, verb: make, config: {word: b, times: 2}}
  - {id: last, verb: join files, config: {inputs: ["${first}/lines.jsonl", "${second}/lines.jsonl"]}}
"""
JOINED = [{"word": "a", "number": n} for n in range(3)] + [{"word": "b", "number": n} for n in range(2)]


@pytest.fixture
def source(tmp_path: Path) -> StudyFile:
    (tmp_path / "input.txt").write_text("1")
    file = tmp_path / "small.yaml"
    file.write_text(STUDY.replace("INPUT", str(tmp_path / "input.txt")))
    return StudyFile.read(file)


def run(
    source: StudyFile,
    tmp_path: Path,
    *flags: tuple[str, str],
    told: list[str] | None = None,
    name: str = "",
    verbs: Mapping[str, Verb] = VERBS,
) -> StudyResult:
    options = Options(name=name, root=tmp_path / "runs", flags=flags)
    return run_study(source, options, tell=(told if told is not None else []).append, verbs=verbs)


def actions(result: StudyResult) -> list[str]:
    return list(result.actions.values())


def silent(line: str) -> None:
    """Can be told from another process."""


def test_steps_side_by_side_leave_what_they_leave_one_after_another(source: StudyFile, tmp_path: Path) -> None:
    options = Options(root=tmp_path / "runs", jobs=2)
    result = run_study(source, options, tell=silent, verbs=VERBS)
    assert result.actions == {"first": "run", "second": "run", "last": "run"}
    assert read_json(result.folder / "last" / "joined.json") == JOINED
    assert actions(run(source, tmp_path)) == ["unchanged"] * 3
    with pytest.raises(DataError, match="rubbish") as caught:
        run_study(source, replace(options, flags=[("stages.first.trouble", "input")]), tell=silent, verbs=VERBS)
    assert caught.value.__notes__ == ["In step first. What is done stays done."]


def test_every_step_runs_once(source: StudyFile, tmp_path: Path) -> None:
    told: list[str] = []
    result = run(source, tmp_path, told=told)
    assert actions(result) == ["run", "run", "run"]
    assert read_json(result.folder / "last" / "joined.json") == JOINED
    assert result.lines() == ["5 lines were made"]
    assert told[0] == "[1/3] first (make): running"
    assert told[1].startswith("[1/3] first (make): done in ")
    again: list[str] = []
    second = run(source, tmp_path, told=again)
    assert actions(second) == ["unchanged"] * 3
    assert again[2] == "[3/3] last (join files): unchanged, not run again"
    assert second.lines() == result.lines()
    assert not (result.folder / "superseded").exists()


def test_a_changed_configuration_reaches_only_what_depends_on_it(source: StudyFile, tmp_path: Path) -> None:
    first = run(source, tmp_path)
    assert actions(run(source, tmp_path, ("stages.second.word", "c"))) == ["unchanged", "run", "run"]
    assert read_json(first.folder / "last" / "joined.json") == [
        *JOINED[:3],
        *({**row, "word": "c"} for row in JOINED[3:]),
    ]
    kept = first.folder / "superseded"
    assert sorted(path.name for path in kept.iterdir()) == ["last-001", "second-001"]
    assert read_json(kept / "last-001" / "joined.json") == JOINED
    # A change that leaves the files as they were stops there.
    assert actions(run(source, tmp_path, ("stages.second.word", "c"), ("stages.first.rate", "2e-5"))) == [
        "run",
        "unchanged",
        "unchanged",
    ]


def test_what_is_set_aside_again_and_again_may_be_deleted_in_between(source: StudyFile, tmp_path: Path) -> None:
    for word in "bcd":
        kept = run(source, tmp_path, ("stages.second.word", word)).folder / "superseded"
    (kept / "second-001").chmod(0o755)
    shutil.rmtree(kept / "second-001")
    assert actions(run(source, tmp_path, ("stages.second.word", "e"))) == ["unchanged", "run", "run"]
    found = {path.name: RunRecord.read(path).config().get("word") for path in kept.glob("second-*")}
    assert found == {"second-002": "c", "second-003": "d"}


def test_the_records_have_the_flags_and_no_secret(tmp_path: Path) -> None:
    secret = "-".join(("not", "to", "be", "read"))  # in pieces: the record has the changes of this file as well
    file = tmp_path / "small.yaml"
    file.write_text(
        f"name: a\nstages: [{{id: only, verb: make, config: {{word: a, columns: {{api_key: {secret}}}}}}}]\n"
    )
    flags = [("limit", "2"), ("stages.only.columns.hub_token", secret)]
    folder = run(StudyFile.read(file), tmp_path, *flags).folder
    assert not any(secret in path.read_text() for path in folder.rglob("*") if path.is_file())
    config = RunRecord.read(folder / "only").config()
    assert config["limit"] == 2
    assert config["columns"] == dict.fromkeys(("api_key", "hub_token"), "[redacted]")


SHARED = VERBS | {"make": replace(VERBS["make"], shared=True)}


def test_what_a_shared_verb_has_made_is_copied_from_a_study_to_the_next(
    source: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(source, tmp_path, verbs=SHARED)
    assert actions(run(source, tmp_path, name="unshared")) == ["run", "run", "run"]
    plan = plan_study(source, Options(name="other", root=tmp_path / "runs"), SHARED)
    assert [action for _, action in plan] == ["copy", "copy", "run"]
    told: list[str] = []
    other = run(source, tmp_path, name="other", verbs=SHARED, told=told)
    assert actions(other) == ["copy", "copy", "run"]
    assert told[0] == f"[1/3] first (make): copied from {first.folder / 'first'}, not run again"
    assert read_json(other.folder / "last" / "joined.json") == JOINED
    assert not (other.folder / "first" / "lines.jsonl").stat().st_mode & 0o222
    assert actions(run(source, tmp_path, name="other", verbs=SHARED)) == ["unchanged"] * 3
    # Another configuration is made anew, the former one is there already.
    changed = ("stages.first.word", "z")
    assert actions(run(source, tmp_path, changed, name="other", verbs=SHARED)) == ["run", "unchanged", "run"]
    assert actions(run(source, tmp_path, name="other", verbs=SHARED)) == ["copy", "unchanged", "run"]
    # Damaged results are not copied, nor what other versions of the packages have made.
    for made in (tmp_path / "runs").rglob("second/lines.jsonl"):
        made.chmod(0o644)
        made.write_text("")
    assert [action for _, action in plan_study(source, Options(root=tmp_path / "runs", name="third"), SHARED)][:2] == [
        "copy",
        "run",
    ]
    monkeypatch.setattr(pipeline, "packages", lambda: {"torch": "0"})
    assert actions(run(source, tmp_path, name="third", verbs=SHARED)) == ["run", "run", "run"]


def test_a_changed_input_file_runs_anew(source: StudyFile, tmp_path: Path) -> None:
    run(source, tmp_path)
    (tmp_path / "input.txt").write_text("2")
    assert actions(run(source, tmp_path)) == ["run", "unchanged", "unchanged"]


def test_a_dataset_that_changes_on_the_hub_runs_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub()
    rows = [{"prompt": f"q{number}", "chosen": "a", "rejected": "b"} for number in range(200)]
    read: list[str] = []

    def load_dataset(*_: Any, revision: str, **options: Any) -> datasets.DatasetDict:
        read.append(revision)
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})

    monkeypatch.setattr("rewardlab.store.hub.HfApi", hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    file = tmp_path / "hub.yaml"
    file.write_text("name: hub\nstages: [{id: data, verb: data prepare, config: {sources: {pairs: owner/pairs}}}]\n")
    source, options = StudyFile.read(file), Options(root=tmp_path / "runs")
    found = [actions(run_study(source, options)) for _ in range(2)]
    data = tmp_path / "runs/hub/data"
    assert RunRecord.read(data).config()["sources"]["pairs"]["revision"] == COMMIT
    assert read_json(data / "summary.json")["sources"]["pairs"]["files"][0]["commit"] == COMMIT
    (tmp_path / "cache/datasets--owner--pairs/snapshots" / COMMIT).mkdir(parents=True)
    hub.answer = "beef" * 10
    assert [action for _, action in plan_study(source, options)] == ["run"]
    # Whoever does not ask the hub goes by what was read from it last.
    assert [action for _, action in plan_study(source, options, offline=True)] == ["unchanged"]
    found += [actions(run_study(source, options)) for _ in range(2)]
    assert found == [["run"], ["unchanged"], ["run"], ["unchanged"]]
    assert read == [COMMIT, "beef" * 10]
    # Without a network, what was done with the commit that was read last stays done.
    (tmp_path / "cache/datasets--owner--pairs/snapshots" / ("beef" * 10)).mkdir(parents=True)
    hub.answer = ConnectionError("no route to host")
    assert actions(run_study(source, options)) == ["unchanged"]


def test_changed_code_runs_anew(source: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source, tmp_path)
    monkeypatch.setattr(pipeline, "code_key", lambda module: "another")
    assert actions(run(source, tmp_path)) == ["run", "run", "run"]


def test_missing_results_are_made_again(source: StudyFile, tmp_path: Path) -> None:
    folder = run(source, tmp_path).folder
    (folder / "last").chmod(0o755)
    (folder / "last" / "joined.json").unlink()
    assert actions(run(source, tmp_path)) == ["unchanged", "unchanged", "run"]


def test_a_stopped_step_goes_on_where_it_was(
    source: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended: list[Any] = []
    append = fake_verbs.append_line

    def append_until_the_fourth(path: Path, value: Any) -> None:
        append(path, value)
        appended.append(value)
        if len(appended) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(fake_verbs, "append_line", append_until_the_fourth)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(source, tmp_path)
    assert caught.value.__notes__ == ["In step second. What is done stays done."]
    plan = plan_study(source, Options(root=tmp_path / "runs"), VERBS)
    assert [action for _, action in plan] == ["unchanged", "resume", "run"]
    result = run(source, tmp_path)
    assert actions(result) == ["unchanged", "resume", "run"]
    assert read_json(result.folder / "last" / "joined.json") == JOINED
    assert appended == JOINED  # nothing was made twice
    sessions = RunRecord.read(result.folder / "second").values["sessions"]
    assert [session["status"] for session in sessions] == ["stopped", "done"]


def test_a_failed_step_says_how_to_go_on(source: StudyFile, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rubbish") as caught:
        run(source, tmp_path, ("stages.second.trouble", "input"))
    assert caught.value.__notes__ == ["In step second. What is done stays done."]
    assert actions(run(source, tmp_path)) == ["unchanged", "run", "run"]


def test_nothing_runs_when_any_stage_cannot(source: StudyFile, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--stages\.last\.inptus"):
        run(source, tmp_path, ("stages.last.inptus", "x"))
    assert not (tmp_path / "runs").exists()


def missing(source: StudyFile, tmp_path: Path, *flags: tuple[str, str]) -> list[str]:
    return [str(one) for one in missing_inputs(source, Options(root=tmp_path / "runs", flags=flags), VERBS)]


def test_what_later_steps_would_read_and_is_not_there_is_told(source: StudyFile, tmp_path: Path) -> None:
    """Every file once, by the first step that names it; what earlier steps leave is still to come."""
    gone = tmp_path / "gone.jsonl"
    flags = (("stages.last.inputs", f"['${{first}}/lines.jsonl', {gone}]"), ("stages.last.named", f"{{a: {gone}}}"))
    expected = "a file or folder that is there, or what a stage before leaves"
    told = f"step last: inputs.1: found {gone}, which is not there; expected {expected}"
    assert missing(source, tmp_path, *flags) == [told]
    gone.write_text("")
    assert missing(source, tmp_path, *flags) == []


def test_what_is_to_come_is_known_by_other_names_too(source: StudyFile, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    same = ("stages.last.inputs", f"[{tmp_path}/link/small/first/lines.jsonl]")
    assert missing(source, tmp_path, same) == []


def test_a_name_that_no_file_can_have_is_not_there(source: StudyFile, tmp_path: Path) -> None:
    (told,) = missing(source, tmp_path, ("stages.first.source", "x" * 300))
    assert told.startswith("step first: source: found xxx")


def test_data_that_is_not_there_is_told_and_ids_of_the_hub_and_what_is_written_are_not(tmp_path: Path) -> None:
    sources = "{mine: {path: pairs.jsonl.gz}, theirs: {path: owner/name}, here: {path: ./owner/name}}"
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: read\nstages:\n  - {{id: doctor, verb: data doctor, config: {{sources: {sources}}}}}\n"
        "  - {id: card, verb: models card, config: {model: '${doctor}', out: CARD.md}}\n"
        "  - {id: push, verb: models push, config: {model: '${doctor}', to: a/b, card: CARD.md}}\n"
    )
    told = missing_inputs(StudyFile.read(file), Options(root=tmp_path / "runs"))
    assert [one.where for one in told] == ["step doctor: sources.mine.path", "step doctor: sources.here.path"]


def test_a_plan_touches_nothing(source: StudyFile, tmp_path: Path) -> None:
    options = Options(root=tmp_path / "runs", name="other")
    assert [(step.name, action) for step, action in plan_study(source, options, VERBS)] == [
        ("first", "run"),
        ("second", "run"),
        ("last", "run"),
    ]
    assert not (tmp_path / "runs").exists()


def test_a_study_is_run_by_one_process_at_a_time(source: StudyFile, tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "runs" / "small")
    with pytest.raises(RunError, match="in use by this process"):
        run(source, tmp_path)
    lock.release()
    assert actions(run(source, tmp_path)) == ["run", "run", "run"]


DRIVER = """
import os, sys
from pathlib import Path
from fake_verbs import VERBS
from rewardlab.studies.pipeline import Options, run_study
from rewardlab.studies.study import StudyFile
source, root, moment = StudyFile.read(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
count = 0
def counted(function):
    def call(*arguments, **named):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), 9)
        return function(*arguments, **named)
    return call
os.fsync, os.replace = counted(os.fsync), counted(os.replace)
run_study(source, Options(root=root), verbs=VERBS)
print(count)
"""


def drive(tmp_path: Path, root: str, moment: int) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(fake_verbs.__file__).parent)}
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "small.yaml"), str(tmp_path / root), str(moment)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def check_kills(tmp_path: Path, count: int) -> None:
    """Kill the study at random writes, each time going on with what is there; compare with one left alone."""
    whole = drive(tmp_path, "whole", 0)
    assert whole.returncode == 0, whole.stderr
    moments = random.Random(3).sample(range(1, int(whole.stdout) + 1), count)
    for moment in moments:
        killed = drive(tmp_path, f"killed-{moment}", moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = drive(tmp_path, f"killed-{moment}", 0)
        assert resumed.returncode == 0, resumed.stderr
        folders = [tmp_path / root / "small" for root in ("whole", f"killed-{moment}")]
        for name in ("first/lines.jsonl", "second/lines.jsonl", "last/joined.json"):
            assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
        assert {RunRecord.read(folders[1] / step).status for step in ("first", "second", "last")} == {"done"}
        assert not list(folders[1].glob("*/.unfinished-*"))


@pytest.mark.usefixtures("source")
def test_killed_and_run_again_the_results_are_the_same(tmp_path: Path) -> None:
    check_kills(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("source")
def test_killed_at_twenty_moments_the_results_are_the_same(tmp_path: Path) -> None:
    check_kills(tmp_path, 20)


def test_keys_know_every_verb(source: StudyFile) -> None:
    steps = source.steps(Path("x"), (), VERBS)
    assert len({pipeline.step_key(step) for step in steps}) == 3
    assert keys.code_key("fake_verbs") == keys.code_key("fake_verbs")
