"""Where the files of a model lie: a folder, a hub id at one commit, and of an adapter its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import try_to_load_from_cache
from transformers.utils import cached_file

from rewardlab.errors import ModelError, Problem
from rewardlab.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_beside
from rewardlab.models.heads import INDEX, WEIGHTS
from rewardlab.store.hub import UNKNOWN, commit_of
from rewardlab.store.settings import found_at_home

SIDECAR = "rewardlab.json"
SIDECAR_FORMAT = 1
CONFIG_NAME, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
MODEL = "model"
"""What runs call the folder of the model that they made."""
WHOLE_WEIGHTS = (WEIGHTS, INDEX)


class Located(NamedTuple):
    """Where transformers is to look: a folder, or a hub id; and the commit, unless it is a folder of the user's."""

    path: str
    commit: str | None

    @property
    def identity(self) -> str:
        """What stands for the content: the commit, or the folder."""
        return self.commit or self.path

    def options(self) -> dict[str, str]:
        """Further arguments of `from_pretrained`."""
        return {} if self.commit is None or Path(self.path).is_dir() else {"revision": self.commit}


def located(path: str, revision: str | None) -> Located:
    """Find a folder, or ask the hub one question: transformers itself repeats every request for most of a minute
    where there is no network, and reports an unknown name as a missing file.

    Raises:
        ModelError: neither a folder nor a hub id, or a hub id that is unknown or out of reach and not in the cache.
    """
    folder = Path(path)
    if path and folder.is_dir():
        _refuse_run(folder)
        return Located(path, None)
    if not path or folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        expected, remedy = "a folder, or a hub id like owner/name", _looked_for(folder)
        problem = Problem(path or "model.path", "no such folder", expected, remedy if path else "Give its path.")
        raise ModelError("The model cannot be loaded", [problem])
    try:
        return Located(path, commit_of(path, revision, "model"))
    except UNKNOWN as error:
        expected, remedy = "a folder here, or a model on the hub", f"Check the name. {_looked_for(folder)}"
        problem = Problem(path, first_line(error), expected, remedy)
        raise ModelError("The model cannot be loaded", [problem]) from error
    except Exception as error:  # no network, in the words of whichever HTTP library is below
        cached = try_to_load_from_cache(path, "config.json", revision=revision)
        if isinstance(cached, str):
            # The cache has a folder per commit, named by it.
            return Located(str(Path(cached).parent), Path(cached).parent.name)
        found = f"no such folder here, and the hub is out of reach ({first_line(error)})"
        remedy = f"{_looked_for(folder)} Or check the network."
        problem = Problem(path, found, "a folder, or a hub id that is in the cache", remedy)
        raise ModelError("The model cannot be loaded", [problem]) from error


def _looked_for(folder: Path) -> str:
    """What to do about a folder that is not there; one of a run is easily named without the folder of all runs."""
    if folder.is_absolute():
        return "Check the path."
    if str(folder).startswith("~"):
        return "Check the path: ~ stands for itself in it."
    if (at_home := found_at_home(folder)) is not None:
        return f"Did you mean {at_home}?"
    return f"Check the path, which begins in {Path.cwd()}."


def check_located(places: Mapping[str, tuple[str, str | None]]) -> None:
    """Find every model, before work is done that needs them all.

    Args:
        places: path and revision, by where they stand in the configuration.

    Raises:
        ModelError: as `located`, with all that are not found.
    """
    problems: list[Problem] = []
    for where, place in places.items():
        try:
            located(*place)
        except ModelError as error:
            problems += [replace(one, where=f"{where}: {one.where}") for one in error.problems]
    if problems:
        raise ModelError("The models cannot be loaded", problems)


def _refuse_run(folder: Path) -> None:
    """A run of ours keeps its model in a folder of its own.

    Raises:
        ModelError: the run's folder, in place of the model's.
    """
    own = (CONFIG_NAME, ADAPTER_CONFIG, TOKENIZER_CONFIG)
    if (folder / MODEL / CONFIG_NAME).is_file() and not any((folder / name).is_file() for name in own):
        remedy = f"Did you mean {folder / MODEL}?"
        problem = Problem(str(folder), f"a folder without {CONFIG_NAME}", "the folder of a model", remedy)
        raise ModelError("The model cannot be loaded", [problem])


def file_of(place: Located, name: str) -> Path | None:
    """A file of a folder or hub id; None where there is no such file.

    Raises:
        ModelError: the hub does not hand it out.
    """
    try:
        found = cached_file(place.path, name, _raise_exceptions_for_missing_entries=False, **place.options())
    except Exception as error:  # no access, no network
        problem = Problem(place.path, first_line(error), f"{name}, or the answer that there is none")
        raise ModelError("The model cannot be loaded", [problem]) from error
    return None if found is None else Path(found)


def base_of(place: Located) -> Located | None:
    """Where the base of an adapter lies: beside it where the folder has whole weights too, else where the adapter
    says. None where there is no adapter.

    Raises:
        ModelError: an adapter whose base is not there.
    """
    config = file_of(place, ADAPTER_CONFIG)
    if config is None:
        return None
    if any(file_of(place, name) is not None for name in WHOLE_WEIGHTS):
        return place
    base = base_beside(config, file_of(place, SIDECAR))
    try:
        return located(base.path, base.revision)
    except ModelError as error:
        raise ModelError(f"The base of the adapter {place.path} cannot be loaded", error.problems) from error


def adapter_weights(place: Located, path: str) -> Path:
    """The weights of an adapter; `path` is what the user calls it.

    Raises:
        ModelError: it has none as safetensors.
    """
    found = file_of(place, ADAPTER_WEIGHTS)
    if found is None:
        problem = Problem(path, f"an adapter without {ADAPTER_WEIGHTS}", "its weights as safetensors")
        raise ModelError("The model cannot be loaded", [problem])
    return found


def sidecar_of(path: str, revision: str | None = None) -> Path | None:
    """The file with our rules beside a model, a folder or a hub id; None where there is none."""
    return file_of(located(path, revision), SIDECAR)


def first_line(error: Exception) -> str:
    """What an error of another library says first, with its kind."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
