"""The synthetic experiments with known truth, small: RATE has the true effect in its interval, naive is far off."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rewardlab.audit.vowels import OPENINGS
from rewardlab.data.world.verb import WorldData, world_splits
from rewardlab.store.files import read_json
from rewardlab.studies.pipeline import Options, run_study
from rewardlab.studies.study import Stage, StudyFile

PAIRS = 150
# Misspelt words alone cost reward, beside noise that hangs on the text: a first letter does nothing.
SPELLING = """
import hashlib, pathlib, random, re
KNOWN = set(pathlib.Path(__file__).with_name("known.txt").read_text().split())
def spelling(completions, **_):
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    noise = [random.Random(hashlib.sha256(text.encode()).digest()).gauss(0, 3) for text in texts]
    wrong = [sum(word not in KNOWN for word in re.findall(r"[^\\W\\d_]+", text.lower())) for text in texts]
    return [one - other for one, other in zip(noise, wrong)]
"""


def trimmed(name: str, ends: dict[str, list[Any]]) -> StudyFile:
    """A shipped study at the two ends of its dial."""
    study = StudyFile.find(name).study
    stages = [
        stage.model_copy(update={"foreach": {key: ends[key] for key in stage.foreach}}) for stage in study.stages[:-1]
    ]
    config = {**study.stages[-1].config, "along": {"name": "dial", "values": [0, 1], "truth": 0}}
    stages.append(Stage(id="compare", verb="audit compare", config=config))
    return StudyFile(study.model_copy(update={"stages": tuple(stages)}), {})


def curves(source: StudyFile, folder: Path, *flags: tuple[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Estimator → its ATE at both ends of the dial."""
    options = Options(root=folder, flags=flags, allow_untracked=True, console_level="warning")
    result = run_study(source, options)
    assert (result.folder / "compare/figures/along.png").stat().st_size > 10_000
    rows = read_json(result.folder / "compare/tables/effects.json")["rows"]
    found = [row for row in rows if row["over"] == "ATE"]
    return {
        name: sorted((row for row in found if row["estimator"] == name), key=lambda row: float(row["along"]))
        for name in ("naive", "single", "double")
    }


def holds(row: dict[str, Any], truth: float = 0.0) -> bool:
    return bool(row["low_sd"] <= truth <= row["high_sd"])


def test_typos_drag_the_naive_comparison_and_single_rewrites_along_but_not_rate(tmp_path: Path) -> None:
    texts = [text for pair in world_splits(WorldData(train=1, val=0, test=PAIRS, audited=None))["test"]
             for text in pair.completions]  # fmt: skip
    openings = [phrase for phrases in OPENINGS.values() for phrase in phrases]
    known = set(re.findall(r"[^\W\d_]+", " ".join([*texts, *openings]).lower()))
    (tmp_path / "known.txt").write_text("\n".join(known))
    (tmp_path / "rewards.py").write_text(SPELLING)
    source = trimmed("vowels-typos-world", {"typos": [0.0, 0.3], "number": [0, 1]})
    found = curves(
        source,
        tmp_path,
        ("stages.world.test", str(PAIRS)),
        ("stages.world.audited", "null"),
        ("stages.score.model", f"python:{tmp_path / 'rewards.py'}:spelling"),
    )
    assert all(holds(row) for row in found["double"])
    assert abs(found["naive"][0]["value_sd"]) < 0.5
    assert found["naive"][1]["value_sd"] < -1.5
    # Typos in the originals with W = 1, none in their rewrites: a part of the naive difference is in a single rewrite.
    assert found["naive"][1]["value_sd"] < found["single"][1]["value_sd"] < -0.3
    assert not holds(found["single"][1])


def test_sentiment_drags_the_naive_comparison_and_single_rewrites_along_but_not_rate(tmp_path: Path) -> None:
    source = trimmed("length-sentiment-world", {"share": [0.5, 1.0]})
    found = curves(source, tmp_path, ("stages.world.test", str(PAIRS)))
    assert all(holds(row) for row in found["double"])
    assert {row["n"] for row in found["double"]} == {found["double"][0]["n"]}
    assert abs(found["naive"][0]["value_sd"]) < 0.5
    assert found["naive"][1]["value_sd"] > 1.0
    # A rewrite in the house style has no tone, whichever way it went: half of the difference between the originals.
    half = found["naive"][1]["value_sd"] / 2
    assert found["single"][1]["value_sd"] == pytest.approx(half, abs=0.25)
    assert not holds(found["single"][1])
