"""Run directories: made once, locked, recorded, read-only when done."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from rewardlab.config import Config
from rewardlab.errors import ConfigError, DataError, RunError, UnfinishedError
from rewardlab.store import provenance, runs
from rewardlab.store.files import read_json, write_json
from rewardlab.store.keys import path_digest
from rewardlab.store.lock import FolderLock, is_locked
from rewardlab.store.record import RunRecord, find_run, find_runs
from rewardlab.store.runs import Run


class Inner(Config):
    api_key: str = ""
    init_seed: int = 7


class Work(Config):
    data: Path | None = None
    seed: int = 3
    inner: Inner = Inner()
    device: str = "auto"
    token_budget: int = 4096


def begin(root: Path, config: Config | None = None, **named: Any) -> Run:
    return Run.create(config or Work(), verb="train reward", root=root, **named)


def finished(root: Path, config: Config | None = None, **named: Any) -> Path:
    with begin(root, config, **named) as run:
        run.path("deep/result.txt").write_text("x")
    return run.folder


def test_runs_are_numbered_by_description(tmp_path: Path) -> None:
    names = [finished(tmp_path, description=text).name for text in ("", "", "First, on HH!", "first on hh", "")]
    assert names == ["train-reward-001", "train-reward-002", "first-on-hh-001", "first-on-hh-002", "train-reward-003"]


def test_the_record_says_what_it_takes_to_run_again(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("{}\n")
    root = tmp_path / "runs"
    folder = finished(root, Work(data=data), description="what for", command=["rewardlab", "train", "a b"])
    record = read_json(folder / "run.json")
    assert record["verb"] == "train reward"
    assert record["status"] == "done"
    assert record["seeds"] == {"seed": 3, "inner.init_seed": 7}
    assert record["inputs"] == [{"path": str(data), "sha256": path_digest(data)}]
    assert record["packages"]["pydantic"]
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["memory_bytes"] > 2**28
    record["results"].pop("code.diff", None)  # the checkout that the tests run in may have changes
    assert record["results"] == {"config.yaml": (folder / "config.yaml").stat().st_size, "deep/result.txt": 1}
    (session,) = record["sessions"]
    assert session["command"] == "rewardlab train 'a b'"
    assert session["directory"] == os.getcwd()
    assert session["seconds"] >= 0
    assert Work.build(files=[folder / "config.yaml"]) == Work(data=data)


def test_the_record_says_where_relative_paths_begin_where_there_is_such_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cret-value"
    monkeypatch.setenv("MY_TOKEN", secret)
    for name in (secret, "gone"):
        place = tmp_path / name
        place.mkdir()
        monkeypatch.chdir(place)
        if name == "gone":
            place.rmdir()
        with begin(tmp_path / "runs", name=f"in-{name[:2]}"):
            pass
    found = [RunRecord.read(tmp_path / "runs" / name).values["sessions"][0]["directory"] for name in ("in-s3", "in-go")]
    assert found == [str(tmp_path / "[redacted]"), None]


def test_an_existing_name_is_refused_unless_resumed(tmp_path: Path) -> None:
    folder = finished(tmp_path, name="first")
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match=r"first: found done; expected a new name\. Choose another name with --run\."):
        begin(tmp_path, name="first")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(RunError, match="found something that is no run"):
        begin(tmp_path, name="other")
    begin(tmp_path, name="second").finish("failed")
    with pytest.raises(RunError, match=r"found failed; expected a new name.*or go on with it: --resume"):
        begin(tmp_path, name="second")
    assert sorted(folder.rglob("*")) == before


def test_an_unfinished_run_is_resumed_in_place(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), begin(tmp_path, name="first") as run:
        raise KeyboardInterrupt
    assert RunRecord.read(run.folder).status == "stopped"
    leftover = run.folder / ".unfinished-12345678-model"
    leftover.mkdir()
    with begin(tmp_path, Work(device="cpu"), name="first", resume=True) as again:
        assert again.folder == run.folder
        assert again.resumed
        assert not leftover.exists()
    record = RunRecord.read(run.folder)
    assert [session["status"] for session in record.values["sessions"]] == ["stopped", "done"]
    assert record.seconds == sum(session["seconds"] for session in record.values["sessions"])
    with pytest.raises(RunError, match="nothing to resume"):
        begin(tmp_path, name="first", resume=True)


def test_resuming_takes_the_recorded_configuration(tmp_path: Path) -> None:
    begin(tmp_path, name="first", key="k").finish("failed")
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path, Work(seed=4, inner=Inner(init_seed=8)), name="first", resume=True)
    assert [str(problem) for problem in caught.value.problems] == [
        "seed: found 4; expected 3",
        "inner.init_seed: found 8; expected 7",
    ]
    # The same content under another name is the same run: the key vouches for it.
    begin(tmp_path, Work(data=tmp_path), name="first", resume=True, key="k").finish()


def test_a_run_is_not_resumed_with_other_inputs(tmp_path: Path) -> None:
    data, root = tmp_path / "pairs.jsonl", tmp_path / "runs"
    data.write_text("one")
    begin(root, Work(data=data), name="first").finish("failed")
    before = read_json(root / "first/run.json")
    data.write_text("two")
    with pytest.raises(RunError, match="resumed with the inputs it began with") as caught:
        begin(root, Work(data=data), name="first", resume=True)
    one, two = (hashlib.sha256(text).hexdigest()[:16] for text in (b"one", b"two"))
    remedy = "Bring the former content back, or start another run."
    assert str(caught.value.problems[0]) == f"{data}: found sha256 {two}; expected sha256 {one}. {remedy}"
    data.unlink()
    with pytest.raises(RunError, match=r"pairs\.jsonl: found nothing"):
        begin(root, Work(data=data), name="first", resume=True)
    assert read_json(root / "first/run.json") == before
    data.write_text("one")
    begin(root, Work(data=data), name="first", resume=True).finish()


def test_what_to_resume_is_named(tmp_path: Path) -> None:
    begin(tmp_path, name="first").finish("failed")
    with pytest.raises(RunError, match=r"--run NAME of the run to go on with\. Known: first"):
        begin(tmp_path, resume=True)
    with pytest.raises(RunError, match='Did you mean "first"'):
        begin(tmp_path, name="frist", resume=True)


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from rewardlab.config import Config\n"
        "from rewardlab.store.runs import Run\n"
        "run = Run.create(Config(), verb='v', name='first', root=Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    import time; time.sleep(60)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            assert find_run(tmp_path, "first").status == "running"
            with pytest.raises(RunError, match=r"found a run that is running now; .* or wait for it") as refused:
                begin(tmp_path, name="first")
            assert "--resume" not in str(refused.value)
            with pytest.raises(RunError, match=f"in use by process {other.pid} on "):
                Run.create(Config(), verb="v", name="first", root=tmp_path, resume=True)
            other.kill()
            other.wait()
            # A worker that outlives its parent does not keep the lock.
            assert find_run(tmp_path, "first").status == "interrupted"
            Run.create(Config(), verb="v", name="first", root=tmp_path, resume=True).finish()
        finally:
            os.killpg(other.pid, 9)


def test_a_lock_holds_within_the_process_too(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(RunError, match="in use by this process"):
        FolderLock(tmp_path)
    with pytest.raises(
        RunError, match=r"cannot write to the ledger\n.* a ledger that nobody writes to\. Go elsewhere\."
    ):
        FolderLock(tmp_path, "ledger", "Go elsewhere.")
    assert is_locked(tmp_path)
    path_digest(tmp_path)  # reading the lock file would let go of it
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from rewardlab.store.lock import is_locked\n"
        "print(is_locked(Path(sys.argv[1])))\n"
    )
    asked = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert asked.stdout == "True\n"
    lock.release()
    lock.release()
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).release()


def test_results_become_read_only_when_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDLAB_MODE", "440")
    with begin(tmp_path, name="first") as run:
        folder = run.folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        run.path("deep/result.txt").write_text("x")
    for path in [folder, *folder.rglob("*")]:
        expected = 0o550 if path.is_dir() else 0o440
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    failed = begin(tmp_path, name="second")
    failed.finish("failed")
    assert (failed.folder / "run.json").stat().st_mode & stat.S_IWUSR


def test_results_go_to_the_group_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned: dict[str, str] = {}
    monkeypatch.setenv("REWARDLAB_GROUP", "root")
    monkeypatch.setattr(shutil, "chown", lambda path, group: owned.update({Path(path).name: group}))
    folder = finished(tmp_path, name="first")
    assert owned == {path.name: "root" for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize(
    ("name", "value"), [("REWARDLAB_GROUP", "no such group"), ("REWARDLAB_MODE", "rw"), ("REWARDLAB_MODE", "0")]
)
def test_unusable_settings_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}: found '{value}'"):
        begin(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-very-secret-value")
    monkeypatch.setenv("REWARDLAB_JUDGE_PASSWORD", "hunter2hunter2")
    config = Work(inner=Inner(api_key="another secret"), data=Path("https://me:pass-word@host/x"))
    command = ["rewardlab", "--inner.api_key", "another secret", "--x=hf_abcdefghijklmnopqrst", "a-very-secret-value"]
    with begin(tmp_path, config, description="with a-very-secret-value", command=command) as run:
        run.log.info("calling with a-very-secret-value and hunter2hunter2")
        logging.getLogger("rewardlab.llm").warning("key sk-abcdefghijklmnopqrstuvw")
    written = "".join(path.read_text() for path in run.folder.rglob("*") if path.is_file())
    for secret in ("another secret", "a-very", "hunter2", "pass-word", "hf_abc", "sk-abc"):
        assert secret not in written
    assert "token_budget: 4096" in written
    assert written.count("[redacted]") >= 7


def test_the_log_has_the_package_and_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path, console_level="warning")
    logging.getLogger("rewardlab.train").debug("a detail")
    logging.getLogger("rewardlab.train").warning("take care")
    with pytest.raises(ZeroDivisionError) as caught, run:
        raise ZeroDivisionError("division by nothing")
    log = (run.folder / "run.log").read_text()
    assert "DEBUG rewardlab.train: a detail" in log
    assert "Traceback" in log
    assert "division by nothing" in log
    assert caught.value.__notes__ == [f"The traceback is in {run.folder / 'run.log'}"]
    assert capsys.readouterr().err == "take care\n"
    logging.getLogger("rewardlab.train").warning("after the run")
    assert "after the run" not in (run.folder / "run.log").read_text()


def test_bad_input_before_any_result_frees_the_name(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError), begin(tmp_path, name="first"):
            raise DataError("no such file")
    assert list(tmp_path.iterdir()) == []
    run = begin(tmp_path, name="first")
    write_json(run.path("summary.json"), 1)
    with pytest.raises(DataError), run:
        raise DataError("another file")
    assert RunRecord.read(run.folder).status == "failed"


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        begin(tmp_path, name="first")
    assert list(tmp_path.iterdir()) == []


def test_findings_are_recorded(tmp_path: Path) -> None:
    with begin(tmp_path / "runs") as run:
        run.record_findings(["all is well"])
    assert RunRecord.read(run.folder).findings == ["all is well"]


def test_a_folder_without_a_record_is_refused_unless_a_killed_run_left_it(tmp_path: Path) -> None:
    left = [[], [".lock"], [".lock", "config.yaml", "code.diff", ".unfinished-0123abcd-run.json"]]
    for number, names in enumerate(left):
        for name in names:
            (tmp_path / f"left-{number}").mkdir(exist_ok=True)
            (tmp_path / f"left-{number}" / name).touch()
        (tmp_path / f"left-{number}").mkdir(exist_ok=True)
        folder = finished(tmp_path, name=f"left-{number}")
        assert RunRecord.read(folder).is_whole()
        assert not list(folder.glob(".unfinished-*"))
    for name in ("config.yaml", "notes.txt"):
        (tmp_path / name / "own").mkdir(parents=True)
        (tmp_path / name / "own" / name).write_text("mine")
        with pytest.raises(RunError, match="found something that is no run"):
            begin(tmp_path / name, name="own")
        assert [path.name for path in (tmp_path / name / "own").iterdir()] == [name]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="found something that is no run"):
        begin(tmp_path, name="file")


@pytest.mark.parametrize("resume", [True, False])
def test_what_another_process_has_done_by_the_time_of_the_lock_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    """The folder is unfinished (or empty) when it is looked at, and done when the lock is got."""
    if resume:
        begin(tmp_path, name="shared").finish("failed")

    class Late(FolderLock):
        def __init__(self, folder: Path) -> None:
            monkeypatch.setattr(runs, "FolderLock", FolderLock)
            if not resume:
                folder.rmdir()
            with begin(tmp_path, name="shared", resume=resume) as first:
                first.path("result.txt").write_text("first")
            super().__init__(folder)

    monkeypatch.setattr(runs, "FolderLock", Late)
    # Whoever is not root may not open the lock of a folder that is done.
    with pytest.raises(RunError, match=r"found (done|Permission denied)"):
        begin(tmp_path, name="shared", resume=resume)
    record = RunRecord.read(tmp_path / "shared")
    assert record.is_whole()
    assert (tmp_path / "shared/result.txt").read_text() == "first"
    assert not is_locked(tmp_path / "shared")


def test_a_done_run_knows_when_a_result_is_gone(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    assert RunRecord.read(folder).is_whole()
    folder.chmod(0o755)
    (folder / "deep").chmod(0o755)
    (folder / "deep" / "result.txt").unlink()
    assert not RunRecord.read(folder).is_whole()


def test_runs_are_found_with_stages_and_without_rubbish(tmp_path: Path) -> None:
    stage = finished(tmp_path / "study", name="stage")
    single = finished(tmp_path, name="single")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("[]")
    assert {run.folder for run in find_runs(tmp_path)} == {single, stage}
    assert find_run(tmp_path, "study/stage").folder == stage
    assert find_run(tmp_path, str(stage)).folder == stage
    with pytest.raises(RunError, match='Did you mean "single"'):
        find_run(tmp_path, "singel")


def test_a_folder_that_is_deleted_while_runs_are_looked_for_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = finished(tmp_path, name="kept")
    (tmp_path / "deleted").mkdir()
    listed = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path).name == "deleted":
            Path(path).rmdir()
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [found.folder for found in find_runs(tmp_path)] == [kept]
    assert not (tmp_path / "deleted").exists()


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *settings, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The package's folder in a small repository."""
    package = tmp_path / "repository" / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    (tmp_path / "repository" / ".gitignore").write_text("*.ignored\n")
    git(tmp_path / "repository", "init", "-q")
    git(tmp_path / "repository", "add", "-A")
    git(package, "commit", "-q", "-m", "first")
    return package


def test_a_checkout_is_recorded_by_commit_and_difference(checkout: Path) -> None:
    clean = provenance.code_of(checkout, allow_untracked=False)
    assert (clean.commit, clean.diff, clean.untracked) == (git(checkout, "rev-parse", "HEAD"), b"", ())
    (checkout / "__init__.py").write_text("a = 2\n")
    (checkout / "notes.ignored").write_text("")
    (checkout.parent / "outside.py").write_text("")
    changed = provenance.code_of(checkout, allow_untracked=False)
    (checkout / "__init__.py").write_text("a = 1\n")
    subprocess.run(["git", "-C", str(checkout), "apply"], input=changed.diff, check=True)
    assert (checkout / "__init__.py").read_text() == "a = 2\n"


def test_untracked_source_is_refused_unless_allowed(checkout: Path) -> None:
    (checkout / "new module.py").write_text("")
    with pytest.raises(RunError, match=r"new module\.py: found a file that git does not track") as caught:
        provenance.code_of(checkout, allow_untracked=False)
    assert "--allow-untracked" in str(caught.value)
    assert provenance.code_of(checkout, allow_untracked=True).untracked == ("new module.py",)


def test_an_installed_package_is_recorded_by_hashes(checkout: Path) -> None:
    installed = checkout / "site.ignored" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("a = 3\n")
    code = provenance.code_of(installed, allow_untracked=False)
    assert code.commit is None
    assert code.files == {"__init__.py": path_digest(installed / "__init__.py")}


def test_where_git_does_not_answer_nothing_is_taken_for_an_installed_package(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "__init__.py").write_text("a = 1\n")
    with monkeypatch.context() as patch:
        # As in a container whose user does not own the checkout that is mounted into it.
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        with pytest.raises(RunError, match=r"dubious ownership.*safe\.directory"):
            provenance.code_of(checkout, allow_untracked=True)
        assert provenance.code_of(outside, allow_untracked=False).files
    git(checkout, "update-ref", "-d", "HEAD")
    with pytest.raises(RunError, match="git rev-parse: fatal"):
        provenance.code_of(checkout, allow_untracked=True)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(RunError, match=r"git ls-files: .*No such file"):
            provenance.code_of(checkout, allow_untracked=True)
        assert provenance.code_of(outside, allow_untracked=False).files


def test_a_difference_that_is_too_large_is_said_to_be(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LARGEST_DIFF_BYTES", 10)
    (checkout / "__init__.py").write_text("a = 2\n")
    code = provenance.code_of(checkout, allow_untracked=False)
    assert code.diff == b""
    assert code.diff_bytes > 10


def test_code_changed_before_a_resume_is_recorded_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def code(diff: bytes) -> provenance.Code:
        return provenance.Code("1", "c0ffee", diff, len(diff))

    for number, diff in enumerate([b"one", b"one", b"two"]):
        monkeypatch.setattr(runs, "code_of", lambda *, allow_untracked, diff=diff: code(diff))
        begin(tmp_path, name="first", resume=number > 0).finish("failed")
    record = RunRecord.read(tmp_path / "first")
    assert [session["diff"] for session in record.values["sessions"]] == ["code.diff", "code.diff", "code.3.diff"]
    assert (tmp_path / "first" / "code.3.diff").read_bytes() == b"two"
    assert (tmp_path / "first" / "run.log").read_text().count("the code has changed") == 1


def test_the_time_of_a_run_under_way_is_its_time_so_far(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        values = read_json(run.folder / "run.json")
        began = datetime.now(UTC) - timedelta(hours=1)
        values["sessions"] = [{**values["sessions"][0], "seconds": 5.0}, {"started": began.isoformat()}]
        write_json(run.folder / "run.json", values)
        assert RunRecord.read(run.folder).seconds == pytest.approx(3605, abs=60)
        # Of one that was killed nobody knows how long it lasted.
        assert RunRecord(tmp_path, values).seconds == 5.0


class Endpointed(Config):
    endpoint: dict[str, int] = Field(default_factory=dict)
    many: list[dict[str, dict[str, int]]] = Field(default_factory=list)


def test_how_an_endpoint_is_asked_may_change_and_who_is_asked_may_not(tmp_path: Path) -> None:
    given = {"endpoint": {"timeout": 1, "model": 1}, "many": [{"judge": {"ask_again": 0, "model": 1}}]}
    run = begin(tmp_path, Endpointed.build(given), name="first")
    run.finish("failed")
    given = {"endpoint": {"timeout": 2, "model": 1}, "many": [{"judge": {"ask_again": 1, "model": 1}}]}
    begin(tmp_path, Endpointed.build(given), name="first", resume=True).finish("failed")
    for path in ("endpoint", "many"):
        other = {**given, path: {"model": 2} if path == "endpoint" else [{"other": {"timeout": 2}}]}
        with pytest.raises(ConfigError, match=path):
            begin(tmp_path, Endpointed.build(other), name="first", resume=True)


def test_unfinished_work_leaves_its_run_and_other_refusals_do_not(tmp_path: Path) -> None:
    for kind, there in ((UnfinishedError, True), (RunError, False)):
        with pytest.raises(RunError), begin(tmp_path, name=kind.__name__):
            raise kind("stopped")
        assert (tmp_path / kind.__name__).exists() == there
