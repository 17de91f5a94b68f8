"""What a network keeps of the rows that it goes on with: its cache, the mask over it, and positions.

Rows can leave and be repeated (`select`) whatever the cache is made of. Others can join (`append`) where every layer
keeps all states of a decoder-only model and positions are an argument: then a row's states can stand anywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad as padded
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput


class Places:
    """The rows of a batch as the network keeps them.

    Args:
        network: causal or encoder-decoder.
        takes: names of the arguments of its forward.
        mask: (rows, width), 1 where a row has a token; of an encoder-decoder, of its prompt.
        states: of the encoder, (rows, width, size); None for a causal model.
    """

    def __init__(self, network: Any, takes: Collection[str], mask: Tensor, states: Tensor | None = None) -> None:
        self._network, self._takes, self._mask, self._states = network, takes, mask, states
        self._cache: Any = DynamicCache(config=network.config)
        if states is not None:
            self._cache = EncoderDecoderCache(self._cache, DynamicCache(config=network.config))

    @classmethod
    def of(
        cls, network: Any, takes: Collection[str], prompts: Sequence[Sequence[int]], pad: int
    ) -> tuple[Places, Tensor]:
        """The rows of prompts, and the logits of the tokens that follow: (rows, vocabulary)."""
        width = max(map(len, prompts))
        gaps = [[pad] * (width - len(ids)) for ids in prompts]
        masks = [([0] * len(gap), [1] * len(ids)) for gap, ids in zip(gaps, prompts, strict=True)]
        if not network.config.is_encoder_decoder:
            rows = [[*gap, *ids] for gap, ids in zip(gaps, prompts, strict=True)]
            mask = torch.tensor([[*gap, *own] for gap, own in masks], device=network.device)
            places = cls(network, takes, mask)
            return places, places._logits(torch.tensor(rows, device=network.device), is_first=True)
        rows = [[*ids, *gap] for gap, ids in zip(gaps, prompts, strict=True)]
        mask = torch.tensor([[*own, *gap] for gap, own in masks], device=network.device)
        encoded = network.get_encoder()(input_ids=torch.tensor(rows, device=network.device), attention_mask=mask)
        places = cls(network, takes, mask, encoded.last_hidden_state)
        start = torch.full((len(prompts), 1), network.config.decoder_start_token_id, device=network.device)
        return places, places._logits(start, is_first=True)

    @property
    def can_join(self) -> bool:
        """Whether other rows can stand beside these."""
        own = self._states is None and "position_ids" in self._takes
        return own and all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def select(self, index: Tensor) -> None:
        """Keep the rows of the index, in its order; one that stands there several times is repeated."""
        self._cache.reorder_cache(index)
        self._mask = self._mask.index_select(0, index)
        self._states = None if self._states is None else self._states.index_select(0, index)
        if self.can_join:
            self._cut(int(self._mask.any(dim=0).int().argmax()))

    def part(self, index: Sequence[int]) -> Places:
        """Some of the rows as rows of their own."""
        other = copy.copy(self)
        other._cache = copy.deepcopy(self._cache)
        other.select(torch.tensor(index, device=self._mask.device))
        return other

    def append(self, other: Places) -> None:
        """Put rows behind these; both `can_join`."""
        width = max(self._mask.shape[1], other._mask.shape[1])
        gap, other_gap = width - self._mask.shape[1], width - other._mask.shape[1]
        self._mask = torch.cat([padded(self._mask, (gap, 0)), padded(other._mask, (other_gap, 0))])
        for layer, joining in zip(self._cache.layers, other._cache.layers, strict=True):
            for name in ("keys", "values"):
                both = (getattr(layer, name), gap), (getattr(joining, name), other_gap)
                setattr(layer, name, torch.cat([padded(states, (0, 0, space, 0)) for states, space in both]))

    def read(self, tokens: Tensor, going: Tensor) -> Tensor:
        """Go on with a token a row: the logits of what follows.

        Args:
            tokens: (rows,).
            going: bool (rows,), which rows go on. One that is over stays at its position: it may be the model's last.
        """
        if self._states is None:
            self._mask = torch.cat([self._mask, going.to(self._mask.dtype).unsqueeze(1)], dim=1)
        return self._logits(tokens.unsqueeze(1), is_first=False)

    def _cut(self, count: int) -> None:
        """Leave out the first columns, which no row sees."""
        if count == 0:
            return
        self._mask = self._mask[:, count:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[:, :, count:], layer.values[:, :, count:]

    def _logits(self, ids: Tensor, *, is_first: bool) -> Tensor:
        name = "past_key_values" if "past_key_values" in self._takes else "cache_params"
        options: dict[str, Any] = {name: self._cache, "attention_mask": self._mask, "use_cache": True}
        if self._states is not None:
            options["encoder_outputs"] = BaseModelOutput(last_hidden_state=self._states)
        elif "position_ids" in self._takes:
            options["position_ids"] = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._takes:
            options["logits_to_keep"] = 1
        inputs = self._network.prepare_inputs_for_generation(ids, is_first_iteration=is_first, **options)
        logits: Tensor = self._network(**inputs, return_dict=True).logits[:, -1]
        return logits
