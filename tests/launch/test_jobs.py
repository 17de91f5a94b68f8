"""Jobs from the command line to their end: through submitit's local executor, and through programs like SLURM's."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import psutil
import pytest
from fake_slurm import make_slurm
from submitit import LocalExecutor
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.local.local import LocalJobEnvironment

from rewardlab.cli import launching, main
from rewardlab.launch.job import Command, Order, exit_file, variables
from rewardlab.launch.slurm import Slurm
from rewardlab.launch.submit import Submitted
from rewardlab.store.files import read_json, read_jsonl, write_json
from rewardlab.store.record import RunRecord
from rewardlab.store.runs import Run
from rewardlab.studies.verbs import VERBS

WORLD = ["data", "world", "--train", "20", "--val", "5", "--test", "5"]
SECONDS = 240


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "runs"


class Here(LocalExecutor):
    """submitit's local executor; knows the processes that it has started."""

    started: ClassVar[list[Any]] = []

    def _submit_command(self, command: str) -> Any:
        job: Any = super()._submit_command(command)
        self.started.append(job._process)
        return job


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """submitit's local executor in the place of that for SLURM."""

    def local(slurm: Slurm, name: str, folder: Path) -> LocalExecutor:
        made = Here(folder, max_num_timeout=slurm.requeues)
        made.update_parameters(
            tasks_per_node=slurm.tasks, timeout_min=60, signal_delay_s=slurm.grace, stderr_to_stdout=True
        )
        return made

    monkeypatch.setattr(launching, "executor", local)
    monkeypatch.setattr(launching, "require_slurm", lambda: None)
    yield
    while Here.started:
        Here.started.pop().wait(SECONDS)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with programs like SLURM's."""
    folder = make_slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main.main(words) == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("_here")
def test_a_verb_runs_as_a_job_with_the_same_results(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*WORLD, "--run", "here"]) == 0
    capsys.readouterr()
    assert main.main([*WORLD, "--launcher", "slurm", "--wait", "--slurm.gpus=0"]) == 0
    said = capsys.readouterr().out
    # The name is fixed when the job is submitted.
    there = home / "data-world-001"
    assert "is queued: rewardlab data world --train 20 --val 5 --test 5 --run data-world-001" in said
    assert RunRecord.read(there).status == "done"
    assert (there / "train.jsonl").read_bytes() == (home / "here" / "train.jsonl").read_bytes()
    (log,) = (home / "slurm" / "data-world-001").glob("*_0_log.out")
    assert str(log) in said
    assert "The world wrote 20 train" in log.read_text()
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("_here")
@pytest.mark.slow
def test_waiting_gives_the_exit_code_of_the_command(home: Path) -> None:
    Path("pairs.jsonl").write_text("rubbish\n")
    words = ["data", "doctor", "--sources.a.path", "pairs.jsonl", "--run", "a"]
    assert main.main([*words, "--launcher", "slurm", "--wait"]) == main.main(words) == 2


def test_through_slurm(slurm: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")  # of a job that this one is submitted from
    assert main.main([*WORLD, "--run", "a", "--launcher", "slurm", "--wait", "--slurm.cpus", "1"]) == 0
    assert len(list(read_jsonl(home / "a" / "train.jsonl"))) == 20
    wait_for((slurm / "4242.code").exists)
    assert (slurm / "4242.code").read_text() == "0\n"
    assert (slurm / "4242.state").read_text() == "COMPLETED\n"


def test_what_slurm_refuses_leaves_nothing_behind(slurm: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *WORLD, "--launcher", "slurm", "--slurm.partition", "nowhere", "--run", "a")
    assert "SLURM has refused the job" in said
    assert "invalid partition specified: nowhere" in said
    assert not (home / "a").exists()
    assert not list((home / "slurm").iterdir())


def test_what_would_fail_in_the_job_is_told_before(
    slurm: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = ["--launcher", "slurm"]
    assert "--trian: found an unknown flag" in refused(capsys, "data", "world", *cluster, "--trian", "5")
    assert "--train: found 'x'" in refused(capsys, "data", "world", *cluster, "--train", "x")
    assert "expected one. Its processes do not share" in refused(capsys, *WORLD, *cluster, "--slurm.tasks", "2")
    Path("own.yaml").write_text("name: own\nstages: [{id: a, verb: data world, config: {train: 20}}]\n")
    assert "found 2 processes" in refused(capsys, "run", "own.yaml", *cluster, "--slurm.nodes", "2")
    assert "--stages.a.trian: found" in refused(capsys, "run", "own.yaml", *cluster, "--stages.a.trian", "2")
    assert "no such study" in refused(capsys, "run", "dmeo", *cluster)
    assert "no such run" in refused(capsys, "data", "world", "--run", "gone", "--resume", *cluster)
    assert "--wait: found no --launcher" in refused(capsys, *WORLD, "--wait")
    assert "an unknown flag" in refused(capsys, "runs", "list", *cluster)
    monkeypatch.setenv("MY_TOKEN", "abcdef0123456789")
    said = refused(capsys, *WORLD, *cluster, "--description", "abcdef0123456789")
    assert "what looks like a secret" in said
    assert "a secret" in refused(capsys, *WORLD, *cluster, "--slurm.setup", "export MY_TOKEN=abcdef0123456789")
    assert "abcdef0123456789" not in said
    assert not home.exists()
    assert not (slurm / "4242.sh").exists()


def test_a_name_that_is_taken_is_refused_before_the_queue(
    slurm: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run.create(VERBS["data world"].config_class()(), verb="data world", name="a"):
        pass
    said = refused(capsys, *WORLD, "--run", "a", "--launcher", "slurm")
    assert "the run directory exists" in said
    said = refused(capsys, "data", "world", "--run", "a", "--resume", "--launcher", "slurm")
    assert "nothing to resume" in said
    assert RunRecord.read(home / "a").status == "done"


def test_help_tells_the_flags_of_the_launcher(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["data", "world", "--help"]) == 0
    assert "--slurm.requeues" not in capsys.readouterr().out
    assert main.main(["data", "world", "--launcher", "slurm", "--help"]) == 0
    assert "--slurm.requeues INT" in capsys.readouterr().out


def test_the_local_launcher_runs_here(home: Path) -> None:
    assert main.main([*WORLD, "--run", "a", "--launcher", "local", "--slurm.gpus", "8"]) == 0
    assert not (home / "slurm").exists()


def order(home: Path, words: list[str], name: str = "a") -> Order:
    return Order(name, words, [*words, "--resume"], home / name, home.parent)


def test_a_run_that_has_begun_is_resumed_and_one_that_is_done_is_left_alone(home: Path) -> None:
    config = VERBS["data world"].config_class()()
    command = Command(order(home, ["words"]), 10, True)
    assert command._next_words() == ["words"]
    with pytest.raises(KeyboardInterrupt), Run.create(config, verb="data world", name="a"):
        raise KeyboardInterrupt
    assert command._next_words() == ["words", "--resume"]
    with Run.create(config, verb="data world", name="a", resume=True):
        pass
    assert command._next_words() is None


def environment(monkeypatch: pytest.MonkeyPatch, folder: Path, rank: int = 0, count: int = 1) -> LocalJobEnvironment:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(folder))
    numbers = {"JOB_ID": 70_123, "NTASKS": count, "GLOBALID": rank, "LOCALID": rank, "NODEID": 0, "JOB_NUM_NODES": 1}
    for name, value in numbers.items():
        monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", str(value))
    return LocalJobEnvironment()


def test_tasks_find_each_other_and_a_single_one_is_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("WORLD_SIZE", "9")
    monkeypatch.setenv("MINE", "kept")
    single = variables(environment(monkeypatch, tmp_path))
    assert single["MINE"] == "kept"
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} & single.keys()
    second = variables(environment(monkeypatch, tmp_path, rank=1, count=2))
    found = {name: second[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    assert found == {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20123",
    }


def fake_program(monkeypatch: pytest.MonkeyPatch, path: Path, lines: str) -> None:
    """A program in the place of Python, so that nothing is imported."""
    path.write_text(f"#!/bin/bash\n{lines}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def answered(command: Command, here: LocalJobEnvironment, *signals: signal.Signals) -> int | str | None:
    """How a task ends that gets these signals once its process is there, with submitit's answers to them."""
    submission = DelayedSubmission(command)
    submission.set_timeout(60, 3)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)}

    def send() -> None:
        wait_for(Path("begun").exists)
        for number in signals:
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    sender = threading.Thread(target=send)
    here._handle_signals(here.paths, submission)
    sender.start()
    try:
        command()
    except SystemExit as end:
        return end.code
    finally:
        sender.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class Scripted:
    """A job of which SLURM says one state after the other, the last one for ever; at each something happens first."""

    job_id = "70123"

    def __init__(self, folder: Path, *states: str, meanwhile: Mapping[int, Callable[[], Any]]) -> None:
        self.folder, self.states, self.meanwhile = folder, states, meanwhile
        self.looks = 0

    def task(self, number: int) -> Any:
        return SimpleNamespace(paths=SimpleNamespace(stdout=self.folder / f"{self.job_id}_{number}_log.out"))

    @property
    def state(self) -> str:
        return self.states[min(self.looks, len(self.states)) - 1]

    def done(self) -> bool:
        self.meanwhile.get(self.looks, lambda: None)()
        self.looks += 1
        return self.state in ("COMPLETED", "FAILED", "CANCELLED")


def waited(home: Path, job: Scripted, *, requeue: bool = True) -> int:
    return Submitted(cast(Any, job), order(home, ["score"]), requeue).wait(look=0.001)


def test_the_exit_of_a_preempted_attempt_is_not_taken_for_that_of_the_job(tmp_path: Path, home: Path) -> None:
    def leaves(code: int) -> Callable[[], None]:
        return lambda: write_json(exit_file(tmp_path, "70123"), {"exit_code": code})

    again = Scripted(tmp_path, "RUNNING", "PREEMPTED", "PENDING", "RUNNING", meanwhile={1: leaves(130), 4: leaves(3)})
    assert waited(home, again) == 3
    # Stopped for good: by scancel, where jobs are never queued again, and where nobody says what becomes of them.
    assert waited(home, Scripted(tmp_path, "RUNNING", "CANCELLED", meanwhile={0: leaves(130)})) == 130
    assert waited(home, Scripted(tmp_path, "PREEMPTED", meanwhile={0: leaves(130)}), requeue=False) == 130
    assert waited(home, Scripted(tmp_path, "UNKNOWN", meanwhile={0: leaves(130)})) == 130


def test_an_attempt_begins_without_the_exit_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    fake_program(monkeypatch, tmp_path / "python", "ls jobs > begun")
    here = environment(monkeypatch, tmp_path / "jobs")
    (tmp_path / "jobs").mkdir()
    write_json(exit_file(tmp_path / "jobs", "70123"), {"exit_code": 130})
    assert answered(Command(order(home, ["score"]), 1, True), here) == 0
    assert Path("begun").read_text() == ""
    assert read_json(exit_file(tmp_path / "jobs", "70123")) == {"exit_code": 0}


def test_at_the_end_of_its_time_the_process_is_stopped_and_the_same_job_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    # USR2 would end the process here, had it not been kept from it.
    lines = 'trap "touch stopped; exit 130" TERM\nkill -USR2 $$\necho "$*" > begun\nwhile :; do sleep 0.05; done'
    fake_program(monkeypatch, tmp_path / "python", lines)
    here = environment(monkeypatch, tmp_path / "jobs")
    (tmp_path / "jobs").mkdir()
    code = answered(Command(order(home, ["score", "--run", "a"]), 10, True), here, signal.SIGUSR2)
    assert code == 144  # by which submitit's local controller knows that the job is to be queued again
    assert Path("begun").read_text() == "-m rewardlab score --run a\n"
    assert Path("stopped").exists()
    paths = JobPaths(tmp_path / "jobs", "70123", 0)
    asked = DelayedSubmission.load(paths.submitted_pickle)
    assert (asked.function.words, asked.function.again) == (
        ["score", "--run", "a"],
        ["score", "--run", "a", "--resume"],
    )
    # Preempted, not timed out: that does not count.
    assert asked._timeout_countdown == 3
    assert not (tmp_path / "jobs" / "70123_exit.json").exists()


def test_sigterm_reaches_the_process_and_its_exit_code_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    fake_program(monkeypatch, tmp_path / "python", 'trap "exit 130" TERM\ntouch begun\nwhile :; do sleep 0.05; done')
    here = environment(monkeypatch, tmp_path / "jobs")
    (tmp_path / "jobs").mkdir()
    assert answered(Command(order(home, ["score"]), 1, True), here, signal.SIGTERM) == 130
    assert read_json(tmp_path / "jobs" / "70123_exit.json") == {"exit_code": 130}


def test_a_job_that_may_not_be_queued_again_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> None:
    fake_program(monkeypatch, tmp_path / "python", 'trap "exit 130" TERM\ntouch begun\nwhile :; do sleep 0.05; done')
    here = environment(monkeypatch, tmp_path / "jobs")
    (tmp_path / "jobs").mkdir()
    with pytest.raises(RuntimeError, match="not requeued"):
        answered(Command(order(home, ["score"]), 10, False), here, signal.SIGUSR2)
    assert read_json(tmp_path / "jobs" / "70123_exit.json") == {"exit_code": 1}


def pairs(folder: Path, count: int) -> Path:
    path = folder / "pairs.jsonl"
    rows = ({"prompt": f"Say {n}.", "chosen": "word " * (n % 7 + 1), "rejected": "no"} for n in range(count))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_where_it_was(slurm: Path, home: Path, tmp_path: Path) -> None:
    words = ["score", "--model", "rule:length_words", "--data", str(pairs(tmp_path, 600)), "--shard_size", "4"]
    assert main.main([*words, "--run", "here"]) == 0
    assert main.main([*words, "--run", "there", "--launcher", "slurm"]) == 0
    wait_for(lambda: list((home / "there" / "shards").rglob("*.parquet")))
    os.kill(int((slurm / "4242.0.pid").read_text()), signal.SIGUSR2)
    wait_for((slurm / "4242.code").exists)
    assert (slurm / "4242.code").read_text() == "0\n"
    record = RunRecord.read(home / "there")
    assert record.status == "done"
    assert [session["status"] for session in record.values["sessions"]] == ["stopped", "done"]
    assert (home / "there" / "scores.parquet").read_bytes() == (home / "here" / "scores.parquet").read_bytes()


@pytest.mark.slow
def test_two_tasks_share_the_work(slurm: Path, home: Path, tmp_path: Path) -> None:
    words = ["score", "--model", "rule:length_words", "--data", str(pairs(tmp_path, 60)), "--shard_size", "4"]
    assert main.main([*words, "--run", "here"]) == 0
    assert main.main([*words, "--run", "there", "--launcher", "slurm", "--slurm.tasks", "2", "--wait"]) == 0
    assert (home / "there" / "scores.parquet").read_bytes() == (home / "here" / "scores.parquet").read_bytes()
    logs = sorted(path.name for path in (home / "slurm" / "there").glob("*_log.out"))
    assert logs == ["4242_0_log.out", "4242_1_log.out"]


@pytest.mark.slow
def test_a_job_that_is_killed_has_no_exit_code(
    slurm: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardlab.launch.submit._LATE", 1.0)

    def kill() -> None:
        wait_for((home / "a" / "run.json").exists)
        task = psutil.Process(int((slurm / "4242.0.pid").read_text()))
        for process in [task, *task.children(recursive=True)]:
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        words = ["data", "world", "--train", "50000", "--run", "a", "--launcher", "slurm", "--wait"]
        assert main.main(words) == 1
    finally:
        killer.join()
    assert "ended without an exit code. SLURM says: FAILED" in capsys.readouterr().err
