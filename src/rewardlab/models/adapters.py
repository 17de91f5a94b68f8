"""PEFT adapters as they lie on the disk: what they replace, and how they are merged into their base."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from rewardlab.errors import InputError, MissingExtraError, ModelError, Problem
from rewardlab.store.files import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE = "base"
"""Beside an adapter of ours, the way from its folder to that of its base."""
_PREFIX = "base_model.model."


class NamedBase(NamedTuple):
    """What an adapter says it was trained on: a folder or hub id, and the revision of the latter."""

    path: str
    revision: str | None

    @classmethod
    def of(cls, path: str, commit: str) -> NamedBase:
        """The base read at `path`, so that it is found from any working directory: a folder by its absolute path, a hub
        id with its commit."""
        folder = Path(path)
        return cls(str(folder.resolve()), None) if folder.is_dir() else cls(path, commit)


def import_peft(purpose: str) -> Any:
    """The package peft.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "peft", purpose) from error
    return peft


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """peft reads a property that transformers has renamed, and is warned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def named_base(config: Path) -> NamedBase:
    """The base that an adapter's configuration names.

    Raises:
        ModelError: it is unreadable or names none.
    """
    try:
        values = read_json(config)
        base = NamedBase(values["base_model_name_or_path"], values.get("revision"))
    except (InputError, LookupError, TypeError, AttributeError) as error:
        raise _unusable(config, "no base_model_name_or_path", "the folder or hub id of the base model") from error
    if not isinstance(base.path, str) or not isinstance(base.revision, str | None):
        raise _unusable(config, f"the base {base.path!r}, revision {base.revision!r}", "a folder or a hub id")
    return base


def name_base(network: Any, base: NamedBase) -> None:
    """Have the adapters of a network of peft name another base than the path that their user typed."""
    for config in network.peft_config.values():
        config.base_model_name_or_path, config.revision = base


def way_to_base(written: Path, folder: Path) -> dict[str, str]:
    """The base's place beside an adapter, by `BASE`; empty where there is no adapter, or its base is no folder.

    Args:
        written: where the adapter's files are now.
        folder: where they are going to be.
    """
    config = written / ADAPTER_CONFIG
    base = Path(named_base(config).path) if config.is_file() else None
    # Of two disks of Windows none leads to the other, nor are they moved together.
    if base is None or not base.is_absolute() or base.anchor != folder.resolve().anchor:
        return {}
    return {BASE: Path(os.path.relpath(base, folder.resolve())).as_posix()}


def base_beside(config: Path, sidecar: Path | None) -> NamedBase:
    """The base that an adapter names; where that is a folder that is gone, the one in the same place beside it.

    Args:
        config: the adapter's configuration.
        sidecar: the file with `BASE`; None where there is none.

    Raises:
        ModelError: see `named_base`.
    """
    base = named_base(config)
    if sidecar is None or not Path(base.path).is_absolute() or Path(base.path).is_dir():
        return base
    try:
        beside = config.parent.resolve() / read_json(sidecar)[BASE]
    except (InputError, LookupError, TypeError):
        return base
    return NamedBase(str(beside.resolve()), None) if beside.is_dir() else base


def replaced_weights(adapter: Path) -> set[str]:
    """Names of the base's weights that an adapter has whole (`modules_to_save`): its head, above all.

    Args:
        adapter: its safetensors file.

    Raises:
        ModelError: it is unreadable.
    """
    try:
        with safe_open(adapter, "pt") as file:
            return {name.removeprefix(_PREFIX) for name in file.keys() if ".lora_" not in name}  # noqa: SIM118
    except Exception as error:  # safetensors raises errors of its own
        raise _unusable(adapter, str(error)[:200], "an adapter's weights") from error


def merge_adapter(network: Any, folder: Path, *, merge: bool = True) -> Any:
    """The network with an adapter merged into its weights, all of them trainable; the network given is used up.

    Without `merge` the adapter stays beside the weights, as peft runs it.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: the adapter does not fit the network, or cannot be merged.
    """
    peft = import_peft("Loading an adapter")
    try:
        with quiet_peft():
            # Says that some layers have no adapter, which is one of another architecture.
            warnings.filterwarnings("error", "Found missing adapter keys")
            config = peft.PeftConfig.from_pretrained(str(folder))
            # Only what is in the file: a task brings wrappers that ask for more of a network than adapters do.
            config.task_type = None
            adapted = peft.PeftModel.from_pretrained(network, str(folder), config=config, torch_device="cpu")
            merged = adapted.merge_and_unload() if merge else adapted
    except Exception as error:  # peft raises many kinds for what does not fit
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise _unusable(folder, found, f"an adapter that fits {type(network).__name__} and can be merged") from error
    return merged.requires_grad_(True) if merge else merged


def _unusable(path: Path, found: str, expected: str) -> ModelError:
    return ModelError("The adapter cannot be loaded", [Problem(str(path), found, expected)])
