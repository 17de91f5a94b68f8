"""Training in several processes gives what one gives: losses, weights, history, stops and resumes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from toys import Killed, candidates, history, kill, on_call, pairs, rated, toy_model, toy_trainer

from rewardlab.data.layout import Group
from rewardlab.store.files import read_jsonl
from rewardlab.store.processes import processes
from rewardlab.train.checkpoints import all_checkpoints, newest_complete, step_of
from rewardlab.train.examples import Example
from rewardlab.train.shares import add_up_gradients, rewards_in_order, step_seed
from rewardlab.train.trainer import GroupTrainer, run_training

CLOSE = 1e-5

# The last step of an epoch has one example: of two processes one has none.
CASES: dict[str, dict[str, Any]] = {
    "pairs": {"records": pairs(25), "epochs": 2},
    "several micro-batches": {"records": pairs(25), "budget": 64, "weight_decay": 0.1, "max_grad_norm": 0.5},
    "groups in parts": {"records": candidates(9, 8), "budget": 64, "held_out": candidates(5, 8, seed=2)},
    "labels": {"records": rated(25, labels=True), "held_out": pairs(7)},
    "scores": {"records": rated(25, labels=False), "held_out": rated(7, labels=False, seed=2)},
}


def make(tokenizer: str, folder: Path, **options: Any) -> GroupTrainer:
    settings = {"per_step": 8, "learning_rate": 1e-3, "eval_steps": 3, "save_steps": 2, "epochs": 2}
    records = options.pop("records", None) or pairs(25)
    torch.manual_seed(os.getpid())  # whatever state another process has
    model = toy_model(Path(tokenizer), dropout=options.pop("dropout", 0.0))
    return toy_trainer(model, records, folder, **settings | options)


def outcome(trainer: GroupTrainer) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    return {
        "history": history(trainer.history.parent),
        "weights": {name: weight.detach().numpy() for name, weight in trainer.model.named_parameters()},
        "best": trainer.state.best_global_step,
        "kept": [path.name for path in all_checkpoints(trainer.history.parent / "checkpoints")],
        "budget": trainer.budget,
        "margins": list(read_jsonl(trainer.margins.path)) if trainer.margins.path.is_file() else [],
    }


def trained(tokenizer: str, folder: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """Every case, trained to its end."""
    outcomes = {}
    for name in names:
        trainer = make(tokenizer, Path(folder) / name, **CASES[name])
        assert run_training(trainer, resume=False)
        outcomes[name] = outcome(trainer)
    return outcomes


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for line, other in zip(found["history"], expected["history"], strict=True):
        assert line.keys() == other.keys()
        assert {key: line[key] for key in ("step", "epoch", "split")} == {
            key: other[key] for key in ("step", "epoch", "split")
        }
        numbers = [key for key in line if key != "split"]
        assert [line[key] for key in numbers] == pytest.approx([other[key] for key in numbers], rel=CLOSE, abs=CLOSE)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in found["weights"].items():
        np.testing.assert_allclose(weight, expected["weights"][name], rtol=0, atol=CLOSE, err_msg=name)
    assert (found["best"], found["kept"]) == (expected["best"], expected["kept"])
    # Every pair of every step is recorded once, in its order.
    assert [line["step"] for line in found["margins"]] == [line["step"] for line in expected["margins"]]
    for line, other in zip(found["margins"], expected["margins"], strict=True):
        np.testing.assert_allclose(line["rewards"], other["rewards"], rtol=CLOSE, atol=CLOSE)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit."""
    assert found["history"] == expected["history"]
    assert all(np.array_equal(weight, expected["weights"][name]) for name, weight in found["weights"].items())


SLOW = [pytest.param(count, list(CASES), marks=pytest.mark.slow) for count in (2, 3)]


@pytest.mark.parametrize(("count", "names"), [(2, ["several micro-batches", "groups in parts"]), *SLOW])
def test_several_processes_train_as_one(tokenizer: Path, tmp_path: Path, count: int, names: list[str]) -> None:
    alone = trained(str(tokenizer), str(tmp_path / "alone"), names)
    together = run_ranks(trained, count, str(tokenizer), str(tmp_path / "together"), names)
    for name, expected in alone.items():
        first, *others = [one[name] for one in together]
        assert_close(first, expected)
        for other in others:
            assert_same(other, first)
        # What is compared has moved, and a share was empty.
        assert max(abs(line["loss"] - expected["history"][0]["loss"]) for line in expected["history"]) > 0.01


# --- stopped and resumed ------------------------------------------------------------------------------------------


def spoiled(tokenizer: str, folder: str, how: str, options: dict[str, Any]) -> dict[str, Any]:
    """A training that something happens to; then what is there to go on from."""
    trainer = make(tokenizer, Path(folder), **options)
    here = processes()

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def out_of_memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model: Any = trainer.model
    if how == "killed":
        trainer._clip_grad_norm = on_call(trainer._clip_grad_norm, 5, kill)  # type: ignore[method-assign]
    elif how == "stopped" and here.rank == here.count - 1:
        trainer._clip_grad_norm = on_call(trainer._clip_grad_norm, 5, stop)  # type: ignore[method-assign]
    elif how == "out of memory" and here.rank == here.count - 1:
        model.forward = on_call(model.forward, 6, out_of_memory)
    try:
        ended = run_training(trainer, resume=False)
    except Killed:
        ended = False
    newest = newest_complete(Path(folder) / "checkpoints")
    assert newest is not None
    return {"ended": ended, "newest": step_of(newest), "steps": trainer.state.global_step, **outcome(trainer)}


def resumed(tokenizer: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    trainer = make(tokenizer, Path(folder), **options)
    assert run_training(trainer, resume=True)
    return outcome(trainer)


def gradients() -> list[list[float] | None]:
    """Of weights that both processes have used, one of them, and none."""
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    weights[0].grad = torch.tensor([1.0, 2.0]) * (1 + processes().rank)
    if processes().rank == 1:
        weights[1].grad = torch.tensor([5.0, 7.0])
    add_up_gradients(weights)
    return [None if weight.grad is None else weight.grad.tolist() for weight in weights]


def events(tokenizer: str, folder: str) -> dict[str, Any]:
    """All that is asked of two processes, in one launch."""
    dropout = {"dropout": 0.2}
    return {
        "seeds": [step_seed(seed, step) for seed in (0, 1) for step in (0, 1)],
        "gradients": gradients(),
        "killed": spoiled(tokenizer, f"{folder}/killed", "killed", {}),
        "stopped": spoiled(tokenizer, f"{folder}/stopped", "stopped", {}),
        "memory": spoiled(tokenizer, f"{folder}/memory", "out of memory", {"budget": 256}),
        "resumed": resumed(tokenizer, f"{folder}/alone", {}),
        "dropout": spoiled(tokenizer, f"{folder}/dropout", "", dropout),
        "dropout killed": spoiled(tokenizer, f"{folder}/dropout-killed", "killed", dropout),
        "dropout resumed": resumed(tokenizer, f"{folder}/dropout-killed", dropout),
    }


def test_stops_resumes_and_lack_of_memory_are_agreed_on(tokenizer: Path, tmp_path: Path) -> None:
    words = str(tokenizer), str(tmp_path)
    whole = spoiled(str(tokenizer), str(tmp_path / "whole"), "", {})
    assert spoiled(str(tokenizer), str(tmp_path / "alone"), "killed", {})["newest"] == 4
    first, second = run_ranks(events, 2, *words)

    # A signal that one process gets stops both after the same step, with a checkpoint of it.
    for found in (first["stopped"], second["stopped"]):
        assert (found["ended"], found["steps"], found["newest"]) == (False, 5, 5)

    # 1 -> 2, and 2 -> 1 after a kill and after a stop.
    assert_close(first["resumed"], whole)
    assert first["killed"]["newest"] == 4
    for name in ("killed", "stopped"):
        assert_close(resumed(str(tokenizer), str(tmp_path / name), {}), whole)

    # Memory that one process lacks: both halve, and nothing counts twice.
    assert first["memory"]["budget"] == second["memory"]["budget"] == 128
    assert_close(first["memory"], whole | {"budget": 128})

    # A weight that nobody has used is not decayed either: it has no gradient, where one of zeros would move it.
    assert first["gradients"] == second["gradients"] == [[3.0, 6.0], [5.0, 7.0], None]

    # Dropout draws the same after a resume with the same number of processes, and not the same in all of them.
    assert_same(first["dropout resumed"], first["dropout"])
    assert len({*first["seeds"], *second["seeds"]}) == 8
    losses = [[line["loss"] for line in one["history"]] for one in (first["dropout"], whole)]
    assert not np.allclose(losses[0], losses[1], rtol=1e-3)


# --- order ---------------------------------------------------------------------------------------------------------


def test_rewards_come_in_the_order_of_the_step() -> None:
    """The seam for whatever records what was scored in a step."""
    examples = [
        Example(Group((7,), ((8,),) * size), tuple(float(place) for place in range(size))) for size in (2, 1, 3)
    ]
    held = [([examples[2], examples[0]], torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])), ([examples[1]], torch.tensor([6.0]))]
    assert rewards_in_order(examples, held) == [[4.0, 5.0], [6.0], [1.0, 2.0, 3.0]]
    # The second example is missing; the last one.
    for lost in (held[:1], [([*examples[:2]], torch.tensor([1.0, 2.0, 3.0]))]):
        with pytest.raises(ValueError, match="from 0 to 2, each once"):
            rewards_in_order(examples, lost)
