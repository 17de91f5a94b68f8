"""A policy: a language model, its tokenizer and its encoding. Groups in, log-probabilities of completions out.

Decoder-only models run a prompt once for all its completions (`models.attention`), and vocabulary logits are made for
the tokens of completions alone. Encoder-decoders read a prompt once with their encoder. A network whose logits are more
than a product of its last states with its output layer (scaled or capped ones) gives its own logits, of every token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardlab.data.layout import Group, Padded, pad
from rewardlab.data.predictions import Predictions, flat_predictions, packed_predictions
from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
from rewardlab.functional import logprobs
from rewardlab.models.attention import packed_layers
from rewardlab.models.reward import Layout
from rewardlab.models.token_logprobs import product_dtype, token_log_probabilities

PROBED_LOGIT = 100.0
"""How large logits are made where it is looked at what a network does with them; they are capped at 30 or so."""


class PolicyModel(nn.Module):
    """Groups of a prompt and its completions in, one log-probability per completion out.

    Args:
        network: a language model of transformers (decoder-only or encoder-decoder), with or without PEFT adapters.
        tokenizer: its tokenizer.
        encoding: how prompts and completions become ids.
        layout: `shared` runs prompts once (decoder-only backbones that passed the self-test), `flat` every sequence
            whole.
        fallback: why the layout is flat where it could have been shared; empty otherwise.
        plain_head: whether its logits are its last states times its output layer (see `has_plain_head`).
        temperature: divides the logits.
        sources: where trained weights were read from: folders, and commits of hub ids.
        has_saved_base: whether the network without its adapters is a checkpoint as it lies, which adapters that are
            saved alone can name.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        encoding: PolicyEncoding,
        *,
        layout: Layout,
        fallback: str = "",
        plain_head: bool = True,
        temperature: float = 1.0,
        sources: Sequence[str] = (),
        has_saved_base: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.encoding = encoding
        self.encoder = PolicyEncoder(tokenizer, encoding, encoder_decoder=self.is_encoder_decoder)
        self.layout: Layout = layout
        self.fallback = fallback
        self.plain_head = plain_head
        self.temperature = temperature
        self.sources = tuple(sources)
        self.has_saved_base = has_saved_base
        self._cast: Tensor | None = None
        self._is_steady = False

    @property
    def plain_network(self) -> Any:
        """The language model itself, PEFT wrapper taken off (adapters stay in place)."""
        unwrap = getattr(self.network, "get_base_model", None)
        return unwrap() if unwrap is not None else self.network

    @property
    def has_adapters(self) -> bool:
        """Whether PEFT adapters are trained beside the weights."""
        return self.network is not self.plain_network

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt."""
        return bool(self.plain_network.config.is_encoder_decoder)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @contextlib.contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The policy as it was before its adapters, in evaluation mode; without adapters as it is."""
        network: Any = self.network
        was_training = self.training
        self.eval()
        try:
            with network.disable_adapter() if self.has_adapters else contextlib.nullcontext():
                yield
        finally:
            self.train(was_training)

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """While no weight changes and autocast stays as it is: the output layer is cast once, not with every pass."""
        self._is_steady = True
        try:
            yield
        finally:
            self._is_steady, self._cast = False, None

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Log-probabilities of the completions in float32, by group, then branch; shape [sequences].

        Each is a sum over the completion's tokens at the policy's temperature, an end-of-sequence token included.

        Args:
            groups: of `share_prompt`, with ids of `encoder`.
        """
        sequences = sum(len(group.branches) for group in groups)
        if self.is_encoder_decoder:
            return self._by_decoder(groups)
        if self.layout == "shared":
            _, (hidden,) = packed_layers(self.plain_network, groups, 1)
            return self._sums(hidden[0], packed_predictions(groups), sequences)
        rows = pad(groups, self._pad_id)
        ids, mask = self._tensor(rows.ids), self._tensor(rows.mask)
        # Padded on the right, so positions count from 0 in every architecture without being told.
        if not self.plain_head:
            logits = self.plain_network(input_ids=ids, attention_mask=mask, use_cache=False).logits
            asked = self._tensor(_of_completions(groups, rows))
            return logprobs.completion_log_probabilities(logits, ids, asked, self.temperature)
        hidden = self.plain_network.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self._sums(hidden.flatten(0, 1), flat_predictions(groups, rows.ids.shape[1]), sequences)

    def _sums(self, hidden: Tensor, predictions: Predictions, sequences: int) -> Tensor:
        """Log-probabilities of the predicted tokens, summed by sequence."""
        at, ids, terms, owners = (self._tensor(array) for array in predictions)
        head = self.plain_network.get_output_embeddings()
        if self._is_steady and self._cast is None:
            self._cast = head.weight.detach().to(product_dtype(head.weight))
        tokens = token_log_probabilities(hidden[at], head.weight, head.bias, ids, self.temperature, cast=self._cast)
        return tokens.new_zeros(sequences).index_add(0, owners, tokens[terms]).float()

    def _by_decoder(self, groups: Sequence[Group]) -> Tensor:
        """Every prompt is encoded once; a decoder row per completion."""
        network = self.plain_network
        prompts = pad([Group((), (group.prefix[: group.start],)) for group in groups], self._pad_id)
        completions = pad(
            [Group((), (sequence[group.start :],)) for group in groups for sequence in group.sequences()], self._pad_id
        )
        mask = self._tensor(prompts.mask)
        read = network.get_encoder()(input_ids=self._tensor(prompts.ids), attention_mask=mask).last_hidden_state
        rows = torch.tensor([row for row, group in enumerate(groups) for _ in group.branches], device=self.device)
        ids = self._tensor(completions.ids)
        first = torch.full_like(ids[:, :1], network.config.decoder_start_token_id)
        logits = network(
            encoder_outputs=(read[rows],),
            attention_mask=mask[rows],
            decoder_input_ids=torch.cat((first, ids[:, :-1]), dim=1),
            use_cache=False,
        ).logits
        tokens = logprobs.token_log_probabilities(logits, ids, self.temperature)
        # Chosen rather than multiplied: a token of padding may have a log-probability of minus infinity.
        return tokens.masked_fill(self._tensor(completions.mask) == 0, 0.0).sum(dim=1).float()

    @property
    def _pad_id(self) -> int:
        """What fills rows: masked out and never read, so any id will do."""
        pad_id: int | None = self.tokenizer.pad_token_id
        return 0 if pad_id is None else pad_id

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _of_completions(groups: Sequence[Group], rows: Padded) -> Any:
    """Which tokens of padded rows are those of completions, shape [sequences, longest]."""
    mask = rows.mask.astype(bool)
    row = 0
    for group in groups:
        mask[row : row + len(group.branches), : group.start] = False
        row += len(group.branches)
    return mask


@torch.no_grad()
def has_plain_head(network: Any) -> bool:
    """Whether the logits of a decoder-only language model are its last states times its output layer, bias added.

    Some scale or cap them; of those every logit is made by their own code.
    """
    head = network.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(1, 7, device=head.weight.device)[None] % head.weight.shape[0]
    was_training = network.training
    network.eval()
    found = head(network.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    factor = PROBED_LOGIT / found.abs().max().clamp(min=torch.finfo(found.dtype).tiny)
    # A cap bends large logits alone, and those of new weights are small.
    hook = head.register_forward_hook(lambda _module, _inputs, logits: logits * factor)
    try:
        logits = network(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        network.train(was_training)
    # Float16 and bfloat16 weights give the same bits both ways; float32 differs by rounding at most.
    return logits.shape == found.shape and bool(
        torch.allclose(logits.float(), (found * factor).float(), rtol=1e-4, atol=1e-5 * PROBED_LOGIT)
    )
