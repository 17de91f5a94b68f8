"""Policies trained beside quantised weights, by a stand-in without a package, and by bitsandbytes where it is there.

The stand-in rounds the weights of all linear layers but the output layer to 32nds, and says so as transformers does.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_toys import WIDER, train
from safetensors import safe_open
from test_train_policies import lines, start
from test_train_ppo import LEARNS, ppo
from test_train_ppo import lines as ppo_lines
from toys import Killed, kill, on_call, pairs
from transformers import AutoModelForCausalLM
from transformers.utils import is_bitsandbytes_available

from rewardlab.data.layout import share_prompt
from rewardlab.errors import ConfigError, ModelError
from rewardlab.models.policies import load_policy, new_policy, save_policy
from rewardlab.models.references import reference_facts
from rewardlab.models.source import LoRA, ModelSource
from rewardlab.store.files import read_json
from rewardlab.train import policy_run
from rewardlab.train.ppo import PPOTraining
from rewardlab.train.preference import DPOTraining, EXOTraining
from rewardlab.train.sft import SFTTraining
from rewardlab.train.trainer import GroupTrainer

pytest.importorskip("peft")

SHAPE = {**WIDER, "hidden_size": 64, "intermediate_size": 128}
"""Products of 64 inputs, a block of 4-bit weights."""
ROUNDED = {"quant_method": "fp8"}
"""Known to transformers, and what the stand-in takes the place of."""
needs_package = pytest.mark.skipif(not is_bitsandbytes_available(), reason="needs the extra quantisation")
BITS = [pytest.param(ROUNDED, id="stand-in"), pytest.param("8bit", id="8bit", marks=needs_package)]
# Products in float32: not every CPU has those in bf16.
FOUR = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}
ALL_BITS = [*BITS, pytest.param(FOUR, id="4bit", marks=needs_package)]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = AutoModelForCausalLM.from_pretrained

    def rounded(*given: Any, quantization_config: Any = None, **options: Any) -> Any:
        few_bits = {} if quantization_config is None else {"quantization_config": quantization_config}
        if not few_bits or few_bits["quantization_config"].quant_method != "fp8":
            return real(*given, **options, **few_bits)
        network, info = real(*given, **options)
        with torch.no_grad():
            for part in network.base_model.modules():
                if isinstance(part, torch.nn.Linear):
                    part.weight.copy_((part.weight * 32).round() / 32)
        network.config.quantization_config = quantization_config.to_dict()
        return network, info

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", rounded)
    with warnings.catch_warnings():
        # Those of packages of others.
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def base(tokenizer: Path, tmp_path: Path) -> str:
    return start(tokenizer, tmp_path / "base", shape=SHAPE)


def few(base: str, bits: Any) -> dict[str, Any]:
    return {"model": {"path": base, "quantisation": bits}, "lora": {"r": 4}}


def weights_of(folder: Path) -> set[str]:
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return set(file.keys())


def log_probabilities(model: Any) -> torch.Tensor:
    groups = [share_prompt([1, 5, 6], [[7, 8, 9, 2], [10, 2]]), share_prompt([1, 20], [[21, 22, 2]])]
    with torch.no_grad():
        return torch.cat([model([one]) for one in groups])


@pytest.mark.parametrize("bits", ALL_BITS)
def test_sft_learns_and_leaves_the_adapter_which_is_the_policy_beside_the_same_base(
    tokenizer: Path, base: str, tmp_path: Path, bits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    kept: dict[str, torch.Tensor] = {}

    def saved(model: Any, folder: Path, **options: Any) -> None:
        was_training = model.training
        # On a CPU bitsandbytes rounds activations in evaluation alone.
        kept[folder.name] = log_probabilities(model.eval())
        model.train(was_training)
        save_policy(model, folder, **options)

    monkeypatch.setattr(policy_run, "save_policy", saved)
    settings = few(base, bits) | {"epochs": 3, "learning_rate": 2e-2, "checkpoints": 1, "keep_best": True}
    train("train sft", tokenizer, run, pairs(24), **settings)
    found = lines(run)
    assert found[-1]["loss"] < found[0]["loss"] - 1
    for folder in (run / "model", run / "policies" / "step-000009"):
        assert {".lora_" in name for name in weights_of(folder)} == {True}
        assert not (folder / "model.safetensors").exists()
        assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == base
        beside = log_probabilities(load_policy(folder, quantisation=bits))
        torch.testing.assert_close(beside, kept[folder.name], rtol=0, atol=1e-5)
        # Beside whole weights it is another policy, but for the rounding that it was trained with the same.
        whole = log_probabilities(load_policy(folder))
        assert 1e-4 < (whole - beside).abs().max() < 0.1 * (whole - log_probabilities(load_policy(base))).abs().max()
    (checkpoint, *_) = (run / "checkpoints").glob("checkpoint-*/trained.safetensors")
    with safe_open(checkpoint, "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118


def test_a_training_that_was_killed_goes_on(
    tokenizer: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = few(base, ROUNDED) | {"epochs": 2, "evaluations_per_epoch": 1}
    train("train sft", tokenizer, tmp_path / "whole", pairs(24), **settings)
    with monkeypatch.context() as patch:
        patch.setattr(GroupTrainer, "training_step", on_call(GroupTrainer.training_step, 5, kill))
        with pytest.raises(Killed):
            train("train sft", tokenizer, tmp_path / "run", pairs(24), **settings)
    train("train sft", tokenizer, tmp_path / "run", pairs(24), resume=True, **settings)
    expected, found = ([line["loss"] for line in lines(tmp_path / name)] for name in ("whole", "run"))
    assert found == expected
    assert len(found) == 6


@pytest.mark.parametrize("bits", BITS)
def test_dpo_begins_at_the_base_whose_references_are_its_own(
    tokenizer: Path, base: str, tmp_path: Path, bits: Any
) -> None:
    settings = few(base, bits) | {"epochs": 3, "learning_rate": 2e-2}
    train("train dpo", tokenizer, tmp_path / "run", pairs(24), **settings)
    found = lines(tmp_path / "run")
    # In 8 bits a sequence's log-probability depends a little on what stands beside it.
    assert abs(found[0]["margin"]) < (1e-2 if bits == "8bit" else 1e-5)
    assert found[-1]["loss"] < found[0]["loss"] - 0.2
    computed = {}
    for name, model in (("again", settings["model"]), ("whole", base)):
        train("train dpo", tokenizer, tmp_path / name, pairs(24), **settings | {"model": model, "epochs": 1})
        computed[name] = read_json(tmp_path / name / "summary.json")["reference"]["computed"]
    assert computed == {"again": 0, "whole": 48}


@pytest.mark.parametrize("bits", BITS)
def test_ppo_learns_from_the_base_on(tokenizer: Path, base: str, tmp_path: Path, bits: Any) -> None:
    run, held_out = tmp_path / "run", tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "quiet metal: "}\n', encoding="utf-8")
    own = LEARNS | {"learning_rate": 2e-2, "baseline": "rloo", "samples": 4}
    own |= {"validation": [str(held_out)], "evaluate_every": 5, "save_every": 10, "checkpoints": 1}
    ppo(tokenizer, run, **own, **few(base, bits))
    found = ppo_lines(run)
    assert abs(found[0]["kl"]) < 1e-2 < found[-1]["kl"]
    assert found[-1]["score"] > found[0]["score"] + 2
    for folder in (run / "model", run / "best", run / "policies" / "step-000010"):
        assert all(".lora_" in name for name in weights_of(folder))
        assert not (folder / "model.safetensors").exists()
    with safe_open(run / "checkpoints" / "checkpoint-10" / "trained.safetensors", "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize("bits", ALL_BITS)
def test_references_are_kept_by_what_they_hang_on(base: str, tmp_path: Path, bits: Any) -> None:
    """By the rounding, by what rounded weights are scaled by, and by adapters that run beside them."""
    model = new_policy(ModelSource(path=base, quantisation=bits), None, seed=0, lora=LoRA(r=2))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.1)
    save_policy(model, tmp_path / "adapter")
    loaded = load_policy(base, quantisation=bits)
    assert reference_facts(model, "float32") == reference_facts(loaded, "float32")
    with model.without_adapters():
        torch.testing.assert_close(log_probabilities(model), log_probabilities(loaded), rtol=0, atol=1e-5)
    # Integers of 8 bits stay the same where a row is twice as large.
    network = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        network.model.layers[0].mlp.up_proj.weight.mul_(2.0)
    shutil.copytree(base, tmp_path / "larger")
    network.save_pretrained(tmp_path / "larger")
    others = [load_policy(base), *(load_policy(tmp_path / name, quantisation=bits) for name in ("larger", "adapter"))]
    facts = [reference_facts(one, "float32") for one in (loaded, *others)]
    assert all(one != other for place, one in enumerate(facts) for other in facts[:place])


def test_adapters_without_a_base_to_name_are_refused(tokenizer: Path, base: str, tmp_path: Path) -> None:
    adapted = new_policy(ModelSource(path=base), None, seed=0, lora=LoRA(r=2))
    save_policy(adapted, tmp_path / "adapter", merge=False)
    shutil.copytree(base, tmp_path / "grown")
    # Beyond the rows that the model has.
    adapted.tokenizer.add_tokens([f"zebra{number}" for number in range(400)])
    adapted.tokenizer.save_pretrained(tmp_path / "grown")
    for name in ("adapter", "grown"):
        with pytest.raises(ModelError, match="expected whole weights, a row for every token"):
            train("train sft", tokenizer, tmp_path / "run" / name, pairs(8), **few(str(tmp_path / name), ROUNDED))


@needs_package
def test_weights_that_are_stored_the_other_way_round_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    gpt2 = {"model_type": "gpt2", "vocab_size": 400, "n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 128}
    base = start(tokenizer, tmp_path / "base", shape=gpt2)
    with pytest.raises(ModelError, match="which keeps its weights the other way round"):
        new_policy(ModelSource(path=base, quantisation="8bit"), None, seed=0, lora=LoRA(r=2))


@pytest.mark.parametrize("verb", [SFTTraining, DPOTraining, EXOTraining, PPOTraining])
def test_whole_training_of_few_bits_is_refused(verb: Any) -> None:
    model = {"path": "m", "quantisation": "8bit"}
    with pytest.raises(ConfigError, match=r"expected lora beside model\.quantisation"):
        verb.build({"model": model, "train": ["x.jsonl"]})
    assert verb.build({"model": model, "train": ["x.jsonl"], "lora": {}}).model.quantisation == "8bit"
