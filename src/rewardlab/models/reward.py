"""A reward model: a backbone, a linear head at the last real token, its tokenizer and its encoding.

The network inside is transformers' own sequence-classification model, so a saved folder loads anywhere. Causal
backbones are read at the last token of every sequence, found by position and never by the pad id; encoders are read
by their own classification head.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewardlab.data.layout import Group, pad, share_prefix
from rewardlab.data.tokenize import Encoded, Encoder, Encoding, TokenSequence
from rewardlab.models.attention import packed_states
from rewardlab.records import Prompt

Layout = Literal["shared", "flat"]
PromptForm = Literal["text", "conversation", "both"]

log = logging.getLogger("rewardlab")


def form_of(prompts: Iterable[Prompt]) -> PromptForm:
    """Whether prompts are plain texts, conversations or some of each."""
    forms = {prompt.is_text for prompt in prompts}
    return "both" if len(forms) > 1 else "text" if True in forms else "conversation"


class RewardModel(nn.Module):
    """Groups of token sequences in, one reward per sequence out.

    Args:
        network: a transformers sequence-classification model with one label, with or without PEFT adapters.
        tokenizer: its tokenizer; the pad id differs from every id that can be read.
        encoding: how text becomes ids.
        layout: `shared` runs prefixes once (causal backbones that passed the self-test), `flat` every sequence whole.
        fallback: why the layout is flat where it could have been shared; empty otherwise.
        sources: where trained weights were read from: folders, and commits of hub ids.
        prompt_form: of the prompts that it was trained on; None where that is not known.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        encoding: Encoding,
        *,
        layout: Layout,
        fallback: str = "",
        sources: Sequence[str] = (),
        prompt_form: PromptForm | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.encoding = encoding
        self.encoder = Encoder(tokenizer, encoding)
        self.layout: Layout = layout
        self.fallback = fallback
        self.sources = tuple(sources)
        self.prompt_form = prompt_form
        self._warned = False

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
        """Token sequences of completions as answers to prompts.

        A conversation given as plain text is another text than its rendering: the first call with prompts of another
        form than those of training warns.
        """
        if self.prompt_form in ("text", "conversation") and not self._warned and prompts:
            given = form_of(prompts)
            if given != self.prompt_form:
                self._warned = True
                words = {"text": "plain texts", "conversation": "conversations", "both": "both texts and conversations"}
                log.warning(
                    "prompts are %s, but the model was trained on %s: the same words are other tokens there",
                    words[given],
                    words[self.prompt_form],
                )
        return self.encoder.encode(prompts, completions)

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Rewards in float32, by group, then branch; shape [sequences]."""
        if self.layout == "shared":
            rewards = self._head(packed_states(self.plain_network, groups))
        elif self.is_causal:
            rewards = self._flat(groups)
        else:
            rewards = self._by_own_head(groups)
        return rewards.float()

    def _flat(self, groups: Sequence[Group]) -> Tensor:
        padded = pad(groups, self._pad_id)
        ids = self._tensor(padded.ids)
        network: Any = self.plain_network
        # Padded on the right, so positions count from 0 in every architecture without being told.
        hidden = network.base_model(
            input_ids=ids, attention_mask=self._tensor(padded.mask), use_cache=False, return_dict=True
        ).last_hidden_state
        return self._head(hidden[torch.arange(len(ids), device=self.device), self._tensor(padded.reads)])

    def _by_own_head(self, groups: Sequence[Group]) -> Tensor:
        padded = pad(groups, self._pad_id)
        ids, mask = self._tensor(padded.ids), self._tensor(padded.mask)
        network: Any = self.plain_network
        if getattr(network.config, "summary_type", None) == "last":
            # XLNet reads the last column, and positions relative to each other: the padding goes to the left.
            order = mask.argsort(dim=1, stable=True)
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        rewards: Tensor = network(input_ids=ids, attention_mask=mask, return_dict=True).logits[:, 0]
        return rewards

    def _head(self, hidden: Tensor) -> Tensor:
        head: Any = self.plain_network.score
        # Under autocast the head would round rewards to 8 bits: ties where there are none, and coarse gradients. It
        # runs in the precision of its own weights, which costs nothing.
        with torch.autocast(hidden.device.type, enabled=False):
            rewards: Tensor = head(hidden.to(next(head.parameters()).dtype))[:, 0]
        return rewards

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def grouped(encoded: Sequence[Encoded] | Sequence[TokenSequence]) -> Group:
    """The group of the encoded completions of one prompt."""
    return share_prefix([sequence.ids for sequence in encoded])
