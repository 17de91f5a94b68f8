"""JSON files of a known shape: read, and refused with everything that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rewardlab.errors import DataError, Problem
from rewardlab.store.files import read_json

_SHOWN_PROBLEMS = 5


class Shape(BaseModel):
    """Base of file shapes: finite numbers, further keys kept aside."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: unreadable, or no object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        problem = Problem(str(path), f"a {type(value).__name__}", "a JSON object")
        raise DataError("a file of another shape", [problem])
    return value


Model = TypeVar("Model", bound=BaseModel)


def shaped(shape: type[Model], value: Any, where: Path | str) -> Model:
    """`value` as that shape.

    Raises:
        DataError: what does not fit, and where; `where` names the file.
    """
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        details = error.errors()[:_SHOWN_PROBLEMS]
        problems = [
            Problem(
                f"{where}: {'.'.join(str(part) for part in detail['loc']) or 'the whole'}",
                "nothing" if detail["type"] == "missing" else repr(detail["input"])[:120],
                str(detail["msg"]),
                "Was it written by this version of rewardlab?",
            )
            for detail in details
        ]
        raise DataError("a file of another shape", problems) from error
