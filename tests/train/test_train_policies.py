"""train sft, train dpo, train exo: losses by other means, what is left behind, references, resuming."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_toys import ENCODING, T5, WIDER, policy, train
from ranks import run_ranks
from safetensors.torch import load_file
from toys import Killed, candidates, history, kill, on_call, pairs
from transformers import AutoModelForCausalLM

from rewardlab.data.turns import PolicyEncoder
from rewardlab.errors import ConfigError, ModelError
from rewardlab.functional.objectives import OBJECTIVES
from rewardlab.models.policies import load_policy, save_policy
from rewardlab.records import Pair, Prompt, Record
from rewardlab.store.files import read_json
from rewardlab.train.completions import Grouping, policy_examples, preference_examples, with_references
from rewardlab.train.policy_objectives import Alignment
from rewardlab.train.policy_run import kept_steps
from rewardlab.train.preference import DPOTraining, EXOTraining
from rewardlab.train.trainer import GroupTrainer


def lines(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return [line for line in history(folder) if line["split"] == split]


def start(tokenizer: Path, folder: Path, **options: Any) -> str:
    save_policy(policy(tokenizer, **options), folder)
    return str(folder)


def nats(network: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    """Log-probability of a completion by transformers alone."""
    row = torch.tensor([[*prompt, *completion]])
    logits = network(input_ids=row).logits[:, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(-1, row[:, len(prompt) :, None]).sum()


# --- sft ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_prompts", [False, True])
def test_the_loss_is_the_mean_over_the_tokens_of_the_step(tokenizer: Path, tmp_path: Path, *, on_prompts: bool) -> None:
    """By the labels of transformers: one batch, padding at -100, and prompts unless they are learned."""
    records = pairs(9)
    model = start(tokenizer, tmp_path / "start")
    settings = {"model": model, "validation_share": 0.1, "token_budget": 64, "on_prompts": on_prompts}
    train("train sft", tokenizer, tmp_path / "run", records, **settings)
    first, second = lines(tmp_path / "run")[0], lines(tmp_path / "run", "val")[-1]

    network = AutoModelForCausalLM.from_pretrained(model)
    encoder = PolicyEncoder(load_policy(model).tokenizer, ENCODING)
    prompts = encoder.prompts([record.prompt for record in records])
    texts = encoder.completions(
        [record.prompt for record in records], [[record.chosen] for record in records], [[True]] * 9
    )
    rows = [(prompt.ids, own[0].ids) for prompt, own in zip(prompts, texts, strict=True)]
    assert read_json(tmp_path / "run" / "summary.json")["counts"]["train"]["used"] == 8
    width = max(len(prompt) + len(text) for prompt, text in rows)
    labels = torch.full((9, width), -100)
    ids = torch.zeros(9, width, dtype=torch.long)
    for row, (prompt, text) in enumerate(rows):
        ids[row, : len(prompt) + len(text)] = torch.tensor([*prompt, *text])
        learned = 0 if on_prompts else len(prompt)
        labels[row, learned : len(prompt) + len(text)] = ids[row, learned : len(prompt) + len(text)]
    losses = [
        network(input_ids=ids[kept], labels=labels[kept]).loss.item()
        for kept in ([row for row in range(9) if row != out] for out in range(9))
    ]
    assert min(abs(loss - first["loss"]) for loss in losses) < 1e-5, "one of the nine is held out"
    # transformers drops the first label of a row, which nothing predicts.
    assert first["tokens"] + second["tokens"] == (labels[:, 1:] != -100).sum()


def test_an_encoder_decoder_does_not_learn_prompts(tokenizer: Path, tmp_path: Path) -> None:
    model = {"shape": T5, "tokenizer": str(tokenizer)}
    with pytest.raises(ConfigError, match=r"on_prompts: found true, of an encoder-decoder"):
        train("train sft", tokenizer, tmp_path / "run", pairs(9), model=model, on_prompts=True)


def test_every_example_that_fills_the_window_trains(tokenizer: Path, tmp_path: Path) -> None:
    """The prompt fills its part and the completion its own: all of the completion's tokens count."""
    records: list[Record] = [Pair(Prompt.of_text(f"river {n} " * 60), f"stone {n} " * 60, "no") for n in range(5)]
    train("train sft", tokenizer, tmp_path / "run", records, epochs=8)
    found = lines(tmp_path / "run")
    assert {line["tokens"] for line in found} == {4 * ENCODING.max_completion_tokens}
    assert all(line["grad_norm"] > 0 for line in found)
    assert found[-1]["loss"] < found[0]["loss"] - 1
    assert read_json(tmp_path / "run" / "summary.json")["counts"]["train"]["truncated_completions"] == 4


def test_the_policy_of_the_least_loss_is_kept_and_training_stops_after_it(tokenizer: Path, tmp_path: Path) -> None:
    """A rate at which the loss soon rises: the folder has the weights of the best step, and few steps follow it."""
    more: dict[str, Any] = {
        "learning_rate": 0.3,
        "schedule": "constant_with_warmup",
        "warmup_share": 0.3,
        "evaluations_per_epoch": 4,
    }
    more |= {"epochs": 3, "early_stopping": 2, "keep_best": True, "validation_share": 0.1}
    board = {"report_to": ["tensorboard"]}
    found = train("train sft", tokenizer, tmp_path / "run", pairs(36), checkpoints=15, **board, **more)
    summary = found.summary
    losses = {line["step"]: line["loss"] for line in lines(tmp_path / "run", "val")}
    best = min(losses, key=lambda step: losses[step])
    assert summary["kept"] == summary["best"]["step"] == best < summary["steps"] < 12
    assert sorted(losses)[-3:] == [best, *sorted(step for step in losses if step > best)]
    names = ("model", f"policies/step-{best:06d}")
    kept, along = (load_file(tmp_path / "run" / name / "model.safetensors") for name in names)
    assert all(torch.equal(kept[name], along[name]) for name in kept)
    assert found.lines()[-1].endswith(f"model, of step {best}")
    # One of the end alone: that of a planned step is never reached.
    train("train sft", tokenizer, tmp_path / "few", pairs(36), checkpoints=1, **more)
    (end,) = (tmp_path / "few" / "policies").iterdir()
    assert end.name == f"step-{summary['steps']:06d}"
    last, same, stale = (
        load_file(at / "model.safetensors")
        for at in (end, tmp_path / "run/policies" / end.name, end.parent.parent / "model")
    )
    assert all(torch.equal(last[name], same[name]) for name in last)
    assert not all(torch.equal(last[name], stale[name]) for name in last), "the best is another"
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {one.step: pytest.approx(one.value) for one in shown.Scalars("val/loss")} == losses


def test_all_that_does_not_fit_is_said_at_once(tokenizer: Path) -> None:
    model = {"path": "policy", "quantisation": "8bit"}
    with pytest.raises(ConfigError) as error:
        DPOTraining.build({"model": model, "train": ["x.jsonl"], "objective": "simpo", "report_to": ["tensorbord"]})
    said = str(error.value)
    assert all(words in said for words in ("quantisation", "gamma", "tensorbord", 'Did you mean "tensorboard"'))


# --- alignment ----------------------------------------------------------------------------------------------------

PUBLISHED = {"dpo-pref": math.log(2), "exo-pref": 2.7612, "hinge": 1.0, "exo-pref-published": 4.3069, "ipo": 25.0}
"""Losses at h = 0: the specification's, and 1/(2 beta)^2 with beta .1."""


QUICK = ("dpo-pref", "exo-pref")


@pytest.mark.parametrize(
    "objective", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
)
def test_before_the_first_step_policy_and_reference_are_one(tokenizer: Path, tmp_path: Path, objective: str) -> None:
    verb = "train exo" if objective.startswith("exo") else "train dpo"
    train(verb, tokenizer, tmp_path / "run", pairs(12), objective=objective, beta=0.1, token_budget=96)
    first = lines(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(PUBLISHED[objective], abs=1e-4)
    for name in ("margin", "chosen_reward", "rejected_reward"):
        assert abs(first[name]) < 1e-5


@pytest.mark.parametrize("shape", [pytest.param("llama", marks=pytest.mark.slow), "t5"])
def test_dropout_of_the_checkpoint_is_off(tokenizer: Path, tmp_path: Path, shape: str) -> None:
    fields = T5 if shape == "t5" else WIDER | {"attention_dropout": 0.3}
    model = {"shape": fields, "tokenizer": str(tokenizer)}
    train("train dpo", tokenizer, tmp_path / "run", pairs(20), model=model, epochs=3, learning_rate=1e-2)
    found = lines(tmp_path / "run")
    assert abs(found[0]["margin"]) < 1e-5
    assert found[-1]["loss"] < found[0]["loss"] - 0.05


def test_losses_and_gradients_of_ragged_candidates_by_hand(tokenizer: Path, tmp_path: Path) -> None:
    """exo-rw over three candidates and two, from log-probabilities of transformers, with plain softmaxes."""
    from rewardlab.models.references import cached_references

    reference = policy(tokenizer, seed=5)
    path = start(tokenizer, tmp_path / "policy")
    model, network = load_policy(path), AutoModelForCausalLM.from_pretrained(path)
    grouping = Grouping(pairs=False, size=None, choice="consecutive")
    examples = preference_examples([*candidates(1, 3), *candidates(1, 2, seed=4)], model, "train", grouping)
    cached = cached_references(reference, [one.group for one in examples.items], precision="float32")
    items = with_references(examples, cached).items
    objective = Alignment(OBJECTIVES["exo-rw"], {"beta": 0.3, "reward_beta": 0.7})

    expected = []
    for example in policy_examples(items):
        start_at = example.group.start
        own = [(ids[:start_at], ids[start_at:]) for ids in example.group.sequences()]
        ratios = torch.stack([nats(network, *ids) - nats(reference.network, *ids).detach() for ids in own])
        q = torch.softmax(0.3 * ratios, 0)
        p = torch.softmax(torch.tensor(example.targets) / 0.7, 0)
        expected.append((q * (q / p).log()).sum())
    values = model([example.group for example in items])
    found = objective.losses("preference", values, items)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
    found.sum().backward()
    torch.stack(expected).sum().backward()
    for (name, weight), other in zip(model.network.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_implicit_rewards_by_hand(tokenizer: Path) -> None:
    model = policy(tokenizer)
    grouping = Grouping(pairs=False, size=None, choice="consecutive")
    examples = preference_examples(candidates(2, 3), model, "train", grouping).items
    filled = [example.part([0, 1, 2]) for example in policy_examples(examples)]
    filled = [type(one)(one.group, one.targets, reference=(1.0, 1.0, 1.0)) for one in filled]
    # Rewards 0, 1, 2; the first prompt is ordered as they are, of the second two of three pairs are.
    values = torch.tensor([2.0, 3.0, 5.0, 4.0, 3.0, 9.0])
    found = Alignment(OBJECTIVES["exo-rw"], {"beta": 0.5, "reward_beta": 1.0}).measures("preference", values, filled)
    assert found == pytest.approx(
        {"accuracy": (1 + 2 / 3) / 2, "chosen_reward": 3.0, "rejected_reward": 1.0, "margin": 2.0}
    )


LEARNING: list[tuple[str, dict[str, Any]]] = [
    ("train dpo", {}),
    ("train exo", {"objective": "exo-rw", "reward_beta": 0.5}),
    ("train dpo", {"objective": "simpo", "gamma": 0.5, "beta": 2.0}),
    ("train dpo", {"per_token": True, "beta": 1.0}),
]


@pytest.mark.parametrize(
    ("verb", "settings"), [("train exo", {}), *(pytest.param(*case, marks=pytest.mark.slow) for case in LEARNING)]
)
def test_a_planted_preference_is_learned(tokenizer: Path, tmp_path: Path, verb: str, settings: dict[str, Any]) -> None:
    train(verb, tokenizer, tmp_path / "run", pairs(80), epochs=3, validation_share=0.3, **settings)
    last = lines(tmp_path / "run", "val")[-1]
    assert last["accuracy"] >= 0.85, last
    assert last["margin"] > 0.3


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "settings", [{"token_budget": 64}, pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow)]
)
def test_what_bounds_memory_changes_no_result(tokenizer: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Eight candidates of up to 30 tokens: groups are cut in parts, whose gradients go through the loss of all."""
    common = {"objective": "exo-rw", "token_budget": 8192, "learning_rate": 1e-3}
    train("train exo", tokenizer, tmp_path / "whole", candidates(20, 8), **common)
    train("train exo", tokenizer, tmp_path / "parts", candidates(20, 8), **common | settings)
    expected, found = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    for line, other in zip(found, expected, strict=True):
        numbers = [key for key in other if key != "split"]
        assert [line[key] for key in numbers] == pytest.approx([other[key] for key in numbers], rel=1e-4, abs=1e-5)
    assert expected[0]["grad_norm"] > 0.1


def test_what_a_run_leaves(tokenizer: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = train("train dpo", tokenizer, run, pairs(40), checkpoints=3)
    assert [path.name for path in sorted((run / "policies").iterdir())] == ["step-000002", "step-000004", "step-000005"]
    final, last = load_policy(run / "model"), load_policy(run / "policies" / "step-000005")
    assert final.encoding == ENCODING
    for (name, weight), other in zip(final.named_parameters(), last.parameters(), strict=True):
        assert torch.equal(weight, other), name
    moved = load_policy(run / "policies" / "step-000002")
    assert any(not torch.equal(one, two) for one, two in zip(moved.parameters(), last.parameters(), strict=True))
    summary = read_json(run / "summary.json")
    assert (summary["steps"], summary["layout"], summary["reference"]["computed"]) == (5, "shared", 80)
    assert f"Policy: {run / 'model'}" in done.lines()
    assert "`dpo-pref`" in (run / "model" / "README.md").read_text()


def test_kept_steps() -> None:
    assert kept_steps(100, 10) == list(range(10, 101, 10))
    assert kept_steps(7, 3) == [3, 5, 7]
    assert kept_steps(2, 10) == [1, 2]
    assert kept_steps(5, 0) == []


def test_of_adapters_the_reference_is_the_base(tokenizer: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = start(tokenizer, tmp_path / "base")
    run = tmp_path / "run"
    train(
        "train dpo", tokenizer, run, pairs(24), model=base, lora={"r": 4}, epochs=3, learning_rate=2e-2, checkpoints=2
    )
    found = lines(run)
    assert abs(found[0]["margin"]) < 1e-5
    assert found[-1]["loss"] < found[0]["loss"] - 0.05
    kept = sorted((run / "policies").iterdir())
    assert [(folder / "adapter_model.safetensors").is_file() for folder in kept] == [True, True]
    merged, adapted = load_policy(run / "model"), load_policy(kept[-1])
    for weight, other in zip(merged.parameters(), adapted.parameters(), strict=True):
        torch.testing.assert_close(weight, other)
    # Full training from the same base finds the references.
    train("train dpo", tokenizer, tmp_path / "full", pairs(24), model=base)
    assert read_json(tmp_path / "full" / "summary.json")["reference"]["computed"] == 0


def test_another_reference_can_be_named(tokenizer: Path, tmp_path: Path) -> None:
    records = pairs(12)
    base, other = start(tokenizer, tmp_path / "base"), start(tokenizer, tmp_path / "other", seed=7)
    run = tmp_path / "run"
    train("train dpo", tokenizer, run, records, model=base, reference=other)
    first = lines(run)[0]
    assert abs(first["margin"]) > 1e-3
    strange = start(tokenizer, tmp_path / "strange")
    vocabulary = load_policy(strange)
    vocabulary.tokenizer.add_tokens(["zebra"])
    vocabulary.tokenizer.save_pretrained(strange)
    with pytest.raises(ModelError, match="tokenizer"):
        train("train dpo", tokenizer, tmp_path / "refused", records, model=base, reference=strange)


@pytest.mark.parametrize(("settings", "said"), [
    ({"objective": "simpo"}, "gamma"),
    ({"objective": "hinge", "label_smoothing": 0.1}, "no label_smoothing beside hinge"),
    ({"reward_beta": 1.0}, "no reward_beta beside dpo-pref"),
    ({"candidates": 3}, "candidates 2 beside objective dpo-pref: dpo-rw takes more"),
    ({"lora": {"dropout": 0.1}}, "lora.dropout 0"),
    ({"objective": "ipo", "per_token": True}, "no per_token"),
    ({"objective": "exo-rw"}, "'dpo-pref', .*; exo-rw is an objective of `rewardlab train exo`"),
    ({"objective": "exo"}, "objective: found 'exo'; expected 'dpo-pref', .* or 'simpo'$"),
    ({"objective": "simpo", "gamma": 1.0, "reference": "x"}, "no reference"),
    ({"reference": {"path": "x", "quantisation": "8bit"}}, "no quantisation and no tokenizer of reference"),
    ({"reference": {"path": "x", "tokenizer": "y"}}, "no quantisation and no tokenizer of reference"),
    ({"objective": "dpo-rw", "choice": "drawn"}, "candidates beside choice drawn"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DPOTraining.build({"model": "m", "train": "t"} | settings)


def test_the_objective_of_the_other_verb_and_of_more_completions_is_told() -> None:
    with pytest.raises(ConfigError, match="dpo-pref is an objective of `rewardlab train dpo`"):
        EXOTraining.build({"model": "m", "train": "t", "objective": "dpo-pref"})
    with pytest.raises(ConfigError, match="candidates 2 beside objective exo-pref: exo-rw takes more"):
        EXOTraining.build({"model": "m", "train": "t", "candidates": 3})


def test_a_rewards_temperature_is_beta_unless_told_otherwise() -> None:
    config = EXOTraining.build({"model": "m", "train": "t", "objective": "exo-rw"})
    assert config.options() == {"beta": 0.5, "reward_beta": 0.5}
    assert EXOTraining.build({"model": "m", "train": "t"}).options() == {"beta": 0.5}


# --- stopped and resumed ------------------------------------------------------------------------------------------

DRAWN = {"objective": "exo-rw", "candidates": 2, "choice": "drawn", "epochs": 2, "checkpoints": 4, "batch_size": 4}


def left(run: Path) -> dict[str, Any]:
    weights = {
        path.relative_to(run).as_posix(): load_file(path)
        for path in [run / "model" / "model.safetensors", *(run / "policies").glob("*/model.safetensors")]
    }
    return {"history": history(run), "weights": weights}


@pytest.mark.parametrize("step", [6, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 9))])
def test_killed_and_resumed_it_ends_the_same(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    records = candidates(24, 4)
    train("train exo", tokenizer, tmp_path / "whole", records, checkpoints_per_epoch=2, **DRAWN)
    with monkeypatch.context() as patch:
        patch.setattr(GroupTrainer, "_clip_grad_norm", on_call(GroupTrainer._clip_grad_norm, step, kill))
        with pytest.raises(Killed):
            train("train exo", tokenizer, tmp_path / "killed", records, checkpoints_per_epoch=2, **DRAWN)
    train("train exo", tokenizer, tmp_path / "killed", records, checkpoints_per_epoch=2, resume=True, **DRAWN)
    one, other = left(tmp_path / "whole"), left(tmp_path / "killed")
    assert one["history"] == other["history"]
    assert one["weights"].keys() == other["weights"].keys()
    assert len(one["weights"]) == 5
    for name, tensors in one["weights"].items():
        assert all(torch.equal(tensor, other["weights"][name][key]) for key, tensor in tensors.items()), name


# --- several processes --------------------------------------------------------------------------------------------


def trained(tokenizer: str, folder: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    found = {}
    for name, verb, settings in (
        ("sft", "train sft", {"token_budget": 64}),
        ("exo", "train exo", {"objective": "exo-rw", "token_budget": 64, "epochs": 2}),
    ):
        train(verb, Path(tokenizer), Path(folder) / name, candidates(21, 4), **settings)
        found[name] = history(Path(folder) / name)
    return found


@pytest.mark.slow
def test_two_processes_train_as_one(tokenizer: Path, tmp_path: Path) -> None:
    alone = trained(str(tokenizer), str(tmp_path / "alone"))
    together = run_ranks(trained, 2, str(tokenizer), str(tmp_path / "together"))
    assert together[0] == together[1]
    for name, expected in alone.items():
        for line, other in zip(together[0][name], expected, strict=True):
            assert line.keys() == other.keys()
            numbers = [key for key in line if key != "split"]
            assert [line[key] for key in numbers] == pytest.approx([other[key] for key in numbers], rel=1e-4, abs=1e-4)
