"""Making, loading and saving reward models.

A saved folder is plain: `config.json`, `model.safetensors`, the tokenizer, `README.md` (the model card), and
`rewardlab.json` with the encoding, so that scoring repeats what training did. `AutoModelForSequenceClassification`
loads it as it is; with a readout of ours, whose weights lie beside it, `AutoModel` loads the backbone.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from rewardlab.data.tokenize import Encoding
from rewardlab.errors import InputError, ModelError, Problem
from rewardlab.models.adapters import import_peft, quiet_peft
from rewardlab.models.attention import IMPLEMENTATION
from rewardlab.models.backbones import (
    READOUT_WEIGHTS,
    check_readout,
    fresh_readout,
    read_readout,
    refuse_choice,
    save_readout,
    state_widths,
    unread_weights,
)
from rewardlab.models.checkpoint import (
    fresh_network,
    has_own_code,
    is_above_backbone,
    is_head,
    quiet_transformers,
    read_checkpoint,
)
from rewardlab.models.classes import ClassReading, refuse_no_classes
from rewardlab.models.heads import OPENRLHF_HEAD, label_index
from rewardlab.models.located import SIDECAR, SIDECAR_FORMAT, file_of, first_line, located
from rewardlab.models.quantisation import Quantisation, prepare_training
from rewardlab.models.readouts import LAST, AnyReadout, Readout
from rewardlab.models.reward import LOGITS, Layout, PromptForm, RewardModel
from rewardlab.models.seeds import seeded
from rewardlab.models.selftest import shared_layout_problem
from rewardlab.models.source import LayoutChoice, LoRA, ModelSource, Precision, torch_dtype
from rewardlab.models.tokenizers import load_tokenizer, prepare_end, prepare_padding
from rewardlab.store.files import atomic_folder, read_json, write_json, write_text

log = logging.getLogger("rewardlab")

POSITION_TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")


def new_reward_model(
    source: ModelSource,
    encoding: Encoding,
    *,
    seed: int,
    dropout: float = 0.0,
    lora: LoRA | None = None,
    layout: LayoutChoice = "auto",
    readout: Readout = LAST,
    freeze_backbone: bool = False,
) -> RewardModel:
    """A backbone with a fresh head or readout, in float32, ready to be trained.

    Args:
        source: checkpoint or shape.
        encoding: how text becomes ids.
        seed: of the new weights.
        dropout: probability for every dropout of the backbone; above 0 the layout is flat.
        lora: adapters, or None for full training.
        layout: `auto` shares prefixes where the backbone passes the self-test.
        readout: what reads the backbone; by default the linear head that transformers puts on it.
        freeze_backbone: train the head or readout alone; not together with `lora`.

    Raises:
        ConfigError: a readout that is not defined on the backbone.
        ModelError: unreadable folder, missing backbone weights, unusable tokenizer.
    """
    with seeded(seed), quiet_transformers():
        network, missing, *_ = fresh_network(source, readout)
        top = None if readout.is_plain else fresh_readout(readout, network)
        tokenizer = load_tokenizer(source.tokenizer or source.path or "", source)
        prepare_padding(tokenizer, network)
        if top is None and network.config.is_encoder_decoder:
            prepare_end(tokenizer, network, encoding)
    _check_length(source.path or "model.shape", network, encoding)
    if source.quantisation is not None:
        prepare_training(str(source.path), network)
    set_dropout(network, dropout)
    adapter_dropout = lora.dropout if lora else 0.0
    fallback = _layout_problem(network.config, encoding, layout, max(dropout, adapter_dropout))
    if not fallback:
        network.set_attn_implementation(IMPLEMENTATION)
    if lora is not None:
        network = _with_lora(network, missing, lora, seed, has_head=top is None)
    _freeze(network, top, everything=freeze_backbone)
    return RewardModel(network, tokenizer, encoding, layout=_layout_of(fallback), fallback=fallback, readout=top)


def load_reward_model(
    path: str | Path,
    *,
    revision: str | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    layout: LayoutChoice = "auto",
    encoding: Encoding | None = None,
    label: int | str | None = None,
    output: str = LOGITS,
    trust_remote_code: bool = False,
    merge: bool = True,
    quantisation: Quantisation | None = None,
    classes: ClassReading | None = None,
) -> RewardModel:
    """A trained reward model, in evaluation mode.

    Args:
        path: a folder (ours, any sequence-classification checkpoint, a causal language model with the head of a reward
            model, or a PEFT adapter with its head) or a hub id.
        revision: of a hub id.
        device: torch device name.
        precision: dtype of the weights; `auto` keeps the checkpoint's.
        layout: `auto` shares prefixes where the backbone passes the self-test.
        encoding: overrides the folder's own; a folder without one is read without an appended EOS.
        label: of a classifier with several, which is the reward: an index, or a name of its `id2label`.
        output: which of the network's outputs holds the reward; others than `logits` take code that comes with the
            checkpoint.
        trust_remote_code: run Python code that comes with the checkpoint.
        merge: of an adapter, put it into the weights; otherwise it runs beside them, as it does beside quantised ones.
        quantisation: weights of the backbone in fewer bits.
        classes: of a classifier, how the class `label` becomes the reward; None for its logit.

    Raises:
        ModelError: unreadable folder, a head that is missing or newly initialised, several labels and no choice, or no
            classes where some are asked for.
    """
    # One commit for tokenizer, weights and rules, even when the hub gets another while they are read.
    revision = located(str(path), revision).commit
    source = ModelSource(
        path=str(path), revision=revision, trust_remote_code=trust_remote_code, quantisation=quantisation
    )
    saved, prompt_form, readout = saved_rules(str(path), revision)
    with quiet_transformers():
        checkpoint = read_checkpoint(source, torch_dtype(precision), readout, fresh_head=False, merge=merge)
    network = checkpoint.network
    own_code = has_own_code(network)
    top = None if readout.is_plain else _saved_readout(str(path), revision, readout, network)
    if classes is not None:
        refuse_no_classes(str(path), network.config, has_readout=top is not None, own_code=own_code)
    if top is not None:
        refuse_choice(str(path), label, None if output == LOGITS else output)
    column = _column(str(path), network, label, output) if top is None else None
    tokenizer = load_tokenizer(str(path), source)
    rules = encoding or saved or _foreign_encoding(network, tokenizer, checkpoint.head)
    _check_length(str(path), network, rules)
    if tokenizer.pad_token_id is None:
        # Rows are padded in the flat layout only, and read by position: any id serves as padding.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    fallback = "its own code says what is read" if own_code else _layout_problem(network.config, rules, layout, 0.0)
    if not fallback:
        network.set_attn_implementation(IMPLEMENTATION)
    model = RewardModel(
        network,
        tokenizer,
        rules,
        layout=_layout_of(fallback),
        fallback=fallback,
        sources=checkpoint.sources,
        prompt_form=prompt_form,
        label=column,
        own_code=own_code and top is None,
        output=output,
        readout=top,
        classes=classes,
    )
    return model.to(device).eval()


def _saved_readout(path: str, revision: str | None, readout: Readout, network: Any) -> AnyReadout:
    file = file_of(located(path, revision), READOUT_WEIGHTS)
    backbone = check_readout(readout, network.config)
    return read_readout(file, path, readout, state_widths(network.config)[1], backbone)


def _column(path: str, network: Any, label: int | str | None, output: str) -> int | None:
    """The column of the output that is the reward; None where code of its own may give a single number.

    Raises:
        ModelError: a choice that is missing or that there is not.
    """
    problems = []
    own_code = has_own_code(network)
    if output != LOGITS and not own_code:
        expected = f"{LOGITS}: {type(network).__name__} is a classifier of transformers"
        problems.append(Problem("output", repr(output), expected, "Does the model bring code? --trust_remote_code"))
    column, problem = (None, None) if own_code and label is None else label_index(path, network.config, label)
    if problem is not None:
        problems.append(problem)
    if problems:
        raise ModelError("The model does not say which number is the reward", problems)
    return column


def save_reward_model(model: RewardModel, folder: Path, *, card: str) -> None:
    """Write the plain folder, whole or not at all. PEFT adapters are merged into the weights.

    Args:
        model: the model; it is left as it was.
        folder: one that exists is replaced.
        card: text of README.md.
    """
    with atomic_folder(folder) as temporary, quiet_transformers():
        network = merged_network(model)
        network.save_pretrained(temporary)
        model.tokenizer.save_pretrained(temporary)
        rules = {"format": SIDECAR_FORMAT, "encoding": model.encoding.model_dump(mode="json")}
        if model.readout is not None:
            save_readout(model.readout, temporary)
            rules["readout"] = model.readout.config.model_dump(mode="json")
        write_json(temporary / SIDECAR, rules | ({"prompts": model.prompt_form} if model.prompt_form else {}))
        write_text(temporary / "README.md", card)


def set_dropout(network: Any, dropout: float) -> None:
    """Give every dropout of a network one probability."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    for name, value in vars(network.config).items():
        if name.endswith(("pdrop", "dropout", "dropout_prob", "dropout_rate")) and isinstance(value, float):
            setattr(network.config, name, dropout)
    for module in network.modules():
        # Attention keeps its probability as a number of its own in most architectures.
        for name in ("attention_dropout", "dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, dropout)


def _freeze(network: Any, readout: AnyReadout | None, *, everything: bool) -> None:
    """Weights that get no gradient: those that a readout does not read, or everything below the head or readout.

    Raises:
        ModelError: the network does not say which of its weights are the head's.
    """
    if readout is not None:
        unread = unread_weights(network, readout.config, readout.backbone)
        for name, weight in network.named_parameters():
            weight.requires_grad_(weight.requires_grad and not everything and name not in unread)
    elif everything:
        for name, weight in network.named_parameters():
            weight.requires_grad_(is_head(network, name))
        if not any(weight.requires_grad for weight in network.parameters()):
            found = f"{type(network).__name__}, which does not say where its backbone ends"
            problem = Problem(
                "freeze_backbone", found, "a classifier with a backbone", "Use a readout: --model.readout."
            )
            raise ModelError("The backbone cannot be frozen", [problem])


def _layout_problem(config: PreTrainedConfig, encoding: Encoding, layout: LayoutChoice, dropout: float) -> str:
    if layout == "flat":
        return "it was asked for"
    if dropout > 0:
        return "dropout in a shared prefix would be one draw for all its branches"
    problem = shared_layout_problem(config, encoding.max_tokens)
    if problem:
        log.warning("flat layout instead of shared prefixes: %s", problem)
    return problem


def _layout_of(fallback: str) -> Layout:
    return "flat" if fallback else "shared"


def _with_lora(network: Any, missing: Collection[str], lora: LoRA, seed: int, *, has_head: bool) -> Any:
    peft = import_peft("Training with LoRA")
    # The head as a whole, and of the backbone's pooler what is random.
    whole = {
        name.rpartition(".")[0]
        for name, _ in network.named_parameters()
        if has_head and (is_above_backbone(network, name) or (name in missing and is_head(network, name)))
    }
    with seeded(seed), quiet_peft():
        adapters = peft.LoraConfig(
            task_type=peft.TaskType.SEQ_CLS if has_head else peft.TaskType.FEATURE_EXTRACTION,
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            modules_to_save=sorted(whole),
            # GPT-2 keeps its weights the other way round.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
        )
        try:
            return peft.get_peft_model(network, adapters)
        except ValueError as error:
            linear = {name for name, part in network.named_modules() if _is_linear(part)}
            names = {name.rpartition(".")[2] for name in linear - whole}
            expected = f"all-linear, or names among {', '.join(sorted(names))}"
            problem = Problem("lora.targets", repr(lora.targets), expected)
            raise ModelError("No adapters can be put on the model", [problem]) from error


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)


def merged_network(model: Any) -> Any:
    """The network of a model of ours, of one with adapters a copy with these in its weights."""
    if model.network is model.plain_network:
        return model.network
    wrapped: Any = copy.deepcopy(model.network)
    return wrapped.merge_and_unload()


def saved_rules(path: str, revision: str | None) -> tuple[Encoding | None, PromptForm | None, Readout]:
    """The encoding that lies beside a model of ours, the form of its prompts (None where they are not known), and its
    readout.

    Raises:
        ModelError: unreadable ones, or those of another version.
    """
    # A folder or a hub id: a model of ours keeps its rules wherever it is uploaded.
    sidecar = file_of(located(path, revision), SIDECAR)
    if sidecar is None:
        return None, None, LAST
    try:
        values = read_json(sidecar)
        if values["format"] != SIDECAR_FORMAT:
            raise ValueError(f"format {values['format']}")
        form = values.get("prompts")
        if form not in (None, *get_args(PromptForm)):
            raise ValueError(f"prompts {form!r}")
        return Encoding.build(values["encoding"]), form, Readout.build(values.get("readout"))
    except (InputError, KeyError, TypeError, ValueError) as error:
        expected = f'{{"format": {SIDECAR_FORMAT}, "encoding": {{...}}}} as rewardlab writes it'
        found = "; ".join(map(str, error.problems)) if isinstance(error, InputError) else first_line(error)
        remedy = "Give the rules with --encoding, or save the model again."
        problem = Problem(f"{path}/{SIDECAR}", found, expected, remedy)
        raise ModelError("The model's rules for text cannot be read", [problem]) from error


def context_length(network: Any) -> int | None:
    """Tokens that a network is made to read at most; None where nothing says."""
    limits = [longest_input(network), getattr(network.config, "max_position_embeddings", None)]
    return min((int(limit) for limit in limits if limit is not None), default=None)


def _foreign_encoding(network: Any, tokenizer: Any, head: str) -> Encoding:
    """Rules for a folder that says nothing: the text as it is, up to the model's own limit.

    OpenRLHF ends every text with the EOS, and reads its head there.
    """
    limits = [context_length(network), tokenizer.model_max_length]
    # Tokenizers without a limit report an astronomic number.
    known = [int(limit) for limit in limits if limit is not None and limit < 10**6]
    return Encoding(max_tokens=min(known, default=2048), append_eos=head == OPENRLHF_HEAD)


def longest_input(network: Any) -> int | None:
    """Tokens that a network with a table of positions can read at most; None where positions are computed."""
    for name, module in network.named_modules():
        if name.split(".")[-1] in POSITION_TABLES and isinstance(module, torch.nn.Embedding):
            # Tables that start behind the padding (RoBERTa) or at an offset (OPT) have that many rows to spare.
            unused = module.padding_idx + 1 if module.padding_idx is not None else getattr(module, "offset", 0)
            return int(module.num_embeddings - unused)
    return None


def _check_length(path: str, network: Any, encoding: Encoding) -> None:
    limit = longest_input(network)
    if limit is not None and encoding.max_tokens > limit:
        found = f"encoding.max_tokens {encoding.max_tokens}"
        problem = Problem(path, found, f"at most {limit}: the model has no more positions", f"Set it to {limit}.")
        raise ModelError("The sequences are longer than the model can read", [problem])
