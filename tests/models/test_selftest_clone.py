"""The self-test of models of real width: it says what it says of narrow ones, on something small."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaConfig, MistralConfig, PreTrainedConfig

from rewardlab.models import selftest
from rewardlab.models.selftest import shared_layout_problem

WIDE: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "vocab_size": 32000,
}
SMALL = 4_000_000
"""Weights that take a fraction of a second; the wide shape has a thousand million."""


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Weights of every model that the self-test makes."""
    counts = []

    class Counted:
        @staticmethod
        def from_config(config: PreTrainedConfig, **options: Any) -> Any:
            model = AutoModelForSequenceClassification.from_config(config, **options)
            counts.append(sum(weight.numel() for weight in model.parameters()))
            return model

    monkeypatch.setattr(selftest, "AutoModelForSequenceClassification", Counted)
    return counts


@pytest.mark.parametrize("key_heads", [16, 8, 4, 2, 1])
@pytest.mark.parametrize("fields", [{}, {"attention_dropout": 0.3}, {"num_hidden_layers": 1}, {"hidden_size": 1552}])
def test_a_wide_right_shape_passes_on_a_small_model(key_heads: int, fields: dict[str, Any], weights: list[int]) -> None:
    shape = LlamaConfig(**WIDE | {"num_key_value_heads": key_heads, "head_dim": 128} | fields)
    assert shared_layout_problem(shape, 512) == ""
    assert [count < SMALL for count in weights] == [True]


@pytest.mark.parametrize(("width", "head_dim"), [(256, 32), (320, 40)])
def test_shapes_around_the_width_that_is_kept_pass(width: int, head_dim: int) -> None:
    fields = {"hidden_size": width, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": head_dim}
    assert shared_layout_problem(LlamaConfig(**WIDE | fields), 512) == ""


@pytest.mark.parametrize(("window", "max_tokens", "passes"), [(100, 101, False), (100, 100, True), (20, 10, True)])
def test_a_wide_shape_with_a_window_shorter_than_the_texts_is_refused(
    window: int, max_tokens: int, passes: bool, weights: list[int]
) -> None:
    shape = MistralConfig(**WIDE | {"num_key_value_heads": 8, "head_dim": 128, "sliding_window": window})
    assert (shared_layout_problem(shape, max_tokens) == "") == passes
    assert [count < SMALL for count in weights] == [True]


def test_a_rare_kind_of_layer_is_found_among_many() -> None:
    """Every sixth layer sees everything, the others have a window; of the clone's two layers one has it too."""
    fields = {"num_key_value_heads": 8, "head_dim": 128, "sliding_window": 64}
    shape = AutoConfig.for_model("gemma3_text", **WIDE | fields)
    assert "gives other rewards" in shared_layout_problem(shape, 512)


def test_a_wide_shape_with_terms_of_its_own_is_refused() -> None:
    fields = {"num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 4, "sliding_window": 4096}
    shape = AutoConfig.for_model("gpt_oss", **WIDE | fields)
    assert "not plain softmax attention" in shared_layout_problem(shape, 64)


def test_the_configuration_itself_stays_as_it_was() -> None:
    shape = LlamaConfig(**WIDE | {"num_key_value_heads": 4})
    before = copy.deepcopy(shape.to_dict())
    shared_layout_problem(shape, 512)
    assert shape.to_dict() == before
