"""`audit effects` on rewards whose causes are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardlab.audit import diagnostics
from rewardlab.audit.about import ABOUT, About
from rewardlab.audit.chains import REWRITES, AuditedText, read_chains, write_chains, write_published
from rewardlab.audit.effects import AuditResult, EffectsEstimation, estimate_effects
from rewardlab.audit.scored import cluster_labels
from rewardlab.audit.units import Chain, Outcome, Rewrite, Task, Unit
from rewardlab.errors import DataError
from rewardlab.functional.intervals import NO_SPREAD
from rewardlab.records import Message, Prompt, completion_id
from rewardlab.store.files import write_json

Reward = Callable[[str], float]


class Here:
    """A folder that results go to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str | Path = "") -> Path:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        return self.folder / name


def text(quality: int, treated: bool, rewrites: int) -> str:
    """A text that says everything that a reward can depend on."""
    return f"q{quality} {'long' if treated else 'short'} r{rewrites}"


def planted(effect: float, drift: float) -> Reward:
    """Quality, plus `effect` for the attribute, plus `drift` once a text was rewritten at all."""

    def reward(value: str) -> float:
        quality, side, rewrites = value.split()
        return float(quality[1:]) + effect * (side == "long") + drift * (rewrites != "r0")

    return reward


def chains(n: int, steps: int = 2, seed: int = 0, per_prompt: int = 1) -> list[Chain]:
    """Texts whose quality goes with the attribute: the naive comparison is confounded."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(n):
        treated = bool(generator.random() < 0.4)
        quality = int(generator.integers(0, 10)) + 5 * treated
        unit = Unit(Prompt.of_text(f"prompt {number // per_prompt}"), f"{text(quality, treated, 0)}", treated)
        rewrites = [
            Rewrite(text(quality, treated if step % 2 == 0 else not treated, step), "ok")
            for step in range(1, steps + 1)
        ]
        made.append(Chain(Task(unit), tuple(rewrites)))
    return made


def folder_of(tmp_path: Path, made: list[Chain], rewards: dict[str, Reward], twice: bool = False) -> EffectsEstimation:
    steps = max(len(chain.rewrites) for chain in made)
    write_chains(tmp_path / REWRITES, made, steps)
    about = About({"name": "length", "high": "longer", "low": "shorter"}, rewriter="planted", steps=steps)
    write_json(tmp_path / ABOUT, about.as_dict())
    tables = []
    for name, reward in rewards.items():
        rows = []
        seen = set()
        for chain in made:
            prompt = chain.task.unit.prompt
            for one in (chain.task.unit.response, *[rewrite.text for rewrite in chain.rewrites if rewrite.text]):
                identity = completion_id(prompt, one)
                if (prompt.id, identity) in seen:
                    continue
                seen.add((prompt.id, identity))
                row = {
                    "prompt_id": prompt.id,
                    "completion_id": identity,
                    "scorer": name,
                    "score": reward(one),
                    "completion_tokens": 3,
                    "truncated": False,
                }
                rows += [{**row, "occurrence": occurrence} for occurrence in range(2 if twice else 1)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        tables.append(tmp_path / f"{name}.parquet")
    return EffectsEstimation(rewrites=tmp_path, scores=tuple(tables))


def audited(tmp_path: Path, made: list[Chain], rewards: dict[str, Reward], twice: bool = False) -> AuditResult:
    return estimate_effects(folder_of(tmp_path, made, rewards, twice), Here(tmp_path / "out"))


def test_rate_finds_the_planted_effect_where_the_others_do_not(tmp_path: Path) -> None:
    found = audited(tmp_path, chains(400), {"rm": planted(effect=2.0, drift=-1.5)}).models[0]
    # Drift is the same in both directions, so RATE has no error at all; the qualities differ by 5 on average.
    for target in ("ATE", "ATT", "ATU", "balanced"):
        assert found[f"double.{target}"].value == pytest.approx(2.0, abs=1e-12)
    assert found["naive.ATE"].value == pytest.approx(7.0, abs=1.0)
    # One rewrite carries the drift: +1.5 where the attribute was there, -1.5 where it was not.
    assert found["single.ATT"].value == pytest.approx(3.5, abs=1e-12)
    assert found["single.ATU"].value == pytest.approx(0.5, abs=1e-12)
    assert found["rewrite_effect.treated"].value == pytest.approx(-1.5, abs=1e-12)


def test_the_unit_of_standardised_effects_is_the_spread_of_the_originals_within_the_groups(tmp_path: Path) -> None:
    made = chains(200)
    found = audited(tmp_path, made, {"rm": planted(2.0, 0.0)}).models[0]
    groups = [[planted(2.0, 0.0)(chain.task.unit.response) for chain in made if chain.task.unit.treated == side]
              for side in (True, False)]  # fmt: skip
    squares = sum((len(group) - 1) * float(np.var(group, ddof=1)) for group in groups)
    sd = (squares / (len(made) - 2)) ** 0.5
    assert found["double.ATE.sd"].value == pytest.approx(2.0 / sd, rel=1e-12)


@pytest.mark.parametrize("bootstrap", ["percentile", "bca"])
def test_exact_effects_have_resampled_ends_in_standard_deviations_alone(tmp_path: Path, bootstrap: str) -> None:
    config = folder_of(tmp_path, chains(200), {"rm": planted(2.0, -1.5)}).model_copy(update={"bootstrap": bootstrap})
    found = estimate_effects(config, Here(tmp_path / "out")).models[0]
    exact, unit = found["double.ATE"], found["double.ATE.sd"]
    assert (exact.value, exact.low, exact.reason) == (2.0, None, NO_SPREAD)
    # The effect is known, the sd that it is divided by is not.
    assert unit.low < unit.value < unit.high
    assert (unit.value, unit.reason) == (pytest.approx(2.0 / found.sd), "")
    assert "bootstrap" in unit.method
    # Single effects are exact on either side, and differ: only the mix of a population is left to vary.
    assert found["single.ATE"].reason == NO_SPREAD
    assert all("bootstrap" in found[name].method for name in ("naive.ATE", "single.population"))


def test_a_balance_table_of_many_responses_measures_some_from_all_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "MEASURED", 20)
    made = [
        AuditedText(Prompt.of_text("p"), (f"{number}", f"{number + 3}", f"{number + 1}"), number % 4 == 0, 0, 2, ())
        for number in range(400)
    ]
    numbers = {"number": lambda texts: np.array([float(one) for one in texts])}
    rows = {
        (row["treated"], row["stage"]): row for row in diagnostics.balance(made, numbers) if row["measure"] == "number"
    }
    assert {row["n"] for row in rows.values()} == {20}
    for treated, stage, change in ((True, "rewrite", 3.0), (False, "rewrite of rewrite", 1.0)):
        row = rows[treated, stage]
        # Twenty evenly spaced ones of 0 to 399.
        assert row["before"] == pytest.approx(200.0, abs=15.0)
        assert row["difference"] == change
        assert row["smd"] == pytest.approx(change / np.arange(400).std(), rel=0.05)
    monkeypatch.setattr(diagnostics, "MEASURED", 300)
    assert [row["n"] for row in diagnostics.balance(made, numbers)[:4]] == [100, 300, 100, 300]


def test_a_third_rewrite_shows_drift_that_goes_on(tmp_path: Path) -> None:
    def cumulating(value: str) -> float:
        quality, side, rewrites = value.split()
        return float(quality[1:]) + 2.0 * (side == "long") - 1.0 * int(rewrites[1:])

    found = audited(tmp_path, chains(300, steps=3), {"rm": cumulating}).models[0]
    # Under cumulation RATE's ATT is off by +delta and its ATU by -delta; the corrected one by neither.
    assert found["double.ATT"].value == pytest.approx(1.0, abs=1e-12)
    assert found["double.ATU"].value == pytest.approx(3.0, abs=1e-12)
    assert found["corrected.ATT"].value == pytest.approx(2.0, abs=1e-12)
    assert found["corrected.ATU"].value == pytest.approx(2.0, abs=1e-12)
    verdicts = {one.name: one for one in found.refutations}
    drift = verdicts["third_rewrite_with"].estimate.value
    assert drift is not None
    assert found.sd is not None
    assert drift == pytest.approx(-2.0 / found.sd, rel=1e-9)


def test_refutations_pass_on_sound_rewards(tmp_path: Path) -> None:
    made = chains(400, steps=3, per_prompt=2)
    found = audited(tmp_path, made, {"rm": planted(2.0, -1.0)}, twice=True).models[0]
    verdicts = {one.name: one.verdict for one in found.refutations}
    assert verdicts == {
        "identity": "passed",
        "placebo": "passed",
        "dummy_outcome": "passed",
        # Every text has the same effect and no drift follows the first rewrite: nothing is left to doubt.
        "random_subset": "not run",
        "third_rewrite_with": "passed",
        "third_rewrite_without": "passed",
    }


def test_every_model_stands_beside_the_others_with_adjusted_p(tmp_path: Path) -> None:
    result = audited(tmp_path, chains(100), {"a": planted(1.0, 0.5), "b": planted(0.0, 0.5), "c": planted(3.0, 0.5)})
    assert [model.scorer for model in result.models] == ["a", "b", "c"]
    naive = [model["naive.ATE"] for model in result.models]
    raw = np.array([one.p for one in naive], dtype=np.float64)
    from scipy.stats import false_discovery_control

    np.testing.assert_allclose([one.p_adjusted for one in naive], false_discovery_control(raw), rtol=1e-12)


def test_the_file_holds_what_was_found(tmp_path: Path) -> None:
    result = audited(tmp_path, chains(60), {"rm": planted(1.0, 0.0)})
    stored = json.loads((tmp_path / "out" / "effects.json").read_text())
    assert stored == json.loads(json.dumps(result.as_dict()))
    triples = pq.read_table(tmp_path / "out" / "triples.parquet").to_pylist()
    assert len(triples) == 60
    assert all(row["double"] == pytest.approx(1.0) for row in triples)


def test_a_text_without_a_score_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    made = chains(5)
    config = folder_of(tmp_path, made, {"rm": planted(1.0, 0.0)})
    table = pq.read_table(config.scores[0])
    pq.write_table(table.slice(1), config.scores[0])
    with pytest.raises(DataError) as caught:
        estimate_effects(config, Here(tmp_path / "out"))
    assert "original" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unusable_rewrites_are_counted_and_left_out(tmp_path: Path) -> None:
    made = chains(50)
    unit = made[0].task.unit
    made[0] = Chain(Task(unit), (Rewrite(None, "refused", "no"),))
    result = audited(tmp_path, made, {"rm": planted(1.0, 0.0)})
    assert result.models[0].counts["responses"] == 50
    assert result.models[0].counts["complete"] == 49
    refused = [one for one in result.outcomes if one["outcome"] == "refused"]
    assert [(one["step"], one["treated"], one["count"]) for one in refused] == [(1, unit.treated, 1)]


def test_where_no_rewrite_can_be_used_it_says_what_became_of_them(tmp_path: Path) -> None:
    made = [Chain(chain.task, (Rewrite(None, "truncated" if place else "refused"),))
            for place, chain in enumerate(chains(4))]  # fmt: skip
    with pytest.raises(DataError, match=r"none with both rewrites.*Of the rewrites, 3 are truncated, 1 are refused\."):
        audited(tmp_path, made, {"rm": planted(1.0, 0.0)})


def test_rewrites_that_are_as_they_should_be_have_a_row_of_their_own(tmp_path: Path) -> None:
    made = chains(40)
    for place, outcome in ((3, "chatter"), (8, "identical"), (20, "chatter")):
        old = made[place].task.unit
        unit = Unit(old.prompt, text(100, old.treated, 0), old.treated)
        own: list[Outcome] = ["ok", outcome] if place == 20 else [outcome, "ok"]
        rewrites = (Rewrite(text(100, not old.treated, 1), own[0]), Rewrite(text(100, old.treated, 2), own[1]))
        made[place] = Chain(Task(unit), rewrites)
    # Flawed texts, of quality 100, are worth 6 more where they have the attribute: the effect is 8 rather than 2.
    plain = planted(2.0, -1.0)
    flawed = {"rm": lambda value: plain(value) + 6.0 * value.startswith("q100 long")}
    found = audited(tmp_path, made, flawed).models[0]
    assert found["double.ATE"].value == pytest.approx(2.0 + 6.0 * 3 / 40)
    assert found["unflawed.double.ATE"].value == pytest.approx(2.0)
    assert found["unflawed.double.ATE"].n == 37
    # In the unit of all of them, so that the rows can be compared.
    assert found["unflawed.double.ATE.sd"].value == pytest.approx(2.0 / found.sd)
    assert "unflawed" not in audited(tmp_path / "plain", chains(10), {"rm": plain}).models[0].estimates


def test_dialogues_that_begin_alike_are_one_cluster_where_that_is_asked_for(tmp_path: Path) -> None:
    made = []
    for number, chain in enumerate(chains(24)):
        turns = [Message("user", f"Root {number // 4}?")]
        turns += [Message("assistant", "Yes."), Message("user", f"And {number}?")] * (number % 4 > 0)
        made.append(Chain(Task(replace(chain.task.unit, prompt=Prompt(tuple(turns)))), chain.rewrites))
    noise = {one.text: float(n) for n, chain in enumerate(made) for one in chain.rewrites}
    config = folder_of(tmp_path, made, {"rm": lambda text: planted(2.0, 0.0)(text) + noise.get(text, 0.0) % 5})
    for cluster, clusters in (("prompt", 24), ("root", 6)):
        own = config.model_copy(update={"cluster": cluster})
        found = estimate_effects(own, Here(tmp_path / cluster)).models[0]
        assert found["double.ATE"].clusters == clusters
        assert found.counts["clusters"] == clusters
    # One root that all share clusters nothing by itself.
    shared = [Prompt((Message("user", "Root?"), Message("user", f"And {n}?"))) for n in (1, 1, 2)]
    texts = [AuditedText(prompt, (f"answer {n}",), True, 0, 2, ()) for n, prompt in enumerate(shared)]
    assert cluster_labels(texts, roots=True).tolist() == [0, 0, 1]
    assert cluster_labels(texts[:2], roots=True).tolist() == [0, 1]
    other = AuditedText(Prompt((Message("user", "Other?"),)), ("answer",), True, 0, 2, ())
    assert cluster_labels([*texts, other], roots=True).tolist() == [0, 0, 0, 1]
    assert cluster_labels([*texts, other], clusters=False, roots=True).tolist() == [0, 1, 2, 3]


def test_the_balance_table_counts_the_tokens_of_the_reward_model(tmp_path: Path) -> None:
    config = folder_of(tmp_path, chains(20), {"rm": planted(2.0, 0.0)})
    texts = {completion_id(one.prompt, text): text for one in read_chains(tmp_path) for text in one.texts}
    table = [
        {**row, "completion_tokens": sum(map(ord, texts[row["completion_id"]]))}
        for row in pq.read_table(config.scores[0]).to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(table), config.scores[0])
    rows = [row for row in estimate_effects(config, Here(tmp_path / "out")).balance if row["measure"] == "tokens"]
    made = read_chains(tmp_path)
    for row in rows:
        stage = ["original", "rewrite", "rewrite of rewrite"].index(row["stage"])
        own = [sum(map(ord, one.texts[stage])) for one in made if one.treated == row["treated"]]
        assert row["after"] == pytest.approx(np.mean(own))
    assert len(rows) == 4


def test_reward_models_stand_side_by_side_on_the_responses_that_each_has_scored(tmp_path: Path) -> None:
    made = chains(30)
    config = folder_of(tmp_path, made, {"a": planted(1.0, 0.0), "b": planted(2.0, 0.0)})
    table = pq.read_table(config.scores[1]).to_pylist()
    lost = completion_id(made[4].task.unit.prompt, str(made[4].rewrites[0].text))
    rows = [{**row, "score": None if row["completion_id"] == lost else row["score"]} for row in table]
    pq.write_table(pa.Table.from_pylist(rows), config.scores[1])
    result = estimate_effects(config, Here(tmp_path / "out"))
    assert [model["double.ATE"].n for model in result.models] == [29, 29]
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.rate.jsonl").read_text().splitlines()]
    kept = [chain for number, chain in enumerate(made) if number != 4]
    assert [line["completions"]["original"] for line in lines] == [chain.task.unit.response for chain in kept]
    assert lines[0]["b"]["original"] == planted(2.0, 0.0)(kept[0].task.unit.response)
    table = pq.read_table(tmp_path / "out" / "triples.parquet").to_pylist()
    assert [row["original"] for row in table] == [chain.task.unit.response for chain in made] + [None] * 30
    assert [row["double"] for row in table[30:]] == [None if n == 4 else pytest.approx(2.0) for n in range(30)]


def test_the_published_form_gives_the_same_effects(tmp_path: Path) -> None:
    config = folder_of(tmp_path, chains(80), {"rm": planted(2.0, 1.0)})
    ours = estimate_effects(config, Here(tmp_path / "ours")).models[0]
    published = tmp_path / "published" / "rewrites.json"
    published.parent.mkdir()
    # The published form asks a question; ours here are plain texts, so their prompts get other ids.
    chain = read_chains(tmp_path)[0]
    assert write_published(published, read_chains(tmp_path)) == 80
    again = read_chains(published)
    assert [one.texts for one in again] == [one.texts for one in read_chains(tmp_path)]
    assert [one.treated for one in again] == [one.treated for one in read_chains(tmp_path)]
    assert again[0].prompt.messages[0].content == chain.prompt.messages[0].content
    assert ours["double.ATE"].value == pytest.approx(2.0)
