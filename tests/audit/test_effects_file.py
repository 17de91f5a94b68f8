"""effects.json as other stages read it: what does not fit is told with its place, and no other error comes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewardlab.audit.effects_file import effects_folder, effects_path, judged_by_measure, read_effects
from rewardlab.errors import DataError
from rewardlab.store.files import write_json

ESTIMATE = {"name": "double.ATE", "value": 0.6, "low": 0.5, "high": 0.7, "error": 0.05, "reason": ""}
WHOLE: dict[str, Any] = {
    "attribute": {"name": "length", "high": "longer", "low": "shorter"},
    "judge": {"measure": "words", "above": 4.0, "model": None, "against": None, "decided": True},
    "models": [{"scorer": "rm", "sd": 2.0, "estimates": {"naive": [], "double": [ESTIMATE]}}],
}


def test_what_stands_in_the_file_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "effects.json", WHOLE)
    path = effects_path(tmp_path)
    found = read_effects(path)
    assert found.attribute.model_dump() == WHOLE["attribute"]
    assert judged_by_measure(found, path) == WHOLE["judge"]
    own = found.models[0]["double.ATE"]
    assert own is not None
    assert own.model_dump() == ESTIMATE
    assert found.models[0]["single.ATE"] is None


BROKEN: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda file: file["attribute"].pop("name"), "attribute.name: found nothing"),
    (lambda file: file.update(attribute="length"), "attribute: found 'length'"),
    (lambda file: file.pop("judge"), "judge: found nothing"),
    (lambda file: file.update(judge="words"), "judge: found 'words'"),
    (lambda file: file["models"][0]["estimates"]["double"][0].pop("reason"), "double.0.reason: found nothing"),
    (lambda file: file["models"][0]["estimates"]["double"][0].update(value="much"), "double.0.value: found 'much'"),
    (lambda file: file["models"][0].update(estimates=[ESTIMATE]), r"models.0.estimates: found \[.*\]"),
    (lambda file: file.update(models=[]), r"models: found \[\]"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, broken: Callable[[Any], Any], words: str) -> None:
    file = copy.deepcopy(WHOLE)
    broken(file)
    write_json(tmp_path / "effects.json", file)
    with pytest.raises(DataError, match=rf"(?s)effects cannot be read.*effects\.json: .*{words}; expected"):
        read_effects(effects_path(tmp_path))


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    for content, words in (("[1]", "a list"), ("{", "JSON")):
        (tmp_path / "effects.json").write_text(content)
        with pytest.raises(DataError, match=words):
            read_effects(effects_path(tmp_path))


def test_a_judge_that_is_no_measure_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any] | None, str]] = [
        (None, "length, which no measure sees"),
        ({"ask": "Is it long?", "above": 0.5}, "length, which no measure sees"),
        ({"measure": "words"}, r"effects\.json: judge.above: found nothing"),
        ({"measure": "wrods", "above": 4}, "judge.measure: found 'wrods'; expected a known measure"),
    ]
    for judge, words in cases:
        write_json(tmp_path / "effects.json", {**WHOLE, "judge": judge})
        path = effects_path(tmp_path)
        with pytest.raises(DataError, match=words):
            judged_by_measure(read_effects(path), path)


def test_the_folder_of_an_audit_run_stands_for_its_effects(tmp_path: Path) -> None:
    inside = tmp_path / "run" / "steps" / "effects"
    inside.mkdir(parents=True)
    assert effects_folder(tmp_path / "run") == effects_folder(inside) == inside
    assert effects_path(tmp_path / "run") == effects_path(inside) == inside / "effects.json"
    # A folder that has effects itself is what it is, and so is a file, and what is not there.
    write_json(tmp_path / "run" / "effects.json", WHOLE)
    for named in (tmp_path / "run", tmp_path / "run" / "effects.json", tmp_path / "gone"):
        assert effects_folder(named) == named
