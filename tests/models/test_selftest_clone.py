"""The small model that the self-test compares in place of a large one: the same mechanism, narrow and short."""

from __future__ import annotations

import copy

import pytest
from transformers import LlamaConfig, MistralConfig

from rewardlab.models.selftest import LONGEST_ROW, _clone_config


def wide(**fields: object) -> LlamaConfig:
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 32000}
    return LlamaConfig(**shape | {"num_attention_heads": 16} | fields)


@pytest.mark.parametrize(("keys", "left"), [(16, 4), (8, 2), (4, 1), (2, 1), (1, 1)])
def test_a_wide_model_becomes_narrow_and_keeps_the_ratio_of_its_heads(keys: int, left: int) -> None:
    clone = _clone_config(wide(num_key_value_heads=keys), 512)
    assert (clone.num_attention_heads, clone.num_key_value_heads) == (4, left)
    assert (clone.hidden_size, clone.intermediate_size, clone.head_dim) == (256, 512, 64)
    assert (clone.num_hidden_layers, clone.vocab_size, clone.num_labels) == (2, 64, 1)


@pytest.mark.parametrize(("width", "expected"), [(256, 256), (320, 256)])
def test_only_what_is_wider_is_narrowed(width: int, expected: int) -> None:
    shape = wide(hidden_size=width, num_attention_heads=8, intermediate_size=1000, num_hidden_layers=1)
    clone = _clone_config(shape, 512)
    assert clone.hidden_size == expected
    assert clone.intermediate_size == (1000 if expected == width else 512)
    assert clone.num_hidden_layers == 1


def test_the_configuration_itself_stays_as_it_was() -> None:
    shape = wide(num_key_value_heads=4)
    before = copy.deepcopy(shape.to_dict())
    _clone_config(shape, 512)
    assert shape.to_dict() == before


def test_dropout_is_off() -> None:
    assert _clone_config(wide(attention_dropout=0.3), 512).attention_dropout == 0.0


@pytest.mark.parametrize(("window", "max_tokens", "expected"), [(100, 101, 8), (100, 100, 100), (20, 10, LONGEST_ROW)])
def test_a_window_shorter_than_the_texts_is_shorter_than_the_rows(window: int, max_tokens: int, expected: int) -> None:
    shape = MistralConfig(sliding_window=window)
    assert _clone_config(shape, max_tokens).sliding_window == expected
    assert LONGEST_ROW == 12 + 14 > 8
