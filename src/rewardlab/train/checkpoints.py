"""Checkpoints that are whole or not used.

transformers writes `checkpoint-N` file by file; a kill in the middle leaves a folder that looks like the newest
checkpoint. A manifest with the size and hash of every file is written last, and only folders that agree with theirs
are resumed from.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rewardlab.store.files import read_json, read_jsonl, sha256_file, sync_file, write_json, write_jsonl

MANIFEST = "COMPLETE.json"
NAME = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint complete: every file is on the disk and listed with its size and hash."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        sync_file(path)
    manifest = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    }
    write_json(checkpoint / MANIFEST, manifest)
    # The folder's own entry too: the checkpoint before this one is about to be deleted.
    sync_file(checkpoint.parent)


def is_complete(checkpoint: Path) -> bool:
    """Whether all files are there as the manifest says."""
    if not (checkpoint / MANIFEST).is_file():
        return False
    manifest = read_json(checkpoint / MANIFEST)
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == facts["bytes"]
        for name, facts in manifest.items()
    ) and all(sha256_file(checkpoint / name) == facts["sha256"] for name, facts in manifest.items())


def step_of(checkpoint: Path) -> int:
    """The optimiser step in a checkpoint's name."""
    match = NAME.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"not a checkpoint's name: {checkpoint.name}")
    return int(match.group(1))


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, whole or not, oldest step first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if NAME.fullmatch(path.name)), key=step_of)


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint to resume from; incomplete ones that are newer are deleted on the way."""
    for checkpoint in reversed(all_checkpoints(folder)):
        if is_complete(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def rotate(folder: Path, keep: set[int]) -> None:
    """Delete all checkpoints but those of the steps in `keep`."""
    for checkpoint in all_checkpoints(folder):
        if step_of(checkpoint) not in keep:
            # A kill in the middle leaves a folder that lacks a file of its manifest: incomplete, and deleted next time.
            shutil.rmtree(checkpoint)


def cut_history(history: Path, last_step: int, **of_split: int) -> None:
    """Forget the lines of steps after the checkpoint: they are computed again.

    Args:
        history: the file; nothing happens without one.
        last_step: whose lines stay.
        of_split: the same of a split whose lines end elsewhere.
    """
    if history.exists():
        lines = read_jsonl(history, torn_tail=True)
        write_jsonl(history, [one for one in lines if one["step"] <= of_split.get(one.get("split", ""), last_step)])
