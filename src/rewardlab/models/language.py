"""Language models that answer, read from a checkpoint or made from a shape."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedConfig
from transformers.utils import GENERATION_CONFIG_NAME

from rewardlab.errors import ModelError, Problem
from rewardlab.models.adapters import merge_adapter
from rewardlab.models.backbones import name_decoder_start
from rewardlab.models.checkpoint import listed, quiet_transformers
from rewardlab.models.located import CONFIG_NAME, Located, adapter_weights, base_of, file_of, first_line, located
from rewardlab.models.own_code import check_code_is_its_own
from rewardlab.models.quantisation import REMEDY, loading_options
from rewardlab.models.source import ModelSource, Precision, torch_dtype
from rewardlab.models.tokenizers import load_tokenizer


class LanguageModel(NamedTuple):
    """A causal or encoder-decoder language model that answers.

    Attributes:
        network: in evaluation mode, without the checkpoint's own settings of sampling.
        tokenizer: its tokenizer.
        ends: tokens that end an answer.
        sources: what stands for its content: the commit of a hub id, or the folder; of an adapter its base's, too.
    """

    network: Any
    tokenizer: Any
    ends: frozenset[int]
    sources: tuple[str, ...]


def load_language_model(source: ModelSource, *, device: str = "cpu", precision: Precision = "auto") -> LanguageModel:
    """A causal or encoder-decoder language model that answers.

    Args:
        source: a folder or a hub id, of an adapter too.
        device: torch device name.
        precision: dtype of the weights; `auto` keeps the checkpoint's.

    Raises:
        ModelError: unreadable, or weights that are missing.
    """
    with quiet_transformers():
        network, sources = language_network(source, torch_dtype(precision))
    tokenizer = load_tokenizer(source.tokenizer or str(source.path), source)
    ends = answer_ends(tokenizer, network.generation_config)
    # What a checkpoint would sample with (a top-k, a repetition penalty) is no part of what is asked for.
    network.generation_config = GenerationConfig()
    return LanguageModel(network.to(device).eval(), tokenizer, ends, sources)


def answer_ends(tokenizer: Any, generation: GenerationConfig | None) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's EOS and those of the checkpoint, where there is one."""
    own = None if generation is None else generation.eos_token_id
    return frozenset({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})


def generation_beside(tokenizer: Any) -> GenerationConfig | None:
    """The generation configuration in the folder or hub id that a tokenizer was read from; None where none is found."""
    place = Located(str(tokenizer.name_or_path), None)
    file = None
    if place.path:
        with suppress(ModelError):  # the folder is gone or the hub out of reach: the tokenizer has its own end
            file = file_of(place, GENERATION_CONFIG_NAME)
    return None if file is None else GenerationConfig.from_pretrained(file.parent)


def language_network(source: ModelSource, dtype: torch.dtype | str) -> tuple[Any, tuple[str, ...]]:
    """A language model of transformers, decoder-only or encoder-decoder, and what stands for its content.

    Of an adapter it is the base with the adapter merged into its weights, or beside them where they are quantised:
    merged, the adapter would be rounded to few bits, too.

    Args:
        source: a checkpoint, an adapter or a shape, whose weights are drawn from torch's own generator.
        dtype: of the weights; `auto` keeps the checkpoint's.

    Raises:
        ModelError: unreadable, or weights that are missing.
        MissingExtraError: an adapter, and peft is not installed.
    """
    if source.path is None:
        fields = dict(source.shape or {})
        try:
            config = AutoConfig.for_model(fields.pop("model_type"), **fields)
            name_decoder_start(config)
            return _language_class(config).from_config(config, dtype=dtype), ()
        except Exception as error:
            found = " ".join(str(error).split())[:300]
            problem = Problem("model.shape", found, "fields of a transformers configuration")
            raise ModelError("No model can be made from this shape", [problem]) from error
    place = located(source.path, source.revision)
    base = base_of(place)
    at = base or place
    if source.trust_remote_code:
        check_code_is_its_own(at.path, file_of(at, CONFIG_NAME))
    options = {"trust_remote_code": source.trust_remote_code, **at.options()}
    few_bits = loading_options(source.quantisation)
    expected = "a language model that transformers can load, its weights as safetensors"
    try:
        config = AutoConfig.from_pretrained(at.path, **options)
        name_decoder_start(config)
        network, info = _language_class(config).from_pretrained(
            at.path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            adapter_kwargs={"subfolder": "no-adapter"},  # as in `models.checkpoint`
            **few_bits,
            **options,
        )
    except Exception as error:  # missing files, broken safetensors, unknown architectures, no network
        problem = Problem(source.path, first_line(error), expected, REMEDY if few_bits else "")
        raise ModelError("The model cannot be loaded", [problem]) from error
    if info["missing_keys"]:
        found = f"no weights for {listed(sorted(info['missing_keys']))}"
        raise ModelError("The model cannot be loaded", [Problem(source.path, found, expected, "Is it a reward model?")])
    if base is None:
        return network, (place.identity,)
    adapter = adapter_weights(place, source.path)
    network = merge_adapter(network, adapter.parent, merge=not few_bits)
    return network.get_base_model() if few_bits else network, (place.identity, base.identity)


def _language_class(config: PreTrainedConfig) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
