"""Cached hidden states: the same training as through the backbone, and never anything stale or half-written."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import types
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import (
    BERT,
    ENCODING,
    GPT2,
    LLAMA,
    T5,
    Killed,
    examples_of,
    history,
    kill,
    on_call,
    pairs,
    same_weights,
    toy_model,
    toy_trainer,
    weights_of,
    write_pairs,
)

from rewardlab.data.layout import Group
from rewardlab.errors import ConfigError, ModelError, RunError
from rewardlab.models import feature_key
from rewardlab.models import features as module
from rewardlab.models.feature_key import feature_facts
from rewardlab.models.features import FeatureModel, cached_features, sequence_digests
from rewardlab.models.loading import load_reward_model
from rewardlab.models.readouts import Readout
from rewardlab.models.reward import RewardModel
from rewardlab.records import content_id
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.runs import Run
from rewardlab.train.features import CachedFeatures, FeatureCaching, cache_features, on_features
from rewardlab.train.reward import RewardTraining, TrainedReward, train_reward
from rewardlab.train.trainer import run_training

CASES = [
    (LLAMA, "last"),
    (LLAMA, "mean"),
    (LLAMA, "pooled-encoder"),
    (GPT2, "pooled-encoder"),
    (BERT, "mean"),
    (BERT, "pooled-encoder"),
    (T5, "mean"),
    (T5, "decoder-output"),
    (T5, "pooled-decoder"),
]
QUICK = {("llama", "last"), ("bert", "mean"), ("t5", "pooled-decoder")}
"""Trained in the quick suite."""


def case(shape: dict[str, Any], name: str, *, slow: bool) -> Any:
    marks = [pytest.mark.slow] if slow and (shape["model_type"], name) not in QUICK else []
    return pytest.param(shape, name, id=f"{shape['model_type']}-{name}", marks=marks)


def frozen(tokenizer: Path, shape: dict[str, Any] = LLAMA, name: str = "last", **options: Any) -> RewardModel:
    readout = Readout.model_validate({"name": name, "layers": 2, "width": 16, **options.pop("readout", {})})
    return toy_model(tokenizer, shape, readout=readout, freeze_backbone=True, **options)


def cached(model: RewardModel, groups: Sequence[Group], **options: Any) -> FeatureModel:
    settings: dict[str, Any] = {"dtype": "float32", "precision": "float32", "budget": 512, "instead": ""}
    return FeatureModel(model, cached_features(model, groups, **settings | options))


def groups_of(model: RewardModel, count: int, seed: int = 0) -> list[Group]:
    return [example.group for example in examples_of(model, pairs(count, seed)).items]


def refuse(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("the backbone ran")


@pytest.mark.parametrize(("shape", "name"), [case(*of, slow=True) for of in CASES])
def test_training_from_the_cache_is_training_through_the_backbone(
    shape: dict[str, Any], name: str, tokenizer: Path, tmp_path: Path
) -> None:
    """The same losses, evaluations and final weights to 1e-5, over two epochs."""
    through, on = frozen(tokenizer, shape, name), frozen(tokenizer, shape, name)
    before = weights_of(on)
    sets = [examples_of(on, records) for records in (pairs(24), pairs(10, seed=5))]
    features = on_features(on, sets, dtype="float32", precision="float32", budget=None)
    on.states = refuse  # type: ignore[method-assign]
    lines = []
    for model, folder in ((through, tmp_path / "through"), (features, tmp_path / "features")):
        # Adam would make whole steps of a gradient that is only rounding: BERT's pooled states differ that little.
        trainer = toy_trainer(model, pairs(24), folder, held_out=pairs(10, seed=5), epochs=2, adam_epsilon=1e-3)
        assert run_training(trainer, resume=False)
        lines.append(history(folder))
    assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
    assert len(lines[0]) == 12 + 3
    for one, other in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one.get("accuracy") == other.get("accuracy")
    for key, weight in weights_of(through).items():
        assert torch.allclose(weight, weights_of(on)[key], atol=1e-5)
        trained = key.startswith(("readout.", "network.score."))
        assert torch.equal(weight, before[key]) != trained


@pytest.mark.slow
def test_killed_while_training_and_resumed_on_features(tokenizer: Path, tmp_path: Path) -> None:
    """The same bits as in one go, since a killed training finds all states."""

    def make(folder: Path) -> tuple[RewardModel, Any]:
        model = frozen(tokenizer, name="pooled-encoder")
        sets = [examples_of(model, records) for records in (pairs(24), pairs(10, seed=5))]
        features = on_features(model, sets, dtype="float32", precision="float32", budget=None)
        return model, toy_trainer(features, pairs(24), folder, held_out=pairs(10, seed=5), epochs=2, save_steps=3)

    whole, trainer = make(tmp_path / "whole")
    assert run_training(trainer, resume=False)
    _, trainer = make(tmp_path / "killed")
    trainer.training_step = on_call(trainer.training_step, 8, kill)
    with pytest.raises(Killed):
        run_training(trainer, resume=False)
    resumed, trainer = make(tmp_path / "killed")
    assert run_training(trainer, resume=True)
    assert same_weights(weights_of(whole), weights_of(resumed))
    assert history(tmp_path / "whole") == history(tmp_path / "killed")


@pytest.mark.parametrize(("shape", "name"), [case(*of, slow=False) for of in CASES])
def test_rewards_are_those_of_every_sequence_alone(shape: dict[str, Any], name: str, tokenizer: Path) -> None:
    """Whatever is cached together, and in whatever order it is asked for."""
    model = frozen(tokenizer, shape, name).eval()
    groups = groups_of(model, 12)
    features = cached(model, groups, budget=128)
    asked = [groups[7], groups[2].part([1]), groups[0], groups[7]]
    with torch.no_grad():
        alone = [model([Group((), (ids,))]) for group in asked for ids in group.sequences()]
        assert torch.allclose(features(asked), torch.cat(alone), atol=1e-5)


def settings(tokenizer: Path, folder: Path, **changes: Any) -> RewardTraining:
    write_pairs(folder / "train.jsonl", pairs(40))
    write_pairs(folder / "val.jsonl", pairs(12, seed=5))
    values: dict[str, Any] = {
        "model": {"shape": LLAMA, "tokenizer": str(tokenizer)},
        "encoding": ENCODING.model_dump(),
        "train": [str(folder / "train.jsonl")],
        "validation": {"val": str(folder / "val.jsonl")},
        "freeze_backbone": True,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "precision": "float32",
        "device": "cpu",
    }
    return RewardTraining.build(values | changes)


def trained(config: RewardTraining, root: Path, name: str) -> tuple[TrainedReward, Path]:
    with Run.create(config, verb="train reward", root=root, name=name) as run:
        return train_reward(config, run), run.folder


def caching(tokenizer: Path, folder: Path, **changes: Any) -> FeatureCaching:
    """The states that `settings` trains on."""
    training = settings(tokenizer, folder)
    values = {
        "model": training.model.model_dump(exclude_none=True),
        "encoding": training.encoding.model_dump(),
        "data": [str(folder / "train.jsonl"), str(folder / "val.jsonl")],
        "precision": "float32",
        "device": "cpu",
    }
    return FeatureCaching.build(values | changes)


def cache(config: FeatureCaching, root: Path, name: str = "features") -> CachedFeatures:
    with Run.create(config, verb="data features", root=root, name=name) as run:
        return cache_features(config, run)


def home(tmp_path: Path) -> Path:
    """The folder of features; `REWARDLAB_HOME` is `home` in all tests."""
    return tmp_path / "home" / "features"


def test_train_reward_keeps_features_and_saves_the_whole_model(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off, folder_off = trained(settings(tokenizer, tmp_path, features="off"), tmp_path, "off")
    assert off.summary["features"] is None
    assert not home(tmp_path).exists()
    on, folder = trained(settings(tokenizer, tmp_path), tmp_path, "on")
    assert on.summary["features"]["sequences"] == on.summary["features"]["computed"] == 104
    for one, other in zip(read_jsonl(folder_off / "history.jsonl"), read_jsonl(folder / "history.jsonl"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    models = [load_reward_model(result.model) for result in (off, on)]
    groups = groups_of(models[0], 6, seed=9)
    with torch.no_grad():
        assert torch.allclose(models[0](groups), models[1](groups), atol=1e-5)
    log = (folder / "run.log").read_text()
    # A row of 32 float32 numbers and a digest of 16 bytes.
    assert "features: the other 104 take 15.0 kB on the disk, which has " in log
    again, _ = trained(settings(tokenizer, tmp_path, seed=0, learning_rate=1e-3, epochs=2), tmp_path, "again")
    assert again.summary["features"] == on.summary["features"] | {"computed": 0}


def test_the_verb_makes_what_training_uses(tokenizer: Path, tmp_path: Path) -> None:
    """Other widths of the readout read the same states; repeated and overlapping data are run once."""
    readout = {"name": "pooled-encoder", "layers": 3, "width": 8}
    model = {"shape": LLAMA, "tokenizer": str(tokenizer), "readout": readout}
    config = caching(tokenizer, tmp_path, model=model)
    made = cache(config, tmp_path)
    assert (made.features.sequences, made.features.computed) == (104, 104)
    assert made.lines()[0] == "104 sequences of 3 x 32 numbers (41.6 kB)."
    assert made.lines()[2] == f"Features: {made.features.store.folder}"
    again = cache(config.model_copy(update={"data": [*config.data, *config.data]}), tmp_path, "again")
    assert (again.features.sequences, again.features.computed) == (104, 0)
    wider = settings(tokenizer, tmp_path, model=model | {"readout": readout | {"width": 16}})
    result, _ = trained(wider, tmp_path, "training")
    assert result.summary["features"]["computed"] == 0
    assert result.summary["features"]["key"] == read_json(tmp_path / "again" / "summary.json")["key"]
    assert [path.name for path in home(tmp_path).iterdir()] == [result.summary["features"]["key"]]


def test_only_what_is_new_is_computed(tokenizer: Path) -> None:
    model = frozen(tokenizer)
    first, second = groups_of(model, 20), groups_of(model, 30)
    assert cached(model, first).features.computed == 40
    features = cached(model, second).features
    assert (features.sequences, features.computed) == (60, 20)
    assert torch.equal(
        features.store.read(sequence_digests(first[3])),
        cached(model, first).features.store.read(sequence_digests(first[3])),
    )


Change = Callable[[RewardModel], Any]


def _nudge(part: str) -> Change:
    """One number of a weight, by one unit in its last place."""

    def change(model: RewardModel) -> None:
        weight = dict(model.named_parameters())[part].detach().view(-1)
        weight[3] = torch.nextafter(weight[3], torch.tensor(torch.inf))

    return change


def _set(name: str, value: Any) -> Change:
    return lambda model: setattr(model.plain_network.config, name, value)


@pytest.mark.parametrize(
    "change",
    [_nudge("network.layers.1.mlp.up_proj.weight"), _nudge("network.norm.weight"), _set("rms_norm_eps", 1e-5)],
)
def test_another_backbone_has_another_key(change: Change, tokenizer: Path) -> None:
    model = frozen(tokenizer, name="mean")
    before = content_id(feature_facts(model, "float32", "float32"))
    assert content_id(feature_facts(frozen(tokenizer, name="mean"), "float32", "float32")) == before
    change(model)
    assert content_id(feature_facts(model, "float32", "float32")) != before


def test_the_key_knows_what_is_read_and_how(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(dtype: Any = "float32", precision: str = "float32", **options: Any) -> str:
        return content_id(feature_facts(frozen(tokenizer, **{"name": "pooled-encoder"} | options), dtype, precision))

    keys = [
        key(),
        key(dtype="bfloat16"),
        key(precision="bfloat16"),
        key(layout="flat"),
        key(readout={"layers": 1}),
        key(name="mean"),
        key(seed=2),  # of a shape's weights
    ]
    assert key(readout={"width": 8}) == key(readout={"hidden": [4]}) == keys[0]
    monkeypatch.setattr(feature_key, "version", lambda name: "0.1")
    keys.append(key())
    monkeypatch.setattr(feature_key, "code_key", lambda name: "other code")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_code_that_came_with_a_checkpoint_counts(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own" / "modeling.py"
    file.parent.mkdir()
    module = types.ModuleType("transformers_modules.own")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    model = frozen(tokenizer, name="mean")
    kind = type(model.network)
    model.network.__class__ = type(kind.__name__, (kind,), {"__module__": module.__name__})
    keys = []
    for code in ("scale = 1", "scale = 2", "scale = 1"):
        file.write_text(code)
        keys.append(content_id(feature_facts(model, "float32", "float32")))
    assert keys[0] == keys[2] != keys[1]


def test_a_pooler_that_nobody_reads_is_no_part_of_the_key(tokenizer: Path) -> None:
    model = frozen(tokenizer, BERT, "mean")
    before = feature_facts(model, "float32", "float32")
    _nudge("network.pooler.dense.weight")(model)
    assert feature_facts(model, "float32", "float32") == before


def test_sequences_are_told_apart_by_ids_and_segments() -> None:
    ids = (5, 6, 7)
    groups = [
        Group((), (ids,)),
        Group((), (ids,), ((0, 0, 1),)),
        Group((), (ids,), ((0, 1, 1),)),
        Group((), ((5, 6), (7,))),
        Group((), ((5, 6, 7, 0, 0, 1),)),
    ]
    digests = [digest for group in groups for digest in sequence_digests(group)]
    assert len(set(digests)) == 6
    assert sequence_digests(Group((5,), ((6, 7), (6,)))) == sequence_digests(Group((), ((5, 6, 7), (5, 6))))


def test_a_stored_dtype_loses_what_it_cannot_hold_and_no_more(tokenizer: Path) -> None:
    """bfloat16 has 8 significant bits, float16 11: half a unit in the last place of each number."""
    model = frozen(tokenizer)
    groups = groups_of(model, 10)
    digests = [digest for group in groups for digest in sequence_digests(group)]
    exact = cached(model, groups).features.store.read(digests)
    for dtype, bits in (("bfloat16", 8), ("float16", 11)):
        stored = cached(model, groups, dtype=dtype).features.store.read(digests).float()
        assert 0 < ((stored - exact).abs() / exact.abs()).max() <= 2.0**-bits


def test_states_that_do_not_fit_the_dtype_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    model = frozen(tokenizer)
    states = model.states
    model.states = lambda groups: states(groups) * 1e5  # type: ignore[method-assign]
    groups = groups_of(model, 4)
    with pytest.raises(ModelError, match=r"no numbers in float16 .*Store them in bfloat16 or float32") as told:
        cached(model, groups, dtype="float16")
    assert "largest number" in str(told.value)
    assert list(home(tmp_path).rglob("*.safetensors")) == []
    cached(model, groups, dtype="bfloat16")
    model.states = lambda groups: states(groups) / 0  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"Compute in float32"):
        cached(model, groups_of(model, 4, seed=7))


def test_readouts_of_every_token_train_through_the_backbone(tokenizer: Path, tmp_path: Path) -> None:
    model = {
        "shape": LLAMA,
        "tokenizer": str(tokenizer),
        "readout": {"name": "full-attention", "layers": 2, "width": 8},
    }
    result, folder = trained(settings(tokenizer, tmp_path, model=model), tmp_path, "live")
    assert result.summary["features"] is None
    assert "features: none are kept" in (folder / "run.log").read_text()
    with pytest.raises(ConfigError, match="full-attention"):
        cache(caching(tokenizer, tmp_path, model=model), tmp_path)
    assert not home(tmp_path).exists()


def test_a_trained_backbone_has_no_features(tokenizer: Path, tmp_path: Path) -> None:
    result, _ = trained(settings(tokenizer, tmp_path, freeze_backbone=False), tmp_path, "run")
    assert result.summary["features"] is None
    assert not home(tmp_path).exists()


def test_the_disk_is_asked_before_anything_is_computed(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """104 rows of 144 bytes are 14,976."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 14_975))
    monkeypatch.setattr(module, "_compute", refuse)
    with pytest.raises(RunError, match=r"15\.0 kB free, for 104 rows that take 15\.0 kB.*--features off"):
        trained(settings(tokenizer, tmp_path), tmp_path, "run")
    assert not home(tmp_path).exists()
    trained(settings(tokenizer, tmp_path, features="off"), tmp_path, "off")


def test_memory_that_runs_out_halves_the_micro_batches(
    tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = frozen(tokenizer, layout="flat")
    states, groups = model.states, groups_of(model, 30)
    longest = max(group.longest for group in groups)

    def within(asked: Sequence[Group]) -> torch.Tensor:
        if sum(len(group.branches) for group in asked) * max(group.longest for group in asked) > 3 * longest:
            raise torch.OutOfMemoryError("out of memory")
        return states(asked)

    model.states = within  # type: ignore[method-assign]
    features = cached(model, groups, budget=4096)
    assert features.features.computed == 60
    assert "out of memory: repeated with" in caplog.text
    with torch.no_grad():
        model.states = states  # type: ignore[method-assign]
        assert torch.allclose(features(groups), model(groups), atol=1e-5)
        model.states = lambda asked: (_ for _ in ()).throw(MemoryError())  # type: ignore[method-assign]
        with pytest.raises(ModelError, match="one sequence of"):
            cached(model, groups_of(model, 3, seed=9))


def test_progress_knows_the_tokens_that_are_left(tokenizer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = frozen(tokenizer, layout="flat")
    groups = groups_of(model, 10)
    tokens = sum(len(ids) for group in groups for ids in group.sequences())
    cached(model, groups)
    last = capfd.readouterr().err.split("\r")[-1]
    assert last.startswith("features: 100%")
    assert f"{tokens}/{tokens}" in last.replace(".0", "")
    assert "token/s" in last


KILLED = """
import sys
from rewardlab.cli.main import main
from rewardlab.models import features

features.SHARD_SEQUENCES = 2
sys.exit(main(["data", "features", "--config", sys.argv[1], "--run", "killed"]))
"""


def test_killed_while_computing_and_gone_on_with(tokenizer: Path, tmp_path: Path) -> None:
    """kill -9 after the first shard; the rest is computed here, and all of it is what a backbone gives."""
    config = caching(tokenizer, tmp_path)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "config.yaml")],
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    while process.poll() is None and not list(home(tmp_path).glob("*/[0-9a-f]*.safetensors")):
        time.sleep(0.001)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    found = cache(config, tmp_path).features
    assert 0 < found.computed < 104
    model = frozen(tokenizer, seed=config.seed).eval()
    groups = groups_of(model, 40) + groups_of(model, 12, seed=5)
    with torch.no_grad():
        assert torch.allclose(FeatureModel(model, found)(groups), model(groups), atol=1e-5)
    assert list(found.store.folder.glob(".unfinished*")) == []


def test_a_sequence_that_is_not_cached_is_no_zero(tokenizer: Path) -> None:
    model = frozen(tokenizer)
    groups = groups_of(model, 4)
    features = cached(model, groups)
    other = replace(groups[0], branches=(groups[0].branches[0], (5, 5, 5)))
    with pytest.raises(KeyError):
        features([other])
