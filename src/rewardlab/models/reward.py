"""A reward model: a backbone, a linear head at the last real token, its tokenizer and its encoding.

The network inside is transformers' own sequence-classification model, so a saved folder loads anywhere. Causal
backbones are read at the last token of every sequence, found by position and never by the pad id; encoders are read
by their own classification head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewardlab.data.layout import Group, pack, pad, share_prefix
from rewardlab.data.tokenize import Encoded, Encoder, Encoding, TokenSequence
from rewardlab.models.attention import PackedAttention
from rewardlab.records import Prompt

Layout = Literal["shared", "flat"]


class RewardModel(nn.Module):
    """Groups of token sequences in, one reward per sequence out.

    Args:
        network: a transformers sequence-classification model with one label, with or without PEFT adapters.
        tokenizer: its tokenizer; the pad id differs from every id that can be read.
        encoding: how text becomes ids.
        layout: `shared` runs prefixes once (causal backbones that passed the self-test), `flat` every sequence whole.
        fallback: why the layout is flat where it could have been shared; empty otherwise.
    """

    def __init__(
        self, network: nn.Module, tokenizer: Any, encoding: Encoding, *, layout: Layout, fallback: str = ""
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.encoding = encoding
        self.encoder = Encoder(tokenizer, encoding)
        self.layout: Layout = layout
        self.fallback = fallback

    @property
    def plain_network(self) -> nn.Module:
        """The sequence-classification model itself, PEFT wrapper taken off (adapters stay in place)."""
        unwrap = getattr(self.network, "get_base_model", None)
        network: nn.Module = unwrap() if unwrap is not None else self.network
        return network

    @property
    def is_causal(self) -> bool:
        """Whether the backbone is causal: such models call their head `score` and read the last token."""
        return "score" in dict(self.plain_network.named_children())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def _pad_id(self) -> int:
        """What fills the rows of the flat layout: masked out and never read, so any id will do."""
        pad_id: int | None = self.tokenizer.pad_token_id
        return 0 if pad_id is None else pad_id

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Encoded]]:
        """Token sequences of completions as answers to prompts."""
        return self.encoder.encode(prompts, completions)

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Rewards in float32, by group, then branch; shape [sequences]."""
        if self.layout == "shared":
            rewards = self._shared(groups)
        elif self.is_causal:
            rewards = self._flat(groups)
        else:
            rewards = self._by_own_head(groups)
        return rewards.float()

    def _shared(self, groups: Sequence[Group]) -> Tensor:
        packed = pack(groups)
        hidden = self._hidden(
            input_ids=self._tensor(packed.ids)[None],
            position_ids=self._tensor(packed.positions)[None],
            # A four-dimensional mask is handed on untouched, so transformers builds none of its own; it is not used.
            attention_mask=torch.zeros(1, 1, 1, 1, device=self.device),
            packed=PackedAttention(packed.segments),
        )
        return self._head(hidden[0, self._tensor(packed.reads)])

    def _flat(self, groups: Sequence[Group]) -> Tensor:
        padded = pad(groups, self._pad_id)
        ids = self._tensor(padded.ids)
        # Padded on the right, so positions count from 0 in every architecture without being told.
        hidden = self._hidden(input_ids=ids, attention_mask=self._tensor(padded.mask))
        return self._head(hidden[torch.arange(len(ids), device=self.device), self._tensor(padded.reads)])

    def _by_own_head(self, groups: Sequence[Group]) -> Tensor:
        padded = pad(groups, self._pad_id)
        output = self.plain_network(
            input_ids=self._tensor(padded.ids), attention_mask=self._tensor(padded.mask), return_dict=True
        )
        rewards: Tensor = output.logits[:, 0]
        return rewards

    def _hidden(self, **inputs: Any) -> Tensor:
        network: Any = self.plain_network
        # `base_model` is the backbone: what stands below the head, final norm included.
        hidden: Tensor = network.base_model(**inputs, use_cache=False, return_dict=True).last_hidden_state
        return hidden

    def _head(self, hidden: Tensor) -> Tensor:
        network: Any = self.plain_network
        rewards: Tensor = network.score(hidden)[:, 0]
        return rewards

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def grouped(encoded: Sequence[Encoded] | Sequence[TokenSequence]) -> Group:
    """The group of the encoded completions of one prompt."""
    return share_prefix([sequence.ids for sequence in encoded])
