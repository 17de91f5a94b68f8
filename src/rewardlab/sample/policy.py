"""A policy in this process, ready to be sampled from: network, tokenizer, and how it reads prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
from rewardlab.models.language import LanguageModel, load_language_model
from rewardlab.models.loading import context_length
from rewardlab.models.policies import saved_encoding
from rewardlab.models.quantisation import quantised_by
from rewardlab.models.source import ModelSource, Precision, torch_device
from rewardlab.records import Prompt, content_id
from rewardlab.store.keys import source_digests


class Policy(NamedTuple):
    """A language model and its encoding.

    Attributes:
        language: network, tokenizer, and the tokens that end an answer.
        encoder: prompts in, ids out, and text back.
    """

    language: LanguageModel
    encoder: PolicyEncoder

    @property
    def network(self) -> Any:
        """The language model of transformers."""
        return self.language.network

    @property
    def content(self) -> str:
        """A hash or commit of the weights, their type, and what they were quantised by."""
        few_bits = quantised_by(self.network)
        quantised = [] if few_bits is None else [content_id(few_bits)]
        return " ".join([*source_digests(self.language.sources), str(self.network.dtype), *quantised])

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, at most; None where nothing says, or where they stand apart."""
        if self.network.config.is_encoder_decoder:
            return None
        return context_length(self.network)

    def ends(self, prompts: list[Prompt]) -> frozenset[int]:
        """The tokens that end an answer: the checkpoint's own, and what its chat template ends one with."""
        return self.language.ends.union(*(self.encoder.end(prompt) for prompt in prompts))


def load_policy(source: ModelSource, encoding: PolicyEncoding | None, *, device: str, precision: Precision) -> Policy:
    """A policy in evaluation mode.

    Args:
        source: a folder or hub id.
        encoding: how prompts become ids; None takes what was saved with the policy, else the defaults.
        device: cpu, cuda, mps or auto.
        precision: dtype of the weights; `auto` keeps the checkpoint's.

    Raises:
        ModelError: unreadable, an unusable tokenizer or device, or rules that cannot be read.
    """
    rules = encoding or saved_encoding(str(source.path), source.revision) or PolicyEncoding()
    language = load_language_model(source, device=torch_device(device), precision=precision)
    is_encoder_decoder = bool(language.network.config.is_encoder_decoder)
    return Policy(language, PolicyEncoder(language.tokenizer, rules, encoder_decoder=is_encoder_decoder))
