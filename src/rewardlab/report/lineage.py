"""The runs that the stages of a report were made from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rewardlab.errors import RewardlabError
from rewardlab.score.choice import ScorerChoice
from rewardlab.store.keys import RECORD
from rewardlab.store.record import RunRecord
from rewardlab.store.shapes import read_object


def runs_behind(records: Mapping[Path, Mapping[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Folder → record of every run that these read from, directly or through others; the earliest first.

    What is no longer there, or was made by no run, is left out.

    Args:
        records: folder → run.json of the stages that are shown themselves.
    """
    shown = {folder.resolve() for folder in records}
    found: dict[Path, dict[str, Any]] = {}
    waiting = list(records.values())
    while waiting:
        for folder in _read_from(waiting.pop()):
            if folder not in shown and folder not in found:
                found[folder] = read_object(folder / RECORD)
                waiting.append(found[folder])
    return dict(sorted(found.items(), key=lambda item: (_started(item[1]), str(item[0]))))


def rewarded_by(folder: Path, reward: ScorerChoice) -> bool:
    """Whether records say that the policies of a folder were trained on a reward: by PPO, or on data that it scored.

    Args:
        folder: of a training or of a policy in it.
        reward: which; its `model` may be a folder.
    """
    own = next((one for one in (folder, *folder.parents[:2]) if (one / RECORD).is_file()), None)
    asked = _identity(reward.model_dump(mode="json"), Path())
    # What cannot be read says nothing.
    with suppress(RewardlabError, OSError, ValueError):
        records = {} if own is None else {own: read_object(own / RECORD)}
        runs = records | runs_behind(records)
        return any(_identity(scorer, base) == asked for run in runs for base, scorer in _scorers(run))
    return False


def _scorers(run: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The rewards that a run computed, with where its relative paths begin.

    Raises:
        RewardlabError: its record cannot be read.
    """
    record = RunRecord.read(run)
    config, base = record.config(), Path(str(record.values["sessions"][-1].get("directory") or ""))
    rewards = config.get("rewards")
    own = [config] if record.verb == "score" else []
    for one in [*own, *(rewards.values() if isinstance(rewards, Mapping) else ())]:
        if isinstance(one, Mapping):
            yield base, one


def _identity(scorer: Mapping[str, Any], base: Path) -> list[Any]:
    """What names a scorer; of a folder its whole path."""
    model = scorer.get("model")
    place = (base / str(model)).resolve()
    rest = [scorer.get(name) for name in ("template", "ensemble", "implicit", "label")]
    return [str(place) if model is not None and place.is_dir() else model, *rest]


def _read_from(record: Mapping[str, Any]) -> Iterator[Path]:
    """Folders of the runs that a run read from: an input is such a folder, or lies in one."""
    sessions = _objects(record, "sessions")
    base = Path(str(sessions[-1].get("directory", ""))) if sessions else Path()
    for item in _objects(record, "inputs"):
        # A record is a file like others: what it calls a path may be too long for one, or hold a null character.
        try:
            path = (base / str(item.get("path", ""))).resolve()
        except (OSError, RuntimeError, ValueError):
            continue
        yield from (folder for folder in (path, path.parent) if os.path.isfile(folder / RECORD))


def _started(record: Mapping[str, Any]) -> str:
    sessions = _objects(record, "sessions")
    return str(sessions[0].get("started", "")) if sessions else ""


def _objects(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    values = record.get(key)
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []
