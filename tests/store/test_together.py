"""What several processes do for themselves at the same time: one mistake of a user is one message."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pytest
from ranks import run_ranks

from rewardlab.cli.main import main
from rewardlab.errors import DataError, ElsewhereError, LostProcessError, Problem
from rewardlab.store.processes import processes
from rewardlab.store.together import together


def outcome(failing: list[int]) -> str:
    """What `together` gives in this process where those processes fail."""
    rank = processes().rank

    def work() -> int:
        if rank in failing:
            raise DataError("unusable", [Problem("here", f"process {rank}", "another")])
        return 10 + rank

    try:
        return str(together(work))
    except (DataError, ElsewhereError, LostProcessError) as error:
        return f"{type(error).__name__} {error.exit_code}"


def said(words: list[str], home: str) -> tuple[int, str]:
    """Exit code and standard error of the command line in this process."""
    os.environ |= {"REWARDLAB_HOME": home, "REWARDLAB_ALLOW_UNTRACKED": "1"}
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        code = main(words)
    return code, stream.getvalue()


def everything(home: str, data: str) -> dict[str, object]:
    """All that is asked of two processes, in one launch."""
    training = ["train", "reward", "--model", f"{home}/no-model", "--train", data]
    return {
        "outcomes": [outcome(failing) for failing in ([], [0, 1], [0], [1])],
        "data": said([*training, "--run", "data"], home),
        "model": said([*training, "--train", f"{home}/good.jsonl", "--limit", "3", "--run", "model"], home),
        "score": said(["score", "--model", "rule:length_words", "--data", data, "--run", "score"], home),
        "features": said(["data", "features", "--model", "none", "--data", data, "--run", "features"], home),
        "resume": said(["train", "reward", "--run", "nothing", "--resume"], home),
    }


def test_what_is_wrong_for_all_is_said_by_the_first(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": \n')
    row = {"prompt": "one ", "chosen": "two", "rejected": "three"}
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(4)))
    first, second = run_ranks(everything, 2, str(tmp_path), str(tmp_path / "bad.jsonl"))
    assert first["outcomes"] == ["10", "DataError 2", "DataError 2", "LostProcessError 1"]
    assert second["outcomes"] == ["11", "ElsewhereError 2", "ElsewhereError 2", "DataError 2"]
    for name in ("data", "score", "features"):
        assert first[name][0] == 2
        assert "rewardlab: " in first[name][1]
        assert "bad.jsonl" in first[name][1]
    assert "rewardlab: " in first["model"][1]
    assert "rewardlab: " in first["resume"][1]
    # The others end with the same code, and have nothing to add.
    for name in ("data", "model", "score", "features", "resume"):
        assert second[name] == (first[name][0], ""), name


def test_one_process_is_the_plain_case() -> None:
    assert together(lambda: 5) == 5
    with pytest.raises(DataError, match="unusable"):
        together(lambda: (_ for _ in ()).throw(DataError("unusable")))
