"""What a run has to remember to be run again: code, packages, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rewardlab.errors import Problem, RunError
from rewardlab.store.files import sha256_file
from rewardlab.store.keys import PACKAGE, files_under

LARGEST_DIFF_BYTES = 5_000_000


@dataclass(frozen=True)
class Code:
    """The source a run was made with.

    Attributes:
        version: of the package.
        commit: of the checkout; None for an installed package.
        diff: tracked files against the commit, empty when there is no difference or it is over 5 MB.
        diff_bytes: size of the whole difference.
        untracked: files under the package's source that git neither knows nor ignores.
        files: sha256 by relative name, for an installed package, which has no commit.
    """

    version: str
    commit: str | None = None
    diff: bytes = b""
    diff_bytes: int = 0
    untracked: tuple[str, ...] = ()
    files: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """What goes into the record; the difference itself is a file of its own."""
        values = {"version": self.version, "commit": self.commit, "diff_bytes": self.diff_bytes}
        return values | {"untracked": list(self.untracked), "files": self.files}


def code_of(package: Path = PACKAGE, *, allow_untracked: bool) -> Code:
    """The source in `package`: a commit and its difference, or version and hashes when it is installed.

    Raises:
        RunError: the record could not restore the source: it has untracked files and not `allow_untracked`, or it
            lies in a repository and git does not answer.
    """
    version = _version()
    in_repository = any((folder / ".git").exists() for folder in (package, *package.parents))
    # An installed package may lie inside a repository (its virtual environment does): it is not tracked there. But
    # where git fails (the repository is somebody else's, say), nobody knows what the code is.
    if not in_repository or not _git(package, "ls-files", "--", "__init__.py"):
        return Code(version, files={str(file.relative_to(package)): sha256_file(file) for file in files_under(package)})
    commit = _git(package, "rev-parse", "HEAD").decode().strip()
    diff = _git(package, "diff", "--binary", "--no-color", "--no-ext-diff", "HEAD")
    listed = _git(package, "ls-files", "-z", "--others", "--exclude-standard", "--", ".")
    untracked = tuple(sorted(os.fsdecode(name) for name in listed.split(b"\0") if name))
    if untracked and not allow_untracked:
        raise _incomplete(package, untracked)
    return Code(version, commit, diff if len(diff) <= LARGEST_DIFF_BYTES else b"", len(diff), untracked)


@cache
def packages() -> Mapping[str, str]:
    """Name and version of every installed distribution, as this process found them first."""
    # A study makes many runs, and reading the metadata of a hundred packages takes as long as a small stage.
    about = [item.metadata for item in metadata.distributions()]
    found = {str(item["Name"]): str(item["Version"]) for item in about if item["Name"]}
    return MappingProxyType(dict(sorted(found.items(), key=lambda pair: pair[0].lower())))


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in bytes; torch's threads and accelerators once it is loaded."""
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    # Loading torch to describe a run that does not use it would take longer than many a run.
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch_threads"] = torch.get_num_threads()
        facts["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return facts


def _incomplete(package: Path, untracked: tuple[str, ...]) -> RunError:
    problems = [
        Problem(str(package / name), "a file that git does not track", "every source file of the package tracked")
        for name in untracked
    ]
    summary = (
        "the record of this run would be incomplete: commit or ignore these files, "
        "or pass --allow-untracked (REWARDLAB_ALLOW_UNTRACKED=1)"
    )
    return RunError(summary, problems)


def _git(folder: Path, *words: str) -> bytes:
    """Output of a git command.

    Raises:
        RunError: there is no git, or it refuses; with its words.
    """
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)  # noqa: S603, S607
    except OSError as error:
        raise _unanswered(folder, words, str(error)) from error
    if done.returncode != 0:
        raise _unanswered(folder, words, done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _unanswered(folder: Path, words: Sequence[str], said: str) -> RunError:
    found = f"git {words[0]}: {' '.join(said.split())}"
    problem = Problem(str(folder), found, "an answer", f"Make `git -C {folder} status` work.")
    return RunError("the record of this run would be incomplete: git does not say what the code is", [problem])


def _version() -> str:
    try:
        return metadata.version("rewardlab")
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
