"""Code that comes with a checkpoint: only where it is part of it."""

from __future__ import annotations

import json
from pathlib import Path

from rewardlab.errors import ModelError, Problem

_ELSEWHERE = "--"
"""Stands between the repository that has the code and the name of the code, as transformers writes both."""


def check_code_is_its_own(path: str, file: Path | None) -> None:
    """Refuse code from another repository: it would be that of its newest commit, whatever commit is asked for.

    Args:
        path: folder or hub id of a checkpoint whose code is trusted.
        file: its file that says where the code is (`auto_map`); None where there is none.

    Raises:
        ModelError: code from elsewhere.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8")) if file else None
    except ValueError:
        return  # transformers says what is wrong with it
    named = values.get("auto_map") if isinstance(values, dict) else None
    found = list(named.values()) if isinstance(named, dict) else []
    flat = [one for value in found for one in (value if isinstance(value, list) else [value])]
    others = sorted({one for one in flat if isinstance(one, str) and _ELSEWHERE in one})
    problems = []
    for one in others:
        repository, _, code = one.partition(_ELSEWHERE)
        if file is not None and repository != path:
            module = code.partition(".")[0]
            remedy = f"Copy {module}.py of a commit that you trust beside {file.name}, and write {code} there."
            problems.append(Problem(f"{path}, {file.name}", one, "code that comes with the checkpoint", remedy))
    if problems:
        raise ModelError("The model's code is that of another repository", problems)
