"""audit.json: what a set of rewrites is about, for everything that comes after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardlab.errors import DataError, Problem
from rewardlab.store.files import read_json

ABOUT = "audit.json"
FORMAT = 1


@dataclass(frozen=True)
class About:
    """What was audited, and how.

    Attributes:
        attribute: `name`, and `high` and `low`: what a response with W = 1 and with W = 0 is, in words.
        judge: how code sees the attribute in a text, {measure, above, model, against}, or what a chat model was asked
            about it, {ask, by, above}; `decided` says whether W was decided that way. None where neither sees it.
        rewriter: name of the rewriter.
        steps: rewrites to a chain.
        clusters: whether responses to one prompt belong together; a question that all share clusters nothing.
        counts: units, chains, rows set aside by reason.
        files: what was read, {name, sha256, rows, commit} each.
    """

    attribute: Mapping[str, str]
    judge: Mapping[str, Any] | None = None
    rewriter: str = ""
    steps: int = 2
    clusters: bool = True
    counts: Mapping[str, Any] | None = None
    files: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"format": FORMAT, **{name: getattr(self, name) for name in self.__dataclass_fields__}}


UNKNOWN = About({"name": "W", "high": "with the attribute", "low": "without the attribute"})
"""Of published rewrites, which do not say what they are about."""


def read_about(rewrites: Path) -> About:
    """What stands beside the rewrites: in their folder, or in that of the file.

    Raises:
        DataError: a file of another shape or version.
    """
    path = (rewrites if rewrites.is_dir() else rewrites.parent) / ABOUT
    if not path.is_file():
        return UNKNOWN
    values = read_json(path)
    try:
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        about = About(**{name: values[name] for name in About.__dataclass_fields__})
        if not all(isinstance(about.attribute[name], str) for name in ("name", "high", "low")):
            raise ValueError("an attribute without words")
    except (KeyError, TypeError, ValueError) as error:
        problem = Problem(
            str(path), f"{type(error).__name__}: {error}", f"format {FORMAT}, as `audit rewrite` writes it"
        )
        raise DataError("the description of the rewrites cannot be read", [problem]) from error
    return about
