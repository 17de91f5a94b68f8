"""Processes of one run: what each finds is everybody's, and one that ends does not leave the others waiting."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import run_ranks

from rewardlab.config import Config
from rewardlab.errors import ConfigError, ElsewhereError, LostProcessError, RunError
from rewardlab.store import processes as module
from rewardlab.store.processes import Processes, alone, launched, processes


def meetings() -> dict[str, Any]:
    """Every kind of meeting, one after the other."""
    here = processes()
    tensors = [torch.full((2, 2), float(here.rank + 1)), torch.arange(3).float().T, torch.tensor([here.rank])]
    weight = torch.nn.Parameter(torch.tensor([float(here.rank)]))
    module.BUCKET_NUMBERS = 5
    here.add_up([*tensors, weight])
    return {
        "gathered": here.gather({"rank": here.rank, "text": "ä" * (1 + 5 * here.rank), "number": 0.1}),
        "nothing": here.gather(None),
        "sums": [tensor.tolist() for tensor in (*tensors, weight)],
        "any": [here.any(here.rank == 1), here.any(False)],
        "first": here.first(lambda: {"by": here.rank}),
        "in turn": here.in_turn(lambda: here.rank),
        # Process 0 has the odd places, backwards.
        "ordered": here.in_order([3, 1] if here.is_first else [0, 2], ["d", "b"] if here.is_first else ["a", "c"], 4),
        "failures": [failure(here, place) for place in ("first", "twice", "tail")],
    }


def failure(here: Processes, place: str) -> str:
    """The error of a meeting that cannot go well; the processes go on together."""

    def fail() -> None:
        raise RunError("it cannot be done")

    calls: dict[str, Callable[[], Any]] = {
        "first": lambda: here.first(fail),
        "twice": lambda: here.in_order([0], ["a"], 2),
        "tail": lambda: here.in_order([here.rank], ["a"], 3),
    }
    try:
        calls[place]()
    except (RunError, ElsewhereError, ValueError) as error:
        return f"{type(error).__name__} {getattr(error, 'exit_code', '')}"
    return ""


def test_what_one_process_finds_all_have() -> None:
    first, second = run_ranks(meetings, 2)
    assert first["gathered"] == [
        {"rank": 0, "text": "ä", "number": 0.1},
        {"rank": 1, "text": "ä" * 6, "number": 0.1},
    ]
    assert first["sums"] == [[[3.0, 3.0], [3.0, 3.0]], [0.0, 2.0, 4.0], [1], [1.0]]
    assert first["any"] == [True, False]
    assert first["first"] == {"by": 0}
    assert first["ordered"] == ["a", "b", "c", "d"]
    own = ("in turn", "failures")
    assert {key: value for key, value in first.items() if key not in own} == {
        key: value for key, value in second.items() if key not in own
    }
    assert (first["in turn"], second["in turn"]) == (0, 1)
    assert first["failures"] == ["RunError 2", "ValueError ", "ValueError "]
    assert second["failures"] == ["ElsewhereError 2", "ValueError ", "ValueError "]


def test_one_process_is_the_plain_case() -> None:
    """The same calls without a launcher: nothing is sent, values come back as they are."""
    here = Processes()
    tensor = torch.tensor([1.5])
    here.add_up([tensor])
    assert tensor.item() == 1.5
    value = object()
    assert here.gather(value) == [value]
    assert here.first(lambda: value) is value
    assert here.in_turn(lambda: value) is value
    assert here.any(True)
    assert not here.any(False)
    assert here.in_order([1, 0], ["b", "a"], 2) == ["a", "b"]
    for places in ([0, 0], [0, 1], [0, 1, 3]):
        with pytest.raises(ValueError, match="from 0 to 2, each once"):
            here.in_order(places, ["a"] * len(places), 3)


def deserted(code: int) -> str:
    """The second process ends without a word, while the first one waits for it."""
    here = processes()
    here.wait()
    if here.rank == 1:
        os._exit(code)
    try:
        here.add_up([torch.ones(3)])
        here.wait()
    except LostProcessError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("code", [0, 1])
def test_who_waits_for_a_process_that_has_ended_is_told(code: int) -> None:
    with pytest.raises(pytest.fail.Exception, match="process 1: ended without a result") as failed:
        run_ranks(deserted, 2, code)
    assert "process 0" not in str(failed.value)


def stuck() -> None:
    if processes().rank == 0:
        processes().wait()
    else:
        import time

        time.sleep(60)


def test_the_harness_ends_what_hangs() -> None:
    with pytest.raises(pytest.fail.Exception, match="process 0: has not ended in time"):
        run_ranks(stuck, 2, seconds=3)


class Word(Config):
    """A configuration."""

    word: str = "a"


def made(root: str, differs: bool) -> dict[str, Any]:
    """A run of two processes."""
    import logging
    from pathlib import Path

    from rewardlab.store.runs import Run

    here = processes()
    config = Word(word="b" if differs and not here.is_first else "a")
    with Run.create(config, verb="make", root=Path(root), name="both") as run:
        run.path(f"of-{here.rank}.txt").write_text("result")
        run.log.info("not worth a line of the second process")
        logging.getLogger("rewardlab").warning("warned by %d", here.rank)
        here.wait()
        return {"folder": str(run.folder.resolve()), "resumed": run.resumed}


def test_a_run_is_made_and_ended_once(tmp_path: Any) -> None:
    from rewardlab.store.record import RunRecord

    first, second = run_ranks(made, 2, str(tmp_path), False)
    assert first == second == {"folder": str(tmp_path / "both"), "resumed": False}
    record = RunRecord.read(tmp_path / "both")
    assert record.status == "done"
    assert set(record.values["results"]) == {"config.yaml", "of-0.txt", "of-1.txt"} | {
        name for name in record.values["results"] if name.endswith(".diff")
    }
    assert len(record.values["sessions"]) == 1
    log, other = (tmp_path / "both" / name for name in ("run.log", "run.1.log"))
    assert "not worth a line" in log.read_text()
    assert [line.split(": ", 1)[1] for line in other.read_text().splitlines()] == ["warned by 1"]
    assert not (tmp_path / "both" / "run.0.log").exists()


def test_processes_with_different_configurations_are_refused(tmp_path: Any) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"(?s)process 1: .*ConfigError: all processes of a run have one"):
        run_ranks(made, 2, str(tmp_path), True)


VARIABLES = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.mark.parametrize("missing", ["", *VARIABLES])
def test_only_a_launcher_makes_several(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Schedulers set some of the variables for every program: on their own they mean nothing."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, "" if name == missing else value)
    assert launched() == (Processes() if missing else Processes(1, 2))


def test_what_several_processes_cannot_share_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    alone("rewardlab report")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ElsewhereError) as silent:
        alone("rewardlab report")
    assert silent.value.exit_code == ConfigError.exit_code
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="rewardlab report: found 2 processes; expected one"):
        alone("rewardlab report")
