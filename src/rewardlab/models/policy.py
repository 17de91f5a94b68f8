"""A policy: a language model, its tokenizer and its encoding. Groups in, log-probabilities of completions out.

Decoder-only models run a prompt once for all its completions (`models.attention`), and vocabulary logits are made for
the tokens of completions alone. Encoder-decoders read a prompt once with their encoder. A network whose logits are more
than a product of its last states with its output layer (scaled or capped ones) gives its own logits, of every token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rewardlab.data.layout import Group, Padded, pad
from rewardlab.data.predictions import Predictions, flat_predictions, packed_predictions
from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
from rewardlab.functional import logprobs, ppo
from rewardlab.models.attention import packed_layers
from rewardlab.models.quantisation import quantised_by
from rewardlab.models.reward import Layout
from rewardlab.models.token_logprobs import product_dtype, token_entropies, token_log_probabilities


class Tokens(NamedTuple):
    """What a decoder-only policy says of the tokens of completions, by group, then branch, then place.

    Attributes:
        log_probabilities: at the policy's temperature, float32, shape [tokens].
        states: the last state of what stands before each token, shape [tokens, width].
        entropies: of the distribution that each token was drawn from, float32, shape [tokens]; None where that was not
            asked for.
    """

    log_probabilities: Tensor
    states: Tensor
    entropies: Tensor | None


class Predictors(NamedTuple):
    """What predicts the tokens of completions, by group, then branch, then place.

    Attributes:
        states: a row per token; of a network whose own code makes its logits, these.
        head: from rows of it to logits, at temperature 1.
        owners: number of each token's sequence.
    """

    states: Tensor
    head: Callable[[Tensor], Tensor]
    owners: Tensor


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
    def quantisation(self) -> dict[str, Any] | None:
        """What the weights were quantised by, as transformers says it; None where they were not."""
        return quantised_by(self.plain_network)

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
        if not self.plain_head:
            ids, mask, rows = self._padded(groups)
            logits = self.plain_network(input_ids=ids, attention_mask=mask, use_cache=False).logits
            asked = self._tensor(_of_completions(groups, rows))
            return logprobs.completion_log_probabilities(logits, ids, asked, self.temperature)
        hidden, predictions = self._read(groups)
        at, ids, terms, owners = (self._tensor(array) for array in predictions)
        tokens = self._token_log_probabilities(hidden[at], ids)
        return tokens.new_zeros(sequences).index_add(0, owners, tokens[terms]).float()

    def tokens(self, groups: Sequence[Group], *, entropies: bool = False) -> Tokens:
        """The tokens of completions, one by one; of a decoder-only model.

        Args:
            groups: of `share_prompt`, with ids of `encoder`.
            entropies: whether to compute them, which takes all logits a second time.
        """
        if not self.plain_head:
            return self._tokens_of_logits(groups, entropies=entropies)
        hidden, predictions = self._read(groups)
        at, ids, terms, _ = (self._tensor(array) for array in predictions)
        states = hidden[at]
        found = self._token_log_probabilities(states, ids).float()[terms]
        spread = None
        if entropies:
            head = self.plain_network.get_output_embeddings()
            spread = token_entropies(states, head.weight, head.bias, self.temperature)[terms]
        return Tokens(found, states[terms], spread)

    def predictors(self, groups: Sequence[Group]) -> Predictors:
        """What predicts each token of the completions, so that their logits can be made a part at a time.

        Args:
            groups: of `share_prompt`, with ids of `encoder`.
        """
        if self.is_encoder_decoder:
            logits, _, mask = self._decoded(groups)
            there = mask != 0
            return Predictors(logits[there], nn.Identity(), there.nonzero()[:, 0])
        if self.plain_head:
            hidden, predictions = self._read(groups)
            at, _, terms, owners = (self._tensor(array) for array in predictions)
            return Predictors(hidden[at][terms], self.plain_network.get_output_embeddings(), owners)
        ids, mask, rows = self._padded(groups)
        logits = self.plain_network(input_ids=ids, attention_mask=mask, use_cache=False).logits
        at, _, terms, owners = (self._tensor(array) for array in flat_predictions(groups, rows.ids.shape[1]))
        return Predictors(logits.flatten(0, 1)[at][terms], nn.Identity(), owners)

    def _tokens_of_logits(self, groups: Sequence[Group], *, entropies: bool) -> Tokens:
        """`tokens` of a network whose own code makes its logits."""
        ids, mask, rows = self._padded(groups)
        network = self.plain_network
        outputs = network(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
        at, tokens, terms, _ = (self._tensor(array) for array in flat_predictions(groups, rows.ids.shape[1]))
        logits = outputs.logits.flatten(0, 1)[at]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        spread = ppo.entropy(wide, self.temperature)[terms] if entropies else None
        found = logprobs.token_log_probabilities(logits, tokens, self.temperature)[terms]
        return Tokens(found, outputs.hidden_states[-1].flatten(0, 1)[at][terms], spread)

    def _read(self, groups: Sequence[Group]) -> tuple[Tensor, Predictions]:
        return predicting_states(self.plain_network, groups, self.layout, self._pad_id)

    def _padded(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor, Padded]:
        rows = pad(groups, self._pad_id)
        return self._tensor(rows.ids), self._tensor(rows.mask), rows

    def _token_log_probabilities(self, states: Tensor, ids: Tensor) -> Tensor:
        head = self.plain_network.get_output_embeddings()
        if self._is_steady and self._cast is None:
            self._cast = head.weight.detach().to(product_dtype(head.weight))
        return token_log_probabilities(states, head.weight, head.bias, ids, self.temperature, cast=self._cast)

    def _by_decoder(self, groups: Sequence[Group]) -> Tensor:
        logits, ids, mask = self._decoded(groups)
        tokens = logprobs.token_log_probabilities(logits, ids, self.temperature)
        # Chosen rather than multiplied: a token of padding may have a log-probability of minus infinity.
        return tokens.masked_fill(mask == 0, 0.0).sum(dim=1).float()

    def _decoded(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the tokens of completions, their ids and mask: every prompt is encoded once, and a completion is a
        row of the decoder."""
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
        return logits, ids, self._tensor(completions.mask)

    @property
    def _pad_id(self) -> int:
        """What fills rows: masked out and never read, so any id will do."""
        pad_id: int | None = self.tokenizer.pad_token_id
        return 0 if pad_id is None else pad_id

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def predicting_states(network: Any, groups: Sequence[Group], layout: Layout, pad_id: int) -> tuple[Tensor, Predictions]:
    """The last states of all places, shape [places, width], and which of them stand before tokens of completions.

    Args:
        network: decoder-only; anything of transformers with a backbone.
        groups: of `share_prompt`.
        layout: `shared` where its attention is ours.
        pad_id: what fills the rows of the flat layout; never read.
    """
    if layout == "shared":
        _, (hidden,) = packed_layers(network, groups, 1)
        return hidden[0], packed_predictions(groups)
    # Padded on the right, so positions count from 0 in every architecture without being told.
    rows = pad(groups, pad_id)
    ids, mask = (torch.from_numpy(array).to(network.device) for array in (rows.ids, rows.mask))
    hidden = network.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1), flat_predictions(groups, rows.ids.shape[1])


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
