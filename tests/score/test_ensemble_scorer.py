"""Several models as one scorer: scores, doubts, identity, tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scoring_data import Score
from small_models import reward_model_of

import rewardlab
from rewardlab.errors import ConfigError, ModelError
from rewardlab.models.loading import save_reward_model
from rewardlab.protocols import Scorer
from rewardlab.records import Prompt
from rewardlab.score.ensemble import Ensemble, EnsembleScorer
from rewardlab.score.load import load_scorer
from rewardlab.score.score import Scoring
from rewardlab.score.tables import read_scores
from rewardlab.store.keys import content_key

PROMPTS = [Prompt.of_text(f"w{number} w7 ") for number in range(4)]
COMPLETIONS = [[f"w{number + k} " * (1 + 2 * k) for k in range(number)] for number in range(4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("members")
    for seed in range(3):
        save_reward_model(reward_model_of("llama", "shared", seed), root / f"seed-{seed}", card="# card")
    return [str(root / f"seed-{seed}") for seed in range(3)]


def ensemble(folders: list[str], **options: Any) -> dict[str, Any]:
    return {"members": folders, **options}


@pytest.fixture(scope="module")
def single(folders: list[str]) -> dict[str, Any]:
    """Every member alone, by its folder."""
    return {folder: load_scorer(folder, device="cpu") for folder in folders}


def load(given: dict[str, Any], **options: Any) -> Any:
    return load_scorer(ensemble=given, device="cpu", **options)


def by_hand(scorers: Iterable[Any]) -> list[list[float]]:
    """Rewards of each member, by completion."""
    scored = [scorer.score(PROMPTS, COMPLETIONS) for scorer in scorers]
    return [[value for row in one for value in row] for one in scored]


def test_scores_are_what_the_members_give_together(folders: list[str], single: dict[str, Any]) -> None:
    members = list(zip(*by_hand(single.values()), strict=True))
    for rule, expected in {
        "mean": [statistics.fmean(one) for one in members],
        "worst-case": [min(one) for one in members],
        "lower-bound": [statistics.fmean(one) - 0.5 * statistics.pstdev(one) for one in members],
    }.items():
        scorer = load(ensemble(folders, rule=rule, weight=0.5))
        assert isinstance(scorer, Scorer)
        found = scorer.score(PROMPTS, COMPLETIONS)
        assert [len(row) for row in found] == [0, 1, 2, 3]
        assert [value for row in found for value in row] == pytest.approx(expected, abs=1e-5)
    measured = [one for row in scorer.measure(PROMPTS, COMPLETIONS) for one in row]
    assert [one.disagreement for one in measured] == pytest.approx(
        [statistics.pstdev(one) for one in members], abs=1e-5
    )


def test_members_are_put_on_one_scale(folders: list[str], single: dict[str, Any]) -> None:
    first, second, _ = by_hand(single.values())
    members = [folders[0], {"model": folders[1], "mean": 0.25, "sd": 2.0}]
    found = load({"members": members}).score(PROMPTS, COMPLETIONS)
    expected = [(one + (other - 0.25) / 2.0) / 2 for one, other in zip(first, second, strict=True)]
    assert [value for row in found for value in row] == pytest.approx(expected, abs=1e-5)


def test_it_is_a_reward_function(folders: list[str], single: dict[str, Any]) -> None:
    scorer = rewardlab.load_scorer(ensemble=ensemble(folders), device="cpu")
    texts = ["w3 w4", "w5", "w3 w4"]
    found = scorer(["w1 ", "w2 ", "w2 "], texts)
    expected = [scorer(["w1 ", "w2 ", "w2 "], texts) for scorer in single.values()]
    assert found == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-5)


def test_the_identity_covers_members_and_rule(folders: list[str], single: dict[str, Any]) -> None:
    def name(given: dict[str, Any]) -> str:
        built = Ensemble.build(given)
        return EnsembleScorer([single[one.model] for one in built.members], built).name

    names = {
        name(given)
        for given in (
            ensemble(folders),
            ensemble(folders[:2]),
            ensemble(folders[1:]),
            ensemble(folders, rule="worst-case"),
            ensemble(folders, rule="lower-bound"),
            ensemble(folders, rule="lower-bound", weight=2.0),
            {"members": [*folders[:2], {"model": folders[2], "mean": 1.0}]},
        )
    }
    assert len(names) == 7
    # A weight that counts for nothing is no other scorer.
    assert name(ensemble(folders, weight=3.0)) == name(ensemble(folders))
    assert name(ensemble(folders)).startswith("ensemble:mean-of-3@")


def test_a_changed_member_is_another_stage_of_a_study(folders: list[str], tmp_path: Path) -> None:
    for seed in (0, 1):
        save_reward_model(reward_model_of("llama", "shared", seed), tmp_path / f"{seed}", card="# card")
    config = {"ensemble": {"members": [{"model": str(tmp_path / "0")}, {"model": str(tmp_path / "1")}]}}
    before = content_key(config)
    save_reward_model(reward_model_of("llama", "shared", 5), tmp_path / "1", card="# card")
    assert content_key(config) != before


def test_the_table_keeps_the_disagreement_and_is_read_as_any_other(
    score: Score, folders: list[str], single: dict[str, Any], tmp_path: Path
) -> None:
    result = score(model=None, ensemble=ensemble(folders[:2], rule="lower-bound"), verify=4)
    table = result.table
    alone = [score(name=f"single-{number}", model=folder).table for number, folder in enumerate(folders[:2])]
    scores = np.array([one["score"].to_numpy() for one in alone])
    np.testing.assert_allclose(table["disagreement"].to_numpy(), scores.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(table["score"].to_numpy(), scores.mean(axis=0) - scores.std(axis=0), atol=1e-5)
    assert table["completion_tokens"].to_pylist() == alone[0]["completion_tokens"].to_pylist()
    assert "disagreement" not in alone[0].column_names
    assert any("Members disagree by" in line for line in result.lines())
    assert result.summary["verified"]["difference"] < 1e-5
    names = [single[folder].name for folder in folders[:2]]
    assert result.summary["ensemble"] == {"rule": "lower-bound", "weight": 1.0, "members": names}
    (read,) = read_scores([tmp_path / "runs" / "run"])
    assert read.scorer == result.summary["scorer"]
    assert "disagreement" in pq.read_schema(read.path).names


def test_scores_that_are_no_longer_the_members_are_found(folders: list[str]) -> None:
    scorer = load(ensemble(folders))
    scores = [value for row in scorer.score(PROMPTS, COMPLETIONS) for value in row]
    assert scorer.verified(PROMPTS, COMPLETIONS, scores).difference <= 1e-5
    with pytest.raises(ModelError, match="differ from one-by-one scoring"):
        scorer.verified(PROMPTS, COMPLETIONS, [scores[0] + 0.01, *scores[1:]])


def test_rules_are_members_too(folders: list[str], single: dict[str, Any]) -> None:
    scorer = load(ensemble([folders[0], "rule:length_words"]))
    (model,) = by_hand([single[folders[0]]])
    lengths = [len(text.split()) for texts in COMPLETIONS for text in texts]
    expected = [(one + words) / 2 for one, words in zip(model, lengths, strict=True)]
    assert [value for row in scorer.score(PROMPTS, COMPLETIONS) for value in row] == pytest.approx(expected, abs=1e-5)


def test_flags_name_the_members() -> None:
    flags = [("ensemble.members", "a/model"), ("ensemble.members", "b/model"), ("ensemble.rule", "worst-case")]
    config = Scoring.build({"data": ["pairs.jsonl"]}, flags=flags)
    assert config.ensemble is not None
    assert [one.model for one in config.ensemble.members] == ["a/model", "b/model"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ensemble": {"members": ["a"]}}, "members: found .*a.*; expected .*2"),
        ({"ensemble": {"members": ["a", "a"]}}, "expected different members"),
        ({"ensemble": {"members": ["a", "b"]}, "model": "c"}, "one of a model, an ensemble and an implicit reward"),
        ({}, "a model, a template, or both, or an ensemble"),
        ({"ensemble": {"members": ["a", {"model": "b", "sd": 0}]}}, "greater than 0"),
    ],
)
def test_what_cannot_be_used_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scoring.build({"data": ["pairs.jsonl"], **values})


def test_one_model_under_two_names_is_refused(folders: list[str]) -> None:
    with pytest.raises(ConfigError, match="Two members are the same"):
        load(ensemble([folders[0], f"{folders[0]}/"]))
    with pytest.raises(ConfigError, match="label: found 1; expected nothing beside an ensemble"):
        load(ensemble(folders), label="1")
