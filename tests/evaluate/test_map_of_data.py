"""`evaluate cartography`: hand-worked tables, several trainings, lists, the published form, and a real training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from rewardlab.config import Config
from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluate.cartography import Cartography, CartographyOutput, evaluate_cartography
from rewardlab.records import Pair, Prompt
from rewardlab.store.files import read_json, read_jsonl, write_jsonl
from rewardlab.store.runs import Run
from rewardlab.studies.verbs import VERBS
from rewardlab.train.margins import MARGINS, SCHEMA
from rewardlab.train.reward import RewardTraining, train_reward
from tests.train import toys


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str | Path = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def make_pairs() -> list[Pair]:
    """Chosen is longer, shorter, equally long, longer."""
    answers = [("aaaa", "b"), ("c", "dddd"), ("ee", "ff"), ("gggg", "hh")]
    return [Pair(Prompt.of_text(f"Q{number}"), *both) for number, both in enumerate(answers)]


def write_data(path: Path, pairs: Sequence[Pair]) -> Path:
    rows = [
        {"prompt": pair.prompt.messages[0].content, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)
    return path


def write_training(folder: Path, rows: Sequence[tuple[str, int, int, float, float]]) -> Path:
    """Rows of pair, occurrence, epoch, chosen and rejected reward."""
    folder.mkdir(parents=True, exist_ok=True)
    values = [
        {"pair_id": one, "occurrence": nth, "epoch": epoch, "step": step, "chosen_reward": chosen}
        | {"rejected_reward": rejected, "margin": chosen - rejected}
        for step, (one, nth, epoch, chosen, rejected) in enumerate(rows, start=1)
    ]
    pq.write_table(pa.Table.from_pylist(values, schema=SCHEMA), folder / MARGINS)
    return folder


def recorded(pairs: Sequence[Pair], margins: Sequence[Sequence[float]]) -> list[tuple[str, int, int, float, float]]:
    """Of every pair its margins by epoch; the rejected side has the reward 1. The order changes from epoch to epoch."""
    rows = []
    for epoch in range(len(margins[0])):
        order = range(len(pairs)) if epoch % 2 else reversed(range(len(pairs)))
        rows += [(pairs[one].id, 0, epoch + 1, 1.0 + margins[one][epoch], 1.0) for one in order]
    return rows


def evaluated(folder: Path, **values: Any) -> tuple[CartographyOutput, dict[str, list[Any]], dict[str, Any]]:
    config = Cartography.build(values)
    output = evaluate_cartography(config, Folder(folder))
    return output, pq.read_table(folder / "cartography.parquet").to_pydict(), read_json(folder / "cartography.json")


MARGIN_ROWS = [[0.0, 1.0, 3.0], [-1.0, -2.0, -4.0], [2.0, -1.0, 1.0], [1.0, 0.5, 0.5]]


def test_one_training_by_hand(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", pairs)
    run = write_training(tmp_path / "run", recorded(pairs, MARGIN_ROWS))
    _, table, result = evaluated(tmp_path / "out", runs=[str(run)], data=[str(data)], share=0.25)
    assert table["pair_id"] == [pair.id for pair in pairs]
    assert table["confidence"] == pytest.approx([2.0, -3.0, 0.0, 0.5])
    assert table["variability"] == pytest.approx([math.sqrt(2), math.sqrt(2), math.sqrt(2), 0.0])
    assert table["correctness"] == pytest.approx([2 / 3, 0.0, 2 / 3, 1.0])
    assert table["forgetting"] == [0, 0, 1, 0]
    assert table["never_learnt"] == [False, True, False, False]
    half = 1 / (1 + math.exp(-0.5))
    assert table["confidence_classic"][3] == pytest.approx((1 / (1 + math.exp(-1)) + 2 * half) / 3)
    assert table["variability_classic"][3] == pytest.approx(np.std([1 / (1 + math.exp(-1)), half, half]))
    assert table["epochs"] == [3] * 4
    assert table["runs"] == [1] * 4
    # Without a tokenizer in the training, characters; equally long is neither.
    assert result["options"]["unit"] == "characters"
    assert table["longer_is_chosen"] == [True, False, None, True]
    assert (table["chosen_length"], table["rejected_length"]) == ([4, 1, 2, 4], [1, 4, 2, 2])
    assert table["chosen"] == [pair.chosen for pair in pairs]
    assert (table["easy"], table["hard"]) == ([True, False, False, False], [False, True, False, False])
    counts = result["counts"]
    assert {key: counts[key] for key in ("pairs", "always_right", "never_learnt", "forgotten", "equally_long")} == {
        "pairs": 4,
        "always_right": 1,
        "never_learnt": 1,
        "forgotten": 1,
        "equally_long": 1,
    }
    assert result["findings"][0].startswith("4 pairs over up to 3 epochs: 1 right in every epoch, 1 never, 1 forgotten")
    overall = result["estimates"][0]
    assert (overall["name"], overall["value"], overall["n"]) == ("cartography.longer_is_chosen", 2 / 3, 3)


def test_lists_hold_the_regions_and_the_cut(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", pairs)
    run = write_training(tmp_path / "run", recorded(pairs, MARGIN_ROWS))
    evaluated(tmp_path / "out", runs=[str(run)], data=[str(data)], share=0.5, cut=[-3.0, 0.5])
    lists = {path.stem: path.read_text().split() for path in (tmp_path / "out" / "ids").iterdir()}
    ids = [pair.id for pair in pairs]
    # Both ends of the cut are left out; of three equal variabilities the first two are taken.
    assert lists == {
        "easy": [ids[0], ids[3]],
        "hard": [ids[1], ids[2]],
        "ambiguous": [ids[0], ids[1]],
        "cut": [ids[2]],
    }
    evaluated(tmp_path / "two", runs=[str(run)], data=[str(data)], export=["hard"], convention="classic", cut=[0.5, 1])
    lists = {path.stem: path.read_text().split() for path in (tmp_path / "two" / "ids").iterdir()}
    assert lists == {"hard": [ids[1]], "cut": [ids[0], ids[2], ids[3]]}


def test_several_trainings_are_averaged_pair_by_pair(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", pairs)
    first = write_training(tmp_path / "a" / "run", recorded(pairs, MARGIN_ROWS))
    # The second has not seen the last pair, had two epochs, and forgot the first one.
    second = write_training(tmp_path / "b" / "run", recorded(pairs[:3], [[2.0, -4.0], [1.0, 1.0], [5.0, 6.0]]))
    _, table, result = evaluated(tmp_path / "out", runs=[str(first), str(second)], data=[str(data)], published=True)
    assert table["confidence"] == pytest.approx([(2 - 4) / 2, (-3 + 1) / 2, (0 + 6) / 2, 0.5])
    assert table["confidence_sd"][:3] == pytest.approx([np.std(two, ddof=1) for two in ([2, -4], [-3, 1], [0, 6])])
    assert table["confidence_sd"][3] is None
    # Two epochs have no variability: that of the other training stands.
    assert table["variability"] == pytest.approx([math.sqrt(2)] * 3 + [0.0])
    assert table["forgetting"] == [0.5, 0.0, 0.5, 0.0]
    assert table["never_learnt"] == [False] * 4
    assert table["correctness"] == pytest.approx([(2 / 3 + 1 / 2) / 2, 0.5, (2 / 3 + 1) / 2, 1.0])
    assert (table["epochs"], table["runs"]) == ([5, 5, 5, 3], [2, 2, 2, 1])
    agreement = next(one for one in result["estimates"] if one["name"] == "cartography.runs_pearson")
    assert agreement["value"] == pytest.approx(stats.pearsonr([2, -3, 0], [-4, 1, 6]).statistic)
    assert sorted(path.name for path in (tmp_path / "out" / "carto_outs").iterdir()) == ["1-run.jsonl", "2-run.jsonl"]


def _configured(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "train": [{"path": "fold-0.jsonl", "limit": None}],
        "interventions": [{"name": "random-pairs", "ratio": 0.5, "seed": 0}],
        "objective": {"centring": 0.0},
        "epochs": 1,
        "seed": 0,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"seed": 1, "device": "cuda"}, []),
        ({"train": [{"path": "fold-1.jsonl", "limit": None}]}, []),
        ({"interventions": [{"name": "random-pairs", "ratio": 0.5, "seed": 1}]}, []),
        ({"interventions": [], "epochs": 2}, ["epochs", "interventions"]),
        ({"objective": {"centring": 0.1}}, ["objective.centring"]),
        ({"train": [{"path": "fold-0.jsonl", "limit": 60}]}, ["train.limit"]),
    ],
)
def test_trainings_that_differ_in_more_than_the_seed_are_told(
    tmp_path: Path, changes: dict[str, Any], fields: list[str]
) -> None:
    pairs = make_pairs()
    rows = recorded(pairs, [[1.0]] * 4)
    data = write_data(tmp_path / "train.jsonl", pairs)
    first = _configured(write_training(tmp_path / "a", rows))
    second = _configured(write_training(tmp_path / "b", rows), **changes)
    output, _, result = evaluated(tmp_path / "out", runs=[str(first), str(second)], data=[str(data)])
    assert result["differing"] == fields
    said = [line for line in output.lines() if "differ in more than the seed" in line]
    assert len(said) == bool(fields)
    assert all(f"seed: {', '.join(fields)}." in line for line in said)


def test_two_epochs_say_why_there_is_no_variability(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", pairs)
    run = write_training(tmp_path / "run", recorded(pairs, [row[:2] for row in MARGIN_ROWS]))
    output, table, result = evaluated(tmp_path / "out", runs=[str(run)], data=[str(data)])
    assert table["variability"] == [None] * 4
    assert None not in table["variability_classic"]
    assert set(result["reasons"]) == {"variability", "ambiguous"}
    assert not (tmp_path / "out" / "ids" / "ambiguous.txt").exists()
    assert any("in two epochs after the first" in line for line in output.lines())


def test_length_along_confidence_is_what_a_count_gives(tmp_path: Path) -> None:
    """400 pairs whose longer side is chosen the more often, the higher their confidence is."""
    rng = np.random.default_rng(2)
    level = rng.normal(size=400)
    longer = rng.random(400) < 1 / (1 + np.exp(-2 * level))
    sides = [("long answer", "short") if one else ("short", "long answer") for one in longer]
    pairs = [Pair(Prompt.of_text(f"Q{number}"), *both) for number, both in enumerate(sides)]
    data = write_data(tmp_path / "train.jsonl", pairs)
    margins = np.stack([level, level + 0.1, level - 0.1], axis=1).astype(np.float32)
    run = write_training(tmp_path / "run", recorded(pairs, margins.tolist()))
    _, table, result = evaluated(tmp_path / "out", runs=[str(run)], data=[str(data)])
    bins = result["curves"]["confidence"]
    assert [row["n"] for row in bins] == [40] * 10
    for row, members in zip(bins, np.array_split(np.argsort(level), 10), strict=True):
        assert row["confidence"] == pytest.approx(level[members].mean(), abs=1e-5)
        assert row["longer_is_chosen"] == pytest.approx(longer[members].mean())
        error = stats.sem(longer[members].astype(float))
        low = longer[members].mean() - stats.t.ppf(0.975, 39) * error
        assert row["longer_is_chosen_low"] == pytest.approx(max(low, 0.0))
    correlation = next(one for one in result["estimates"] if one["name"] == "cartography.length_pearson")
    expected = stats.pearsonr(np.where(longer, 6, -6), table["confidence"]).statistic
    assert correlation["value"] == pytest.approx(expected)
    assert "of the tenth of lowest" in result["findings"][1]


def copied(count: int, copies: int, kind: str) -> tuple[list[Pair], list[list[list[float]]]]:
    """Pairs of the same prompt, or of prompts that begin alike, with equal lengths and margins in two trainings."""
    rng = np.random.default_rng(4)
    pairs, margins = [], []
    for number in range(count):
        lengths, both = rng.integers(1, 9, 2), rng.normal(size=(2, 3)) + rng.normal()
        for copy in range(copies):
            later = f"\n\nAssistant: And?\n\nHuman: {copy}\n\nAssistant:" if kind == "root" else ""
            prompt = Prompt.of_text(f"\n\nHuman: Q{number}{later}")
            pairs.append(Pair(prompt, *(side * length + str(copy) for side, length in zip("ab", lengths, strict=True))))
            margins.append(both.tolist())
    return pairs, margins


@pytest.mark.parametrize("kind", ["prompt", "root"])
def test_copies_make_no_interval_narrower(kind: str, tmp_path: Path) -> None:
    found = {}
    for copies, cluster in ((1, kind), (3, kind), (3, "prompt")):
        folder = tmp_path / f"{copies}-{cluster}"
        pairs, margins = copied(30, copies, kind)
        data = write_data(folder / "train.jsonl", pairs)
        runs = [
            str(write_training(folder / f"run-{n}", recorded(pairs, [both[n] for both in margins]))) for n in range(2)
        ]
        _, _, found[copies, cluster] = evaluated(
            folder / "out", runs=runs, data=[str(data)], cluster=cluster, share=0.4
        )
    once, again = ({one["name"]: one for one in found[copies, kind]["estimates"]} for copies in (1, 3))
    assert len(once) == 6
    for name, one in once.items():
        assert one["low"] is not None
        assert (again[name]["n"], again[name]["clusters"]) == (3 * one["n"], one["clusters"]), name
        assert [again[name][end] for end in ("value", "low", "high")] == pytest.approx(
            [one[end] for end in ("value", "low", "high")]
        )
    for row, other in zip(*(found[copies, kind]["curves"]["confidence"] for copies in (1, 3)), strict=True):
        ends = ("longer_is_chosen", "longer_is_chosen_low", "longer_is_chosen_high")
        assert [other[end] for end in ends] == pytest.approx([row[end] for end in ends])
    apart = {one["name"]: one["clusters"] for one in found[3, "prompt"]["estimates"]}
    assert apart == {name: one["clusters"] * (1 if kind == "prompt" else 3) for name, one in once.items()}


def test_the_published_form_is_written_and_read_back(tmp_path: Path) -> None:
    pairs = make_pairs()
    twice = [*pairs, pairs[0]]
    data = write_data(tmp_path / "train.jsonl", twice)
    again = [(pairs[0].id, 1, epoch, 1.5, 1.0) for epoch in (1, 2, 3)]
    run = write_training(tmp_path / "run", [*recorded(pairs, MARGIN_ROWS), *again])
    options = {"data": [str(data)], "published": True}
    _, table, _ = evaluated(tmp_path / "out", runs=[str(run)], **options)
    assert (table["pair_id"][:2], table["occurrence"][:2]) == ([pairs[0].id] * 2, [0, 1])
    assert table["confidence"][:2] == pytest.approx([2.0, 0.5])
    file = tmp_path / "out" / "carto_outs" / "run.jsonl"
    lines = list(read_jsonl(file))
    assert lines[0] == {"uid": pairs[3].id, "rew_j": 2.0, "rew_k": 1.0}
    assert lines[-1] == {"uid": f"{pairs[0].id}#1", "rew_j": 1.5, "rew_k": 1.0}
    _, back, _ = evaluated(tmp_path / "back", runs=[str(file)], **options)
    assert back == table


def test_uids_of_published_files_are_places_in_the_data(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", [*pairs, pairs[1]])
    rows = [(2, 1.0, 0.0), (4, 3.0, 0.0), (1, 5.0, 0.0), (4, 7.0, 0.0), (2, 9.0, 0.0), (1, 2.0, 0.0)]
    file = tmp_path / "carto.jsonl"
    write_jsonl(file, [{"uid": uid, "rew_j": chosen, "rew_k": rejected} for uid, chosen, rejected in rows])
    _, table, result = evaluated(tmp_path / "out", runs=[str(file)], data=[str(data)])
    found = list(zip(table["pair_id"], table["occurrence"], table["confidence"], strict=True))
    assert found == [(pairs[1].id, 0, 2.0), (pairs[1].id, 1, 7.0), (pairs[2].id, 0, 9.0)]
    assert result["counts"]["untrained_pairs"] == 2


def test_pairs_made_while_training_have_no_texts(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", pairs[:3])
    run = write_training(tmp_path / "run", recorded(pairs, MARGIN_ROWS))
    output, table, result = evaluated(tmp_path / "out", runs=[str(run)], data=[str(data)])
    assert table["pair_id"][-1] == pairs[3].id
    assert table["longer_is_chosen"][-1] is table["prompt"][-1] is table["chosen_length"][-1] is None
    assert table["confidence"][-1] == pytest.approx(0.5)
    assert result["counts"]["unknown_pairs"] == 1
    assert any("not in the data given" in line for line in output.lines())


def test_what_cannot_be_used_is_told_all_at_once(tmp_path: Path) -> None:
    pairs = make_pairs()
    data = write_data(tmp_path / "train.jsonl", pairs)
    rows = recorded(pairs, MARGIN_ROWS)
    doubled = write_training(tmp_path / "doubled", [*rows, rows[0]])
    (tmp_path / "labels").mkdir()
    torn = tmp_path / "torn.jsonl"
    write_jsonl(torn, [{"uid": 1, "rew_j": 1.0, "rew_k": "x"}, [1, 2], {"uid": 99, "rew_j": True, "rew_k": 1}])
    beyond = tmp_path / "beyond.jsonl"
    write_jsonl(beyond, [{"uid": 4, "rew_j": 1.0, "rew_k": 0.0}])
    runs = [str(path) for path in (doubled, tmp_path / "labels", torn, beyond)]
    with pytest.raises(DataError) as caught:
        evaluated(tmp_path / "out", runs=runs, data=[str(data)])
    told = str(caught.value)
    assert "1 pairs more than once in an epoch" in told
    assert "labels/margins.parquet" in told
    assert [f"torn.jsonl:{number}" in told for number in (1, 2, 3)] == [True] * 3
    assert "places from 0 to 3" in told
    assert not (tmp_path / "out").exists()


def test_margins_of_other_data_are_refused(tmp_path: Path) -> None:
    pairs = make_pairs()
    run = write_training(tmp_path / "run", recorded(pairs, MARGIN_ROWS))
    other = write_data(tmp_path / "other.jsonl", [Pair(Prompt.of_text("x"), "a", "b")])
    with pytest.raises(DataError, match="no pair of the data"):
        evaluated(tmp_path / "out", runs=[str(run)], data=[str(other)])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"runs": ["a", "./a"]}, "every training once"), ({"cut": [0.4, -0.2]}, "below its second")],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Cartography.build({"runs": ["a"], "data": ["b"]} | change)


def test_from_a_training_to_its_map(tmp_path: Path) -> None:
    """A training records, the verb reads: every pair, in tokens of the model that was trained."""
    tokenizer = toys.make_tokenizer(tmp_path / "tokenizer")
    data = toys.write_pairs(tmp_path / "train.jsonl", toys.pairs(14))
    held = toys.write_pairs(tmp_path / "val.jsonl", toys.pairs(4, seed=9))
    source = {"shape": toys.GPT2, "tokenizer": str(tokenizer)}
    training = RewardTraining.build(
        {
            "model": source,
            "train": [str(data)],
            "validation": {"val": str(held)},
            "encoding": {"max_tokens": 128},
            "epochs": 3,
            "batch_size": 5,
            "learning_rate": 1e-3,
            "precision": "float32",
            "device": "cpu",
        }
    )
    with Run.create(training, verb="train reward", name="train", root=tmp_path / "runs") as run:
        train_reward(training, run)
    verb = VERBS["evaluate cartography"]
    config = cast(Config, verb.config_class().build({"runs": [str(run.folder)], "data": [str(data)]}))
    with Run.create(config, verb="evaluate cartography", name="map", root=tmp_path / "runs") as mapped:
        verb.run(config, mapped)
    table = pq.read_table(mapped.folder / "cartography.parquet").to_pydict()
    assert sorted(table["pair_id"]) == sorted(pair.id for pair in toys.pairs(14))
    assert set(table["epochs"]) == {3}
    assert json.loads((mapped.folder / "cartography.json").read_text())["options"]["unit"] == "tokens"
    margins = pq.read_table(run.folder / MARGINS).to_pydict()
    own = [
        margin
        for one, epoch, margin in zip(margins["pair_id"], margins["epoch"], margins["margin"], strict=True)
        if one == table["pair_id"][0] and epoch > 1
    ]
    assert table["confidence"][0] == pytest.approx(np.mean(own))
