"""Making, loading and saving policies.

A saved folder is plain: `config.json`, `model.safetensors`, the tokenizer, and `rewardlab.json` with the encoding, so
that sampling repeats what training did. A policy with adapters is saved with them merged into its weights, or as an
adapter folder of PEFT, which names its base: a hub id, or a folder by its absolute path. The way from the adapter to
such a folder stands in `rewardlab.json`, for when both are moved together. Of one with quantised weights it is always
the adapter.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import InputError, ModelError, Problem
from rewardlab.models.adapters import NamedBase, import_peft, name_base, quiet_peft, way_to_base
from rewardlab.models.attention import IMPLEMENTATION
from rewardlab.models.checkpoint import quiet_transformers
from rewardlab.models.language import language_network
from rewardlab.models.loading import longest_input, merged_network, set_dropout
from rewardlab.models.located import SIDECAR, SIDECAR_FORMAT, sidecar_of
from rewardlab.models.policy import PolicyModel, has_plain_head
from rewardlab.models.quantisation import Quantisation, prepare_training
from rewardlab.models.seeds import seeded
from rewardlab.models.selftest import shared_layout_problem
from rewardlab.models.source import LayoutChoice, LoRA, ModelSource, Precision, torch_dtype
from rewardlab.models.tokenizers import load_tokenizer
from rewardlab.store.files import atomic_folder, read_json, write_json, write_text

log = logging.getLogger("rewardlab")


def new_policy(
    source: ModelSource,
    encoding: PolicyEncoding | None,
    *,
    seed: int,
    dropout: float = 0.0,
    lora: LoRA | None = None,
    layout: LayoutChoice = "auto",
    temperature: float = 1.0,
) -> PolicyModel:
    """A language model in float32, ready to be trained.

    Args:
        source: checkpoint or shape.
        encoding: how text becomes ids; None takes the checkpoint's own, or the defaults where it has none.
        seed: of new weights: a shape's, adapters, rows of a vocabulary that grows.
        dropout: probability for every dropout; above 0 the layout is flat.
        lora: adapters, or None for full training.
        layout: `auto` shares prompts where the backbone passes the self-test.
        temperature: divides the logits.

    Raises:
        ModelError: unreadable folder, missing weights, unusable tokenizer, or too few positions for the encoding.
    """
    saved = saved_encoding(source.path, source.revision) if source.path is not None and encoding is None else None
    rules = encoding or saved or PolicyEncoding()
    with seeded(seed), quiet_transformers():
        network, sources = language_network(source, torch_dtype("float32"))
        tokenizer = load_tokenizer(source.tokenizer or source.path or "", source)
        # Not so random weights, nor an adapter that was merged into its base: that lies nowhere.
        has_saved_base = len(sources) == 1
        if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
            has_saved_base = False
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _check_length(source.path or "model.shape", network, rules)
    if source.quantisation is not None:
        _check_base(str(source.path), has_saved_base)
        prepare_training(str(source.path), network)
    set_dropout(network, dropout)
    plain_head, fallback = _layout(network, rules, layout, max(dropout, lora.dropout if lora else 0.0))
    network.generation_config = _own_ids(network.generation_config)
    if lora is not None:
        network = _with_adapters(network, lora, seed)
        if source.path is not None and has_saved_base:
            name_base(network, NamedBase.of(source.path, sources[0]))
    return PolicyModel(
        network,
        tokenizer,
        rules,
        layout="flat" if fallback else "shared",
        fallback=fallback,
        plain_head=plain_head,
        temperature=temperature,
        sources=sources,
        has_saved_base=has_saved_base,
    )


def load_policy(
    path: str | Path,
    *,
    revision: str | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    layout: LayoutChoice = "auto",
    encoding: PolicyEncoding | None = None,
    temperature: float = 1.0,
    check_length: bool = True,
    trust_remote_code: bool = False,
    quantisation: Quantisation | None = None,
) -> PolicyModel:
    """A policy, in evaluation mode; an adapter is merged into its base, or runs beside a quantised one.

    Args:
        path: a folder (ours, any language model, a PEFT adapter) or a hub id.
        revision: of a hub id.
        device: torch device name.
        precision: dtype of the weights; `auto` keeps the checkpoint's.
        layout: `auto` shares prompts where the backbone passes the self-test.
        encoding: overrides the folder's own.
        temperature: divides the logits.
        check_length: refuse an encoding whose longest sequences the model cannot read; False where those that it will
            read are known to fit, since they were sampled from it.
        trust_remote_code: run Python code that comes with the checkpoint.
        quantisation: weights in fewer bits.

    Raises:
        ModelError: unreadable folder, missing weights, unusable tokenizer, or too few positions for the encoding.
    """
    source = ModelSource(
        path=str(path), revision=revision, trust_remote_code=trust_remote_code, quantisation=quantisation
    )
    rules = encoding or saved_encoding(str(path), revision) or PolicyEncoding()
    with quiet_transformers():
        network, sources = language_network(source, torch_dtype(precision))
        tokenizer = load_tokenizer(str(path), source)
    if check_length:
        _check_length(str(path), network, rules)
    plain_head, fallback = _layout(network, rules, layout, 0.0)
    model = PolicyModel(
        network,
        tokenizer,
        rules,
        layout="flat" if fallback else "shared",
        fallback=fallback,
        plain_head=plain_head,
        temperature=temperature,
        sources=sources,
    )
    return model.to(device).eval()


def save_policy(model: PolicyModel, folder: Path, *, card: str = "", merge: bool = True) -> None:
    """Write the folder, whole or not at all.

    Args:
        model: the policy; it is left as it was.
        folder: one that exists is replaced.
        card: text of README.md; none where it is empty.
        merge: put adapters into the weights; otherwise the folder has the adapters alone, where they have a base that
            they can name. Quantised weights are no place for adapters: beside them `merge` does nothing.
    """
    alone = model.has_adapters and model.has_saved_base and (not merge or model.quantisation is not None)
    with atomic_folder(folder) as temporary, quiet_transformers(), quiet_peft():
        network: Any = model.network if alone else merged_network(model)
        network.save_pretrained(temporary)
        model.tokenizer.save_pretrained(temporary)
        rules = {"format": SIDECAR_FORMAT, "policy": model.encoding.model_dump(mode="json")}
        write_json(temporary / SIDECAR, rules | way_to_base(temporary, folder))
        if card:
            write_text(temporary / "README.md", card)


def saved_encoding(path: str, revision: str | None = None) -> PolicyEncoding | None:
    """The encoding that lies beside a policy of ours; None where there is none.

    Args:
        path: a folder or a hub id.
        revision: of a hub id.

    Raises:
        ModelError: it is unreadable, of another version, or that of a reward model.
    """
    sidecar = sidecar_of(path, revision)
    if sidecar is None:
        return None
    try:
        values = read_json(sidecar)
        if values["format"] != SIDECAR_FORMAT:
            raise ValueError(f"format {values['format']}")
        return PolicyEncoding.build(values["policy"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        expected = f'{{"format": {SIDECAR_FORMAT}, "policy": {{...}}}} as rewardlab writes it for a policy'
        named = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        found = "; ".join(map(str, error.problems)) if isinstance(error, InputError) else named
        remedy = "Is it a reward model? Of a policy, give the rules with --encoding."
        problem = Problem(f"{path}/{SIDECAR}", found, expected, remedy)
        raise ModelError("The policy's rules for text cannot be read", [problem]) from error


def _check_base(path: str, has_saved_base: bool) -> None:
    """Adapters beside quantised weights are saved alone, so that they have to have a base to name."""
    if not has_saved_base:
        found = "an adapter, or a tokenizer with more tokens than the model has rows for"
        remedy = "Train it with lora alone, or from a merged folder: docs/alignment.md says how."
        problem = Problem(path, found, "whole weights, a row for every token", remedy)
        raise ModelError("The model cannot be trained in few bits", [problem])


def _check_length(path: str, network: Any, encoding: PolicyEncoding) -> None:
    limit = longest_input(network)
    longest = encoding.max_prompt_tokens + encoding.max_completion_tokens
    if limit is not None and longest > limit:
        found = f"{encoding.max_prompt_tokens} tokens of a prompt and {encoding.max_completion_tokens} of a completion"
        expected = f"at most {limit} in all: the model has no more positions"
        remedy = "Lower encoding.max_prompt_tokens or encoding.max_completion_tokens."
        raise ModelError("The sequences are longer than the model can read", [Problem(path, found, expected, remedy)])


def _layout(network: Any, encoding: PolicyEncoding, layout: LayoutChoice, dropout: float) -> tuple[bool, str]:
    """Whether the output layer is a plain one, and why prompts are not shared; empty where they are. Then the network's
    attention is ours."""
    config: PreTrainedConfig = network.config
    if config.is_encoder_decoder:
        return False, "an encoder reads the prompt"
    plain_head = has_plain_head(network)
    if layout == "flat":
        return plain_head, "it was asked for"
    if dropout > 0:
        return plain_head, "dropout in a shared prefix would be one draw for all its branches"
    if not plain_head:
        return False, "its logits are more than its last states times its output layer"
    problem = shared_layout_problem(config, encoding.max_prompt_tokens + encoding.max_completion_tokens)
    if problem:
        log.warning("flat layout instead of shared prompts: %s", problem)
    else:
        network.set_attn_implementation(IMPLEMENTATION)
    return plain_head, problem


def _own_ids(given: GenerationConfig | None) -> GenerationConfig:
    """What a checkpoint would sample with (a top-p, a repetition penalty) is no part of a policy that is trained; which
    tokens begin and end an answer is."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return GenerationConfig(**{name: getattr(given, name, None) for name in names})


def _with_adapters(network: Any, lora: LoRA, seed: int) -> Any:
    peft = import_peft("Training with LoRA")
    kind = "SEQ_2_SEQ_LM" if network.config.is_encoder_decoder else "CAUSAL_LM"
    with seeded(seed), quiet_peft():
        adapters = peft.LoraConfig(
            task_type=peft.TaskType[kind],
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            # GPT-2 keeps its weights the other way round.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
        )
        try:
            return peft.get_peft_model(network, adapters)
        except ValueError as error:
            problem = Problem("lora.targets", repr(lora.targets), "all-linear, or names of its linear layers")
            raise ModelError("No adapters can be put on the model", [problem]) from error
