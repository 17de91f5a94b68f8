"""Which policies a frontier is made of: the checkpoints of trainings, single policies, and the reference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardlab.errors import ConfigError, DataError, ModelError, Problem, RewardlabError
from rewardlab.models.seal import content_of
from rewardlab.models.upload import contents_of
from rewardlab.store.files import read_json
from rewardlab.store.keys import RECORD
from rewardlab.store.record import RunRecord

REFERENCE = "reference"
BEST_OF = "best of n"
RESERVED = (REFERENCE, BEST_OF)
"""Curves that are there without a run."""

POLICIES, MODEL, SUMMARY, CONFIG = "policies", "model", "summary.json", "config.json"
_ADAPTER = "adapter_config.json"
_STEP = re.compile(r"step-(\d+)")
_RULE = re.compile(r"all|(first|every) ([1-9]\d*)|\d+(?:[ ,]+\d+)*")


@dataclass(frozen=True)
class Checkpoint:
    """A policy on the way of a training.

    Attributes:
        run: name of the curve.
        seed: number of the training among those of its name, from 0.
        step: of the training; 0 of a policy that stands alone.
        policy: its folder.
    """

    run: str
    seed: int
    step: int
    policy: Path

    @property
    def words(self) -> str:
        """What it is called in messages."""
        return f"{self.run}, seed {self.seed}, step {self.step}"


def is_rule(text: str) -> bool:
    """Whether a text says which checkpoints are taken."""
    return _RULE.fullmatch(text) is not None


def chosen_steps(steps: Sequence[int], rule: str) -> list[int]:
    """Those of the ascending `steps` that a rule takes.

    `all`; `first k`; `every k`, counted back from the last one, which is among them; or the steps themselves.

    Raises:
        ValueError: steps that are not there, by number.
    """
    if rule == "all":
        return list(steps)
    match = _RULE.fullmatch(rule)
    if match is None:
        raise ValueError(rule)
    if match[1] == "first":
        return list(steps[: int(match[2])])
    if match[1] == "every":
        return sorted(steps[:: -int(match[2])])
    asked = {int(one) for one in re.findall(r"\d+", rule)}
    if asked - set(steps):
        raise ValueError(", ".join(map(str, sorted(asked - set(steps)))))
    return sorted(asked)


def checkpoints_of(runs: Mapping[str, Sequence[Path]], rule: str) -> list[Checkpoint]:
    """The checkpoints of all runs, in their order.

    Args:
        runs: by name, a folder of a training or policy per seed.
        rule: which checkpoints of a training; a policy that stands alone is always taken.

    Raises:
        DataError: folders without a policy, or without the steps asked for, all of them.
    """
    problems: list[Problem] = []
    found = []
    for name, folders in runs.items():
        for seed, folder in enumerate(folders):
            policies = _policies(folder)
            if not policies:
                there = "no policies" if folder.is_dir() else "no such folder"
                expected = "a folder of train sft, dpo, exo or ppo, or of a policy"
                problems.append(Problem(f"runs.{name}: {folder}", there, expected))
                continue
            try:
                steps = chosen_steps(sorted(policies), rule) if _is_training(folder) else list(policies)
            except ValueError as error:
                there = f"of {', '.join(map(str, sorted(policies)))}"
                problems.append(Problem(f"checkpoints of {folder}", f"no step {error}", there))
                continue
            found += [Checkpoint(name, seed, step, policies[step]) for step in steps]
    if problems:
        raise DataError("There are no such policies", problems)
    return found


def reference_of(folders: Sequence[Path], given: Path | None) -> Path:
    """The folder of the reference: the one given, else the one that all runs went away from, be it in one folder or in
    copies of it.

    Raises:
        ConfigError: the runs do not say, or do not agree.
    """
    if given is not None:
        return given
    starts = {folder: started_from(folder) for folder in folders}
    known = list(dict.fromkeys(start for start in starts.values() if start is not None))
    if known and None not in starts.values() and _is_one_policy(known):
        return known[0]
    said = "; ".join(f"{folder} from {start or 'an unknown one'}" for folder, start in starts.items())
    problem = Problem("reference", f"none given, and {said}", "one policy", "Name it: --reference FOLDER.")
    raise ConfigError("The runs do not agree on a reference", [problem])


def _is_one_policy(folders: Sequence[Path]) -> bool:
    """Whether folders hold the same files of a model, as copies do."""
    if len(folders) == 1:
        return True
    with suppress(ModelError):
        return len({content_of(contents_of(folder).files) for folder in folders}) == 1
    return False


def started_from(folder: Path) -> Path | None:
    """The folder of the policy that a training's divergence is from: its reference, else its start; None where nothing
    says, or nothing is there."""
    if not (folder / RECORD).is_file():
        return None
    with suppress(RewardlabError, OSError, ValueError):
        record = RunRecord.read(folder)
        config = record.config()
        base = Path(str(record.values["sessions"][-1].get("directory") or ""))
        path = _path(config.get("reference")) or _path(config.get("model"))
        place = None if path is None else (base / path).resolve()
        return place if place is not None and place.is_dir() else None
    return None


def _path(source: Any) -> str | None:
    path = source.get("path") if isinstance(source, Mapping) else None
    return str(path) if path else None


def _is_training(folder: Path) -> bool:
    return not _is_policy(folder)


def _is_policy(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / _ADAPTER).is_file()


def _policies(folder: Path) -> dict[int, Path]:
    """The policies of a folder by step: those along the way, else the one at the end, else the folder itself."""
    if _is_policy(folder):
        return {0: folder}
    kept = ((_STEP.fullmatch(path.name), path) for path in (folder / POLICIES).glob("step-*"))
    found = {int(match[1]): path for match, path in kept if match is not None and _is_policy(path)}
    if found or not _is_policy(folder / MODEL):
        return dict(sorted(found.items()))
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    steps = summary.get("steps") if isinstance(summary, dict) else None
    return {steps if isinstance(steps, int) else 0: folder / MODEL}
