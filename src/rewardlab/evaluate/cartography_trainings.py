"""In what the trainings of one map differ, beside the seed: their margins have no common scale then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardlab.store.record import CONFIG, read_config

_OF_NO_MATTER = frozenset(
    {
        *("seed", "device", "report_to", "token_budget", "gradient_checkpointing", "layout", "features"),
        *("evaluations_per_epoch", "checkpoints_per_epoch", "choose_by", "validation", "test"),
        # The folds of a cross-fit differ in their files.
        "train.path",
    }
)
"""Fields of a training that leave the scale of its margins as it is."""


def differing(paths: Sequence[Path]) -> list[str]:
    """The fields in which the configurations of trainings differ, by their dotted names.

    A field that not all of them have, as of trainings by another version, is not compared.

    Args:
        paths: folders of trainings or their tables of margins; published files have no configuration.

    Raises:
        RunError: a configuration that cannot be read.
    """
    folders = [path if path.is_dir() else path.parent for path in paths if path.suffix not in (".jsonl", ".gz")]
    configs = [read_config(folder) for folder in folders if (folder / CONFIG).is_file()]
    found = {name for one in configs[1:] for name in _differences(configs[0], one)}
    return sorted(found)


def _differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    if name in _OF_NO_MATTER or name.rpartition(".")[2] == "seed":
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() & other.keys():
            yield from _differences(one[key], other[key], f"{name}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for left, right in zip(one, other, strict=True):
            yield from _differences(left, right, name)
    elif one != other:
        yield name
