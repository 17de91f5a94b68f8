"""A small reward model on disk and files to score with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scoring_data import ROWS, Score
from small_models import reward_model_of

from rewardlab.models.loading import save_reward_model
from rewardlab.score.score import Scored, Scoring, score_file
from rewardlab.store.runs import Run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer") / "small"
    save_reward_model(reward_model_of("llama-grouped-query", "shared"), folder, card="# card")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def score(model_folder: Path, pairs: Path, tmp_path: Path) -> Score:
    """Scores `pairs` in a run called `name`."""

    def call(name: str = "run", *, resume: bool = False, data: Path | list[Any] = pairs, **options: Any) -> Scored:
        sources = data if isinstance(data, list) else [str(data)]
        values = {"model": str(model_folder), "data": sources, "shard_size": 8, "device": "cpu"} | options
        config = Scoring.build(values)
        with Run.create(config, verb="score", name=name, root=tmp_path / "runs", resume=resume) as run:
            return score_file(config, run)

    return call
