"""Small models of the architectures, and with the tokenizers' rules, of the published reward models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Tokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from rewardlab.models.tiny import train_tokenizer

QUESTION = "Explain nuclear fusion like I am five"
ANSWERS = [
    "Nuclear fusion is the process by which two or more protons and neutrons combine.",
    "It melts   things together.\nVery hot!",
    "",
]
LLAMA_3_CHAT = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}"
)


def llama_3(folder: Path) -> None:
    """As FsfairX and OffsetBias: one logit, a chat template that writes the BOS which the tokenizer also adds."""
    tokenizer = train_tokenizer([QUESTION, *ANSWERS, "user assistant"] * 3, 400)
    names = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[PAD]")
    tokenizer.add_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.pad_token, tokenizer.chat_template = "[PAD]", LLAMA_3_CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.06,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _words() -> list[str]:
    text = " ".join([QUESTION, *ANSWERS])
    return sorted({word.strip(".!") for word in text.split()})


def deberta(folder: Path, type_vocab_size: int = 0) -> None:
    """As OpenAssistant's: one logit on a text pair; its network has no segment embeddings unless asked for."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    pieces = [*special, "▁", *(f"▁{word}" for word in _words()), *"abcdefghijklmnopqrstuvwxyzNEI.!"]
    tokenizer = DebertaV2Tokenizer(vocab=[(piece, -float(number)) for number, piece in enumerate(pieces)])
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=type_vocab_size,
        max_position_embeddings=512,
        num_labels=1,
        initializer_range=0.06,
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def distilbert(folder: Path) -> None:
    """As the SST-2 classifier: two labels, an uncased tokenizer."""
    words = [word.lower() for word in _words()]
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "!", *dict.fromkeys([*words, *letters])]
    tokenizer = DistilBertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    torch.manual_seed(0)
    names: dict[str, Any] = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=2, n_heads=4, initializer_range=0.06, **names
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
