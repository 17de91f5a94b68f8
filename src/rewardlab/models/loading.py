"""Making, loading and saving reward models.

A saved folder is plain: `config.json`, `model.safetensors`, the tokenizer, `README.md` (the model card), and
`rewardlab.json` with the encoding, so that scoring repeats what training did. `AutoModelForSequenceClassification`
loads it as it is.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from pydantic import Field, model_validator
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from rewardlab.config import Config
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import InputError, MissingExtraError, ModelError, Problem
from rewardlab.models.attention import IMPLEMENTATION
from rewardlab.models.reward import Layout, RewardModel
from rewardlab.models.selftest import shared_layout_problem
from rewardlab.store.files import atomic_folder, read_json, write_json, write_text
from rewardlab.store.hub import UNKNOWN, commit_of

log = logging.getLogger("rewardlab")

SIDECAR = "rewardlab.json"
SIDECAR_FORMAT = 1
_TOKENIZER_REMEDY = "Save the tokenizer beside the weights, or name one for training: model.tokenizer."
POSITION_TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")
PAD_TOKEN = "<|pad|>"  # noqa: S105  # a vocabulary entry, not a secret
HEADS = ("score", "classifier", "classification_head", "v_head", "value_head")
LayoutChoice = Literal["auto", "flat"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class ModelSource(Config):
    """Where a model's weights come from: a checkpoint (folder or hub id), or a shape with random weights."""

    text_field: ClassVar[str] = "path"

    path: str | None = None
    """Folder or hub id of a checkpoint; `--model X` says the same."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    shape: dict[str, Any] | None = None
    """Instead of a path: fields of a transformers configuration, `model_type` included; weights are random."""

    tokenizer: str | None = None
    """Folder or hub id of the tokenizer; default: the checkpoint's own."""

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Only for sources you trust."""

    @model_validator(mode="after")
    def _one_source(self) -> ModelSource:
        if (self.path is None) == (self.shape is None):
            raise ValueError("expected either path or shape, and not both")
        if self.shape is not None and "model_type" not in self.shape:
            raise ValueError("expected shape to name a model_type, e.g. llama")
        if self.shape is not None and self.tokenizer is None:
            raise ValueError("expected a tokenizer beside shape")
        return self


class LoRA(Config):
    """Low-rank adapters (PEFT) instead of full training; the head is always trained and saved whole."""

    r: int = Field(8, ge=1)
    """Rank."""

    alpha: int = Field(32, gt=0)
    """Scale: the update is multiplied by alpha / r."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input. Above 0 the layout is flat."""

    targets: str | list[str] = "all-linear"
    """Names of the modules that get adapters."""


def new_reward_model(
    source: ModelSource,
    encoding: Encoding,
    *,
    seed: int,
    dropout: float = 0.0,
    lora: LoRA | None = None,
    layout: LayoutChoice = "auto",
) -> RewardModel:
    """A backbone with a fresh linear head, in float32, ready to be trained.

    Args:
        source: checkpoint or shape.
        encoding: how text becomes ids.
        seed: of the new weights.
        dropout: probability for every dropout of the backbone; above 0 the layout is flat.
        lora: adapters, or None for full training.
        layout: `auto` shares prefixes where the backbone passes the self-test.

    Raises:
        ModelError: unreadable folder, missing backbone weights, unusable tokenizer.
    """
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        network = _fresh_network(source)
        tokenizer = load_tokenizer(source.tokenizer or source.path or "", source)
        prepare_padding(tokenizer, network)
    _check_length(source.path or "model.shape", network, encoding)
    _set_dropout(network, dropout)
    adapter_dropout = lora.dropout if lora else 0.0
    fallback = _layout_problem(network.config, encoding, layout, max(dropout, adapter_dropout))
    if not fallback:
        network.set_attn_implementation(IMPLEMENTATION)
    if lora is not None:
        network = _with_lora(network, lora, seed)
    return RewardModel(network, tokenizer, encoding, layout=_layout_of(fallback), fallback=fallback)


def load_reward_model(
    path: str | Path,
    *,
    revision: str | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    layout: LayoutChoice = "auto",
    encoding: Encoding | None = None,
    trust_remote_code: bool = False,
) -> RewardModel:
    """A trained reward model, in evaluation mode.

    Args:
        path: a folder (ours, or any sequence-classification checkpoint with one label) or a hub id.
        revision: of a hub id.
        device: torch device name.
        precision: dtype of the weights; `auto` keeps the checkpoint's.
        layout: `auto` shares prefixes where the backbone passes the self-test.
        encoding: overrides the folder's own; a folder without one is read without an appended EOS.
        trust_remote_code: run Python code that comes with the checkpoint.

    Raises:
        ModelError: unreadable folder, or a head that is missing, newly initialised or of several labels.
    """
    # One commit for tokenizer, weights and rules, even when the hub gets another while they are read.
    revision = _located(str(path), revision).commit
    source = ModelSource(path=str(path), revision=revision, trust_remote_code=trust_remote_code)
    with quiet_transformers():
        network, info = _from_pretrained(source, torch_dtype(precision))
    tokenizer = load_tokenizer(str(path), source)
    _check_weights(str(path), network, info, fresh_head=False)
    rules = encoding or _saved_encoding(str(path), revision) or _foreign_encoding(network, tokenizer)
    _check_length(str(path), network, rules)
    if tokenizer.pad_token_id is None:
        # Rows are padded in the flat layout only, and read by position: any id serves as padding.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    fallback = _layout_problem(network.config, rules, layout, 0.0)
    if not fallback:
        network.set_attn_implementation(IMPLEMENTATION)
    model = RewardModel(network, tokenizer, rules, layout=_layout_of(fallback), fallback=fallback)
    return model.to(device).eval()


def save_reward_model(model: RewardModel, folder: Path, *, card: str) -> None:
    """Write the plain folder, whole or not at all. PEFT adapters are merged into the weights.

    Args:
        model: the model; it is left as it was.
        folder: one that exists is replaced.
        card: text of README.md.
    """
    with atomic_folder(folder) as temporary, quiet_transformers():
        network = _merged(model)
        network.save_pretrained(temporary)
        model.tokenizer.save_pretrained(temporary)
        write_json(temporary / SIDECAR, {"format": SIDECAR_FORMAT, "encoding": model.encoding.model_dump(mode="json")})
        write_text(temporary / "README.md", card)


def torch_dtype(precision: Precision) -> torch.dtype | Literal["auto"]:
    """The torch dtype of a precision's name."""
    return "auto" if precision == "auto" else getattr(torch, precision)


def torch_device(name: str) -> str:
    """`auto` as the best device of this machine: cuda, mps, then cpu.

    Raises:
        ModelError: when the device asked for is not there.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, present in found.items() if present)
    if not found.get(name.split(":")[0], False):
        here = ", ".join(device for device, present in found.items() if present)
        problem = Problem("device", name, f"a device of this machine ({here})", "Use --device auto.")
        raise ModelError("The device is not there", [problem])
    return name


def load_tokenizer(path: str, source: ModelSource) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        ModelError: when there is none that can be read.
    """
    place = _located(path, source.revision if path == source.path else None)
    try:
        return AutoTokenizer.from_pretrained(place.path, trust_remote_code=source.trust_remote_code, **place.options())
    except Exception as error:  # transformers raises many kinds for an unreadable folder
        problem = Problem(path, _first_line(error), "a tokenizer that transformers can load", _TOKENIZER_REMEDY)
        raise ModelError("The tokenizer cannot be loaded", [problem]) from error


def prepare_padding(tokenizer: Any, network: Any) -> None:
    """Give tokenizer and network a pad id that no sequence ends in.

    transformers finds the token to read as the last one that is not the pad id, so a pad id that is also EOS (GPT-2
    and many others) would make it read the token before. Such models get a pad token of their own.
    """
    kinds = ("eos", "bos", "sep", "cls", "unk")
    read_ids = {getattr(tokenizer, f"{kind}_token_id") for kind in kinds}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in read_ids:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.config.pad_token_id = tokenizer.pad_token_id


def _fresh_network(source: ModelSource) -> Any:
    if source.path is not None:
        network, info = _from_pretrained(source, torch.float32)
        _check_weights(source.path, network, info, fresh_head=True)
        return network
    fields = dict(source.shape or {})
    try:
        config = AutoConfig.for_model(fields.pop("model_type"), num_labels=1, **fields)
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except Exception as error:
        problem = Problem("model.shape", " ".join(str(error).split())[:300], "fields of a transformers configuration")
        raise ModelError("No model can be made from this shape", [problem]) from error


def _from_pretrained(source: ModelSource, dtype: torch.dtype | str) -> tuple[Any, dict[str, Any]]:
    path = str(source.path)
    place = _located(path, source.revision)
    options = {"trust_remote_code": source.trust_remote_code, **place.options()}
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(place.path, **options)
        # A language model's folder says two labels by default; a classifier's says its own, and is checked.
        if not any("SequenceClassification" in name for name in config.architectures or []):
            config.num_labels = 1
        network, info = AutoModelForSequenceClassification.from_pretrained(
            place.path,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,
            # `_check_weights` says which; transformers would say so in a report of its own.
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as error:  # missing files, broken safetensors, unknown architectures, no network
        problem = Problem(
            path, _first_line(error), "a causal or encoder model that transformers can load, its weights as safetensors"
        )
        raise ModelError("The model cannot be loaded", [problem]) from error
    network.config._commit_hash = place.commit
    return network, info


class _Located(NamedTuple):
    """Where transformers is to look: a folder, or a hub id; and the commit, unless it is a folder of the user's."""

    path: str
    commit: str | None

    def options(self) -> dict[str, str]:
        """Further arguments of `from_pretrained`."""
        return {} if self.commit is None or Path(self.path).is_dir() else {"revision": self.commit}


def _located(path: str, revision: str | None) -> _Located:
    """Find a folder, or ask the hub one question: transformers itself repeats every request for most of a minute
    where there is no network, and reports an unknown name as a missing file.

    Raises:
        ModelError: neither a folder nor a hub id, or a hub id that is unknown or out of reach and not in the cache.
    """
    folder = Path(path)
    if path and folder.is_dir():
        return _Located(path, None)
    if not path or folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        problem = Problem(
            path or "model.path", "no such folder", "a folder, or a hub id like owner/name", "Check the path."
        )
        raise ModelError("The model cannot be loaded", [problem])
    try:
        return _Located(path, commit_of(path, revision, "model"))
    except UNKNOWN as error:
        problem = Problem(path, _first_line(error), "a folder here, or a model on the hub", "Check the name.")
        raise ModelError("The model cannot be loaded", [problem]) from error
    except Exception as error:  # no network, in the words of whichever HTTP library is below
        cached = try_to_load_from_cache(path, "config.json", revision=revision)
        if isinstance(cached, str):
            # The cache has a folder per commit, named by it.
            return _Located(str(Path(cached).parent), Path(cached).parent.name)
        found = f"no such folder here, and the hub is out of reach ({_first_line(error)})"
        problem = Problem(path, found, "a folder, or a hub id that is in the cache", "Check the path or the network.")
        raise ModelError("The model cannot be loaded", [problem]) from error


def _check_weights(path: str, network: Any, info: dict[str, Any], *, fresh_head: bool) -> None:
    """Missing backbone weights are always wrong; a missing head only where a trained one is expected."""
    unusable = {key: key for key in info["missing_keys"]}
    for key, found, expected in info["mismatched_keys"]:
        unusable[key] = f"{key} (shape {list(found)} instead of {list(expected)})"
    head = [unusable[key] for key in sorted(unusable) if _is_head(key)]
    backbone = [unusable[key] for key in sorted(unusable) if not _is_head(key)]
    problems = []
    if backbone:
        problems.append(
            Problem(path, f"no weights for {_listed(backbone)}", "every weight of the backbone", "Is it truncated?")
        )
    if head and not fresh_head:
        problems.append(
            Problem(
                path,
                f"no trained head (missing: {_listed(head)})",
                "a reward model: a checkpoint whose classification head was trained",
                "A language model without a head is trained first: rewardlab train reward --model.path ...",
            )
        )
    if network.config.num_labels != 1:
        problems.append(Problem(path, f"{network.config.num_labels} labels", "one label: a reward"))
    if problems:
        raise ModelError("The model cannot be used as a reward model", problems)


def _is_head(key: str) -> bool:
    # The pooler of an encoder is part of its classification head, and often not in a language model's checkpoint.
    return key.split(".")[0] in HEADS or ".pooler." in key or key.startswith("pooler.")


def _listed(keys: list[str]) -> str:
    shown = ", ".join(keys[:4])
    return f"{shown} and {len(keys) - 4} more" if len(keys) > 4 else shown


def _set_dropout(network: Any, dropout: float) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    for name, value in vars(network.config).items():
        if name.endswith(("pdrop", "dropout", "dropout_prob")) and isinstance(value, float):
            setattr(network.config, name, dropout)
    for module in network.modules():
        # Attention keeps its probability as a number of its own in most architectures.
        for name in ("attention_dropout", "dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, dropout)


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


def _with_lora(network: Any, lora: LoRA, seed: int) -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "peft", "Training with LoRA") from error
    heads = [name for name, _ in network.named_children() if name in HEADS]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft reads a property that transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        torch.manual_seed(seed)
        adapters = peft.LoraConfig(
            task_type=peft.TaskType.SEQ_CLS,
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            modules_to_save=heads,
            # GPT-2 keeps its weights the other way round.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
        )
        try:
            return peft.get_peft_model(network, adapters)
        except ValueError as error:
            names = {name.rpartition(".")[2] for name, part in network.named_modules() if _is_linear(part)}
            expected = f"all-linear, or names among {', '.join(sorted(names - set(heads)))}"
            problem = Problem("lora.targets", repr(lora.targets), expected)
            raise ModelError("No adapters can be put on the model", [problem]) from error


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)


def _merged(model: RewardModel) -> Any:
    if model.network is model.plain_network:
        return model.network
    import copy

    wrapped: Any = copy.deepcopy(model.network)
    return wrapped.merge_and_unload()


def _saved_encoding(path: str, revision: str | None) -> Encoding | None:
    """The rules that lie beside a model of ours; None where there are none.

    Raises:
        ModelError: unreadable ones, or those of another version.
    """
    place = _located(path, revision)
    # A folder or a hub id: a model of ours keeps its rules wherever it is uploaded.
    sidecar = cached_file(place.path, SIDECAR, _raise_exceptions_for_missing_entries=False, **place.options())
    if sidecar is None:
        return None
    try:
        values = read_json(sidecar)
        if values["format"] != SIDECAR_FORMAT:
            raise ValueError(f"format {values['format']}")
        return Encoding.build(values["encoding"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        expected = f'{{"format": {SIDECAR_FORMAT}, "encoding": {{...}}}} as rewardlab writes it'
        found = "; ".join(map(str, error.problems)) if isinstance(error, InputError) else _first_line(error)
        remedy = "Give the rules with --encoding, or save the model again."
        problem = Problem(f"{path}/{SIDECAR}", found, expected, remedy)
        raise ModelError("The model's rules for text cannot be read", [problem]) from error


def _foreign_encoding(network: Any, tokenizer: Any) -> Encoding:
    """Rules for a folder that says nothing: the text as it is, up to the model's own limit."""
    limits = [
        longest_input(network),
        getattr(network.config, "max_position_embeddings", None),
        tokenizer.model_max_length,
    ]
    # Tokenizers without a limit report an astronomic number.
    known = [int(limit) for limit in limits if limit is not None and limit < 10**6]
    return Encoding(max_tokens=min(known, default=2048), append_eos=False)


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


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars for short work; what transformers warns about (new heads, missing keys) is checked by us."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
