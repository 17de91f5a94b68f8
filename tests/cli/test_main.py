"""The command line as a whole: exit codes, messages, help."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import datasets
import fake_verbs
import pyarrow as pa
import pytest
from fake_hub import COMMIT, FakeHub
from fake_verbs import VERBS

from rewardlab.cli import environment, main, runs, verb
from rewardlab.data.adapters import ADAPTERS
from rewardlab.errors import DataError, InputError, ModelError, RunError
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.record import RunRecord
from rewardlab.store.runs import Run
from rewardlab.store.table import write_parquet
from rewardlab.studies.verbs import VERBS as REAL_VERBS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the default folder of runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    return tmp_path / "runs"


def call(*words: str) -> int:
    return main.main(words, VERBS)


def test_a_verb_runs_and_prints_its_findings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("make.yaml").write_text("word: a\ntimes: 5\n")
    code = call("make", "--config", "make.yaml", "--times", "2", "--shout", "--run", "first", "--columns.a", "b")
    printed = capsys.readouterr()
    assert code == 0
    assert printed.out == "2 lines were made\n"
    assert "started make in runs/first" in printed.err
    assert [row["word"] for row in read_jsonl(home / "first" / "lines.jsonl")] == ["A", "A"]
    record = RunRecord.read(home / "first")
    assert record.command == ("rewardlab make --config make.yaml --times 2 --shout --run first --columns.a b")
    assert record.config()["columns"] == {"a": "b"}


def test_sigterm_stops_as_the_keyboard_does(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(fake_verbs, "append_line", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert call("make", "--word", "a", "--times", "2", "--run", "mine") == main.STOPPED
    assert "Go on with: rewardlab make --run mine --resume" in capsys.readouterr().err
    assert RunRecord.read(home / "mine").values["status"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_records_the_commit_of_what_it_reads_from_the_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"q{number}", "chosen": "a", "rejected": "b"} for number in range(200)]
    there = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})
    monkeypatch.setattr("rewardlab.store.hub.HfApi", FakeHub())
    monkeypatch.setattr(datasets, "load_dataset", lambda *words, **options: there)
    assert main.main(["data", "prepare", "--sources.pairs", "owner/pairs", "--run", "prepared"], REAL_VERBS) == 0
    assert RunRecord.read(home / "prepared").config()["sources"]["pairs"]["revision"] == COMMIT


def test_bad_input_is_one_message_and_code_2(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--tmies", "2") == 2
    assert call("make", "--times", "many", "--shape.width", "0") == 2
    assert call("make", "--word", "a", "--trouble", "input") == 2
    assert call("mkae") == 2
    assert call("join") == 0  # a group lists its commands
    assert call("join", "fiels") == 2
    assert call("make", "--config", "absent.yaml") == 2
    assert call("--tokens") == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    for line in (
        '--tmies: found an unknown flag; expected a known one. Did you mean "--times"?',
        "word: found nothing; expected a value. Set word in the YAML file or with --word.",
        "--times: found 'many'; expected a valid integer",
        "--shape.width: found 0; expected greater than or equal to 1",
        "a.jsonl:3: found rubbish; expected a pair",
        'mkae: found an unknown command; expected a known one. Did you mean "make"?',
        'join fiels: found an unknown command; expected a known one. Did you mean "join files"?',
        "absent.yaml: found No such file or directory",
    ):
        assert line in printed
    assert list(home.iterdir()) == []


def test_a_refusal_says_that_its_folder_is_gone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--word", "a", "--trouble", "input", "--run", "first") == 2
    log, _, message = capsys.readouterr().err.partition("rewardlab: ")
    assert log == "started make in runs/first\nrefused; runs/first is removed again\n"
    assert "found rubbish" in message
    assert list(home.iterdir()) == []


def test_a_terminal_that_lacks_a_character_gets_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert call("make", "--word", "a", "--run", "first", "--description", "größe") == 0
    assert call("runs", "show", "first") == 0
    assert b"gr\\xf6\\xdfe" in written.getvalue()


def test_a_bug_is_a_short_message_and_a_traceback_in_the_log(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--word", "a", "--trouble", "bug", "--run", "first") == 1
    printed = capsys.readouterr().err
    assert "rewardlab: unexpected ZeroDivisionError: an unexpected thing" in printed
    assert "The traceback is in runs/first/run.log" in printed
    assert "Go on with: rewardlab make --run first --resume" in printed
    assert call("make", "--word", "b", "--run", "deep/a b", "--trouble", "bug") != 0
    assert "Go on with: rewardlab make --run 'deep/a b' --resume" in capsys.readouterr().err
    assert "Traceback" not in printed
    assert "Traceback" in (home / "first" / "run.log").read_text()
    assert call("make", "--word", "a", "--trouble", "bug", "--log-level", "debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (DataError, "Mend what is named and start another run: a resumed one would meet the same."),
        (RunError, "Go on with: rewardlab make --run first --resume"),
        (
            ModelError,
            "start another run under another name; where not, go on with: rewardlab make --run first --resume",
        ),
    ],
)
def test_what_is_advised_after_an_error_is_what_can_help(
    kind: type[InputError],
    expected: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def late(path: Path, *_: object) -> None:
        path.write_text("a result\n")
        raise kind("not so")

    monkeypatch.setattr(fake_verbs, "append_line", late)
    assert call("make", "--word", "a", "--times", "2", "--run", "first") == 2
    assert capsys.readouterr().err.rstrip().endswith(expected)


def test_stopped_while_it_was_loading(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verb, "run_verb", Mock(side_effect=KeyboardInterrupt))
    assert call("make", "--word", "a") == 130
    assert capsys.readouterr().err == "rewardlab: stopped before a run was begun\n"


def test_stopped_and_resumed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--word", "a", "--trouble", "stop late", "--run", "first") == 130
    assert "rewardlab: stopped\nGo on with: rewardlab make --run first --resume\n" in capsys.readouterr().err
    assert call("make", "--run", "first", "--resume", "--word", "b") == 2
    assert "word: found 'b'; expected 'a'" in capsys.readouterr().err
    # The same trouble again, one line further: the recorded configuration is used without being typed.
    assert call("make", "--run", "first", "--resume", "--device", "cpu") == 130
    assert [row["number"] for row in read_jsonl(home / "first" / "lines.jsonl")] == [0, 1]
    assert call("make", "--resume") == 2
    assert call("make", "--resume", "--run", "frist") == 2
    assert 'Did you mean "first"' in capsys.readouterr().err


def test_a_taken_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--word", "a", "--run", "first") == 0
    assert call("make", "--word", "a", "--run", "first") == 2
    assert "runs/first: found done; expected a new name" in capsys.readouterr().err


def test_an_unknown_log_level_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--word", "a", "--log-level", "loud") == 2
    assert "--log-level: found loud; expected one of debug, info, warning, error" in capsys.readouterr().err
    assert list(home.iterdir()) == []


STUDY = """\
name: small
stages:
  - {id: first, verb: make, config: {word: a}}
  - {id: last, verb: join files, config: {inputs: ["${first}/lines.jsonl"]}}
"""


@pytest.mark.parametrize("jobs", ["0", "two", "-1"])
def test_a_number_of_steps_at_a_time_is_a_number(home: Path, capsys: pytest.CaptureFixture[str], jobs: str) -> None:
    Path("small.yaml").write_text(STUDY)
    assert call("run", "small.yaml", "--jobs", jobs) == 2
    assert f"--jobs: found {jobs!r}; expected a whole number, 1 or more" in capsys.readouterr().err


def test_a_study_from_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(STUDY)
    words = ["run", "small.yaml", "--stages.first.times", "2", "--limit", "1", "--run", "other"]
    assert call(*words, "--plan") == 0
    assert capsys.readouterr().out == "run        first (make)\nrun        last (join files)\n"
    assert call(*words, "--dry-run", "--stages.first.columns.hub_token", "not-for-eyes") == 0
    given = {"word": "a", "times": "2", "columns": '{"hub_token": "[redacted]"}', "limit": "1"}
    alone = ["rewardlab", "make", *(word for name, text in given.items() for word in (f"--{name}", text))]
    assert capsys.readouterr().out.splitlines() == [
        "small: 2 steps (2 run)",
        "[1/2] run  first (make)",
        f"    {shlex.join(alone)}",
        "[2/2] run  last (join files), after first",
        """    rewardlab join files --inputs '["runs/other/first/lines.jsonl"]'""",
    ]
    missing = "step first: source: found gone.txt, which is not there; expected a file or folder that is there"
    for how in (["--plan"], ["--dry-run"], ["--run", "third"]):
        assert call(*words, *how, "--stages.first.source", "gone.txt") == 0
        assert capsys.readouterr().err.startswith(f"Steps will fail for what they read:\n  {missing}")
    assert call(*words) == 0
    printed = capsys.readouterr()
    assert printed.out == "1 lines were made\n"
    assert "[1/2] first (make): running" in printed.err
    assert call(*words) == 0
    assert "[2/2] last (join files): unchanged, not run again" in capsys.readouterr().err
    assert RunRecord.read(home / "other" / "first").command.startswith("rewardlab run small.yaml --stages.first")
    assert call("run", "small.yaml", "--stages.first.trouble", "stop") == 130
    said = capsys.readouterr().err
    assert "In step first. What is done stays done.\nGo on with the same command, mended where it has to be." in said
    assert call("run") == 2
    assert call("run", "nothing") == 2


def test_runs_are_listed_shown_and_restored(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("runs", "list") == 0
    assert capsys.readouterr().out.split() == ["RUN", "STATUS", "STARTED", "SECONDS", "VERB"]
    Path("small.yaml").write_text(STUDY)
    call("run", "small.yaml")
    call("make", "--word", "b", "--run", "single", "--trouble", "stop")
    capsys.readouterr()
    assert call("runs", "list") == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table[1:]] == [
        ["small/first", "done"],
        ["small/last", "done"],
        ["single", "stopped"],
    ]
    assert call("runs", "show", "small/last") == 0
    shown = capsys.readouterr().out
    for line in ("verb         join files", "finding      3 lines were made", "inputs:", "result       joined.json"):
        assert line in shown
    assert call("runs", "restore", "single") == 0
    *_, where, again = capsys.readouterr().out.splitlines()
    assert where == f"cd {shlex.quote(str(Path.cwd()))}"
    assert again == f"rewardlab make --config {home.resolve()}/single/config.yaml"
    assert call("runs", "show", "smal/last") == 2
    assert 'Did you mean "small/last"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "diff", "expected"),
    [
        (
            {"commit": "c0ffee", "diff_recorded": True},
            "code.diff",
            ["git checkout c0ffee", "git apply 'FOLDER/code.diff'"],
        ),
        (
            {"commit": "c0ffee", "diff_recorded": False, "diff_bytes": 9, "untracked": ["a.py"]},
            None,
            [
                "git checkout c0ffee",
                "# not recorded: 9 bytes of changes against this commit",
                "# not recorded: the untracked file a.py",
            ],
        ),
        ({"version": "0.1.0"}, None, ["pip install rewardlab==0.1.0  # sha256 of its files: code.files in run.json"]),
    ],
)
def test_restoring_names_what_the_record_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: dict[str, object], diff: str | None, expected: list[str]
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    record = {"verb": "score", "status": "done", "code": code, "sessions": [{"diff": diff}]}
    (folder / "run.json").write_text(json.dumps(record))
    runs.run_command("runs restore", [str(folder)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line != "# in a clone of the repository"]
    assert lines[:-1] == [line.replace("FOLDER", str(folder)) for line in expected]
    assert lines[-1] == f"rewardlab score --config '{folder}/config.yaml'"


def evaluated(name: str, word: str, scores: list[tuple[float, float]]) -> None:
    """A run with the table of pairs that an evaluation writes; the texts say which pair it is."""
    rows = [
        {"pair_id": f"p{i}", "occurrence": 0, "prompt_id": f"q{i}", "root_id": f"q{i}", "prompt": f"prompt\n{i}\x1b[2J"}
        | {"chosen": "c", "rejected": "r", "chosen_score": float(chosen), "rejected_score": float(rejected)}
        | {"chosen_tokens": 3 + i % 2, "rejected_tokens": 3}
        for i, (chosen, rejected) in enumerate(scores)
    ]
    with Run.create(fake_verbs.Make(word=word), verb="make", name=name) as run:
        write_parquet(run.path("pairs.parquet"), pa.Table.from_pylist(rows))


def test_two_evaluations_are_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated("first", "a", [(1, 0), (0, 1), (0, 2), (1, 0), (3, 0)])
    evaluated("second", "b", [(1, 0), (1, 0), (5, 2), (0, 1), (3, 1), (1, 0)])
    assert call("runs", "compare", "first", "second") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "configuration: 1 difference(s)",
        "  word: 'a' -> 'b'",
        "pairs: 5 in both, 0 only in the first, 1 in the second",
        "measures, second minus first; an interval that holds 0 shows no difference:",
    ]
    # Right before: 3 of 5; after: 4 of 5.
    assert lines[4].startswith("  accuracy: +0.200 [-")
    flips = lines[lines.index("flipped: 2 pairs right only in the second, 1 only in the first") :]
    assert flips[1:3] == ["  p2: margin -2.000 -> +3.000", "    prompt    prompt 2\N{REPLACEMENT CHARACTER}[2J"]
    assert call("make", "--word", "a", "--run", "third") == 0
    capsys.readouterr()
    assert call("runs", "compare", "third", "first") == 0
    assert "measures: no pairs.parquet of `evaluate accuracy` in runs/third" in capsys.readouterr().out


def test_help_is_made_from_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("make", "--help") == 0
    text = capsys.readouterr().out
    flat = " ".join(text.split())
    for part in (
        "usage: rewardlab make [--flag value ...]",
        "Lines made from nothing.",
        "--word TEXT What is repeated. (required)",
        "--shape.width INT Columns. (default: 3)",
        "--shape.colour red|blue Of the lines. (default: red)",
        "--rate FLOAT A small number. (default: 1e-05)",
        "--shout BOOL In capitals. (default: false)",
        "--source PATH or null A file to read. (default: null)",
        "--columns mapping New names. (default: {})",
        "--shapes list of Shape More of them. Each has width, colour. (default: ())",
        "--resume go on with the unfinished run",
    ):
        assert part in flat, part
    assert "second paragraph" not in flat
    assert max(map(len, text.splitlines())) <= 110


def test_help_says_what_is_off_and_names_no_python_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["train", "reward", "--help"]) == 0
    flat = " ".join(capsys.readouterr().out.split())
    assert "--lora.r INT Rank. (default: 8; without any --lora flag: null)" in flat
    assert "--encoding.max_tokens INT Longest sequence in tokens, special tokens included. (default: 1024)" in flat
    assert "--betas list of FLOAT " in flat
    assert "Annotated" not in flat
    for words in (["--help"], [], ["-h"], ["run", "--help"], ["runs", "show", "--help"], ["runs"], ["--version"]):
        assert call(*words) == 0, words
    assert "join files" in capsys.readouterr().out


def test_formats_and_shipped_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["data", "formats"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[::2]] == list(ADAPTERS)
    assert "columns: prompt, completions, rewards?" in printed
    assert main.main(["data", "formats", "all"]) == 2
    assert main.main(["run"]) == 2
    said = capsys.readouterr().err
    assert "Give a study file or a shipped study. On a small machine: demo, hh-exo, hh-interventions, hh-ll" in said
    assert "vowels-typos-world. Published experiments, which need the hub and GPUs: exo-hh, exo-sentime" in said
    assert main.main(["--help"]) == 0
    commands = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert commands.index("data") < commands.index("train"), "a group stands together"
    assert main.main(["data", "formats", "--help"]) == 0
    assert "the formats of preference data that are read" in capsys.readouterr().out


def test_listing_verbs_imports_nothing_heavy_and_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from rewardlab.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'scipy', 'rewardlab.train'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "sys.exit(main(['--help']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert "ready\n" in iter(process.stdout.readline, "")
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == main.READER_GONE


def test_every_verb_leaves_the_options_to_the_command_line() -> None:
    taken = {
        "config",
        "run",
        "description",
        "log_level",
        "resume",
        "allow_untracked",
        "help",
        "plan",
        "launcher",
        "wait",
        "slurm",
    }
    for name, known in REAL_VERBS.items():
        assert not taken & set(known.config_class().model_fields), name


def test_settings_come_from_the_env_file_where_the_environment_is_silent(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    del os.environ["REWARDLAB_HOME"]
    os.environ["HF_HOME"] = "kept"
    Path(".env").write_text("REWARDLAB_HOME='else where' \nHF_HOME=other\nPATH=/nowhere\n")
    assert call("make", "--word", "a", "--run", "first") == 0
    assert Path("else where/first/run.json").is_file()
    assert os.environ["HF_HOME"] == "kept"
    assert os.environ["PATH"] != "/nowhere"


def test_of_the_env_file_only_what_is_ours_goes_into_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=abc\nREWARDLAB_MODE=640\nAWS_KEY=x\nOPENAI_API_KEY=y\nHF_HOME=\n")
    found = {"REWARDLAB_MODE": "600"}
    environment.load_env_file(tmp_path, found)
    assert found == {"HF_TOKEN": "abc", "REWARDLAB_MODE": "600", "HF_HOME": ""}


def test_an_env_file_that_cannot_be_read_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"HF_TOKEN=hush\xff")
    assert call("make", "--word", "a") == 2
    told = capsys.readouterr().err
    assert ".env: found bytes that are not UTF-8" in told
    assert "hush" not in told


def test_python_and_the_command_line_do_the_same(home: Path) -> None:
    config = fake_verbs.Make(word="a")
    with Run.create(config, verb="make", name="python") as run:
        fake_verbs.make(config, run)
    call("make", "--word", "a", "--run", "shell")
    assert (home / "python" / "lines.jsonl").read_bytes() == (home / "shell" / "lines.jsonl").read_bytes()
    python, shell = (read_json(home / name / "run.json") for name in ("python", "shell"))
    assert set(shell) - set(python) == {"findings"}
