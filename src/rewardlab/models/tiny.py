"""Small models from configuration, and a tokenizer from text: everything runs without a download.

Three families that behave differently where it matters: a Llama shape (causal, rotary positions), a BERT shape
(encoder with a classification head) and a T5 shape (encoder-decoder). Sizes are named, so that a study can say `tiny`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from rewardlab.models.seeds import seeded

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ bos_token + message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}"
)
"""A user's turn is BOS, text, line break; an assistant's turn is text, EOS."""
MAX_POSITIONS = 1024
"""Longest sequence in tokens."""

SizeName = Literal["nano", "tiny", "small"]
Family = Literal["llama", "bert", "t5"]


@dataclass(frozen=True)
class Size:
    """Dimensions of a model.

    Attributes:
        hidden: width.
        layers: transformer blocks (a T5 shape has as many in its decoder again).
        heads: attention heads.
        inner: width inside the feed-forward block.
    """

    hidden: int
    layers: int
    heads: int
    inner: int


SIZES: Mapping[SizeName, Size] = MappingProxyType(
    {
        "nano": Size(hidden=32, layers=2, heads=2, inner=64),
        "tiny": Size(hidden=128, layers=4, heads=4, inner=384),
        "small": Size(hidden=256, layers=6, heads=8, inner=768),
    }
)
"""nano for unit tests, tiny for the demo on two cores, small for a few minutes more."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned from `texts`: every text can be encoded, and comes back unchanged.

    Padding, BOS and EOS are three distinct tokens; BOS is put before a text, EOS only where asked for.

    Args:
        texts: what to learn the merges from.
        vocab_size: largest vocabulary, the 256 bytes and 3 special tokens included; small texts give fewer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
    )


def shape_of(family: Family, size: SizeName, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The configuration of a family in a named size, for a tokenizer's vocabulary."""
    dimensions = SIZES[size]
    tokens: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if family == "t5":
        return T5Config(
            d_model=dimensions.hidden,
            d_kv=dimensions.hidden // dimensions.heads,
            d_ff=dimensions.inner,
            num_layers=dimensions.layers,
            num_heads=dimensions.heads,
            dropout_rate=0.0,
            decoder_start_token_id=tokenizer.pad_token_id,
            **tokens,
        )
    body: dict[str, Any] = {
        "hidden_size": dimensions.hidden,
        "intermediate_size": dimensions.inner,
        "num_hidden_layers": dimensions.layers,
        "num_attention_heads": dimensions.heads,
        "max_position_embeddings": MAX_POSITIONS,
    }
    if family == "bert":
        return BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=1, **body, **tokens)
    # An output matrix of its own: a small model learns to compare words sooner.
    return LlamaConfig(tie_word_embeddings=False, **body, **tokens)


def build(family: Family, size: SizeName, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> PreTrainedModel:
    """A model with random weights drawn from `seed`; the caller's random state stays as it was.

    A Llama shape is a causal language model, a BERT shape a classifier with one output, a T5 shape a conditional
    language model. Dropout is 0 throughout.
    """
    config = shape_of(family, size, tokenizer)
    classes: Mapping[Family, type[PreTrainedModel]] = {
        "llama": LlamaForCausalLM,
        "bert": BertForSequenceClassification,
        "t5": T5ForConditionalGeneration,
    }
    with seeded(seed):
        model: PreTrainedModel = classes[family](config)
    return model
