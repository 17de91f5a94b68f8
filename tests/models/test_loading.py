"""Model folders that load, and the many that do not: each says in one ModelError what is wrong with it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from small_models import FLAT_SHAPES, SHAPES, network_of, reward_model_of, word_tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardlab.config import Config
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ConfigError, ModelError
from rewardlab.models import located, tokenizers
from rewardlab.models.loading import load_reward_model, longest_input, new_reward_model, save_reward_model
from rewardlab.models.reward import RewardModel, grouped
from rewardlab.models.source import LoRA, ModelSource, product_precision, torch_device, torch_dtype
from rewardlab.models.tokenizers import load_tokenizer
from rewardlab.records import Prompt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small saved reward model."""
    save_reward_model(reward_model_of("llama", "shared"), tmp_path / "model", card="# card")
    return tmp_path / "model"


def foreign(network: Any, folder: Path, **tokenizer: Any) -> Path:
    """What a user of plain transformers leaves behind."""
    network.save_pretrained(folder)
    word_tokenizer(**tokenizer).save_pretrained(folder)
    return folder


def reward(model: RewardModel, prompt: str = "w1 ", completion: str = "w2 w3") -> float:
    with torch.no_grad():
        return model([grouped(model.encode([Prompt.of_text(prompt)], [[completion]])[0])]).item()


# --- what loads ----------------------------------------------------------------------------------------------------


def test_a_foreign_folder_is_read_as_it_is(tmp_path: Path) -> None:
    network = network_of("gpt2")
    model = load_reward_model(foreign(network, tmp_path / "model"))
    assert (model.layout, model.training) == ("shared", False)
    assert model.encoding == Encoding(max_tokens=128, append_eos=False)
    ids = torch.tensor([word_tokenizer()("w1 w2 w3")["input_ids"]])
    assert reward(model) == pytest.approx(network(input_ids=ids).logits.item(), abs=1e-5)


@pytest.mark.parametrize("missing", [{"pad_token": None}, {"pad_token": None, "eos_token": None, "unk_token": None}])
def test_a_foreign_folder_without_a_pad_token(missing: dict[str, None], tmp_path: Path) -> None:
    network = network_of("llama")
    path = foreign(network, tmp_path / "model", **missing)
    for layout in ("auto", "flat"):
        model = load_reward_model(path, layout=layout)
        with torch.no_grad():
            encoded = model.encode([Prompt.of_text("w1 ")], [["w2 w3", "w4", "w5 w6 w7"]])[0]
            together = model([grouped(encoded)])
            expected = [network(input_ids=torch.tensor([one.ids])).logits.item() for one in encoded]
        assert together.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", ["mistral", "bloom", "bert"])
def test_a_backbone_that_cannot_share_prefixes_says_so(
    shape: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = foreign(network_of(shape), tmp_path / "model")
    with caplog.at_level(logging.WARNING, logger="rewardlab"):
        model = load_reward_model(path, encoding=Encoding(max_tokens=100))
    assert model.layout == "flat"
    assert model.fallback.startswith(FLAT_SHAPES[shape]["model_type"])
    assert [record.getMessage() for record in caplog.records] == [
        f"flat layout instead of shared prefixes: {model.fallback}"
    ]


def test_flat_when_asked_for_is_no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="rewardlab"):
        model = load_reward_model(folder, layout="flat")
    assert (model.layout, model.fallback, caplog.records) == ("flat", "it was asked for", [])


def test_dropout_means_flat(folder: Path) -> None:
    source = ModelSource(path=str(folder))
    assert new_reward_model(source, Encoding(max_tokens=64), seed=0).layout == "shared"
    for options in ({"dropout": 0.1}, {"lora": LoRA(r=2, dropout=0.1)}):
        model = new_reward_model(source, Encoding(max_tokens=64), seed=0, **options)
        assert (model.layout, "dropout" in model.fallback) == ("flat", True)


@pytest.mark.parametrize("shape", ["gpt2", "bert", "opt", "llama"])
def test_dropout_is_what_was_asked_for_everywhere(shape: str, tmp_path: Path) -> None:
    """The checkpoint's own dropout is not kept: two passes of a training model are equal at 0 and differ at .5."""
    path = foreign(network_of(shape), tmp_path / "model")
    for dropout in (0.0, 0.5):
        model = new_reward_model(ModelSource(path=str(path)), Encoding(max_tokens=64), seed=0, dropout=dropout).train()
        assert (reward(model) == reward(model)) == (dropout == 0)


@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision(folder: Path, precision: Any, dtype: torch.dtype) -> None:
    model = load_reward_model(folder, precision=precision)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert reward(model) == pytest.approx(reward(load_reward_model(folder)), abs=0.05)
    assert torch_dtype("float16") == torch.float16


@pytest.mark.parametrize(
    ("model_type", "fields", "longest"),
    [
        ("gpt2", {"n_positions": 50, "n_embd": 8, "n_head": 2, "n_layer": 1}, 50),
        ("opt", {"hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 8}, 50),
        ("bert", {"hidden_size": 8, "intermediate_size": 8}, 50),
        ("roberta", {"hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 52}, 50),
        ("llama", {"hidden_size": 8, "intermediate_size": 8}, None),
    ],
)
def test_the_longest_input_is_really_the_longest(model_type: str, fields: dict[str, Any], longest: int | None) -> None:
    common = {"vocab_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 50}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = AutoConfig.for_model(model_type, num_labels=1, **(common | ids | fields))
    network = AutoModelForSequenceClassification.from_config(config).eval()
    assert longest_input(network) == longest
    if longest is not None:
        with torch.no_grad():
            network(input_ids=torch.full((1, longest), 3))
            with pytest.raises((IndexError, RuntimeError)):
                network(input_ids=torch.full((1, longest + 1), 3))


def test_sequences_longer_than_the_table_of_positions_are_refused(tmp_path: Path) -> None:
    path = foreign(network_of("gpt2"), tmp_path / "model")
    with pytest.raises(ModelError, match="at most 128"):
        new_reward_model(ModelSource(path=str(path)), Encoding(max_tokens=129), seed=0)
    with pytest.raises(ModelError, match="at most 128"):
        load_reward_model(path, encoding=Encoding(max_tokens=1024))


# --- what does not -------------------------------------------------------------------------------------------------


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "-"}))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def truncate(name: str, size: int) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return cut


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def only_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without(weights: dict[str, torch.Tensor], name: str) -> None:
    del weights[name]


def another_width(weights: dict[str, torch.Tensor]) -> None:
    weights["score.weight"] = torch.zeros(3, 32)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (remove("model.safetensors"), "model.safetensors"),
    "truncated weights": (truncate("model.safetensors", 5000), "cannot be loaded"),
    "empty weights": (truncate("model.safetensors", 0), "cannot be loaded"),
    "weights that are text": (write("model.safetensors", "hello " * 100), "cannot be loaded"),
    "only a pickle": (only_a_pickle, "model.safetensors"),
    "no configuration": (remove("config.json"), "cannot be loaded"),
    "truncated configuration": (truncate("config.json", 100), "cannot be loaded"),
    "a list as configuration": (write("config.json", "[1, 2]"), "cannot be loaded"),
    "an empty configuration": (write("config.json", "{}"), "cannot be loaded"),
    "bytes as configuration": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00") and None, "loaded"),
    "unknown architecture": (edit_config(model_type="nonesuch"), "nonesuch"),
    "negative size": (edit_config(hidden_size=-4), "cannot be loaded"),
    "text for a size": (edit_config(hidden_size="wide"), "cannot be loaded"),
    "another size": (edit_config(hidden_size=64), r"\[100, 32\] instead of \[100, 64\]"),
    "no head": (edit_weights(lambda weights: without(weights, "score.weight")), "no trained head"),
    "a head of another width": (edit_weights(another_width), r"no trained head.*\[3, 32\] instead of \[1, 32\]"),
    "no layer": (edit_weights(lambda weights: without(weights, "model.layers.1.mlp.up_proj.weight")), "up_proj"),
    "two labels": (
        edit_config(id2label={"0": "A", "1": "B"}, label2id={"A": 0, "B": 1}, num_labels="-"),
        "2 labels|be",
    ),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer"),
    "truncated tokenizer": (truncate("tokenizer.json", 300), "tokenizer"),
    "rules that are text": (write("rewardlab.json", "hello"), "rewardlab.json"),
    "rules without rules": (write("rewardlab.json", "{}"), "rewardlab.json"),
    "rules that are a list": (write("rewardlab.json", "[]"), "rewardlab.json"),
    "rules of a later version": (write("rewardlab.json", '{"format": 2, "encoding": {}}'), "format 2"),
    "unknown rules": (write("rewardlab.json", '{"format": 1, "encoding": {"max_tokns": 9}}'), "rewardlab.json"),
    "an unknown form of prompts": (
        write("rewardlab.json", '{"format": 1, "encoding": {}, "prompts": "poems"}'),
        "prompts 'poems'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_clear_error(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    break_it, expected = BROKEN[name]
    break_it(folder)
    with pytest.raises(ModelError, match=expected) as caught:
        load_reward_model(folder)
    assert str(folder) in str(caught.value)
    assert caught.value.problems
    assert "Traceback" not in "".join(capfd.readouterr())


def test_all_that_is_wrong_with_the_weights_comes_at_once(folder: Path) -> None:
    def both(weights: dict[str, torch.Tensor]) -> None:
        del weights["score.weight"], weights["model.norm.weight"]

    edit_weights(both)(folder)
    with pytest.raises(ModelError) as caught:
        load_reward_model(folder)
    assert len(caught.value.problems) == 2


def test_a_language_model_is_no_reward_model_but_a_backbone(tmp_path: Path) -> None:
    fields = dict(SHAPES["llama"])
    language_model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    path = foreign(language_model, tmp_path / "model")
    with pytest.raises(ModelError, match="no trained head") as caught:
        load_reward_model(path)
    assert "rewardlab train reward" in str(caught.value)

    model = new_reward_model(ModelSource(path=str(path)), Encoding(max_tokens=64), seed=0)
    assert torch.equal(model.network.model.norm.weight, language_model.model.norm.weight)
    assert model.network.config.num_labels == 1


def test_the_real_language_model_as_a_backbone(shared: Path) -> None:
    source = ModelSource(path=str(shared / "models" / "stories260k"))
    with pytest.raises(ModelError, match="no trained head"):
        load_reward_model(shared / "models" / "stories260k")
    model = new_reward_model(source, Encoding(max_tokens=512), seed=0)
    assert (model.layout, model.fallback) == ("shared", "")


@pytest.mark.parametrize("path", ["", "/no/such/folder", "./model", "../model", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_for_elsewhere(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(located, "commit_of", None)
    with pytest.raises(ModelError, match="no such folder"):
        load_tokenizer(path, ModelSource(path=path))


@pytest.mark.parametrize("path", ["./first/model", "first/model"])
def test_a_run_that_is_named_without_the_folder_of_all_runs(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have the form of a hub id, which the hub does not know, or cannot be asked for."""
    home, there = tmp_path / "home", tmp_path / "home" / "first" / "model"
    there.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def said() -> str:
        with pytest.raises(ModelError) as caught:
            load_tokenizer(path, ModelSource(path=path))
        return str(caught.value)

    failures = (RepositoryNotFoundError("unknown", response=Mock()), OSError("no network"))
    for failure in failures:
        monkeypatch.setattr(located, "commit_of", Mock(side_effect=failure))
        monkeypatch.setenv("REWARDLAB_HOME", str(home))
        assert f"Did you mean {there}?" in said()
        monkeypatch.setenv("REWARDLAB_HOME", str(tmp_path / "other"))
        assert f"which begins in {tmp_path}." in said()
        monkeypatch.setenv("REWARDLAB_GROUP", "no-such-group")
        assert f"which begins in {tmp_path}." in said()
        monkeypatch.delenv("REWARDLAB_GROUP")


def test_the_home_of_a_user_is_the_shells_to_find() -> None:
    with pytest.raises(ModelError, match="~ stands for itself"):
        load_tokenizer("~/model", ModelSource(path="~/model"))


@pytest.mark.parametrize(
    "shape", [{"model_type": "nonesuch"}, {"model_type": "llama", "hidden_size": -1}, {"model_type": "t5x", "a": 1}]
)
def test_an_impossible_shape(shape: dict[str, Any], tmp_path: Path) -> None:
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.shape"):
        new_reward_model(ModelSource(shape=shape, tokenizer=str(tmp_path)), Encoding(), seed=0)


@pytest.mark.parametrize(
    "values", [{}, {"path": "a", "shape": {"model_type": "llama"}}, {"shape": {}}, {"shape": {"model_type": "llama"}}]
)
def test_a_source_is_a_path_or_a_shape_with_a_tokenizer(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ModelSource.build(values)


def test_a_device_that_is_not_there() -> None:
    assert torch_device("cpu") == "cpu"
    assert torch_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="abacus"):
        torch_device("abacus")


@pytest.mark.parametrize(("name", "is_there"), [("cuda", True), ("cuda:1", True), ("cuda:2", False), ("cuda:x", False)])
def test_a_device_has_a_number_up_to_their_count(name: str, is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if is_there:
        assert torch_device(name) == name
    else:
        with pytest.raises(ModelError, match=rf"found {name}; expected .*cuda:0, cuda:1, .*cpu"):
            torch_device(name)


# --- encoders and their heads --------------------------------------------------------------------------------------

_NARROW = {"vocab_size": 100, "max_position_embeddings": 128, "initializer_range": 0.06}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": FLAT_SHAPES["bert"],
    "distilbert": {"model_type": "distilbert", "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, **_NARROW},
    "deberta-v2": {
        "model_type": "deberta-v2",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        **_NARROW,
    },
    "xlnet": {"model_type": "xlnet", "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": 100},
}


def backbone(shape: str, folder: Path, edit: Callable[[dict[str, torch.Tensor]], object] = lambda _: None) -> Path:
    """A pretrained encoder without a head, nor a pooler as a language model would leave it."""
    fields = dict(ENCODERS[shape])
    network = AutoModel.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    path = foreign(network, folder)
    edit_weights(lambda weights: [weights.pop(name) for name in list(weights) if "pooler" in name])(path)
    edit_weights(edit)(path)
    return path


@pytest.mark.parametrize(
    ("can", "best"),
    [
        ({"avx2": True, "avx512_bf16": False}, "float32"),
        ({"avx512_f": True, "avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        (None, "float32"),
    ],
)
def test_products_are_bf16_where_the_cpu_multiplies_it_in_hardware(
    can: dict[str, bool] | None, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if can is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert product_precision("auto", "cpu") == best
    assert [product_precision(asked, "cpu") for asked in ("float32", "bfloat16")] == ["float32", "bfloat16"]


@pytest.mark.parametrize(("in_hardware", "best"), [(True, "bfloat16"), (False, "float32")])
def test_products_are_bf16_where_the_gpu_multiplies_it_in_hardware(
    in_hardware: bool, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: in_hardware)
    assert product_precision("auto", "cuda:1") == best
    assert product_precision("auto", "mps") == "bfloat16"


@pytest.mark.parametrize("shape", ENCODERS)
def test_every_encoder_gets_a_new_head(shape: str, tmp_path: Path) -> None:
    path = backbone(shape, tmp_path / "model")
    with pytest.raises(ModelError, match="no trained head"):
        load_reward_model(path)
    model = new_reward_model(ModelSource(path=str(path)), Encoding(max_tokens=64), seed=0)
    pretrained = load_file(path / "model.safetensors")
    own = model.network.base_model.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in pretrained.items())

    def truncated(weights: dict[str, torch.Tensor]) -> None:
        del weights[max(name for name in weights if "layer" in name)]

    with pytest.raises(ModelError, match="Is it truncated"):
        new_reward_model(
            ModelSource(path=str(backbone(shape, tmp_path / "truncated", truncated))), Encoding(max_tokens=64), seed=0
        )


@pytest.mark.parametrize("shape", ENCODERS)
def test_adapters_train_whatever_is_random(shape: str, tmp_path: Path) -> None:
    """What stays frozen comes from the checkpoint."""
    path = backbone(shape, tmp_path / "model")
    pretrained = load_file(path / "model.safetensors")
    model = new_reward_model(ModelSource(path=str(path)), Encoding(max_tokens=64), seed=0, lora=LoRA(r=2))
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    copies = [name for name, weight in model.named_parameters() if "original_module" in name]
    assert copies, "the head is trained and saved whole"
    known = [weight for name, weight in model.named_parameters() if not weight.requires_grad and name not in copies]
    assert len(known) == len(frozen) - len(copies) == len(pretrained)


@pytest.mark.parametrize("shape", ENCODERS)
def test_a_trained_encoder_scores_a_text_alike_in_any_batch(shape: str, tmp_path: Path) -> None:
    path = backbone(shape, tmp_path / "model")
    model = new_reward_model(ModelSource(path=str(path)), Encoding(max_tokens=64), seed=0)
    save_reward_model(model, tmp_path / "saved", card="# card")
    loaded = load_reward_model(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    encoded = loaded.encode([Prompt.of_text("w1 ")], [["w2 w3", "w4", "w5 w6 w7 w8 w9"]])[0]
    with torch.no_grad():
        expected = [plain(input_ids=torch.tensor([one.ids])).logits.item() for one in encoded]
        assert loaded([grouped(encoded)]).tolist() == pytest.approx(expected, abs=1e-5)


# --- weights that are left over ------------------------------------------------------------------------------------


def extra(**weights: torch.Tensor) -> Callable[[Path], None]:
    named = {name.replace("__", "."): weight for name, weight in weights.items()}
    return edit_weights(lambda stored: stored.update(named))


def test_weights_of_a_language_model_beside_a_head_change_nothing(folder: Path) -> None:
    expected = reward(load_reward_model(folder))
    extra(lm_head__weight=torch.ones(100, 32), embed_out__weight=torch.ones(100, 32), cls__predictions=torch.ones(3))(
        folder
    )
    assert reward(load_reward_model(folder)) == pytest.approx(expected, abs=1e-6)


def test_a_pooler_that_the_head_does_not_read_changes_nothing(tmp_path: Path) -> None:
    """Old checkpoints of RoBERTa have one."""
    fields = {key: value for key, value in FLAT_SHAPES["bert"].items() if key != "model_type"}
    config = AutoConfig.for_model("roberta", num_labels=1, **fields | {"max_position_embeddings": 130})
    path = foreign(AutoModelForSequenceClassification.from_config(config), tmp_path / "model")
    expected = reward(load_reward_model(path))
    extra(roberta__pooler__dense__weight=torch.ones(32, 32), roberta__pooler__dense__bias=torch.ones(32))(path)
    assert reward(load_reward_model(path)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["score__bias", "v_head__summary__weight", "value_head__weight"])
def test_a_head_with_more_than_the_architecture_reads_is_refused(name: str, folder: Path) -> None:
    extra(**{name: torch.ones(1)})(folder)
    with pytest.raises(ModelError, match=f"does not have: {name.replace('__', '.')}"):
        load_reward_model(folder)
    new_reward_model(ModelSource(path=str(folder)), Encoding(max_tokens=64), seed=0)


def test_a_head_of_another_name_is_said_with_its_name(folder: Path) -> None:
    def rename(weights: dict[str, torch.Tensor]) -> None:
        weights["reward.weight"] = weights.pop("score.weight")

    edit_weights(rename)(folder)
    with pytest.raises(ModelError, match=r"(?s)no trained head \(missing: score\.weight\).*reward\.weight"):
        load_reward_model(folder)


# --- the hub -------------------------------------------------------------------------------------------------------


class Hub:
    """Answers like the hub's client, and counts the questions."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self) -> Hub:
        return self

    def repo_info(self, name: str, *, revision: str | None, repo_type: str, timeout: float) -> Any:
        assert repo_type == "model"
        self.asked.append((name, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(sha=self.answer)


def test_an_unreachable_hub_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers would repeat each request five times; there is one question, and no download after it."""
    hub = Hub(ConnectionError("no route to host"))
    monkeypatch.setattr("rewardlab.store.hub.HfApi", hub)
    monkeypatch.setattr(tokenizers.AutoTokenizer, "from_pretrained", None)
    with pytest.raises(ModelError, match=r"out of reach.*no route to host"):
        load_reward_model("some-owner/some-model", revision="v1")
    assert hub.asked == [("some-owner/some-model", "v1")]


def test_the_real_client_without_a_network_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its retries sleep in between; nothing here may."""

    def refuse(*_: Any) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", refuse)
    with pytest.raises(ModelError, match="some-owner/some-model"):
        load_reward_model("some-owner/some-model")


@pytest.fixture
def cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The saved model as a hub id whose commit `c0ffee` is in the cache; the hub itself cannot be reached."""
    commit = "c0ffee" + "0" * 34
    repository = tmp_path / "cache" / "models--some-owner--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rewardlab.store.hub.HfApi", Hub(ConnectionError("no route")))
    return "some-owner/some-model"


def test_the_cache_serves_where_the_hub_is_out_of_reach(cached: str) -> None:
    """A hub id behaves like the folder it was uploaded from: rules included."""
    model = load_reward_model(cached)
    assert model.encoding == Encoding(max_tokens=128)
    assert reward(model) == reward(reward_model_of("llama", "shared"))
    with pytest.raises(ModelError, match="out of reach"):
        load_reward_model(cached, revision="v2")


def test_everything_is_read_from_one_commit(cached: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `main` was when it was asked for, even if it moves before the last file is there."""
    commit = "c0ffee" + "0" * 34
    hub = Hub(commit)
    monkeypatch.setattr("rewardlab.store.hub.HfApi", hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = load_reward_model(cached, revision="main")
    assert hub.asked[0] == (cached, "main")
    assert set(hub.asked[1:]) == {(cached, commit)}
    assert reward(model) == reward(reward_model_of("llama", "shared"))


def test_configurations_have_help_for_every_field() -> None:
    for config in (ModelSource, LoRA):
        assert issubclass(config, Config)
        assert all(field.description for field in config.model_fields.values())
