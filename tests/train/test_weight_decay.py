"""Weight decay: on weights, queries and mixtures of layers, never on the scales of norms or on biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import BERT, LLAMA, T5, pairs, toy_model, toy_trainer

from rewardlab.models.readouts import READS, Readout, ReadoutName

CASES = [(name, shape) for name in READS for shape in (LLAMA, BERT, T5) if shape is T5 or not READS[name].of_decoder]


@pytest.mark.parametrize(
    ("name", "shape"), [pytest.param(*case, id=f"{case[0]}-{case[1]['model_type']}") for case in CASES]
)
def test_norms_and_biases_are_not_decayed(
    name: ReadoutName, shape: dict[str, Any], tokenizer: Path, tmp_path: Path
) -> None:
    """New scales are ones and new biases zeros, whatever they are called; all else was drawn."""
    readout = Readout(name=name, layers=2, width=8, hidden=[] if name == "last" else [6, 5])
    model = toy_model(tokenizer, shape, readout=readout)
    trainer = toy_trainer(model, pairs(8), tmp_path, weight_decay=0.1)
    constant = {
        key
        for key, weight in model.named_parameters()
        if weight.ndim == 1 and weight.unique().tolist() in ([0.0], [1.0])
    }
    if model.readout is not None:
        assert {"readout.head.norms.0.weight", "readout.head.norms.1.weight"} <= constant
    names = {id(weight): key for key, weight in model.named_parameters() if weight.requires_grad}
    decayed = {
        names[id(weight)]
        for group in trainer.create_optimizer().param_groups
        if group["weight_decay"]
        for weight in group["params"]
    }
    # Transformers counts the position biases of T5, which are drawn, among the biases.
    drawn = {key for key in names.values() if "relative_attention_bias" not in key} - constant
    assert decayed == drawn


def test_a_step_without_a_gradient_shrinks_what_is_decayed_alone(tokenizer: Path, tmp_path: Path) -> None:
    """AdamW multiplies by 1 - rate x decay: .999 at 1e-2 and .1."""
    model = toy_model(tokenizer, LLAMA, readout=Readout(name="mean", hidden=[6]))
    trainer = toy_trainer(model, pairs(8), tmp_path, weight_decay=0.1)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    trainer.create_optimizer().step()
    after = dict(model.named_parameters())
    for key, factor in (("readout.head.norms.0.weight", 1.0), ("readout.head.linears.0.weight", 0.999)):
        torch.testing.assert_close(after[key].detach(), before[key] * factor, rtol=1e-6, atol=0)
