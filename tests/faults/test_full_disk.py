"""The disk is full in the middle of things: one message, whole files or none, and the run can go on."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus import check_message, rows
from small_models import reward_model_of

from rewardlab.cli.main import main
from rewardlab.models.loading import save_reward_model
from rewardlab.store.files import LEFTOVER_PREFIX, read_json, read_jsonl
from rewardlab.store.record import RunRecord
from rewardlab.train.checkpoints import all_checkpoints, is_complete
from rewardlab.train.trainer import GroupTrainer

PREPARE = ["data", "prepare", "--sources.mine", "pairs.jsonl", "--fractions.val", "0", "--fractions.test", "0.3"]


class Disk:
    """A disk that has no room for files of a certain name, as the system says it when they are forced to disk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refusals = 0
        self._fsync = os.fsync

    def fsync(self, descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(self.name):
            self.refusals += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._fsync(descriptor)


def fill(name: str, patch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(name)
    patch.setattr(os, "fsync", disk.fsync)
    return disk


def leftovers() -> list[Path]:
    return list(Path().rglob(f"{LEFTOVER_PREFIX}*"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads names of open files from /proc")
@pytest.mark.parametrize(
    ("command", "first"),
    [
        (PREPARE, "train.jsonl"),
        (["data", "doctor", "--sources.mine", "pairs.jsonl"], "set_aside.jsonl"),
        (["data", "world", "--train", "8", "--val", "0", "--test", "0"], "train.jsonl"),
        (["data", "world", "--train", "8", "--val", "0", "--test", "0"], "run.json"),
        (["data", "world", "--train", "8", "--val", "0", "--test", "0"], "config.yaml"),
    ],
)
def test_no_room_for_the_first_file(
    command: list[str], first: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = fill(first, monkeypatch)
    assert main(command) == 2
    message = check_message(capsys.readouterr().err)
    assert disk.refusals > 0
    assert f"/{first}: found No space left on device; expected room and permission to write" in message
    assert "Free some space there, or choose another place (REWARDLAB_HOME)." in message
    assert list(Path("runs").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads names of open files from /proc")
def test_no_room_for_a_later_file_and_on_once_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fill("test.jsonl", patch)
        assert main([*PREPARE, "--run", "mine"]) == 2
    message = check_message(capsys.readouterr().err)
    assert "runs/mine/test.jsonl: found No space left on device" in message
    assert message.endswith("Go on with: rewardlab data prepare --run mine --resume")
    assert leftovers() == []
    assert RunRecord.read(Path("runs/mine")).status == "failed"
    assert len(list(read_jsonl("runs/mine/train.jsonl"))) > 0
    assert not Path("runs/mine/test.jsonl").exists()
    assert main(["data", "prepare", "--run", "mine", "--resume"]) == 0
    split = read_json("runs/mine/summary.json")["splits"]
    assert {name: len(list(read_jsonl(f"runs/mine/{name}.jsonl"))) for name in ("train", "test")} == {
        name: part["records"] for name, part in split.items()
    }


def test_a_real_limit_of_the_system() -> None:
    program = (
        "import resource, signal, sys\n"
        "from rewardlab.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "sys.exit(main('data world --train 100 --val 0 --test 0'.split()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "train.jsonl: found File too large; expected room and permission to write" in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers() == []
    assert list(Path("runs").iterdir()) == []


TRAIN = [
    "train",
    "reward",
    "--model",
    "model",
    "--train",
    "pairs.jsonl",
    "--encoding.max_tokens",
    "64",
    "--run",
    "mine",
]


@pytest.fixture
def weights_bytes(workplace: Path) -> int:
    """A small model and pairs for it in the working folder; the size of the weights, once and twice in a checkpoint."""
    model = reward_model_of("llama", "shared")
    save_reward_model(model, workplace / "model", card="# card")
    words = [{"prompt": f"w{i} ", "chosen": f"w{i + 1} w2", "rejected": f"w{i + 2} w3"} for i in range(12)]
    rows("pairs.jsonl", *words)(workplace)
    return sum(4 * weight.numel() for weight in model.parameters())


def check_stopped_and_resumed(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """One message, no part of a checkpoint, and a run that goes on once there is room."""
    errors = capsys.readouterr().err
    message = check_message(errors[errors.index("rewardlab: ") :])
    assert code == 2, message
    assert "Traceback" not in errors
    assert "expected room and permission to write. Free some space there" in message
    assert message.endswith("Go on with: rewardlab train reward --run mine --resume")
    assert leftovers() == []
    assert all(is_complete(checkpoint) for checkpoint in all_checkpoints(Path("runs/mine/checkpoints")))
    assert RunRecord.read(Path("runs/mine")).status == "failed"
    assert main(["train", "reward", "--run", "mine", "--resume"]) == 0
    return message


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads names of open files from /proc")
@pytest.mark.parametrize("name", ["optimizer.pt", "COMPLETE.json", "model.safetensors", "summary.json"])
def test_no_room_in_a_training_and_on_once_there_is(
    weights_bytes: int, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        disk = fill(name, patch)
        code = main(TRAIN)
    assert disk.refusals == 1
    assert "found No space left on device" in check_stopped_and_resumed(capsys, code)


@pytest.mark.parametrize("share", [0.5, 1.5], ids=["weights", "optimiser"])
def test_a_real_limit_in_the_middle_of_a_checkpoint(
    weights_bytes: int, share: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are written by safetensors, the optimiser by torch: each hides the system's error in its own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = GroupTrainer._save_checkpoint

    def save_where_files_are_small(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * weights_bytes), before[1]))
        try:
            save(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with monkeypatch.context() as patch:
        patch.setattr(GroupTrainer, "_save_checkpoint", save_where_files_are_small)
        code = main(TRAIN)
    check_stopped_and_resumed(capsys, code)
